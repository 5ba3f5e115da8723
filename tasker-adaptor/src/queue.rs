//! The queue: claim, commit, finish, release, timers.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    BlockedReason, CommitRefused, Epoch, Failure, Json, Lease, Outcome, StackKind, StackRun,
    StackRunId, StackStatus, StorageError, TaskName, TaskRunId, TaskVersion, Timestamp, TurnCommit,
    TurnReceipt, WorkerId,
};

/// Who claims, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// A live worker.
    pub worker: WorkerId,
    /// Now; rows due later are not given out.
    pub now: Timestamp,
    /// At most this many.
    pub max: usize,
    /// Only this row, when driving by hand.
    pub only: Option<StackRunId>,
}

/// What a run carries through all its frames and calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunContext {
    /// Task of the root.
    pub task: TaskName,
    /// Version of the root.
    pub version: TaskVersion,
    /// Priority.
    pub priority: i32,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// End of patience.
    pub deadline: Option<Timestamp>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// A cancel with grace was asked for.
    pub cancel_by: Option<Timestamp>,
    /// The root frame has ended: this row is detached.
    pub ended: bool,
}

/// A frame that was claimed. Its children are read with [`crate::Journal::load`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedFrame {
    /// The row after the claim: `processing`, this worker's, epoch raised.
    pub row: StackRun,
    /// Its task: the root's or the nested one's.
    pub task: TaskName,
    /// Its version.
    pub version: TaskVersion,
    /// Its input.
    pub input: Json,
    /// Its run.
    pub context: RunContext,
}

/// A call that was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedCall {
    /// The row after the claim: `processing`, this worker's, epoch and attempt raised. `in_doubt` is as it was before:
    /// the engine applies the method's policy.
    pub row: StackRun,
    /// Its run.
    pub context: RunContext,
}

/// How an attempt at a call ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// Settled: the frame is woken.
    Settled(Outcome),
    /// To be tried again: `pending`, owner null, not before this time, `take_overs` 0; how this attempt failed is kept in `outcome`.
    RetryAt {
        /// Not before.
        not_before: Timestamp,
        /// How this attempt failed.
        failure: Failure,
    },
    /// Needs a person: `blocked`, and so is the run. A detached call (its frame has ended) fails instead.
    Blocked(BlockedReason),
}

/// The end of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFinish {
    /// The call.
    pub call: StackRunId,
    /// The fence: worker and the call's epoch.
    pub lease: Lease,
    /// How it ended.
    pub end: CallEnd,
}

/// A call given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleasedCall {
    /// The call.
    pub call: StackRunId,
    /// The fence.
    pub lease: Lease,
    /// It may have been asked: the row becomes `in_doubt`.
    pub asked: bool,
}

/// A row that a worker owns, as the repair of a lost reply needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnedRow {
    /// The row.
    pub id: StackRunId,
    /// Frame or call.
    pub kind: StackKind,
    /// Where it is.
    pub status: StackStatus,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its run.
    pub task_run: TaskRunId,
}

/// What workers take, commit and give back. PROTOCOL a2 and a3 are the rules.
///
/// Order of locks in every operation: task runs → workers → stack runs by ascending id → signals;
/// all locks in a first statement, decisions in later ones.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Does: takes frames that are `pending` or `pending_resume`, without owner, due, of runs not cancelled: `processing`,
    /// owner, epoch + 1. Order: priority, then the time they became ready. The task run becomes `processing` (root) and gets `started_at`.
    /// Atomicity: each row has one winner. Errors: `Misuse` when the worker is not live is not an error but an empty list.
    /// Tested by: `claim_one_winner`, `claim_skips`, `claim_reply_lost`.
    async fn claim_frames(&self, claim: Claim) -> Result<Vec<ClaimedFrame>, StorageError>;

    /// Does: takes `pending`, due calls of runs not cancelled (detached ones too): `processing`, owner, epoch + 1, attempt + 1.
    /// Order and atomicity as `claim_frames`. Tested by: `claim_one_winner`, `claim_skips`, `reap_sets_in_doubt`.
    async fn claim_calls(&self, claim: Claim) -> Result<Vec<ClaimedCall>, StorageError>;

    /// Does: commits turns (PROTOCOL a3). One answer a turn, in order.
    /// Atomicity: each turn is whole and fenced by itself; a refused one leaves the others alone; an `Err` is of the whole batch and
    /// means unknown: send the identical batch again. Frames in a batch are distinct (`Misuse` otherwise).
    /// Tested by: all `commit_*`, `batch_*`, `suspend_*`, `deliver_*` cases.
    async fn commit(
        &self,
        turns: Arc<[TurnCommit]>,
    ) -> Result<Vec<Result<TurnReceipt, CommitRefused>>, StorageError>;

    /// Whether batches of turns are written one after the other, whoever sends them. A second one would only wait for the first, so a
    /// worker sends it when it has become as large as that, and turns that come meanwhile join it. Default: `false`, and it is sent at once.
    fn has_one_writer(&self) -> bool {
        false
    }

    /// Does: records the end of attempts whose frame is not hot here (PROTOCOL a2 *complete call*, *retry later*).
    /// `Ok(true)`: applied by this call; `Ok(false)`: had been applied at this epoch before.
    /// Atomicity: each by itself, parent locked first. Tested by: `complete_*`, `settle_*`.
    async fn finish_calls(
        &self,
        finishes: Arc<[CallFinish]>,
        now: Timestamp,
    ) -> Result<Vec<Result<bool, CommitRefused>>, StorageError>;

    /// Does: gives frames back: owner null, epoch + 1, status kept (`processing` → from the children as reap does).
    /// The task run of a parked root becomes `suspended`. With `Superseded` nothing changed.
    /// Atomicity: each by itself. Tested by: `park_keeps_wake`, `claim_reply_lost`.
    async fn release_frames(
        &self,
        frames: &[(StackRunId, Lease)],
        now: Timestamp,
    ) -> Result<Vec<Result<(), CommitRefused>>, StorageError>;

    /// Does: gives calls back: `pending`, owner null, epoch + 1, `in_doubt` when asked; an attempt that was not asked is none (attempt - 1).
    /// Atomicity: each by itself. Tested by: `release_call_asked_is_in_doubt`, `release_call_not_asked_is_no_attempt`.
    async fn release_calls(
        &self,
        calls: &[ReleasedCall],
        now: Timestamp,
    ) -> Result<Vec<Result<(), CommitRefused>>, StorageError>;

    /// Does: takes up again a frame that this worker owns and has no VM for: as a claim (`processing`, epoch + 1), whatever its open status.
    /// `None` when the row is not this worker's (any more), or has nothing to do: then it was released (owner null) instead.
    /// Atomicity: one transaction. Tested by: `commit_after_reload`, `claim_reply_lost`.
    async fn reload_frame(
        &self,
        frame: StackRunId,
        worker: WorkerId,
        now: Timestamp,
    ) -> Result<Option<ClaimedFrame>, StorageError>;

    /// Does: settles timers that are due at `now` (the database's time) and whose frame is parked, or that are overdue by
    /// `grace_ms` whoever has the frame; wakes their frames. Answers how many.
    /// Atomicity: each by itself, parent locked first. Tested by: `timer_both_fire`, `timer_not_early`, `dropped_timer_never_fires`.
    async fn fire_timers(
        &self,
        now: Timestamp,
        grace_ms: i64,
        max: usize,
    ) -> Result<usize, StorageError>;

    /// Does: every open row that the worker owns. With `woken_only`: frames in `pending_resume` only.
    /// Atomicity: one read. Tested by: `claim_reply_lost`, `nested_child_other_worker`.
    async fn owned(
        &self,
        worker: WorkerId,
        woken_only: bool,
    ) -> Result<Vec<OwnedRow>, StorageError>;

    /// Does: the earliest time at which something that nobody owns becomes due (timers of parked frames, retries, `run_at`);
    /// `None` when nothing waits for a time. A hint for how long to rest, nothing more.
    /// Atomicity: one read. Tested by: `next_due_is_the_earliest`.
    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError>;
}
