//! Workers, their leases, and what becomes of the rows of the dead.

use async_trait::async_trait;

use super::MemoryStorage;
use super::queue::Freed;
use super::state::{State, WorkerRow};
use crate::{
    NewWorker, Reaped, StackKind, StackRunId, StackStatus, StorageError, Timestamp, WorkerId,
    Workers, lease_is_over,
};

#[async_trait]
impl Workers for MemoryStorage {
    async fn server_time(&self, host_now: Timestamp) -> Result<Timestamp, StorageError> {
        Ok(host_now)
    }

    async fn register(&self, worker: NewWorker) -> Result<(), StorageError> {
        self.step(|state| {
            let expires_at = worker.now.plus_millis(worker.lease_ms);
            match state.workers.get_mut(&worker.id) {
                Some(row) if !row.live => Err(StorageError::Misuse {
                    what: format!(
                        "worker id {} is used up: it was declared dead; take a new one",
                        worker.id
                    ),
                }),
                Some(row) => {
                    row.expires_at = expires_at;
                    Ok(())
                }
                None => {
                    let live = true;
                    state
                        .workers
                        .insert(worker.id, WorkerRow { live, expires_at });
                    Ok(())
                }
            }
        })
    }

    async fn heartbeat(
        &self,
        worker: WorkerId,
        now: Timestamp,
        lease_ms: i64,
    ) -> Result<bool, StorageError> {
        Ok(self.step(|state| match state.workers.get_mut(&worker) {
            Some(row) if row.live => {
                row.expires_at = now.plus_millis(lease_ms);
                true
            }
            _ => false,
        }))
    }

    async fn retire(&self, worker: WorkerId, now: Timestamp) -> Result<(), StorageError> {
        self.step(|state| {
            if let Some(row) = state.workers.get_mut(&worker) {
                row.live = false;
            }
            let rows = state.owned.get(&worker).cloned().unwrap_or_default();
            for id in rows {
                state.take_from_dead(id, Freed::Asked, now);
            }
        });
        Ok(())
    }

    async fn reap(&self, by: WorkerId, now: Timestamp, max: usize) -> Result<Reaped, StorageError> {
        Ok(self.step(|state| state.reap(by, now, max)))
    }
}

impl State {
    fn reap(&mut self, by: WorkerId, now: Timestamp, max: usize) -> Reaped {
        let mut reaped = Reaped::default();
        if !self.is_live(by) {
            return reaped;
        }
        for (id, row) in &mut self.workers {
            if row.live && lease_is_over(row.expires_at, now) && *id != by {
                row.live = false;
                reaped.workers.push(*id);
            }
        }
        let dead_owners = self
            .owned
            .iter()
            .filter(|(owner, _)| !self.is_live(**owner));
        let mut rows = dead_owners.flat_map(|(_, rows)| rows.iter().copied());
        let batch: Vec<_> = rows.by_ref().take(max).collect();
        reaped.more = rows.next().is_some();
        for id in batch {
            match self.take_from_dead(id, Freed::Died, now) {
                StackKind::Frame => reaped.frames += 1,
                _ => reaped.calls += 1,
            }
        }
        reaped
    }

    /// Frees a row whose owner is dead.
    fn take_from_dead(&mut self, id: StackRunId, by: Freed, now: Timestamp) -> StackKind {
        let Some(entry) = self.stack.get(&id) else {
            return StackKind::Call;
        };
        if entry.row.kind != StackKind::Frame {
            self.free_call(id, by, now);
            return StackKind::Call;
        }
        let rest = entry.status_from_children();
        self.change(id, now, |frame| {
            frame.owner = None;
            frame.epoch = frame.epoch.next();
            frame.attempt += 1;
            frame.in_doubt = true;
            if frame.status != StackStatus::Blocked {
                frame.status = rest;
            }
        });
        self.follow_root(id);
        StackKind::Frame
    }
}
