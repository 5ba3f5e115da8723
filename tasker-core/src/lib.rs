//! Durable, sandboxed JavaScript inside a Rust program.
//!
//! A host adds this crate and a storage adaptor, registers services, and hands the [`Engine`] JavaScript that it did not write.
//! Every `await` on a service or a nested task is a point at which the run can be put away in a database and taken up again:
//! after a crash, in another process, on another machine, months later.
//!
//! Tasks run behind a [`Wall`]: on threads of the host's process, which holds mistakes but not attacks on QuickJS itself, or in confined
//! child processes, for code by strangers. The limits of each frame are in [`Limits`].

#[cfg(feature = "quickjs")]
mod engine;
#[cfg(feature = "quickjs")]
pub mod execution;
pub mod limits;
#[cfg(feature = "quickjs")]
mod run;
pub mod service;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "quickjs")]
pub mod vm;
#[cfg(feature = "quickjs")]
pub mod wall;

#[cfg(feature = "quickjs")]
pub use engine::{
    Clock, Drive, Engine, EngineBuilder, EngineError, EngineHealth, EngineStats, Processed,
    Publish, PublishedTask, RunError, RunHandle, SettledCall, Submit, SystemClock, Trace,
    TraceNode,
};
#[cfg(feature = "quickjs")]
pub use execution::Execution;
pub use limits::{Limit, Limits};
pub use service::{
    Call, Health, Link, MethodDescription, MethodPolicy, Reconciled, RetryPolicy, Service,
    ServiceCall, ServiceDescription, ServiceError, ServiceErrorType, ServiceProxy, ServiceStyle,
    Services, UnknownOutcome, service_fn,
};
pub use task::{Schema, TaskError, TaskOptions, TaskSource};
pub use tasker_adaptor as adaptor;
pub use tasker_adaptor::{
    BlockedReason, Cancelled, Failure, Json, LogCursor, LogLevel, LogLine, MemoryStorage, Outcome,
    Published, RunFilter, RunStatus, StackKind, StackRunId, StackStatus, Storage, StorageError,
    TaskName, TaskRun, TaskRunId, TaskVersion, Timestamp, UnblockDecision,
};
#[cfg(feature = "quickjs")]
pub use wall::{Wall, WallError};
