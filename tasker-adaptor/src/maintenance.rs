//! Cleaning and checking, off the hot path and in bounded batches.

use async_trait::async_trait;

use crate::{Backlog, RunStatus, StorageError, TaskRunId, Timestamp, Violation};

/// Which ended and folded runs may be deleted whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Only runs of these statuses.
    pub statuses: Vec<RunStatus>,
    /// Only runs that ended before this.
    pub ended_before: Timestamp,
    /// At most this many.
    pub max: usize,
}

/// Maintenance.
#[async_trait]
pub trait Maintenance: Send + Sync + 'static {
    /// Does: ended runs that are not folded and have no open stack run, oldest end first, ended before `ended_before`.
    /// Atomicity: one read. Tested by: `fold_never_open`.
    async fn foldable(
        &self,
        ended_before: Timestamp,
        max: usize,
    ) -> Result<Vec<TaskRunId>, StorageError>;

    /// Does: writes the record and `folded_at`. `false` when the run is not ended, has an open stack run, or is folded already: then nothing changed.
    /// Atomicity: locks the task run first. Tested by: `fold_never_open`, `fold_crash_between`, `fold_then_late_commit`.
    async fn fold(
        &self,
        run: TaskRunId,
        record: Vec<u8>,
        now: Timestamp,
    ) -> Result<bool, StorageError>;

    /// Does: deletes stack runs (and signals, dead workers' rows) of folded runs, at most `max` rows; answers how many went.
    /// Tested by: `fold_crash_between`.
    async fn delete_folded_rows(&self, max: usize) -> Result<usize, StorageError>;

    /// Does: deletes folded runs with their log lines; answers how many runs went.
    /// Tested by: `retention_deletes_by_age_and_status`.
    async fn delete_runs(&self, retention: &Retention) -> Result<usize, StorageError>;

    /// Does: gives free space beyond `keep_free` bytes back to the file system, a bounded piece at a time, where the backend needs
    /// that; answers whether there is more to give back.
    async fn compact(&self, keep_free: u64) -> Result<bool, StorageError> {
        let _ = keep_free;
        Ok(false)
    }

    /// Does: counts what is open and what is ready at `now`. Each count stops at `max`, so that its cost is bounded; of ready rows those
    /// of higher priority are counted first. Never reads ended history. An adaptor may leave it out: then there are no gauges.
    /// Atomicity: none between the counts. Errors: `Unsupported`. Tested by: `backlog_counts_what_waits`.
    async fn backlog(&self, now: Timestamp, max: usize) -> Result<Backlog, StorageError> {
        let _ = (now, max);
        Err(StorageError::Unsupported { what: "backlog" })
    }

    /// Does: runs the audit queries (PROTOCOL d) and answers every row that breaks an invariant; empty when all is well.
    /// Tested by: `audit_names_broken_rows`, and after every other case.
    async fn audit(&self) -> Result<Vec<Violation>, StorageError>;
}
