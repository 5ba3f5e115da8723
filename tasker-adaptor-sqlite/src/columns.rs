//! Columns to types and back. A value that cannot be read is a `Corrupt` that names table, column, row and run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

use rusqlite::Row;
use rusqlite::types::{FromSql, ToSql, ToSqlOutput, ValueRef};
use tasker_adaptor::{
    BlockedReason, CallSeq, Epoch, Json, Outcome as Ending, RunStatus, StackKind, StackRun,
    StackRunId, StackStatus, StorageError, TaskName, TaskRun, TaskRunId, TaskVersion, Timestamp,
    TurnNo, WorkerId,
};
use uuid::Uuid;

use crate::fault::Outcome;

/// An id as the text of its column, made without an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key([u8; 36]);

impl Key {
    pub(crate) fn of(uuid: Uuid) -> Self {
        let mut text = [0; 36];
        uuid.as_hyphenated().encode_lower(&mut text);
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        // Made of hyphenated hex, or of a TEXT column that was read as UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl ToSql for Key {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

/// Ids that have a column.
pub(crate) trait HasKey {
    fn key(&self) -> Key;
}

impl HasKey for TaskRunId {
    fn key(&self) -> Key {
        Key::of(self.as_uuid())
    }
}

impl HasKey for StackRunId {
    fn key(&self) -> Key {
        Key::of(self.as_uuid())
    }
}

impl HasKey for WorkerId {
    fn key(&self) -> Key {
        Key::of(self.as_uuid())
    }
}

/// The columns of [`stack_run`], in its order, of a table that is called `s`; `parent` gives the id of the row's frame.
pub(crate) fn stack_run_columns(parent: &str) -> String {
    format!("s.id, s.task_run_id, {parent} AS parent_id, {STACK_RUN}")
}

/// The id of the frame that made a row, where the query does not have it already. Of a row whose frame is gone: no id.
pub(crate) const PARENT: &str = "CASE WHEN s.parent_no IS NOT NULL THEN COALESCE((SELECT p.id FROM stack_runs p WHERE p.no = s.parent_no), '') END";

const STACK_RUN: &str = "s.kind, s.seq, s.depth, s.status, CASE WHEN s.owner IS NOT NULL THEN (SELECT w.id FROM workers w WHERE w.no = s.owner) END AS owner, s.epoch, CASE s.kind WHEN 'frame' THEN (SELECT k.turn FROM frame_counters k WHERE k.no = s.no) ELSE 0 END AS turn, CASE s.kind WHEN 'frame' THEN (SELECT k.made_count FROM frame_counters k WHERE k.no = s.no) ELSE 0 END AS made_count, CASE s.kind WHEN 'frame' THEN (SELECT k.delivered_count FROM frame_counters k WHERE k.no = s.no) ELSE 0 END AS delivered_count, s.delivered_order, s.delivered_turn, s.delivered_at, s.attempt, s.in_doubt, s.due_at, s.service, s.path, s.args, s.version, s.outcome, s.blocked_reason, s.created_at, s.started_at, s.settled_at, s.take_overs, s.policy";

/// The turns of a row of `stack_runs`, of which calls have none.
macro_rules! turns {
    () => {
        "COALESCE((SELECT k.turn FROM frame_counters k WHERE k.no = stack_runs.no), 0)"
    };
}
pub(crate) use turns;

/// How many columns [`stack_run_columns`] gives.
pub(crate) const STACK_RUN_WIDTH: usize = 29;

/// The columns of [`task_run`], in its order, of a table that is called `r`. `record` is read by the caller.
pub(crate) const TASK_RUN: &str = "r.id, r.task, r.version, r.status, r.input, r.outcome, r.blocked_reason, r.idempotency_key, r.priority, r.run_at, r.deadline, r.labels, r.correlation_id, r.traceparent, r.created_at, r.started_at, r.ended_at, r.cancel_by, r.folded_at";

/// Reads one row of [`stack_run_columns`].
pub(crate) fn stack_run(row: &Row<'_>) -> Outcome<StackRun> {
    let cells = Cells {
        row,
        table: "stack_runs",
        run_column: Some(1),
    };
    let status: StackStatus = cells.word(6)?;
    let outcome = match cells.maybe::<String>(22)? {
        Some(text) => Some(cells.outcome(22, status, text)?),
        None => None,
    };
    Ok(StackRun {
        id: StackRunId::from_uuid(cells.uuid(0)?),
        task_run: TaskRunId::from_uuid(cells.uuid(1)?),
        parent: cells.maybe_uuid(2)?.map(StackRunId::from_uuid),
        kind: cells.word::<StackKind>(3)?,
        seq: CallSeq(cells.get(4)?),
        depth: cells.get(5)?,
        status,
        owner: cells.maybe_uuid(7)?.map(WorkerId::from_uuid),
        epoch: Epoch(cells.get(8)?),
        turn: TurnNo(cells.get(9)?),
        made_count: cells.get(10)?,
        delivered_count: cells.get(11)?,
        delivered_order: cells.maybe(12)?,
        delivered_turn: cells.maybe(13)?.map(TurnNo),
        delivered_at: cells.time(14)?,
        attempt: cells.get(15)?,
        in_doubt: cells.get(16)?,
        due_at: cells.time(17)?,
        service: cells.get(18)?,
        path: cells.get(19)?,
        args: cells.json(20)?,
        version: cells.maybe::<String>(21)?.map(TaskVersion::new),
        outcome,
        blocked: cells.blocked(23)?,
        created_at: Timestamp::from_millis(cells.get(24)?),
        started_at: cells.time(25)?,
        settled_at: cells.time(26)?,
        take_overs: cells.get(27)?,
        policy: cells.json(28)?,
    })
}

/// Reads one row of [`TASK_RUN`], without `record`.
pub(crate) fn task_run(row: &Row<'_>) -> Outcome<TaskRun> {
    let cells = Cells {
        row,
        table: "task_runs",
        run_column: Some(0),
    };
    let status: RunStatus = cells.word(3)?;
    let outcome = match (status, cells.maybe::<String>(5)?) {
        (RunStatus::Completed, Some(text)) => {
            Some(cells.outcome(5, StackStatus::Completed, text)?)
        }
        (RunStatus::Failed, Some(text)) => Some(cells.outcome(5, StackStatus::Failed, text)?),
        _ => None,
    };
    Ok(TaskRun {
        id: TaskRunId::from_uuid(cells.uuid(0)?),
        task: TaskName::new(cells.get::<String>(1)?),
        version: TaskVersion::new(cells.get::<String>(2)?),
        status,
        input: cells.required_json(4)?,
        outcome,
        blocked: cells.blocked(6)?,
        idempotency_key: cells.maybe(7)?,
        priority: cells.get(8)?,
        run_at: Timestamp::from_millis(cells.get(9)?),
        deadline: cells.time(10)?,
        labels: cells.labels(11)?,
        correlation_id: cells.maybe(12)?,
        traceparent: cells.maybe(13)?,
        created_at: Timestamp::from_millis(cells.get(14)?),
        started_at: cells.time(15)?,
        ended_at: cells.time(16)?,
        cancel_by: cells.time(17)?,
        folded_at: cells.time(18)?,
        record: None,
    })
}

/// The status word and the text of an ending, without a copy where there is a text already.
pub(crate) fn ending_columns(ending: &Ending) -> (&'static str, Cow<'_, str>) {
    match ending {
        Ending::Completed(Some(json)) => (StackStatus::Completed.as_str(), json.text().into()),
        Ending::Completed(None) => (StackStatus::Completed.as_str(), "".into()),
        Ending::Failed(_) => (StackStatus::Failed.as_str(), ending.to_column().into()),
    }
}

/// The text of a reason.
pub(crate) fn blocked_column(reason: &BlockedReason) -> String {
    serde_json::to_string(reason).unwrap_or_default()
}

/// The text of labels; `None` when there are none.
pub(crate) fn labels_column(labels: &BTreeMap<String, String>) -> Option<String> {
    if labels.is_empty() {
        return None;
    }
    serde_json::to_string(labels).ok()
}

/// One row and what to say when a cell of it is damaged.
pub(crate) struct Cells<'r, 's> {
    pub(crate) row: &'r Row<'s>,
    pub(crate) table: &'static str,
    /// The column that holds the id of the task run.
    pub(crate) run_column: Option<usize>,
}

impl Cells<'_, '_> {
    pub(crate) fn get<T: FromSql>(&self, column: usize) -> Outcome<T> {
        match self.row.get(column) {
            Ok(value) => Ok(value),
            Err(error) => Err(self.damaged(column, &error).into()),
        }
    }

    pub(crate) fn maybe<T: FromSql>(&self, column: usize) -> Outcome<Option<T>> {
        self.get(column)
    }

    pub(crate) fn time(&self, column: usize) -> Outcome<Option<Timestamp>> {
        Ok(self.maybe(column)?.map(Timestamp::from_millis))
    }

    pub(crate) fn word<T: FromStr<Err = StorageError>>(&self, column: usize) -> Outcome<T> {
        self.text(column)?
            .parse()
            .map_err(|error| self.damaged(column, &error).into())
    }

    pub(crate) fn uuid(&self, column: usize) -> Outcome<Uuid> {
        Uuid::parse_str(self.text(column)?).map_err(|error| self.damaged(column, &error).into())
    }

    pub(crate) fn maybe_uuid(&self, column: usize) -> Outcome<Option<Uuid>> {
        if matches!(self.row.get_ref(column), Ok(ValueRef::Null)) {
            return Ok(None);
        }
        self.uuid(column).map(Some)
    }

    pub(crate) fn json(&self, column: usize) -> Outcome<Option<Json>> {
        match self.maybe::<String>(column)? {
            None => Ok(None),
            Some(text) => Json::parse(text)
                .map(Some)
                .map_err(|error| self.damaged(column, &error).into()),
        }
    }

    pub(crate) fn required_json(&self, column: usize) -> Outcome<Json> {
        match self.json(column)? {
            Some(json) => Ok(json),
            None => Err(self.damaged(column, &"is NULL").into()),
        }
    }

    pub(crate) fn blocked(&self, column: usize) -> Outcome<Option<BlockedReason>> {
        match self.maybe::<String>(column)? {
            None => Ok(None),
            Some(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| self.damaged(column, &error).into()),
        }
    }

    pub(crate) fn labels(&self, column: usize) -> Outcome<BTreeMap<String, String>> {
        match self.maybe::<String>(column)? {
            None => Ok(BTreeMap::new()),
            Some(text) => {
                serde_json::from_str(&text).map_err(|error| self.damaged(column, &error).into())
            }
        }
    }

    fn outcome(&self, column: usize, status: StackStatus, text: String) -> Outcome<Ending> {
        // Before a row is settled the column holds how the last attempt failed.
        let read_as = if status == StackStatus::Completed {
            StackStatus::Completed
        } else {
            StackStatus::Failed
        };
        Ending::from_column(read_as, text).map_err(|error| {
            let problem = match error {
                StorageError::Corrupt { problem, .. } => problem,
                other => other.to_string(),
            };
            self.damaged(column, &problem).into()
        })
    }

    fn text(&self, column: usize) -> Outcome<&str> {
        match self.row.get_ref(column) {
            Ok(value) => value
                .as_str()
                .map_err(|error| self.damaged(column, &error).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Names the cell; the value itself is never shown.
    pub(crate) fn damaged(&self, column: usize, problem: &dyn std::fmt::Display) -> StorageError {
        let name = self
            .row
            .as_ref()
            .column_name(column)
            .map_or_else(|_| format!("column {column}"), str::to_owned);
        let id = self.row.get::<_, String>(0).unwrap_or_default();
        let error = StorageError::corrupt(
            format!("{}.{name} of row {id}", self.table),
            problem.to_string(),
        );
        let run = self
            .run_column
            .and_then(|column| self.row.get::<_, String>(column).ok())
            .and_then(|text| text.parse().ok());
        match run {
            Some(run) => error.in_run(run),
            None => error,
        }
    }
}
