//! Runs as JSON for people and programs: the same on the command line and over HTTP.

use std::collections::BTreeMap;

use serde::Serialize;
use tasker_core::adaptor::{StoredLogLine, TaskFunction};
use tasker_core::{
    BlockedReason, Failure, Json, Outcome, RunStatus, Schema, TaskRun, TaskRunId, Timestamp,
};

/// A run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunView {
    pub(crate) task_run_id: TaskRunId,
    pub(crate) task: String,
    pub(crate) version: String,
    pub(crate) status: RunStatus,
    pub(crate) input: Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) blocked: Option<BlockedView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idempotency_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) correlation_id: Option<String>,
    pub(crate) priority: i32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) created_at: String,
    pub(crate) started_at: Option<String>,
    pub(crate) ended_at: Option<String>,
}

/// Why a run is blocked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BlockedView {
    pub(crate) message: String,
    #[serde(flatten)]
    pub(crate) reason: BlockedReason,
}

impl RunView {
    /// The view of a row.
    pub(crate) fn of(run: TaskRun) -> Self {
        let (result, failure) = match run.outcome {
            Some(Outcome::Completed(value)) => (Some(value.unwrap_or_default()), None),
            Some(Outcome::Failed(failure)) => (None, Some(failure)),
            None => (None, None),
        };
        let time = |time: Timestamp| time.to_string();
        Self {
            task_run_id: run.id,
            task: run.task.to_string(),
            version: run.version.to_string(),
            status: run.status,
            input: run.input,
            result,
            failure,
            blocked: run.blocked.map(|reason| BlockedView {
                message: reason.to_string(),
                reason,
            }),
            idempotency_key: run.idempotency_key,
            correlation_id: run.correlation_id,
            priority: run.priority,
            labels: run.labels,
            created_at: time(run.created_at),
            started_at: run.started_at.map(time),
            ended_at: run.ended_at.map(time),
        }
    }
}

/// A log line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LogView {
    pub(crate) cursor: u64,
    pub(crate) time: String,
    pub(crate) level: &'static str,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<Json>,
    #[serde(rename = "stackRunId", skip_serializing_if = "Option::is_none")]
    pub(crate) frame: Option<String>,
}

impl LogView {
    /// The view of a stored line.
    pub(crate) fn of(stored: StoredLogLine) -> Self {
        Self {
            cursor: stored.cursor.0,
            time: stored.time.to_string(),
            level: stored.line.level.as_str(),
            message: stored.line.message,
            data: stored.line.data,
            frame: stored.frame.map(|frame| frame.to_string()),
        }
    }
}

/// A published task.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaskView {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) version: String,
    pub(crate) published_at: String,
}

impl TaskView {
    /// The view of a row.
    pub(crate) fn of(task: &TaskFunction) -> Self {
        Self {
            name: task.name.to_string(),
            description: Schema::from_json(&task.schema).description,
            version: task.version.to_string(),
            published_at: task.published_at.to_string(),
        }
    }
}
