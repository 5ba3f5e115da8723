//! What can go wrong on the command line, and the exit code that says so.

use std::path::PathBuf;

use tasker_core::service::{ServiceError, ServicesError};
use tasker_core::wall::WallError;
use tasker_core::{
    BlockedReason, EngineError, Failure, RunError, StorageError, TaskError, TaskRunId,
};

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The command line, or what it names, is wrong.
    #[error("{0}")]
    Usage(String),
    /// What was named is not there.
    #[error("{0}")]
    NotThere(String),
    /// A setting is wrong.
    #[error("{0}")]
    Setting(String),
    /// A file or stream.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it did not work.
        #[source]
        source: std::io::Error,
    },
    /// A file that should be there is not, or is where it should not be.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The database, while it is used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The database, when it is opened.
    #[error("the database {database} could not be opened: {}; {}", of_storage(.source), advice(.database, .source))]
    Database {
        /// Which, without its password.
        database: String,
        /// Why.
        #[source]
        source: StorageError,
    },
    /// The wall could not be put up.
    #[error(
        "{0}\n  for code that you would review: --wall in-process (or TASKER_WALL=in-process), which does without child processes"
    )]
    Wall(#[source] WallError),
    /// A task that cannot be published.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A service.
    #[error("{}: {}", .0.code(), .0.message)]
    Service(ServiceError),
    /// The services do not fit together.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// The database breaks its own rules.
    #[error(
        "the database breaks {0} of its rules; they are listed above. Keep a copy of it and report this"
    )]
    Audit(usize),
    /// The run failed.
    #[error("run {id} failed: {failure}\n  see: tasker trace {id}")]
    RunFailed {
        /// The run.
        id: TaskRunId,
        /// How.
        failure: Failure,
    },
    /// The run is blocked.
    #[error(
        "run {id} is blocked: {reason}\n  decide: tasker unblock {id} retry|fail|supply JSON|cancel"
    )]
    RunBlocked {
        /// The run.
        id: TaskRunId,
        /// Why.
        reason: BlockedReason,
    },
    /// The run was cancelled.
    #[error("run {id} was cancelled")]
    RunCancelled {
        /// The run.
        id: TaskRunId,
    },
    /// Ctrl-C, or SIGTERM.
    #[error(
        "detached; run {id} is kept and goes on wherever an engine works\n  come back: tasker status {id} --poll\n  log:       tasker logs {id} --follow\n  end it:    tasker cancel {id}"
    )]
    Detached {
        /// The run.
        id: TaskRunId,
    },
}

/// What stood in the way, without a promise to try again: a command does not.
fn of_storage(error: &StorageError) -> String {
    match error {
        StorageError::Unavailable { message, .. } => message.clone(),
        // Only the address can be wrong before anything was asked.
        StorageError::Misuse { what } => what.clone(),
        error => error.to_string(),
    }
}

fn advice(database: &str, error: &StorageError) -> &'static str {
    match error {
        StorageError::Unavailable { .. } if database.starts_with("sqlite:") => {
            "is its folder there, and may this user write to it? Name another file with --database or DATABASE_URL"
        }
        StorageError::Unavailable { .. } => {
            "is the server started, and are host, port, user and password right? Name another with --database or DATABASE_URL; `tasker config` says where this one comes from"
        }
        _ => {
            "name another with --database or DATABASE_URL; `tasker config` says where this one comes from"
        }
    }
}

impl CliError {
    /// The exit code of the process.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Setting(_)
            | Self::Engine(
                EngineError::BadInput { .. }
                | EngineError::InputDoesNotFit { .. }
                | EngineError::InputTooLarge { .. }
                | EngineError::BadSignalName { .. },
            )
            | Self::Database {
                source: StorageError::Misuse { .. },
                ..
            } => 2,
            Self::RunFailed { .. } => 3,
            Self::RunBlocked { .. } => 4,
            Self::RunCancelled { .. } => 5,
            Self::NotThere(_)
            | Self::Engine(EngineError::UnknownTask { .. } | EngineError::UnknownRun { .. }) => 6,
            Self::Detached { .. } => 130,
            _ => 1,
        }
    }

    /// How a run ended, as the error of a command that waited for it.
    pub fn of_run(id: TaskRunId, error: RunError) -> Self {
        match error {
            RunError::Failed(failure) => Self::RunFailed { id, failure },
            RunError::Blocked(reason) => Self::RunBlocked { id, reason },
            RunError::Cancelled => Self::RunCancelled { id },
            RunError::Engine(error) => Self::Engine(error),
            _ => Self::Detached { id },
        }
    }

    /// With what was tried, for a file or stream.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl From<ServiceError> for CliError {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}
