//! Rows as types: column text is read once, here. A value that cannot be read names its run, and only that run is affected.

use std::collections::BTreeMap;
use std::str::FromStr;

use tasker_adaptor::{
    BlockedReason, CallSeq, Epoch, Json, Outcome, RunContext, StackRun, StackRunId, StackStatus,
    StorageError, TaskFunction, TaskName, TaskRun, TaskRunId, TaskVersion, Timestamp, TurnNo,
    WorkerId,
};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use crate::text;

/// The columns that [`stack_run`] reads, of a table named `s`.
macro_rules! stack_columns {
    () => {
        "s.id, s.task_run_id, s.parent_id, s.kind, s.seq, s.depth, s.status, s.owner, s.epoch, s.turn, s.made_count, s.delivered_count, s.delivered_order, s.delivered_turn, s.delivered_at, s.attempt, s.in_doubt, s.due_at, s.service, s.path, s.args, s.version, s.outcome, s.blocked_reason, s.created_at, s.started_at, s.settled_at, s.take_overs, s.policy"
    };
}
pub(crate) use stack_columns;

/// How many columns `stack_columns` has.
pub(crate) const STACK_COLUMNS: usize = 29;

/// The columns that [`context`] reads, of a table named `r`, after a row of another.
macro_rules! context_columns {
    () => {
        "r.task, r.version, r.priority, r.correlation_id, r.traceparent, r.deadline, r.labels::text, r.cancel_by, r.ended_at IS NOT NULL"
    };
}
pub(crate) use context_columns;

/// The columns that [`task_run`] reads, of a table named `r`; the record comes from the caller of the macro.
macro_rules! run_columns {
    ($record:literal) => {
        concat!(
            "r.id, r.task, r.version, r.status, r.input, r.outcome, r.blocked_reason, r.idempotency_key, r.priority, r.run_at, r.deadline, r.labels::text, r.correlation_id, r.traceparent, r.created_at, r.started_at, r.ended_at, r.cancel_by, r.folded_at, ",
            $record
        )
    };
}
pub(crate) use run_columns;

/// A column, or what is wrong with it.
pub(crate) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StorageError> {
    row.try_get(column).map_err(|error| {
        let name = row
            .columns()
            .get(column)
            .map_or("?", tokio_postgres::Column::name);
        StorageError::corrupt(format!("column {name}"), error.to_string())
    })
}

fn word<T: FromStr<Err = StorageError>>(row: &Row, column: usize) -> Result<T, StorageError> {
    get::<&str>(row, column)?.parse()
}

fn plain(row: &Row, column: usize) -> Result<String, StorageError> {
    Ok(text::from_column(get(row, column)?))
}

fn plain_opt(row: &Row, column: usize) -> Result<Option<String>, StorageError> {
    Ok(get::<Option<String>>(row, column)?.map(text::from_column))
}

fn json(row: &Row, column: usize, name: &str) -> Result<Json, StorageError> {
    parse_json(get(row, column)?, name)
}

fn json_opt(row: &Row, column: usize, name: &str) -> Result<Option<Json>, StorageError> {
    get::<Option<String>>(row, column)?
        .map(|text| parse_json(text, name))
        .transpose()
}

pub(crate) fn parse_json(text: String, name: &str) -> Result<Json, StorageError> {
    Json::parse(text).map_err(|error| StorageError::corrupt(name, error.to_string()))
}

fn time_opt(row: &Row, column: usize) -> Result<Option<Timestamp>, StorageError> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp::from_millis))
}

fn time(row: &Row, column: usize) -> Result<Timestamp, StorageError> {
    get(row, column).map(Timestamp::from_millis)
}

fn count(row: &Row, column: usize) -> Result<u32, StorageError> {
    get::<i32>(row, column).map(|value| value as u32)
}

fn count_opt(row: &Row, column: usize) -> Result<Option<u32>, StorageError> {
    Ok(get::<Option<i32>>(row, column)?.map(|value| value as u32))
}

fn labels(row: &Row, column: usize) -> Result<BTreeMap<String, String>, StorageError> {
    let stored: BTreeMap<String, String> = serde_json::from_str(get(row, column)?)
        .map_err(|error| StorageError::corrupt("task_runs.labels", error.to_string()))?;
    Ok(stored
        .into_iter()
        .map(|(name, value)| (text::from_column(name), text::from_column(value)))
        .collect())
}

fn blocked(row: &Row, column: usize) -> Result<Option<BlockedReason>, StorageError> {
    get::<Option<&str>>(row, column)?
        .map(|stored| {
            serde_json::from_str(stored)
                .map_err(|error| StorageError::corrupt("blocked_reason", error.to_string()))
        })
        .transpose()
}

/// The outcome column: of a row that is not settled it is how the last attempt failed.
fn outcome(row: &Row, column: usize, status: StackStatus) -> Result<Option<Outcome>, StorageError> {
    let read_as = if status.is_settled() {
        status
    } else {
        StackStatus::Failed
    };
    get::<Option<String>>(row, column)?
        .map(|stored| Outcome::from_column(read_as, stored))
        .transpose()
}

/// Reads the first columns of a row as a stack run.
pub(crate) fn stack_run(row: &Row) -> Result<StackRun, StorageError> {
    let task_run = TaskRunId::from_uuid(get(row, 1)?);
    read_stack_run(row, task_run).map_err(|error| at_row(error, "stack_runs", row).in_run(task_run))
}

fn read_stack_run(row: &Row, task_run: TaskRunId) -> Result<StackRun, StorageError> {
    let status = word(row, 6)?;
    Ok(StackRun {
        id: StackRunId::from_uuid(get(row, 0)?),
        task_run,
        parent: get::<Option<Uuid>>(row, 2)?.map(StackRunId::from_uuid),
        kind: word(row, 3)?,
        seq: CallSeq(count(row, 4)?),
        depth: count(row, 5)?,
        status,
        owner: get::<Option<Uuid>>(row, 7)?.map(WorkerId::from_uuid),
        epoch: Epoch(count(row, 8)?),
        turn: TurnNo(count(row, 9)?),
        made_count: count(row, 10)?,
        delivered_count: count(row, 11)?,
        delivered_order: count_opt(row, 12)?,
        delivered_turn: count_opt(row, 13)?.map(TurnNo),
        delivered_at: time_opt(row, 14)?,
        attempt: count(row, 15)?,
        in_doubt: get(row, 16)?,
        due_at: time_opt(row, 17)?,
        service: plain(row, 18)?,
        path: plain(row, 19)?,
        args: json_opt(row, 20, "args")?,
        version: get::<Option<String>>(row, 21)?.map(TaskVersion::new),
        outcome: outcome(row, 22, status)?,
        blocked: blocked(row, 23)?,
        created_at: time(row, 24)?,
        started_at: time_opt(row, 25)?,
        settled_at: time_opt(row, 26)?,
        take_overs: count(row, 27)?,
        policy: json_opt(row, 28, "policy")?,
    })
}

/// Reads the columns of `context_columns` from this one on.
pub(crate) fn context(row: &Row, first: usize) -> Result<RunContext, StorageError> {
    Ok(RunContext {
        task: TaskName::new(get::<String>(row, first)?),
        version: TaskVersion::new(get::<String>(row, first + 1)?),
        priority: get(row, first + 2)?,
        correlation_id: plain_opt(row, first + 3)?,
        traceparent: plain_opt(row, first + 4)?,
        deadline: time_opt(row, first + 5)?,
        labels: labels(row, first + 6)?,
        cancel_by: time_opt(row, first + 7)?,
        ended: get(row, first + 8)?,
    })
}

/// Reads a row of `run_columns`.
pub(crate) fn task_run(row: &Row) -> Result<TaskRun, StorageError> {
    let id = TaskRunId::from_uuid(get(row, 0)?);
    read_task_run(row, id).map_err(|error| at_row(error, "task_runs", row).in_run(id))
}

fn read_task_run(row: &Row, id: TaskRunId) -> Result<TaskRun, StorageError> {
    let status: tasker_adaptor::RunStatus = word(row, 3)?;
    let settled = if status == tasker_adaptor::RunStatus::Completed {
        StackStatus::Completed
    } else {
        StackStatus::Failed
    };
    Ok(TaskRun {
        id,
        task: TaskName::new(get::<String>(row, 1)?),
        version: TaskVersion::new(get::<String>(row, 2)?),
        status,
        input: json(row, 4, "input")?,
        outcome: outcome(row, 5, settled)?,
        blocked: blocked(row, 6)?,
        idempotency_key: plain_opt(row, 7)?,
        priority: get(row, 8)?,
        run_at: time(row, 9)?,
        deadline: time_opt(row, 10)?,
        labels: labels(row, 11)?,
        correlation_id: plain_opt(row, 12)?,
        traceparent: plain_opt(row, 13)?,
        created_at: time(row, 14)?,
        started_at: time_opt(row, 15)?,
        ended_at: time_opt(row, 16)?,
        cancel_by: time_opt(row, 17)?,
        folded_at: time_opt(row, 18)?,
        record: get(row, 19)?,
    })
}

/// Reads a row of `task_functions` with its columns in the order of the table.
pub(crate) fn task_function(row: &Row) -> Result<TaskFunction, StorageError> {
    read_task_function(row).map_err(|error| at_row(error, "task_functions", row))
}

fn read_task_function(row: &Row) -> Result<TaskFunction, StorageError> {
    Ok(TaskFunction {
        name: TaskName::new(get::<String>(row, 0)?),
        version: TaskVersion::new(get::<String>(row, 1)?),
        source: plain(row, 2)?,
        modules: json_opt(row, 3, "modules")?,
        schema: json(row, 4, "schema")?,
        options: json(row, 5, "options")?,
        created_at: time(row, 6)?,
        published_at: time(row, 7)?,
    })
}

/// Names table and row in a report of damage.
fn at_row(error: StorageError, table: &str, row: &Row) -> StorageError {
    let StorageError::Corrupt {
        what,
        problem,
        task_run,
    } = error
    else {
        return error;
    };
    let key = row
        .try_get::<_, Uuid>(0)
        .map(|id| id.to_string())
        .or_else(|_| row.try_get::<_, String>(0))
        .unwrap_or_default();
    StorageError::Corrupt {
        what: format!("{table} {key}, {what}"),
        problem,
        task_run,
    }
}
