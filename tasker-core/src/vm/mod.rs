//! The sandbox: QuickJS, one runtime a frame. Synchronous; no I/O, no clock, no threads of its own.
//!
//! [`VmPool::start`] runs a frame to its first suspension, [`Vm::deliver`] from one to the next. What a task did is in the
//! [`Turn`]; nothing else leaves the VM. Deterministic: the same start and the same deliveries give the same turns.
//!
//! Who does what: `raw` speaks C (all `unsafe` is there); `bridge` is what JavaScript may ask, `host` the state behind it, `load` the
//! task's files; `frame` runs turns; `realm` makes realms and `pool` keeps some ready; `read` makes values of JSON; `write`, `show` and
//! `capture` read values out; `prelude/*.js` are the globals that a task sees.

mod bridge;
mod cache;
mod capture;
mod compile;
mod frame;
mod host;
mod load;
mod message;
mod modules;
mod pool;
mod prelude;
mod random;
mod raw;
mod read;
mod realm;
mod show;
mod web;
mod write;

pub use cache::BytecodeCache;
pub use compile::check_program;
pub(crate) use compile::check_program_until;
pub use frame::Vm;
pub use message::{Made, RunInfo, ToolNames, Turn, TurnEnd, VmDeliver, VmStart};
pub use pool::VmPool;
pub use raw::Stopper;
#[cfg(feature = "process-wall")]
pub(crate) use raw::when_out_of_memory;
