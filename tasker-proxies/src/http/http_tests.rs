//! Tests of fetch against loopback servers with names of their own.

use std::sync::atomic::{AtomicU32, Ordering};

use axum::body::Body;
use axum::http::Response;
use serde_json::Value;
use tasker_core::service::RetryPolicy;

use super::*;
use crate::testing::{Server, still_clock};

/// All names are this machine.
fn loopback() -> Lookup {
    Arc::new(|_| Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) }))
}

fn port(server: &Server) -> u16 {
    Url::parse(&server.url).unwrap().port().unwrap()
}

fn options() -> HttpOptions {
    HttpOptions {
        retry: RetryPolicy::none(),
        max_response_bytes: 10_000,
        ..HttpOptions::default()
    }
}

fn open(name: &str, server: &Server) -> EgressRule {
    EgressRule::host(name)
        .methods(["*"])
        .plain_http()
        .port(port(server))
        .private_addresses()
}

fn http(rules: Vec<EgressRule>) -> Http {
    Http::with(rules, options(), loopback(), still_clock()).unwrap()
}

async fn fetch(http: &Http, url: &str, init: &str) -> Result<Value, ServiceError> {
    let args = [Json::from(url).unwrap(), Json::parse(init).unwrap()];
    let call = ServiceCall::test("http", "fetch", args.to_vec());
    Ok(http.call(call).await?.to().unwrap())
}

fn redirect(status: u16, to: &str) -> impl FnOnce() -> Response<Body> + use<> {
    let to = to.to_owned();
    move || {
        Response::builder()
            .status(status)
            .header("location", to)
            .body(Body::empty())
            .unwrap()
    }
}

#[tokio::test]
async fn an_answer_has_the_shape_of_a_response() {
    let server = Server::start().await;
    server.then(|| {
        Response::builder()
            .status(404)
            .header("x-a", "1")
            .header("x-a", "2")
            .body(Body::from(r#"{"b":"ü"}"#))
            .unwrap()
    });
    let url = format!("http://api.test:{}/p?q=1#f", port(&server));
    let init = r#"{"method":"post","headers":{"X-Key":"v"},"body":"{}"}"#;
    let answer = fetch(&http(vec![open("api.test", &server)]), &url, init).await;
    let answer = answer.unwrap();
    assert_eq!(answer["status"], 404);
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["statusText"], "Not Found");
    assert_eq!(answer["redirected"], false);
    assert_eq!(answer["headers"]["x-a"], "1, 2");
    assert_eq!(answer["body"], r#"{"b":"ü"}"#);
    assert!(answer.get("bodyBase64").is_none());
    let seen = server.only();
    assert_eq!(
        (&*seen.method, &*seen.target, &*seen.body),
        ("POST", "/p?q=1", "{}")
    );
    assert_eq!(seen.header("x-key"), Some("v"));
    assert_eq!(
        seen.header("content-type"),
        Some("text/plain;charset=UTF-8")
    );
}

#[tokio::test]
async fn bytes_that_are_no_text_are_exact_in_base64() {
    let server = Server::start().await;
    server.then(|| Response::new(Body::from(vec![0xff, 0x00, 0x41])));
    let url = format!("http://api.test:{}/", port(&server));
    let answer = fetch(&http(vec![open("api.test", &server)]), &url, "null").await;
    let answer = answer.unwrap();
    assert_eq!(answer["body"], "\u{fffd}\u{0}A");
    assert_eq!(answer["bodyBase64"], "/wBB");
}

#[tokio::test]
async fn addresses_that_are_not_public_are_not_connected_to() {
    let server = Server::start().await;
    let port = port(&server);
    let everything = || {
        EgressRule::host("*")
            .methods(["*"])
            .plain_http()
            .port(port)
            .private_addresses()
    };
    let http = http(vec![everything()]);
    for host in [
        "name-that-resolves-to-loopback.test",
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "１２７.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "169.254.169.254",
        "localhost",
        "localhost.",
    ] {
        let error = fetch(&http, &format!("http://{host}:{port}/"), "null").await;
        let error = error.unwrap_err();
        assert_eq!(error.code(), "EGRESS_DENIED", "{host}: {error}");
    }
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_address_after_the_check_gains_nothing() {
    let server = Server::start().await;
    let asked = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    let lookup: Lookup = Arc::new(move |_| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        let address = if first {
            [93, 184, 216, 34]
        } else {
            [127, 0, 0, 1]
        };
        Box::pin(async move { Ok(vec![IpAddr::from(address)]) })
    });
    let rule = EgressRule::host("rebind.test")
        .plain_http()
        .port(port(&server));
    let http = Http::with(vec![rule], options(), lookup, still_clock()).unwrap();
    let url = format!("http://rebind.test:{}/", port(&server));
    let error = fetch(&http, &url, "null").await.unwrap_err();
    assert!(
        error.message.contains("not of the public internet"),
        "{error}"
    );
    assert!(asked.load(Ordering::SeqCst) >= 2);
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn redirects_are_followed_under_the_rules() {
    let first = Server::start().await;
    let second = Server::start().await;
    let http = http(vec![
        open("one.test", &first),
        open("two.test", &second),
        EgressRule::host("public.test").plain_http(),
    ]);
    let url = format!("http://one.test:{}/a", port(&first));
    let elsewhere = format!("http://two.test:{}/b", port(&second));
    // To another origin: as GET without body, and without what was for the first one only.
    first.then(redirect(302, &elsewhere));
    second.then_json(200, "7");
    let init =
        r#"{"method":"POST","body":"x","headers":{"authorization":"Bearer t","x-other":"1"}}"#;
    let answer = fetch(&http, &url, init).await.unwrap();
    assert_eq!(
        (&answer["redirected"], &answer["url"]),
        (&Value::from(true), &Value::from(elsewhere.as_str()))
    );
    let seen = second.only();
    assert_eq!((&*seen.method, &*seen.body), ("GET", ""));
    assert_eq!(
        (seen.header("authorization"), seen.header("x-other")),
        (None, Some("1"))
    );
    assert_eq!(seen.header("content-type"), None);
    // Within one origin: everything stays.
    first.then(redirect(307, "/c")).then_json(200, "8");
    fetch(&http, &url, init).await.unwrap();
    let seen = first.seen().pop().unwrap();
    assert_eq!(
        (&*seen.method, &*seen.target, &*seen.body),
        ("POST", "/c", "x")
    );
    assert_eq!(seen.header("authorization"), Some("Bearer t"));
    // Manual and error.
    first.then(redirect(302, "/d")).then(redirect(302, "/d"));
    let answer = fetch(&http, &url, r#"{"redirect":"manual"}"#)
        .await
        .unwrap();
    assert_eq!(answer["status"], 302);
    fetch(&http, &url, r#"{"redirect":"error"}"#)
        .await
        .unwrap_err();
    // To where no rule leads, or to a private address.
    let before = first.seen().len();
    for target in [
        format!("http://three.test:{}/", port(&second)),
        format!("http://127.0.0.1:{}/", port(&second)),
        "http://public.test/".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        first.then(redirect(302, &target));
        let error = fetch(&http, &url, "null").await.unwrap_err();
        assert!(
            matches!(
                error.kind,
                ServiceErrorType::Authorization | ServiceErrorType::Validation
            ),
            "{target}: {error}"
        );
    }
    assert_eq!((first.seen().len(), second.seen().len()), (before + 5, 1));
    // Without end.
    for _ in 0..=MAX_REDIRECTS {
        first.then(redirect(302, "/a"));
    }
    let error = fetch(&http, &url, "null").await.unwrap_err();
    assert!(error.message.contains("more than 5 redirects"), "{error}");
}

#[test]
fn https_is_not_left_for_http() {
    let from = Url::parse("https://a.test/").unwrap();
    let request = HttpRequest::new("x", Method::GET, from);
    let error = redirected(request, Url::parse("http://a.test/").unwrap(), 302).unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::Authorization);
}

#[tokio::test]
async fn what_is_not_for_tasks_is_refused() {
    let server = Server::start().await;
    let http = http(vec![open("api.test", &server)]);
    let url = format!("http://api.test:{}/", port(&server));
    for init in [
        r#"{"method":"CONNECT"}"#,
        r#"{"method":"G ET"}"#,
        r#"{"body":"x"}"#,
        r#"{"headers":{"Host":"evil"}}"#,
        r#"{"headers":{"Content-Length":"3"}}"#,
        r#"{"headers":{"Transfer-Encoding":"chunked"}}"#,
        r#"{"headers":{"X-Forwarded-For":"1.1.1.1"}}"#,
        r#"{"headers":{"Proxy-Authorization":"x"}}"#,
        r#"{"headers":{"a":"b\r\nc: d"}}"#,
        r#"{"headers":{"a b":"c"}}"#,
        r#"{"redirect":"maybe"}"#,
    ] {
        let error = fetch(&http, &url, init).await.unwrap_err();
        assert_eq!(error.kind, ServiceErrorType::Validation, "{init}: {error}");
    }
    fetch(&http, "/relative", "null").await.unwrap_err();
    assert_eq!(server.seen().len(), 0);
}
