//! A thread as the operating system knows it: how much it has worked, and that it takes a core from nobody once it was given up.
//!
//! A thread that was given up goes on until its native operation ends, in the background: on Linux by its niceness, which there is a
//! thread's own. Elsewhere it keeps its share of the machine, and how much it has worked is not told.

use std::sync::{Arc, OnceLock};

/// A thread, once it runs.
#[derive(Clone, Default)]
pub(super) struct OsThread(Arc<OnceLock<imp::Id>>);

impl OsThread {
    /// Called on the thread itself.
    pub(super) fn is_here(&self) {
        let _ = self.0.set(imp::own_id());
    }

    /// Time that it has had on a processor since it began, in milliseconds.
    pub(super) fn processor_ms(&self) -> Option<u64> {
        imp::processor_ms(*self.0.get()?)
    }

    /// Lets the thread run only when nobody else wants to.
    pub(super) fn into_background(self) {
        if let Some(id) = self.0.get() {
            imp::lower(*id);
        }
    }
}

#[cfg(target_os = "linux")]
mod imp {
    pub(super) type Id = rustix::process::Pid;

    /// The least that Linux gives.
    const NICEST: i32 = 19;

    pub(super) fn own_id() -> Id {
        rustix::thread::gettid()
    }

    pub(super) fn processor_ms(id: Id) -> Option<u64> {
        crate::wall::processor::of_thread(id)
    }

    pub(super) fn lower(id: Id) {
        // Nothing depends on it: a thread that ended meanwhile is no loss.
        if let Err(error) = rustix::process::setpriority_process(Some(id), NICEST) {
            tracing::debug!(%error, "a thread that was given up keeps its priority");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    pub(super) type Id = ();

    pub(super) fn own_id() -> Id {}

    pub(super) fn processor_ms((): Id) -> Option<u64> {
        None
    }

    pub(super) fn lower((): Id) {}
}
