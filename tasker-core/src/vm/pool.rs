//! Realms made ready before they are wanted, and frames started in them.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::cache::BytecodeCache;
use super::frame::Vm;
use super::message::{Turn, VmStart};
use super::raw::Stopper;
use super::realm::{Realm, With, realm};
use crate::task::Program;

/// The realms of one VM thread. Not to be shared: QuickJS stays on its thread.
pub struct VmPool {
    cache: Arc<BytecodeCache>,
    ready: VecDeque<(With, Realm)>,
    prepared: usize,
    /// The kind that was asked for last, which is prepared, and for which program: reading a long text again would take a while.
    last: (Weak<Program>, With),
    /// In which the next frame starts.
    next: Option<Realm>,
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
            last: (Weak::new(), With::Nothing),
            next: None,
        }
    }

    /// Prepares one more realm, when idle; false when there are enough.
    pub fn refill(&mut self) -> bool {
        let last = self.last.1;
        if self.ready.iter().filter(|(with, _)| *with == last).count() >= self.prepared {
            return false;
        }
        if self.ready.len() >= self.prepared {
            self.ready.pop_front();
        }
        let realm = realm(&self.cache, last);
        self.ready.push_back((last, realm));
        true
    }

    /// The stopper of the realm in which this frame will start: what [`Vm::stopper`] gives after the first turn.
    pub fn next_stopper(&mut self, start: &VmStart) -> Stopper {
        let realm = self.realm_for(start);
        let stopper = realm.0.stopper();
        self.next = Some(realm);
        stopper
    }

    /// Starts a frame and runs its first turn.
    pub fn start(&mut self, start: &VmStart) -> (Vm, Turn) {
        let next = self.next.take();
        let (runtime, host) = next.unwrap_or_else(|| self.realm_for(start));
        Vm::start(runtime, host, start)
    }

    fn realm_for(&mut self, start: &VmStart) -> Realm {
        let program = &start.program;
        if !std::ptr::eq(self.last.0.as_ptr(), Arc::as_ptr(program)) {
            self.last = (Arc::downgrade(program), With::of(program));
        }
        let last = self.last.1;
        let ready = self.ready.iter().position(|(with, _)| *with == last);
        let ready = ready.and_then(|at| self.ready.remove(at));
        ready.map_or_else(|| realm(&self.cache, last), |(_, realm)| realm)
    }
}
