//! Tests of the HTTP client.

use axum::body::Body;
use axum::http::Response;
use futures::StreamExt;
use tasker_core::Timestamp;

use super::*;
use crate::testing::{Server, still_clock};

fn fast() -> HttpOptions {
    HttpOptions {
        retry: RetryPolicy {
            initial_ms: 1,
            max_ms: 2,
            ..RetryPolicy::attempts(3)
        },
        attempt_timeout_ms: 60_000,
        max_response_bytes: 1_000,
        ..HttpOptions::default()
    }
}

fn client(options: HttpOptions) -> HttpClient {
    HttpClient::new(options, still_clock()).unwrap()
}

fn call() -> ServiceCall {
    ServiceCall::test("s", "m", vec![])
}

fn get(server: &Server) -> HttpRequest {
    let url = Url::parse(&server.url).unwrap();
    HttpRequest::new("s m", Method::GET, url.join("/a?key=sk-12345&b=2").unwrap())
}

fn post(server: &Server) -> HttpRequest {
    HttpRequest {
        method: Method::POST,
        repeatable: false,
        ..get(server)
    }
}

fn status(status: u16) -> impl FnOnce() -> Response<Body> {
    move || {
        Response::builder()
            .status(status)
            .body(Body::empty())
            .unwrap()
    }
}

#[tokio::test]
async fn a_read_is_sent_again_after_a_failure_and_a_write_is_not() {
    let server = Server::start().await;
    for code in [408, 500, 502, 503, 504] {
        server.then(status(code)).then_json(200, "1");
        let answer = client(fast()).send(&call(), &get(&server)).await.unwrap();
        assert_eq!(answer.status, 200, "{code}");
        server.then(status(code));
        let answer = client(fast()).send(&call(), &post(&server)).await.unwrap();
        assert_eq!(answer.status, code);
    }
    assert_eq!(server.seen().len(), 15);
}

#[tokio::test]
async fn a_refusal_for_the_rate_limit_is_sent_again_in_any_case() {
    let server = Server::start().await;
    server
        .then(status(429))
        .then(status(429))
        .then_json(200, "1");
    let answer = client(fast()).send(&call(), &post(&server)).await.unwrap();
    assert_eq!(answer.status, 200);
    server.then(status(429)).then(status(429)).then(status(429));
    let answer = client(fast()).send(&call(), &post(&server)).await.unwrap();
    assert_eq!(answer.status, 429);
    assert_eq!(server.seen().len(), 6);
}

#[tokio::test]
async fn a_long_wait_is_left_to_the_engine() {
    let server = Server::start().await;
    server.then(|| {
        Response::builder()
            .status(429)
            .header("retry-after", "120")
            .body(Body::empty())
            .unwrap()
    });
    let answer = client(fast()).send(&call(), &get(&server)).await.unwrap();
    assert_eq!(answer.retry_after_ms, Some(120_000));
    let error = answer.error(&get(&server), None, "slow down", None);
    assert_eq!(
        (error.kind, error.retry_after_ms),
        (ServiceErrorType::RateLimit, Some(120_000))
    );
    server.only();
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read_to_its_end() {
    let server = Server::start().await;
    server.then_json(200, &"7".repeat(1_001));
    let error = client(fast())
        .send(&call(), &get(&server))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "RESPONSE_TOO_LARGE");
    // Without a length, and endless.
    server.then(|| {
        let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'7'; 100]));
        Response::new(Body::from_stream(endless))
    });
    let error = client(fast())
        .send(&call(), &get(&server))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "RESPONSE_TOO_LARGE");
    assert_eq!(server.seen().len(), 2);
}

/// 200,000 zeros, compressed to 229 bytes.
const ZEROS: &str = "H4sIAAAAAAACA+3BMQEAAADCoPVPbQZ/oAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACA1wB7WOBcQA0DAA==";

#[tokio::test]
async fn a_body_that_grows_when_it_is_unpacked_is_bounded_by_what_it_becomes() {
    use base64::Engine as _;
    let member = base64::prelude::BASE64_STANDARD.decode(ZEROS).unwrap();
    assert!(member.len() < 1_000);
    let packed = |body: Body| {
        Response::builder()
            .header("content-encoding", "gzip")
            .body(body)
            .unwrap()
    };
    let server = Server::start().await;
    let small = member.clone();
    server.then(move || packed(Body::from(small)));
    // Endless, and each piece of it is small.
    let endless = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(member.clone()));
    server.then(move || packed(Body::from_stream(endless)));
    for _ in 0..2 {
        let error = client(fast()).send(&call(), &get(&server)).await;
        assert_eq!(error.unwrap_err().code(), "RESPONSE_TOO_LARGE");
    }
    // It says that a gigabyte follows: none of it is waited for.
    server.then(|| {
        Response::builder()
            .header("content-length", "1000000000")
            .body(Body::from_stream(futures::stream::pending::<
                std::io::Result<Vec<u8>>,
            >()))
            .unwrap()
    });
    let error = client(fast()).send(&call(), &get(&server)).await;
    assert_eq!(error.unwrap_err().code(), "RESPONSE_TOO_LARGE");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_gzip_bomb_is_not_unpacked_to_its_end() {
    // A megabyte of zeros in about a kilobyte, which can be repeated: what it unpacks to has no end.
    let mut packer = flate2::Compress::new(flate2::Compression::best(), false);
    let mut block = Vec::with_capacity(1 << 16);
    packer
        .compress_vec(&vec![0; 1 << 20], &mut block, flate2::FlushCompress::Full)
        .unwrap();
    assert!(block.len() < 4_096, "{}", block.len());
    let head = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let server = Server::start().await;
    server.then(|| {
        let endless = futures::stream::iter([head])
            .chain(futures::stream::repeat(block))
            .map(Ok::<_, std::io::Error>);
        Response::builder()
            .header("content-encoding", "gzip")
            .body(Body::from_stream(endless))
            .unwrap()
    });
    let options = HttpOptions {
        max_response_bytes: 3 << 20,
        ..fast()
    };
    let error = client(options)
        .send(&call(), &get(&server))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "RESPONSE_TOO_LARGE", "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let server = Server::start().await;
    let broken = || {
        let parts =
            futures::stream::iter([Ok(b"{\"a\":".to_vec()), Err(std::io::Error::other("gone"))]);
        Response::new(Body::from_stream(parts))
    };
    server.then(broken).then_json(200, r#"{"a":1.0}"#);
    let request = get(&server);
    let answer = client(fast()).send(&call(), &request).await.unwrap();
    assert_eq!(answer.json(&request).unwrap().text(), r#"{"a":1.0}"#);
    server.then(broken);
    let error = client(fast())
        .send(&call(), &post(&server))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::External);
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_slow_body_ends_at_the_timeout_or_the_deadline_or_the_cancellation() {
    let server = Server::start().await;
    let slow = || {
        let first = futures::stream::iter([Ok::<_, std::io::Error>(b"{".to_vec())]);
        Response::new(Body::from_stream(first.chain(futures::stream::pending())))
    };
    server.then(slow).then(slow).then(slow);
    let options = HttpOptions {
        attempt_timeout_ms: 20,
        ..fast()
    };
    let error = client(options)
        .send(&call(), &post(&server))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::Timeout);
    let mut late = call();
    late.deadline = Some(Timestamp::from_millis(1_700_000_000_030));
    let error = client(fast())
        .send(&late, &post(&server))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::Timeout);
    let given_up = call();
    given_up.cancellation.cancel();
    let error = client(fast())
        .send(&given_up, &post(&server))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "CANCELLED");
}

#[tokio::test]
async fn nobody_listening_is_an_external_error_without_the_query() {
    // The port is taken, so that nobody else comes to listen on it.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!(
        "http://user:hunter2@{}/p?key=sk-12345",
        silent.local_addr().unwrap()
    );
    let request = HttpRequest::new("s m", Method::POST, Url::parse(&url).unwrap())
        .secret_header("authorization", "Bearer ", &Secret::new("sk-98765"))
        .unwrap();
    let error = client(fast()).send(&call(), &request).await.unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::External);
    let all = format!("{error} {error:?} {:?}", error.to_failure());
    for secret in ["hunter2", "sk-98765", "sk-12345"] {
        assert!(!all.contains(secret), "{all}");
    }
    assert!(
        error.message.contains("/p?key=[redacted]"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn a_provider_that_repeats_a_key_does_not_leak_it() {
    let server = Server::start().await;
    server.then_json(401, r#"{"error":"bad key sk-98765"}"#);
    let request = get(&server)
        .secret_header("authorization", "Bearer ", &Secret::new("sk-98765"))
        .unwrap();
    let answer = client(fast()).send(&call(), &request).await.unwrap();
    let details = answer.json(&request).unwrap();
    let error = answer.error(&request, None, &answer.beginning(), Some(details));
    assert_eq!(error.kind, ServiceErrorType::Authentication);
    assert!(!format!("{error:?}").contains("98765"), "{error:?}");
    assert!(error.details.unwrap().text().contains("[redacted]"));
}

#[tokio::test]
async fn what_travels_with_a_call_travels_with_the_request() {
    let server = Server::start().await;
    server.then_json(200, "1").then_json(200, "1");
    let mut with = call();
    with.correlation_id = Some("c-1".into());
    with.traceparent = Some("00-a-b-01".into());
    with.stack_run = Some("0190c6a8-0000-7000-8000-000000000001".parse().unwrap());
    with.attempt = 2;
    client(fast()).send(&with, &post(&server)).await.unwrap();
    client(fast()).send(&with, &get(&server)).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].header("idempotency-key"), Some("test-key"));
    assert_eq!(seen[1].header("idempotency-key"), None);
    for request in seen {
        assert_eq!(request.header("x-correlation-id"), Some("c-1"));
        assert_eq!(request.header("traceparent"), Some("00-a-b-01"));
        assert_eq!(
            request.header("x-request-id"),
            Some("0190c6a8-0000-7000-8000-000000000001-2")
        );
    }
}
