//! What all frames of a run have made together, so that nested tasks cannot do what one frame may not.
//!
//! Counted by each engine over the frames that it runs: exact while one engine runs a run, and after a restart or on several
//! machines a bound for each engine, not for all of them. Nothing is written for it.

use std::collections::{HashMap, HashSet};

use tasker_adaptor::{LogLevel, LogLine, StackRunId, TaskRunId};

use crate::limits::{Limit, Limits};
use crate::vm::{Made, Turn, TurnEnd};

/// Runs remembered at one time. Above it those go of which no frame is here.
const RUNS: usize = 65_536;

/// The totals of the runs of an engine.
#[derive(Default)]
pub(crate) struct RunTotals {
    runs: HashMap<TaskRunId, Total>,
}

#[derive(Default)]
struct Total {
    /// Children made by each frame, all kinds.
    made: HashMap<StackRunId, u32>,
    made_sum: u64,
    nested: u64,
    log_lines: u64,
}

impl Total {
    fn set_made(&mut self, frame: StackRunId, made: u32) {
        let before = self.made.insert(frame, made).unwrap_or(0);
        self.made_sum = self.made_sum - u64::from(before) + u64::from(made);
    }
}

impl RunTotals {
    /// A frame is built from its rows: what they say that it has made counts.
    pub(crate) fn loaded(&mut self, run: TaskRunId, frame: StackRunId, made: u32) {
        if made > 0 || self.runs.contains_key(&run) {
            self.runs.entry(run).or_default().set_made(frame, made);
        }
    }

    /// Counts what a turn of a frame at this depth made. A turn by which its run passes a limit makes nothing and fails; log lines beyond theirs are dropped.
    pub(crate) fn bound(
        &mut self,
        run: TaskRunId,
        frame: StackRunId,
        depth: u32,
        turn: &mut Turn,
        limits: &Limits,
    ) {
        if turn.made.is_empty() && turn.logs.is_empty() {
            return;
        }
        let total = self.runs.entry(run).or_default();
        // Too deep, they are calls that fail.
        let nests = |made: &&Made| depth < limits.depth && matches!(made, Made::Task { .. });
        let nested = turn.made.iter().filter(nests).count() as u64;
        let passed = if total.made_sum + turn.made.len() as u64 > u64::from(limits.run_calls) {
            Some(Limit::RunCalls)
        } else if total.nested + nested > u64::from(limits.run_frames) {
            Some(Limit::RunFrames)
        } else {
            None
        };
        if let Some(limit) = passed {
            turn.made.clear();
            turn.dropped.clear();
            if !matches!(turn.end, TurnEnd::Failed(_)) {
                turn.end = TurnEnd::Failed(limit.failure(limits));
            }
        } else {
            let before = total.made.get(&frame).copied().unwrap_or(0);
            total.set_made(frame, before + turn.made.len() as u32);
            total.nested += nested;
        }
        let before = total.log_lines;
        total.log_lines += turn.logs.len() as u64;
        bound_logs(&mut turn.logs, before, limits);
    }

    /// The run ended.
    pub(crate) fn ended(&mut self, run: TaskRunId) {
        self.runs.remove(&run);
    }

    /// Forgets runs that are not here, when there are many.
    pub(crate) fn trim(&mut self, here: impl Iterator<Item = TaskRunId>) {
        if self.runs.len() > RUNS {
            let here: HashSet<TaskRunId> = here.collect();
            self.runs.retain(|run, _| here.contains(run));
        }
    }
}

/// Drops the lines beyond the run's limit; the first one that goes is replaced by one that says so.
fn bound_logs(logs: &mut Vec<LogLine>, before: u64, limits: &Limits) {
    let room = u64::from(limits.run_log_lines).saturating_sub(before);
    if logs.len() as u64 <= room {
        return;
    }
    let first_over = before <= u64::from(limits.run_log_lines);
    logs.truncate(room as usize);
    if first_over {
        logs.push(LogLine {
            level: LogLevel::Warn,
            message: format!(
                "further log lines are dropped: the run passed the limit of {} lines in all its tasks; it is set by Limits::run_log_lines",
                limits.run_log_lines
            ),
            data: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> StackRunId {
        StackRunId::from_uuid(uuid::Uuid::from_u128(n))
    }

    fn turn(calls: usize, tasks: usize, logs: usize) -> Turn {
        let task = |_| Made::Task {
            name: "t".into(),
            input: tasker_adaptor::Json::default(),
        };
        let signal = |_| Made::Signal { name: "s".into() };
        Turn {
            made: (0..tasks).map(task).chain((0..calls).map(signal)).collect(),
            dropped: Vec::new(),
            logs: (0..logs)
                .map(|n| LogLine {
                    level: LogLevel::Info,
                    message: n.to_string(),
                    data: None,
                })
                .collect(),
            end: TurnEnd::Waiting,
        }
    }

    fn limits() -> Limits {
        Limits {
            run_calls: 10,
            run_frames: 3,
            run_log_lines: 5,
            ..Limits::default()
        }
    }

    #[test]
    fn frames_of_one_run_count_together_and_those_of_others_do_not() {
        let (mut totals, limits) = (RunTotals::default(), limits());
        let (run, other) = (
            TaskRunId::from_uuid(uuid::Uuid::from_u128(1)),
            TaskRunId::from_uuid(uuid::Uuid::from_u128(2)),
        );
        let mut bound = |run, frame, mut turn: Turn| {
            totals.bound(run, id(frame), 0, &mut turn, &limits);
            turn
        };
        assert_eq!(bound(run, 1, turn(5, 1, 3)).end, TurnEnd::Waiting);
        assert_eq!(bound(run, 2, turn(4, 0, 0)).end, TurnEnd::Waiting);
        assert_eq!(bound(other, 3, turn(10, 0, 0)).end, TurnEnd::Waiting);
        let over = bound(run, 2, turn(1, 0, 0));
        assert!(over.made.is_empty());
        let TurnEnd::Failed(failure) = over.end else {
            panic!("{over:?}")
        };
        assert_eq!(failure.code.as_deref(), Some("run_calls"));
        assert!(failure.message.contains("10") && failure.message.contains("Limits::run_calls"));
        let logs = bound(run, 2, turn(0, 0, 4)).logs;
        assert_eq!(logs.len(), 3);
        assert!(logs[2].message.contains("Limits::run_log_lines"));
        assert!(bound(run, 1, turn(0, 0, 4)).logs.is_empty());
    }

    #[test]
    fn nested_tasks_have_a_limit_of_their_own() {
        let (mut totals, limits) = (RunTotals::default(), limits());
        let run = TaskRunId::from_uuid(uuid::Uuid::from_u128(1));
        let mut two = turn(0, 2, 0);
        totals.bound(run, id(1), 0, &mut two, &limits);
        assert_eq!(two.made.len(), 2);
        totals.bound(run, id(2), 0, &mut two, &limits);
        assert!(
            matches!(two.end, TurnEnd::Failed(failure) if failure.code.as_deref() == Some("run_frames"))
        );
    }

    #[test]
    fn a_frame_that_is_built_again_counts_as_its_rows_say() {
        let (mut totals, limits) = (RunTotals::default(), limits());
        let run = TaskRunId::from_uuid(uuid::Uuid::from_u128(1));
        totals.loaded(run, id(1), 8);
        totals.loaded(run, id(1), 8);
        let mut two = turn(2, 0, 0);
        totals.bound(run, id(1), 0, &mut two, &limits);
        assert_eq!(two.end, TurnEnd::Waiting);
        // The turn was refused: its rows do not have the two.
        totals.loaded(run, id(1), 8);
        totals.bound(run, id(1), 0, &mut two, &limits);
        assert_eq!(two.end, TurnEnd::Waiting);
        totals.bound(run, id(1), 0, &mut two, &limits);
        assert!(matches!(two.end, TurnEnd::Failed(_)));
        totals.ended(run);
        assert!(totals.runs.is_empty());
    }
}
