//! The HTTP services, as routers that an embedder mounts in a server of its own; `tasker serve` serves the same.
//!
//! What is here: [`executor`] (task code in the request, nothing kept), [`task_executor`] (submit, list, status, logs, events), [`stack_processor`] (driving by hand),
//! [`admin_debug`] (is everything well?), [`service`] (any registered service by its three request forms), and [`router`], which puts them together.
//! Each also answers `GET /openapi.json` and `GET /metrics`. [`serve`] bounds what connections may do. Request forms and the
//! envelope are those of [`tasker_core::service::wire`]. What is not: TLS, and rules of how runs work.
//!
//! Invariants: every answer but an event stream, the OpenAPI document and the counts is the envelope, also of errors · with a token
//! nothing but `/health` answers without it · without a token only callers on this machine that are no web page (or one of a listed
//! origin) are answered, unless [`RouterOptions::any_host`].

mod admin;
mod answer;
mod engine_metrics;
mod executor;
mod guard;
mod listen;
mod metrics;
mod openapi;
mod resume;
mod services;
mod stack_processor;
mod task_executor;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::routing::get;
use axum::{Json as Answer, Router, middleware};
use tasker_core::Engine;
use tasker_proxies::Secret;
use tokio_util::sync::CancellationToken;
use tower_http::cors::CorsLayer;

pub use executor::execute_once;
use guard::Desk;
pub use listen::{ListenOptions, serve};
pub use metrics::Metrics;
use openapi::Document;

/// Settings of the routers.
#[derive(Clone, Debug)]
pub struct RouterOptions {
    /// What callers send as `Authorization: Bearer …`. Default none: then only callers on this machine are answered.
    pub token: Option<Secret>,
    /// Answers whatever the `Host` header says, without a token too. Default no: it keeps web pages from reaching a local
    /// server under a name of their own.
    pub any_host: bool,
    /// Origins whose web pages are answered: `https://app.example.com`. Default none: no CORS headers at all.
    pub cors_origins: Vec<HeaderValue>,
    /// Largest body in bytes. Default 4 MiB and 64 KiB: the largest input of a task, and what stands around it.
    pub body_bytes: usize,
    /// How long a body may take to arrive. Default 30 s.
    pub body_timeout: Duration,
    /// Longest `?wait=` in seconds. Default 300.
    pub longest_wait_secs: u64,
    /// The program `tasker`: each step of the executor runs in a confined process of it. Default none: steps run in this
    /// process, under the limits of a frame alone.
    pub executor_program: Option<PathBuf>,
    /// Counts requests.
    pub metrics: Metrics,
    /// Ends waits and event streams, so that a server can drain.
    pub stop: CancellationToken,
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self {
            token: None,
            any_host: false,
            cors_origins: Vec::new(),
            body_bytes: (4 << 20) + (64 << 10),
            body_timeout: Duration::from_secs(30),
            longest_wait_secs: 300,
            executor_program: None,
            metrics: Metrics::default(),
            stop: CancellationToken::new(),
        }
    }
}

/// Everything under one address: the task executor at the root, the executor at `/executor`, each public service at `/services/NAME`, the stack
/// processor at `/stack-processor` (it answers only for an engine with [`tasker_core::Drive::Manual`]), checks at `/admin-debug`.
pub fn router(engine: Engine, options: RouterOptions) -> Router {
    options.metrics.observe_unless_any(&engine);
    let options = Arc::new(options);
    let services = engine.services();
    let mut router = task_executor::routes(engine.clone(), Arc::clone(&options));
    let mut document = Document::new("tasker", "Everything of Tasker under one address", &options)
        .with("", openapi::task_executor());
    for description in services.list() {
        if !services.is_private(&description.name) {
            let path = format!("/services/{}", description.name);
            document = document.with(&path, openapi::service(&description));
            router = router.nest(&path, services::routes(engine.clone(), description.name));
        }
    }
    let document = document
        .with("/executor", openapi::executor())
        .with("/stack-processor", openapi::stack_processor())
        .with("/admin-debug", openapi::admin_debug());
    let router = router
        .nest("/executor", executor::routes(&engine, &options))
        .nest("/admin-debug", admin::routes(engine.clone(), None))
        .nest("/stack-processor", stack_processor::routes(engine));
    guarded(router, document, &options)
}

/// The executor alone: `POST /` runs task code to its first suspension, `POST /resume` from there on, `GET /health`. Of the
/// engine it takes the names of the public services: nothing is stored and no service is asked. `POST /resume` by the id of a
/// stack run answers a call of a stored run instead.
pub fn executor(engine: &Engine, options: RouterOptions) -> Router {
    options.metrics.observe_unless_any(engine);
    let document = Document::new("deno-executor", "Task code in the request", &options)
        .with("", openapi::executor());
    guarded(
        executor::routes(engine, &options),
        document,
        &Arc::new(options),
    )
}

/// The task executor alone: `POST /execute`, `GET /list /schema /status /logs /health`, `GET /runs/{id}/events`.
pub fn task_executor(engine: Engine, options: RouterOptions) -> Router {
    options.metrics.observe_unless_any(&engine);
    let options = Arc::new(options);
    let document = Document::new("task-executor", "Tasks and runs", &options)
        .with("", openapi::task_executor());
    let routes = task_executor::routes(engine, Arc::clone(&options));
    guarded(routes, document, &options)
}

/// The stack processor alone, on an engine with [`tasker_core::Drive::Manual`]: `POST /`, `GET /health`.
pub fn stack_processor(engine: Engine, options: RouterOptions) -> Router {
    options.metrics.observe_unless_any(&engine);
    let document = Document::new("simple-stack-processor", "Driving by hand", &options)
        .with("", openapi::stack_processor());
    guarded(
        stack_processor::routes(engine),
        document,
        &Arc::new(options),
    )
}

/// The checks alone: `POST /` or `GET /` with an action. `by_hand` is an engine with [`tasker_core::Drive::Manual`], for an
/// `engine` that runs nothing by itself.
pub fn admin_debug(engine: Engine, by_hand: Option<Engine>, options: RouterOptions) -> Router {
    options.metrics.observe_unless_any(&engine);
    let document = Document::new("admin-debug", "Is everything well?", &options)
        .with("", openapi::admin_debug());
    guarded(admin::routes(engine, by_hand), document, &Arc::new(options))
}

/// One service alone: `POST /` in any of the three request forms, `GET /health`.
pub fn service(engine: Engine, name: impl Into<String>, options: RouterOptions) -> Router {
    options.metrics.observe_unless_any(&engine);
    let name = name.into();
    let description = engine.services().list().into_iter();
    let description = description
        .into_iter()
        .find(|description| description.name == name)
        .unwrap_or_else(|| tasker_core::ServiceDescription::new(&name).open());
    let document = Document::new(&name, &description.description, &options)
        .with("", openapi::service(&description));
    guarded(services::routes(engine, name), document, &Arc::new(options))
}

fn guarded(router: Router, document: Document, options: &Arc<RouterOptions>) -> Router {
    let desk = Desk {
        service: document.service().into(),
        options: Arc::clone(options),
    };
    let document = document.build();
    let metrics = options.metrics.clone();
    let router = router
        .route("/openapi.json", get(async move || Answer(document.clone())))
        .route(
            "/metrics",
            get(async move || {
                (
                    [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
                    metrics.text().await,
                )
            }),
        )
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(desk, guard::guard));
    match &*options.cors_origins {
        [] => router,
        origins => router.layer(cors(origins)),
    }
}

/// Preflights are answered here, before a token is asked for: they cannot carry one.
fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let own = [
        "x-request-id",
        "x-correlation-id",
        "idempotency-key",
        "last-event-id",
        "traceparent",
    ];
    let headers = [header::AUTHORIZATION, header::CONTENT_TYPE];
    CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(
            headers
                .into_iter()
                .chain(own.map(HeaderName::from_static))
                .collect::<Vec<_>>(),
        )
        .expose_headers([
            HeaderName::from_static("x-request-id"),
            header::LOCATION,
            header::RETRY_AFTER,
        ])
        .max_age(Duration::from_mins(10))
}
