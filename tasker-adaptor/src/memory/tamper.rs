//! Breaking rows on purpose, to see that the audit names them.

use uuid::Uuid;

use super::MemoryStorage;
use crate::{StackRun, StackRunId, TaskRun, TaskRunId, Timestamp};

/// Doors past the contract, for tests of the audit only.
impl MemoryStorage {
    /// Changes a stack run past every rule.
    pub fn tamper_row(&self, id: StackRunId, edit: impl FnOnce(&mut StackRun)) {
        self.step(|state| state.change(id, Timestamp::default(), edit));
    }

    /// Changes a task run past every rule.
    pub fn tamper_run(&self, id: TaskRunId, edit: impl FnOnce(&mut TaskRun)) {
        self.step(|state| state.edit_run(id, edit));
    }

    /// Says which wait a signal was consumed by, past every rule.
    pub fn tamper_signal(&self, run: TaskRunId, signal: Uuid, consumed_by: Option<StackRunId>) {
        self.step(|state| {
            let signals = state.runs.get_mut(&run).map(|entry| &mut entry.signals);
            for known in signals.into_iter().flatten() {
                if known.id == signal {
                    known.consumed_by = consumed_by;
                }
            }
        });
    }

    /// Takes a stack run away, past every rule.
    pub fn tamper_remove(&self, id: StackRunId) {
        self.step(|state| state.remove(id));
    }
}
