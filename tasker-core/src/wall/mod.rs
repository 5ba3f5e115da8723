//! What stands between task code and the host.
//!
//! Two walls, with the same tasks, journals and results on both:
//! - *in-process* ([`Wall::in_process`]): VMs on threads of the host. Fastest. It holds mistakes, and attacks that stay within the
//!   language. QuickJS is C: a memory-safety bug in it is a bug in the host, and a native operation on a value of some megabytes
//!   costs a thread until it ends. For code that you would review.
//! - *process* (`Wall::process`, feature `process-wall`): VMs in confined child processes, spoken to over pipes. A child that
//!   hangs, crashes or answers garbage is killed and replaced; its frames are built again by replay, the guilty one fails.
//!   For code by strangers.

pub(crate) mod worker;

#[cfg(feature = "process-wall")]
mod answers;
#[cfg(feature = "process-wall")]
mod check;
#[cfg(feature = "process-wall")]
mod child;
#[cfg(feature = "process-wall")]
mod codec;
#[cfg(feature = "process-wall")]
mod commands;
#[cfg(feature = "process-wall")]
mod confine;
#[cfg(feature = "process-wall")]
mod home;
#[cfg(feature = "process-wall")]
mod once;
#[cfg(all(feature = "process-wall", target_os = "linux"))]
mod probe;
#[cfg(feature = "process-wall")]
pub(crate) mod process;
#[cfg(all(test, feature = "process-wall"))]
mod tests;
#[cfg(feature = "process-wall")]
mod verdict;
#[cfg(feature = "process-wall")]
mod wire;

#[cfg(feature = "process-wall")]
pub use child::child_main;
#[cfg(feature = "process-wall")]
pub use once::{Confinement, work_confined};
#[cfg(all(feature = "process-wall", target_os = "linux"))]
#[doc(hidden)]
pub use probe::probe_main;

/// Reads what a child could say: the fuzz target of the pipe. Nothing of it may panic.
#[cfg(all(feature = "process-wall", feature = "testing"))]
#[doc(hidden)]
pub fn read_answers(bytes: &[u8]) {
    let _ = answers::read_answer(bytes);
    let mut rest = bytes;
    while let Ok(Some((body, size))) = codec::split(rest, 1 << 20) {
        let _ = answers::read_answer(body);
        rest = &rest[size..];
    }
}

use std::path::PathBuf;

/// Which wall an engine has, for [`EngineBuilder::wall`](crate::EngineBuilder::wall).
#[derive(Clone, Debug)]
pub struct Wall {
    processes: Option<Processes>,
}

/// Settings of child processes.
#[cfg(feature = "process-wall")]
#[derive(Clone, Debug)]
pub(crate) struct Processes {
    pub(crate) program: Option<PathBuf>,
    pub(crate) count: Option<usize>,
    pub(crate) memory_bytes: u64,
}

/// Without the feature there are none.
#[cfg(not(feature = "process-wall"))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Processes {}

impl Wall {
    /// VMs on threads of this process: for code that you would review.
    pub const fn in_process() -> Self {
        Self { processes: None }
    }

    pub(crate) const fn processes(&self) -> Option<&Processes> {
        self.processes.as_ref()
    }
}

#[cfg(feature = "process-wall")]
impl Wall {
    /// VMs in confined child processes: for code by strangers.
    ///
    /// The children run either the helper program that [`Wall::program`] names, or this executable again: then
    /// [`child_main`] must be the first line of a plain `fn main`.
    ///
    /// On Linux a child has no new privileges, no files and no network (seccomp, landlock), no descriptors but its two pipes, an
    /// empty environment, limits of memory and CPU, a session of its own, and it dies with its parent. On other systems it is a
    /// process of its own with the resource limits that the system has, and no more: it can open files and connect.
    pub const fn process() -> Self {
        Self {
            processes: Some(Processes {
                program: None,
                count: None,
                memory_bytes: 2 << 30,
            }),
        }
    }

    /// The helper program `tasker-sandbox`, built from the same version of `tasker-core` with the feature `process-wall`.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        if let Some(processes) = &mut self.processes {
            processes.program = Some(path.into());
        }
        self
    }

    /// Number of child processes. Default: as many as the engine would have VM threads.
    #[must_use]
    pub const fn children(mut self, count: usize) -> Self {
        if let Some(processes) = &mut self.processes {
            processes.count = Some(if count == 0 { 1 } else { count });
        }
        self
    }

    /// Memory of one child, in bytes. Default 2 GiB. A second limit behind [`Limits::memory_bytes`](crate::Limits), which counts
    /// one frame: this one counts all frames that live in the child, and what QuickJS and the allocator need themselves.
    /// A child that passes it ends, and its frames are built again in another.
    #[must_use]
    pub const fn memory_bytes(mut self, bytes: u64) -> Self {
        if let Some(processes) = &mut self.processes {
            processes.memory_bytes = bytes;
        }
        self
    }
}

/// The wall could not be put up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WallError {
    /// The VM threads could not be started.
    #[error(
        "the VM threads could not be started: {0}; the system refuses more threads: raise its limit or use fewer with .threads(n)"
    )]
    Threads(#[source] std::io::Error),
    /// Nothing to run in the children.
    #[error(
        "Wall::process() needs a program for its children: name one with Wall::process().program(\"/path/to/tasker-sandbox\"), \
         or call tasker_core::wall::child_main() as the first line of a plain fn main (before any thread is started)"
    )]
    NoProgram,
    /// The child program could not be started.
    #[error("the sandbox program {} could not be started: {source}; check that it is there and may be run", .program.display())]
    Spawn {
        /// What was to be run.
        program: PathBuf,
        /// Why it was not.
        #[source]
        source: std::io::Error,
    },
    /// The child started and did not become ready.
    #[error("the sandbox program {} did not become ready: {problem}", .program.display())]
    NotReady {
        /// What was run.
        program: PathBuf,
        /// What happened.
        problem: String,
    },
}
