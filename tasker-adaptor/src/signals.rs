//! Signals: values sent to a run from outside.

use async_trait::async_trait;
use uuid::Uuid;

use crate::{Json, StorageError, TaskRunId, Timestamp};

/// A signal to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSignal {
    /// Names this signal: sent again with the same id it changes nothing.
    pub id: Uuid,
    /// The run.
    pub run: TaskRunId,
    /// Name that a task waits for.
    pub name: String,
    /// Value.
    pub payload: Json,
}

/// Signals. An adaptor without them keeps the defaults.
#[async_trait]
pub trait Signals: Send + Sync + 'static {
    /// Does: settles the oldest open wait of that name in the run with the payload and wakes its frame; else keeps the signal for the next wait.
    /// `false` when the run has ended: nothing was kept.
    /// Atomicity: locks the task run first. Errors: `NotFound`, `Unsupported`.
    /// Tested by: `signal_before_wait`, `wait_before_signal`, `signal_races_wait`.
    async fn send_signal(&self, signal: NewSignal, now: Timestamp) -> Result<bool, StorageError> {
        let _ = (signal, now);
        Err(StorageError::Unsupported { what: "signals" })
    }
}
