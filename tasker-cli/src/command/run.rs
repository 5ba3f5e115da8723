//! `tasker run` and `tasker task`: asks for a run, and waits for it where that is asked for.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde_json::json;
use tasker_core::{Clock, Engine, RunError, RunHandle, SystemClock};

use super::tree::{Progress, live};
use super::{Here, json_argument};
use crate::args::RunHow;
use crate::error::CliError;
use crate::output::Output;
use crate::signals::Signals;
use crate::view::RunView;

/// How often the view of a run is drawn again.
const REDRAW: Duration = Duration::from_millis(150);

/// Submits; with `--poll` waits.
pub(super) async fn perform(here: &Here, name: &str, how: &RunHow) -> Result<(), CliError> {
    let input = json_argument("--input", &how.input)?;
    let engine = if how.poll {
        working(here).await?
    } else {
        here.client().await?
    };
    let mut submit = engine.submit(name, &input);
    if let Some(key) = &how.key {
        submit = submit.idempotency_key(key);
    }
    if how.validate {
        submit = submit.validate_input();
    }
    let done = match submit.await {
        Ok(run) if how.poll => wait(here, &run).await,
        Ok(run) => submitted(here, &run).await,
        Err(error) => Err(error.into()),
    };
    engine.shutdown().await?;
    done
}

async fn submitted(here: &Here, run: &RunHandle) -> Result<(), CliError> {
    let (id, status) = (run.id(), run.status().await?);
    if !here.is_served().await? {
        here.output.note(format_args!(
            "submitted; it runs where an engine works on this database: `tasker serve`, or `tasker status {id} --poll`"
        ));
    }
    here.output
        .answer(&json!({ "taskRunId": id, "status": status }), || {
            id.to_string()
        })
}

/// An engine to wait with: one that works, unless this folder's server does the work.
pub(super) async fn working(here: &Here) -> Result<Engine, CliError> {
    if here.is_served().await? {
        here.client().await
    } else {
        here.worker().await
    }
}

/// Waits for the end of a run and answers with it: its result on standard output, its failure as the error.
pub(super) async fn wait(here: &Here, run: &RunHandle) -> Result<(), CliError> {
    let outcome = watched(here, run).await;
    if here.output.is_json() {
        let view = RunView::of(run.info().await?);
        here.output.answer(&view, String::new)?;
        return outcome.map(|_| ());
    }
    let result = outcome?;
    Output::line(result.unwrap_or_default().text())
}

async fn watched(here: &Here, run: &RunHandle) -> Result<Option<tasker_core::Json>, CliError> {
    let clock = SystemClock::default();
    let terminal = std::io::stderr().is_terminal() && !here.output.is_json();
    let mut progress = Progress::default();
    let mut drawn = 0_usize;
    let mut frame = 0_usize;
    let mut redraw = tokio::time::interval(REDRAW);
    let outcome = run.outcome();
    // One listener for the whole wait, so that no signal falls between two looks.
    let mut signals = Signals::new()?;
    let interrupted = signals.next();
    tokio::pin!(outcome, interrupted);
    let ended = loop {
        tokio::select! {
            ended = &mut outcome => break ended,
            () = &mut interrupted => {
                erase(drawn);
                return Err(CliError::Detached { id: run.id() });
            }
            _ = redraw.tick(), if !here.output.is_json() => {
                let trace = run.trace().await?;
                if terminal {
                    erase(drawn);
                    let lines = live(&trace, clock.now(), frame);
                    frame += 1;
                    drawn = lines.len();
                    let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
                } else {
                    for line in progress.news(&trace) {
                        here.output.note(line);
                    }
                }
            }
        }
    };
    erase(drawn);
    if !here.output.is_json() {
        let trace = run.trace().await?;
        if terminal {
            here.output
                .note(live(&trace, clock.now(), frame).join("\n"));
        } else {
            for line in progress.news(&trace) {
                here.output.note(line);
            }
        }
    }
    ended.map_err(|error: RunError| CliError::of_run(run.id(), error))
}

/// Takes lines off the terminal.
fn erase(lines: usize) {
    if lines > 0 {
        let _ = write!(std::io::stderr(), "\x1b[{lines}A\x1b[J");
    }
}
