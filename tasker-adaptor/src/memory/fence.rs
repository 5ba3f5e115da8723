//! Whether a commit, a finish or a release may happen: decided before anything is written.

use std::collections::BTreeSet;

use super::mutation::Mutation;
use super::state::{State, is_unread};
use crate::{
    CallEnd, CallFinish, CommitRefused, Delivery, DeliverySource, FrameNext, Lease, RunStatus,
    StackKind, StackRun, StackRunId, StackStatus, TurnCommit,
};

/// What a fence says.
pub(super) enum Pass {
    Apply,
    /// It was applied before.
    Already,
}

impl State {
    /// The rules for a turn.
    pub(super) fn fence_turn(&self, turn: &TurnCommit) -> Result<Pass, CommitRefused> {
        if self.has_guard(Mutation::NoWorkerGuardOnCommit) && !self.is_live(turn.lease.worker) {
            return Err(CommitRefused::LeaseLost);
        }
        let frame = self.row(turn.frame).ok_or(CommitRefused::Gone)?;
        if self.has_guard(Mutation::NoTurnNumber) {
            if is_turn_applied(frame, turn) {
                return Ok(Pass::Already);
            }
            self.refuse_ended(frame)?;
            if frame.turn != turn.turn {
                return Err(CommitRefused::Superseded);
            }
        }
        self.refuse_ended(frame)?;
        refuse_other_owner(frame, turn.lease)?;
        self.check_deliveries(turn)?;
        if matches!(turn.next, FrameNext::Suspended) && !self.leaves_something(turn) {
            return Err(CommitRefused::SuspendedOnNothing);
        }
        Ok(Pass::Apply)
    }

    /// The rules for the end of an attempt.
    pub(super) fn fence_finish(&self, finish: &CallFinish) -> Result<Pass, CommitRefused> {
        if !self.is_live(finish.lease.worker) {
            return Err(CommitRefused::LeaseLost);
        }
        let call = self.row(finish.call).ok_or(CommitRefused::Gone)?;
        if call.epoch == finish.lease.epoch && is_finish_applied(call, &finish.end) {
            return Ok(Pass::Already);
        }
        self.fence_row(call, finish.lease)?;
        if call.status != StackStatus::Processing {
            return Err(CommitRefused::Superseded);
        }
        Ok(Pass::Apply)
    }

    /// The rules for giving a row back.
    pub(super) fn fence_release(
        &self,
        id: StackRunId,
        lease: Lease,
    ) -> Result<&StackRun, CommitRefused> {
        if !self.is_live(lease.worker) {
            return Err(CommitRefused::LeaseLost);
        }
        let row = self.row(id).ok_or(CommitRefused::Gone)?;
        self.fence_row(row, lease)?;
        Ok(row)
    }

    fn fence_row(&self, row: &StackRun, lease: Lease) -> Result<(), CommitRefused> {
        self.refuse_ended(row)?;
        refuse_other_owner(row, lease)
    }

    /// A completed run does not refuse: its detached rows still go on.
    fn refuse_ended(&self, row: &StackRun) -> Result<(), CommitRefused> {
        if row.status.is_terminal() || self.run_status(row.task_run) == Some(RunStatus::Cancelled) {
            return Err(CommitRefused::Ended);
        }
        Ok(())
    }

    fn check_deliveries(&self, turn: &TurnCommit) -> Result<(), CommitRefused> {
        if !self.has_guard(Mutation::NoDeliveryGuard) {
            return Ok(());
        }
        let mut seen = BTreeSet::new();
        for delivery in &turn.delivered {
            let fits = self.row(delivery.child).is_some_and(|child| {
                child.parent == Some(turn.frame)
                    && child.seq == delivery.seq
                    && child.delivered_order.is_none()
                    && fits_source(child, delivery, turn.lease)
            });
            if !fits || !seen.insert(delivery.child) {
                return Err(CommitRefused::Stale { seq: delivery.seq });
            }
        }
        Ok(())
    }

    /// Whether an open or unread child exists after the turn.
    fn leaves_something(&self, turn: &TurnCommit) -> bool {
        let Some(entry) = self.stack.get(&turn.frame) else {
            return false;
        };
        let gone: BTreeSet<StackRunId> = turn
            .delivered
            .iter()
            .map(|delivery| delivery.child)
            .chain(turn.dropped.iter().copied().filter(|id| {
                self.row(*id)
                    .is_none_or(|row| row.parent == Some(turn.frame) && !row.status.is_terminal())
            }))
            .collect();
        let made = turn.made.iter().filter(|new| !gone.contains(&new.id));
        let consumed = gone.iter().filter_map(|id| self.row(*id));
        let consumed = consumed.filter(|row| !row.status.is_terminal() || is_unread(row));
        entry.open + entry.unread + made.count() > consumed.count()
    }
}

/// The row shows that this very turn was committed.
fn is_turn_applied(frame: &StackRun, turn: &TurnCommit) -> bool {
    if frame.epoch != turn.lease.epoch {
        return false;
    }
    match turn.next {
        FrameNext::Blocked(_) => {
            frame.turn == turn.turn
                && (frame.status == StackStatus::Blocked || frame.status.is_terminal())
        }
        _ => frame.turn == turn.turn.next(),
    }
}

/// The row shows that this very end was recorded at its epoch.
fn is_finish_applied(call: &StackRun, end: &CallEnd) -> bool {
    match end {
        CallEnd::Settled(_) => call.status.is_settled(),
        CallEnd::RetryAt { .. } => call.status == StackStatus::Pending && call.outcome.is_some(),
        CallEnd::Blocked(_) => {
            call.status == StackStatus::Blocked || call.status == StackStatus::Failed
        }
    }
}

fn refuse_other_owner(row: &StackRun, lease: Lease) -> Result<(), CommitRefused> {
    if row.owner == Some(lease.worker) && row.epoch == lease.epoch {
        Ok(())
    } else {
        Err(CommitRefused::Superseded)
    }
}

fn fits_source(child: &StackRun, delivery: &Delivery, lease: Lease) -> bool {
    match &delivery.source {
        DeliverySource::Local { epoch, .. } => {
            child.kind == StackKind::Call
                && child.epoch == *epoch
                && (child.status.is_settled()
                    || (child.status == StackStatus::Processing
                        && child.owner == Some(lease.worker)))
        }
        DeliverySource::Recorded => child.status.is_settled(),
        DeliverySource::Timer => {
            child.kind == StackKind::Timer
                && (child.status == StackStatus::Pending || child.status.is_settled())
        }
    }
}
