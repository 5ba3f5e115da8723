//! A step of an execution in a process of its own: confined as the process wall's children are, for one request only.
//!
//! What comes back is taken for what it is: text of whoever wrote the task. A process that hangs, crashes or says nothing fails
//! that request and no other.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tasker_core::wall::{Confinement, work_confined};
use tasker_core::{Failure, Json, ServiceError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::step::{self, Order, Reply};

/// How long a process may take for one step.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of an answer, at most: a state holds every answer that the task was given.
const ANSWER_BYTES: u64 = 64 << 20;
const STACK_BYTES: usize = 4 << 20;
const MEMORY_BYTES: u64 = 1 << 30;

/// Does it in a process of this program.
pub(super) async fn perform(program: &Path, order: &Order) -> Result<Json, ServiceError> {
    let order = serde_json::to_vec(order).map_err(ServiceError::internal)?;
    let asked = tokio::time::timeout(PATIENCE, ask(program, &order)).await;
    let Ok(answer) = asked else {
        let message = format!(
            "the step took longer than {} s, and its process was ended; split the work into smaller turns",
            PATIENCE.as_secs()
        );
        return failed(&Failure {
            code: Some("step_time".to_owned()),
            ..Failure::new("LimitExceeded", message)
        });
    };
    let reply = serde_json::from_slice::<Reply>(&answer?).ok();
    match reply.and_then(Reply::result) {
        Some(result) => result,
        None => failed(&Failure {
            code: Some("sandbox_ended".to_owned()),
            ..Failure::new(
                "LimitExceeded",
                "the process that ran the step ended without an answer: it crashed, or passed its limit of memory; other requests are not touched",
            )
        }),
    }
}

async fn ask(program: &Path, order: &[u8]) -> Result<Vec<u8>, ServiceError> {
    let cannot = |what: &'static str| {
        move |error: std::io::Error| ServiceError::internal(format!("{what}: {error}"))
    };
    let mut child = Command::new(program)
        .args(["execute-once", "--parent", &std::process::id().to_string()])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(cannot("the sandbox process could not be started"))?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(ServiceError::internal("the sandbox process has no pipes"));
    };
    // A process that ended early does not take its order: its answer, or that there is none, says why.
    let _ = input.write_all(order).await;
    drop(input);
    let mut answer = Vec::new();
    output
        .take(ANSWER_BYTES)
        .read_to_end(&mut answer)
        .await
        .map_err(cannot("the sandbox process could not be heard"))?;
    Ok(answer)
}

/// The answer of a step that failed, as the step itself would give it.
fn failed(failure: &Failure) -> Result<Json, ServiceError> {
    Json::from(&json!({ "status": "failed", "failure": failure, "logs": [] }))
        .map_err(ServiceError::internal)
}

/// The program of such a process: does the one step that comes from standard input. To be called from a plain `fn main` before any
/// thread is started. Returns only what stood in the way.
pub fn execute_once(parent: u32) -> String {
    let confinement = Confinement {
        parent,
        stack_bytes: STACK_BYTES,
        memory_bytes: MEMORY_BYTES,
    };
    work_confined(confinement, |order| {
        let result = match serde_json::from_slice::<Order>(&order) {
            Ok(order) => step::perform(order),
            Err(error) => Err(ServiceError::internal(error)),
        };
        text(&Reply::from(result))
    })
}

fn text(reply: &impl Serialize) -> Vec<u8> {
    // Without a text there is no answer, which says it too.
    serde_json::to_vec(reply).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tasker_core::Timestamp;

    use super::super::step::Around;
    use super::*;

    fn order() -> Order {
        let body = Json::parse(r#"{"taskCode":"module.exports = () => 1"}"#).unwrap();
        let around = Around {
            goes_on: false,
            time: Timestamp::from_millis(0),
            seed: [0; 32],
            key: None,
            tools: Vec::new(),
            run_id: String::new(),
            correlation_id: None,
        };
        Order::new(&body, around).unwrap()
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_process_that_says_nothing_fails_its_request_only() {
        let said = perform(Path::new("/bin/false"), &order()).await.unwrap();
        assert!(said.text().contains("sandbox_ended"), "{said}");
        let error = perform(Path::new("/no/such/program"), &order())
            .await
            .unwrap_err();
        assert!(error.message.contains("could not be started"), "{error}");
    }

    #[test]
    fn an_order_and_its_reply_pass_as_text() {
        let order = serde_json::to_vec(&order()).unwrap();
        let reply = text(&Reply::from(step::perform(
            serde_json::from_slice(&order).unwrap(),
        )));
        let reply: Reply = serde_json::from_slice(&reply).unwrap();
        let done = reply.result().unwrap().unwrap();
        assert!(done.text().contains(r#""result":1"#), "{done}");
    }
}
