//! The end: every run, every row, every performed call is looked at.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use tasker_core::{Engine, Outcome, RunStatus, Storage, TaskRunId};

use crate::logs::{self, Entry};
use crate::parent::KILLED;
use crate::worker::PERFORMED;

/// The last line.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Verdict {
    /// Runs submitted.
    pub(crate) submitted: usize,
    /// Runs that completed.
    pub(crate) completed: usize,
    /// Runs that failed, as their task says.
    pub(crate) failed: usize,
    /// Calls that services performed, repeats among them.
    pub(crate) calls: usize,
    /// Calls that were performed more than once.
    pub(crate) repeated: usize,
    /// Those of them whose every performance but the last was cut off by a kill.
    pub(crate) repeated_explained: usize,
    /// Results that are not what the task computes, and rows that break an invariant of the protocol.
    pub(crate) wrong: usize,
    /// Stack runs that the cleaner left.
    pub(crate) left: usize,
    /// Runs that have not ended.
    pub(crate) stuck: usize,
    /// Processes killed.
    pub(crate) kills: usize,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.repeated == self.repeated_explained && self.wrong + self.left + self.stuck == 0
    }
}

/// Looks at everything. What is wrong is told on standard error.
pub(crate) async fn audit(
    client: &Engine,
    storage: &dyn Storage,
    folder: &Path,
    runs: &[(TaskRunId, Option<Value>)],
) -> Result<Verdict, Box<dyn Error>> {
    let mut verdict = Verdict {
        submitted: runs.len(),
        ..Verdict::default()
    };
    for (id, expected) in runs {
        let run = client.run(*id).await?.info().await?;
        match run.status {
            RunStatus::Completed => verdict.completed += 1,
            RunStatus::Failed => verdict.failed += 1,
            status if status.is_terminal() => {}
            status => {
                verdict.stuck += 1;
                eprintln!("run {id} of {} is {status}: {:?}", run.task, run.blocked);
                continue;
            }
        }
        if !is_right(run.outcome.as_ref(), expected.as_ref())? {
            verdict.wrong += 1;
            eprintln!("run {id} of {} ended with {:?}, not with {expected:?}", run.task, run.outcome);
        }
        verdict.left += storage.stack_runs(*id).await?.len();
    }
    for violation in client.audit().await? {
        verdict.wrong += 1;
        eprintln!("{violation}");
    }
    count_calls(&mut verdict, folder)?;
    Ok(verdict)
}

fn is_right(outcome: Option<&Outcome>, expected: Option<&Value>) -> Result<bool, Box<dyn Error>> {
    Ok(match (outcome, expected) {
        (Some(Outcome::Completed(Some(value))), Some(expected)) => {
            value.to::<Value>()? == *expected
        }
        (Some(Outcome::Failed(failure)), None) => failure.message.contains("the world says no"),
        _ => false,
    })
}

fn count_calls(verdict: &mut Verdict, folder: &Path) -> io::Result<()> {
    let performed = logs::read(folder, PERFORMED)?;
    let kills: HashMap<u32, u128> = logs::read(folder, KILLED)?
        .into_values()
        .flatten()
        .map(|kill| (kill.process, kill.at_ns))
        .collect();
    verdict.kills = kills.len();
    for (key, times) in &performed {
        verdict.calls += times.len();
        if times.len() < 2 {
            continue;
        }
        verdict.repeated += 1;
        if times.windows(2).all(|pair| is_explained(&pair[0], &pair[1], &kills)) {
            verdict.repeated_explained += 1;
        } else {
            eprintln!("call {key} was performed again though nobody was killed between: {times:?}");
        }
    }
    Ok(())
}

/// The process that performed it first was killed before it was performed again. Its result was not recorded:
/// a call whose result is recorded is never given out again.
fn is_explained(first: &Entry, again: &Entry, kills: &HashMap<u32, u128>) -> bool {
    kills
        .get(&first.process)
        .is_some_and(|killed| first.at_ns <= *killed && *killed <= again.at_ns)
}
