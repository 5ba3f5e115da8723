//! Services of a folder: `services/<name>/service.toml` names a command in any language, and `tasker serve` starts it, gives it
//! a port, looks after its health and stops it with the server.
//!
//! Invariants: a service sees no variable of this process but those that its manifest asks for and a few that every program
//! needs · it ends with the server, also when that is killed (Linux) · one that does not start is said by name, and the rest goes on.

mod manifest;
mod process;
mod supervise;

pub(crate) use manifest::{MANIFEST, Manifest, check_name, read_all};
pub use process::become_service;
pub(crate) use supervise::{Place, Supervised};
