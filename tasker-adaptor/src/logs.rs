//! Log lines of runs.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Json, StackRunId, StorageError, TaskRunId, Timestamp};

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// `console.debug`
    Debug,
    /// `console.log`, `console.info`
    Info,
    /// `console.warn`
    Warn,
    /// `console.error`
    Error,
}

impl LogLevel {
    /// The word in columns and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl std::str::FromStr for LogLevel {
    type Err = StorageError;

    fn from_str(word: &str) -> Result<Self, StorageError> {
        match word {
            "debug" => Ok(Self::Debug),
            "info" | "log" => Ok(Self::Info),
            "warn" | "warning" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            other => Err(StorageError::corrupt(
                "log level",
                format!("unknown word {other:?}"),
            )),
        }
    }
}

/// A line that a task wrote, committed with its turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Level.
    pub level: LogLevel,
    /// Text.
    pub message: String,
    /// Data given beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
}

/// A place between two log lines of one run. Start with `LogCursor::default()`.
/// A line committed later never lies at or before a cursor already given out.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LogCursor(pub u64);

/// A line as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLogLine {
    /// Its place.
    pub cursor: LogCursor,
    /// The frame that wrote it; `None`: the engine or an operator.
    pub frame: Option<StackRunId>,
    /// Time of the turn.
    pub time: Timestamp,
    /// The line.
    pub line: LogLine,
}

/// Some lines in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// The lines.
    pub lines: Vec<StoredLogLine>,
    /// Read on from here.
    pub next: LogCursor,
}

/// Log lines. Those of turns come with the commit; these are for the rest.
#[async_trait]
pub trait Logs: Send + Sync + 'static {
    /// Does: appends lines of the engine to a run.
    /// Errors: `NotFound`. Tested by: `logs_read_in_order`.
    async fn append_logs(
        &self,
        run: TaskRunId,
        frame: Option<StackRunId>,
        lines: Vec<LogLine>,
        now: Timestamp,
    ) -> Result<(), StorageError>;

    /// Does: lines of a run after the cursor, in order, at most `max`.
    /// Atomicity: one read. Tested by: `logs_read_in_order`.
    async fn logs(
        &self,
        run: TaskRunId,
        after: LogCursor,
        max: usize,
    ) -> Result<LogPage, StorageError>;
}
