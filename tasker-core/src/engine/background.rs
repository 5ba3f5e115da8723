//! A thread that was given up goes on until its native operation ends: in the background, so that it takes a core from nobody.
//!
//! On Linux by its niceness, which there is a thread's own. Elsewhere it keeps its share of the machine.

use std::sync::{Arc, OnceLock};

/// A thread as the operating system knows it, once it runs.
#[derive(Clone, Default)]
pub(super) struct OsThread(Arc<OnceLock<imp::Id>>);

impl OsThread {
    /// Called on the thread itself.
    pub(super) fn is_here(&self) {
        let _ = self.0.set(imp::own_id());
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

    pub(super) fn lower((): Id) {}
}
