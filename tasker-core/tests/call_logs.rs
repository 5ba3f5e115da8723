//! What a service says while its call is under way, and what it is asked about its health with.
#![cfg(feature = "quickjs")]
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use tasker_core::service::{Health, ServiceCall, ServiceDescription, Services, service_fn};
use tasker_core::{Engine, Json, LogCursor, LogLevel, MemoryStorage, ServiceError, ServiceProxy};
use tokio::sync::Semaphore;

#[tokio::test]
async fn lines_of_a_service_are_in_the_log_before_the_answer_and_while_it_works() {
    let go = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&go);
    let talker = service_fn("talker", move |call: ServiceCall| {
        let waiting = Arc::clone(&waiting);
        async move {
            call.log(
                LogLevel::Info,
                "half",
                Some(Json::from(&json!({"n": 1})).unwrap()),
            );
            waiting.acquire().await.unwrap().forget();
            call.log(LogLevel::Warn, "done", None);
            Json::from("said").map_err(ServiceError::internal)
        }
    });
    let engine = Engine::builder()
        .storage(MemoryStorage::new())
        .service(talker)
        .start()
        .await
        .unwrap();
    engine
        .publish("module.exports = async function talk(_, { tools }) { return await tools.talker.speak() }")
        .await
        .unwrap();
    let run = engine.submit("talk", &()).await.unwrap();
    let page = async || run.log_page(LogCursor::default()).await.unwrap();
    // The first line is there while the service is still at work.
    let seen = tokio::time::timeout(std::time::Duration::from_mins(5), async {
        while page().await.lines.is_empty() {
            tokio::task::yield_now().await;
        }
    });
    seen.await.unwrap();
    go.add_permits(1);
    assert_eq!(run.result::<String>().await.unwrap(), "said");
    let lines: Vec<_> = page()
        .await
        .lines
        .into_iter()
        .map(|line| line.line)
        .collect();
    let said: Vec<_> = lines
        .iter()
        .map(|line| (line.level, &*line.message))
        .collect();
    assert_eq!(said, [(LogLevel::Info, "half"), (LogLevel::Warn, "done")]);
    assert_eq!(lines[0].data.as_ref().unwrap().text(), r#"{"n":1}"#);
    engine.shutdown().await.unwrap();
}

/// Works when the other service gives it its key.
struct Needy;

#[async_trait]
impl ServiceProxy for Needy {
    fn describe(&self) -> ServiceDescription {
        ServiceDescription::new("needy")
    }

    async fn call(&self, _: ServiceCall) -> Result<Json, ServiceError> {
        Ok(Json::null())
    }

    async fn health_within(&self, call: &ServiceCall) -> Health {
        match call.services().call::<String>("keys", "get", &[]).await {
            Ok(key) if key == "k" => Health::Healthy,
            other => Health::Unhealthy(format!("{other:?}")),
        }
    }
}

#[tokio::test]
async fn a_service_that_is_asked_how_it_is_reaches_the_others() {
    let keys = service_fn("keys", async |_| {
        Json::from("k").map_err(ServiceError::internal)
    });
    let services = Services::builder()
        .add(Arc::new(Needy))
        .add_private(keys)
        .build()
        .unwrap();
    assert_eq!(services.health("needy").await, Some(Health::Healthy));
}
