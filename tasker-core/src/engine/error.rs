//! What can go wrong at the engine's doors.

use tasker_adaptor::{BlockedReason, Failure, InvalidJson, StackRunId, StorageError, TaskRunId};

use crate::service::ServicesError;
use crate::task::TaskError;
use crate::wall::WallError;

/// An engine could not do what was asked. Errors of tasks are not here: see [`RunError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No storage was given to the builder.
    #[error(
        "an engine needs storage: call .storage(SqliteStorage::open(path).await?) on the builder"
    )]
    NoStorage,
    /// The services do not fit together.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// The task could not be published.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The source compiles for the parser but not for the VM.
    #[error("{name} was not published: {failure}")]
    DoesNotCompile {
        /// The task.
        name: String,
        /// What QuickJS says, with file, line and column.
        failure: Failure,
    },
    /// No task of that name.
    #[error("task {name:?} is not published{}", similar(.nearest))]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// Names that exist nearby.
        nearest: Vec<String>,
    },
    /// No run of that id.
    #[error(
        "run {id} does not exist: it was never submitted to this database, or retention deleted it"
    )]
    UnknownRun {
        /// What was asked for.
        id: TaskRunId,
    },
    /// No stack run of that id.
    #[error(
        "stack run {id} does not exist: it was never made in this database, or its run has ended and its rows are folded"
    )]
    UnknownStackRun {
        /// What was asked for.
        id: StackRunId,
    },
    /// A stack run cannot be given an answer now.
    #[error("stack run {id} waits for no answer: {problem}; see the trace of its run")]
    NotWaiting {
        /// What was asked for.
        id: StackRunId,
        /// Why.
        problem: String,
    },
    /// The input cannot be written as JSON.
    #[error("the input of {task} was refused: {source}")]
    BadInput {
        /// The task.
        task: String,
        /// Why.
        #[source]
        source: InvalidJson,
    },
    /// The input is too large or too deep.
    #[error("the input of {task} was refused: {problem}")]
    InputTooLarge {
        /// The task.
        task: String,
        /// Which limit, by how much, and its setting.
        problem: String,
    },
    /// No task can wait for a signal of this name.
    #[error(
        "the signal was not sent: {name:?} is no name; names have 1 to 200 characters, none of them a control character"
    )]
    BadSignalName {
        /// The name, or its beginning.
        name: String,
    },
    /// The input does not fit the task's schema (only with `validate_input`).
    #[error("the input of {task} does not fit its schema: {}", .problems.join("; "))]
    InputDoesNotFit {
        /// The task.
        task: String,
        /// Each problem with its path.
        problems: Vec<String>,
    },
    /// A stored thing is not what the engine wrote.
    #[error("{what} cannot be read: {problem}")]
    Damaged {
        /// What.
        what: String,
        /// Why.
        problem: String,
    },
    /// The engine is shut down.
    #[error("the engine is shut down; start a new one on the same storage to go on")]
    ShutDown,
    /// This engine runs nothing by itself, or is not driven by hand.
    #[error("{what}")]
    WrongDrive {
        /// What was asked of which drive.
        what: &'static str,
    },
    /// The homes of the VMs could not be started.
    #[error(transparent)]
    Wall(#[from] WallError),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl EngineError {
    /// Whether the same call may succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_retryable())
    }
}

fn similar(names: &[String]) -> String {
    match names {
        [] => "; publish it first".to_owned(),
        names => format!("; published and similar: {}", names.join(", ")),
    }
}

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The task failed.
    #[error("the run failed: {0}")]
    Failed(Failure),
    /// The run needs a person; nothing is lost. See `Engine::unblock`.
    #[error("the run is blocked: {0}")]
    Blocked(BlockedReason),
    /// The run was cancelled.
    #[error("the run was cancelled")]
    Cancelled,
    /// This engine shut down first. The run goes on elsewhere or later: ask `engine.run(id)` again.
    #[error(
        "this engine shut down before the run ended; the run is kept and goes on when an engine starts"
    )]
    Detached,
    /// The result is there and is no `T`.
    #[error("the result is not of the expected type: {0}")]
    BadResult(#[source] InvalidJson),
    /// The engine could not ask.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
