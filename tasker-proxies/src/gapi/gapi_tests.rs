//! Tests of the Google service against a loopback server.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::Body;
use axum::http::Response;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use tasker_core::Timestamp;

use super::*;
use crate::testing::{Server, still_clock};

pub(crate) fn account(server: &Server) -> Secret {
    let account = json!({
        "type": "service_account",
        "client_email": "robot@project.iam.gserviceaccount.com",
        "private_key": include_str!("test_key.pem"),
        "private_key_id": "k1",
        "token_uri": format!("{}/token", server.url),
    });
    Secret::new(account.to_string())
}

pub(crate) fn options(server: &Server) -> GapiOptions {
    GapiOptions {
        account: Some(account(server)),
        admin_email: Some(Secret::new("admin@example.com")),
        root_url: Some(server.url.clone()),
        http: HttpOptions {
            retry: RetryPolicy {
                initial_ms: 1,
                ..RetryPolicy::attempts(2)
            },
            ..HttpOptions::default()
        },
        ..GapiOptions::default()
    }
}

fn gapi(server: &Server) -> Gapi {
    Gapi::with_clock(options(server), still_clock()).unwrap()
}

fn call(method: &str, args: &str) -> ServiceCall {
    ServiceCall::test("gapi", method, Json::parse(args).unwrap().to().unwrap())
}

fn token(server: &Server, name: &str) {
    let body = json!({"access_token": name, "expires_in": 3_600, "token_type": "Bearer"});
    server.then_json(200, &body.to_string());
}

fn claims(body: &str) -> Value {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    assert_eq!(
        form["grant_type"],
        "urn:ietf:params:oauth:grant-type:jwt-bearer"
    );
    let key = DecodingKey::from_rsa_pem(include_bytes!("test_key_public.pem")).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    let token = jsonwebtoken::decode::<Value>(&form["assertion"], &key, &validation).unwrap();
    assert_eq!(token.header.kid.as_deref(), Some("k1"));
    token.claims
}

#[tokio::test]
async fn a_call_is_made_with_a_signed_token_for_the_narrowest_scope() {
    for (method, args, scope, subject) in [
        (
            "admin.directory.domains.list",
            "[]",
            "https://www.googleapis.com/auth/admin.directory.domain.readonly",
            "admin@example.com",
        ),
        (
            "gmail.users.messages.list",
            r#"[{"userId":"ann@example.com"}]"#,
            "https://www.googleapis.com/auth/gmail.readonly",
            "ann@example.com",
        ),
        (
            "gmail.users.messages.send",
            r#"[{"userId":"me","requestBody":{"raw":"x"}}]"#,
            "https://www.googleapis.com/auth/gmail.send",
            "admin@example.com",
        ),
        (
            "admin.users.list",
            r#"[{"domain":"example.com","__impersonate":"boss@example.com"}]"#,
            "https://www.googleapis.com/auth/admin.directory.user.readonly",
            "boss@example.com",
        ),
        (
            "drive.files.list",
            r#"[{},{"impersonate":"bob@example.com"}]"#,
            "https://www.googleapis.com/auth/drive.readonly",
            "bob@example.com",
        ),
    ] {
        let server = Server::start().await;
        token(&server, "tok-1");
        server.then_json(200, r#"{"nextPageToken":"p","b":1.0}"#);
        let answer = gapi(&server).call(call(method, args)).await.unwrap();
        assert_eq!(answer.text(), r#"{"nextPageToken":"p","b":1.0}"#);
        let seen = server.seen();
        let claims = claims(&seen[0].body);
        assert_eq!(claims["iss"], "robot@project.iam.gserviceaccount.com");
        assert_eq!(
            (&claims["scope"], &claims["sub"]),
            (&json!(scope), &json!(subject)),
            "{method}"
        );
        assert_eq!(claims["aud"], "https://oauth2.googleapis.com/token");
        assert_eq!(
            (&claims["iat"], &claims["exp"]),
            (&json!(1_700_000_000), &json!(1_700_003_600))
        );
        assert_eq!(seen[1].header("authorization"), Some("Bearer tok-1"));
    }
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_renewed_five_minutes_before_its_end() {
    let server = Server::start().await;
    let now = Arc::new(AtomicI64::new(1_700_000_000_000));
    let read = Arc::clone(&now);
    let clock: Clock = Arc::new(move || Timestamp::from_millis(read.load(Ordering::SeqCst)));
    let gapi = Gapi::with_clock(options(&server), clock).unwrap();
    token(&server, "tok-1");
    for _ in 0..8 {
        server.then_json(200, "{}");
    }
    let many = (0..8).map(|_| gapi.call(call("admin.domains.list", "[]")));
    for answer in futures::future::join_all(many).await {
        answer.unwrap();
    }
    let asked = || {
        let seen = server.seen();
        seen.iter().filter(|seen| seen.target == "/token").count()
    };
    assert_eq!((asked(), server.seen().len()), (1, 9));
    let info: Value = gapi
        .call(call("getTokenInfo", "[]"))
        .await
        .unwrap()
        .to()
        .unwrap();
    assert_eq!(
        (&info["count"], &info["tokens"][0]["valid"]),
        (&json!(1), &json!(true))
    );
    assert!(!info.to_string().contains("tok-1"));
    now.fetch_add(3_299_999, Ordering::SeqCst);
    server.then_json(200, "{}");
    gapi.call(call("admin.domains.list", "[]")).await.unwrap();
    assert_eq!(asked(), 1);
    now.fetch_add(1, Ordering::SeqCst);
    token(&server, "tok-2");
    server.then_json(200, "{}");
    gapi.call(call("admin.domains.list", "[]")).await.unwrap();
    assert_eq!(asked(), 2);
    gapi.call(call("clearTokenCache", "[]")).await.unwrap();
    token(&server, "tok-3");
    server.then_json(200, "{}");
    gapi.call(call("admin.domains.list", "[]")).await.unwrap();
    assert_eq!(asked(), 3);
}

#[tokio::test]
async fn a_token_that_was_taken_back_is_replaced_once() {
    let server = Server::start().await;
    let gapi = gapi(&server);
    token(&server, "tok-1");
    server.then_json(401, "{}");
    token(&server, "tok-2");
    server.then_json(200, "{}");
    gapi.call(call("admin.domains.list", "[]")).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[3].header("authorization"), Some("Bearer tok-2"));
    server.then_json(401, "{}");
    token(&server, "tok-3");
    server.then_json(401, r#"{"error":{"message":"no tok-3"}}"#);
    let error = gapi
        .call(call("admin.domains.list", "[]"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::Authentication);
    assert!(!format!("{error:?}").contains("tok-3"));
    assert_eq!(server.seen().len(), 7);
}

#[tokio::test]
async fn errors_of_google_keep_their_reason() {
    for (status, body, kind, code) in [
        (
            403,
            r#"{"error":{"code":403,"message":"slow","errors":[{"reason":"userRateLimitExceeded"}]}}"#,
            ServiceErrorType::RateLimit,
            "userRateLimitExceeded",
        ),
        (
            404,
            r#"{"error":{"code":404,"message":"gone","status":"NOT_FOUND"}}"#,
            ServiceErrorType::NotFound,
            "NOT_FOUND",
        ),
        (
            400,
            "<html>",
            ServiceErrorType::Validation,
            "VALIDATION_ERROR",
        ),
    ] {
        let server = Server::start().await;
        token(&server, "tok-1");
        server.then_json(status, body);
        let error = gapi(&server).call(call("admin.domains.list", "[]")).await;
        let error = error.unwrap_err();
        assert_eq!((error.kind, error.code()), (kind, code), "{body}");
    }
    let server = Server::start().await;
    server.then_json(
        400,
        r#"{"error":"invalid_grant","error_description":"no such user"}"#,
    );
    let error = gapi(&server).call(call("admin.domains.list", "[]")).await;
    let error = error.unwrap_err();
    assert_eq!(
        (error.kind, error.code()),
        (ServiceErrorType::Authentication, "invalid_grant")
    );
    assert!(error.message.contains("no such user"), "{error}");
    assert!(!format!("{error:?}").contains("PRIVATE"), "{error:?}");
}

#[tokio::test]
async fn what_is_not_in_the_document_is_refused_before_anything_is_sent() {
    let server = Server::start().await;
    let gapi = gapi(&server);
    for (method, args, kind) in [
        ("gmail.users.messages.lst", "[]", ServiceErrorType::NotFound),
        (
            "gmail.users.messages.list",
            r#"[{"userID":"me"}]"#,
            ServiceErrorType::Validation,
        ),
        (
            "gmail.users.messages.list",
            "[{}]",
            ServiceErrorType::Validation,
        ),
        (
            "gmail.users.messages.list",
            r#"["me"]"#,
            ServiceErrorType::Validation,
        ),
        (
            "gmail.users.messages.list",
            r#"[{"userId":"me","q":["a"]}]"#,
            ServiceErrorType::Validation,
        ),
        (
            "gmail.users.messages.list",
            r#"[{"userId":"me","q":{"a":1}}]"#,
            ServiceErrorType::Validation,
        ),
        (
            "gmail.users.messages.list",
            r#"[{"userId":"me","body":{}}]"#,
            ServiceErrorType::Validation,
        ),
        (
            "drive.files.create",
            r#"[{"media":{"body":"a"},"uploadType":"resumable"}]"#,
            ServiceErrorType::Validation,
        ),
        (
            "drive.files.list",
            r#"[{"media":{"body":"a"}}]"#,
            ServiceErrorType::Validation,
        ),
        (
            "gmail.users.messages.list",
            r#"[{"userId":".."}]"#,
            ServiceErrorType::Validation,
        ),
        (
            "gmail.users.messages.list",
            r#"[{"userId":""}]"#,
            ServiceErrorType::Validation,
        ),
        (
            "people.people.get",
            r#"[{"resourceName":"people/../x"}]"#,
            ServiceErrorType::Validation,
        ),
        (
            "people.people.get",
            r#"[{"resourceName":"people/me?x=1"}]"#,
            ServiceErrorType::Validation,
        ),
        (
            "GMAIL.users.messages.list",
            "[]",
            ServiceErrorType::NotFound,
        ),
        ("../x.y", "[]", ServiceErrorType::NotFound),
    ] {
        let error = gapi.call(call(method, args)).await.unwrap_err();
        assert_eq!(error.kind, kind, "{method} {args}: {error}");
    }
    let granted = GapiOptions {
        granted_scopes: Some(vec!["https://www.googleapis.com/auth/drive".to_owned()]),
        apis: Some(vec!["gmail".to_owned(), "drive".to_owned()]),
        ..options(&server)
    };
    let narrow = Gapi::with_clock(granted, still_clock()).unwrap();
    for (method, args) in [
        ("gmail.users.labels.list", r#"[{"userId":"me"}]"#),
        ("calendar.calendarList.list", "[]"),
    ] {
        let error = narrow.call(call(method, args)).await.unwrap_err();
        assert_eq!(error.kind, ServiceErrorType::Authorization, "{method}");
    }
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn the_document_of_another_api_is_loaded_once() {
    let server = Server::start().await;
    let gapi = gapi(&server);
    let directory = json!({"items": [
        {"name": "tasks", "version": "v0", "preferred": false, "discoveryRestUrl": "https://x"},
        {"name": "tasks", "version": "v1", "preferred": true, "discoveryRestUrl": format!("{}/doc", server.url)},
    ]});
    let document = json!({
        "name": "tasks", "version": "v1", "rootUrl": "https://tasks.googleapis.com/", "servicePath": "",
        "resources": {"tasklists": {"methods": {"list": {
            "id": "tasks.tasklists.list", "httpMethod": "GET", "path": "tasks/v1/users/@me/lists",
            "parameters": {"maxResults": {"location": "query", "type": "integer"}}, "response": {"$ref": "TaskLists"},
            "scopes": ["https://www.googleapis.com/auth/tasks", "https://www.googleapis.com/auth/tasks.readonly"],
        }}}},
    });
    server.then_json(200, &directory.to_string());
    server.then_json(200, &document.to_string());
    token(&server, "tok-1");
    server.then_json(200, "{}").then_json(200, "{}");
    for _ in 0..2 {
        let asked = call("tasks.tasklists.list", r#"[{"maxResults":2}]"#);
        gapi.call(asked).await.unwrap();
    }
    let targets: Vec<String> = server.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(
        targets,
        [
            "/discovery/v1/apis?name=tasks",
            "/doc",
            "/token",
            "/tasks/v1/users/@me/lists?maxResults=2&alt=json",
            "/tasks/v1/users/@me/lists?maxResults=2&alt=json",
        ]
    );
}

#[tokio::test]
async fn media_is_bytes_and_an_empty_answer_is_null() {
    let server = Server::start().await;
    let gapi = gapi(&server);
    token(&server, "tok-1");
    server.then(|| {
        Response::builder()
            .header("content-type", "image/png")
            .body(Body::from(vec![0xff, 0x00]))
            .unwrap()
    });
    let asked = call("drive.files.get", r#"[{"fileId":"f","alt":"media"}]"#);
    let answer = gapi.call(asked).await.unwrap();
    assert_eq!(
        answer.text(),
        r#"{"base64":"/wA=","contentType":"image/png"}"#
    );
    token(&server, "tok-2");
    server.then(|| Response::builder().status(204).body(Body::empty()).unwrap());
    let asked = call("drive.files.delete", r#"[{"fileId":"f"}]"#);
    assert_eq!(gapi.call(asked).await.unwrap(), Json::null());
}

#[tokio::test]
async fn credentials_that_are_missing_or_wrong_say_so() {
    let gapi = Gapi::new(GapiOptions::default()).unwrap();
    let error = gapi.call(call("checkCredentials", "[]")).await.unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::Configuration);
    assert!(error.message.contains("GAPI_KEY"), "{error}");
    let wrong = GapiOptions {
        account: Some(Secret::new(
            r#"{"client_email":"a","private_key":"sk-hidden"}"#,
        )),
        ..GapiOptions::default()
    };
    let gapi = Gapi::new(wrong).unwrap();
    let error = gapi.call(call("checkCredentials", "[]")).await.unwrap_err();
    assert_eq!(error.kind, ServiceErrorType::Configuration);
    assert!(!format!("{error:?}").contains("sk-hidden"));
    let server = Server::start().await;
    let gapi = self::gapi(&server);
    let answer: Value = gapi
        .call(call("checkCredentials", "[]"))
        .await
        .unwrap()
        .to()
        .unwrap();
    assert_eq!(answer["adminEmail"], "admin@example.com");
    token(&server, "tok-1");
    assert_eq!(gapi.health().await, Health::Healthy);
}

#[test]
fn the_description_lists_the_common_apis() {
    let services = tasker_core::service::Services::builder()
        .add(Gapi::new(GapiOptions::default()).unwrap())
        .build()
        .unwrap();
    let described = &services.list()[0];
    for name in [
        "admin.directory.domains.list",
        "gmail.users.messages.list",
        "drive.files.list",
        "calendar.events.insert",
        "sheets.spreadsheets.values.get",
        "people.people.get",
    ] {
        assert!(described.find(name).is_some(), "{name}");
    }
    let policy = services.policy("gapi", "gmail.users.messages.send");
    assert_eq!(policy.retry.types, Some(vec![ServiceErrorType::RateLimit]));
}
