//! Reading frames back.

use async_trait::async_trait;

use crate::{StackRun, StackRunId, StorageError, TaskRunId};

/// A frame with all that it made: what a VM is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameJournal {
    /// The frame's row.
    pub frame: StackRun,
    /// Its children by `seq`, all of them: delivered, settled but unread, open, cancelled.
    pub children: Vec<StackRun>,
}

/// Journals and call trees.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Does: the frame and all its children by `seq`; `None` when the row is gone.
    /// Atomicity: one snapshot. Errors: `Corrupt` naming the run. Tested by: `delivery_order_gapless`, `made_order_and_ids`, `policy_of_a_call`.
    async fn load(&self, frame: StackRunId) -> Result<Option<FrameJournal>, StorageError>;

    /// Does: settled and undelivered children of the frame, by `seq`.
    /// Atomicity: one snapshot. Tested by: `suspend_after_child_settled`.
    async fn unread(&self, frame: StackRunId) -> Result<Vec<StackRun>, StorageError>;

    /// Does: one stack run. Tested by: every case that looks at a row.
    async fn stack_run(&self, id: StackRunId) -> Result<Option<StackRun>, StorageError>;

    /// Does: all stack runs of a task run, parents before children, then by `seq`. Empty after the rows were cleaned.
    /// Atomicity: one snapshot. Tested by: `cancel_races_made`.
    async fn stack_runs(&self, run: TaskRunId) -> Result<Vec<StackRun>, StorageError>;
}
