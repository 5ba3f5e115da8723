//! Secrets are planted wherever a host gives one, every service fails in every way, and then all that was written is
//! searched: the bytes of the database, the log of the process at its finest, results, errors, health, panics.
//!
//! The servers are as indiscreet as can be: whatever they refuse, they repeat the whole request in the refusal.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Request, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::service::{MethodPolicy, RetryPolicy, ServiceCall, ServiceDescription};
use tasker_core::{Engine, Json, LogCursor, ServiceError, ServiceProxy};
use tasker_examples::fakes::serve;
use tasker_proxies::Secret;
use tasker_proxies::gapi::{Gapi, GapiOptions};
use tasker_proxies::http_client::HttpOptions;
use tasker_proxies::keystore::{Keystore, MasterKey};
use tasker_proxies::openai::{OpenAi, OpenAiOptions};
use tasker_proxies::remote::{Remote, RemoteOptions};
use tasker_proxies::supabase::{Supabase, SupabaseOptions};
use tasker_proxies::websearch::{GoogleSearch, GoogleSearchOptions, WebSearch};

const OPENAI: &str = "sk-planted-e41c7a90b2";
const SUPABASE: &str = "planted.service-role.83d1f60c";
const SEARCH: &str = "AIza-planted-70aa19ce";
const ENGINE: &str = "planted-engine-5b20d8";
const TOKEN: &str = "ya29.planted-access-token-1f";
const REMOTE: &str = "planted-remote-token-c09";
const PANIC: &str = "planted-in-a-panic-44d7";
const MASTER: [u8; 32] = *b"planted-master-key-of-32-bytes!!";
const PRIVATE_KEY: &str = include_str!("../../tasker-proxies/src/gapi/test_key.pem");
/// Not secret: the search must find it, else it finds nothing at all.
const CONTROL: &str = "this-is-meant-to-be-found";

/// Every way in which a provider fails here.
const WAYS: [&str; 11] = [
    "401",
    "403",
    "404",
    "409",
    "429",
    "500",
    "503",
    "garbage",
    "truncated",
    "redirect",
    "slow",
];

const CATCHING: &str = r#"
/** @task catching */
module.exports = async function execute({ way }, { tools }) {
  const attempts = {
    chat: () => tools.openai.chat.completions.create({ model: "m", messages: [] }),
    stream: () => tools.openai.chat.completions.create({ model: "m", messages: [], stream: true }),
    models: () => tools.openai.models.list(),
    select: () => tools.supabase.from("t").select("*").eq("a", 1),
    throwing: () => tools.supabase.from("t").insert({ a: 1 }).throwOnError(),
    rpc: () => tools.supabase.rpc("f", { a: 1 }),
    drive: () => tools.gapi.drive.files.list({}),
    upload: () => tools.gapi.drive.files.create({ requestBody: { name: "a" }, media: { body: "b" } }),
    authenticate: () => tools.gapi.authenticate("https://www.googleapis.com/auth/drive"),
    search: () => tools.websearch.search({ query: "q" }),
    remote: () => tools.far.away({ a: 1 }),
    panic: () => tools.panicky.go(),
    keystore: () => tools.keystore.getKey("OPENAI_API_KEY"),
  };
  const seen = {};
  for (const [name, attempt] of Object.entries(attempts)) {
    try {
      seen[name] = await attempt();
    } catch (error) {
      seen[name] = { ...error, message: error.message, stack: error.stack, text: String(error), type: error.type };
      console.error(way, name, error, error.message, error.details);
      tools.log("error", error.message, seen[name]);
    }
  }
  console.log("this-is-meant-to-be-found");
  return seen;
};"#;

const UNCAUGHT: &str = r#"
/** @task uncaught */
module.exports = async function execute({ service }, { tools }) {
  if (service === "openai") return await tools.openai.models.list();
  if (service === "supabase") return await tools.supabase.from("t").select("*").throwOnError();
  if (service === "gapi") return await tools.gapi.drive.files.list({});
  if (service === "websearch") return await tools.websearch.search({ query: "q" });
  if (service === "far") return await tools.far.away();
  return await tools.panicky.go();
};"#;

/// All text that anybody wrote.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn add(&self, text: impl AsRef<[u8]>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(text.as_ref());
        all.push(b'\n');
    }

    fn all(&self) -> Vec<u8> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The server: how it fails, and whether it gives tokens.
#[derive(Default)]
struct Indiscreet {
    way: Mutex<(String, bool)>,
}

async fn answer(State(server): State<Arc<Indiscreet>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let (way, tokens) = server.way.lock().unwrap().clone();
    if parts.uri.path() == "/token" && tokens {
        let body = json!({"access_token": TOKEN, "expires_in": 3_600});
        return Response::new(Body::from(body.to_string()));
    }
    let heads: Vec<String> = parts
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    let all = format!(
        "{} {} {heads:?} {}",
        parts.method,
        parts.uri,
        String::from_utf8_lossy(&body)
    );
    let key = parts.headers.get("authorization");
    let key = key.map_or(String::new(), |key| key.to_str().unwrap().to_owned());
    let refusal = json!({
        "error": {"message": all, "code": key, "status": key, "type": key, "errors": [{"reason": key, "message": all}]},
        "message": all, "code": key, "details": all, "hint": key,
        "success": false, "errorDetails": {"type": "EXTERNAL_SERVICE_ERROR", "code": key, "message": all, "details": {"all": all}},
        "error_description": all,
    })
    .to_string();
    let head = Response::builder()
        .header("x-request-echo", &key)
        .header("content-type", "application/json");
    let response = match way.as_str() {
        "garbage" => head.body(Body::from(format!("<html>{all}"))),
        "truncated" => {
            let begun = Bytes::from(format!("{{\"echo\":\"{key}"));
            let broken = futures::stream::iter([Ok(begun), Err(std::io::Error::other("gone"))]);
            head.body(Body::from_stream(broken))
        }
        "redirect" => head
            .status(302)
            .header(
                "location",
                format!("/elsewhere?key={}", key.replace(' ', "+")),
            )
            .body(Body::from(refusal)),
        "slow" => {
            tokio::time::sleep(Duration::from_secs(5)).await;
            head.body(Body::from(refusal))
        }
        status => head
            .status(status.parse::<u16>().unwrap())
            .header("retry-after", "3600")
            .body(Body::from(refusal)),
    };
    response.unwrap()
}

/// Panics with everything that it has.
struct Panicky(OpenAiOptions);

#[async_trait]
impl ServiceProxy for Panicky {
    fn describe(&self) -> ServiceDescription {
        ServiceDescription::new("panicky").open()
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        panic!("{call:?} {:?}", self.0)
    }
}

async fn engine(folder: &Path, url: &str) -> Engine {
    let storage = Arc::new(SqliteStorage::open(folder.join("tasker.db")).await.unwrap());
    let bounds = HttpOptions {
        attempt_timeout_ms: 300,
        retry: RetryPolicy::attempts(1),
        ..HttpOptions::default()
    };
    let keys = storage.clone();
    let keystore = Keystore::new(keys, Some(MasterKey::from_bytes(&MASTER)), Vec::new());
    let openai = OpenAiOptions {
        base_url: format!("{url}/v1"),
        api_key: Some(Secret::new(OPENAI)),
        http: bounds.clone(),
        ..OpenAiOptions::default()
    };
    let panicky = OpenAiOptions {
        api_key: Some(Secret::new(PANIC)),
        ..openai.clone()
    };
    let supabase = SupabaseOptions {
        http: bounds.clone(),
        ..SupabaseOptions::new(url)
    };
    let gapi = GapiOptions {
        root_url: Some(url.to_owned()),
        http: bounds.clone(),
        ..GapiOptions::default()
    };
    let search = GoogleSearchOptions {
        url: format!("{url}/customsearch/v1"),
        http: bounds.clone(),
        ..GoogleSearchOptions::default()
    };
    let remote = RemoteOptions {
        token: Some(Secret::new(REMOTE)),
        http: bounds,
        ..RemoteOptions::new("far", url)
    };
    let mut builder = Engine::builder()
        .shared_storage(storage)
        .private_service(keystore)
        .service(OpenAi::new(openai).unwrap())
        .service(Supabase::new(supabase).unwrap())
        .service(Gapi::new(gapi).unwrap())
        .service(WebSearch::new(GoogleSearch::new(search).unwrap()))
        .service(Remote::new(remote).unwrap())
        .service(Panicky(panicky));
    // Every failure is the last one: nothing waits for an hour.
    for service in ["openai", "supabase", "gapi", "websearch", "far", "panicky"] {
        for method in [
            None,
            Some("chat.completions.create"),
            Some("select"),
            Some("insert"),
            Some("rpc"),
            Some("drive.files.list"),
            Some("drive.files.create"),
            Some("authenticate"),
        ] {
            let once = MethodPolicy {
                retry: Some(RetryPolicy::attempts(1)),
                ..MethodPolicy::default()
            };
            builder = builder.policy(service, method, once);
        }
    }
    let engine = builder.start().await.unwrap();
    let account = json!({
        "client_email": "robot@project.example",
        "private_key": PRIVATE_KEY,
        "token_uri": format!("{url}/token"),
    });
    for (key, value) in [
        ("SUPABASE_SERVICE_ROLE_KEY", SUPABASE.to_owned()),
        ("WEBSEARCH_API_KEY", SEARCH.to_owned()),
        ("WEBSEARCH_ENGINE_ID", ENGINE.to_owned()),
        ("GAPI_KEY", account.to_string()),
        ("GAPI_ADMIN_EMAIL", "admin@example.com".to_owned()),
    ] {
        let args = ["global", key, &value].map(|text| Json::from(text).unwrap());
        let set: bool = engine
            .services()
            .call("keystore", "setKey", &args)
            .await
            .unwrap();
        assert!(set);
    }
    engine.publish(CATCHING).await.unwrap();
    engine.publish(UNCAUGHT).await.unwrap();
    engine
}

/// Runs a task and keeps all that anybody can read of it.
async fn run(engine: &Engine, task: &str, input: &Value, written: &Written) -> Option<Value> {
    let run = engine.submit(task, input).await.unwrap();
    let outcome = tokio::time::timeout(Duration::from_secs(100), run.result::<Value>())
        .await
        .unwrap();
    written.add(format!("{outcome:?}"));
    if let Err(error) = &outcome {
        written.add(error.to_string());
    }
    written.add(serde_json::to_string(&run.trace().await.unwrap()).unwrap());
    written.add(format!("{:?}", run.info().await.unwrap()));
    let lines = run.log_page(LogCursor::default()).await.unwrap();
    written.add(format!("{lines:?}"));
    outcome.ok()
}

/// A secret in the forms in which it could stand somewhere.
fn forms(secret: &str) -> Vec<String> {
    let hex = secret.bytes().map(|byte| format!("{byte:02x}"));
    vec![
        secret.to_owned(),
        BASE64_STANDARD
            .encode(secret)
            .trim_end_matches('=')
            .to_owned(),
        hex.collect(),
        url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_anything_that_is_written() {
    let written = Written::default();
    let log = written.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || log.clone())
        .init();
    let panics = written.clone();
    std::panic::set_hook(Box::new(move |panic| panics.add(format!("PANIC {panic}"))));

    let server = Arc::new(Indiscreet::default());
    let router = Router::new()
        .fallback(answer)
        .with_state(Arc::clone(&server));
    let url = serve(router).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path(), &url).await;
    let mut failures = 0;
    for (way, tokens) in WAYS.iter().flat_map(|way| [(way, true), (way, false)]) {
        *server.way.lock().unwrap() = ((*way).to_owned(), tokens);
        // The remote service is left alone after some failures, and a token is kept: an engine of its own for each way
        // would hide that, so the tokens are forgotten and the rest is as in life.
        let services = engine.services();
        let forgotten = services.call::<Value>("gapi", "clearTokenCache", &[]);
        forgotten.await.unwrap();
        let seen = run(&engine, "catching", &json!({ "way": way }), &written).await;
        let seen = seen.expect("the task catches everything");
        failures += seen
            .as_object()
            .unwrap()
            .values()
            .filter(|one| one["type"].is_string())
            .count();
        for service in ["openai", "supabase", "gapi", "websearch", "far", "panicky"] {
            if tokens && (service != "supabase" || *way != "404") {
                run(
                    &engine,
                    "uncaught",
                    &json!({ "service": service }),
                    &written,
                )
                .await;
            }
        }
        written.add(format!("{:?}", engine.services().health_all().await));
    }
    assert!(failures > 150, "{failures}");
    written.add(format!("{:?}", engine.services().list()));
    engine.shutdown().await.unwrap();
    drop(engine);
    let _ = std::panic::take_hook();

    let mut database = Vec::new();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        database.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let places = [
        ("what was said", text(written.all())),
        ("the database", text(database)),
    ];
    for (place, text) in &places {
        assert!(
            text.contains(CONTROL),
            "the search does not work in {place}"
        );
    }
    assert!(places[0].1.contains("PANIC"), "no panic was seen");
    let master = String::from_utf8(MASTER.to_vec()).unwrap();
    let key_lines = PRIVATE_KEY
        .lines()
        .filter(|line| !line.starts_with('-') && line.len() > 20);
    let mut secrets = vec![
        OPENAI, SUPABASE, SEARCH, ENGINE, TOKEN, REMOTE, PANIC, &master,
    ];
    secrets.extend(key_lines);
    for (place, text) in &places {
        for secret in &secrets {
            for form in forms(secret) {
                if let Some(at) = text.find(&form) {
                    let start = text.floor_char_boundary(at.saturating_sub(600));
                    panic!("{secret} is in {place}: {}", &text[start..at + form.len()]);
                }
            }
        }
    }
}
