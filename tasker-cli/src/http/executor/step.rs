//! One step of an execution: what comes in one request, and its answer. Done in this process, or in a confined one (see
//! [`super::sandbox`]): time, randomness and names are in the order, so that it is the same there.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use tasker_core::adaptor::CallSeq;
use tasker_core::execution::{
    Execution, ExecutionError, ExecutionOptions, Pending, PendingCall, ResumeOptions, Step,
};
use tasker_core::service::ServiceErrorType;
use tasker_core::task::{Module, ModuleFormat, Program, prepare};
use tasker_core::vm::ToolNames;
use tasker_core::{
    Failure, Json, Limits, LogLine, Outcome, ServiceError, ServiceStyle, TaskName, TaskOptions,
    TaskSource, TaskVersion, Timestamp,
};

use super::FORM;
use crate::http::answer;

/// What is to be done.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    code: Code,
    /// Now, in milliseconds.
    time: i64,
    /// Signs the state.
    key: Option<[u8; 32]>,
    what: What,
}

/// From the beginning, or from a state.
#[derive(Serialize, Deserialize)]
enum What {
    Begin {
        input: Json,
        seed: [u8; 32],
        tools: Vec<(String, ServiceStyle)>,
        run_id: String,
        correlation_id: Option<String>,
    },
    GoOn {
        state: String,
        answers: Vec<(CallSeq, Told)>,
    },
}

/// An answer as it crosses a pipe. The result is text in text, so that `null` and nothing stay two things.
#[derive(Serialize, Deserialize)]
struct Told {
    result: Option<String>,
    failure: Option<Failure>,
}

impl From<Outcome> for Told {
    fn from(outcome: Outcome) -> Self {
        let (result, failure) = match outcome {
            Outcome::Completed(result) => (result.map(|json| json.text().to_owned()), None),
            Outcome::Failed(failure) => (None, Some(failure)),
        };
        Self { result, failure }
    }
}

impl Told {
    fn outcome(self) -> Result<Outcome, ServiceError> {
        if let Some(failure) = self.failure {
            return Ok(Outcome::Failed(failure));
        }
        let result = self.result.map(Json::parse).transpose();
        Ok(Outcome::Completed(result.map_err(ServiceError::internal)?))
    }
}

/// What an order is made of beside the body.
pub(super) struct Around {
    /// From a state; else from the beginning.
    pub(super) goes_on: bool,
    /// Now.
    pub(super) time: Timestamp,
    /// Seed of the task's randomness.
    pub(super) seed: [u8; 32],
    /// Signs the state.
    pub(super) key: Option<[u8; 32]>,
    /// The services by their names and styles.
    pub(super) tools: Vec<(String, ServiceStyle)>,
    /// What `context.run` shows.
    pub(super) run_id: String,
    /// What `context.run` shows.
    pub(super) correlation_id: Option<String>,
}

impl Order {
    /// What a body asks for. Its code is parsed here: the parser is safe Rust, and takes a thread that a confined process may not have.
    pub(super) fn new(body: &Json, around: Around) -> Result<Self, ServiceError> {
        let mut body: Body = answer::of_form(body, FORM)?;
        let code = Code::of(program(&body)?);
        let what = if around.goes_on {
            let Some(state) = body.vm_state.take() else {
                return Err(ServiceError::validation(format!(
                    "there is no vmState; {FORM}"
                )));
            };
            What::GoOn {
                answers: answers(&mut body, state.first),
                state: state.state,
            }
        } else {
            What::Begin {
                input: match body.input {
                    Some(input) => input,
                    None => Json::parse("{}").map_err(ServiceError::internal)?,
                },
                seed: around.seed,
                tools: around.tools,
                run_id: around.run_id,
                correlation_id: around.correlation_id,
            }
        };
        Ok(Self {
            code,
            time: around.time.as_millis(),
            key: around.key,
            what,
        })
    }
}

fn answers(body: &mut Body, first: CallSeq) -> Vec<(CallSeq, Told)> {
    if body.external_results.is_empty() {
        let answer = outcome(body.external_result.take(), body.external_error.take());
        return vec![(first, answer.into())];
    }
    let answers = std::mem::take(&mut body.external_results).into_iter();
    answers
        .map(|answer| (answer.seq, outcome(answer.result, answer.error).into()))
        .collect()
}

/// A program as it crosses a pipe.
#[derive(Serialize, Deserialize)]
struct Code {
    name: String,
    version: String,
    entry: CodeFile,
    modules: Vec<CodeFile>,
    bare_function: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct CodeFile {
    path: String,
    source: String,
    is_module: bool,
}

impl Code {
    fn of(program: Program) -> Self {
        let file = |module: Module| CodeFile {
            path: module.path,
            source: module.source,
            is_module: module.format == ModuleFormat::EsModule,
        };
        Self {
            name: program.name.to_string(),
            version: program.version.to_string(),
            entry: file(program.entry),
            modules: program.modules.into_iter().map(file).collect(),
            bare_function: program.bare_function,
        }
    }

    fn program(self) -> Arc<Program> {
        let module = |file: CodeFile| Module {
            path: file.path,
            source: file.source,
            format: if file.is_module {
                ModuleFormat::EsModule
            } else {
                ModuleFormat::CommonJs
            },
        };
        Arc::new(Program {
            name: TaskName::new(self.name),
            version: TaskVersion::new(self.version),
            entry: module(self.entry),
            modules: self.modules.into_iter().map(module).collect(),
            bare_function: self.bare_function,
        })
    }
}

/// What came of it, as it crosses a pipe.
#[derive(Serialize, Deserialize)]
pub(super) struct Reply {
    done: Option<Json>,
    refused: Option<Refused>,
}

#[derive(Serialize, Deserialize)]
struct Refused {
    kind: ServiceErrorType,
    code: Option<String>,
    message: String,
    status: Option<u16>,
}

impl From<Result<Json, ServiceError>> for Reply {
    fn from(result: Result<Json, ServiceError>) -> Self {
        match result {
            Ok(done) => Self {
                done: Some(done),
                refused: None,
            },
            Err(error) => Self {
                done: None,
                refused: Some(Refused {
                    kind: error.kind,
                    code: error.code,
                    message: error.message,
                    status: error.status,
                }),
            },
        }
    }
}

impl Reply {
    /// What came of it; `None` when nothing did.
    pub(super) fn result(self) -> Option<Result<Json, ServiceError>> {
        match (self.done, self.refused) {
            (Some(done), _) => Some(Ok(done)),
            (None, Some(refused)) => Some(Err(ServiceError {
                code: refused.code,
                status: refused.status,
                ..ServiceError::of(refused.kind, refused.message)
            })),
            (None, None) => None,
        }
    }
}

/// Does it.
pub(super) fn perform(order: Order) -> Result<Json, ServiceError> {
    let program = order.code.program();
    let time = Timestamp::from_millis(order.time);
    let step = match order.what {
        What::Begin {
            input,
            seed,
            tools,
            run_id,
            correlation_id,
        } => {
            let mut options = ExecutionOptions {
                tools: Arc::new(ToolNames::new(tools)),
                limits: Arc::new(Limits::default()),
                time,
                seed,
                key: order.key,
                ..ExecutionOptions::default()
            };
            options.run.id = run_id;
            options.run.task = program.name.to_string();
            options.run.version = program.version.to_string();
            options.run.correlation_id = correlation_id;
            Execution::start(&program, input, options)
        }
        What::GoOn { state, answers } => {
            let options = ResumeOptions {
                time,
                key: order.key,
            };
            let answers = answers
                .into_iter()
                .map(|(seq, told)| Ok((seq, told.outcome()?)))
                .collect::<Result<Vec<_>, ServiceError>>()?;
            Execution::resume(&program, state.as_bytes(), answers, &options)
        }
    };
    Json::from(&said_of(step.map_err(refused)?)?).map_err(ServiceError::internal)
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
pub(in crate::http) fn present<'de, D: Deserializer<'de>>(
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
pub(in crate::http) struct ExternalError {
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

pub(in crate::http) fn outcome(result: Option<Json>, error: Option<ExternalError>) -> Outcome {
    match error {
        Some(error) => Outcome::Failed(error.into()),
        None => Outcome::Completed(result),
    }
}

fn program(body: &Body) -> Result<Program, ServiceError> {
    let mut source = TaskSource::file("task.js", body.task_code.as_str());
    source.name.clone_from(&body.task_name);
    let prepared = prepare(source, &TaskOptions::default(), &Limits::default());
    prepared
        .map(|prepared| prepared.program)
        .map_err(ServiceError::validation)
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
