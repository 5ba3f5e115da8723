//! Tests of the remote proxy against a loopback server.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tasker_core::Timestamp;
use tasker_core::service::{Link, RetryPolicy};

use super::*;
use crate::testing::{Server, still_clock};

fn options(server: &Server) -> RemoteOptions {
    RemoteOptions {
        token: Some(Secret::new("tok-12345")),
        http: HttpOptions {
            retry: RetryPolicy {
                initial_ms: 1,
                ..RetryPolicy::attempts(2)
            },
            ..HttpOptions::default()
        },
        ..RemoteOptions::new("echo", server.url.clone())
    }
}

fn remote(options: RemoteOptions) -> Remote {
    Remote::with_clock(options, still_clock()).unwrap()
}

fn call(method: &str, args: &str) -> ServiceCall {
    ServiceCall::test("echo", method, Json::parse(args).unwrap().to().unwrap())
}

#[tokio::test]
async fn a_call_is_a_chain_and_its_answer_an_envelope() {
    let server = Server::start().await;
    server.then_json(
        200,
        r#"{"success":true,"data":{"b":1.0,"a":2},"metadata":{"duration":1,"timestamp":"x","requestId":"r"}}"#,
    );
    let mut asked = call("a.b", r#"[{"z":1.0}]"#);
    asked.correlation_id = Some("c-1".into());
    let answer = remote(options(&server)).call(asked).await.unwrap();
    assert_eq!(answer.text(), r#"{"b":1.0,"a":2}"#);
    let seen = server.only();
    assert_eq!((&*seen.method, &*seen.target), ("POST", "/"));
    assert_eq!(
        seen.body,
        r#"{"chain":[{"property":"a"},{"property":"b","args":[{"z":1.0}]}]}"#
    );
    assert_eq!(seen.header("authorization"), Some("Bearer tok-12345"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("idempotency-key"), Some("test-key"));
    assert_eq!(seen.header("x-correlation-id"), Some("c-1"));
}

#[tokio::test]
async fn services_without_chains_are_asked_by_method() {
    let server = Server::start().await;
    server.then_json(200, "7");
    let options = RemoteOptions {
        form: RequestForm::Method,
        ..options(&server)
    };
    let remote = remote(options);
    let answer = remote.call(call("a.b", "[1.0]")).await.unwrap();
    assert_eq!(answer.text(), "7");
    assert_eq!(server.only().body, r#"{"method":"a.b","args":[1.0]}"#);
    let links = vec![Link::called("from", vec![]), Link::called("select", vec![])];
    let error = remote.call(ServiceCall::test_chain("echo", links)).await;
    assert_eq!(error.unwrap_err().kind, ServiceErrorType::Validation);
}

#[tokio::test]
async fn errors_keep_their_type_and_lose_the_token() {
    for (status, body, kind, message) in [
        (
            409,
            r#"{"success":false,"error":"taken by tok-12345","errorDetails":{"type":"CONFLICT_ERROR","code":"TAKEN"}}"#,
            ServiceErrorType::Conflict,
            "taken by [redacted]",
        ),
        (
            200,
            r#"{"success":false,"error":{"type":"NOT_FOUND_ERROR","code":"X","message":"no"}}"#,
            ServiceErrorType::NotFound,
            "no",
        ),
        (
            401,
            r#"{"error":"who are you"}"#,
            ServiceErrorType::Authentication,
            "who are you",
        ),
        (
            502,
            "<html>",
            ServiceErrorType::External,
            "status 502: <html>",
        ),
        (200, "<html>", ServiceErrorType::External, "not JSON"),
    ] {
        let server = Server::start().await;
        server.then_json(status, body);
        let error = remote(options(&server)).call(call("x", "[]")).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind, kind, "{body}");
        assert!(error.message.contains(message), "{error}");
        assert!(!format!("{error:?}").contains("tok-12345"));
        server.only();
    }
}

#[tokio::test]
async fn a_failed_call_is_sent_again_only_where_its_key_is_honoured() {
    let server = Server::start().await;
    server.then_json(503, "{}");
    remote(options(&server))
        .call(call("x", "[]"))
        .await
        .unwrap_err();
    assert_eq!(server.seen().len(), 1);
    server.then_json(503, "{}").then_json(200, "1");
    let options = RemoteOptions {
        honours_idempotency_keys: true,
        ..options(&server)
    };
    remote(options).call(call("x", "[]")).await.unwrap();
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_service_that_keeps_failing_is_left_alone_for_a_while() {
    let server = Server::start().await;
    let now = Arc::new(AtomicI64::new(0));
    let read = Arc::clone(&now);
    let clock: Clock = Arc::new(move || Timestamp::from_millis(read.load(Ordering::SeqCst)));
    let remote = Remote::with_clock(options(&server), clock).unwrap();
    // An error of the service's own is no failure of the service.
    for _ in 0..10 {
        server.then_json(400, r#"{"error":"no"}"#);
        remote.call(call("x", "[]")).await.unwrap_err();
    }
    for _ in 0..5 {
        server.then_json(500, "{}");
        remote.call(call("x", "[]")).await.unwrap_err();
    }
    let error = remote.call(call("x", "[]")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.retry_after_ms),
        ("CIRCUIT_OPEN", Some(30_000))
    );
    assert_eq!(server.seen().len(), 15);
    now.store(30_000, Ordering::SeqCst);
    server.then_json(200, "1");
    remote.call(call("x", "[]")).await.unwrap();
    server.then_json(200, "1");
    remote.call(call("x", "[]")).await.unwrap();
}

#[tokio::test]
async fn health_is_what_the_service_says() {
    for (status, body, health) in [
        (
            200,
            r#"{"success":true,"data":{"service":"e","status":"healthy"}}"#,
            "healthy",
        ),
        (200, r#"{"status":"ok","service":"e"}"#, "healthy"),
        (200, "", "healthy"),
        (200, r#"{"data":{"status":"degraded"}}"#, "degraded"),
        (503, r#"{"data":{"status":"unhealthy"}}"#, "unhealthy"),
        (404, "", "unhealthy"),
    ] {
        let server = Server::start().await;
        server.then_json(status, body);
        let said = match remote(options(&server)).health().await {
            Health::Healthy => "healthy",
            Health::Degraded(_) => "degraded",
            Health::Unhealthy(_) => "unhealthy",
        };
        assert_eq!(said, health, "{status} {body}");
        let seen = server.only();
        assert_eq!((&*seen.method, &*seen.target), ("GET", "/health"));
    }
}

#[test]
fn services_are_found_through_the_registry_file() {
    let folder = std::env::temp_dir().join(format!("tasker-remote-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(REGISTRY_FILE);
    std::fs::write(
        &path,
        r#"{"timestamp":"x","services":[{"name":"a","port":3103,"url":"http://host:3103"},{"name":"b","port":3104}]}"#,
    )
    .unwrap();
    let found = RemoteOptions::from_registry_file(&path).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|o| (&*o.description.name, &*o.url))
        .collect();
    assert_eq!(
        found,
        [("a", "http://host:3103"), ("b", "http://localhost:3104")]
    );
    std::fs::write(&path, r#"{"services":[{"name":"a"}]}"#).unwrap();
    let error = RemoteOptions::from_registry_file(&path).unwrap_err();
    assert!(error.message.contains(REGISTRY_FILE), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(RemoteOptions::from_registry_file(&path).is_err());
    assert!(Remote::new(RemoteOptions::new("a", "ftp://x")).is_err());
}
