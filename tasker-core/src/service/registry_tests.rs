//! Tests of the registry.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use async_trait::async_trait;

use super::*;
use crate::service::{MethodDescription, RetryPolicy, Service, service_fn};

fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

/// A clock that stands still until it is moved.
fn clock() -> (Arc<AtomicI64>, Clock) {
    let now = Arc::new(AtomicI64::new(1_000));
    let read = Arc::clone(&now);
    (
        now,
        Arc::new(move || Timestamp::from_millis(read.load(Ordering::SeqCst))),
    )
}

/// Answers health from a list of one, counts how often it was asked.
struct Sick {
    name: &'static str,
    health: Mutex<Health>,
    asked: AtomicU32,
    calls: AtomicU32,
    kind: ServiceErrorType,
}

impl Sick {
    fn new(name: &'static str, kind: ServiceErrorType) -> Arc<Self> {
        Arc::new(Self {
            name,
            health: Mutex::new(Health::Healthy),
            asked: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            kind,
        })
    }
}

#[async_trait]
impl ServiceProxy for Sick {
    fn describe(&self) -> ServiceDescription {
        ServiceDescription::new(self.name).open()
    }

    async fn call(&self, _: ServiceCall) -> Result<Json, ServiceError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Err(ServiceError::of(self.kind, "it is ill"))
    }

    async fn health(&self) -> Health {
        self.asked.fetch_add(1, Ordering::SeqCst);
        lock(&self.health).clone()
    }
}

fn answers(name: &'static str) -> impl ServiceProxy {
    service_fn(name, async |call: ServiceCall| {
        Ok(Json::from(&format!("{}.{}", call.service, call.method())).unwrap())
    })
}

#[tokio::test]
async fn unknown_services_and_methods_name_what_is_near() {
    let services = Services::builder()
        .add(
            Service::new("keystore")
                .method("getKey", async |_, _: Json| Ok(1))
                .method("setKey", async |_, _: Json| Ok(1)),
        )
        .build()
        .unwrap();
    for (service, method, message) in [
        (
            "keystor",
            "getKey",
            r#"there is no service "keystor"; did you mean "keystore"?"#,
        ),
        (
            "zzz",
            "getKey",
            r#"there is no service "zzz"; register it when the engine is built"#,
        ),
        (
            "keystore",
            "getkey",
            r#"service keystore has no method "getkey"; did you mean "getKey"?"#,
        ),
        (
            "keystore",
            "drop",
            r#"service keystore has no method "drop"; it has getKey, setKey"#,
        ),
    ] {
        let error = services
            .invoke(ServiceCall::test(service, method, vec![]))
            .await
            .unwrap_err();
        assert_eq!(error.kind, ServiceErrorType::NotFound);
        assert_eq!(error.message, message);
    }
    assert_eq!(services.nearest("KeyStore"), Some("keystore".to_owned()));
    assert_eq!(services.nearest("openai"), None);
}

#[tokio::test]
async fn a_panic_becomes_an_internal_error_without_its_text() {
    let services = Services::builder()
        .add(service_fn("bad", async |call: ServiceCall| {
            assert!(call.method() != "now", "the key is sk-12345");
            Ok(Json::null())
        }))
        .build()
        .unwrap();
    let error = services
        .invoke(ServiceCall::test("bad", "now", vec![]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::Internal);
    assert_eq!(error.code(), "SERVICE_PANICKED");
    assert!(!format!("{error:?}{:?}", error.to_failure()).contains("sk-12345"));
    services
        .invoke(ServiceCall::test("bad", "later", vec![]))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_fallback_answers_only_when_the_service_itself_failed() {
    for (kind, falls) in ServiceErrorType::ALL.map(|kind| {
        let falls = matches!(kind, ServiceErrorType::External | ServiceErrorType::Timeout);
        (kind, falls)
    }) {
        let services = Services::builder()
            .add(Sick::new("first", kind))
            .add(answers("second"))
            .fallback("first", "second")
            .build()
            .unwrap();
        let answer = services
            .invoke(ServiceCall::test("first", "a.b", vec![]))
            .await;
        match answer {
            Ok(answer) => assert_eq!((answer, falls), (json(r#""second.a.b""#), true), "{kind}"),
            Err(error) => assert_eq!((error.kind, falls), (kind, false), "{kind}"),
        }
    }
}

#[tokio::test]
async fn a_service_known_to_be_unhealthy_is_not_asked_when_it_has_a_fallback() {
    let (now, clock) = clock();
    let sick = Sick::new("first", ServiceErrorType::Conflict);
    *lock(&sick.health) = Health::Unhealthy("no disk".to_owned());
    let services = Services::builder()
        .add(Arc::clone(&sick))
        .add(answers("second"))
        .fallback("first", "second")
        .with_clock(clock)
        .build()
        .unwrap();
    let call = || ServiceCall::test("first", "a", vec![]);
    services.health("first").await.unwrap();
    assert_eq!(
        services.invoke(call()).await.unwrap(),
        json(r#""second.a""#)
    );
    assert_eq!(sick.calls.load(Ordering::SeqCst), 0);
    // What is known of its health is too old: it is asked.
    now.fetch_add(HEALTH_CACHE_MS, Ordering::SeqCst);
    services.invoke(call()).await.unwrap_err();
    assert_eq!(sick.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn when_the_fallback_fails_too_the_first_error_stays_and_both_are_told() {
    let services = Services::builder()
        .add(Sick::new("first", ServiceErrorType::Timeout))
        .add(Sick::new("second", ServiceErrorType::Validation))
        .fallback("first", "second")
        .build()
        .unwrap();
    let error = services
        .invoke(ServiceCall::test("first", "a", vec![]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::Timeout);
    assert_eq!(
        error.message,
        "it is ill; its fallback second failed too: it is ill"
    );
}

#[tokio::test]
async fn health_is_asked_once_in_thirty_seconds() {
    let (now, clock) = clock();
    let sick = Sick::new("s", ServiceErrorType::Internal);
    let services = Services::builder()
        .add(Arc::clone(&sick))
        .with_clock(clock)
        .build()
        .unwrap();
    let many = (0..10).map(|_| services.health("s"));
    let all = futures::future::join_all(many).await;
    assert!(all.iter().all(|health| *health == Some(Health::Healthy)));
    assert_eq!(sick.asked.load(Ordering::SeqCst), 1);
    *lock(&sick.health) = Health::Degraded("slow".to_owned());
    now.fetch_add(HEALTH_CACHE_MS - 1, Ordering::SeqCst);
    assert_eq!(services.health("s").await, Some(Health::Healthy));
    now.fetch_add(1, Ordering::SeqCst);
    assert_eq!(
        services.health_all().await["s"],
        Health::Degraded("slow".to_owned())
    );
    assert_eq!(sick.asked.load(Ordering::SeqCst), 2);
    assert_eq!(services.health("t").await, None);
}

struct Fluent(ServiceDescription);
#[async_trait]
impl ServiceProxy for Fluent {
    fn describe(&self) -> ServiceDescription {
        self.0.clone()
    }
    async fn call(&self, _: ServiceCall) -> Result<Json, ServiceError> {
        Ok(Json::null())
    }
}

#[tokio::test]
async fn policies_come_from_the_description_then_from_the_engine() {
    let timeout = |ms| MethodPolicy {
        timeout_ms: Some(ms),
        ..MethodPolicy::default()
    };
    let description = ServiceDescription::new("db")
        .fluent()
        .policy(timeout(1))
        .method(MethodDescription::new("insert").policy(timeout(2)))
        .method(MethodDescription::new("select"));
    let services = Services::builder()
        .add(Fluent(description))
        .override_policy("db", Some("select"), timeout(3))
        .override_policy(
            "db",
            None,
            MethodPolicy {
                retry: Some(RetryPolicy::attempts(4)),
                ..MethodPolicy::default()
            },
        )
        .build()
        .unwrap();
    for (path, ms) in [
        ("from().insert().select()", 2),
        ("from().select().eq()", 3),
        ("rpc()", 1),
        ("select", 3),
    ] {
        let policy = services.policy("db", path);
        assert_eq!(policy.timeout_ms, Some(ms), "{path}");
        assert_eq!(policy.retry.attempts, 4, "{path}");
    }
    assert_eq!(services.policy("none", "x"), MethodPolicy::defaults());
}

#[tokio::test]
async fn a_service_reaches_others_with_the_run_deadline_and_trace_of_its_call() {
    let (_, clock) = clock();
    let seen: Arc<Mutex<Vec<ServiceCall>>> = Arc::default();
    let keep = Arc::clone(&seen);
    let services = Services::builder()
        .add_private(service_fn("keystore", move |call: ServiceCall| {
            lock(&keep).push(call);
            async { Ok(Json::from("secret").unwrap()) }
        }))
        .add(Service::new("openai").method("ask", async |c, (): ()| {
            let services = c.call.services();
            let key = Json::from("K").unwrap();
            for _ in 0..2 {
                services
                    .call::<String>("keystore", "getKey", std::slice::from_ref(&key))
                    .await?;
            }
            services.call::<String>("keystore", "hasKey", &[key]).await
        }))
        .with_clock(clock)
        .build()
        .unwrap();
    assert!(services.is_private("keystore"));
    assert!(!services.is_private("openai"));
    for _ in 0..2 {
        let mut call = ServiceCall::test("openai", "ask", vec![]);
        call.correlation_id = Some("c-1".into());
        call.traceparent = Some("00-a-b-01".into());
        call.deadline = Some(Timestamp::from_millis(60_000));
        services.invoke(call).await.unwrap();
    }
    let seen = lock(&seen);
    let keys: Vec<&str> = seen.iter().map(|call| &*call.idempotency_key).collect();
    // Each question has its own key, and the second attempt of the whole call asks with the same keys.
    assert_eq!(keys[..3], keys[3..]);
    assert_eq!(std::collections::BTreeSet::from_iter(&keys).len(), 3);
    for call in seen.iter() {
        assert_eq!(call.correlation_id.as_deref(), Some("c-1"));
        assert_eq!(call.traceparent.as_deref(), Some("00-a-b-01"));
        assert_eq!(call.deadline, Some(Timestamp::from_millis(60_000)));
        assert_eq!((call.task.as_str(), call.depth), ("test", 1));
    }
}

#[tokio::test]
async fn services_that_call_in_a_circle_end_with_a_configuration_error() {
    let depth = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&depth);
    let services = Services::builder()
        .add(service_fn("round", move |call: ServiceCall| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { call.services().call("round", "again", &[]).await }
        }))
        .build()
        .unwrap();
    let error = services
        .invoke(ServiceCall::test("round", "begin", vec![]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::Configuration);
    assert!(error.message.contains("round.again"), "{}", error.message);
    assert_eq!(depth.load(Ordering::SeqCst), MAX_DEPTH + 1);
}

#[tokio::test]
async fn a_call_from_the_host_ends_at_its_timeout_or_deadline() {
    let (now, clock) = clock();
    let services = Services::builder()
        .add(service_fn("slow", async |_: ServiceCall| {
            std::future::pending::<()>().await;
            Ok(Json::null())
        }))
        .add(service_fn("outer", async |call: ServiceCall| {
            call.services().call("slow", "x", &[]).await
        }))
        .override_policy(
            "slow",
            None,
            MethodPolicy {
                timeout_ms: Some(10),
                ..MethodPolicy::default()
            },
        )
        .with_clock(clock)
        .build()
        .unwrap();
    let error = services.call::<Json>("slow", "x", &[]).await.unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::Timeout);
    // A deadline that has passed: the other service is not asked at all.
    let mut call = ServiceCall::test("outer", "x", vec![]);
    call.deadline = Some(Timestamp::from_millis(now.load(Ordering::SeqCst)));
    let error = services.invoke(call).await.unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::Timeout);
    assert!(
        error.message.starts_with("slow.x did not answer"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn shutdown_and_reconcile_reach_the_proxy_and_survive_panics() {
    struct Odd(AtomicU32);
    #[async_trait]
    impl ServiceProxy for Odd {
        fn describe(&self) -> ServiceDescription {
            ServiceDescription::new("odd").open()
        }
        async fn call(&self, _: ServiceCall) -> Result<Json, ServiceError> {
            Ok(Json::null())
        }
        async fn reconcile(&self, call: &ServiceCall) -> Result<Reconciled, ServiceError> {
            assert!(call.method() != "panic");
            Ok(Reconciled::Happened(json("1")))
        }
        async fn shutdown(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("at the end");
        }
    }
    let odd = Arc::new(Odd(AtomicU32::new(0)));
    let services = Services::builder().add(Arc::clone(&odd)).build().unwrap();
    let call = |method| ServiceCall::test("odd", method, vec![]);
    let happened = services.reconcile(&call("x")).await;
    assert_eq!(happened.unwrap(), Reconciled::Happened(json("1")));
    let error = services.reconcile(&call("panic")).await;
    assert_eq!(error.unwrap_err().kind, ServiceErrorType::Internal);
    services.shutdown().await;
    assert_eq!(odd.0.load(Ordering::SeqCst), 1);
}
