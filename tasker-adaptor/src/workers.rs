//! Workers and their leases.

use async_trait::async_trait;

use crate::{StorageError, Timestamp, WorkerId};

/// A worker that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWorker {
    /// Id, never used before.
    pub id: WorkerId,
    /// Host and process, for people.
    pub name: String,
    /// Now, by the database's clock.
    pub now: Timestamp,
    /// How long it may be silent, in milliseconds.
    pub lease_ms: i64,
}

/// What a reap did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Workers declared dead by this call.
    pub workers: Vec<WorkerId>,
    /// Frames freed.
    pub frames: usize,
    /// Calls freed.
    pub calls: usize,
    /// More is left: call again.
    pub more: bool,
}

/// Leases by heartbeat: one row a worker.
#[async_trait]
pub trait Workers: Send + Sync + 'static {
    /// Does: the database's time; for an embedded database the host's.
    /// Errors: connection errors only. Tested by: `timer_not_early`.
    async fn server_time(&self, host_now: Timestamp) -> Result<Timestamp, StorageError>;

    /// Does: a live worker whose lease ends at `now + lease_ms`. Sent again with the same id: renews.
    /// Errors: `Misuse` when the id is dead. Tested by: `heartbeat_after_reap`.
    async fn register(&self, worker: NewWorker) -> Result<(), StorageError>;

    /// Does: moves the end of the lease to `now + lease_ms`; `false` when the worker is not live: its rows are others' now.
    /// Never waits behind an open commit of the same process. Tested by: `heartbeat_after_reap`.
    async fn heartbeat(
        &self,
        worker: WorkerId,
        now: Timestamp,
        lease_ms: i64,
    ) -> Result<bool, StorageError>;

    /// Does: the worker is dead from now on; what it still owns is freed as reap does. Twice: no-op.
    /// Tested by: `retire_frees_rows`.
    async fn retire(&self, worker: WorkerId, now: Timestamp) -> Result<(), StorageError>;

    /// Does: declares live workers whose lease ended before `now` dead (never `by` itself) and frees rows whose owner is not live,
    /// at most `max` rows a call (PROTOCOL a2 *reap*, and the repair scan). Freed frames: owner null, epoch + 1, attempt + 1,
    /// `in_doubt`, status from the children (turn 0 → `pending`; unread child → `pending_resume`; else `suspended_waiting_child`).
    /// Freed calls: `pending`, owner null, epoch + 1, `in_doubt`.
    /// Atomicity: the death of a worker is one transaction; rows follow in chunks. `by` must be live, else nothing happens.
    /// Tested by: `reap_*`.
    async fn reap(&self, by: WorkerId, now: Timestamp, max: usize) -> Result<Reaped, StorageError>;
}
