//! The one hot write: a turn of a frame, committed whole.

use serde::{Deserialize, Serialize};

use crate::{
    BlockedReason, CallSeq, Epoch, Failure, Json, LogLine, Outcome, StackRunId, StackStatus,
    TaskName, TaskRunId, TaskVersion, Timestamp, TurnNo, WorkerId,
};

/// The fence: a worker and the epoch at which it owns a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The worker.
    pub worker: WorkerId,
    /// The row's epoch when the worker got it.
    pub epoch: Epoch,
}

/// All that one turn of a frame did. (worker, epoch, turn) names it for ever: sent again it answers as already applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnCommit {
    /// The frame.
    pub frame: StackRunId,
    /// Its task run.
    pub task_run: TaskRunId,
    /// Turns committed before this one.
    pub turn: TurnNo,
    /// The fence.
    pub lease: Lease,
    /// Time of the turn, which the task saw as now; never before the frame's last.
    pub time: Timestamp,
    /// Settled children that the turn consumed, in delivery order.
    pub delivered: Vec<Delivery>,
    /// Children that the turn made, in the order made. Their `seq` continues the frame's count.
    pub made: Vec<NewStackRun>,
    /// Children that the turn gave up: cleared timers, aborted calls. Those already settled are left as they are.
    pub dropped: Vec<StackRunId>,
    /// Console and log lines of the turn, in order.
    pub logs: Vec<LogLine>,
    /// What the frame is now.
    pub next: FrameNext,
}

/// One settled child that a turn consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The child.
    pub child: StackRunId,
    /// Its position; what `Stale` names.
    pub seq: CallSeq,
    /// Where its outcome is.
    pub source: DeliverySource,
}

/// Where the outcome of a delivered child is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliverySource {
    /// Here: the row is `processing`, owned by the committing worker, at this epoch.
    /// A row already settled *at this same epoch* by this worker's own `finish_calls` is accepted as `Recorded`.
    Local {
        /// The call's epoch.
        epoch: Epoch,
        /// Its outcome.
        outcome: Outcome,
    },
    /// In its row already.
    Recorded,
    /// A timer that is due: settled by this commit with `undefined` unless the scan settled it before.
    Timer,
}

/// A child that a turn made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewStackRun {
    /// Id, from the engine.
    pub id: StackRunId,
    /// What it is.
    pub kind: MadeKind,
    /// Born `processing`, owned by the committing worker at epoch 1, a call in its attempt 1, a frame with 0 take-overs;
    /// `false`: born `pending` at epoch 0, anyone may claim it. Timers and signal waits are never claimed.
    pub claimed: bool,
}

/// What a made child is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MadeKind {
    /// A question to a service.
    Call {
        /// Service.
        service: String,
        /// Dotted method, or the chain form `from().select()`.
        path: String,
        /// Exact argument text.
        args: Json,
        /// What the task asked for with this call, kept as exact text; the engine says what is in it. `None`: nothing.
        policy: Option<Json>,
    },
    /// A nested task.
    Frame {
        /// Task.
        task: TaskName,
        /// Version current when it was called.
        version: TaskVersion,
        /// Input.
        input: Json,
        /// Depth: its frame's plus one.
        depth: u32,
    },
    /// A wait for a time.
    Timer {
        /// `sleep`, `setTimeout` or `setInterval`.
        path: String,
        /// The asked milliseconds, as the task gave them.
        args: Json,
        /// When it fires.
        due_at: Timestamp,
    },
    /// A wait for a signal. When one of the name is stored already, the row is settled with it in the same commit.
    Signal {
        /// Name.
        name: String,
    },
}

/// What a frame is after a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameNext {
    /// Waits for its open children. The frame becomes `pending_resume` when a child is settled and undelivered
    /// (seen under the frame's lock, after the turn's own writes), else `suspended_waiting_child`. The owner stays.
    Suspended,
    /// Ended with a value; `None` is `undefined`.
    Completed(Option<Json>),
    /// Ended with an error.
    Failed(Failure),
    /// Ended by a cancel: the root's run becomes `cancelled`; a nested frame settles as failed with `CancelledError`.
    Cancelled,
    /// Needs a person. Nothing else of the turn is written but its logs: `delivered`, `made`, `dropped` must be empty,
    /// and the turn count does not move, so that a retry replays the same history.
    Blocked(BlockedReason),
}

/// What a committed turn left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnReceipt {
    /// The turn had been applied before; this call changed nothing.
    pub already_applied: bool,
    /// Status of the frame's row now. `PendingResume`: unread settled children are there to be loaded.
    pub status: StackStatus,
}

/// Why a turn, a finish or a release was refused whole. Nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitRefused {
    /// The worker is not live any more: its rows are others' now. Take a new worker id.
    #[error(
        "the worker's lease is gone: another worker took its rows over; drop the local state and take a new worker id"
    )]
    LeaseLost,
    /// Owner, epoch or turn differ: another incarnation of the row is ahead.
    #[error(
        "the row has moved on: owner, epoch or turn differ; drop the local state and load again"
    )]
    Superseded,
    /// The frame, call or run has ended.
    #[error("the row or its run has ended")]
    Ended,
    /// The row is not there any more.
    #[error("the row is gone: its run was cleaned")]
    Gone,
    /// A delivered child is not as the turn says.
    #[error(
        "child {seq} is not as this turn says: its recorded outcome is another's; drop the local state and load again"
    )]
    Stale {
        /// The first such child.
        seq: CallSeq,
    },
    /// `Suspended` without an open or unread child: nothing could ever wake the frame.
    #[error(
        "the turn suspends on nothing: no open and no unread child; the frame must fail instead"
    )]
    SuspendedOnNothing,
}
