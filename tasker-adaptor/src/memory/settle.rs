//! How rows end and whom that wakes: the one place for it, used by every operation.

use super::state::State;
use crate::{
    BlockedReason, Failure, Hint, Outcome, RunStatus, StackKind, StackRunId, StackStatus,
    TaskRunId, Timestamp,
};

impl State {
    /// Settles a row and wakes its frame. The epoch is kept: with it a repeated request is recognised.
    pub(super) fn settle(&mut self, id: StackRunId, outcome: Outcome, now: Timestamp) {
        self.settle_silently(id, outcome, now);
        self.wake_parent(id, now);
    }

    /// Settles a row whose frame is looked at later, or consumes it.
    pub(super) fn settle_silently(&mut self, id: StackRunId, outcome: Outcome, now: Timestamp) {
        self.change(id, now, |row| {
            row.status = outcome.status();
            row.outcome = Some(outcome);
            row.owner = None;
            row.blocked = None;
            row.settled_at = Some(now);
        });
    }

    pub(super) fn wake_parent(&mut self, child: StackRunId, now: Timestamp) {
        if let Some(parent) = self.row(child).and_then(|row| row.parent) {
            self.wake(parent, now);
        }
    }

    /// A suspended frame with an unread child goes on.
    pub(super) fn wake(&mut self, frame: StackRunId, now: Timestamp) {
        let asleep = self.stack.get(&frame).is_some_and(|entry| {
            entry.row.status == StackStatus::SuspendedWaitingChild && entry.unread > 0
        });
        if asleep {
            self.change(frame, now, |row| row.status = StackStatus::PendingResume);
        }
    }

    /// Ends a row without a result.
    pub(super) fn cancel_row(&mut self, id: StackRunId, now: Timestamp) {
        self.change(id, now, |row| {
            row.status = StackStatus::Cancelled;
            row.owner = None;
            row.blocked = None;
            row.epoch = row.epoch.next();
            row.settled_at = Some(now);
        });
    }

    /// Ends a frame: its run with it (root) or its parent woken (nested); its timers and signal waits are cancelled,
    /// what is blocked below it fails (no person can help what nobody waits for), the rest goes on detached.
    pub(super) fn end_frame(&mut self, id: StackRunId, end: FrameEnd, now: Timestamp) {
        let Some((run, is_root)) = self.row(id).map(|row| (row.task_run, row.parent.is_none()))
        else {
            return;
        };
        let (status, run_status, outcome) = match end {
            FrameEnd::With(outcome) => {
                let run_status = match outcome {
                    Outcome::Completed(_) => RunStatus::Completed,
                    Outcome::Failed(_) => RunStatus::Failed,
                };
                (outcome.status(), run_status, Some(outcome))
            }
            FrameEnd::Cancelled if is_root => (StackStatus::Cancelled, RunStatus::Cancelled, None),
            FrameEnd::Cancelled => {
                let outcome = Outcome::Failed(Failure::cancelled());
                (outcome.status(), RunStatus::Failed, Some(outcome))
            }
        };
        self.change(id, now, |row| {
            row.status = status;
            row.outcome.clone_from(&outcome);
            row.owner = None;
            row.blocked = None;
            row.settled_at = Some(now);
        });
        self.leave_children(id, now);
        if is_root {
            self.end_run(run, run_status, outcome, now);
        } else {
            self.wake_parent(id, now);
        }
        self.refresh_blocked(run);
    }

    /// Ends a run.
    pub(super) fn end_run(
        &mut self,
        id: TaskRunId,
        status: RunStatus,
        outcome: Option<Outcome>,
        now: Timestamp,
    ) {
        let Some(entry) = self.runs.get_mut(&id) else {
            return;
        };
        entry.run.status = status;
        entry.run.outcome = outcome;
        entry.run.blocked = None;
        entry.run.ended_at = Some(now);
        if let Some(cancel_by) = entry.run.cancel_by {
            self.cancel_by.remove(&(cancel_by, id));
        }
        self.ended.insert((now, id));
        self.hint(Hint::Ended(id));
    }

    /// Ends a run and all that is open in it.
    pub(super) fn cancel_run(&mut self, id: TaskRunId, now: Timestamp) {
        self.cancel_open_rows(id, now);
        self.end_run(id, RunStatus::Cancelled, None, now);
        self.hint(Hint::Cancel(id));
    }

    pub(super) fn cancel_open_rows(&mut self, run: TaskRunId, now: Timestamp) {
        for id in self.open_rows(run) {
            self.cancel_row(id, now);
        }
    }

    pub(super) fn open_rows(&self, run: TaskRunId) -> Vec<StackRunId> {
        let rows = self.runs.get(&run).map(|entry| &entry.rows);
        rows.into_iter()
            .flatten()
            .copied()
            .filter(|id| self.row(*id).is_some_and(|row| !row.status.is_terminal()))
            .collect()
    }

    /// A row needs a person. A detached one fails instead: nobody waits for it.
    pub(super) fn block(&mut self, id: StackRunId, reason: BlockedReason, now: Timestamp) {
        let Some(row) = self.row(id) else { return };
        let (run, is_frame) = (row.task_run, row.kind == StackKind::Frame);
        if self.is_detached(id) {
            let outcome = Outcome::Failed(blocked_failure(&reason));
            if is_frame {
                self.end_frame(id, FrameEnd::With(outcome), now);
            } else {
                self.settle(id, outcome, now);
            }
            return;
        }
        self.change(id, now, |row| {
            row.status = StackStatus::Blocked;
            row.owner = None;
            row.blocked = Some(reason);
        });
        self.refresh_blocked(run);
    }

    /// Makes the run say whether one of its rows needs a person.
    pub(super) fn refresh_blocked(&mut self, id: TaskRunId) {
        let Some(entry) = self.runs.get(&id) else {
            return;
        };
        if entry.run.status.is_terminal() {
            return;
        }
        let reasons: Vec<_> = entry
            .blocked
            .iter()
            .filter_map(|row| self.row(*row).and_then(|row| row.blocked.clone()))
            .collect();
        let was_blocked = entry.run.status == RunStatus::Blocked;
        if reasons.is_empty() {
            if was_blocked {
                let status = self.status_of_root(id);
                self.edit_run(id, |run| {
                    run.status = status;
                    run.blocked = None;
                });
            }
            return;
        }
        self.edit_run(id, |run| {
            run.status = RunStatus::Blocked;
            if !run
                .blocked
                .as_ref()
                .is_some_and(|first| reasons.contains(first))
            {
                run.blocked = reasons.into_iter().next();
            }
        });
        if !was_blocked {
            self.hint(Hint::Ended(id));
        }
    }

    /// After the root frame was claimed, parked or taken over: the run says so, unless it is blocked or ended.
    pub(super) fn follow_root(&mut self, frame: StackRunId) {
        let Some(run) = self
            .row(frame)
            .filter(|row| row.parent.is_none())
            .map(|row| row.task_run)
        else {
            return;
        };
        let status = self.status_of_root(run);
        self.edit_run(run, |run| {
            if !run.status.is_terminal() && run.status != RunStatus::Blocked {
                run.status = status;
            }
        });
    }

    pub(super) fn edit_run(&mut self, id: TaskRunId, edit: impl FnOnce(&mut crate::TaskRun)) {
        if let Some(entry) = self.runs.get_mut(&id) {
            edit(&mut entry.run);
        }
    }

    fn status_of_root(&self, run: TaskRunId) -> RunStatus {
        let root = self.runs.get(&run).and_then(|entry| self.row(entry.root));
        match root {
            Some(root) if root.owner.is_some() => RunStatus::Processing,
            Some(root) if root.turn.0 > 0 => RunStatus::Suspended,
            _ => RunStatus::Queued,
        }
    }

    /// What becomes of the children of a frame that has ended.
    pub(super) fn leave_children(&mut self, frame: StackRunId, now: Timestamp) {
        let asleep: Vec<_> = self
            .children(frame)
            .filter(|row| !row.status.is_terminal())
            .filter(|row| matches!(row.kind, StackKind::Timer | StackKind::Signal))
            .map(|row| row.id)
            .collect();
        for id in asleep {
            self.cancel_row(id, now);
        }
        let run = self.row(frame).map(|row| row.task_run);
        let blocked: Vec<_> = run
            .and_then(|run| self.runs.get(&run))
            .into_iter()
            .flat_map(|entry| entry.blocked.iter().copied())
            .filter(|id| self.is_detached(*id))
            .collect();
        for id in blocked {
            if let Some(reason) = self.row(id).and_then(|row| row.blocked.clone()) {
                self.block(id, reason, now);
            }
        }
    }
}

/// How a frame ends.
pub(super) enum FrameEnd {
    With(Outcome),
    Cancelled,
}

/// What a row fails with that would be blocked if somebody waited for it.
fn blocked_failure(reason: &BlockedReason) -> Failure {
    Failure::new("BlockedError", reason.to_string())
}
