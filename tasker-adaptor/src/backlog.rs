//! What a database has open, for gauges.

use std::collections::BTreeMap;

use crate::{RunStatus, Timestamp};

/// What is open and what waits for a worker, as [`Maintenance::backlog`](crate::Maintenance::backlog) counts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// When it was asked for: the `now` of the question.
    pub at: Timestamp,
    /// Runs of each status that is not terminal, those with none of them too.
    pub runs: BTreeMap<RunStatus, u64>,
    /// Frames that anybody may claim, and whose time has come.
    pub ready_frames: u64,
    /// Calls that anybody may claim, and whose time has come.
    pub ready_calls: u64,
    /// Since when the oldest of the ready rows could have been claimed; `None` when there is none.
    pub oldest_ready: Option<Timestamp>,
}

impl Backlog {
    /// Statuses whose runs are counted: their number does not grow with history.
    pub fn statuses() -> impl Iterator<Item = RunStatus> {
        let all = RunStatus::ALL.iter().copied();
        all.filter(|status| !status.is_terminal())
    }
}
