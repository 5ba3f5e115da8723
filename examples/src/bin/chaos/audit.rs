//! The end: every run, every row, every performed call is looked at.

use std::collections::HashMap;
use std::error::Error;
use std::io;

use serde::Serialize;
use serde_json::Value;
use tasker_core::{Engine, Outcome, RunStatus, Storage, TaskRunId};

use crate::logs::{self, Entry};
use crate::options::Options;
use crate::parent::KILLED;
use crate::server::RESTARTED;
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
    /// Those of them whose every performance but the last was cut off by a kill, or by a server that was away for too long.
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
    options: &Options,
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
            eprintln!(
                "run {id} of {} ended with {:?}, not with {expected:?}",
                run.task, run.outcome
            );
        }
        verdict.left += storage.stack_runs(*id).await?.len();
    }
    for violation in client.audit().await? {
        verdict.wrong += 1;
        eprintln!("{violation}");
    }
    count_calls(&mut verdict, options)?;
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

/// What cuts a performance off before its answer is recorded.
struct Cuts {
    /// When each process was killed.
    kills: HashMap<u32, u128>,
    /// Restarts of the server that took so long that workers may have lost their leases: from when to when.
    outages: Vec<(u128, u128)>,
}

fn count_calls(verdict: &mut Verdict, options: &Options) -> io::Result<()> {
    let performed = logs::read(&options.folder, PERFORMED)?;
    let kills: HashMap<u32, u128> = logs::read(&options.folder, KILLED)?
        .into_values()
        .flatten()
        .map(|kill| (kill.process, kill.at_ns))
        .collect();
    let restarts = logs::read(&options.folder, RESTARTED)?;
    let times = |word: &str| restarts.get(word).cloned().unwrap_or_default();
    // A lease is renewed when a third of it is over.
    let too_long = u128::from(options.lease_ms) * 1_000_000 / 2;
    let outages: Vec<(u128, u128)> = times("begin")
        .iter()
        .zip(times("end"))
        .map(|(begin, end)| (begin.at_ns, end.at_ns))
        .filter(|(begin, end)| end - begin > too_long)
        .collect();
    if !times("begin").is_empty() {
        eprintln!(
            "the server was restarted {} times, {} times for longer than half a lease",
            times("begin").len(),
            outages.len()
        );
    }
    verdict.kills = kills.len();
    let cuts = Cuts { kills, outages };
    for (key, times) in &performed {
        verdict.calls += times.len();
        if times.len() < 2 {
            continue;
        }
        verdict.repeated += 1;
        if times
            .windows(2)
            .all(|pair| cuts.explain(&pair[0], &pair[1]))
        {
            verdict.repeated_explained += 1;
        } else {
            eprintln!("call {key} was performed again though nothing cut it off: {times:?}");
        }
    }
    Ok(())
}

impl Cuts {
    /// The process that performed it first was killed, or could not reach the server, before it was performed again.
    /// Its result was not recorded: a call whose result is recorded is never given out again.
    fn explain(&self, first: &Entry, again: &Entry) -> bool {
        let is_killed = self
            .kills
            .get(&first.process)
            .is_some_and(|killed| first.at_ns <= *killed && *killed <= again.at_ns);
        is_killed
            || self
                .outages
                .iter()
                .any(|(begin, end)| first.at_ns <= *end && *begin <= again.at_ns)
    }
}
