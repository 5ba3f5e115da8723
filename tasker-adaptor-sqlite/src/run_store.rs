//! [`RunStore`] on SQLite.

use std::sync::LazyLock;

use async_trait::async_trait;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use tasker_adaptor::{
    Cancelled, NewTaskRun, RunFilter, RunPage, RunStatus, RunStore, StorageError, Submitted,
    TaskRun, TaskRunId, Timestamp, Unblock,
};

use crate::SqliteStorage;
use crate::cached::Cached as _;
use crate::cancel::{cancel, request_cancel, unblock};
use crate::columns::{Cells, HasKey, TASK_RUN, labels_column, task_run};
use crate::fault::{Fault, Outcome};
use crate::hot::NEW_COUNTERS;

static ONE: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {TASK_RUN}, r.record FROM task_runs r WHERE r.id = ?1"));

/// Where [`TASK_RUN`] ends and `record` is.
const RECORD: usize = 19;

/// Sorts after every id.
const AFTER_ALL_IDS: &str = "g";

#[async_trait]
impl RunStore for SqliteStorage {
    async fn submit(
        &self,
        runs: Vec<NewTaskRun>,
        now: Timestamp,
    ) -> Result<Vec<Result<Submitted, StorageError>>, StorageError> {
        self.write(2 * runs.len(), move |tx| {
            tx.keeps_mirror();
            let mut answers = Vec::with_capacity(runs.len());
            for new in &runs {
                match submit(tx.conn, new, now) {
                    Ok(submitted) => {
                        if submitted.created {
                            tx.hint_work();
                        }
                        answers.push(Ok(submitted));
                    }
                    Err(Fault::Storage(refused)) => answers.push(Err(refused)),
                    Err(fault) => return Err(fault),
                }
            }
            Ok(answers)
        })
        .await
    }

    async fn run(&self, id: TaskRunId) -> Result<Option<TaskRun>, StorageError> {
        self.read(move |conn| one(conn, id)).await
    }

    async fn runs(&self, filter: &RunFilter, max: usize) -> Result<RunPage, StorageError> {
        let filter = filter.clone();
        self.read(move |conn| list(conn, &filter, max)).await
    }

    async fn cancel(&self, run: TaskRunId, now: Timestamp) -> Result<Cancelled, StorageError> {
        self.write(16, move |tx| cancel(tx, run, now)).await
    }

    async fn request_cancel(
        &self,
        run: TaskRunId,
        cancel_by: Timestamp,
        now: Timestamp,
    ) -> Result<Cancelled, StorageError> {
        self.write(16, move |tx| request_cancel(tx, run, cancel_by, now))
            .await
    }

    async fn overdue_cancels(
        &self,
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<TaskRunId>, StorageError> {
        self.read(move |conn| overdue(conn, now, max)).await
    }

    async fn unblock(&self, request: Unblock) -> Result<u32, StorageError> {
        self.write(16, move |tx| unblock(tx, &request)).await
    }
}

/// Adds a run with its root frame, or finds the one that has its id or key.
pub(crate) fn submit(conn: &Connection, new: &NewTaskRun, now: Timestamp) -> Outcome<Submitted> {
    if let Some((id, hash)) = known(conn, new)? {
        return if hash == new.request_hash {
            Ok(Submitted { id, created: false })
        } else {
            Err(StorageError::IdempotencyConflict { existing: id }.into())
        };
    }
    let root_is_used = conn
        .cached("SELECT 1 FROM stack_runs WHERE id = ?1")?
        .exists([new.root.key()])?;
    if root_is_used {
        return Err(StorageError::Misuse {
            what: format!("root frame {} belongs to another run", new.root),
        }
        .into());
    }
    let run_at = new.run_at.as_millis();
    conn.cached(
        "INSERT INTO task_runs (id, task, version, status, input, idempotency_key, request_hash, priority, run_at, deadline, \
         labels, correlation_id, traceparent, created_at) \
         VALUES (?1, ?2, ?3, 'queued', ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute((
        new.id.key(),
        new.task.as_str(),
        new.version.as_str(),
        new.input.text(),
        &new.idempotency_key,
        &new.request_hash,
        new.priority,
        run_at,
        new.deadline.map(Timestamp::as_millis),
        labels_column(&new.labels),
        &new.correlation_id,
        &new.traceparent,
        now.as_millis(),
    ))?;
    conn.cached(
        "INSERT INTO stack_runs (id, task_run_id, kind, seq, depth, priority, status, epoch, attempt, in_doubt, \
         due_at, ready_at, service, path, created_at) VALUES (?1, ?2, 'frame', 0, 0, ?3, 'pending', 0, 0, 0, ?4, ?5, 'task', ?6, ?7)",
    )?
    .execute((
        new.root.key(),
        new.id.key(),
        new.priority,
        run_at,
        run_at.max(now.as_millis()),
        new.task.as_str(),
        now.as_millis(),
    ))?;
    conn.cached(NEW_COUNTERS)?
        .execute([conn.last_insert_rowid()])?;
    Ok(Submitted {
        id: new.id,
        created: true,
    })
}

/// The run that has this id, else the one that has this key, with the hash of its request.
fn known(conn: &Connection, new: &NewTaskRun) -> Outcome<Option<(TaskRunId, String)>> {
    let by_id: Option<String> = conn
        .cached("SELECT request_hash FROM task_runs WHERE id = ?1")?
        .query_row([new.id.key()], |row| row.get(0))
        .optional()?;
    if let Some(hash) = by_id {
        return Ok(Some((new.id, hash)));
    }
    let Some(key) = &new.idempotency_key else {
        return Ok(None);
    };
    let mut statement =
        conn.cached("SELECT id, request_hash FROM task_runs WHERE idempotency_key = ?1")?;
    let mut rows = statement.query([key])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let cells = Cells {
        row,
        table: "task_runs",
        run_column: Some(0),
    };
    Ok(Some((TaskRunId::from_uuid(cells.uuid(0)?), cells.get(1)?)))
}

fn one(conn: &Connection, id: TaskRunId) -> Outcome<Option<TaskRun>> {
    let mut statement = conn.cached(&ONE)?;
    let mut rows = statement.query([id.key()])?;
    match rows.next()? {
        None => Ok(None),
        Some(row) => {
            let mut run = task_run(row)?;
            run.record = row.get(RECORD)?;
            Ok(Some(run))
        }
    }
}

/// One walk down an index for each status asked for (or for the task, or for all), merged by id: never more than a page is sorted.
fn list(conn: &Connection, filter: &RunFilter, max: usize) -> Outcome<RunPage> {
    let mut runs = Vec::new();
    if filter.statuses.is_empty() {
        walk(conn, filter, None, max, &mut runs)?;
    } else {
        let mut statuses = filter.statuses.clone();
        statuses.sort_unstable();
        statuses.dedup();
        for status in statuses {
            walk(conn, filter, Some(status), max, &mut runs)?;
        }
        runs.sort_unstable_by_key(|run| std::cmp::Reverse(run.id));
    }
    let more = runs.len() > max;
    runs.truncate(max);
    Ok(RunPage {
        next: runs.last().map(|run| run.id).filter(|_| more),
        runs,
    })
}

fn walk(
    conn: &Connection,
    filter: &RunFilter,
    status: Option<RunStatus>,
    max: usize,
    runs: &mut Vec<TaskRun>,
) -> Outcome<()> {
    let before = filter
        .before
        .map_or_else(|| AFTER_ALL_IDS.to_owned(), |id| id.to_string());
    let sql = list_sql(filter, status);
    let mut values = vec![Value::Text(before)];
    values.extend(status.map(|status| Value::Text(status.as_str().to_owned())));
    values.extend(
        filter
            .task
            .as_ref()
            .map(|task| Value::Text(task.as_str().to_owned())),
    );
    for (name, value) in &filter.labels {
        values.push(Value::Text(name.clone()));
        values.push(Value::Text(value.clone()));
    }
    values.push(Value::Integer((max + 1) as i64));
    let mut statement = conn.cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        runs.push(task_run(row)?);
    }
    Ok(())
}

/// The unary plus keeps the planner from an index that does not give the order.
pub(crate) fn list_sql(filter: &RunFilter, status: Option<RunStatus>) -> String {
    use std::fmt::Write as _;

    let mut sql = format!("SELECT {TASK_RUN} FROM task_runs r WHERE r.id < ?");
    if status.is_some() {
        sql.push_str(" AND r.status = ?");
    }
    if filter.task.is_some() {
        // The status is the narrower one, except for the word that most of history has.
        sql.push_str(match status {
            Some(status) if status != RunStatus::Completed => " AND +r.task = ?",
            _ => " AND r.task = ?",
        });
    }
    for _ in &filter.labels {
        let _ = write!(
            sql,
            " AND EXISTS (SELECT 1 FROM json_each(r.labels) l WHERE l.key = ? AND l.value = ?)"
        );
    }
    sql.push_str(" ORDER BY r.id DESC LIMIT ?");
    sql
}

fn overdue(conn: &Connection, now: Timestamp, max: usize) -> Outcome<Vec<TaskRunId>> {
    let mut statement = conn.cached(
        "SELECT id FROM task_runs WHERE cancel_by <= ?1 AND ended_at IS NULL ORDER BY cancel_by LIMIT ?2",
    )?;
    let mut rows = statement.query((now.as_millis(), max as i64))?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next()? {
        let cells = Cells {
            row,
            table: "task_runs",
            run_column: Some(0),
        };
        runs.push(TaskRunId::from_uuid(cells.uuid(0)?));
    }
    Ok(runs)
}
