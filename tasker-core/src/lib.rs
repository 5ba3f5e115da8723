//! Durable, sandboxed JavaScript inside a Rust program.

pub mod limits;
pub mod service;
pub mod task;
#[cfg(feature = "quickjs")]
pub mod vm;

pub use limits::{Limit, Limits};
pub use task::{Schema, TaskError, TaskOptions, TaskSource};
pub use tasker_adaptor as adaptor;
pub use tasker_adaptor::{
    BlockedReason, Failure, Json, LogCursor, LogLevel, Outcome, RunStatus, StackRunId, StackStatus,
    Storage, TaskName, TaskRunId, TaskVersion, Timestamp,
};
