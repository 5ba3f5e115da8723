//! The executor: runs task code that comes with the request, and keeps nothing.
//!
//! A task that waits is answered with what it waits for and with its state, `vmState`; `POST /resume` on any instance goes on
//! from there. Asking the services is the caller's. With a token the state is signed with a key made from it, so that instances
//! with one token take each other's states and no others; without one it is unsigned, as everybody here is trusted.

mod sandbox;
mod step;

use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tasker_core::service::wire::parse_request;
use tasker_core::{Clock, Engine, Json, ServiceError, ServiceStyle, SystemClock};
use tasker_proxies::Secret;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::RouterOptions;
use super::answer::{self, Asked};
use super::resume;
pub use sandbox::execute_once;
use step::{Around, Order};
pub(super) use step::{ExternalError, outcome, present};

const FORM: &str = r#"send {"taskCode":"…","input":{…}}, and to /resume also "vmState" as it was answered and "externalResult""#;

#[derive(Clone)]
struct Shop {
    /// For answers to calls of stored runs.
    engine: Engine,
    tools: Arc<[(String, ServiceStyle)]>,
    key: Option<[u8; 32]>,
    /// Runs task code in a confined process; `None`: in this one.
    program: Option<Arc<Path>>,
    /// Executions at one time: as many as cores.
    room: Arc<Semaphore>,
}

pub(super) fn routes(engine: &Engine, options: &RouterOptions) -> Router {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let services = engine.services();
    let public = services
        .names_and_styles()
        .filter(|(name, _)| !services.is_private(name));
    let shop = Shop {
        engine: engine.clone(),
        tools: public.collect(),
        key: options.token.as_ref().map(state_key),
        program: options.executor_program.as_deref().map(Arc::from),
        room: Arc::new(Semaphore::new(cores)),
    };
    Router::new()
        .route("/", post(called).get(health))
        .route("/resume", post(resume))
        .route("/health", get(health).post(health))
        .with_state(shop)
}

fn state_key(token: &Secret) -> [u8; 32] {
    Sha256::new()
        .chain_update("tasker executor state")
        .chain_update(token.expose())
        .finalize()
        .into()
}

/// `POST /`: the body itself, or one of the request forms that every service knows: `{"method":"execute","args":[{…}]}`.
async fn called(
    shop: State<Shop>,
    Extension(asked): Extension<Asked>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let refuse = |error| asked.answer::<()>(Err(error));
    let body = match answer::body(body) {
        Ok(body) => body,
        Err(error) => return refuse(error),
    };
    if !asks_by_method(&body) {
        return start(shop, asked, &body).await;
    }
    let links = match parse_request(&body) {
        Ok(links) => links,
        Err(error) => return refuse(error),
    };
    let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    let body = links
        .last()
        .and_then(|link| link.args.as_ref()?.first().cloned());
    let body = body.unwrap_or_default();
    match names.join(".").as_str() {
        "execute" => start(shop, asked, &body).await,
        "resume" => go_on(shop, asked, &body).await,
        "health" | "test" => health(shop, Extension(asked)).await,
        other => refuse(ServiceError::not_found(format!(
            "deno-executor has no method {other:?}; it has execute, resume and health; or {FORM}"
        ))),
    }
}

fn asks_by_method(body: &Json) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Peek {
        task_code: Option<Json>,
        chain: Option<Json>,
        method: Option<Json>,
        action: Option<Json>,
    }
    body.to::<Peek>().is_ok_and(|peek| {
        peek.task_code.is_none()
            && (peek.chain.is_some() || peek.method.is_some() || peek.action.is_some())
    })
}

async fn start(shop: State<Shop>, asked: Asked, body: &Json) -> Response {
    let done = shop
        .perform(body, false, asked.correlation_id.clone())
        .await;
    asked.answer(done)
}

async fn resume(
    shop: State<Shop>,
    Extension(asked): Extension<Asked>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match answer::body(body) {
        Ok(body) => go_on(shop, asked, &body).await,
        Err(error) => asked.answer::<()>(Err(error)),
    }
}

async fn go_on(State(shop): State<Shop>, asked: Asked, body: &Json) -> Response {
    if let Some(by_run) = resume::of_body(body) {
        let said = async { resume::perform(&shop.engine, by_run?).await };
        return asked.answer(said.await);
    }
    let done = shop.perform(body, true, None).await;
    asked.answer(done)
}

impl Shop {
    async fn perform(
        &self,
        body: &Json,
        goes_on: bool,
        correlation_id: Option<String>,
    ) -> Result<Json, ServiceError> {
        let around = Around {
            goes_on,
            time: SystemClock::default().now(),
            seed: seed(),
            key: self.key,
            tools: self.tools.to_vec(),
            run_id: Uuid::now_v7().to_string(),
            correlation_id,
        };
        let _room = self.room.acquire().await.map_err(ServiceError::internal)?;
        let body = body.clone();
        let order = blocking(move || Order::new(&body, around)).await?;
        match &self.program {
            Some(program) => sandbox::perform(program, &order).await,
            None => blocking(move || step::perform(order)).await,
        }
    }
}

/// Parsing and task code take their time: on a thread that may be busy.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ServiceError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(ServiceError::internal)?
}

/// 256 bits of the operating system's randomness.
fn seed() -> [u8; 32] {
    let random = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
    random
        .iter()
        .fold(Sha256::new(), |hash, uuid| {
            hash.chain_update(uuid.as_bytes())
        })
        .finalize()
        .into()
}

/// Runs a task that returns at once.
async fn health(State(shop): State<Shop>, Extension(asked): Extension<Asked>) -> Response {
    let asking = Json::parse(r#"{"taskCode":"module.exports = () => 1"}"#).unwrap_or_default();
    let done = shop.perform(&asking, false, None).await;
    let healthy = done.is_ok_and(|done| done.text().contains(r#""completed""#));
    let (status, word) = if healthy {
        (StatusCode::OK, "healthy")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    };
    asked.answer_as(
        status,
        Ok(json!({ "service": "deno-executor", "status": word })),
    )
}
