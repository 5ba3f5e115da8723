//! The queue: each operation has a file of its own, this is their door.

use std::sync::Arc;

use async_trait::async_trait;
use tasker_adaptor::{
    CallFinish, Claim, ClaimedCall, ClaimedFrame, CommitRefused, Epoch, Hints, Lease, OwnedRow,
    Queue, ReleasedCall, StackRunId, StorageError, TaskRunId, Timestamp, TurnCommit, TurnReceipt,
    Watch, WorkerId,
};

use super::{claim, commit, finish, release, timers};
use crate::PostgresStorage;
use crate::row::get;
use crate::session::uuid;

const OWNED: &str = "SELECT s.id, s.kind, s.status, s.epoch, s.task_run_id FROM tasker.stack_runs s WHERE s.held = $1 UNION ALL SELECT c.* FROM tasker.stack_runs f CROSS JOIN LATERAL (SELECT s.id, s.kind, s.status, s.epoch, s.task_run_id FROM tasker.stack_runs s WHERE s.task_run_id = f.task_run_id AND s.parent_id = f.id AND s.with_frame AND s.owner = $1 OFFSET 0) c WHERE f.held = $1 AND f.kind = 'frame' ORDER BY id";
const WOKEN: &str = "SELECT id, kind, status, epoch, task_run_id FROM tasker.stack_runs WHERE held = $1 AND status = 'pending_resume' ORDER BY id";

#[async_trait]
impl Queue for PostgresStorage {
    async fn claim_frames(&self, claim: Claim) -> Result<Vec<ClaimedFrame>, StorageError> {
        self.retrying(|| claim::claim_frames(self, &claim)).await
    }

    async fn claim_calls(&self, claim: Claim) -> Result<Vec<ClaimedCall>, StorageError> {
        self.retrying(|| claim::claim_calls(self, &claim)).await
    }

    async fn commit(
        &self,
        turns: Arc<[TurnCommit]>,
    ) -> Result<Vec<Result<TurnReceipt, CommitRefused>>, StorageError> {
        commit::check_use(&turns)?;
        if turns.is_empty() {
            return Ok(Vec::new());
        }
        self.retrying(|| commit::commit(self, &turns)).await
    }

    async fn finish_calls(
        &self,
        finishes: Arc<[CallFinish]>,
        now: Timestamp,
    ) -> Result<Vec<Result<bool, CommitRefused>>, StorageError> {
        if finishes.is_empty() {
            return Ok(Vec::new());
        }
        self.retrying(|| finish::finish(self, &finishes, now)).await
    }

    async fn release_frames(
        &self,
        frames: &[(StackRunId, Lease)],
        now: Timestamp,
    ) -> Result<Vec<Result<(), CommitRefused>>, StorageError> {
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        self.retrying(|| release::frames(self, frames, now)).await
    }

    async fn release_calls(
        &self,
        calls: &[ReleasedCall],
        now: Timestamp,
    ) -> Result<Vec<Result<(), CommitRefused>>, StorageError> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        self.retrying(|| release::calls(self, calls, now)).await
    }

    async fn reload_frame(
        &self,
        frame: StackRunId,
        worker: WorkerId,
        now: Timestamp,
    ) -> Result<Option<ClaimedFrame>, StorageError> {
        self.retrying(|| claim::reload(self, frame, worker, now))
            .await
    }

    async fn fire_timers(
        &self,
        now: Timestamp,
        grace_ms: i64,
        max: usize,
    ) -> Result<usize, StorageError> {
        self.retrying(|| timers::fire(self, now, grace_ms, max))
            .await
    }

    async fn owned(
        &self,
        worker: WorkerId,
        woken_only: bool,
    ) -> Result<Vec<OwnedRow>, StorageError> {
        let sql = if woken_only { WOKEN } else { OWNED };
        let rows = self
            .session()
            .await?
            .query(sql, &[uuid(&worker.as_uuid())])
            .await?;
        rows.iter()
            .map(|row| {
                Ok(OwnedRow {
                    id: StackRunId::from_uuid(get(row, 0)?),
                    kind: get::<&str>(row, 1)?.parse()?,
                    status: get::<&str>(row, 2)?.parse()?,
                    epoch: Epoch(get::<i32>(row, 3)? as u32),
                    task_run: TaskRunId::from_uuid(get(row, 4)?),
                })
            })
            .collect()
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        timers::next_due(self).await
    }
}

impl Watch for PostgresStorage {
    fn watch(&self) -> Hints {
        self.inner.hub.watch()
    }
}
