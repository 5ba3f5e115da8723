//! How a stack run ends, as data: stored, shown, never mixed with our own errors.

use serde::{Deserialize, Serialize};

use crate::{CallSeq, Json, StackStatus};

/// An error of a task or of a service, as the task saw it or threw it.
///
/// Stored as JSON; members that are absent are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `Error.name`: `TypeError`, `ServiceError`, `LimitExceeded`, `CancelledError` …
    pub name: String,
    /// What happened, for people.
    pub message: String,
    /// One of the ten service error types (`NOT_FOUND_ERROR` …), when a service failed.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A code for programs: the service's own, or the name of the limit that was passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// HTTP status, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// More, as the service gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
    /// How long the service asked to wait before the next attempt, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Lines of the task's own files, innermost first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// `Error.cause`, when it was an error too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Box<Failure>>,
}

impl Failure {
    /// A failure with a name and a message only.
    pub fn new(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            message: message.into(),
            ..Self::default()
        }
    }

    /// The failure that a task sees at its pending awaits when its run is being cancelled.
    pub fn cancelled() -> Self {
        Self::new("CancelledError", "the run was cancelled")
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.message)
    }
}

/// How a stack run or a task run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// With a value. `None` is JavaScript's `undefined` (a timer, a function without `return`).
    Completed(Option<Json>),
    /// With an error.
    Failed(Failure),
}

impl Outcome {
    /// The status word that goes with it.
    pub const fn status(&self) -> StackStatus {
        match self {
            Self::Completed(_) => StackStatus::Completed,
            Self::Failed(_) => StackStatus::Failed,
        }
    }

    /// The text of the `outcome` column: the exact JSON of the value, the empty text for `undefined`,
    /// the failure as JSON. With the status word it reads back by [`Outcome::from_column`].
    pub fn to_column(&self) -> String {
        match self {
            Self::Completed(Some(json)) => json.text().to_owned(),
            Self::Completed(None) => String::new(),
            Self::Failed(failure) => serde_json::to_string(failure).unwrap_or_default(),
        }
    }

    /// Reads [`Outcome::to_column`] back.
    ///
    /// # Errors
    /// `Corrupt` when the text is no JSON (or no failure), or the status is not a settled one.
    pub fn from_column(status: StackStatus, text: String) -> Result<Self, crate::StorageError> {
        let corrupt = |error: &dyn std::fmt::Display| {
            crate::StorageError::corrupt("outcome", format!("cannot be read: {error}"))
        };
        match status {
            StackStatus::Completed if text.is_empty() => Ok(Self::Completed(None)),
            StackStatus::Completed => match Json::parse(text) {
                Ok(json) => Ok(Self::Completed(Some(json))),
                Err(error) => Err(corrupt(&error)),
            },
            StackStatus::Failed => match serde_json::from_str(&text) {
                Ok(failure) => Ok(Self::Failed(failure)),
                Err(error) => Err(corrupt(&error)),
            },
            other => Err(corrupt(&format!("a {other} row has none"))),
        }
    }
}

/// Why a run is blocked: it needs a person, and nothing is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BlockedReason {
    /// Replay of the code made another call than the one recorded.
    Diverged {
        /// Position of the call in its frame.
        seq: CallSeq,
        /// What the journal has; `None` when the replay made a call beyond it.
        recorded: Option<CallRecord>,
        /// What the code did; `None` when it ended or waited without making the recorded call.
        attempted: Option<CallRecord>,
        /// The likely cause, for the author of the task.
        cause: String,
    },
    /// The worker died between asking the service and recording its answer, and the method's policy is to ask nobody twice.
    OutcomeUnknown {
        /// The service.
        service: String,
        /// The method.
        path: String,
    },
    /// Turns of this frame ended their worker too many times.
    Poisoned {
        /// Take-overs in the same turn.
        take_overs: u32,
    },
    /// A call that ended its worker too many times, whatever its method's policy.
    PoisonedCall {
        /// The service.
        service: String,
        /// The method.
        path: String,
        /// Workers that died with it since it was last answered.
        take_overs: u32,
    },
    /// A row of this run cannot be read.
    Corrupt {
        /// Which row, and what is wrong with it.
        what: String,
    },
    /// The version of the task that this run is pinned to is gone.
    VersionMissing {
        /// The task.
        task: String,
        /// The version.
        version: String,
    },
}

/// A call as the divergence message shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// The service (`tasks` for nested tasks, `timer`, `signal`).
    pub service: String,
    /// Dotted path.
    pub path: String,
    /// Exact argument text; empty for timers and signals.
    pub args: String,
}

impl std::fmt::Display for CallRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short: String = self.args.chars().take(200).collect();
        write!(f, "{}.{}{short}", self.service, self.path)
    }
}

impl std::fmt::Display for BlockedReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Diverged {
                seq,
                recorded,
                attempted,
                cause,
            } => {
                write!(
                    f,
                    "the code no longer matches the history at call {seq}: recorded "
                )?;
                match recorded {
                    Some(call) => write!(f, "{call}")?,
                    None => f.write_str("no call")?,
                }
                f.write_str(", attempted ")?;
                match attempted {
                    Some(call) => write!(f, "{call}")?,
                    None => f.write_str("no call")?,
                }
                write!(f, "; likely cause: {cause}")
            }
            Self::OutcomeUnknown { service, path } => write!(
                f,
                "{service}.{path} was asked and its worker died before the answer was recorded; its policy is never to ask twice: supply a result, retry, fail or cancel"
            ),
            Self::Poisoned { take_overs } => write!(
                f,
                "the same turn ended its worker {take_overs} times; look at the code, then retry or cancel"
            ),
            Self::PoisonedCall {
                service,
                path,
                take_overs,
            } => write!(
                f,
                "{service}.{path} was asked again and again, and {take_overs} workers died one after the other before it answered; look at the service, then supply a result, retry, fail or cancel"
            ),
            Self::Corrupt { what } => write!(f, "a row of this run cannot be read: {what}"),
            Self::VersionMissing { task, version } => {
                write!(
                    f,
                    "version {version} of task {task} is gone; publish it again, then retry"
                )
            }
        }
    }
}
