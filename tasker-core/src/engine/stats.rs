//! What an engine did since it was started, counted in memory for whoever watches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tasker_adaptor::{CommitRefused, TurnReceipt};

/// What an engine did since it was started, and what it holds now. What other engines on the same storage did is not here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStats {
    /// Turns that were committed.
    pub turns: u64,
    /// Attempts at calls that a service answered with a result.
    pub calls_answered: u64,
    /// Attempts at calls that a service answered with an error, those that are made again too.
    pub calls_failed: u64,
    /// Attempts at calls that nobody can say the outcome of, and that wait for a person.
    pub calls_unknown: u64,
    /// Calls that are being asked now.
    pub calls_in_flight: u64,
    /// Frames whose VM is in memory now.
    pub hot_frames: u64,
    /// Runs that completed.
    pub runs_completed: u64,
    /// Runs that failed.
    pub runs_failed: u64,
    /// Runs whose task ended as cancelled. A run that had no turn is cancelled in storage, and counted by nobody.
    pub runs_cancelled: u64,
    /// Times that a frame of a run was blocked.
    pub runs_blocked: u64,
}

/// The counts behind [`EngineStats`].
#[derive(Debug, Default)]
pub(crate) struct Counts {
    turns: AtomicU64,
    calls_answered: AtomicU64,
    calls_failed: AtomicU64,
    calls_unknown: AtomicU64,
    calls_in_flight: AtomicU64,
    hot_frames: AtomicU64,
    active_frames: AtomicU64,
    runs_completed: AtomicU64,
    runs_failed: AtomicU64,
    runs_cancelled: AtomicU64,
    runs_blocked: AtomicU64,
}

/// How a run or a call ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    CallAnswered,
    CallFailed,
    CallUnknown,
    RunCompleted,
    RunFailed,
    RunCancelled,
    RunBlocked,
}

impl Counts {
    pub(crate) fn count(&self, what: Counted) {
        let count = match what {
            Counted::CallAnswered => &self.calls_answered,
            Counted::CallFailed => &self.calls_failed,
            Counted::CallUnknown => &self.calls_unknown,
            Counted::RunCompleted => &self.runs_completed,
            Counted::RunFailed => &self.runs_failed,
            Counted::RunCancelled => &self.runs_cancelled,
            Counted::RunBlocked => &self.runs_blocked,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// A batch of turns was answered.
    pub(crate) fn turns(&self, replies: &[Result<TurnReceipt, CommitRefused>]) {
        let committed = replies.iter().filter(|reply| reply.is_ok()).count();
        self.turns.fetch_add(committed as u64, Ordering::Relaxed);
    }

    /// So many VMs are in memory now, and so many frames do not merely wait.
    pub(crate) fn frames(&self, hot: usize, active: usize) {
        self.hot_frames.store(hot as u64, Ordering::Relaxed);
        self.active_frames.store(active as u64, Ordering::Relaxed);
    }

    /// Whether any frame does not merely wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.active_frames.load(Ordering::Relaxed) > 0
    }

    /// A call is asked until the answer is dropped.
    pub(crate) fn asking(self: &Arc<Self>) -> InFlight {
        self.calls_in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    pub(crate) fn stats(&self) -> EngineStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        EngineStats {
            turns: read(&self.turns),
            calls_answered: read(&self.calls_answered),
            calls_failed: read(&self.calls_failed),
            calls_unknown: read(&self.calls_unknown),
            calls_in_flight: read(&self.calls_in_flight),
            hot_frames: read(&self.hot_frames),
            runs_completed: read(&self.runs_completed),
            runs_failed: read(&self.runs_failed),
            runs_cancelled: read(&self.runs_cancelled),
            runs_blocked: read(&self.runs_blocked),
        }
    }
}

/// A call that is being asked.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Counts>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.calls_in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
