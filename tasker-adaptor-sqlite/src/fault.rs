//! What goes wrong inside, and how it becomes a [`StorageError`].
//!
//! Messages carry the path of the file and what SQLite says, never a value of a row.

use std::path::Path;

use rusqlite::ErrorCode;
use tasker_adaptor::{CommitRefused, StorageError};

/// The name that errors give this adaptor.
pub(crate) const BACKEND: &str = "SQLite";

/// An error on its way to the border of the crate.
#[derive(Debug)]
pub(crate) enum Fault {
    /// SQLite refused.
    Sql(rusqlite::Error),
    /// The contract, or a damaged row.
    Storage(StorageError),
    /// The contract, seen after something was written: the transaction must not stand.
    Undo(StorageError),
}

/// Inside the crate everything that touches a connection answers this.
pub(crate) type Outcome<T> = Result<T, Fault>;

/// One answer an item, as the contract wants it for batches.
pub(crate) type Refusable<T> = Vec<Result<T, CommitRefused>>;

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl Fault {
    /// Whether the operation was refused before it wrote anything, so that the transaction it shares can go on.
    pub(crate) const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Storage(
                StorageError::NotFound { .. }
                    | StorageError::Misuse { .. }
                    | StorageError::IdempotencyConflict { .. }
                    | StorageError::VersionConflict { .. }
            )
        )
    }

    /// Whether the connection should be opened anew before it is used again: its file may have been replaced,
    /// remounted or made writable since.
    pub(crate) fn spoils_connection(&self) -> bool {
        match self {
            Self::Sql(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::ReadOnly
                        | ErrorCode::DatabaseCorrupt
                        | ErrorCode::NotADatabase
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::CannotOpen
                        | ErrorCode::PermissionDenied
                )
            ),
            Self::Storage(_) | Self::Undo(_) => false,
        }
    }

    /// The error of the contract, naming the file.
    pub(crate) fn into_storage(self, path: &Path) -> StorageError {
        match self {
            Self::Storage(error) | Self::Undo(error) => error,
            Self::Sql(error) => of_sqlite(error, path),
        }
    }
}

fn of_sqlite(error: rusqlite::Error, path: &Path) -> StorageError {
    let place = path.display().to_string();
    let Some(code) = error.sqlite_error_code() else {
        return match error {
            rusqlite::Error::InvalidColumnType(_, column, kind) => StorageError::corrupt(
                format!("column {column} in {place}"),
                format!("holds a value of type {kind}"),
            ),
            other => backend(other, false),
        };
    };
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            StorageError::Busy { backend: BACKEND }
        }
        ErrorCode::DiskFull => StorageError::Full {
            backend: BACKEND,
            place,
        },
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => StorageError::ReadOnly {
            backend: BACKEND,
            place,
        },
        ErrorCode::NotADatabase => StorageError::corrupt(
            format!("the database file {place}"),
            format!("{error}; restore it from a backup, or try sqlite3's .recover"),
        ),
        // A read that the disk refuses (EIO) comes under this name too, and is over when the disk answers again. Nobody goes on
        // with a file that is damaged, so waiting is right for both.
        ErrorCode::DatabaseCorrupt => StorageError::Unavailable {
            backend: BACKEND,
            message: format!(
                "{place} cannot be read: {error}; it is so while its disk fails. If it stays, restore the file from a backup, or try sqlite3's .recover"
            ),
        },
        ErrorCode::CannotOpen => StorageError::Unavailable {
            backend: BACKEND,
            message: format!("{place} cannot be opened: {error}"),
        },
        ErrorCode::SystemIoFailure => StorageError::Unavailable {
            backend: BACKEND,
            message: format!("{place} cannot be read or written: {error}"),
        },
        ErrorCode::OutOfMemory
        | ErrorCode::OperationInterrupted
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::SchemaChanged => backend(error, true),
        _ => backend(error, false),
    }
}

fn backend(error: rusqlite::Error, retryable: bool) -> StorageError {
    StorageError::Backend {
        backend: BACKEND,
        message: error.to_string(),
        retryable,
        source: Some(Box::new(error)),
    }
}

/// The storage was closed while the call waited.
pub(crate) fn closed() -> StorageError {
    StorageError::Unavailable {
        backend: BACKEND,
        message: "the storage was closed".to_owned(),
    }
}
