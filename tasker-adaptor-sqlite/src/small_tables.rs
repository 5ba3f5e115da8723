//! Tasks, signals, log lines and sealed values on SQLite.

use std::sync::LazyLock;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row};
use tasker_adaptor::{
    KeyStore, LogCursor, LogLevel, LogLine, LogPage, Logs, NewSignal, NewTask, Outcome as Ending,
    Published, RunStatus, SealedValue, Signals, StackRunId, StorageError, StoredLogLine,
    TaskFunction, TaskName, TaskPage, TaskRunId, TaskStore, TaskVersion, Timestamp,
};

use crate::SqliteStorage;
use crate::cached::Cached as _;
use crate::columns::{Cells, HasKey, Key};
use crate::commit::write_logs;
use crate::fault::Outcome;
use crate::tree::{settle_row, wake};
use crate::writer::Tx;

const TASK: &str =
    "t.name, t.version, t.source, t.modules, t.schema, t.options, t.created_at, t.published_at";

pub(crate) static CURRENT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {TASK} FROM task_functions t WHERE t.name = ?1 ORDER BY t.published_at DESC LIMIT 1"
    )
});
pub(crate) static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {TASK} FROM task_functions t WHERE t.name = ?1 AND t.version = ?2")
});
pub(crate) static TASKS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {TASK} FROM task_functions t WHERE t.name > ?1 \
         AND t.published_at = (SELECT MAX(n.published_at) FROM task_functions n WHERE n.name = t.name) ORDER BY t.name LIMIT ?2"
    )
});
pub(crate) const LOGS: &str = "SELECT id, frame_id, time, level, message, data FROM log_lines WHERE task_run_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3";

#[async_trait]
impl TaskStore for SqliteStorage {
    async fn publish(&self, task: NewTask, now: Timestamp) -> Result<Published, StorageError> {
        self.write(1, move |tx| publish(tx.conn, &task, now)).await
    }

    async fn task(
        &self,
        name: &TaskName,
        version: Option<&TaskVersion>,
    ) -> Result<Option<TaskFunction>, StorageError> {
        let (name, version) = (name.clone(), version.cloned());
        self.read(move |conn| find(conn, &name, version.as_ref()))
            .await
    }

    async fn tasks(&self, after: Option<&TaskName>, max: usize) -> Result<TaskPage, StorageError> {
        let after = after.map_or_else(String::new, |name| name.as_str().to_owned());
        self.read(move |conn| {
            let mut statement = conn.cached(&TASKS)?;
            let mut rows = statement.query((after, (max + 1) as i64))?;
            let mut tasks = Vec::new();
            while let Some(row) = rows.next()? {
                tasks.push(task_function(row)?);
            }
            let more = tasks.len() > max;
            tasks.truncate(max);
            Ok(TaskPage {
                next: tasks.last().map(|task| task.name.clone()).filter(|_| more),
                tasks,
            })
        })
        .await
    }
}

fn publish(conn: &Connection, task: &NewTask, now: Timestamp) -> Outcome<Published> {
    let newest: Option<i64> = conn
        .cached("SELECT MAX(published_at) FROM task_functions WHERE name = ?1")?
        .query_row([task.name.as_str()], |row| row.get(0))?;
    let published_at = newest.map_or(now.as_millis(), |newest| {
        now.as_millis().max(newest.saturating_add(1))
    });
    if let Some(known) = find(conn, &task.name, Some(&task.version))? {
        let same = known.source == task.source
            && known.modules == task.modules
            && known.options == task.options;
        if !same {
            return Err(StorageError::VersionConflict {
                version: task.version.clone(),
            }
            .into());
        }
        if Some(known.published_at.as_millis()) == newest {
            return Ok(Published::Unchanged);
        }
        conn.cached(
            "UPDATE task_functions SET published_at = ?3 WHERE name = ?1 AND version = ?2",
        )?
        .execute((task.name.as_str(), task.version.as_str(), published_at))?;
        return Ok(Published::Restored);
    }
    conn.cached(
        "INSERT INTO task_functions (name, version, source, modules, schema, options, created_at, published_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((
        task.name.as_str(),
        task.version.as_str(),
        &task.source,
        task.modules.as_ref().map(tasker_adaptor::Json::text),
        task.schema.text(),
        task.options.text(),
        now.as_millis(),
        published_at,
    ))?;
    Ok(Published::Created)
}

fn find(
    conn: &Connection,
    name: &TaskName,
    version: Option<&TaskVersion>,
) -> Outcome<Option<TaskFunction>> {
    let (mut statement, mut rows);
    match version {
        None => {
            statement = conn.cached(&CURRENT)?;
            rows = statement.query([name.as_str()])?;
        }
        Some(version) => {
            statement = conn.cached(&VERSION)?;
            rows = statement.query([name.as_str(), version.as_str()])?;
        }
    }
    rows.next()?.map(task_function).transpose()
}

fn task_function(row: &Row<'_>) -> Outcome<TaskFunction> {
    let cells = Cells {
        row,
        table: "task_functions",
        run_column: None,
    };
    Ok(TaskFunction {
        name: TaskName::new(cells.get::<String>(0)?),
        version: TaskVersion::new(cells.get::<String>(1)?),
        source: cells.get(2)?,
        modules: cells.json(3)?,
        schema: cells.required_json(4)?,
        options: cells.required_json(5)?,
        created_at: Timestamp::from_millis(cells.get(6)?),
        published_at: Timestamp::from_millis(cells.get(7)?),
    })
}

#[async_trait]
impl Signals for SqliteStorage {
    async fn send_signal(&self, signal: NewSignal, now: Timestamp) -> Result<bool, StorageError> {
        self.write(3, move |tx| send_signal(tx, &signal, now)).await
    }
}

fn send_signal(tx: &mut Tx<'_>, signal: &NewSignal, now: Timestamp) -> Outcome<bool> {
    let run = signal.run.key();
    let status: Option<String> = tx
        .conn
        .cached("SELECT status FROM task_runs WHERE id = ?1")?
        .query_row([run], |row| row.get(0))
        .optional()?;
    let Some(status) = status else {
        return Err(no_run(signal.run).into());
    };
    let id = Key::of(signal.id);
    let known = tx
        .conn
        .cached("SELECT 1 FROM signals WHERE id = ?1")?
        .exists([id])?;
    if known {
        return Ok(true);
    }
    if status.parse::<RunStatus>()?.is_terminal() {
        return Ok(false);
    }
    let wait: Option<(i64, String, Option<i64>)> = tx
        .conn
        .cached(
            "SELECT no, id, parent_no FROM stack_runs WHERE task_run_id = ?1 AND path = ?2 AND kind = 'signal' AND waits IS NOT NULL \
             ORDER BY no LIMIT 1",
        )?
        .query_row((run, &signal.name), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    tx.conn
        .cached(
            "INSERT INTO signals (id, task_run_id, name, payload, sent_at, consumed_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute((
            id,
            run,
            &signal.name,
            signal.payload.text(),
            now.as_millis(),
            wait.as_ref().map(|(_, id, _)| id),
        ))?;
    if let Some((no, _, parent)) = wait {
        let ending = Ending::Completed(Some(signal.payload.clone()));
        settle_row(tx, no, &ending, false, now)?;
        if let Some(parent) = parent {
            wake(tx, parent, now)?;
        }
    }
    Ok(true)
}

fn no_run(run: TaskRunId) -> StorageError {
    StorageError::NotFound {
        what: format!("task run {run}"),
    }
}

#[async_trait]
impl Logs for SqliteStorage {
    async fn append_logs(
        &self,
        run: TaskRunId,
        frame: Option<StackRunId>,
        lines: Vec<LogLine>,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        self.write(lines.len(), move |tx| {
            let known = tx
                .conn
                .cached("SELECT 1 FROM task_runs WHERE id = ?1")?
                .exists([run.key()])?;
            if !known {
                return Err(no_run(run).into());
            }
            write_logs(tx, run.key(), frame.map(|frame| frame.key()), &lines, now)
        })
        .await
    }

    async fn logs(
        &self,
        run: TaskRunId,
        after: LogCursor,
        max: usize,
    ) -> Result<LogPage, StorageError> {
        self.read(move |conn| {
            let from = i64::try_from(after.0).unwrap_or(i64::MAX);
            let mut statement = conn.cached(LOGS)?;
            let mut rows = statement.query((run.key(), from, max as i64))?;
            let mut lines = Vec::new();
            while let Some(row) = rows.next()? {
                lines.push(log_line(row).map_err(|fault| in_run(fault, run))?);
            }
            Ok(LogPage {
                next: lines.last().map_or(after, |line| line.cursor),
                lines,
            })
        })
        .await
    }
}

fn in_run(fault: crate::fault::Fault, run: TaskRunId) -> crate::fault::Fault {
    match fault {
        crate::fault::Fault::Storage(error) => crate::fault::Fault::Storage(error.in_run(run)),
        other => other,
    }
}

fn log_line(row: &Row<'_>) -> Outcome<StoredLogLine> {
    let cells = Cells {
        row,
        table: "log_lines",
        run_column: None,
    };
    Ok(StoredLogLine {
        cursor: LogCursor(cells.get::<i64>(0)? as u64),
        frame: cells.maybe_uuid(1)?.map(StackRunId::from_uuid),
        time: Timestamp::from_millis(cells.get(2)?),
        line: LogLine {
            level: cells.word::<LogLevel>(3)?,
            message: cells.get(4)?,
            data: cells.json(5)?,
        },
    })
}

#[async_trait]
impl KeyStore for SqliteStorage {
    async fn put_sealed(
        &self,
        namespace: &str,
        key: &str,
        value: SealedValue,
    ) -> Result<(), StorageError> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        self.write(1, move |tx| {
            tx.conn
                .cached(
                    "INSERT INTO keystore (namespace, key, bytes, key_id, updated_at) VALUES (?1, ?2, ?3, ?4, ?5) \
                     ON CONFLICT (namespace, key) DO UPDATE SET bytes = excluded.bytes, key_id = excluded.key_id, updated_at = excluded.updated_at",
                )?
                .execute((
                    &namespace,
                    &key,
                    &value.bytes,
                    &value.key_id,
                    value.updated_at.as_millis(),
                ))?;
            Ok(())
        })
        .await
    }

    async fn replace_sealed(
        &self,
        namespace: &str,
        key: &str,
        expected: &[u8],
        value: SealedValue,
    ) -> Result<bool, StorageError> {
        let (namespace, key, expected) = (namespace.to_owned(), key.to_owned(), expected.to_vec());
        self.write(1, move |tx| {
            let replaced = tx
                .conn
                .cached(
                    "UPDATE keystore SET bytes = ?4, key_id = ?5, updated_at = ?6 WHERE namespace = ?1 AND key = ?2 AND bytes = ?3",
                )?
                .execute((
                    &namespace,
                    &key,
                    &expected,
                    &value.bytes,
                    &value.key_id,
                    value.updated_at.as_millis(),
                ))?;
            Ok(replaced > 0)
        })
        .await
    }

    async fn sealed(
        &self,
        namespace: &str,
        key: &str,
    ) -> Result<Option<SealedValue>, StorageError> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        self.read(move |conn| {
            Ok(conn
                .cached(
                    "SELECT bytes, key_id, updated_at FROM keystore WHERE namespace = ?1 AND key = ?2",
                )?
                .query_row((namespace, key), |row| {
                    Ok(SealedValue {
                        bytes: row.get(0)?,
                        key_id: row.get(1)?,
                        updated_at: Timestamp::from_millis(row.get(2)?),
                    })
                })
                .optional()?)
        })
        .await
    }

    async fn delete_sealed(&self, namespace: &str, key: &str) -> Result<bool, StorageError> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        self.write(1, move |tx| {
            let deleted = tx
                .conn
                .cached("DELETE FROM keystore WHERE namespace = ?1 AND key = ?2")?
                .execute((&namespace, &key))?;
            Ok(deleted > 0)
        })
        .await
    }

    async fn sealed_keys(&self, namespace: &str) -> Result<Vec<String>, StorageError> {
        let namespace = namespace.to_owned();
        self.read(move |conn| {
            let keys = conn
                .cached("SELECT key FROM keystore WHERE namespace = ?1 ORDER BY key")?
                .query_map([namespace], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            Ok(keys)
        })
        .await
    }

    async fn sealed_namespaces(&self) -> Result<Vec<String>, StorageError> {
        self.read(move |conn| {
            let namespaces = conn
                .cached("SELECT DISTINCT namespace FROM keystore ORDER BY namespace")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            Ok(namespaces)
        })
        .await
    }
}
