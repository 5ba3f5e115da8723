//! What the driver and the server report, as [`StorageError`].
//!
//! Invariants: a lost connection is `Unavailable` (the outcome of a write is then unknown, and the same write may be sent
//! again) · messages hold no credentials and no payloads: `DETAIL`, which quotes column values, is left out.

use std::error::Error as _;

use deadpool_postgres::PoolError;
use tasker_adaptor::StorageError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

pub(crate) const BACKEND: &str = "PostgreSQL";

/// The server said that the whole transaction may be tried again: nothing of it was written.
pub(crate) fn is_conflict(error: &StorageError) -> bool {
    let StorageError::Backend {
        source: Some(source),
        ..
    } = error
    else {
        return false;
    };
    source
        .downcast_ref::<Error>()
        .and_then(Error::code)
        .is_some_and(|code| {
            *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED
        })
}

/// A row with this id or key is there already.
pub(crate) fn is_duplicate(error: &StorageError) -> bool {
    let StorageError::Backend {
        source: Some(source),
        ..
    } = error
    else {
        return false;
    };
    source
        .downcast_ref::<Error>()
        .and_then(Error::code)
        .is_some_and(|code| *code == SqlState::UNIQUE_VIOLATION)
}

pub(crate) fn from_driver(error: Error) -> StorageError {
    let Some(database) = error.as_db_error() else {
        return without_code(error);
    };
    let code = database.code();
    let message = format!("{} ({})", database.message(), code.code());
    let class = code.code().get(..2).unwrap_or_default();
    if class == "08"
        || [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        ]
        .contains(code)
    {
        return unavailable(message);
    }
    if *code == SqlState::DISK_FULL {
        return StorageError::Full {
            backend: BACKEND,
            place: "the server's disk".to_owned(),
        };
    }
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return StorageError::ReadOnly {
            backend: BACKEND,
            place: "the server".to_owned(),
        };
    }
    if *code == SqlState::LOCK_NOT_AVAILABLE {
        return StorageError::Busy { backend: BACKEND };
    }
    // 40: rolled back; 53: out of resources; 57014: a statement timeout or a cancel; 55: not in the state for it now.
    let retryable = ["40", "53", "55", "57"].contains(&class);
    StorageError::Backend {
        backend: BACKEND,
        message,
        retryable,
        source: Some(Box::new(error)),
    }
}

/// An error that the server did not send: the connection, TLS, or a value that is not what the statement says.
fn without_code(error: Error) -> StorageError {
    let mut message = error.to_string();
    let mut cause = error.source();
    let mut is_io = error.is_closed();
    while let Some(inner) = cause {
        is_io |= inner.is::<std::io::Error>();
        message = format!("{message}: {inner}");
        cause = inner.source();
    }
    let connecting = [
        "error connecting",
        "error performing TLS",
        "error communicating",
        "connection closed",
        "timeout waiting",
    ];
    if let Some(advice) = advice_on_tls(&message) {
        return StorageError::Backend {
            backend: BACKEND,
            message: format!("{message}; {advice}"),
            retryable: false,
            source: Some(Box::new(error)),
        };
    }
    if is_io || connecting.iter().any(|prefix| message.starts_with(prefix)) {
        return unavailable(message);
    }
    StorageError::Backend {
        backend: BACKEND,
        message,
        retryable: false,
        source: Some(Box::new(error)),
    }
}

/// What to do about a TLS connection that trying again will not mend.
fn advice_on_tls(message: &str) -> Option<&'static str> {
    if message.contains("not valid for name") || message.contains("NotValidForName") {
        Some("connect by a name that the server's certificate is for, or say sslmode=verify-ca")
    } else if message.contains("invalid peer certificate") {
        Some("give the root that signed the server's certificate with sslrootcert=FILE")
    } else if message.contains("server does not support TLS") {
        Some("turn TLS on in the server, or say sslmode=prefer or sslmode=disable")
    } else {
        None
    }
}

pub(crate) fn from_pool(error: PoolError) -> StorageError {
    match error {
        PoolError::Backend(error) => from_driver(error),
        other => unavailable(other.to_string()),
    }
}

pub(crate) fn unavailable(message: impl Into<String>) -> StorageError {
    StorageError::Unavailable {
        backend: BACKEND,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_pool_is_tried_again() {
        assert!(from_pool(PoolError::Closed).is_retryable());
        assert!(!is_conflict(&unavailable("gone")));
    }
}
