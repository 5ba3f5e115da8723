//! What really happened in the world: the ledger of the services, and what the database accepted from whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tasker_core::adaptor::{CallEnd, DeliverySource, WorkerId, Written};

/// One performance of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Performed {
    pub(crate) machine: usize,
    pub(crate) id: String,
    pub(crate) args: String,
    pub(crate) key: String,
}

/// Shared by all machines of a history. Clones are the same book.
#[derive(Clone, Default)]
pub(crate) struct Book(Arc<Mutex<Pages>>);

#[derive(Default)]
pub(crate) struct Pages {
    pub(crate) performed: Vec<Performed>,
    /// Keys of calls whose outcome the database has accepted.
    recorded: BTreeSet<String>,
    /// For each key: machines that crashed between asking and recording.
    pub(crate) repeats: BTreeMap<String, Vec<usize>>,
    /// Until when (milliseconds of the clock) a machine's worker ids are dead, once others have taken over.
    fenced: BTreeMap<usize, i64>,
    /// Writes of woken machines under a dead worker id that the database refused.
    pub(crate) refused: usize,
    /// What must never happen and did.
    pub(crate) wrong: Vec<String>,
}

impl Book {
    pub(crate) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A service performs a call.
    pub(crate) fn perform(&self, performed: Performed) {
        let mut pages = self.pages();
        if pages.recorded.contains(&performed.key) {
            let what = format!("asked after its result was recorded: {performed:?}");
            pages.wrong.push(what);
        }
        pages.performed.push(performed);
    }

    /// Whether any machine performed the call of this key.
    pub(crate) fn happened(&self, key: &str) -> bool {
        self.pages()
            .performed
            .iter()
            .any(|performed| performed.key == key)
    }

    /// A machine crashed: what it performed and did not get recorded will be asked again.
    pub(crate) fn crashed(&self, machine: usize) {
        let pages = &mut *self.pages();
        let lost: BTreeSet<&String> = pages
            .performed
            .iter()
            .filter(|performed| performed.machine == machine)
            .map(|performed| &performed.key)
            .filter(|key| !pages.recorded.contains(*key))
            .collect();
        for key in lost {
            pages.repeats.entry(key.clone()).or_default().push(machine);
        }
    }

    /// Others have taken over what this machine's workers owned that began before `now`.
    pub(crate) fn fence(&self, machine: usize, now: i64) {
        self.pages().fenced.insert(machine, now);
    }

    /// The database answered a write of this machine.
    pub(crate) fn written(&self, machine: usize, written: Written<'_>) {
        let pages = &mut *self.pages();
        let (worker, accepted) = match written {
            Written::Turn(turn, answer) => {
                if answer.is_ok() {
                    for delivery in &turn.delivered {
                        if matches!(delivery.source, DeliverySource::Local { .. }) {
                            pages.recorded.insert(delivery.child.to_string());
                        }
                    }
                }
                (turn.lease.worker, answer.is_ok())
            }
            Written::Call(finish, answer) => {
                if answer.is_ok() && matches!(finish.end, CallEnd::Settled(_)) {
                    pages.recorded.insert(finish.call.to_string());
                }
                (finish.lease.worker, answer.is_ok())
            }
            _ => return,
        };
        let dead = pages
            .fenced
            .get(&machine)
            .is_some_and(|until| began_ms(worker) < *until);
        if dead && accepted {
            let what = format!("a write of dead worker {worker} was accepted: {written:?}");
            pages.wrong.push(what);
        }
        pages.refused += usize::from(dead && !accepted);
    }
}

/// When a worker began: its id is a UUIDv7.
fn began_ms(worker: WorkerId) -> i64 {
    (worker.as_uuid().as_u128() >> 80) as i64
}
