//! New ids of an engine.

use std::sync::{Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tasker_adaptor::{StackRunId, TaskRunId, Timestamp, WorkerId};

/// Makes ids: UUIDv7 of the engine's time and its own randomness.
pub(crate) struct Ids {
    rng: Mutex<StdRng>,
}

impl Ids {
    /// From the operating system's randomness, or from a seed so that a test repeats.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let rng = match seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => StdRng::from_rng(&mut rand::rng()),
        };
        Self {
            rng: Mutex::new(rng),
        }
    }

    fn random(&self) -> u128 {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())
    }

    pub(crate) fn task_run(&self, now: Timestamp) -> TaskRunId {
        TaskRunId::from_parts(now, self.random())
    }

    pub(crate) fn stack_run(&self, now: Timestamp) -> StackRunId {
        StackRunId::from_parts(now, self.random())
    }

    pub(crate) fn worker(&self, now: Timestamp) -> WorkerId {
        WorkerId::from_parts(now, self.random())
    }
}
