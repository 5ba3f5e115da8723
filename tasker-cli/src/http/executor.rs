//! The executor: runs task code that comes with the request, and keeps nothing.
//!
//! A task that waits is answered with what it waits for and with its state, `vmState`; `POST /resume` on any instance goes on
//! from there. Asking the services is the caller's. With a token the state is signed with a key made from it, so that instances
//! with one token take each other's states and no others; without one it is unsigned, as everybody here is trusted.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tasker_core::adaptor::CallSeq;
use tasker_core::execution::{
    Execution, ExecutionError, ExecutionOptions, Pending, PendingCall, ResumeOptions, Step,
};
use tasker_core::service::wire::parse_request;
use tasker_core::task::{Program, prepare};
use tasker_core::vm::ToolNames;
use tasker_core::{
    Clock, Engine, Failure, Json, Limits, LogLine, Outcome, ServiceError, SystemClock, TaskOptions,
    TaskSource,
};
use tasker_proxies::Secret;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::RouterOptions;
use super::answer::{self, Asked};
use super::resume;

const FORM: &str = r#"send {"taskCode":"…","input":{…}}, and to /resume also "vmState" as it was answered and "externalResult""#;

#[derive(Clone)]
struct Shop {
    /// For answers to calls of stored runs.
    engine: Engine,
    tools: Arc<ToolNames>,
    key: Option<[u8; 32]>,
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
        tools: Arc::new(ToolNames::new(public)),
        key: options.token.as_ref().map(state_key),
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

/// The body of both requests; what it does not name is passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    task_code: String,
    /// Default: the `@task` tag, else `task`.
    task_name: Option<String>,
    #[serde(alias = "taskInput")]
    input: Option<Json>,
    vm_state: Option<VmState>,
    /// The answer to the first open call.
    #[serde(default, deserialize_with = "present")]
    external_result: Option<Json>,
    /// Or how that call failed.
    external_error: Option<ExternalError>,
    /// Or answers to several, by their numbers.
    #[serde(default)]
    external_results: Vec<Answer>,
}

/// `null` is an answer too.
pub(super) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// What goes to the caller and comes back.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VmState {
    state: String,
    /// The call that `externalResult` answers.
    first: CallSeq,
}

#[derive(Deserialize)]
struct Answer {
    seq: CallSeq,
    #[serde(default, deserialize_with = "present")]
    result: Option<Json>,
    error: Option<ExternalError>,
}

/// How a call failed: a failure as services answer it. Only the message has to be there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExternalError {
    #[serde(default = "service_error")]
    name: String,
    message: String,
    r#type: Option<String>,
    code: Option<String>,
    status: Option<u16>,
    details: Option<Json>,
}

fn service_error() -> String {
    "ServiceError".to_owned()
}

impl From<ExternalError> for Failure {
    fn from(error: ExternalError) -> Self {
        Self {
            kind: error.r#type,
            code: error.code,
            status: error.status,
            details: error.details,
            ..Self::new(error.name, error.message)
        }
    }
}

pub(super) fn outcome(result: Option<Json>, error: Option<ExternalError>) -> Outcome {
    match error {
        Some(error) => Outcome::Failed(error.into()),
        None => Outcome::Completed(result),
    }
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

async fn start(State(shop): State<Shop>, asked: Asked, body: &Json) -> Response {
    let correlation_id = asked.correlation_id.clone();
    let step = async {
        let body = parse(body)?;
        let _room = shop.room.acquire().await.map_err(ServiceError::internal)?;
        blocking(move || {
            let program = program(&body)?;
            let mut options = ExecutionOptions {
                tools: shop.tools,
                limits: Arc::new(Limits::default()),
                time: SystemClock::default().now(),
                seed: seed(),
                key: shop.key,
                ..ExecutionOptions::default()
            };
            options.run.id = Uuid::now_v7().to_string();
            options.run.task = program.name.to_string();
            options.run.version = program.version.to_string();
            options.run.correlation_id = correlation_id;
            let input = match body.input {
                Some(input) => input,
                None => Json::parse("{}").map_err(ServiceError::internal)?,
            };
            Execution::start(&program, input, options).map_err(refused)
        })
        .await
    };
    asked.answer(step.await.and_then(said_of))
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
    let step = async {
        let mut body = parse(body)?;
        let Some(state) = body.vm_state.take() else {
            return Err(ServiceError::validation(format!(
                "there is no vmState; {FORM}"
            )));
        };
        let answers = if body.external_results.is_empty() {
            vec![(
                state.first,
                outcome(body.external_result.take(), body.external_error.take()),
            )]
        } else {
            let answers = std::mem::take(&mut body.external_results).into_iter();
            answers
                .map(|answer| (answer.seq, outcome(answer.result, answer.error)))
                .collect()
        };
        let _room = shop.room.acquire().await.map_err(ServiceError::internal)?;
        blocking(move || {
            let program = program(&body)?;
            let options = ResumeOptions {
                time: SystemClock::default().now(),
                key: shop.key,
            };
            Execution::resume(&program, state.state.as_bytes(), answers, &options).map_err(refused)
        })
        .await
    };
    asked.answer(step.await.and_then(said_of))
}

fn parse(body: &Json) -> Result<Body, ServiceError> {
    answer::of_form(body, FORM)
}

/// Task code runs on a thread that may be busy.
async fn blocking(
    work: impl FnOnce() -> Result<Step, ServiceError> + Send + 'static,
) -> Result<Step, ServiceError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(ServiceError::internal)?
}

fn program(body: &Body) -> Result<Arc<Program>, ServiceError> {
    let mut source = TaskSource::file("task.js", body.task_code.as_str());
    source.name.clone_from(&body.task_name);
    let prepared = prepare(source, &TaskOptions::default(), &Limits::default());
    prepared
        .map(|prepared| Arc::new(prepared.program))
        .map_err(ServiceError::validation)
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

fn refused(error: ExecutionError) -> ServiceError {
    match error {
        ExecutionError::Diverged(_) | ExecutionError::OtherProgram { .. } => {
            ServiceError::conflict(error)
        }
        ExecutionError::Tampered | ExecutionError::WrongKeyUse(_) => {
            ServiceError::authorization(error)
        }
        ExecutionError::Unwritable(_) => ServiceError::internal(error),
        _ => ServiceError::validation(error),
    }
}

/// The answer. Typed, so that payloads pass as the exact text that they are.
#[derive(Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Said {
    Completed {
        result: Json,
        logs: Vec<Line>,
    },
    Failed {
        failure: Failure,
        logs: Vec<Line>,
    },
    #[serde(rename_all = "camelCase")]
    Paused {
        suspension_data: Suspension,
        vm_state: VmState,
        logs: Vec<Line>,
    },
}

/// The first open call, as the earlier executor answered it, and all of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Suspension {
    service_name: Option<String>,
    method_name: Option<String>,
    args: Option<Json>,
    calls: Vec<Open>,
}

/// Something that the task waits for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Open {
    seq: CallSeq,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

#[derive(Serialize)]
struct Line {
    level: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Json>,
}

fn said_of(step: Step) -> Result<Said, ServiceError> {
    Ok(match step {
        Step::Completed { value, logs } => Said::Completed {
            result: value.unwrap_or_default(),
            logs: lines(logs),
        },
        Step::Failed { failure, logs } => Said::Failed {
            failure,
            logs: lines(logs),
        },
        Step::Suspended { calls, state, logs } => {
            let calls = calls
                .iter()
                .map(open)
                .collect::<Result<Vec<Open>, ServiceError>>()?;
            let Some(first) = calls.first() else {
                return Err(ServiceError::internal(
                    "the task waits for nothing; this is a defect of Tasker",
                ));
            };
            let seq = first.seq;
            Said::Paused {
                suspension_data: Suspension {
                    service_name: first.service_name.clone(),
                    method_name: first.method_name.clone(),
                    args: first.args.clone(),
                    calls,
                },
                vm_state: VmState {
                    state: String::from_utf8(state).map_err(ServiceError::internal)?,
                    first: seq,
                },
                logs: lines(logs),
            }
        }
    })
}

fn open(call: &PendingCall) -> Result<Open, ServiceError> {
    let bare = |kind| Open {
        seq: call.seq,
        kind,
        service_name: None,
        method_name: None,
        args: None,
        due: None,
        name: None,
    };
    Ok(match &call.what {
        Pending::Call {
            service,
            path,
            args,
        } => Open {
            service_name: Some(service.clone()),
            method_name: Some(path.clone()),
            args: Some(args.clone()),
            ..bare("call")
        },
        Pending::Task { name, input } => {
            let name = Json::from(name).map_err(ServiceError::internal)?;
            Open {
                service_name: Some("tasks".to_owned()),
                method_name: Some("execute".to_owned()),
                args: Some(Json::from(&[&name, input]).map_err(ServiceError::internal)?),
                ..bare("task")
            }
        }
        Pending::Timer { due } => Open {
            due: Some(due.to_string()),
            ..bare("timer")
        },
        Pending::Signal { name } => Open {
            name: Some(name.clone()),
            ..bare("signal")
        },
    })
}

fn lines(logs: Vec<LogLine>) -> Vec<Line> {
    let line = |line: LogLine| Line {
        level: line.level.as_str(),
        message: line.message,
        data: line.data,
    };
    logs.into_iter().map(line).collect()
}

/// Runs a task that returns at once.
async fn health(State(shop): State<Shop>, Extension(asked): Extension<Asked>) -> Response {
    let step = async {
        let _room = shop.room.acquire().await.map_err(ServiceError::internal)?;
        blocking(|| {
            let prepared = prepare(
                TaskSource::text("module.exports = () => 1").named("health"),
                &TaskOptions::default(),
                &Limits::default(),
            );
            let program = Arc::new(prepared.map_err(ServiceError::internal)?.program);
            Execution::start(&program, Json::null(), ExecutionOptions::default()).map_err(refused)
        })
        .await
    };
    let healthy = matches!(step.await, Ok(Step::Completed { .. }));
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
