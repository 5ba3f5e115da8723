//! Tests of the OpenAI service against a loopback server.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use futures::StreamExt as _;
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
    server.then(limited);
    let error = service(&server, Some("sk-12345"))
        .call(call("models.list", &[]))
        .await
        .unwrap_err();
    assert_eq!(error.retry_after_ms, Some(360_000));
    assert_eq!(error.kind, ServiceErrorType::RateLimit);
}

/// A stream whose second half comes when `go` has a permit.
fn stream_in_two(go: &Arc<tokio::sync::Semaphore>, key: &str) -> Body {
    let first = r#"data: {"model":"m","choices":[{"index":0,"delta":{"content":"Hel"}}]}"#;
    let second = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"lo {key}\"}},\"finish_reason\":\"stop\"}}]}}\n\ndata: {{\"model\":\"m\",\"choices\":[],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}}}\n\ndata: [DONE]\n\n"
    );
    let first = futures::stream::once(std::future::ready(format!("{first}\n\n")));
    let go = Arc::clone(go);
    let second = futures::stream::once(async move {
        go.acquire().await.unwrap().forget();
        second
    });
    Body::from_stream(first.chain(second).map(Ok::<_, std::io::Error>))
}

#[tokio::test]
async fn a_stream_is_gathered_and_its_text_is_told_while_it_comes() {
    let server = Server::start().await;
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let body = stream_in_two(&go, "sk-12345");
    server.then(|| {
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(body)
            .unwrap()
    });
    let service = service(&server, Some("sk-12345"));
    let asked = call("chat.completions.create", &[r#"{"stream":true}"#]);
    let watched = asked.clone();
    let answering = tokio::spawn(async move { service.call(asked).await.unwrap() });
    let mut lines = Vec::new();
    let first = async {
        while lines.is_empty() {
            tokio::task::yield_now().await;
            lines.extend(watched.logged());
        }
    };
    let patience = std::time::Duration::from_mins(5);
    tokio::time::timeout(patience, first).await.unwrap();
    assert_eq!(lines[0].message, "Hel");
    assert!(!answering.is_finished());
    go.add_permits(1);
    let answer: serde_json::Value = answering.await.unwrap().to().unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello sk-12345");
    assert_eq!(answer["usage"]["total_tokens"], 7);
    lines.extend(watched.logged());
    let texts: Vec<&str> = lines.iter().map(|line| &*line.message).collect();
    let used = "openai.chat.completions.create used 7 tokens";
    assert_eq!(texts, ["Hel", "lo [redacted]", used]);
    assert_eq!(
        lines[2].data.as_ref().unwrap().text(),
        r#"{"usage":{"service":"openai","method":"chat.completions.create","model":"m","input_tokens":3,"output_tokens":4,"total_tokens":7}}"#
    );
}

#[tokio::test]
async fn usage_is_told_for_every_answer_that_names_it() {
    for (method, answer, line) in [
        (
            "responses.create",
            r#"{"model":"m","usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}"#,
            Some("used 3 tokens"),
        ),
        (
            "embeddings.create",
            r#"{"model":"m","usage":{"prompt_tokens":5,"total_tokens":5}}"#,
            Some("used 5 tokens"),
        ),
        ("chat.completions.create", r#"{"usage":null}"#, None),
    ] {
        let server = Server::start().await;
        server.then_json(200, answer);
        let asked = call(method, &["{}"]);
        let service = service(&server, Some("sk-12345"));
        service.call(asked.clone()).await.unwrap();
        let said = asked.logged();
        let said = said.first().map(|line| line.message.as_str());
        assert!(said.is_some() == line.is_some(), "{method}: {said:?}");
        assert!(said.unwrap_or_default().ends_with(line.unwrap_or_default()));
    }
    let server = Server::start().await;
    server.then_json(
        200,
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    );
    let asked = call("chat.completions.create", &[r#"{"stream":true}"#]);
    let service = service(&server, Some("sk-12345"));
    service.call(asked.clone()).await.unwrap();
    assert!(asked.logged()[0].message.contains("include_usage"));
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
    // Its health is asked with the key of the keystore as well.
    server.then_json(200, "{}");
    assert_eq!(services.health("openai").await, Some(Health::Healthy));
    let asked = server.seen().pop().unwrap();
    assert_eq!(asked.header("authorization"), Some("Bearer sk-67890"));
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
