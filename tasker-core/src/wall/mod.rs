//! What stands between task code and the host.
//!
//! Two walls, with the same tasks, journals and results on both:
//! - *in-process* ([`Wall::in_process`]): VMs on threads of the host. Fastest. It holds mistakes, and attacks that stay within the
//!   language. QuickJS is C: a memory-safety bug in it is a bug in the host, and a native operation on a value of some megabytes
//!   costs a thread until it ends. For code that you would review.
//! - *process* (`Wall::process`, feature `process-wall`): VMs in confined child processes, spoken to over pipes. A child that
//!   hangs, crashes or answers garbage is killed and replaced; its frames are built again by replay, the guilty one fails.
//!   For code by strangers.
//!
//! An engine may have both: `Wall::process().in_process_for(..)` names the tasks that were reviewed.

pub(crate) mod guard;
pub(crate) mod processor;
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
#[cfg(feature = "process-wall")]
use std::sync::Arc;

use tasker_adaptor::{TaskName, TaskVersion};

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
    reviewed: Option<Reviewed>,
}

/// Says of a task version whether it was reviewed.
#[cfg(feature = "process-wall")]
#[derive(Clone)]
struct Reviewed(Arc<IsReviewed>);

#[cfg(feature = "process-wall")]
type IsReviewed = dyn Fn(&TaskName, &TaskVersion) -> bool + Send + Sync;

#[cfg(feature = "process-wall")]
impl std::fmt::Debug for Reviewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reviewed")
    }
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

    #[cfg(feature = "process-wall")]
    pub(crate) const fn processes(&self) -> Option<&Processes> {
        self.processes.as_ref()
    }

    /// Some tasks run on threads of this process.
    pub(crate) fn has_threads(&self) -> bool {
        match &self.processes {
            None => true,
            #[cfg(feature = "process-wall")]
            Some(processes) => processes.reviewed.is_some(),
            #[cfg(not(feature = "process-wall"))]
            Some(never) => match *never {},
        }
    }

    /// Frames of this task version run on threads of this process.
    #[cfg_attr(
        not(feature = "process-wall"),
        expect(unused_variables, reason = "without children all do")
    )]
    pub(crate) fn is_in_process(&self, task: &TaskName, version: &TaskVersion) -> bool {
        match &self.processes {
            None => true,
            #[cfg(feature = "process-wall")]
            Some(processes) => match &processes.reviewed {
                Some(Reviewed(is_reviewed)) => is_reviewed(task, version),
                None => false,
            },
            #[cfg(not(feature = "process-wall"))]
            Some(never) => match *never {},
        }
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
                reviewed: None,
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

    /// Runs tasks that were reviewed on threads of this process; all others stay in the children.
    ///
    /// `is_reviewed` is asked with name and version whenever a frame begins or is taken up, a nested task's own for a nested task;
    /// it should answer at once. Decide by the version, which is a hash of all that was published and is checked when the task is
    /// read: whoever may publish under a name decides what the name means.
    ///
    /// This is a rule of the engine, not of the task: nothing that is published or stored can weaken the wall, and an engine that
    /// takes a run over follows its own rule.
    ///
    /// ```no_run
    /// # use std::collections::HashSet;
    /// # use tasker_core::{TaskVersion, Wall};
    /// # let reviewed: HashSet<TaskVersion> = HashSet::new();
    /// let wall = Wall::process().in_process_for(move |_, version| reviewed.contains(version));
    /// ```
    #[must_use]
    pub fn in_process_for(
        mut self,
        is_reviewed: impl Fn(&TaskName, &TaskVersion) -> bool + Send + Sync + 'static,
    ) -> Self {
        if let Some(processes) = &mut self.processes {
            processes.reviewed = Some(Reviewed(Arc::new(is_reviewed)));
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
