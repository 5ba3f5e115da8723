//! [`MemoryStorage`]: the contract in memory, as the reference that every database is compared with.
//!
//! What it is: the rules of the storage contract written out once in plain Rust, one lock around all tables, so that every
//! operation is one atomic step. What it is not: durable. It forgets everything when the last clone is dropped.
//!
//! Invariants: all rows change through [`state::State::change`], which keeps every index and count in step with the rows ·
//! no operation walks over ended history · hints leave after the lock is given back.

mod audit;
mod commit;
mod fence;
mod hints;
mod maintenance;
mod mutation;
mod queue;
mod runs;
mod settle;
mod small_tables;
mod state;
#[cfg(feature = "conformance")]
mod tamper;
mod workers;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use self::hints::Hub;
#[cfg(feature = "conformance")]
pub use self::mutation::Mutation;
use self::state::State;
use crate::{Hints, Watch};

/// The whole contract in memory: for tests, for tasks that may be lost, and as the oracle of the model test.
///
/// Clones share one store. Needs no async runtime: its futures are ready when they are first polled.
#[derive(Clone)]
pub struct MemoryStorage {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    hub: Hub,
}

impl MemoryStorage {
    /// An empty store.
    pub fn new() -> Self {
        Self::over(State::default())
    }

    /// An empty store from which one guard of the contract was taken out, to test that a test notices.
    #[cfg(feature = "conformance")]
    pub fn with_mutation(mutation: Mutation) -> Self {
        Self::over(State::without(mutation))
    }

    fn over(state: State) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                hub: Hub::default(),
            }),
        }
    }

    /// One atomic step: the only door to the tables.
    fn step<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self
            .inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let answer = act(&mut state);
        let hints = state.take_hints();
        drop(state);
        self.inner.hub.send(&hints);
        answer
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.step(|state| {
            f.debug_struct("MemoryStorage")
                .field("task_runs", &state.runs.len())
                .field("stack_runs", &state.stack.len())
                .field("workers", &state.workers.len())
                .finish_non_exhaustive()
        })
    }
}

impl Watch for MemoryStorage {
    fn watch(&self) -> Hints {
        self.inner.hub.subscribe()
    }
}
