//! `tasker runs`, `status`, `cancel`, `signal`, `unblock`.

use serde::Serialize;
use serde_json::json;
use tasker_core::{Cancelled, Failure, RunFilter, TaskName, TaskRunId, UnblockDecision};

use super::run::{wait, working};
use super::{Here, json_argument};
use crate::args::{Decision, Runs, Unblock};
use crate::error::CliError;
use crate::output::columns;
use crate::view::RunView;

/// Runs on one page at most.
const PAGE: usize = 200;

/// Some runs. Typed, so that payloads pass as the exact text that they are.
#[derive(Serialize)]
struct Page<'r> {
    runs: &'r [RunView],
    next: Option<TaskRunId>,
}

/// Lists runs, newest first.
pub(super) async fn list(here: &Here, args: &Runs) -> Result<(), CliError> {
    let engine = here.client().await?;
    let mut filter = RunFilter {
        statuses: args.status.clone(),
        task: args.task.as_deref().map(TaskName::new),
        before: args.before,
        ..RunFilter::default()
    };
    let mut runs = Vec::new();
    let limit = args.limit as usize;
    while runs.len() < limit {
        let page = engine.runs(&filter, (limit - runs.len()).min(PAGE)).await?;
        runs.extend(page.runs.into_iter().map(RunView::of));
        filter.before = page.next;
        if filter.before.is_none() {
            break;
        }
    }
    if let (Some(next), false) = (filter.before, here.output.is_json()) {
        here.output
            .note(format_args!("there are more: --before {next}"));
    }
    if runs.is_empty() {
        here.output
            .note("there are no such runs; start one with: tasker run NAME");
    }
    here.output.answer(
        &Page {
            runs: &runs,
            next: filter.before,
        },
        || {
            let rows: Vec<[String; 4]> = runs
                .iter()
                .map(|run| {
                    [
                        run.task_run_id.to_string(),
                        run.status.to_string(),
                        run.task.clone(),
                        run.created_at.clone(),
                    ]
                })
                .collect();
            columns(&rows)
        },
    )
}

/// Shows a run; with `poll` waits for its end.
pub(super) async fn status(here: &Here, id: TaskRunId, poll: bool) -> Result<(), CliError> {
    if poll {
        let engine = working(here).await?;
        let done = match engine.run(id).await {
            Ok(run) => wait(here, &run).await,
            Err(error) => Err(error.into()),
        };
        engine.shutdown().await?;
        return done;
    }
    let engine = here.client().await?;
    let run = RunView::of(engine.run(id).await?.info().await?);
    here.output.answer(&run, || text(&run))
}

fn text(run: &RunView) -> String {
    let mut rows = vec![
        ["run".to_owned(), run.task_run_id.to_string()],
        [
            "task".to_owned(),
            format!("{} ({})", run.task, super::publish::short(&run.version)),
        ],
        ["status".to_owned(), run.status.to_string()],
        ["input".to_owned(), run.input.to_string()],
    ];
    let mut optional = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            rows.push([name.to_owned(), value]);
        }
    };
    optional("result", run.result.as_ref().map(ToString::to_string));
    optional("failure", run.failure.as_ref().map(ToString::to_string));
    optional(
        "stack",
        run.failure
            .as_ref()
            .and_then(|failure| failure.stack.clone()),
    );
    optional(
        "blocked",
        run.blocked.as_ref().map(|blocked| blocked.message.clone()),
    );
    optional("key", run.idempotency_key.clone());
    optional("correlation", run.correlation_id.clone());
    optional("created", Some(run.created_at.clone()));
    optional("started", run.started_at.clone());
    optional("ended", run.ended_at.clone());
    columns(&rows)
}

/// Cancels a run.
pub(super) async fn cancel(here: &Here, id: TaskRunId) -> Result<(), CliError> {
    let engine = here.client().await?;
    let (done, says) = match engine.run(id).await?.cancel().await? {
        Cancelled::Done => ("cancelled", format!("run {id} is cancelled")),
        Cancelled::Asked => (
            "asked",
            format!("run {id} was asked to end; see: tasker status {id} --poll"),
        ),
        Cancelled::AlreadyEnded(status) => (
            "already_ended",
            format!("run {id} had ended before: {status}"),
        ),
    };
    here.output
        .answer(&json!({ "taskRunId": id, "outcome": done }), || says)
}

/// Sends a signal to a run.
pub(super) async fn signal(
    here: &Here,
    id: TaskRunId,
    name: &str,
    payload: &str,
) -> Result<(), CliError> {
    let payload = json_argument("the payload", payload)?;
    let engine = here.client().await?;
    let run = engine.run(id).await?;
    if !run.signal(name, &payload).await? {
        let status = run.status().await?;
        return Err(CliError::Usage(format!(
            "run {id} has ended, it is {status}: the signal was not sent"
        )));
    }
    here.output
        .answer(&json!({ "taskRunId": id, "signal": name }), || {
            format!("{name} was sent to run {id}; see: tasker status {id} --poll")
        })
}

/// Decides about a blocked run.
pub(super) async fn unblock(here: &Here, args: Unblock) -> Result<(), CliError> {
    let decision = match args.decision {
        Decision::Cancel => return cancel(here, args.id).await,
        Decision::Retry => UnblockDecision::Retry,
        Decision::Fail { message } => UnblockDecision::fail(Failure::new("Error", message)),
        Decision::Supply { result } => {
            UnblockDecision::supply(json_argument("the result", &result)?)
        }
    };
    let engine = here.client().await?;
    let changed = engine.unblock(args.id, decision).await?;
    if changed == 0 {
        let status = engine.run(args.id).await?.status().await?;
        return Err(CliError::Usage(format!(
            "run {} is not blocked, it is {status}: nothing was changed",
            args.id
        )));
    }
    let id = args.id;
    here.output
        .answer(&json!({ "taskRunId": id, "changed": changed }), || {
            format!("run {id} goes on where an engine works; see: tasker status {id} --poll")
        })
}
