//! The commit of turns: all fences, then all settlements and inserts, then all next statuses, then the wakes.

use std::collections::BTreeSet;

use super::fence::Pass;
use super::mutation::Mutation;
use super::settle::FrameEnd;
use super::state::State;
use crate::{
    CommitRefused, Delivery, DeliverySource, Epoch, FrameNext, MadeKind, NewStackRun, Outcome,
    RunStatus, StackKind, StackRun, StackRunId, StackStatus, StorageError, StoredLogLine,
    TaskRunId, Timestamp, TurnCommit, TurnReceipt,
};
use crate::{LogCursor, LogLine};

type Answer = Result<TurnReceipt, CommitRefused>;

impl State {
    pub(super) fn commit(&mut self, turns: &[TurnCommit]) -> Result<Vec<Answer>, StorageError> {
        check_use(turns)?;
        let passes: Vec<_> = turns.iter().map(|turn| self.fence_turn(turn)).collect();
        let applied: Vec<&TurnCommit> = turns
            .iter()
            .zip(&passes)
            .filter(|(_, pass)| matches!(pass, Ok(Pass::Apply)))
            .map(|(turn, _)| turn)
            .collect();
        self.check_made(&applied)?;
        for turn in &applied {
            self.write_turn(turn);
        }
        for turn in &applied {
            self.move_frame(turn);
        }
        for turn in &applied {
            self.after_turn(turn);
        }
        Ok(turns
            .iter()
            .zip(passes)
            .map(|(turn, pass)| self.receipt(turn, &pass?))
            .collect())
    }

    fn receipt(&self, turn: &TurnCommit, pass: &Pass) -> Answer {
        let frame = self.row(turn.frame).ok_or(CommitRefused::Gone)?;
        Ok(TurnReceipt {
            already_applied: matches!(pass, Pass::Already),
            status: frame.status,
        })
    }

    /// Ids are used once; a second row under an id would hide the first.
    fn check_made(&self, turns: &[&TurnCommit]) -> Result<(), StorageError> {
        let mut seen = BTreeSet::new();
        for new in turns.iter().flat_map(|turn| &turn.made) {
            if self.stack.contains_key(&new.id) || !seen.insert(new.id) {
                return Err(StorageError::Misuse {
                    what: format!(
                        "stack run {} was made twice; every row needs an id of its own",
                        new.id
                    ),
                });
            }
        }
        Ok(())
    }

    /// Settlements, inserts, drops and log lines.
    fn write_turn(&mut self, turn: &TurnCommit) {
        self.write_logs(turn.task_run, Some(turn.frame), &turn.logs, turn.time);
        if matches!(turn.next, FrameNext::Blocked(_)) {
            return;
        }
        for delivery in &turn.delivered {
            self.deliver(turn, delivery);
        }
        for new in &turn.made {
            self.make(turn, new);
        }
        for id in &turn.dropped {
            self.drop_child(turn, *id);
        }
        self.change(turn.frame, turn.time, |frame| {
            frame.turn = frame.turn.next();
            frame.attempt = 0;
            frame.in_doubt = false;
            frame.started_at.get_or_insert(turn.time);
        });
    }

    fn deliver(&mut self, turn: &TurnCommit, delivery: &Delivery) {
        let Some(child) = self.row(delivery.child) else {
            return;
        };
        if !child.status.is_terminal() {
            let outcome = match &delivery.source {
                DeliverySource::Local { outcome, .. } => outcome.clone(),
                DeliverySource::Recorded | DeliverySource::Timer => Outcome::Completed(None),
            };
            self.settle_silently(delivery.child, outcome, turn.time);
        }
        let mut order = 0;
        self.change(turn.frame, turn.time, |frame| {
            frame.delivered_count += 1;
            order = frame.delivered_count;
        });
        self.change(delivery.child, turn.time, |child| {
            child.delivered_order = Some(order);
            child.delivered_turn = Some(turn.turn);
            child.delivered_at = Some(turn.time);
        });
    }

    fn make(&mut self, turn: &TurnCommit, new: &NewStackRun) {
        let mut parent = None;
        self.change(turn.frame, turn.time, |frame| {
            frame.made_count += 1;
            parent = Some((frame.made_count, frame.depth));
        });
        let Some((seq, depth)) = parent else { return };
        let row = made_row(turn, new, seq, depth);
        let priority = self
            .runs
            .get(&turn.task_run)
            .map_or(0, |entry| entry.run.priority);
        let wait = (row.kind == StackKind::Signal).then(|| row.path.clone());
        self.insert(row, priority, turn.time);
        if let Some(name) = wait
            && !turn.dropped.contains(&new.id)
        {
            self.meet_stored_signal(turn.task_run, new.id, &name, turn.time);
        }
    }

    /// A wait that begins takes the oldest stored signal of its name.
    fn meet_stored_signal(&mut self, run: TaskRunId, wait: StackRunId, name: &str, now: Timestamp) {
        let stored = self.runs.get_mut(&run).and_then(|entry| {
            entry
                .signals
                .iter_mut()
                .find(|signal| signal.consumed_by.is_none() && signal.name == name)
        });
        if let Some(signal) = stored {
            signal.consumed_by = Some(wait);
            let payload = signal.payload.clone();
            self.settle_silently(wait, Outcome::Completed(Some(payload)), now);
        }
    }

    fn drop_child(&mut self, turn: &TurnCommit, id: StackRunId) {
        let Some((kind, run)) = self
            .row(id)
            .filter(|row| row.parent == Some(turn.frame) && !row.status.is_terminal())
            .map(|row| (row.kind, row.task_run))
        else {
            return;
        };
        self.cancel_row(id, turn.time);
        if kind == StackKind::Frame {
            self.leave_children(id, turn.time);
        }
        self.refresh_blocked(run);
    }

    /// The frame's next status.
    fn move_frame(&mut self, turn: &TurnCommit) {
        let end = match &turn.next {
            FrameNext::Suspended => {
                let checks = self.has_guard(Mutation::NoUnreadCheck);
                let unread = self.stack.get(&turn.frame).map_or(0, |entry| entry.unread);
                self.change(turn.frame, turn.time, |frame| {
                    frame.status = if checks && unread > 0 {
                        StackStatus::PendingResume
                    } else {
                        StackStatus::SuspendedWaitingChild
                    };
                });
                return;
            }
            FrameNext::Blocked(reason) => {
                self.block(turn.frame, reason.clone(), turn.time);
                return;
            }
            FrameNext::Completed(value) => FrameEnd::With(Outcome::Completed(value.clone())),
            FrameNext::Failed(failure) => FrameEnd::With(Outcome::Failed(failure.clone())),
            FrameNext::Cancelled => FrameEnd::Cancelled,
        };
        self.end_frame(turn.frame, end, turn.time);
    }

    /// Wakes that the whole batch makes due; a run that its root cancelled keeps nothing open, whatever else the batch made in it.
    fn after_turn(&mut self, turn: &TurnCommit) {
        if self.has_guard(Mutation::NoUnreadCheck) {
            self.wake(turn.frame, turn.time);
        }
        self.wake_parent(turn.frame, turn.time);
        if self.run_status(turn.task_run) == Some(RunStatus::Cancelled) {
            self.cancel_open_rows(turn.task_run, turn.time);
        }
    }

    /// Log lines at the end of a run's log.
    pub(super) fn write_logs(
        &mut self,
        run: TaskRunId,
        frame: Option<StackRunId>,
        lines: &[LogLine],
        time: Timestamp,
    ) {
        let Some(entry) = self.runs.get_mut(&run) else {
            return;
        };
        for line in lines {
            entry.logs.push(StoredLogLine {
                cursor: LogCursor(entry.logs.len() as u64 + 1),
                frame,
                time,
                line: line.clone(),
            });
        }
    }
}

/// Rules that only a caller with a bug breaks.
fn check_use(turns: &[TurnCommit]) -> Result<(), StorageError> {
    let mut frames = BTreeSet::new();
    for turn in turns {
        if !frames.insert(turn.frame) {
            return Err(StorageError::Misuse {
                what: format!("frame {} has two turns in one batch", turn.frame),
            });
        }
        let writes =
            !turn.delivered.is_empty() || !turn.made.is_empty() || !turn.dropped.is_empty();
        if writes && matches!(turn.next, FrameNext::Blocked(_)) {
            return Err(StorageError::Misuse {
                what: format!(
                    "the blocked turn of frame {} delivers, makes or drops; only its log lines are written",
                    turn.frame
                ),
            });
        }
    }
    Ok(())
}

fn made_row(turn: &TurnCommit, new: &NewStackRun, seq: u32, depth: u32) -> StackRun {
    let mut row = StackRun {
        id: new.id,
        task_run: turn.task_run,
        parent: Some(turn.frame),
        kind: StackKind::Call,
        seq: crate::CallSeq(seq),
        depth,
        status: StackStatus::Pending,
        owner: None,
        epoch: Epoch(0),
        turn: crate::TurnNo(0),
        made_count: 0,
        delivered_count: 0,
        delivered_order: None,
        delivered_turn: None,
        delivered_at: None,
        attempt: 0,
        in_doubt: false,
        take_overs: 0,
        due_at: None,
        service: String::new(),
        path: String::new(),
        args: None,
        policy: None,
        version: None,
        outcome: None,
        blocked: None,
        created_at: turn.time,
        started_at: None,
        settled_at: None,
    };
    match &new.kind {
        MadeKind::Call {
            service,
            path,
            args,
            policy,
        } => {
            row.service.clone_from(service);
            row.path.clone_from(path);
            row.args = Some(args.clone());
            row.policy.clone_from(policy);
        }
        MadeKind::Frame {
            task,
            version,
            input,
            depth,
        } => {
            row.kind = StackKind::Frame;
            "tasks".clone_into(&mut row.service);
            task.as_str().clone_into(&mut row.path);
            row.version = Some(version.clone());
            row.args = Some(input.clone());
            row.depth = *depth;
        }
        MadeKind::Timer { path, args, due_at } => {
            row.kind = StackKind::Timer;
            "timer".clone_into(&mut row.service);
            row.path.clone_from(path);
            row.args = Some(args.clone());
            row.due_at = Some(*due_at);
        }
        MadeKind::Signal { name } => {
            row.kind = StackKind::Signal;
            "signal".clone_into(&mut row.service);
            row.path.clone_from(name);
        }
    }
    if new.claimed && matches!(row.kind, StackKind::Call | StackKind::Frame) {
        row.status = StackStatus::Processing;
        row.owner = Some(turn.lease.worker);
        row.epoch = Epoch(1);
        if row.kind == StackKind::Call {
            row.attempt = 1;
            row.started_at = Some(turn.time);
        }
    }
    row
}
