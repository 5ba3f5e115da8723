//! Task runs: submit, find, list, cancel, unblock.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::{
    Failure, Json, Outcome, RunStatus, StackRunId, StorageError, TaskName, TaskRun, TaskRunId,
    TaskVersion, Timestamp,
};

/// A run to submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTaskRun {
    /// Id, from the caller: a repeated submit with it finds the run.
    pub id: TaskRunId,
    /// Id of its root frame.
    pub root: StackRunId,
    /// Task.
    pub task: TaskName,
    /// Version to pin.
    pub version: TaskVersion,
    /// Input.
    pub input: Json,
    /// Key that makes a repeated submit find the run.
    pub idempotency_key: Option<String>,
    /// Hash of what was asked for (task, input, options): the same key or id with another hash is a conflict.
    pub request_hash: String,
    /// Higher first.
    pub priority: i32,
    /// Not claimed before.
    pub run_at: Timestamp,
    /// End of patience.
    pub deadline: Option<Timestamp>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// What a submit found or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The run: the new one, or the one that has the id or key.
    pub id: TaskRunId,
    /// Whether this call made it.
    pub created: bool,
}

/// Which runs to list. Default: all, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Only these statuses; empty: all.
    pub statuses: Vec<RunStatus>,
    /// Only this task.
    pub task: Option<TaskName>,
    /// Only runs that have all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only runs before (older than) this one: the cursor.
    pub before: Option<TaskRunId>,
}

/// Some runs, newest first (by id, which sorts by time of submission).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunPage {
    /// The runs, without `record`.
    pub runs: Vec<TaskRun>,
    /// Give this as `before` to read on; `None` at the end.
    pub next: Option<TaskRunId>,
}

/// What a cancel did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The run is `cancelled` now, by this call.
    Done,
    /// The run was asked to end by itself within its grace.
    Asked,
    /// The run had ended before; how.
    AlreadyEnded(RunStatus),
}

/// How to take a blocked run up again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unblock {
    /// The run.
    pub run: TaskRunId,
    /// Only this blocked row; `None`: every blocked row of the run.
    pub row: Option<StackRunId>,
    /// What to do.
    pub decision: UnblockDecision,
    /// Now.
    pub now: Timestamp,
}

/// What to do with blocked rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnblockDecision {
    /// Try again: a call becomes `pending` with `in_doubt` and `take_overs` cleared; a frame gets the status its children ask for, and attempt 0.
    Retry,
    /// The call is settled with this outcome and its frame woken; a blocked frame ends with it.
    Settle(Outcome),
}

impl UnblockDecision {
    /// Supply the result that is known from elsewhere.
    pub fn supply(result: Json) -> Self {
        Self::Settle(Outcome::Completed(Some(result)))
    }

    /// Let the task see a failure.
    pub fn fail(failure: Failure) -> Self {
        Self::Settle(Outcome::Failed(failure))
    }
}

/// Task runs.
#[async_trait]
pub trait RunStore: Send + Sync + 'static {
    /// Does: for each request a task run (`queued`) and its root frame (`pending`, `due_at` = `run_at`), unless id or key is known;
    /// the known run is answered when the hash is the same.
    /// Atomicity: each request by itself; an error is of all of them and means unknown: send them again, the ids make that harmless.
    /// Errors in the list: `IdempotencyConflict`.
    /// Tested by: `submit_same_id`, `same_key`, `key_conflict`, `submit_100_at_once`.
    async fn submit(
        &self,
        runs: Vec<NewTaskRun>,
        now: Timestamp,
    ) -> Result<Vec<Result<Submitted, StorageError>>, StorageError>;

    /// Does: the run with its record; `None` when there is none.
    /// Atomicity: one read. Errors: `Corrupt`. Tested by: `final_writes_run`.
    async fn run(&self, id: TaskRunId) -> Result<Option<TaskRun>, StorageError>;

    /// Does: runs that pass the filter, newest first, at most `max`.
    /// Atomicity: one read. Errors: `Corrupt`. Tested by: `runs_are_listed_in_pages`.
    async fn runs(&self, filter: &RunFilter, max: usize) -> Result<RunPage, StorageError>;

    /// Does: ends the run: `cancelled`, all its open rows `cancelled`, owner null, epoch raised.
    /// Atomicity: locks the task run first; one terminal status wins.
    /// Errors: `NotFound`. Tested by: `cancel_races_final`, `cancel_races_made`, `cancel_is_total`.
    async fn cancel(&self, run: TaskRunId, now: Timestamp) -> Result<Cancelled, StorageError>;

    /// Does: asks the run to end by itself. Sets `cancel_by`; every open call, timer and signal wait that is a child of an
    /// open frame which has had its first turn settles as failed with `CancelledError` (owner null, epoch raised) and wakes its frame; nested frames
    /// without a first turn likewise; detached rows are cancelled. A run whose root has had no turn, or which is blocked, is cancelled at once (`Done`).
    /// Asked twice: the earlier `cancel_by` stands.
    /// Atomicity: locks the task run first. Errors: `NotFound`. Tested by: `cancel_with_grace_wakes_all_frames`.
    async fn request_cancel(
        &self,
        run: TaskRunId,
        cancel_by: Timestamp,
        now: Timestamp,
    ) -> Result<Cancelled, StorageError>;

    /// Does: open runs whose `cancel_by` has passed, at most `max`.
    /// Atomicity: one read. Errors: none of its own. Tested by: `cancel_with_grace_wakes_all_frames`.
    async fn overdue_cancels(
        &self,
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<TaskRunId>, StorageError>;

    /// Does: takes blocked rows of a run up again; the run is `queued` (root without a turn) or `suspended` after it, unless a row is still blocked.
    /// Answers how many rows it changed; 0 when none was blocked.
    /// Atomicity: locks the task run first. Errors: `NotFound`. Tested by: `blocked_row_stays`, `unblock_settles`.
    async fn unblock(&self, unblock: Unblock) -> Result<u32, StorageError>;
}
