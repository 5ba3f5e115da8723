//! Realms made ready before they are wanted, and frames started in them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cache::BytecodeCache;
use super::frame::Vm;
use super::message::{Turn, VmStart};
use super::raw::Stopper;
use super::realm::{Realm, realm};

/// The realms of one VM thread. Not to be shared: QuickJS stays on its thread.
pub struct VmPool {
    cache: Arc<BytecodeCache>,
    ready: VecDeque<Realm>,
    prepared: usize,
}

impl std::fmt::Debug for VmPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VmPool")
            .field("ready", &self.ready.len())
            .field("prepared", &self.prepared)
            .finish_non_exhaustive()
    }
}

impl VmPool {
    /// A pool that keeps up to `prepared` realms ready. It begins empty: [`VmPool::refill`] fills it.
    pub fn new(cache: Arc<BytecodeCache>, prepared: usize) -> Self {
        Self {
            cache,
            ready: VecDeque::new(),
            prepared,
        }
    }

    /// Prepares one more realm, when idle; false when there are enough.
    pub fn refill(&mut self) -> bool {
        if self.ready.len() >= self.prepared {
            return false;
        }
        let realm = realm(&self.cache);
        self.ready.push_back(realm);
        true
    }

    /// The stopper of the realm that the next frame starts in: what [`Vm::stopper`] gives after the first turn.
    pub fn next_stopper(&mut self) -> Stopper {
        if self.ready.is_empty() {
            let realm = realm(&self.cache);
            self.ready.push_back(realm);
        }
        self.ready
            .front()
            .map(|(runtime, _)| runtime.stopper())
            .unwrap_or_default()
    }

    /// Starts a frame and runs its first turn.
    pub fn start(&mut self, start: &VmStart) -> (Vm, Turn) {
        let (runtime, host) = self.ready.pop_front().unwrap_or_else(|| realm(&self.cache));
        Vm::start(runtime, host, start)
    }
}
