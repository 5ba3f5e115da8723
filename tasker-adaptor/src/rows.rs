//! The rows that storage gives back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    BlockedReason, CallSeq, Epoch, Json, Outcome, RunStatus, StackKind, StackRunId, StackStatus,
    TaskName, TaskRunId, TaskVersion, Timestamp, TurnNo, WorkerId,
};

/// A published version of a task. Table `task_functions`. Never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFunction {
    /// Name.
    pub name: TaskName,
    /// Hash of source, modules and options.
    pub version: TaskVersion,
    /// Source text of the entry module, as published.
    pub source: String,
    /// The other modules: a JSON object from path to source text. `None` when there is one file.
    pub modules: Option<Json>,
    /// Schema read from its JSDoc (format `json`).
    pub schema: Json,
    /// What the publisher chose: granted services, policies. A JSON object that the engine reads.
    pub options: Json,
    /// When this version was first published.
    pub created_at: Timestamp,
    /// When this version was last published; the newest of a name is its current one.
    pub published_at: Timestamp,
}

/// One execution asked for from outside. Table `task_runs`. Kept until retention deletes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRun {
    /// Id.
    pub id: TaskRunId,
    /// Task.
    pub task: TaskName,
    /// The version it is pinned to.
    pub version: TaskVersion,
    /// Where it is.
    pub status: RunStatus,
    /// Input, exactly as given.
    pub input: Json,
    /// How it ended; `None` before that and for a cancelled run.
    pub outcome: Option<Outcome>,
    /// Why it is blocked, while it is.
    pub blocked: Option<BlockedReason>,
    /// Key that makes a repeated submit find this run.
    pub idempotency_key: Option<String>,
    /// Higher first. Default 0.
    pub priority: i32,
    /// Not claimed before this time.
    pub run_at: Timestamp,
    /// After this time calls fail with `TIMEOUT_ERROR`.
    pub deadline: Option<Timestamp>,
    /// Names and values for people and filters.
    pub labels: BTreeMap<String, String>,
    /// Travels through every service call.
    pub correlation_id: Option<String>,
    /// W3C trace context of the caller.
    pub traceparent: Option<String>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When its first turn was claimed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When a cancel with grace was asked for, and the end of the grace.
    pub cancel_by: Option<Timestamp>,
    /// When the cleaner wrote `record`; its stack runs may be gone from then on.
    pub folded_at: Option<Timestamp>,
    /// What the cleaner kept of the call tree: bytes that the engine wrote and reads.
    pub record: Option<Vec<u8>>,
}

/// One node of the call tree. Table `stack_runs`. Gone some time after the task run ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackRun {
    /// Id.
    pub id: StackRunId,
    /// The task run it belongs to.
    pub task_run: TaskRunId,
    /// The frame that made it; `None` for the root frame.
    pub parent: Option<StackRunId>,
    /// What it is.
    pub kind: StackKind,
    /// Position among its frame's children; 0 for the root frame.
    pub seq: CallSeq,
    /// 0 for the root frame, 1 for a nested task …; a call has its frame's depth.
    pub depth: u32,
    /// Where it is.
    pub status: StackStatus,
    /// The worker that has its VM (frame), or asks or will ask (call).
    pub owner: Option<WorkerId>,
    /// VM incarnation (frame) or attempt fence (call).
    pub epoch: Epoch,
    /// Committed turns (frame).
    pub turn: TurnNo,
    /// Children made (frame).
    pub made_count: u32,
    /// Children delivered (frame).
    pub delivered_count: u32,
    /// Place in the delivery order of its frame, from 1.
    pub delivered_order: Option<u32>,
    /// The turn of its frame that consumed it: the frame's `turn` before that commit.
    pub delivered_turn: Option<TurnNo>,
    /// Time of that turn, which the task saw as now.
    pub delivered_at: Option<Timestamp>,
    /// Frame: take-overs since the last committed turn. Call: attempts begun.
    pub attempt: u32,
    /// Frame: taken over and nothing committed since. Call: its worker died or left after it may have asked.
    pub in_doubt: bool,
    /// Call: workers that died with it in hand, one after the other, since it was last answered. (A frame counts its own in `attempt`.)
    #[serde(default)]
    pub take_overs: u32,
    /// Timer: when it fires. Call: not before (a retry). Frame: not before (`run_at` of the run, root only).
    pub due_at: Option<Timestamp>,
    /// Call: service. Nested frame: `tasks`. Timer: `timer`. Signal: `signal`. Root frame: `task`.
    pub service: String,
    /// Call: dotted method. Frame: task name. Timer: `sleep`, `setTimeout` or `setInterval`. Signal: its name.
    pub path: String,
    /// Call: exact argument text. Nested frame: its input. Timer: the asked milliseconds. Root frame: `None` (the task run has the input).
    pub args: Option<Json>,
    /// Call: what the task asked for with it, as in [`MadeKind::Call`](crate::MadeKind::Call).
    #[serde(default)]
    pub policy: Option<Json>,
    /// Nested frame: the version it is pinned to.
    pub version: Option<TaskVersion>,
    /// How it ended, or (pending call with attempts) how the last attempt failed.
    pub outcome: Option<Outcome>,
    /// Why it is blocked, while it is.
    pub blocked: Option<BlockedReason>,
    /// When it was made: the time of the turn that made it.
    pub created_at: Timestamp,
    /// Frame: time of its first turn. Call: when it was last claimed.
    pub started_at: Option<Timestamp>,
    /// When it settled.
    pub settled_at: Option<Timestamp>,
}
