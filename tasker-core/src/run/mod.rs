//! The run machine: which state a hot frame is in and what each event does to it; the journal and its divergence check.
//!
//! Pure: no clock, no threads, no storage, no JavaScript. A test fails when `run/` names `std::time`, `tokio`, `rquickjs` or a storage trait.

mod frame;
mod journal;

pub(crate) use frame::{Child, ChildKind, Effect, Event, Frame, FrameFacts, Ready, ReadySource};
pub(crate) use journal::{Attempted, Divergence, EXECUTE, History, TASKS, execute_args};

#[cfg(feature = "process-wall")]
pub(crate) use journal::RecordedTurn;

#[cfg(test)]
mod histories;
