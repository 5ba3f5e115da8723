//! `POST /resume` by the id of a stack run: somebody else did a call of a stored run and brings its answer.
//!
//! The call is settled under a lease as a worker would settle it, so that it is settled once and not while it is being asked.
//! On an engine that is driven by hand its frame then makes its next turn; any other engine takes it from there by itself.

use serde::Deserialize;
use serde_json::{Value, json};
use tasker_core::{
    Engine, EngineError, Json, Outcome, ServiceError, StackKind, StackRunId, TraceNode,
};

use super::answer::{self, of_engine};
use super::executor::{ExternalError, outcome, present};

/// The body; what it does not name is passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ByRun {
    /// A call, or a frame: then its first open call.
    #[serde(alias = "stackRunIdToResume")]
    stack_run_id: Json,
    #[serde(
        default,
        alias = "result",
        alias = "resultToInject",
        deserialize_with = "present"
    )]
    external_result: Option<Json>,
    #[serde(alias = "error")]
    external_error: Option<ExternalError>,
}

const FORM: &str =
    r#"send {"stackRunId":"…","result":…} or {"stackRunId":"…","externalError":{"message":"…"}}"#;

/// The body, when it is of this form.
pub(super) fn of_body(body: &Json) -> Option<Result<ByRun, ServiceError>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Peek {
        #[serde(alias = "stackRunIdToResume")]
        stack_run_id: Option<Json>,
        vm_state: Option<Json>,
    }
    let peek: Peek = body.to().ok()?;
    if peek.stack_run_id.is_none() || peek.vm_state.is_some() {
        return None;
    }
    Some(answer::of_form(body, FORM))
}

/// Settles the call, and says how its frame is then.
pub(super) async fn perform(engine: &Engine, by: ByRun) -> Result<Value, ServiceError> {
    let id = stack_run_id(&by.stack_run_id)?;
    if by.external_result.is_none() && by.external_error.is_none() {
        return Err(ServiceError::validation(format!(
            "the body brings no answer; {FORM}"
        )));
    }
    let answer: Outcome = outcome(by.external_result, by.external_error);
    let settled = engine.settle_call(id, answer).await.map_err(of_engine)?;
    match engine.process(settled.frame).await {
        Ok(_) => {}
        Err(EngineError::WrongDrive { .. }) => {
            return Ok(json!({
                "status": "resumed",
                "taskRunId": settled.run,
                "stackRunId": settled.frame,
                "callId": settled.call,
            }));
        }
        Err(error) => return Err(of_engine(error)),
    }
    let run = engine.run(settled.run).await.map_err(of_engine)?;
    let trace = run.trace().await.map_err(of_engine)?;
    let root = trace.root.as_ref();
    let frame = root.and_then(|root| find(root, settled.frame));
    let mut said = json!({
        "taskRunId": settled.run,
        "stackRunId": settled.frame,
        "callId": settled.call,
    });
    let more = match frame {
        Some(frame) if frame.status.is_terminal() => {
            // The root's result stays with the run when its rows are folded.
            let is_root = root.is_some_and(|root| root.id == frame.id);
            let info = run.info().await.map_err(of_engine)?;
            match (info.outcome.filter(|_| is_root), &frame.failure) {
                (Some(Outcome::Completed(result)), _) => {
                    json!({ "status": "completed", "result": result.unwrap_or_default() })
                }
                (Some(Outcome::Failed(failure)), _) => {
                    json!({ "status": "failed", "failure": failure })
                }
                (None, Some(failure)) => json!({ "status": "failed", "failure": failure }),
                (None, None) => json!({ "status": "completed", "result": frame.result }),
            }
        }
        Some(frame) => {
            let open = frame
                .children
                .iter()
                .filter(|child| !child.status.is_terminal());
            let calls: Vec<Value> = open.map(call).collect();
            let first = calls.first();
            json!({
                "status": "paused",
                "suspensionData": {
                    "stackRunId": first.map(|call| &call["stackRunId"]),
                    "serviceName": first.map(|call| &call["serviceName"]),
                    "methodName": first.map(|call| &call["methodName"]),
                    "args": first.map(|call| &call["args"]),
                    "calls": calls,
                },
            })
        }
        None => json!({ "status": "resumed" }),
    };
    if let (Value::Object(said), Value::Object(more)) = (&mut said, more) {
        said.extend(more);
    }
    Ok(said)
}

fn call(node: &TraceNode) -> Value {
    json!({
        "stackRunId": node.id,
        "kind": match node.kind {
            StackKind::Frame => "task",
            kind => kind.as_str(),
        },
        "status": node.status,
        "serviceName": node.service,
        "methodName": node.path,
        "args": node.args,
    })
}

fn find(node: &TraceNode, id: StackRunId) -> Option<&TraceNode> {
    if node.id == id {
        return Some(node);
    }
    // The depth of the tree is bounded by the limit on nested tasks.
    node.children.iter().find_map(|child| find(child, id))
}

/// An id as it stands in a body: a text, never a number.
pub(super) fn stack_run_id(id: &Json) -> Result<StackRunId, ServiceError> {
    let text: String = id.to().map_err(|_| {
        ServiceError::validation(format!("stackRunId is {id}; ids are texts (UUIDs), not numbers: take it from the trace of the run"))
    })?;
    text.parse()
        .map_err(|_| ServiceError::validation(format!("stackRunId {text:?} is no UUID")))
}
