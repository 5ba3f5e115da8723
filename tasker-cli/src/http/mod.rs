//! The HTTP services, as routers that an embedder mounts in a server of its own; `tasker serve` serves the same.
//!
//! What is here: [`executor`] (task code in the request, nothing kept), [`task_executor`] (submit, list, status, logs, events), [`stack_processor`] (driving by hand), [`service`]
//! (any registered service by its three request forms), and [`router`], which puts them together. Request forms and the
//! envelope are those of [`tasker_core::service::wire`]. What is not: listening, TLS, and rules of how runs work.
//!
//! Invariants: every answer but an event stream is the envelope, also of errors · with a token nothing but `/health` answers
//! without it · without a token only callers on this machine that are no web page are answered, unless [`RouterOptions::any_host`].

mod answer;
mod executor;
mod guard;
mod services;
mod stack_processor;
mod task_executor;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use tasker_core::Engine;
use tasker_proxies::Secret;
use tokio_util::sync::CancellationToken;

/// Settings of the routers.
#[derive(Clone, Debug)]
pub struct RouterOptions {
    /// What callers send as `Authorization: Bearer …`. Default none: then only callers on this machine are answered.
    pub token: Option<Secret>,
    /// Answers whatever the `Host` header says, without a token too. Default no: it keeps web pages from reaching a local
    /// server under a name of their own.
    pub any_host: bool,
    /// Largest body in bytes. Default 4 MiB and 64 KiB: the largest input of a task, and what stands around it.
    pub body_bytes: usize,
    /// Longest `?wait=` in seconds. Default 300.
    pub longest_wait_secs: u64,
    /// Ends waits and event streams, so that a server can drain.
    pub stop: CancellationToken,
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self {
            token: None,
            any_host: false,
            body_bytes: (4 << 20) + (64 << 10),
            longest_wait_secs: 300,
            stop: CancellationToken::new(),
        }
    }
}

/// Everything under one address: the task executor at the root, the executor at `/executor`, each public service at `/services/NAME`, the stack
/// processor at `/stack-processor` (it answers only for an engine with [`tasker_core::Drive::Manual`]).
pub fn router(engine: Engine, options: RouterOptions) -> Router {
    let options = Arc::new(options);
    let services = engine.services();
    let mut router = task_executor::routes(engine.clone(), Arc::clone(&options));
    for description in services.list() {
        if !services.is_private(&description.name) {
            let path = format!("/services/{}", description.name);
            router = router.nest(&path, services::routes(engine.clone(), description.name));
        }
    }
    let router = router
        .nest("/executor", executor::routes(&engine, &options))
        .nest("/stack-processor", stack_processor::routes(engine));
    guarded(router, options)
}

/// The executor alone: `POST /` runs task code to its first suspension, `POST /resume` from there on, `GET /health`. Of the
/// engine it takes the names of the public services only: nothing is stored and no service is asked.
pub fn executor(engine: &Engine, options: RouterOptions) -> Router {
    guarded(executor::routes(engine, &options), Arc::new(options))
}

/// The task executor alone: `POST /execute`, `GET /list /schema /status /logs /health`, `GET /runs/{id}/events`.
pub fn task_executor(engine: Engine, options: RouterOptions) -> Router {
    let options = Arc::new(options);
    guarded(task_executor::routes(engine, Arc::clone(&options)), options)
}

/// The stack processor alone, on an engine with [`tasker_core::Drive::Manual`]: `POST /`, `GET /health`.
pub fn stack_processor(engine: Engine, options: RouterOptions) -> Router {
    guarded(stack_processor::routes(engine), Arc::new(options))
}

/// One service alone: `POST /` in any of the three request forms, `GET /health`.
pub fn service(engine: Engine, name: impl Into<String>, options: RouterOptions) -> Router {
    guarded(services::routes(engine, name.into()), Arc::new(options))
}

fn guarded(router: Router, options: Arc<RouterOptions>) -> Router {
    router
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
        .layer(DefaultBodyLimit::max(options.body_bytes))
        .layer(middleware::from_fn_with_state(options, guard::guard))
}
