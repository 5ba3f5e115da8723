//! The queue: claim, finish, release, reload, timers.

use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;

use super::MemoryStorage;
use super::fence::Pass;
use super::mutation::Mutation;
use super::state::{State, context_of};
use crate::{
    CallEnd, CallFinish, Claim, ClaimedCall, ClaimedFrame, CommitRefused, Lease, Outcome, OwnedRow,
    Queue, ReleasedCall, RunStatus, StackKind, StackRunId, StackStatus, StorageError, TaskName,
    Timestamp, TurnCommit, TurnReceipt, WorkerId,
};

/// How a call comes back to the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Freed {
    /// Its worker gave it back and had not asked.
    NotAsked,
    /// Its worker gave it back, or retired, and may have asked.
    Asked,
    /// Its worker died with it in hand.
    Died,
}

#[async_trait]
impl Queue for MemoryStorage {
    async fn claim_frames(&self, claim: Claim) -> Result<Vec<ClaimedFrame>, StorageError> {
        Ok(self.step(|state| state.claim_frames(&claim)))
    }

    async fn claim_calls(&self, claim: Claim) -> Result<Vec<ClaimedCall>, StorageError> {
        Ok(self.step(|state| state.claim_calls(&claim)))
    }

    async fn commit(
        &self,
        turns: Arc<[TurnCommit]>,
    ) -> Result<Vec<Result<TurnReceipt, CommitRefused>>, StorageError> {
        self.step(|state| state.commit(&turns))
    }

    async fn finish_calls(
        &self,
        finishes: Arc<[CallFinish]>,
        now: Timestamp,
    ) -> Result<Vec<Result<bool, CommitRefused>>, StorageError> {
        if self.step(|state| state.has_guard(Mutation::NoWakeUnderLock)) {
            return self.step(|state| state.finish_calls(&finishes, now));
        }
        let asleep = self.step(|state| state.sleeping_parents(&finishes));
        give_way().await;
        self.step(|state| {
            let answers = state.finish_calls(&finishes, now);
            for frame in asleep {
                state.wake(frame, now);
            }
            answers
        })
    }

    async fn release_frames(
        &self,
        frames: &[(StackRunId, Lease)],
        now: Timestamp,
    ) -> Result<Vec<Result<(), CommitRefused>>, StorageError> {
        Ok(self.step(|state| {
            let release = |(id, lease): &(StackRunId, Lease)| {
                state.fence_release(*id, *lease)?;
                state.release_frame(*id, now);
                Ok(())
            };
            frames.iter().map(release).collect()
        }))
    }

    async fn release_calls(
        &self,
        calls: &[ReleasedCall],
        now: Timestamp,
    ) -> Result<Vec<Result<(), CommitRefused>>, StorageError> {
        Ok(self.step(|state| {
            let release = |released: &ReleasedCall| {
                let call = state.fence_release(released.call, released.lease)?;
                if call.kind != StackKind::Call {
                    return Err(CommitRefused::Superseded);
                }
                let by = if released.asked {
                    Freed::Asked
                } else {
                    Freed::NotAsked
                };
                state.free_call(released.call, by, now);
                Ok(())
            };
            calls.iter().map(release).collect()
        }))
    }

    async fn reload_frame(
        &self,
        frame: StackRunId,
        worker: WorkerId,
        now: Timestamp,
    ) -> Result<Option<ClaimedFrame>, StorageError> {
        Ok(self.step(|state| state.reload_frame(frame, worker, now)))
    }

    async fn fire_timers(
        &self,
        now: Timestamp,
        grace_ms: i64,
        max: usize,
    ) -> Result<usize, StorageError> {
        Ok(self.step(|state| state.fire_timers(now, grace_ms, max)))
    }

    async fn owned(
        &self,
        worker: WorkerId,
        woken_only: bool,
    ) -> Result<Vec<OwnedRow>, StorageError> {
        Ok(self.step(|state| state.owned_rows(worker, woken_only)))
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        Ok(self.step(|state| state.next_due()))
    }
}

impl State {
    fn claim_frames(&mut self, claim: &Claim) -> Vec<ClaimedFrame> {
        if !self.may_claim(claim) {
            return Vec::new();
        }
        let ids = self.claimable(claim, StackKind::Frame);
        ids.into_iter()
            .filter_map(|id| self.take_frame(id, claim.worker, claim.now))
            .collect()
    }

    fn claim_calls(&mut self, claim: &Claim) -> Vec<ClaimedCall> {
        if !self.may_claim(claim) {
            return Vec::new();
        }
        let ids = self.claimable(claim, StackKind::Call);
        for id in &ids {
            self.change(*id, claim.now, |call| {
                call.status = StackStatus::Processing;
                call.owner = Some(claim.worker);
                call.epoch = call.epoch.next();
                call.attempt += 1;
                call.started_at = Some(claim.now);
            });
        }
        ids.into_iter()
            .filter_map(|id| {
                let row = self.row(id)?.clone();
                let run = &self.runs.get(&row.task_run)?.run;
                let context = context_of(run);
                Some(ClaimedCall { row, context })
            })
            .collect()
    }

    fn may_claim(&self, claim: &Claim) -> bool {
        self.is_live(claim.worker) || !self.has_guard(Mutation::NoWorkerGuardOnClaim)
    }

    /// The rows that a claim takes, in order.
    fn claimable(&mut self, claim: &Claim, kind: StackKind) -> Vec<StackRunId> {
        self.promote(claim.now);
        let ready = if kind == StackKind::Frame {
            &self.ready_frames
        } else {
            &self.ready_calls
        };
        let may_take = |id: &StackRunId| {
            self.row(*id).is_some_and(|row| {
                row.due_at.is_none_or(|due| due <= claim.now)
                    && self.run_status(row.task_run) != Some(RunStatus::Cancelled)
            })
        };
        if let Some(only) = claim.only {
            let is_ready = self
                .stack
                .get(&only)
                .is_some_and(|entry| ready.contains(&entry.ready_key()));
            let taken = is_ready && claim.max > 0 && may_take(&only);
            return taken.then_some(only).into_iter().collect();
        }
        ready
            .iter()
            .map(|(_, _, id)| *id)
            .filter(may_take)
            .take(claim.max)
            .collect()
    }

    /// A VM will be built from the row: this worker's, at an epoch of its own.
    fn take_frame(
        &mut self,
        id: StackRunId,
        worker: WorkerId,
        now: Timestamp,
    ) -> Option<ClaimedFrame> {
        let raise = self.has_guard(Mutation::NoEpochOnLoad);
        self.change(id, now, |frame| {
            frame.status = StackStatus::Processing;
            frame.owner = Some(worker);
            if raise {
                frame.epoch = frame.epoch.next();
            }
        });
        self.follow_root(id);
        let row = self.row(id)?.clone();
        if row.parent.is_none() {
            self.edit_run(row.task_run, |run| {
                run.started_at.get_or_insert(now);
            });
        }
        let run = &self.runs.get(&row.task_run)?.run;
        let context = context_of(run);
        let nested = row.parent.is_some();
        let (task, version, input) = match (&row.version, &row.args) {
            (Some(version), Some(input)) if nested => (
                TaskName::new(row.path.as_str()),
                version.clone(),
                input.clone(),
            ),
            _ => (run.task.clone(), run.version.clone(), run.input.clone()),
        };
        Some(ClaimedFrame {
            row,
            task,
            version,
            input,
            context,
        })
    }

    fn finish_calls(
        &mut self,
        finishes: &[CallFinish],
        now: Timestamp,
    ) -> Result<Vec<Result<bool, CommitRefused>>, StorageError> {
        for finish in finishes {
            let kind = self.row(finish.call).map(|row| row.kind);
            if kind.is_some_and(|kind| kind != StackKind::Call) {
                return Err(StorageError::Misuse {
                    what: format!(
                        "stack run {} is no call and cannot be finished as one",
                        finish.call
                    ),
                });
            }
        }
        Ok(finishes
            .iter()
            .map(|finish| match self.fence_finish(finish)? {
                Pass::Already => Ok(false),
                Pass::Apply => {
                    self.apply_finish(finish, now);
                    Ok(true)
                }
            })
            .collect())
    }

    fn apply_finish(&mut self, finish: &CallFinish, now: Timestamp) {
        match &finish.end {
            CallEnd::Settled(outcome) if self.has_guard(Mutation::NoWakeUnderLock) => {
                self.settle(finish.call, outcome.clone(), now);
            }
            CallEnd::Settled(outcome) => self.settle_silently(finish.call, outcome.clone(), now),
            CallEnd::RetryAt {
                not_before,
                failure,
            } => self.change(finish.call, now, |call| {
                call.status = StackStatus::Pending;
                call.owner = None;
                call.due_at = Some(*not_before);
                call.take_overs = 0;
                call.outcome = Some(Outcome::Failed(failure.clone()));
            }),
            CallEnd::Blocked(reason) => self.block(finish.call, reason.clone(), now),
        }
    }

    /// The parents that a completer without the lock believes to be asleep.
    fn sleeping_parents(&self, finishes: &[CallFinish]) -> Vec<StackRunId> {
        finishes
            .iter()
            .filter_map(|finish| self.row(finish.call)?.parent)
            .filter(|id| {
                self.row(*id)
                    .is_some_and(|row| row.status == StackStatus::SuspendedWaitingChild)
            })
            .collect()
    }

    /// The frame has no VM any more.
    pub(super) fn release_frame(&mut self, id: StackRunId, now: Timestamp) {
        let Some(rest) = self
            .stack
            .get(&id)
            .map(super::state::Entry::status_from_children)
        else {
            return;
        };
        self.change(id, now, |frame| {
            frame.owner = None;
            frame.epoch = frame.epoch.next();
            if frame.status == StackStatus::Processing {
                frame.status = rest;
            }
        });
        self.follow_root(id);
    }

    /// The call goes back to the queue.
    pub(super) fn free_call(&mut self, id: StackRunId, by: Freed, now: Timestamp) {
        self.change(id, now, |call| {
            call.status = StackStatus::Pending;
            call.owner = None;
            call.epoch = call.epoch.next();
            call.in_doubt |= by != Freed::NotAsked;
            match by {
                Freed::NotAsked => call.attempt = call.attempt.saturating_sub(1),
                Freed::Asked => {}
                Freed::Died => call.take_overs += 1,
            }
        });
    }

    fn reload_frame(
        &mut self,
        id: StackRunId,
        worker: WorkerId,
        now: Timestamp,
    ) -> Option<ClaimedFrame> {
        let entry = self.stack.get(&id)?;
        let mine = self.is_live(worker)
            && entry.row.owner == Some(worker)
            && entry.row.kind == StackKind::Frame;
        if !mine {
            return None;
        }
        if entry.row.turn.0 == 0 || entry.unread > 0 {
            return self.take_frame(id, worker, now);
        }
        self.release_frame(id, now);
        None
    }

    fn fire_timers(&mut self, now: Timestamp, grace_ms: i64, max: usize) -> usize {
        let late = now.plus_millis(-grace_ms);
        let due: Vec<_> = self
            .timers
            .iter()
            .take_while(|(due, _)| *due <= now)
            .filter(|(due, id)| *due <= late || self.is_parked_child(*id))
            .map(|(_, id)| *id)
            .take(max)
            .collect();
        for id in &due {
            self.settle(*id, Outcome::Completed(None), now);
        }
        due.len()
    }

    fn is_parked_child(&self, id: StackRunId) -> bool {
        let parent = self.row(id).and_then(|row| row.parent);
        parent
            .and_then(|parent| self.row(parent))
            .is_some_and(|frame| frame.owner.is_none())
    }

    fn owned_rows(&self, worker: WorkerId, woken_only: bool) -> Vec<OwnedRow> {
        let rows = self.owned.get(&worker).into_iter().flatten();
        rows.filter_map(|id| self.row(*id))
            .filter(|row| !woken_only || row.status == StackStatus::PendingResume)
            .map(|row| OwnedRow {
                id: row.id,
                kind: row.kind,
                status: row.status,
                epoch: row.epoch,
                task_run: row.task_run,
            })
            .collect()
    }

    fn next_due(&self) -> Option<Timestamp> {
        let waiting = self.waiting.first().map(|(due, _)| *due);
        let timer = self
            .timers
            .iter()
            .find(|(_, id)| self.is_parked_child(*id))
            .map(|(due, _)| *due);
        waiting.into_iter().chain(timer).min()
    }
}

/// Gives others a turn: on this thread, and on other ones.
async fn give_way() {
    let mut gave = false;
    futures::future::poll_fn(|context| {
        if std::mem::replace(&mut gave, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
