//! [`Queue`] on SQLite: each operation is one closure for the writer thread, or a read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use tasker_adaptor::{
    CallFinish, Claim, ClaimedCall, ClaimedFrame, CommitRefused, Epoch, Lease, OwnedRow, Queue,
    ReleasedCall, StackKind, StackRunId, StorageError, TaskRunId, Timestamp, TurnCommit,
    TurnReceipt, WorkerId,
};

use crate::SqliteStorage;
use crate::cached::Cached as _;
use crate::claim::{claim_calls, claim_frames, next_priority, reload_frame};
use crate::columns::{Cells, HasKey};
use crate::commit::{check_use, commit, weight};
use crate::fault::Outcome;
use crate::finish::{finish_calls, fire_timers, release_calls, release_frames};

#[async_trait]
impl Queue for SqliteStorage {
    async fn claim_frames(&self, claim: Claim) -> Result<Vec<ClaimedFrame>, StorageError> {
        let claimed = self
            .write(claim.max, move |tx| claim_frames(tx, &claim))
            .await?;
        Ok(self.seen(claim.now, claimed))
    }

    async fn claim_calls(&self, claim: Claim) -> Result<Vec<ClaimedCall>, StorageError> {
        let claimed = self
            .write(claim.max, move |tx| claim_calls(tx, &claim))
            .await?;
        Ok(self.seen(claim.now, claimed))
    }

    async fn commit(
        &self,
        turns: Arc<[TurnCommit]>,
    ) -> Result<Vec<Result<TurnReceipt, CommitRefused>>, StorageError> {
        check_use(&turns)?;
        self.write(weight(&turns), move |tx| commit(tx, &turns))
            .await
    }

    fn has_one_writer(&self) -> bool {
        true
    }

    async fn finish_calls(
        &self,
        finishes: Arc<[CallFinish]>,
        now: Timestamp,
    ) -> Result<Vec<Result<bool, CommitRefused>>, StorageError> {
        self.write(2 * finishes.len(), move |tx| {
            finish_calls(tx, &finishes, now)
        })
        .await
    }

    async fn release_frames(
        &self,
        frames: &[(StackRunId, Lease)],
        now: Timestamp,
    ) -> Result<Vec<Result<(), CommitRefused>>, StorageError> {
        let frames = frames.to_vec();
        self.write(2 * frames.len(), move |tx| release_frames(tx, &frames, now))
            .await
    }

    async fn release_calls(
        &self,
        calls: &[ReleasedCall],
        now: Timestamp,
    ) -> Result<Vec<Result<(), CommitRefused>>, StorageError> {
        let calls = calls.to_vec();
        self.write(calls.len(), move |tx| release_calls(tx, &calls, now))
            .await
    }

    async fn reload_frame(
        &self,
        frame: StackRunId,
        worker: WorkerId,
        now: Timestamp,
    ) -> Result<Option<ClaimedFrame>, StorageError> {
        self.write(1, move |tx| reload_frame(tx, frame, worker, now))
            .await
    }

    async fn fire_timers(
        &self,
        now: Timestamp,
        grace_ms: i64,
        max: usize,
    ) -> Result<usize, StorageError> {
        self.write(max, move |tx| fire_timers(tx, now, grace_ms, max))
            .await
    }

    async fn owned(
        &self,
        worker: WorkerId,
        woken_only: bool,
    ) -> Result<Vec<OwnedRow>, StorageError> {
        self.read(move |conn| owned(conn, worker, woken_only)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        let seen = self.inner.seen_due.load(Ordering::Relaxed);
        self.read(move |conn| next_due(conn, seen)).await
    }
}

impl SqliteStorage {
    /// A claim of a live worker looked at everything due until then: what is left of it waits for room, not for a time.
    fn seen<T>(&self, now: Timestamp, claimed: Option<Vec<T>>) -> Vec<T> {
        let Some(claimed) = claimed else {
            return Vec::new();
        };
        let seen = &self.inner.seen_due;
        seen.fetch_max(now.as_millis(), Ordering::Relaxed);
        claimed
    }
}

fn owned(conn: &Connection, worker: WorkerId, woken_only: bool) -> Outcome<Vec<OwnedRow>> {
    let mut statement = conn.cached(
        "SELECT id, task_run_id, kind, status, epoch FROM stack_runs \
         WHERE owner = (SELECT no FROM workers WHERE id = ?1) AND (NOT ?2 OR (kind = 'frame' AND status = 'pending_resume'))",
    )?;
    let mut rows = statement.query((worker.key(), woken_only))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let cells = Cells {
            row,
            table: "stack_runs",
            run_column: Some(1),
        };
        found.push(OwnedRow {
            id: StackRunId::from_uuid(cells.uuid(0)?),
            task_run: TaskRunId::from_uuid(cells.uuid(1)?),
            kind: cells.word::<StackKind>(2)?,
            status: cells.word(3)?,
            epoch: Epoch(cells.get(4)?),
        });
    }
    Ok(found)
}

fn next_due(conn: &Connection, seen: i64) -> Outcome<Option<Timestamp>> {
    let mut earliest: Option<i64> = conn
        .cached(
            "SELECT t.due_at FROM stack_runs t CROSS JOIN stack_runs f ON f.no = t.parent_no \
             WHERE t.kind = 'timer' AND t.waits IS NOT NULL AND t.due_at > ?1 AND f.owner IS NULL ORDER BY t.due_at LIMIT 1",
        )?
        .query_row([i64::MIN], |row| row.get(0))
        .optional()?;
    for kind in ["frame", "call"] {
        let mut below = None;
        while let Some(priority) = next_priority(conn, kind, below)? {
            let due: Option<i64> = conn
                .cached(
                    "SELECT ready_at FROM stack_runs WHERE kind = ?1 AND priority = ?2 AND ready_at > ?3 AND due_at IS NOT NULL \
                     ORDER BY ready_at LIMIT 1",
                )?
                .query_row((kind, priority, seen), |row| row.get(0))
                .optional()?;
            earliest = earliest.into_iter().chain(due).min();
            below = Some(priority);
        }
    }
    Ok(earliest.map(Timestamp::from_millis))
}
