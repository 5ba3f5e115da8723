//! The task executor: submit tasks, and see what becomes of them.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use futures::stream::{self, Stream};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use tasker_core::adaptor::StoredLogLine;
use tasker_core::service::wire::parse_request;
use tasker_core::{
    Engine, Json, LogCursor, RunFilter, RunHandle, RunStatus, Schema, ServiceError, TaskName,
    TaskRunId, Timestamp,
};

use super::RouterOptions;
use super::answer::{self, Asked, of_engine};
use crate::view::{LogView, RunView, TaskView};

/// Items on a page, unless `limit` says otherwise, and at most.
const PAGE: usize = 50;
const LONGEST_PAGE: usize = 200;
/// Seconds of `?wait=true`.
const WAIT_SECS: u64 = 30;
/// How often an event stream looks for news.
const LOOK: Duration = Duration::from_millis(100);

const FORM: &str = r#"send {"taskName":"…","input":{…}} or {"task_identifier":"…","input":{…}}"#;

#[derive(Clone)]
struct Shop {
    engine: Engine,
    options: Arc<RouterOptions>,
}

type Questions = Result<Query<Question>, QueryRejection>;

pub(super) fn routes(engine: Engine, options: Arc<RouterOptions>) -> Router {
    Router::new()
        .route("/execute", post(execute))
        .route("/list", get(list))
        .route("/schema", get(schema))
        .route("/status", get(status))
        .route("/logs", get(logs))
        .route("/runs/{id}/events", get(events))
        .route("/runs/{id}/signals/{name}", post(signal))
        .route("/", get(health).post(call))
        .route("/health", get(health).post(health))
        .with_state(Shop { engine, options })
}

/// What may stand in a query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Question {
    #[serde(
        alias = "taskRunId",
        alias = "task_run_id",
        alias = "runId",
        alias = "task_id"
    )]
    id: Option<String>,
    #[serde(alias = "task", alias = "taskName")]
    name: Option<String>,
    format: Option<String>,
    wait: Option<String>,
    after: Option<String>,
    before: Option<String>,
    status: Option<String>,
    limit: Option<String>,
}

impl Question {
    fn of(questions: Questions) -> Result<Self, ServiceError> {
        let Query(question) =
            questions.map_err(|rejection| ServiceError::validation(rejection.body_text()))?;
        Ok(question)
    }

    fn limit(&self) -> Result<usize, ServiceError> {
        match self.limit.as_deref() {
            None => Ok(PAGE),
            Some(text) => match text.parse() {
                Ok(limit @ 1..=LONGEST_PAGE) => Ok(limit),
                _ => Err(ServiceError::validation(format!(
                    "limit is a number from 1 to {LONGEST_PAGE}, not {text:?}"
                ))),
            },
        }
    }
}

fn run_id(text: &str) -> Result<TaskRunId, ServiceError> {
    TaskRunId::from_str(text).map_err(|_| {
        ServiceError::validation(format!(
            "{text:?} is no id of a run; ids are UUIDs, as /execute answers them"
        ))
    })
}

/// The body of `POST /execute`; what it does not name is passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Execute {
    #[serde(
        alias = "task_identifier",
        alias = "taskId",
        alias = "name",
        alias = "id"
    )]
    task_name: String,
    input: Option<Json>,
    #[serde(alias = "idempotency_key")]
    idempotency_key: Option<String>,
    #[serde(default, deserialize_with = "whole")]
    priority: i32,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(alias = "correlation_id")]
    correlation_id: Option<String>,
    #[serde(default)]
    validate: bool,
}

/// A whole number, however it is written: `1`, `1.0`, `1e3`.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    let number = f64::deserialize(deserializer)?;
    let whole = number as i32;
    if (f64::from(whole) - number).abs() < f64::EPSILON {
        Ok(whole)
    } else {
        Err(D::Error::custom(format!(
            "{number} is no whole number from {} to {}",
            i32::MIN,
            i32::MAX
        )))
    }
}

async fn execute(
    State(shop): State<Shop>,
    Extension(asked): Extension<Asked>,
    questions: Questions,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match submit(&shop, &asked, questions, body).await {
        Err(error) => asked.answer::<()>(Err(error)),
        Ok(Submitted {
            run, ended: true, ..
        }) => asked.answer(view(&run).await),
        Ok(Submitted { run, is_new, .. }) => {
            let id = run.id();
            // A run that was just made is queued, whatever became of it since: one read less.
            let status = if is_new {
                Ok(RunStatus::Queued)
            } else {
                run.status().await.map_err(of_engine)
            };
            let data = status.map(|status| json!({ "taskRunId": id, "status": status, "message": "the task was submitted" }));
            let mut response = asked.answer_as(StatusCode::ACCEPTED, data);
            if let Ok(place) = HeaderValue::from_str(&format!("/status?id={id}")) {
                response.headers_mut().insert(header::LOCATION, place);
            }
            response
        }
    }
}

/// What became of a submit.
struct Submitted {
    run: RunHandle,
    /// It was not found by a key, nor waited for.
    is_new: bool,
    /// It was waited for to its end.
    ended: bool,
}

async fn submit(
    shop: &Shop,
    asked: &Asked,
    questions: Questions,
    body: Result<Bytes, BytesRejection>,
) -> Result<Submitted, ServiceError> {
    let wait = waiting(
        Question::of(questions)?.wait.as_deref(),
        shop.options.longest_wait_secs,
    )?;
    let body: Execute = answer::of_form(&answer::body(body)?, FORM)?;
    let input = body
        .input
        .map_or_else(|| "{}".to_owned(), |input| input.text().to_owned());
    let mut submit = shop
        .engine
        .submit_text(body.task_name, input)
        .priority(body.priority);
    for (name, value) in body.labels {
        submit = submit.label(name, value);
    }
    let key = body
        .idempotency_key
        .or_else(|| asked.idempotency_key.clone());
    let is_new = key.is_none() && wait.is_none();
    if let Some(key) = key {
        submit = submit.idempotency_key(key);
    }
    if let Some(id) = body.correlation_id.or_else(|| asked.correlation_id.clone()) {
        submit = submit.correlation_id(id);
    }
    if let Some(trace) = &asked.traceparent {
        submit = submit.traceparent(trace);
    }
    if body.validate {
        submit = submit.validate_input();
    }
    let run = submit.await.map_err(of_engine)?;
    shop.options.metrics.submitted();
    let ended = match wait {
        None => false,
        Some(wait) => tokio::select! {
            ended = tokio::time::timeout(wait, run.outcome()) => ended.is_ok(),
            () = shop.options.stop.cancelled() => false,
        },
    };
    Ok(Submitted { run, is_new, ended })
}

/// The same by the request forms that every service knows: `{"method":"execute","args":["hello",{}]}`.
async fn call(
    shop: State<Shop>,
    Extension(asked): Extension<Asked>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let said = async {
        let links = parse_request(&answer::body(body)?)?;
        let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let args = links.last().and_then(|link| link.args.clone());
        Ok::<_, ServiceError>((names.join("."), args.unwrap_or_default()))
    };
    let (method, args) = match said.await {
        Ok(said) => said,
        Err(error) => return asked.answer::<()>(Err(error)),
    };
    let first = args.first();
    let text = first.and_then(|first| first.to::<String>().ok());
    let mut question: Question = first.and_then(|first| first.to().ok()).unwrap_or_default();
    if method == "schema" {
        question.name = text.or(question.name);
    } else if text.is_some() && method != "execute" {
        question.id = text;
    } else if let (Some(name), "execute") = (text, method.as_str()) {
        let body = Json::from(&json!({ "taskName": name, "input": args.get(1) }));
        let bytes = Bytes::from(body.unwrap_or_default().text().to_owned());
        return execute(shop, Extension(asked), Ok(Query(question)), Ok(bytes)).await;
    }
    let (asked_for, questions) = (Extension(asked.clone()), Ok(Query(question)));
    match method.as_str() {
        "execute" => {
            let bytes = Bytes::from(first.cloned().unwrap_or_default().text().to_owned());
            execute(shop, asked_for, questions, Ok(bytes)).await
        }
        "list" => list(shop, asked_for, questions).await,
        "schema" => schema(shop, asked_for, questions).await,
        "status" => status(shop, asked_for, questions).await,
        "logs" => logs(shop, asked_for, questions).await,
        "health" | "test" => health(shop, asked_for).await,
        other => asked.answer::<()>(Err(ServiceError::not_found(format!(
            "task-executor has no method {other:?}; it has execute, list, schema, status, logs and health"
        )))),
    }
}

/// How long `?wait=` asks to wait: seconds, or `true`.
fn waiting(text: Option<&str>, longest: u64) -> Result<Option<Duration>, ServiceError> {
    match text {
        None | Some("" | "false" | "0") => Ok(None),
        Some("true") => Ok(Some(Duration::from_secs(WAIT_SECS.min(longest)))),
        Some(text) => match text.parse() {
            Ok(secs) if secs <= longest => Ok(Some(Duration::from_secs(secs))),
            _ => Err(ServiceError::validation(format!(
                "wait is true or a number of seconds up to {longest}, not {text:?}"
            ))),
        },
    }
}

async fn view(run: &RunHandle) -> Result<RunView, ServiceError> {
    Ok(RunView::of(run.info().await.map_err(of_engine)?))
}

async fn list(
    State(shop): State<Shop>,
    Extension(asked): Extension<Asked>,
    questions: Questions,
) -> Response {
    let result: Result<Value, ServiceError> = async {
        let question = Question::of(questions)?;
        let limit = question.limit()?;
        let tasks = shop.engine.tasks().await.map_err(of_engine)?;
        let count = tasks.len();
        let mut rest = tasks.iter().filter(|task| {
            question
                .after
                .as_deref()
                .is_none_or(|after| task.name.as_str() > after)
        });
        let page: Vec<TaskView> = rest.by_ref().take(limit).map(TaskView::of).collect();
        let next = rest.next().and(page.last()).map(|task| task.name.clone());
        Ok(json!({ "tasks": page, "count": count, "next": next }))
    }
    .await;
    asked.answer(result)
}

async fn schema(
    State(shop): State<Shop>,
    Extension(asked): Extension<Asked>,
    questions: Questions,
) -> Response {
    let result: Result<Json, ServiceError> = async {
        let question = Question::of(questions)?;
        let name = question
            .name
            .or(question.id)
            .ok_or_else(|| ServiceError::validation("name the task: /schema?name=…"))?;
        let task = shop.engine.task(&name).await.map_err(of_engine)?;
        let schema = Schema::from_json(&task.schema);
        match question.format.as_deref() {
            None | Some("json") => Ok(schema.json()),
            Some("openapi") => Ok(schema.openapi()),
            Some("openai") => Ok(schema.openai()),
            Some(other) => Err(ServiceError::validation(format!(
                "format is json, openapi or openai, not {other:?}"
            ))),
        }
    }
    .await;
    asked.answer(result)
}

async fn status(
    State(shop): State<Shop>,
    Extension(asked): Extension<Asked>,
    questions: Questions,
) -> Response {
    #[derive(Serialize)]
    struct Page {
        runs: Vec<RunView>,
        next: Option<TaskRunId>,
    }
    let question = match Question::of(questions) {
        Ok(question) => question,
        Err(error) => return asked.answer::<()>(Err(error)),
    };
    if let Some(id) = &question.id {
        let run = async { view(&shop.engine.run(run_id(id)?).await.map_err(of_engine)?).await };
        return asked.answer(run.await);
    }
    let page: Result<Page, ServiceError> = async {
        let statuses = question.status.as_deref().map(|word| {
            RunStatus::from_str(word).map_err(|_| {
                let words: Vec<&str> = RunStatus::ALL.iter().map(|s| s.as_str()).collect();
                ServiceError::validation(format!("a run is {}, not {word:?}", words.join(", ")))
            })
        });
        let filter = RunFilter {
            statuses: statuses.transpose()?.into_iter().collect(),
            task: question.name.as_deref().map(TaskName::new),
            before: question.before.as_deref().map(run_id).transpose()?,
            ..RunFilter::default()
        };
        let page = shop
            .engine
            .runs(&filter, question.limit()?)
            .await
            .map_err(of_engine)?;
        Ok(Page {
            runs: page.runs.into_iter().map(RunView::of).collect(),
            next: page.next,
        })
    }
    .await;
    asked.answer(page)
}

async fn logs(
    State(shop): State<Shop>,
    Extension(asked): Extension<Asked>,
    questions: Questions,
) -> Response {
    #[derive(Serialize)]
    struct Page {
        logs: Vec<LogView>,
        next: u64,
    }
    let page: Result<Page, ServiceError> = async {
        let question = Question::of(questions)?;
        let limit = question.limit()?;
        let id = question
            .id
            .ok_or_else(|| ServiceError::validation("name the run: /logs?id=…"))?;
        let after = match question.after.as_deref() {
            None => LogCursor::default(),
            Some(text) => LogCursor(text.parse().map_err(|_| {
                ServiceError::validation(format!(
                    "after is the `next` of the page before, not {text:?}"
                ))
            })?),
        };
        let run = shop.engine.run(run_id(&id)?).await.map_err(of_engine)?;
        let page = run.log_page(after).await.map_err(of_engine)?;
        let logs: Vec<LogView> = page
            .lines
            .into_iter()
            .take(limit)
            .map(LogView::of)
            .collect();
        let next = logs.last().map_or(after.0, |line| line.cursor);
        Ok(Page { logs, next })
    }
    .await;
    asked.answer(page)
}

async fn events(
    State(shop): State<Shop>,
    Extension(asked): Extension<Asked>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let run = async {
        let Path(id) = id.map_err(|rejection| ServiceError::validation(rejection.body_text()))?;
        shop.engine.run(run_id(&id)?).await.map_err(of_engine)
    };
    match run.await {
        Err(error) => asked.answer::<()>(Err(error)),
        Ok(run) => {
            let seen = headers
                .get("last-event-id")
                .and_then(|text| text.to_str().ok()?.parse().ok());
            let stream = follow(run, LogCursor(seen.unwrap_or(0)), shop.options.stop.clone());
            Sse::new(stream)
                .keep_alive(KeepAlive::default())
                .into_response()
        }
    }
}

/// Sends a signal to a run. The body is the payload, JSON text; none is `null`.
async fn signal(
    State(shop): State<Shop>,
    Extension(asked): Extension<Asked>,
    to: Result<Path<(String, String)>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let sent = async {
        let Path((id, name)) =
            to.map_err(|rejection| ServiceError::validation(rejection.body_text()))?;
        let payload = match &body {
            Ok(bytes) if bytes.is_empty() => Json::null(),
            _ => answer::body(body)?,
        };
        let run = shop.engine.run(run_id(&id)?).await.map_err(of_engine)?;
        if !run.signal(&name, &payload).await.map_err(of_engine)? {
            let status = run.status().await.map_err(of_engine)?;
            return Err(ServiceError::conflict(format!(
                "run {id} has ended, it is {status}: the signal was not sent"
            ))
            .with_code("RUN_ENDED"));
        }
        Ok(json!({ "taskRunId": run.id(), "signal": name }))
    };
    asked.answer(sent.await)
}

/// A run as events: `status` at first and at each change, `log` for each line (its id is the cursor to come back with),
/// `end` with the run when it ended or is blocked.
fn follow(
    run: RunHandle,
    cursor: LogCursor,
    stop: tokio_util::sync::CancellationToken,
) -> impl Stream<Item = Result<Event, std::convert::Infallible>> {
    struct Follow {
        run: RunHandle,
        cursor: LogCursor,
        status: Option<RunStatus>,
        lines: std::vec::IntoIter<StoredLogLine>,
        over: bool,
        stop: tokio_util::sync::CancellationToken,
    }
    let start = Follow {
        run,
        cursor,
        status: None,
        lines: Vec::new().into_iter(),
        over: false,
        stop,
    };
    stream::unfold(start, |mut follow| async move {
        if follow.over {
            return None;
        }
        loop {
            if let Some(line) = follow.lines.next() {
                let id = line.cursor.0.to_string();
                return Some((Ok(event("log", &LogView::of(line)).id(id)), follow));
            }
            // The status is read before the lines: when it says that all is over, no line comes after the empty page.
            let looked = async {
                let info = follow.run.info().await?;
                let page = follow.run.log_page(follow.cursor).await?;
                Ok::<_, tasker_core::EngineError>((info, page))
            };
            let (info, page) = match looked.await {
                Ok(looked) => looked,
                Err(error) => {
                    follow.over = true;
                    return Some((
                        Ok(event("error", &json!({ "message": error.to_string() }))),
                        follow,
                    ));
                }
            };
            let status = info.status;
            let still = page.lines.is_empty();
            follow.cursor = page.next;
            follow.lines = page.lines.into_iter();
            if follow.status != Some(status) {
                follow.status = Some(status);
                return Some((
                    Ok(event(
                        "status",
                        &json!({ "taskRunId": info.id, "status": status }),
                    )),
                    follow,
                ));
            }
            if still && (status.is_terminal() || status == RunStatus::Blocked) {
                follow.over = true;
                return Some((Ok(event("end", &RunView::of(info))), follow));
            }
            if still {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = follow.stop.cancelled() => return None,
                }
            }
        }
    })
}

fn event(name: &str, data: &impl Serialize) -> Event {
    // Between its tokens JSON text may hold carriage returns, which an event may not.
    let text = serde_json::to_string(data)
        .unwrap_or_else(|_| "null".to_owned())
        .replace('\r', " ");
    Event::default().event(name).data(text)
}

async fn health(State(shop): State<Shop>, Extension(asked): Extension<Asked>) -> Response {
    checked(&shop.engine, &asked, "task-executor").await
}

/// Health of an engine: the database is really read.
pub(super) async fn checked(engine: &Engine, asked: &Asked, service: &str) -> Response {
    // A question that no row answers: inputs may be large.
    let none = RunFilter {
        before: Some(TaskRunId::from_parts(Timestamp::default(), 0)),
        ..RunFilter::default()
    };
    let read = engine.runs(&none, 1).await;
    let problem = read
        .err()
        .map(|error| error.to_string())
        .or(engine.health().storage);
    let (status, word) = match problem {
        None => (StatusCode::OK, "healthy"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
    };
    asked.answer_as(
        status,
        Ok(json!({ "service": service, "status": word, "storage": problem })),
    )
}
