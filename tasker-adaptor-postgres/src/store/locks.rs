//! Locks, in the order of every operation: task runs → workers → stack runs by ascending id.
//!
//! Strengths: an operation that adds or changes rows of a run holds `KEY SHARE` on it; one that changes the run itself
//! (its end, its log, its stored signals) holds `NO KEY UPDATE`; cancel, signal and fold, which must see every row that
//! anybody adds, hold `UPDATE`. A commit holds `KEY SHARE` on its worker, the reaper `UPDATE`, a heartbeat conflicts
//! with neither of two commits.

use std::collections::HashMap;

use tasker_adaptor::{
    CommitRefused, Lease, RunStatus, StackKind, StackStatus, StorageError, WorkerId,
};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::row::get;

/// Runs, while rows in them change.
pub(super) const RUNS_SHARED: &str =
    "SELECT id, status FROM tasker.task_runs WHERE id = ANY ($1) ORDER BY id FOR KEY SHARE";

/// Runs that change themselves.
pub(super) const RUNS: &str =
    "SELECT id, status FROM tasker.task_runs WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE";

/// Runs in which nobody else may change anything.
pub(super) const RUNS_WHOLE: &str =
    "SELECT id, status FROM tasker.task_runs WHERE id = ANY ($1) ORDER BY id FOR UPDATE";

/// Runs of these rows, while rows in them change.
pub(super) const RUNS_OF_ROWS_SHARED: &str = "SELECT id, status FROM tasker.task_runs WHERE id = ANY (ARRAY(SELECT s.task_run_id FROM tasker.stack_runs s WHERE s.id = ANY ($1))) ORDER BY id FOR KEY SHARE";

/// Runs of these rows, which change themselves.
pub(super) const RUNS_OF_ROWS: &str = "SELECT id, status FROM tasker.task_runs WHERE id = ANY (ARRAY(SELECT s.task_run_id FROM tasker.stack_runs s WHERE s.id = ANY ($1))) ORDER BY id FOR NO KEY UPDATE";

/// Those of these workers that are live, kept so.
pub(super) const WORKERS: &str = "SELECT id FROM tasker.workers WHERE id = ANY ($1) AND state = 'live' ORDER BY id FOR KEY SHARE";

/// Rows ($1), the parents of some ($2), and the open timers and signal waits below some ($3).
pub(super) const ROWS: &str = "SELECT s.id, s.task_run_id, s.parent_id, s.kind, s.seq, s.status, s.owner, s.epoch, s.turn, s.made_count, s.delivered_count, s.delivered_order, s.depth, s.priority, s.outcome IS NOT NULL FROM tasker.stack_runs s WHERE s.id = ANY ($1 || ARRAY(SELECT c.parent_id FROM tasker.stack_runs c WHERE c.id = ANY ($2) AND c.parent_id IS NOT NULL) || ARRAY(SELECT t.id FROM tasker.stack_runs t WHERE t.parent_id = ANY ($3) AND t.mark = 'asleep')) ORDER BY s.id FOR UPDATE OF s";

/// What decisions need of a locked row.
#[derive(Clone, Debug)]
pub(super) struct LockedRow {
    pub(super) id: Uuid,
    pub(super) run: Uuid,
    pub(super) parent: Option<Uuid>,
    pub(super) kind: StackKind,
    pub(super) seq: i32,
    pub(super) status: StackStatus,
    pub(super) owner: Option<Uuid>,
    pub(super) epoch: i32,
    pub(super) turn: i32,
    pub(super) made_count: i32,
    pub(super) delivered_count: i32,
    pub(super) delivered_order: Option<i32>,
    pub(super) depth: i32,
    pub(super) priority: i32,
    pub(super) has_outcome: bool,
}

/// Everything that an operation has locked.
#[derive(Default)]
pub(super) struct Locked {
    pub(super) runs: HashMap<Uuid, RunStatus>,
    pub(super) live: Vec<Uuid>,
    pub(super) rows: HashMap<Uuid, LockedRow>,
}

impl Locked {
    pub(super) fn add_runs(&mut self, rows: &[Row]) -> Result<(), StorageError> {
        for row in rows {
            self.runs
                .insert(get(row, 0)?, get::<&str>(row, 1)?.parse()?);
        }
        Ok(())
    }

    pub(super) fn add_workers(&mut self, rows: &[Row]) -> Result<(), StorageError> {
        for row in rows {
            self.live.push(get(row, 0)?);
        }
        Ok(())
    }

    pub(super) fn add_rows(&mut self, rows: &[Row]) -> Result<(), StorageError> {
        for row in rows {
            let locked = LockedRow {
                id: get(row, 0)?,
                run: get(row, 1)?,
                parent: get(row, 2)?,
                kind: get::<&str>(row, 3)?.parse()?,
                seq: get(row, 4)?,
                status: get::<&str>(row, 5)?.parse()?,
                owner: get(row, 6)?,
                epoch: get(row, 7)?,
                turn: get(row, 8)?,
                made_count: get(row, 9)?,
                delivered_count: get(row, 10)?,
                delivered_order: get(row, 11)?,
                depth: get(row, 12)?,
                priority: get(row, 13)?,
                has_outcome: get(row, 14)?,
            };
            self.rows.insert(locked.id, locked);
        }
        Ok(())
    }

    pub(super) fn is_live(&self, worker: WorkerId) -> bool {
        self.live.contains(&worker.as_uuid())
    }

    /// A completed run does not refuse: its detached rows still go on.
    pub(super) fn refuse_ended(&self, row: &LockedRow) -> Result<(), CommitRefused> {
        if row.status.is_terminal() || self.runs.get(&row.run) == Some(&RunStatus::Cancelled) {
            return Err(CommitRefused::Ended);
        }
        Ok(())
    }

    /// The row that this lease still holds.
    pub(super) fn leased(&self, id: Uuid, lease: Lease) -> Result<&LockedRow, CommitRefused> {
        if !self.is_live(lease.worker) {
            return Err(CommitRefused::LeaseLost);
        }
        let row = self.rows.get(&id).ok_or(CommitRefused::Gone)?;
        self.refuse_ended(row)?;
        row.refuse_other_owner(lease)?;
        Ok(row)
    }
}

impl LockedRow {
    pub(super) fn refuse_other_owner(&self, lease: Lease) -> Result<(), CommitRefused> {
        if self.owner == Some(lease.worker.as_uuid()) && self.epoch == lease.epoch.0 as i32 {
            Ok(())
        } else {
            Err(CommitRefused::Superseded)
        }
    }
}
