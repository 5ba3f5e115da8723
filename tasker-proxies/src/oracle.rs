//! Our requests against those that the providers' own clients sent for the same operations.
//!
//! The recordings are `tests/oracle/*.json`, written by `tests/oracle/record.sh` and never by hand. Query strings are
//! compared as written, JSON bodies by value (a client re-serializes, we send the task's own text).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};
use tasker_core::Json;
use tasker_core::service::{Link, ServiceCall, ServiceProxy};

use crate::Secret;
use crate::gapi::{Gapi, GapiOptions};
use crate::openai::{OpenAi, OpenAiOptions};
use crate::supabase::{Supabase, SupabaseOptions};
use crate::testing::{Seen, Server, still_clock};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recording {
    client: String,
    version: String,
    compared_headers: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Default, Deserialize)]
struct Case {
    name: String,
    #[serde(default)]
    chain: Vec<Vec<Json>>,
    #[serde(default)]
    method: String,
    #[serde(default)]
    args: Vec<Json>,
    request: Request,
}

#[derive(Clone, Default, Deserialize)]
struct Request {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// A body by value: JSON, the parts of a multipart body with their types, or a text.
fn value(content_type: Option<&str>, body: &str) -> Value {
    let kind = content_type.unwrap_or_default();
    if body.is_empty() {
        return Value::Null;
    }
    if let Some((_, boundary)) = kind.split_once("boundary=") {
        let text = body.replace("\r\n", "\n");
        let mark = format!("--{}", boundary.trim_matches('"'));
        let parts = text.split(mark.as_str()).skip(1);
        let parts = parts.filter(|part| part.trim() != "--").map(|part| {
            let (head, body) = part.trim_start().split_once("\n\n").unwrap();
            let kind = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Type: "));
            let body = body.strip_suffix('\n').unwrap();
            Value::Array(vec![kind.into(), value(kind, body)])
        });
        return Value::Array(parts.collect());
    }
    match kind {
        "application/json" => serde_json::from_str(body).unwrap(),
        _ => body.into(),
    }
}

/// The type of a multipart body without its boundary, which each client makes up.
fn without_boundary(value: Option<&str>) -> Option<&str> {
    value.map(|value| value.split("; boundary=").next().unwrap_or(value))
}

impl Recording {
    fn read(text: &str) -> Self {
        let recording: Self = serde_json::from_str(text).unwrap();
        assert!(recording.cases.len() >= 30, "{}", recording.client);
        recording
    }

    fn compare(&self, case: &Case, seen: &Seen) {
        let what = format!("{} {}: {}", self.client, self.version, case.name);
        assert_eq!(seen.method, case.request.method, "{what}");
        assert_eq!(seen.target, case.request.target, "{what}");
        let theirs = case.request.headers.get("content-type");
        let theirs = value(theirs.map(String::as_str), &case.request.body);
        let ours = value(seen.header("content-type"), &seen.body);
        assert_eq!(ours, theirs, "{what}");
        for name in &self.compared_headers {
            let theirs = case.request.headers.get(name).map(String::as_str);
            let ours = without_boundary(seen.header(name));
            assert_eq!(ours, without_boundary(theirs), "{what}: {name}");
        }
    }
}

#[tokio::test]
async fn supabase_requests_are_those_of_supabase_js() {
    let recording = Recording::read(include_str!("../tests/oracle/supabase.json"));
    for case in &recording.cases {
        let server = Server::start().await;
        server.then_json(200, "[]");
        let options = SupabaseOptions {
            key: Some(Secret::new("test-key")),
            ..SupabaseOptions::new(server.url.clone())
        };
        let service = Supabase::with_clock(options, still_clock()).unwrap();
        let chain = case.chain.iter().map(|link| {
            let (name, args) = link.split_first().unwrap();
            Link::called(name.to::<String>().unwrap(), args.to_vec())
        });
        let call = ServiceCall::test_chain("supabase", chain.collect());
        let answer = service.call(call).await;
        answer.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        recording.compare(case, &server.only());
    }
}

#[tokio::test]
async fn google_requests_are_those_of_the_python_client() {
    let recording = Recording::read(include_str!("../tests/oracle/google.json"));
    let server = Server::start().await;
    let service = Gapi::with_clock(crate::gapi::tests::options(&server), still_clock()).unwrap();
    for case in &recording.cases {
        let forget = ServiceCall::test("gapi", "clearTokenCache", vec![]);
        service.call(forget).await.unwrap();
        server.then_json(200, r#"{"access_token":"test-token","expires_in":3600}"#);
        server.then_json(200, "{}");
        let call = ServiceCall::test("gapi", &case.method, case.args.clone());
        let answer = service.call(call).await;
        answer.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let mut seen = server.seen().pop().unwrap();
        // The client writes parameters in another order; their order means nothing to Google.
        seen.target = sorted(&seen.target);
        let request = Request {
            target: sorted(&case.request.target),
            ..case.request.clone()
        };
        let case = Case {
            request,
            name: case.name.clone(),
            ..Case::default()
        };
        recording.compare(&case, &seen);
    }
}

/// How google-auth asks for a token: the request without the assertion, and what the assertion says.
#[derive(Deserialize)]
struct TokenCase {
    name: String,
    scopes: Vec<String>,
    subject: Option<String>,
    request: Value,
}

#[tokio::test]
async fn tokens_are_asked_for_as_google_auth_does() {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<TokenCase>,
    }
    let recorded = include_str!("../tests/oracle/google_auth.json");
    let file: File = serde_json::from_str(recorded).unwrap();
    assert!(!file.cases.is_empty());
    for case in file.cases {
        let server = Server::start().await;
        server.then_json(200, r#"{"access_token":"test-token","expires_in":3600}"#);
        let options = GapiOptions {
            admin_email: case.subject.map(Secret::new),
            ..crate::gapi::tests::options(&server)
        };
        let service = Gapi::with_clock(options, still_clock()).unwrap();
        let scopes = Json::from(&case.scopes).unwrap();
        let call = ServiceCall::test("gapi", "authenticate", vec![scopes]);
        service.call(call).await.unwrap();
        let seen = server.only();
        let mut form: BTreeMap<String, String> = url::form_urlencoded::parse(seen.body.as_bytes())
            .into_owned()
            .collect();
        let assertion = form.remove("assertion").unwrap();
        let parts: Vec<Value> = assertion
            .split('.')
            .take(2)
            .map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap())
            .map(|part| serde_json::from_slice(&part).unwrap())
            .collect();
        let mut claims = parts[1].clone();
        let claims = claims.as_object_mut().unwrap();
        let mut number = |name| {
            claims
                .remove(name)
                .and_then(|value| value.as_i64())
                .unwrap()
        };
        let lifetime = number("exp") - number("iat");
        claims.insert("lifetime".to_owned(), json!(lifetime));
        let ours = json!({
            "target": seen.target,
            "headers": {"content-type": seen.header("content-type")},
            "form": form,
            "header": parts[0],
            "claims": claims,
        });
        assert_eq!(ours, case.request, "{}", case.name);
    }
}

fn sorted(target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    pairs.sort();
    format!("{path} {pairs:?}")
}

#[tokio::test]
async fn openai_requests_are_those_of_openai_node() {
    let recording = Recording::read(include_str!("../tests/oracle/openai.json"));
    for case in &recording.cases {
        let server = Server::start().await;
        server.then_json(200, "{}");
        let options = OpenAiOptions {
            base_url: format!("{}/v1", server.url),
            api_key: Some(Secret::new("test-key")),
            ..OpenAiOptions::default()
        };
        let service = OpenAi::with_clock(options, still_clock()).unwrap();
        let call = ServiceCall::test("openai", &case.method, case.args.clone());
        // What a stream is gathered into is tested elsewhere; here only what was sent.
        let _ = service.call(call).await;
        recording.compare(case, &server.only());
    }
}
