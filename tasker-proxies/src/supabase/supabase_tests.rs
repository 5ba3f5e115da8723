//! Tests of the Supabase service against a loopback server.

use axum::body::Body;
use axum::http::Response;
use tasker_core::service::Link;

use super::*;
use crate::testing::{Server, still_clock};

fn service(server: &Server) -> Supabase {
    let options = SupabaseOptions {
        key: Some(Secret::new("service-key")),
        http: HttpOptions {
            retry: RetryPolicy {
                initial_ms: 1,
                ..RetryPolicy::attempts(2)
            },
            ..HttpOptions::default()
        },
        ..SupabaseOptions::new(server.url.clone())
    };
    Supabase::with_clock(options, still_clock()).unwrap()
}

fn call(chain: &[(&str, &str)]) -> ServiceCall {
    let links = chain.iter().map(|(name, args)| {
        let args = Json::parse(*args).unwrap().elements().unwrap();
        Link::called(*name, args)
    });
    ServiceCall::test_chain("supabase", links.collect())
}

const SELECT: [(&str, &str); 2] = [("from", r#"["t"]"#), ("select", r#"["*"]"#)];

fn select(with: &[(&str, &str)]) -> ServiceCall {
    let chain: Vec<_> = SELECT.iter().chain(with).copied().collect();
    call(&chain)
}

#[tokio::test]
async fn rows_arrive_as_written_with_their_count() {
    let server = Server::start().await;
    server.then(|| {
        Response::builder()
            .status(206)
            .header("content-range", "0-0/42")
            .body(Body::from(r#"[{"b":1.0,"a":12345678901234567890}]"#))
            .unwrap()
    });
    let chain = [
        ("from", r#"["t"]"#),
        ("select", r#"["*",{"count":"exact"}]"#),
    ];
    let answer = service(&server).call(call(&chain)).await.unwrap();
    assert_eq!(
        answer.text(),
        r#"{"success":true,"error":null,"data":[{"b":1.0,"a":12345678901234567890}],"count":42,"status":206,"statusText":"Partial Content"}"#
    );
}

#[tokio::test]
async fn maybe_single_gives_the_row_or_null_or_an_error() {
    for (body, answer) in [
        ("[]", r#""error":null,"data":null"#),
        ("[7]", r#""error":null,"data":7"#),
        ("[7,8]", r#""code":"PGRST116""#),
    ] {
        let server = Server::start().await;
        server.then_json(200, body);
        let result = service(&server)
            .call(select(&[("maybeSingle", "[]")]))
            .await;
        let result = result.unwrap();
        assert!(result.text().contains(answer), "{result}");
    }
}

#[tokio::test]
async fn an_error_of_the_database_is_a_value_unless_it_is_to_be_thrown() {
    let server = Server::start().await;
    let body =
        r#"{"code":"23505","details":"Key (id)=(1) exists","hint":null,"message":"duplicate"}"#;
    server.then_json(409, body).then_json(409, body);
    let insert = [("from", r#"["t"]"#), ("insert", r#"[{"id":1}]"#)];
    let answer = service(&server).call(call(&insert)).await.unwrap();
    assert_eq!(
        answer.text(),
        format!(
            r#"{{"success":false,"error":{body},"data":null,"count":null,"status":409,"statusText":"Conflict"}}"#
        )
    );
    let thrown = [insert[0], insert[1], ("throwOnError", "[]")];
    let error = service(&server).call(call(&thrown)).await.unwrap_err();
    assert_eq!(
        (error.kind, error.code()),
        (ServiceErrorType::Conflict, "23505")
    );
    assert_eq!(error.details.unwrap().text(), body);
}

#[tokio::test]
async fn what_the_database_never_answered_is_thrown() {
    let server = Server::start().await;
    let service = service(&server);
    // A read is sent again.
    server.then_json(503, "upstream").then_json(200, "[]");
    service.call(select(&[])).await.unwrap();
    // A write is not.
    server.then_json(503, "upstream service-key");
    let update = [
        ("from", r#"["t"]"#),
        ("update", r#"[{"a":1}]"#),
        ("eq", r#"["id",1]"#),
    ];
    let error = service.call(call(&update)).await.unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::External);
    assert!(!format!("{error:?}").contains("service-key"));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn csv_is_text_and_an_empty_answer_is_null() {
    let server = Server::start().await;
    server.then(|| Response::new(Body::from("a,b\n1,2")));
    let answer = service(&server).call(select(&[("csv", "[]")])).await;
    assert!(answer.unwrap().text().contains(r#""data":"a,b\n1,2""#));
    server.then(|| Response::builder().status(201).body(Body::empty()).unwrap());
    let insert = [("from", r#"["t"]"#), ("insert", r#"[{"a":1}]"#)];
    let answer = service(&server).call(call(&insert)).await.unwrap();
    assert!(
        answer
            .text()
            .contains(r#""data":null,"count":null,"status":201"#),
        "{answer}"
    );
}

#[tokio::test]
async fn health_asks_the_api() {
    let server = Server::start().await;
    server.then_json(200, "").then_json(401, "");
    let service = service(&server);
    assert_eq!(service.health().await, Health::Healthy);
    assert!(matches!(service.health().await, Health::Unhealthy(_)));
    assert_eq!(server.seen()[0].target, "/rest/v1/");
}

#[test]
fn policies_of_writes_and_reads_differ() {
    let services = tasker_core::service::Services::builder()
        .add(Supabase::new(SupabaseOptions::new("https://x.supabase.co")).unwrap())
        .build()
        .unwrap();
    let write = services.policy("supabase", "from().insert().select()");
    assert_eq!(write.retry.types, Some(vec![ServiceErrorType::RateLimit]));
    assert_eq!(
        services
            .policy("supabase", "from().select().eq()")
            .retry
            .types,
        None
    );
}
