//! Tasks, signals, log lines and sealed values.

use std::ops::Bound;

use async_trait::async_trait;

use super::MemoryStorage;
use super::state::{State, StoredSignal};
use crate::{
    KeyStore, LogCursor, LogLine, LogPage, Logs, NewSignal, NewTask, Outcome, Published,
    SealedValue, Signals, StackRunId, StorageError, TaskFunction, TaskName, TaskPage, TaskRunId,
    TaskStore, TaskVersion, Timestamp,
};

#[async_trait]
impl TaskStore for MemoryStorage {
    async fn publish(&self, task: NewTask, now: Timestamp) -> Result<Published, StorageError> {
        self.step(|state| state.publish(task, now))
    }

    async fn task(
        &self,
        name: &TaskName,
        version: Option<&TaskVersion>,
    ) -> Result<Option<TaskFunction>, StorageError> {
        Ok(self.step(|state| match version {
            Some(version) => state.tasks.get(name)?.get(version).cloned(),
            None => state.current_task(name).cloned(),
        }))
    }

    async fn tasks(&self, after: Option<&TaskName>, max: usize) -> Result<TaskPage, StorageError> {
        Ok(self.step(|state| {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut names = state
                .tasks
                .range::<TaskName, _>((from, Bound::Unbounded))
                .map(|(name, _)| name);
            let page = names.by_ref().take(max);
            let tasks: Vec<_> = page
                .filter_map(|name| state.current_task(name).cloned())
                .collect();
            let more = names.next().is_some();
            TaskPage {
                next: tasks.last().map(|task| task.name.clone()).filter(|_| more),
                tasks,
            }
        }))
    }
}

#[async_trait]
impl Signals for MemoryStorage {
    async fn send_signal(&self, signal: NewSignal, now: Timestamp) -> Result<bool, StorageError> {
        self.step(|state| state.send_signal(signal, now))
    }
}

#[async_trait]
impl Logs for MemoryStorage {
    async fn append_logs(
        &self,
        run: TaskRunId,
        frame: Option<StackRunId>,
        lines: Vec<LogLine>,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        self.step(|state| {
            if !state.runs.contains_key(&run) {
                return Err(no_run(run));
            }
            state.write_logs(run, frame, &lines, now);
            Ok(())
        })
    }

    async fn logs(
        &self,
        run: TaskRunId,
        after: LogCursor,
        max: usize,
    ) -> Result<LogPage, StorageError> {
        Ok(self.step(|state| {
            let logs = state.runs.get(&run).map_or(&[][..], |entry| &entry.logs);
            let skip = usize::try_from(after.0).unwrap_or(usize::MAX);
            let lines: Vec<_> = logs.iter().skip(skip).take(max).cloned().collect();
            LogPage {
                next: lines.last().map_or(after, |line| line.cursor),
                lines,
            }
        }))
    }
}

#[async_trait]
impl KeyStore for MemoryStorage {
    async fn put_sealed(
        &self,
        namespace: &str,
        key: &str,
        value: SealedValue,
    ) -> Result<(), StorageError> {
        self.step(|state| {
            let values = state.sealed.entry(namespace.to_owned()).or_default();
            values.insert(key.to_owned(), value);
        });
        Ok(())
    }

    async fn replace_sealed(
        &self,
        namespace: &str,
        key: &str,
        expected: &[u8],
        value: SealedValue,
    ) -> Result<bool, StorageError> {
        Ok(self.step(|state| {
            let values = state.sealed.get_mut(namespace);
            match values.and_then(|values| values.get_mut(key)) {
                Some(stored) if stored.bytes == expected => {
                    *stored = value;
                    true
                }
                _ => false,
            }
        }))
    }

    async fn sealed(
        &self,
        namespace: &str,
        key: &str,
    ) -> Result<Option<SealedValue>, StorageError> {
        Ok(self.step(|state| state.sealed.get(namespace)?.get(key).cloned()))
    }

    async fn delete_sealed(&self, namespace: &str, key: &str) -> Result<bool, StorageError> {
        Ok(self.step(|state| {
            let Some(values) = state.sealed.get_mut(namespace) else {
                return false;
            };
            let was_there = values.remove(key).is_some();
            if values.is_empty() {
                state.sealed.remove(namespace);
            }
            was_there
        }))
    }

    async fn sealed_keys(&self, namespace: &str) -> Result<Vec<String>, StorageError> {
        Ok(self.step(|state| {
            let values = state.sealed.get(namespace).into_iter();
            values.flat_map(|values| values.keys().cloned()).collect()
        }))
    }

    async fn sealed_namespaces(&self) -> Result<Vec<String>, StorageError> {
        Ok(self.step(|state| state.sealed.keys().cloned().collect()))
    }
}

impl State {
    fn publish(&mut self, task: NewTask, now: Timestamp) -> Result<Published, StorageError> {
        let current = self.current_task(&task.name);
        let newest = current.map(|task| task.published_at);
        let was_current = current.is_some_and(|current| current.version == task.version);
        let published_at = newest.map_or(now, |newest| now.max(newest.plus_millis(1)));
        let versions = self.tasks.entry(task.name.clone()).or_default();
        if let Some(known) = versions.get_mut(&task.version) {
            let same = known.source == task.source
                && known.modules == task.modules
                && known.options == task.options;
            if !same {
                return Err(StorageError::VersionConflict {
                    version: task.version,
                });
            }
            if was_current {
                return Ok(Published::Unchanged);
            }
            known.published_at = published_at;
            return Ok(Published::Restored);
        }
        versions.insert(
            task.version.clone(),
            TaskFunction {
                name: task.name,
                version: task.version,
                source: task.source,
                modules: task.modules,
                schema: task.schema,
                options: task.options,
                created_at: now,
                published_at,
            },
        );
        Ok(Published::Created)
    }

    fn current_task(&self, name: &TaskName) -> Option<&TaskFunction> {
        let versions = self.tasks.get(name)?;
        versions.values().max_by_key(|task| task.published_at)
    }

    fn send_signal(&mut self, signal: NewSignal, now: Timestamp) -> Result<bool, StorageError> {
        let Some(entry) = self.runs.get_mut(&signal.run) else {
            return Err(no_run(signal.run));
        };
        if entry.signals.iter().any(|known| known.id == signal.id) {
            return Ok(true);
        }
        if entry.run.status.is_terminal() {
            return Ok(false);
        }
        let wait = entry
            .waits
            .get(&signal.name)
            .and_then(|waits| waits.first())
            .map(|(_, wait)| *wait);
        entry.signals.push(StoredSignal {
            id: signal.id,
            name: signal.name,
            payload: signal.payload.clone(),
            consumed_by: wait,
        });
        if let Some(wait) = wait {
            self.settle(wait, Outcome::Completed(Some(signal.payload)), now);
        }
        Ok(true)
    }
}

fn no_run(run: TaskRunId) -> StorageError {
    StorageError::NotFound {
        what: format!("task run {run}"),
    }
}
