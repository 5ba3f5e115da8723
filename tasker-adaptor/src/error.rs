//! What can go wrong in storage.

use crate::{TaskRunId, TaskVersion};

/// Why a storage call did not happen, or (for writes) why nobody knows whether it did.
///
/// Expected outcomes are not here: a refused turn is a [`crate::CommitRefused`], an empty queue an empty list.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another process holds the database longer than the busy timeout.
    #[error(
        "{backend} is busy: another process held it for longer than the busy timeout; it is tried again by itself"
    )]
    Busy {
        /// The adaptor.
        backend: &'static str,
    },
    /// No space is left.
    #[error(
        "{backend} has no space left: free some on {place}; nothing is lost, and writing goes on by itself"
    )]
    Full {
        /// The adaptor.
        backend: &'static str,
        /// File or host.
        place: String,
    },
    /// The database takes no writes.
    #[error(
        "{backend} is read-only: {place} cannot be written; check permissions, the mount, or whether this is a replica"
    )]
    ReadOnly {
        /// The adaptor.
        backend: &'static str,
        /// File or host.
        place: String,
    },
    /// The connection is gone, or could not be made.
    #[error("{backend} cannot be reached: {message}; it is tried again by itself")]
    Unavailable {
        /// The adaptor.
        backend: &'static str,
        /// What the driver says, without credentials.
        message: String,
    },
    /// The database was written by a newer version of the adaptor.
    #[error(
        "the database has schema {found}, this build knows schema {known}: use a newer build of the adaptor; nothing was changed"
    )]
    NewerSchema {
        /// What is there.
        found: u32,
        /// The newest that this build knows.
        known: u32,
    },
    /// The database needs migrations and the adaptor was told to make none.
    #[error(
        "the database has schema {found}, schema {needed} is needed, and migrations are turned off: apply {missing}"
    )]
    MigrationNeeded {
        /// What is there; 0 for an empty database.
        found: u32,
        /// What is needed.
        needed: u32,
        /// The migrations that are missing, by name.
        missing: String,
    },
    /// A row cannot be read.
    #[error("a stored value is damaged: {what}: {problem}")]
    Corrupt {
        /// Table, column and row, as far as known.
        what: String,
        /// What is wrong with it.
        problem: String,
        /// The run it belongs to, when known: only that run is affected.
        task_run: Option<TaskRunId>,
    },
    /// The same idempotency key or run id came with another request.
    #[error(
        "run {existing} was submitted with the same key or id and another request: use a new key, or send the same request"
    )]
    IdempotencyConflict {
        /// The run that has it.
        existing: TaskRunId,
    },
    /// A task, run or version that does not exist.
    #[error("{what} does not exist")]
    NotFound {
        /// Kind and name.
        what: String,
    },
    /// The same version of a task was published with other content: two sources with one hash.
    #[error("version {version} exists with other content")]
    VersionConflict {
        /// The version.
        version: TaskVersion,
    },
    /// The call breaks the contract; the caller has a bug.
    #[error("the storage contract was broken: {what}")]
    Misuse {
        /// Which rule, and how.
        what: String,
    },
    /// This adaptor does not have that concern.
    #[error(
        "this storage adaptor does not support {what}: use a newer version of it, or another adaptor"
    )]
    Unsupported {
        /// The concern.
        what: &'static str,
    },
    /// Anything else that the driver reports.
    #[error("{backend} failed: {message}")]
    Backend {
        /// The adaptor.
        backend: &'static str,
        /// What the driver says, without credentials.
        message: String,
        /// Whether the same call may succeed later.
        retryable: bool,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl StorageError {
    /// Whether the same call may succeed later without anybody changing the request.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Busy { .. }
            | Self::Full { .. }
            | Self::ReadOnly { .. }
            | Self::Unavailable { .. } => true,
            Self::Backend { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// A damaged value of a run that is not known here.
    pub fn corrupt(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Corrupt {
            what: what.into(),
            problem: problem.into(),
            task_run: None,
        }
    }

    /// The same error, naming the run that the damaged row belongs to.
    #[must_use]
    pub fn in_run(self, run: TaskRunId) -> Self {
        match self {
            Self::Corrupt { what, problem, .. } => Self::Corrupt {
                what,
                problem,
                task_run: Some(run),
            },
            other => other,
        }
    }
}
