//! Is everything well? Checks that a person asks for, by an action in the body or in the query.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tasker_core::{Engine, Health, Json, Processed, ServiceError, TaskSource};

use super::answer::{self, Asked, of_engine};
use super::task_executor;
use crate::view::RunView;

/// What can be asked for.
pub(super) const ACTIONS: [&str; 4] = [
    "test-direct-gapi",
    "test-stack-processor",
    "services",
    "database",
];

/// The tasks of `test-stack-processor`; published when it is first asked for.
const TASKS: [&str; 2] = [
    include_str!("../../templates/self-test.js"),
    include_str!("../../templates/self-test-child.js"),
];
const SELF_TEST: &str = "tasker-self-test";
/// How long the self-test may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Steps of the self-test by hand, at most: others may have work there too.
const STEPS: usize = 200;

#[derive(Clone)]
struct Shop {
    engine: Engine,
    by_hand: Option<Engine>,
}

pub(super) fn routes(engine: Engine, by_hand: Option<Engine>) -> Router {
    Router::new()
        .route("/", post(perform).get(perform))
        .route("/health", get(health).post(health))
        .with_state(Shop { engine, by_hand })
}

#[derive(Default, Deserialize)]
struct Asking {
    action: Option<String>,
    customer: Option<String>,
}

async fn perform(
    State(shop): State<Shop>,
    Extension(asked): Extension<Asked>,
    query: Result<Query<Asking>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let result: Result<Value, ServiceError> = async {
        let asking = asking(query, body)?;
        match asking.action.as_deref() {
            Some("test-direct-gapi") => gapi(&shop.engine, asking.customer).await,
            Some("test-stack-processor") => self_test(&shop).await,
            Some("services") => Ok(services(&shop.engine).await),
            Some("database") => database(&shop.engine).await,
            None => Ok(json!({ "service": "admin-debug", "availableActions": ACTIONS })),
            Some(other) => Err(unknown(other)),
        }
    }
    .await;
    asked.answer(result)
}

/// The body is stronger than the query, which must make sense all the same.
fn asking(
    query: Result<Query<Asking>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Asking, ServiceError> {
    let Query(query) =
        query.map_err(|rejection| ServiceError::validation(rejection.body_text()))?;
    if let Some(action) = &query.action
        && !ACTIONS.contains(&action.as_str())
    {
        return Err(unknown(action));
    }
    let bytes = body.map_err(|rejection| ServiceError::validation(rejection.body_text()))?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(query);
    }
    let form = format!(r#"send {{"action":"…"}}; there are {}"#, ACTIONS.join(", "));
    let said: Asking = answer::of_form(&answer::body(Ok(bytes))?, &form)?;
    Ok(Asking {
        action: said.action.or(query.action),
        customer: said.customer.or(query.customer),
    })
}

fn unknown(action: &str) -> ServiceError {
    let mut error = ServiceError::validation(format!(
        "there is no action {action:?}; there are {}",
        ACTIONS.join(", ")
    ))
    .with_code("UNKNOWN_ACTION");
    error.details = Json::from(&json!({ "availableActions": ACTIONS })).ok();
    error
}

/// Asks Google for the domains of a customer, past tasks and runs.
async fn gapi(engine: &Engine, customer: Option<String>) -> Result<Value, ServiceError> {
    let customer = customer.unwrap_or_else(|| "my_customer".to_owned());
    let fit = |c: char| c.is_ascii_alphanumeric() || "_@.-".contains(c);
    if !(1..=100).contains(&customer.len()) || !customer.chars().all(fit) {
        return Err(ServiceError::validation(format!(
            "customer is {customer:?}; it is an id of Google's, like C01abc2de, or my_customer"
        )));
    }
    let arguments = [Json::from(&json!({ "customer": customer })).map_err(ServiceError::internal)?];
    let found: Value = engine
        .services()
        .call("gapi", "admin.directory.domains.list", &arguments)
        .await?;
    let keys: Vec<&String> = found
        .as_object()
        .map(|object| object.keys().collect())
        .unwrap_or_default();
    let domains = found["domains"].as_array().map_or(0, Vec::len);
    Ok(json!({
        "success": true,
        "message": "gapi answered",
        "resultType": if found.is_object() { "object" } else { "other" },
        "resultKeys": keys,
        "domainsCount": domains,
        "itemsCount": domains,
        "fullResult": found,
    }))
}

/// Runs a task that calls a nested task, through the database and whatever drives it.
async fn self_test(shop: &Shop) -> Result<Value, ServiceError> {
    for text in TASKS {
        let source = TaskSource::text(text);
        shop.engine
            .publish_source(source)
            .await
            .map_err(of_engine)?;
    }
    let run = shop
        .engine
        .submit(SELF_TEST, &json!({ "n": 20 }))
        .label("tasker", "self-test")
        .await
        .map_err(of_engine)?;
    let root = run.trace().await.map_err(of_engine)?.root;
    let mut steps = 0;
    if let Some(by_hand) = &shop.by_hand {
        while steps < STEPS && !run.status().await.map_err(of_engine)?.is_terminal() {
            match by_hand.process_next().await.map_err(of_engine)? {
                Processed::Nothing => break,
                _ => steps += 1,
            }
        }
    }
    let ended = tokio::time::timeout(PATIENCE, run.outcome()).await;
    let info = run.info().await.map_err(of_engine)?;
    let result = info.clone();
    let view = RunView::of(result);
    let text = view.result.as_ref().map(|json| json.text().to_owned());
    if ended.is_err() || text.as_deref() != Some("{\"doubled\":40}") {
        return Err(ServiceError::internal(format!(
            "the self-test run {} is {} after {} s and has not answered {{\"doubled\":40}}; see: tasker trace {}",
            info.id,
            info.status,
            PATIENCE.as_secs(),
            info.id
        ))
        .with_code("SELF_TEST_FAILED"));
    }
    Ok(json!({
        "success": true,
        "message": "a task and its nested task went through the stack processor",
        "taskRunId": info.id,
        "stackRunId": root.map(|root| root.id),
        "stackRunStatus": info.status,
        "stepsByHand": steps,
        "fullResult": view.result,
    }))
}

/// Every service with its health.
async fn services(engine: &Engine) -> Value {
    let services = engine.services();
    let health = services.health_all().await;
    let all: Vec<Value> = services
        .list()
        .into_iter()
        .map(|service| {
            json!({
                "name": service.name,
                "description": service.description,
                "private": services.is_private(&service.name),
                "health": health.get(&service.name),
            })
        })
        .collect();
    let unhealthy = health
        .values()
        .filter(|health| matches!(health, Health::Unhealthy(_)))
        .count();
    json!({ "success": unhealthy == 0, "unhealthy": unhealthy, "services": all })
}

/// Checks every row against the rules of the engine.
async fn database(engine: &Engine) -> Result<Value, ServiceError> {
    let violations = engine.audit().await.map_err(of_engine)?;
    let lines: Vec<String> = violations
        .iter()
        .map(|violation| format!("{violation:?}"))
        .collect();
    Ok(json!({ "success": lines.is_empty(), "violations": lines }))
}

async fn health(State(shop): State<Shop>, Extension(asked): Extension<Asked>) -> Response {
    task_executor::checked(&shop.engine, &asked, "admin-debug").await
}
