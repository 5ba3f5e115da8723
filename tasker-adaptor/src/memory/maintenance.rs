//! Folding, deleting, auditing.

use async_trait::async_trait;

use super::MemoryStorage;
use super::mutation::Mutation;
use super::state::State;
use crate::{Backlog, Maintenance, Retention, StorageError, TaskRunId, Timestamp, Violation};

#[async_trait]
impl Maintenance for MemoryStorage {
    async fn foldable(
        &self,
        ended_before: Timestamp,
        max: usize,
    ) -> Result<Vec<TaskRunId>, StorageError> {
        Ok(self.step(|state| {
            let ended = state.ended.iter();
            ended
                .take_while(|(ended_at, _)| *ended_at < ended_before)
                .filter(|(_, run)| state.runs.get(run).is_some_and(|entry| entry.open == 0))
                .map(|(_, run)| *run)
                .take(max)
                .collect()
        }))
    }

    async fn fold(
        &self,
        run: TaskRunId,
        record: Vec<u8>,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        Ok(self.step(|state| state.fold(run, record, now)))
    }

    async fn delete_folded_rows(&self, max: usize) -> Result<usize, StorageError> {
        Ok(self.step(|state| state.delete_folded_rows(max)))
    }

    async fn delete_runs(&self, retention: &Retention) -> Result<usize, StorageError> {
        Ok(self.step(|state| state.delete_runs(retention)))
    }

    async fn backlog(&self, now: Timestamp, max: usize) -> Result<Backlog, StorageError> {
        Ok(self.step(|state| state.backlog(now, max)))
    }

    async fn audit(&self) -> Result<Vec<Violation>, StorageError> {
        Ok(self.step(|state| state.audit()))
    }
}

impl State {
    fn backlog(&mut self, now: Timestamp, max: usize) -> Backlog {
        self.promote(now);
        let runs = Backlog::statuses().map(|status| {
            let of_status = self.runs.values().filter(|run| run.run.status == status);
            (status, of_status.take(max).count() as u64)
        });
        let ready = self.ready_frames.iter().take(max);
        let oldest = ready.chain(self.ready_calls.iter().take(max));
        Backlog {
            at: now,
            runs: runs.collect(),
            ready_frames: self.ready_frames.len().min(max) as u64,
            ready_calls: self.ready_calls.len().min(max) as u64,
            oldest_ready: oldest.map(|(_, ready_at, _)| *ready_at).min(),
        }
    }

    fn fold(&mut self, id: TaskRunId, record: Vec<u8>, now: Timestamp) -> bool {
        let guarded = self.has_guard(Mutation::NoFoldGuard);
        let Some(entry) = self.runs.get_mut(&id) else {
            return false;
        };
        let Some(ended_at) = entry.run.ended_at else {
            return false;
        };
        if entry.run.folded_at.is_some() || (guarded && entry.open > 0) {
            return false;
        }
        entry.run.record = Some(record);
        entry.run.folded_at = Some(now);
        self.ended.remove(&(ended_at, id));
        self.folded.insert(id);
        true
    }

    fn delete_folded_rows(&mut self, max: usize) -> usize {
        let mut left = max;
        while let Some(run) = self.folded.first().copied().filter(|_| left > 0) {
            let Some(entry) = self.runs.get_mut(&run) else {
                self.folded.remove(&run);
                continue;
            };
            let signals = entry.signals.len().min(left);
            entry.signals.truncate(entry.signals.len() - signals);
            left -= signals;
            let rows: Vec<_> = entry.rows.iter().rev().copied().take(left).collect();
            left -= rows.len();
            for id in rows {
                self.remove(id);
            }
            let is_empty = self
                .runs
                .get(&run)
                .is_none_or(|entry| entry.rows.is_empty() && entry.signals.is_empty());
            if is_empty {
                self.folded.remove(&run);
            }
        }
        let dead: Vec<_> = self
            .workers
            .iter()
            .filter(|(id, row)| !row.live && !self.owned.contains_key(id))
            .map(|(id, _)| *id)
            .take(left)
            .collect();
        left -= dead.len();
        for id in dead {
            self.workers.remove(&id);
        }
        max - left
    }

    fn delete_runs(&mut self, retention: &Retention) -> usize {
        let old: Vec<_> = self
            .runs
            .values()
            .filter(|entry| {
                let run = &entry.run;
                run.folded_at.is_some()
                    && retention.statuses.contains(&run.status)
                    && run.ended_at.is_some_and(|at| at < retention.ended_before)
            })
            .map(|entry| entry.run.id)
            .take(retention.max)
            .collect();
        for id in &old {
            self.delete_run(*id);
        }
        old.len()
    }

    fn delete_run(&mut self, id: TaskRunId) {
        let rows: Vec<_> = self
            .runs
            .get(&id)
            .into_iter()
            .flat_map(|entry| entry.rows.iter().rev().copied())
            .collect();
        for row in rows {
            self.remove(row);
        }
        self.folded.remove(&id);
        if let Some(entry) = self.runs.remove(&id)
            && let Some(key) = entry.run.idempotency_key
        {
            self.keys.remove(&key);
        }
    }
}
