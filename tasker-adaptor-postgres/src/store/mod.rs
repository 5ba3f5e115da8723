//! The storage contract, one file a concern.

mod backlog;
mod cancel;
mod claim;
mod commit;
mod finish;
pub(crate) mod gather;
mod journal;
mod keystore;
mod locks;
mod logs;
mod maintenance;
mod queue;
mod reap;
mod release;
mod runs;
mod signals;
mod status;
pub(crate) mod submit;
mod tasks;
mod tidy;
mod timers;
mod unblock;
mod workers;
mod write;
