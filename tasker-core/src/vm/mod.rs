//! The sandbox: QuickJS, one runtime a frame. Synchronous; no I/O, no clock, no threads of its own.

mod message;

pub use message::{Made, RunInfo, ToolNames, Turn, TurnEnd, VmDeliver, VmStart};
