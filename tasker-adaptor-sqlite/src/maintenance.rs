//! [`Workers`] and [`Maintenance`] on SQLite: leases, folding, deleting, auditing.

use async_trait::async_trait;
use rusqlite::Connection;
use tasker_adaptor::{
    Backlog, Maintenance, NewWorker, Reaped, Retention, StorageError, TaskRunId, Timestamp,
    Violation, WorkerId, Workers,
};

use crate::SqliteStorage;
use crate::audit::audit;
use crate::backlog::backlog;
use crate::cached::Cached as _;
use crate::columns::{Cells, HasKey};
use crate::fault::Outcome;
use crate::leases::{heartbeat, reap, register, retire};
use crate::writer::{Tx, Urgency};

/// Most free pages given back to the file system by one [`Maintenance::compact`]: 16 MiB.
const COMPACT_PAGES: i64 = 4_096;

#[async_trait]
impl Workers for SqliteStorage {
    async fn server_time(&self, host_now: Timestamp) -> Result<Timestamp, StorageError> {
        Ok(host_now)
    }

    async fn register(&self, worker: NewWorker) -> Result<(), StorageError> {
        self.write(1, move |tx| register(tx, &worker)).await
    }

    async fn heartbeat(
        &self,
        worker: WorkerId,
        now: Timestamp,
        lease_ms: i64,
    ) -> Result<bool, StorageError> {
        self.inner
            .writer
            .write(Urgency::First, 1, move |tx| {
                tx.keeps_mirror();
                heartbeat(tx, worker, now, lease_ms)
            })
            .await
    }

    async fn retire(&self, worker: WorkerId, now: Timestamp) -> Result<(), StorageError> {
        self.write(64, move |tx| retire(tx, worker, now)).await
    }

    async fn reap(&self, by: WorkerId, now: Timestamp, max: usize) -> Result<Reaped, StorageError> {
        self.write(max, move |tx| reap(tx, by, now, max)).await
    }
}

#[async_trait]
impl Maintenance for SqliteStorage {
    async fn foldable(
        &self,
        ended_before: Timestamp,
        max: usize,
    ) -> Result<Vec<TaskRunId>, StorageError> {
        self.read(move |conn| foldable(conn, ended_before, max))
            .await
    }

    async fn fold(
        &self,
        run: TaskRunId,
        record: Vec<u8>,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        self.write(1, move |tx| {
            let key = run.key();
            if has_open_rows(tx.conn, key.as_str())? {
                return Ok(false);
            }
            let folded = tx
                .conn
                .cached(
                    "UPDATE task_runs SET record = ?2, folded_at = ?3 WHERE id = ?1 AND ended_at IS NOT NULL AND folded_at IS NULL",
                )?
                .execute((key, &record, now.as_millis()))?;
            Ok(folded > 0)
        })
        .await
    }

    async fn delete_folded_rows(&self, max: usize) -> Result<usize, StorageError> {
        self.write(max, move |tx| delete_folded_rows(tx, max)).await
    }

    async fn delete_runs(&self, retention: &Retention) -> Result<usize, StorageError> {
        let retention = retention.clone();
        self.write(4 * retention.max, move |tx| delete_runs(tx, &retention))
            .await
    }

    async fn compact(&self, keep_free: u64) -> Result<bool, StorageError> {
        self.write(COMPACT_PAGES as usize, move |tx| {
            let number = |pragma| tx.conn.query_row(pragma, [], |row| row.get::<_, i64>(0));
            let keep_free = i64::try_from(keep_free).unwrap_or(i64::MAX);
            let keep = keep_free / number("PRAGMA page_size")?.max(1);
            let free = number("PRAGMA freelist_count")? - keep;
            if free <= 0 {
                return Ok(false);
            }
            let now = free.min(COMPACT_PAGES);
            let mut statement = tx
                .conn
                .prepare(&format!("PRAGMA incremental_vacuum({now})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(free > now)
        })
        .await
    }

    async fn backlog(&self, now: Timestamp, max: usize) -> Result<Backlog, StorageError> {
        self.read(move |conn| backlog(conn, now, max)).await
    }

    async fn audit(&self) -> Result<Vec<Violation>, StorageError> {
        self.read(audit).await
    }
}

fn foldable(conn: &Connection, ended_before: Timestamp, max: usize) -> Outcome<Vec<TaskRunId>> {
    let mut statement = conn.cached(
        "SELECT id FROM task_runs WHERE ended_at < ?1 AND folded_at IS NULL ORDER BY ended_at",
    )?;
    let mut rows = statement.query([ended_before.as_millis()])?;
    let mut runs = Vec::new();
    while runs.len() < max
        && let Some(row) = rows.next()?
    {
        let cells = Cells {
            row,
            table: "task_runs",
            run_column: Some(0),
        };
        let run = TaskRunId::from_uuid(cells.uuid(0)?);
        if !has_open_rows(conn, run.key().as_str())? {
            runs.push(run);
        }
    }
    Ok(runs)
}

pub(crate) const OPEN_FRAME: &str = "SELECT 1 FROM stack_runs WHERE task_run_id = ?1 AND kind = 'frame' \
     AND status NOT IN ('completed','failed','cancelled') LIMIT 1";
pub(crate) const OPEN_LEAF: &str = "SELECT 1 FROM stack_runs f CROSS JOIN stack_runs c ON c.parent_no = f.no \
     WHERE f.task_run_id = ?1 AND f.kind = 'frame' AND c.status NOT IN ('completed','failed','cancelled') LIMIT 1";

fn has_open_rows(conn: &Connection, run: &str) -> Outcome<bool> {
    Ok(conn.cached(OPEN_FRAME)?.exists([run])? || conn.cached(OPEN_LEAF)?.exists([run])?)
}

/// Rows of folded runs, oldest fold first; then workers that are dead and own nothing.
fn delete_folded_rows(tx: &mut Tx<'_>, max: usize) -> Outcome<usize> {
    let mut left = max;
    while left > 0 {
        let next = tx
            .conn
            .cached(
                "SELECT id, folded_at FROM task_runs WHERE folded_at IS NOT NULL AND swept_at IS NULL ORDER BY folded_at LIMIT 1",
            )?
            .query_row([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
            });
        let (run, folded_at) = match next {
            Ok(next) => next,
            Err(rusqlite::Error::QueryReturnedNoRows) => break,
            Err(error) => return Err(error.into()),
        };
        left -= delete_rows_of(tx, &run, left)?;
        if left > 0 {
            tx.conn
                .cached("UPDATE task_runs SET swept_at = ?2 WHERE id = ?1")?
                .execute((run, folded_at))?;
        }
    }
    if left > 0 {
        left -= tx
            .conn
            .cached(
                "DELETE FROM workers WHERE rowid IN (SELECT w.rowid FROM workers w WHERE w.state = 'dead' \
                 AND NOT EXISTS (SELECT 1 FROM stack_runs s WHERE s.owner = w.no) LIMIT ?1)",
            )?
            .execute([left as i64])?;
    }
    Ok(max - left)
}

/// Rows of one folded run, at most so many, so that the invariants hold after each piece: what a frame made goes before the frame,
/// from the last made, and the frame's counters follow. Frames were inserted after the ones that made them, so they go in reverse.
fn delete_rows_of(tx: &Tx<'_>, run: &str, max: usize) -> Outcome<usize> {
    let mut left = max;
    let frames: Vec<(i64, i64)> = tx
        .conn
        .cached(
            "SELECT f.no, k.made_count FROM stack_runs f CROSS JOIN frame_counters k ON k.no = f.no \
             WHERE f.task_run_id = ?1 AND f.kind = 'frame' ORDER BY f.no DESC",
        )?
        .query_map([run], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (frame, made) in frames {
        let keep = made.saturating_sub(i64::try_from(left).unwrap_or(i64::MAX));
        if keep > 0 {
            // The places of what stays would have gaps.
            tx.conn
                .cached(
                    "UPDATE stack_runs SET delivered_order = NULL WHERE parent_no = ?1 AND delivered_order IS NOT NULL",
                )?
                .execute([frame])?;
        }
        if made > 0 {
            tx.conn
                .cached(
                    "DELETE FROM frame_counters WHERE no IN (SELECT no FROM stack_runs WHERE parent_no = ?1 AND seq > ?2 AND kind = 'frame')",
                )?
                .execute((frame, keep))?;
            let deleted = tx
                .conn
                .cached("DELETE FROM stack_runs WHERE parent_no = ?1 AND seq > ?2")?
                .execute((frame, keep))?;
            tx.conn
                .cached(
                    "UPDATE frame_counters SET made_count = ?2, delivered_count = 0 WHERE no = ?1",
                )?
                .execute((frame, keep))?;
            left = left.saturating_sub(deleted);
        }
        if left == 0 {
            return Ok(max);
        }
    }
    // Of the frames the root is left.
    tx.conn
        .cached("DELETE FROM frame_counters WHERE no IN (SELECT no FROM stack_runs WHERE task_run_id = ?1 AND kind = 'frame')")?
        .execute([run])?;
    for sql in [
        "DELETE FROM stack_runs WHERE no IN (SELECT no FROM stack_runs WHERE task_run_id = ?1 AND kind = 'frame' LIMIT ?2)",
        "DELETE FROM signals WHERE rowid IN (SELECT rowid FROM signals WHERE task_run_id = ?1 LIMIT ?2)",
    ] {
        let bound = i64::try_from(left).unwrap_or(i64::MAX);
        left -= tx.conn.cached(sql)?.execute((run, bound))?;
    }
    Ok(max - left)
}

/// Folded runs with what is left of them.
fn delete_runs(tx: &mut Tx<'_>, retention: &Retention) -> Outcome<usize> {
    let mut old: Vec<(i64, String)> = Vec::new();
    let mut statuses = retention.statuses.clone();
    statuses.sort_unstable();
    statuses.dedup();
    for status in statuses {
        let mut statement = tx.conn.cached(
            "SELECT ended_at, id FROM task_runs WHERE status = ?1 AND ended_at < ?2 AND folded_at IS NOT NULL ORDER BY ended_at LIMIT ?3",
        )?;
        let rows = statement.query_map(
            (
                status.as_str(),
                retention.ended_before.as_millis(),
                retention.max as i64,
            ),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        for row in rows {
            old.push(row?);
        }
    }
    old.sort_unstable();
    old.truncate(retention.max);
    for (_, run) in &old {
        delete_rows_of(tx, run, usize::MAX)?;
        tx.conn
            .cached("DELETE FROM log_lines WHERE task_run_id = ?1")?
            .execute([run])?;
        tx.conn
            .cached("DELETE FROM task_runs WHERE id = ?1")?
            .execute([run])?;
    }
    Ok(old.len())
}
