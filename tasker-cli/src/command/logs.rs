//! `tasker logs`: what a run wrote.

use futures::{StreamExt, pin_mut};
use tasker_core::{LogCursor, TaskRunId};

use super::Here;
use crate::error::CliError;
use crate::output::{Output, to_text};
use crate::signals::Signals;
use crate::view::LogView;

/// Prints the log lines of a run: those that are there, and with `follow` those that come.
pub(super) async fn perform(here: &Here, id: TaskRunId, follow: bool) -> Result<(), CliError> {
    let engine = here.client().await?;
    let run = engine.run(id).await?;
    if follow {
        let lines = run.logs();
        let mut signals = Signals::new()?;
        let interrupted = signals.next();
        pin_mut!(lines, interrupted);
        loop {
            tokio::select! {
                line = lines.next() => match line {
                    Some(line) => print(here, LogView::of(line?))?,
                    None => return Ok(()),
                },
                () = &mut interrupted => return Err(CliError::Detached { id }),
            }
        }
    }
    let mut after = LogCursor::default();
    loop {
        let page = run.log_page(after).await?;
        if page.lines.is_empty() {
            return Ok(());
        }
        after = page.next;
        for line in page.lines {
            print(here, LogView::of(line))?;
        }
    }
}

fn print(here: &Here, line: LogView) -> Result<(), CliError> {
    if here.output.is_json() {
        return Output::line(&to_text(&line)?);
    }
    let data = line
        .data
        .map(|data| format!("  {data}"))
        .unwrap_or_default();
    Output::line(&format!(
        "{}  {:5}  {}{data}",
        line.time, line.level, line.message
    ))
}
