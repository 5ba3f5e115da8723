//! Tests of the OpenAI service against a loopback server.

use axum::body::Body;
use axum::http::Response;
use tasker_core::service::{Services, service_fn};

use super::*;
use crate::testing::{Server, still_clock};

fn service(server: &Server, key: Option<&str>) -> OpenAi {
    let options = OpenAiOptions {
        base_url: format!("{}/v1", server.url),
        api_key: key.map(Secret::new),
        organization: Some("org-1".to_owned()),
        http: HttpOptions {
            retry: RetryPolicy {
                initial_ms: 1,
                ..RetryPolicy::attempts(2)
            },
            ..HttpOptions::default()
        },
        ..OpenAiOptions::default()
    };
    OpenAi::with_clock(options, still_clock()).unwrap()
}

fn call(method: &str, args: &[&str]) -> ServiceCall {
    let args = args.iter().map(|text| Json::parse(*text).unwrap());
    ServiceCall::test("openai", method, args.collect())
}

#[tokio::test]
async fn each_method_is_its_request_and_bodies_are_sent_as_written() {
    let body = r#"{"model":"m","z":1.0,"messages":[{"role":"user","content":"\ud83d"}]}"#;
    for (method, args, verb, path, sent) in [
        (
            "chat.completions.create",
            vec![body],
            "POST",
            "/v1/chat/completions",
            body,
        ),
        (
            "responses.create",
            vec![body],
            "POST",
            "/v1/responses",
            body,
        ),
        (
            "embeddings.create",
            vec![body],
            "POST",
            "/v1/embeddings",
            body,
        ),
        ("models.list", vec![], "GET", "/v1/models", ""),
        (
            "models.retrieve",
            vec![r#""ft:a/b?c""#],
            "GET",
            "/v1/models/ft:a%2Fb%3Fc",
            "",
        ),
    ] {
        let server = Server::start().await;
        server.then_json(200, r#"{"b":1.0,"a":2}"#);
        let answer = service(&server, Some("sk-12345"))
            .call(call(method, &args))
            .await
            .unwrap();
        assert_eq!(answer.text(), r#"{"b":1.0,"a":2}"#);
        let seen = server.only();
        assert_eq!(
            (&*seen.method, &*seen.target, &*seen.body),
            (verb, path, sent)
        );
        assert_eq!(seen.header("authorization"), Some("Bearer sk-12345"));
        assert_eq!(seen.header("openai-organization"), Some("org-1"));
        assert_eq!(seen.header("accept"), Some("application/json"));
        let content = (verb == "POST").then_some("application/json");
        assert_eq!(seen.header("content-type"), content);
    }
}

#[tokio::test]
async fn errors_of_the_api_keep_code_and_details_and_lose_the_key() {
    for (status, body, kind, code) in [
        (
            401,
            r#"{"error":{"message":"Incorrect API key provided: sk-12345","type":"invalid_request_error","code":"invalid_api_key"}}"#,
            ServiceErrorType::Authentication,
            "invalid_api_key",
        ),
        (
            400,
            r#"{"error":{"message":"no","type":"invalid_request_error","code":null}}"#,
            ServiceErrorType::Validation,
            "invalid_request_error",
        ),
        (
            429,
            r#"{"error":{"message":"pay","code":"insufficient_quota"}}"#,
            ServiceErrorType::Authorization,
            "insufficient_quota",
        ),
        (
            500,
            "<html>sk-12345",
            ServiceErrorType::External,
            "EXTERNAL_SERVICE_ERROR",
        ),
    ] {
        let server = Server::start().await;
        server.then_json(status, body).then_json(status, body);
        let error = service(&server, Some("sk-12345"))
            .call(call("chat.completions.create", &["{}"]))
            .await
            .unwrap_err();
        assert_eq!((error.kind, error.code()), (kind, code), "{body}");
        assert_eq!(error.status(), status);
        assert!(!format!("{error:?}{:?}", error.to_failure()).contains("sk-12345"));
    }
}

#[tokio::test]
async fn a_failed_completion_is_not_sent_twice_and_a_failed_embedding_is() {
    let server = Server::start().await;
    let service = service(&server, Some("sk-12345"));
    server.then_json(503, "{}");
    service
        .call(call("chat.completions.create", &["{}"]))
        .await
        .unwrap_err();
    assert_eq!(server.seen().len(), 1);
    server.then_json(503, "{}").then_json(200, "{}");
    service
        .call(call("embeddings.create", &["{}"]))
        .await
        .unwrap();
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn rate_limit_headers_say_how_long_to_wait() {
    let server = Server::start().await;
    let limited = || {
        Response::builder()
            .status(429)
            .header("x-ratelimit-remaining-requests", "0")
            .header("x-ratelimit-reset-requests", "6m0s")
            .header("x-ratelimit-remaining-tokens", "5")
            .header("x-ratelimit-reset-tokens", "9h")
            .body(Body::from("{}"))
            .unwrap()
    };
    server.then(limited).then(limited);
    let error = service(&server, Some("sk-12345"))
        .call(call("models.list", &[]))
        .await
        .unwrap_err();
    assert_eq!(error.retry_after_ms, Some(360_000));
    assert_eq!(error.kind, ServiceErrorType::RateLimit);
    for (text, millis) in [
        ("1s", Some(1_000)),
        ("6m0s", Some(360_000)),
        ("20ms", Some(20)),
        ("1h2m3.5s", Some(3_723_500)),
        ("", None),
        ("5", None),
        ("x", None),
    ] {
        assert_eq!(duration_ms(text), millis, "{text}");
    }
}

#[tokio::test]
async fn a_stream_is_gathered() {
    let server = Server::start().await;
    server.then(|| {
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from(
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
            ))
            .unwrap()
    });
    let answer = service(&server, Some("sk-12345"))
        .call(call("chat.completions.create", &[r#"{"stream":true}"#]))
        .await
        .unwrap();
    let answer: serde_json::Value = answer.to().unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hi");
}

#[tokio::test]
async fn the_key_comes_from_the_keystore_and_a_missing_one_says_how_to_set_it() {
    let server = Server::start().await;
    server.then_json(200, "{}");
    let service = service(&server, None);
    let error = service.call(call("models.list", &[])).await.unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::Configuration);
    assert!(
        error.message.contains("OPENAI_API_KEY"),
        "{}",
        error.message
    );
    assert!(error.message.contains("setKey"), "{}", error.message);
    let services = Services::builder()
        .add(service)
        .add_private(service_fn("keystore", async |call: ServiceCall| {
            assert_eq!(call.arg::<String>(0)?, "global");
            assert_eq!(call.arg::<String>(1)?, "OPENAI_API_KEY");
            Json::from("sk-67890").map_err(ServiceError::internal)
        }))
        .build()
        .unwrap();
    services.invoke(call("models.list", &[])).await.unwrap();
    assert_eq!(
        server.only().header("authorization"),
        Some("Bearer sk-67890")
    );
}

#[tokio::test]
async fn health_really_asks() {
    let server = Server::start().await;
    server.then_json(200, "{}").then_json(401, "{}");
    let service = service(&server, Some("sk-12345"));
    assert_eq!(service.health().await, Health::Healthy);
    assert!(matches!(service.health().await, Health::Unhealthy(_)));
    let seen = server.seen();
    assert_eq!(seen[0].target, "/v1/models");
    let bad = OpenAiOptions {
        base_url: "not a url".to_owned(),
        ..OpenAiOptions::default()
    };
    assert!(OpenAi::new(bad).is_err());
}
