//! Tests of web search against a loopback server.

use tasker_core::service::{RetryPolicy, ServiceErrorType};

use super::*;
use crate::Secret;
use crate::testing::{Server, still_clock};

fn bounds() -> HttpOptions {
    HttpOptions {
        retry: RetryPolicy {
            initial_ms: 1,
            ..RetryPolicy::attempts(2)
        },
        ..HttpOptions::default()
    }
}

fn google(server: &Server) -> WebSearch {
    let options = GoogleSearchOptions {
        api_key: Some(Secret::new("key-12345")),
        engine_id: Some(Secret::new("engine-1")),
        url: format!("{}/customsearch/v1", server.url),
        http: bounds(),
    };
    WebSearch::new(GoogleSearch::with_clock(options, still_clock()).unwrap()).clock(still_clock())
}

async fn ask(service: &WebSearch, method: &str, args: &str) -> Result<Json, ServiceError> {
    let args = Json::parse(args).unwrap().to().unwrap();
    service
        .call(ServiceCall::test("websearch", method, args))
        .await
}

fn page(from: usize, count: usize) -> String {
    let items = (from..from + count)
        .map(|n| json!({"title": format!("T{n}"), "link": format!("https://e.com/{n}"), "snippet": "a\n b"}));
    json!({"items": items.collect::<Vec<_>>()}).to_string()
}

#[tokio::test]
async fn google_is_asked_page_by_page() {
    let server = Server::start().await;
    server
        .then_json(200, &page(0, 10))
        .then_json(200, &page(10, 3));
    let answer = ask(
        &google(&server),
        "search",
        r#"[{"query":" a b ","limit":15}]"#,
    )
    .await;
    let answer: serde_json::Value = answer.unwrap().to().unwrap();
    assert_eq!(answer["query"], "a b");
    assert_eq!(answer["timestamp"], "2023-11-14T22:13:20.000Z");
    assert_eq!(answer["results"].as_array().unwrap().len(), 13);
    assert_eq!(
        answer["results"][0],
        json!({"title": "T0", "url": "https://e.com/0", "snippet": "a b"})
    );
    let targets: Vec<String> = server.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(
        targets,
        [
            "/customsearch/v1?key=key-12345&cx=engine-1&q=a+b&num=10&start=1",
            "/customsearch/v1?key=key-12345&cx=engine-1&q=a+b&num=5&start=11",
        ]
    );
}

#[tokio::test]
async fn arguments_have_two_forms_and_a_default() {
    for (args, count) in [
        (r#"["a b"]"#, "5"),
        (r#"["a b",{"limit":2}]"#, "2"),
        (r#"[{"query":"a b"}]"#, "5"),
    ] {
        let server = Server::start().await;
        server.then_json(200, "{}");
        ask(&google(&server), "search", args).await.unwrap();
        assert!(
            server.only().target.contains(&format!("num={count}&")),
            "{args}"
        );
    }
    let server = Server::start().await;
    for args in [
        "[]",
        r#"[""]"#,
        r#"[{"limit":2}]"#,
        r#"["a",{"limit":0}]"#,
        r#"["a",{"limit":51}]"#,
    ] {
        let error = ask(&google(&server), "search", args).await.unwrap_err();
        assert_eq!(error.kind, ServiceErrorType::Validation, "{args}");
    }
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn errors_of_google_keep_their_reason_and_lose_the_key() {
    let server = Server::start().await;
    let body =
        r#"{"error":{"code":403,"message":"key-12345 may not","status":"PERMISSION_DENIED"}}"#;
    server.then_json(403, body);
    let error = ask(&google(&server), "search", r#"["a"]"#)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind, error.code()),
        (ServiceErrorType::Authorization, "PERMISSION_DENIED")
    );
    assert!(!format!("{error:?}").contains("key-12345"), "{error:?}");
    let options = GoogleSearchOptions::default();
    let service = WebSearch::new(GoogleSearch::new(options).unwrap());
    let error = ask(&service, "search", r#"["a"]"#).await.unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::Configuration);
    assert!(error.message.contains("WEBSEARCH_API_KEY"), "{error}");
}

#[tokio::test]
async fn duckduckgo_is_read_from_its_page() {
    let server = Server::start().await;
    let html = include_str!("duckduckgo_page.html");
    server
        .then_json(200, html)
        .then_json(503, "")
        .then_json(200, "<html>");
    let provider = DuckDuckGo::at(&format!("{}/html/", server.url), bounds(), still_clock());
    let service = WebSearch::new(provider.unwrap()).clock(still_clock());
    let answer = ask(&service, "search", r#"[{"query":"rust é","limit":1}]"#)
        .await
        .unwrap();
    assert_eq!(
        answer.text(),
        r#"{"query":"rust é","results":[{"title":"Rust & its <friends>","url":"https://www.rust-lang.org/learn?a=1&b=2","snippet":"A language empowering everyone."}],"timestamp":"2023-11-14T22:13:20.000Z"}"#
    );
    let seen = server.only();
    assert_eq!(seen.target, "/html/?q=rust+%C3%A9");
    assert!(matches!(service.health().await, Health::Unhealthy(_)));
    assert_eq!(server.seen().len(), 3);
    let time = ask(&service, "getServerTime", "[]").await.unwrap();
    assert!(time.text().contains(r#""source":"websearch""#));
}
