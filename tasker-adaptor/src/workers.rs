//! Workers and their leases.

use async_trait::async_trait;

use crate::{StorageError, Timestamp, WorkerId};

/// The longest lease that a worker may ask for, in milliseconds: ten minutes.
pub const MAX_LEASE_MS: i64 = 600_000;

/// A lease that ends later than this from now, in milliseconds, was written by a clock that has been set back since, and not
/// renewed since then: no lease is so long.
pub const LEASE_HORIZON_MS: i64 = MAX_LEASE_MS + MAX_LEASE_MS / 2;

/// Whether a lease that ends at `expires_at` is over: it ended, or lies beyond [`LEASE_HORIZON_MS`].
pub fn lease_is_over(expires_at: Timestamp, now: Timestamp) -> bool {
    expires_at < now || expires_at > now.plus_millis(LEASE_HORIZON_MS)
}

/// A worker that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWorker {
    /// Id, never used before.
    pub id: WorkerId,
    /// Host and process, for people.
    pub name: String,
    /// Now, by the database's clock.
    pub now: Timestamp,
    /// How long it may be silent, in milliseconds; at most [`MAX_LEASE_MS`].
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

    /// Does: the worker is dead from now on; what it still owns is freed as reap does, but its calls count no take-over: it did not die of them.
    /// Twice: no-op.
    /// Tested by: `retire_frees_rows`.
    async fn retire(&self, worker: WorkerId, now: Timestamp) -> Result<(), StorageError>;

    /// Does: declares live workers whose lease is over ([`lease_is_over`]) dead (never `by` itself) and frees rows whose owner is not live,
    /// at most `max` rows a call (PROTOCOL a2 *reap*, and the repair scan). Freed frames: owner null, epoch + 1, attempt + 1,
    /// `in_doubt`, status from the children (turn 0 → `pending`; unread child → `pending_resume`; else `suspended_waiting_child`).
    /// Freed calls: `pending`, owner null, epoch + 1, `in_doubt`, take-overs + 1.
    /// Atomicity: the death of a worker is one transaction; rows follow in chunks. `by` must be live, else nothing happens.
    /// Tested by: `reap_*`, `take_overs_of_a_call_are_counted`.
    async fn reap(&self, by: WorkerId, now: Timestamp, max: usize) -> Result<Reaped, StorageError>;
}
