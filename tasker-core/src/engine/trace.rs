//! The call tree of a run: read from its rows while they are there, from the folded record after.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use tasker_adaptor::{
    Failure, Json, Outcome, RunStatus, StackKind, StackRun, StackRunId, StackStatus, TaskName,
    TaskRun, TaskRunId, Timestamp,
};

use super::core::Shared;
use super::error::EngineError;

/// Format of the folded record; raised when it changes, and never used again.
const RECORD: u8 = 1;
/// No record is unpacked beyond this.
const RECORD_BYTES: usize = 1 << 30;

/// The call tree of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// The run.
    pub run: TaskRunId,
    /// Its task.
    pub task: TaskName,
    /// Where it is.
    pub status: RunStatus,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The root frame; `None` when neither rows nor record are there.
    pub root: Option<TraceNode>,
}

/// A node of the call tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceNode {
    /// The stack run.
    pub id: StackRunId,
    /// Frame, call, timer or signal.
    pub kind: StackKind,
    /// Service (`task` for the root, `tasks` for nested tasks).
    pub service: String,
    /// Method, task name, kind of timer or signal name.
    pub path: String,
    /// Where it is.
    pub status: StackStatus,
    /// Attempts of a call.
    pub attempts: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its work began, as far as that was written.
    pub started_at: Option<Timestamp>,
    /// When it settled.
    pub settled_at: Option<Timestamp>,
    /// Bytes of arguments.
    pub args_bytes: u64,
    /// Bytes of the result.
    pub result_bytes: u64,
    /// Arguments: while the rows are there, and in records of failed and cancelled runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Json>,
    /// Result: as the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
    /// How it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What it made, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<TraceNode>,
}

/// Reads the trace of a run.
pub(crate) async fn read(shared: &Shared, run: &TaskRun) -> Result<Trace, EngineError> {
    let mut root = tree(&shared.storage.stack_runs(run.id).await?, true);
    if root.is_none() {
        // The rows are gone, perhaps since `run` was read: then the record is in the row as it is now.
        let record = match &run.record {
            Some(record) => Some(record.clone()),
            None => shared.storage.run(run.id).await?.and_then(|run| run.record),
        };
        root = record.map(|record| unpack(&record)).transpose()?;
    }
    if let Some(root) = &mut root {
        root.path = run.task.to_string();
    }
    Ok(Trace {
        run: run.id,
        task: run.task.clone(),
        status: run.status,
        created_at: run.created_at,
        ended_at: run.ended_at,
        root,
    })
}

/// The tree of these rows; `None` when there is no root.
pub(crate) fn tree(rows: &[StackRun], payloads: bool) -> Option<TraceNode> {
    let mut children: HashMap<Option<StackRunId>, Vec<&StackRun>> = HashMap::new();
    for row in rows {
        children.entry(row.parent).or_default().push(row);
    }
    for rows in children.values_mut() {
        rows.sort_by_key(|row| row.seq);
    }
    let root = children.get(&None)?.first()?;
    Some(node(root, &children, payloads))
}

fn node(
    row: &StackRun,
    children: &HashMap<Option<StackRunId>, Vec<&StackRun>>,
    payloads: bool,
) -> TraceNode {
    let (result, failure) = match &row.outcome {
        Some(Outcome::Completed(value)) => (value.clone(), None),
        Some(Outcome::Failed(failure)) => (None, Some(failure.clone())),
        None => (None, None),
    };
    TraceNode {
        id: row.id,
        kind: row.kind,
        service: row.service.clone(),
        path: row.path.clone(),
        status: row.status,
        attempts: if row.kind == StackKind::Call {
            row.attempt
        } else {
            0
        },
        created_at: row.created_at,
        started_at: row.started_at,
        settled_at: row.settled_at,
        args_bytes: row.args.as_ref().map_or(0, |json| json.text().len() as u64),
        result_bytes: result.as_ref().map_or(0, |json| json.text().len() as u64),
        args: row.args.clone().filter(|_| payloads),
        result: result.filter(|_| payloads),
        failure,
        // The depth of the tree is bounded by the limit on nested tasks.
        children: children
            .get(&Some(row.id))
            .map(|rows| {
                rows.iter()
                    .map(|row| node(row, children, payloads))
                    .collect()
            })
            .unwrap_or_default(),
    }
}

/// The folded record of a run.
pub(crate) fn pack(root: &TraceNode) -> Result<Vec<u8>, EngineError> {
    let damaged = |problem: String| EngineError::Damaged {
        what: "a call tree".to_owned(),
        problem,
    };
    let text = serde_json::to_vec(root).map_err(|error| damaged(error.to_string()))?;
    let mut record = vec![RECORD];
    record.extend(zstd::bulk::compress(&text, 1).map_err(|error| damaged(error.to_string()))?);
    Ok(record)
}

fn unpack(record: &[u8]) -> Result<TraceNode, EngineError> {
    let damaged = |problem: String| EngineError::Damaged {
        what: "the record of a run".to_owned(),
        problem,
    };
    match record.split_first() {
        Some((&RECORD, packed)) => {
            let text =
                zstd::stream::decode_all(packed).map_err(|error| damaged(error.to_string()))?;
            if text.len() > RECORD_BYTES {
                return Err(damaged(format!(
                    "it unpacks to more than {RECORD_BYTES} bytes"
                )));
            }
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))
        }
        Some((version, _)) => Err(damaged(format!(
            "it has format {version}, this build knows {RECORD}: use a newer build"
        ))),
        None => Err(damaged("it is empty".to_owned())),
    }
}

impl fmt::Display for Trace {
    /// The tree, one line a node: name, status, how long after the start of the run it was made, how long it took.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} {} ({})",
            self.task,
            self.status,
            took(self.created_at, self.ended_at)
        )?;
        match &self.root {
            Some(root) => self.lines(f, &root.children, ""),
            None => Ok(()),
        }
    }
}

impl Trace {
    /// The depth of the tree is bounded by the limit on nested tasks.
    fn lines(&self, f: &mut fmt::Formatter<'_>, nodes: &[TraceNode], indent: &str) -> fmt::Result {
        for (index, node) in nodes.iter().enumerate() {
            let last = index + 1 == nodes.len();
            let name = match node.kind {
                StackKind::Frame => format!("task {}", node.path),
                StackKind::Call => format!("{}.{}", node.service, node.path),
                StackKind::Timer => format!("{} timer", node.path),
                StackKind::Signal => format!("signal {}", node.path),
            };
            let attempts = if node.attempts > 1 {
                format!(", {} attempts", node.attempts)
            } else {
                String::new()
            };
            let failure = node
                .failure
                .as_ref()
                .map(|failure| format!(": {failure}"))
                .unwrap_or_default();
            writeln!(
                f,
                "{indent}{}{name} {}  +{} ms, {}{attempts}{failure}",
                if last { "└─ " } else { "├─ " },
                node.status,
                node.created_at.millis_since(self.created_at),
                took(node.created_at, node.settled_at),
            )?;
            let indent = format!("{indent}{}", if last { "   " } else { "│  " });
            self.lines(f, &node.children, &indent)?;
        }
        Ok(())
    }
}

fn took(from: Timestamp, to: Option<Timestamp>) -> String {
    match to {
        Some(to) => format!("{} ms", to.millis_since(from)),
        None => "open".to_owned(),
    }
}
