//! The storage contract of Tasker.
//!
//! What it is: the rows, ids and statuses of durable runs, the [`Storage`] trait that a database adaptor implements,
//! [`MemoryStorage`] as its reference, and (feature `conformance`) the suite that every adaptor passes.
//! What it is not: it runs no JavaScript, knows no service, reads no clock and depends on no async runtime.
//!
//! Invariants: ids and times come from the caller · the same calls give the same rows on every backend ·
//! payloads are exact JSON text ([`Json`]) that is never re-serialised on its way.

mod audit;
mod backlog;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod failure;
#[cfg(feature = "conformance")]
mod fault;
mod ids;
mod journal;
mod json;
mod key_store;
mod logs;
mod maintenance;
mod memory;
mod queue;
mod rows;
mod run_store;
mod signals;
mod status;
mod task_store;
mod time;
mod turn;
mod watch;
mod workers;

pub use audit::{AUDIT, AuditQuery, Violation};
pub use backlog::Backlog;
pub use error::StorageError;
pub use failure::{BlockedReason, CallRecord, Failure, Outcome};
#[cfg(feature = "conformance")]
pub use fault::{CallInfo, FaultAction, FaultControl, FaultStorage, Written};
pub use ids::{CallSeq, Epoch, StackRunId, TaskName, TaskRunId, TaskVersion, TurnNo, WorkerId};
pub use journal::{FrameJournal, Journal};
pub use json::{InvalidJson, Json};
pub use key_store::{KeyStore, SealedValue};
pub use logs::{LogCursor, LogLevel, LogLine, LogPage, Logs, StoredLogLine};
pub use maintenance::{Maintenance, Retention};
pub use memory::MemoryStorage;
#[cfg(feature = "conformance")]
pub use memory::Mutation;
pub use queue::{
    CallEnd, CallFinish, Claim, ClaimedCall, ClaimedFrame, OwnedRow, Queue, ReleasedCall,
    RunContext,
};
pub use rows::{StackRun, TaskFunction, TaskRun};
pub use run_store::{
    Cancelled, NewTaskRun, RunFilter, RunPage, RunStore, Submitted, Unblock, UnblockDecision,
};
pub use signals::{NewSignal, Signals};
pub use status::{RunStatus, StackKind, StackStatus};
pub use task_store::{NewTask, Published, TaskPage, TaskStore};
pub use time::Timestamp;
pub use turn::{
    CommitRefused, Delivery, DeliverySource, FrameNext, Lease, MadeKind, NewStackRun, TurnCommit,
    TurnReceipt,
};
pub use watch::{Hint, Hints, Watch};
pub use workers::{LEASE_HORIZON_MS, MAX_LEASE_MS, NewWorker, Reaped, Workers, lease_is_over};

/// Everything that a database must do to carry durable runs: the sum of one trait a concern.
///
/// Implemented for every type that implements the parts. Object-safe: engines hold `Arc<dyn Storage>`.
pub trait Storage:
    TaskStore + RunStore + Queue + Journal + Workers + Signals + Logs + KeyStore + Maintenance + Watch
{
}

impl<T> Storage for T where
    T: TaskStore
        + RunStore
        + Queue
        + Journal
        + Workers
        + Signals
        + Logs
        + KeyStore
        + Maintenance
        + Watch
{
}
