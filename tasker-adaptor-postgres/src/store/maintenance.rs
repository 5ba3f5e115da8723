//! Folding, deleting, auditing: off the hot path and in bounded batches.

use async_trait::async_trait;
use tasker_adaptor::{
    AUDIT, Backlog, Maintenance, Retention, StorageError, TaskRunId, Timestamp, Violation,
};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::backlog::backlog;
use super::cancel::lock_whole;
use crate::PostgresStorage;
use crate::row::get;
use crate::session::{bytes, long, texts, uuid, uuids};

/// A scalar subquery, not `NOT EXISTS`: as a join it would read the rows of all runs.
const FOLDABLE: &str = "SELECT r.id FROM tasker.task_runs r WHERE r.ended_at IS NOT NULL AND r.folded_at IS NULL AND r.ended_at < $1 AND coalesce((SELECT false FROM tasker.stack_runs s WHERE s.task_run_id = r.id AND s.status NOT IN ('completed', 'failed', 'cancelled') LIMIT 1), true) ORDER BY r.ended_at, r.id LIMIT $2";
const FOLD: &str = "UPDATE tasker.task_runs r SET record = $2, folded_at = $3 WHERE r.id = $1 AND r.ended_at IS NOT NULL AND r.folded_at IS NULL AND NOT EXISTS (SELECT 1 FROM tasker.stack_runs s WHERE s.task_run_id = r.id AND s.status NOT IN ('completed', 'failed', 'cancelled')) RETURNING 1";

const TO_CLEAN: &str = "SELECT id FROM tasker.task_runs WHERE folded_at IS NOT NULL AND NOT cleaned ORDER BY id LIMIT $1";
const DELETE_SIGNALS: &str = "DELETE FROM tasker.signals WHERE id IN (SELECT id FROM tasker.signals WHERE task_run_id = ANY ($1) LIMIT $2) RETURNING 1";
const DELETE_ROWS: &str = "DELETE FROM tasker.stack_runs WHERE id IN (SELECT id FROM tasker.stack_runs WHERE task_run_id = ANY ($1) ORDER BY id DESC LIMIT $2) RETURNING 1";
const CLEANED: &str = "UPDATE tasker.task_runs r SET cleaned = true WHERE r.id = ANY ($1) AND coalesce((SELECT false FROM tasker.stack_runs s WHERE s.task_run_id = r.id LIMIT 1), true) AND coalesce((SELECT false FROM tasker.signals g WHERE g.task_run_id = r.id LIMIT 1), true)";
const DELETE_DEAD: &str = "DELETE FROM tasker.workers WHERE id IN (SELECT w.id FROM tasker.workers w WHERE w.state = 'dead' AND coalesce((SELECT false FROM tasker.stack_runs s WHERE s.held = w.id LIMIT 1), true) LIMIT $1) RETURNING 1";

const OLD: &str = "SELECT r.id FROM unnest($1::text[]) AS w(word) CROSS JOIN LATERAL (SELECT t.id, t.ended_at FROM tasker.task_runs t WHERE t.status = w.word AND t.folded_at IS NOT NULL AND t.ended_at < $2 ORDER BY t.ended_at, t.id LIMIT $3) r ORDER BY r.ended_at, r.id LIMIT $3";
const DELETE_LOGS_OF: &str = "DELETE FROM tasker.log_lines WHERE task_run_id = ANY ($1)";
const DELETE_SIGNALS_OF: &str = "DELETE FROM tasker.signals WHERE task_run_id = ANY ($1)";
const DELETE_ROWS_OF: &str = "DELETE FROM tasker.stack_runs WHERE task_run_id = ANY ($1)";
const DELETE_RUNS: &str = "DELETE FROM tasker.task_runs WHERE id = ANY ($1) RETURNING 1";

/// Runs whose rows one call of the cleaner looks at.
const RUNS_AT_ONCE: i64 = 256;

#[async_trait]
impl Maintenance for PostgresStorage {
    async fn foldable(
        &self,
        ended_before: Timestamp,
        max: usize,
    ) -> Result<Vec<TaskRunId>, StorageError> {
        let (before, max) = (ended_before.as_millis(), max as i64);
        let rows = self
            .session()
            .await?
            .query(FOLDABLE, &[long(&before), long(&max)])
            .await?;
        rows.iter()
            .map(|row| get(row, 0).map(TaskRunId::from_uuid))
            .collect()
    }

    async fn fold(
        &self,
        run: TaskRunId,
        record: Vec<u8>,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        self.retrying(|| fold(self, run, &record, now)).await
    }

    async fn delete_folded_rows(&self, max: usize) -> Result<usize, StorageError> {
        self.retrying(|| delete_folded_rows(self, max)).await
    }

    async fn delete_runs(&self, retention: &Retention) -> Result<usize, StorageError> {
        self.retrying(|| delete_runs(self, retention)).await
    }

    async fn backlog(&self, now: Timestamp, max: usize) -> Result<Backlog, StorageError> {
        backlog(self, now, max).await
    }

    async fn audit(&self) -> Result<Vec<Violation>, StorageError> {
        audit(self).await
    }
}

async fn fold(
    storage: &PostgresStorage,
    run: TaskRunId,
    record: &[u8],
    now: Timestamp,
) -> Result<bool, StorageError> {
    let mut session = storage.session().await?;
    if lock_whole(&mut session, run).await?.is_none() {
        session.rollback().await?;
        return Ok(false);
    }
    let (id, now) = (run.as_uuid(), now.as_millis());
    let fold = session.step(FOLD, vec![uuid(&id), bytes(&record), long(&now)]);
    let answers = session.commit(vec![fold]).await?;
    Ok(!answers[0].is_empty())
}

async fn delete_folded_rows(storage: &PostgresStorage, max: usize) -> Result<usize, StorageError> {
    let mut session = storage.session().await?;
    let mut left = max;
    while left > 0 {
        let found = session.query(TO_CLEAN, &[long(&RUNS_AT_ONCE)]).await?;
        if found.is_empty() {
            break;
        }
        let runs: Vec<Uuid> = found
            .iter()
            .map(|row| get(row, 0))
            .collect::<Result<_, _>>()?;
        let signals = session
            .query(DELETE_SIGNALS, &[uuids(&runs), long(&(left as i64))])
            .await?
            .len();
        left -= signals;
        let rows = session
            .query(DELETE_ROWS, &[uuids(&runs), long(&(left as i64))])
            .await?
            .len();
        left -= rows;
        session.query(CLEANED, &[uuids(&runs)]).await?;
    }
    let dead = session
        .query(DELETE_DEAD, &[long(&(left as i64))])
        .await?
        .len();
    Ok(max - left + dead)
}

async fn delete_runs(
    storage: &PostgresStorage,
    retention: &Retention,
) -> Result<usize, StorageError> {
    let statuses: Vec<&str> = retention
        .statuses
        .iter()
        .map(|status| status.as_str())
        .collect();
    let before = retention.ended_before.as_millis();
    let max = retention.max as i64;
    let mut session = storage.session().await?;
    let found = session
        .query(OLD, &[texts(&statuses), long(&before), long(&max)])
        .await?;
    if found.is_empty() {
        return Ok(0);
    }
    let runs: Vec<Uuid> = found
        .iter()
        .map(|row| get(row, 0))
        .collect::<Result<_, _>>()?;
    let lock = session.step(super::locks::RUNS_WHOLE, vec![uuids(&runs)]);
    session.begin(vec![lock]).await?;
    let steps = vec![
        session.step(DELETE_LOGS_OF, vec![uuids(&runs)]),
        session.step(DELETE_SIGNALS_OF, vec![uuids(&runs)]),
        session.step(DELETE_ROWS_OF, vec![uuids(&runs)]),
        session.step(DELETE_RUNS, vec![uuids(&runs)]),
    ];
    let answers = session.commit(steps).await?;
    Ok(answers[3].len())
}

/// The audit's queries name tables without a schema: the path is set for one transaction, which all of them share.
async fn audit(storage: &PostgresStorage) -> Result<Vec<Violation>, StorageError> {
    let mut session = storage.session().await?;
    let path = storage.inner.schema.quoted();
    let rows = session
        .audit(path, AUDIT.iter().map(|query| query.sql))
        .await?;
    let mut violations = Vec::new();
    for (query, rows) in AUDIT.iter().zip(rows) {
        for row in rows {
            let id = if *row.columns()[0].type_() == Type::UUID {
                get::<Option<Uuid>>(&row, 0)?.map(|id| id.to_string())
            } else {
                get::<Option<String>>(&row, 0)?
            };
            violations.push(Violation {
                invariant: query.name,
                claim: query.claim,
                id: id.unwrap_or_default(),
            });
        }
    }
    Ok(violations)
}
