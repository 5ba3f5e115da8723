//! A hot frame: what it can be, and what each event does to it.
//!
//! Invariants: one uncommitted turn at a time (E1) · nothing leaves before the receipt of the turn that caused it ·
//! every local outcome is kept until the receipt of the write that records it (E3) · a refused turn drops the VM and keeps
//! its results (E2) · a child is delivered once · an ended frame never moves.

use std::collections::{BTreeMap, VecDeque};

use tasker_adaptor::{
    CallSeq, CommitRefused, Delivery, DeliverySource, Epoch, FrameNext, Lease, LogLine, MadeKind,
    NewStackRun, Outcome, StackRunId, StackStatus, TaskRunId, Timestamp, TurnCommit, TurnNo,
};

/// What does not change while the frame is hot.
#[derive(Clone, Debug)]
pub(crate) struct FrameFacts {
    pub(crate) id: StackRunId,
    pub(crate) task_run: TaskRunId,
    pub(crate) lease: Lease,
}

/// A hot frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) facts: FrameFacts,
    /// Committed turns.
    turn: TurnNo,
    /// Children made in committed turns.
    made: u32,
    /// Time of the last turn.
    last_time: Timestamp,
    /// Results are recorded before they are delivered: the frame was taken over and has not committed since.
    record_first: bool,
    /// The VM was lost while its turn was being committed.
    vm_lost: bool,
    /// Open children, and settled ones not yet delivered.
    children: BTreeMap<CallSeq, Child>,
    /// Settled children in the order in which they will be delivered.
    ready: VecDeque<Ready>,
    phase: Phase,
}

/// What the frame is doing.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// Its VM is being built from rows.
    Loading,
    /// Its VM is in a turn that consumed these.
    Turning { consumed: Vec<Ready> },
    /// Its turn is being committed.
    Committing {
        consumed: Vec<Ready>,
        /// What becomes known of them before the receipt (a claim of what is stored already) is kept with them.
        made: Vec<Child>,
        dropped: Vec<CallSeq>,
        ends: bool,
    },
    /// Waits for its children.
    Waiting,
    /// Is being given back.
    Parking,
    /// Is not this worker's any more, or has ended.
    Over,
}

/// An open child as this worker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) id: StackRunId,
    pub(crate) kind: ChildKind,
}

impl Child {
    /// A child whose row is committed with the turn that made it.
    fn of(row: &NewStackRun) -> Self {
        let kind = match &row.kind {
            MadeKind::Timer { due_at, .. } => ChildKind::Timer(*due_at),
            MadeKind::Call { .. } if row.claimed => ChildKind::Here(Epoch(1)),
            MadeKind::Call { .. } | MadeKind::Frame { .. } | MadeKind::Signal { .. } => {
                ChildKind::Elsewhere
            }
        };
        Self { id: row.id, kind }
    }
}

/// Where the outcome of an open child will come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildKind {
    /// This worker asks, at this epoch of the call.
    Here(Epoch),
    /// From its row: somebody else asks, or it is a nested frame or a signal wait.
    Elsewhere,
    /// From the clock.
    Timer(Timestamp),
    /// It is in `ready` already.
    Ready,
}

/// A settled child that waits for its delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) seq: CallSeq,
    pub(crate) id: StackRunId,
    pub(crate) source: ReadySource,
    pub(crate) outcome: Outcome,
}

/// Where its outcome is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadySource {
    /// Only here.
    Local(Epoch),
    /// In its row.
    Recorded,
    /// A timer that is due.
    Timer,
}

/// What can happen to a hot frame.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The VM is built and has replayed its journal (`turn` > 0), with these settled children unread.
    Loaded { unread: Vec<Ready> },
    /// The VM ended a turn.
    TurnEnded {
        time: Timestamp,
        made: Vec<NewStackRun>,
        dropped: Vec<CallSeq>,
        logs: Vec<LogLine>,
        next: FrameNext,
    },
    /// The turn is committed, with these rows; `status` is the frame's row now.
    Committed {
        status: StackStatus,
        made: Vec<NewStackRun>,
    },
    /// The turn was refused whole.
    Refused(CommitRefused),
    /// A call that this worker asks was answered, at this epoch.
    Answered {
        seq: CallSeq,
        id: StackRunId,
        epoch: Epoch,
        outcome: Outcome,
    },
    /// Children were found settled in their rows.
    Recorded(Vec<Ready>),
    /// This worker claimed an open call of the frame, at this epoch.
    CallClaimed { seq: CallSeq, epoch: Epoch },
    /// This worker gave an attempt back for a later one: its outcome comes from its row, or by a new claim.
    CallReleased { seq: CallSeq, epoch: Epoch },
    /// A timer is due.
    TimerDue { seq: CallSeq },
    /// The frame should make room.
    Park,
    /// It was given back (or was not this worker's any more).
    Parked,
    /// The VM is gone with its thread; the rows are still this worker's.
    VmLost,
    /// The worker's lease is gone.
    LeaseLost,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Give these to the VM, in this order, as one turn.
    Deliver(Vec<Ready>),
    /// Commit this turn; send it again until it is answered.
    Commit(TurnCommit),
    /// The child is committed: ask the service, start the nested frame, or arm the timer; a pending row is for anyone.
    Begin { seq: CallSeq, row: NewStackRun },
    /// The child was given up: cancel its call in flight, disarm its timer.
    Stop { seq: CallSeq, child: Child },
    /// Record this outcome by itself.
    Record {
        seq: CallSeq,
        id: StackRunId,
        epoch: Epoch,
        outcome: Outcome,
    },
    /// Read the settled, unread children.
    ReadUnread,
    /// Give the frame back; drop its VM after the reply.
    Release,
    /// The VM is worthless: drop it, and load the frame again if it is still this worker's.
    Reload,
    /// The VM is worthless: drop it.
    Drop,
    /// The frame has ended as its last committed turn said.
    Ended,
}

impl Frame {
    /// A frame that was claimed and is being loaded.
    pub(crate) fn loading(
        facts: FrameFacts,
        turn: TurnNo,
        made: u32,
        last_time: Timestamp,
        record_first: bool,
        children: BTreeMap<CallSeq, Child>,
    ) -> Self {
        Self {
            facts,
            turn,
            made,
            last_time,
            record_first,
            vm_lost: false,
            children,
            ready: VecDeque::new(),
            phase: Phase::Loading,
        }
    }

    #[cfg(test)]
    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(crate) fn turn(&self) -> TurnNo {
        self.turn
    }

    /// Time of a turn that begins now: never before the last (E9).
    pub(crate) fn turn_time(&self, now: Timestamp) -> Timestamp {
        now.max(self.last_time)
    }

    /// Nothing to do but wait.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Waiting) && self.ready.is_empty()
    }

    /// Open children: those whose outcome has not arrived.
    pub(crate) fn open(&self) -> impl Iterator<Item = (CallSeq, Child)> + '_ {
        self.children
            .iter()
            .filter(|(_, child)| child.kind != ChildKind::Ready)
            .map(|(seq, child)| (*seq, *child))
    }

    /// Children whose rows are this worker's though it asks nobody about them now: those of the turn that is being committed,
    /// and those whose outcome is kept here until the receipt of the write that records it (E3).
    pub(crate) fn held(&self) -> impl Iterator<Item = StackRunId> + '_ {
        let (consumed, made): (&[Ready], &[Child]) = match &self.phase {
            Phase::Committing { consumed, made, .. } => (consumed, made),
            Phase::Turning { consumed } => (consumed, &[]),
            _ => (&[], &[]),
        };
        let kept = consumed
            .iter()
            .chain(&self.ready)
            .filter(|ready| matches!(ready.source, ReadySource::Local(_)))
            .map(|ready| ready.id);
        made.iter().map(|child| child.id).chain(kept)
    }

    /// The one `match`: every event in every phase.
    pub(crate) fn step(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Loaded { unread } => {
                if matches!(self.phase, Phase::Loading) {
                    self.phase = Phase::Waiting;
                    self.admit(unread);
                    self.deliver(effects);
                }
            }
            Event::TurnEnded {
                time,
                made,
                dropped,
                logs,
                next,
            } => {
                let consumed = match &mut self.phase {
                    // The first turn of a frame has nothing to deliver.
                    Phase::Loading => Vec::new(),
                    Phase::Turning { consumed } => std::mem::take(consumed),
                    _ => return,
                };
                let (turn, phase) = self.commit(time, consumed, made, dropped, logs, next);
                self.phase = phase;
                effects.push(Effect::Commit(turn));
            }
            Event::Committed { status, made: rows } => {
                let Phase::Committing {
                    consumed,
                    made,
                    dropped,
                    ends,
                } = std::mem::replace(&mut self.phase, Phase::Waiting)
                else {
                    return;
                };
                for delivered in consumed {
                    self.children.remove(&delivered.seq);
                }
                self.committed(made, rows, &dropped, ends, status, effects);
            }
            Event::Refused(reason) => {
                let Phase::Committing { consumed, .. } =
                    std::mem::replace(&mut self.phase, Phase::Over)
                else {
                    return;
                };
                self.give_up(consumed, effects);
                effects.push(match reason {
                    CommitRefused::Superseded
                    | CommitRefused::Stale { .. }
                    | CommitRefused::SuspendedOnNothing => Effect::Reload,
                    _ => Effect::Drop,
                });
            }
            Event::Answered {
                seq,
                id,
                epoch,
                outcome,
            } => self.answered(seq, id, epoch, outcome, effects),
            Event::Recorded(found) => {
                if matches!(self.phase, Phase::Over | Phase::Loading) {
                    return;
                }
                self.admit(found);
                self.deliver(effects);
            }
            Event::CallClaimed { seq, epoch } => {
                if let Some(kind) = self.kind_mut(seq)
                    && *kind == ChildKind::Elsewhere
                {
                    *kind = ChildKind::Here(epoch);
                }
            }
            Event::CallReleased { seq, epoch } => {
                if let Some(kind) = self.kind_mut(seq)
                    && *kind == ChildKind::Here(epoch)
                {
                    *kind = ChildKind::Elsewhere;
                }
            }
            Event::TimerDue { seq } => {
                if matches!(self.phase, Phase::Over | Phase::Parking) {
                    return;
                }
                if let Some(child) = self.children.get_mut(&seq)
                    && matches!(child.kind, ChildKind::Timer(_))
                {
                    child.kind = ChildKind::Ready;
                    self.ready.push_back(Ready {
                        seq,
                        id: child.id,
                        source: ReadySource::Timer,
                        outcome: Outcome::Completed(None),
                    });
                    self.deliver(effects);
                }
            }
            Event::Park => {
                if self.is_idle() {
                    self.phase = Phase::Parking;
                    effects.push(Effect::Release);
                }
            }
            Event::Parked => {
                if matches!(self.phase, Phase::Parking) {
                    self.phase = Phase::Over;
                    self.give_up(Vec::new(), effects);
                    effects.push(Effect::Drop);
                }
            }
            Event::VmLost => {
                let consumed = match &mut self.phase {
                    // The turn itself is whole: its receipt decides.
                    Phase::Committing { .. } => {
                        self.vm_lost = true;
                        return;
                    }
                    Phase::Over | Phase::Parking => return,
                    Phase::Turning { consumed } => std::mem::take(consumed),
                    Phase::Loading | Phase::Waiting => Vec::new(),
                };
                self.phase = Phase::Over;
                self.give_up(consumed, effects);
                effects.push(Effect::Reload);
            }
            Event::LeaseLost => {
                let consumed = match std::mem::replace(&mut self.phase, Phase::Over) {
                    Phase::Over => return,
                    Phase::Turning { consumed } | Phase::Committing { consumed, .. } => consumed,
                    Phase::Loading | Phase::Waiting | Phase::Parking => Vec::new(),
                };
                self.give_up(consumed, effects);
                effects.push(Effect::Drop);
            }
        }
    }

    /// Where the outcome of a child will come from. A pending row can be claimed as soon as its turn is stored,
    /// which is before the turn's receipt is here.
    fn kind_mut(&mut self, seq: CallSeq) -> Option<&mut ChildKind> {
        if let Some(child) = self.children.get_mut(&seq) {
            return Some(&mut child.kind);
        }
        let Phase::Committing { made, .. } = &mut self.phase else {
            return None;
        };
        let index = seq.0.checked_sub(self.made + 1)?;
        made.get_mut(index as usize).map(|made| &mut made.kind)
    }

    /// A call asked here was answered. While the frame is hot the outcome rides with a turn; else, and when the frame does not
    /// expect it, it is recorded by itself (E6): storage knows whether it is still wanted.
    fn answered(
        &mut self,
        seq: CallSeq,
        id: StackRunId,
        epoch: Epoch,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let by_itself = self.record_first
            || matches!(self.phase, Phase::Parking | Phase::Over | Phase::Loading);
        match self.children.get_mut(&seq) {
            Some(child) if child.kind == ChildKind::Here(epoch) && !by_itself => {
                child.kind = ChildKind::Ready;
                self.ready.push_back(Ready {
                    seq,
                    id,
                    source: ReadySource::Local(epoch),
                    outcome,
                });
                self.deliver(effects);
            }
            expected => {
                if let Some(child) = expected
                    && child.kind == ChildKind::Here(epoch)
                {
                    // Its frame will find it in its row.
                    child.kind = ChildKind::Elsewhere;
                }
                effects.push(Effect::Record {
                    seq,
                    id,
                    epoch,
                    outcome,
                });
            }
        }
    }

    /// Takes children found settled in their rows, unless they are known to be ready or delivered.
    fn admit(&mut self, found: Vec<Ready>) {
        for ready in found {
            if let Some(kind) = self.kind_mut(ready.seq)
                && *kind != ChildKind::Ready
            {
                *kind = ChildKind::Ready;
                self.ready.push_back(ready);
            }
        }
    }

    /// Begins a turn when the frame waits and something is ready.
    fn deliver(&mut self, effects: &mut Vec<Effect>) {
        if self.is_idle() || !matches!(self.phase, Phase::Waiting) {
            return;
        }
        let consumed: Vec<Ready> = self.ready.drain(..).collect();
        effects.push(Effect::Deliver(consumed.clone()));
        self.phase = Phase::Turning { consumed };
    }

    fn commit(
        &self,
        time: Timestamp,
        consumed: Vec<Ready>,
        made: Vec<NewStackRun>,
        dropped: Vec<CallSeq>,
        logs: Vec<LogLine>,
        next: FrameNext,
    ) -> (TurnCommit, Phase) {
        let children: Vec<Child> = made.iter().map(Child::of).collect();
        let turn = TurnCommit {
            frame: self.facts.id,
            task_run: self.facts.task_run,
            turn: self.turn,
            lease: self.facts.lease,
            time,
            delivered: consumed
                .iter()
                .map(|ready| Delivery {
                    child: ready.id,
                    seq: ready.seq,
                    source: match ready.source {
                        ReadySource::Local(epoch) => DeliverySource::Local {
                            epoch,
                            outcome: ready.outcome.clone(),
                        },
                        ReadySource::Recorded => DeliverySource::Recorded,
                        ReadySource::Timer => DeliverySource::Timer,
                    },
                })
                .collect(),
            // A child that was made and given up in one turn is still a row, so that numbering stays as the task saw it.
            dropped: dropped
                .iter()
                .filter_map(|seq| self.child_id(*seq, &children))
                .collect(),
            made,
            logs,
            next,
        };
        let ends = !matches!(turn.next, FrameNext::Suspended);
        (
            turn,
            Phase::Committing {
                consumed,
                made: children,
                dropped,
                ends,
            },
        )
    }

    fn child_id(&self, seq: CallSeq, made: &[Child]) -> Option<StackRunId> {
        if let Some(child) = self.children.get(&seq) {
            return Some(child.id);
        }
        let index = seq.0.checked_sub(self.made + 1)?;
        made.get(index as usize).map(|child| child.id)
    }

    fn committed(
        &mut self,
        made: Vec<Child>,
        rows: Vec<NewStackRun>,
        dropped: &[CallSeq],
        ends: bool,
        status: StackStatus,
        effects: &mut Vec<Effect>,
    ) {
        self.turn = self.turn.next();
        self.record_first = false;
        for (child, row) in made.into_iter().zip(rows) {
            self.made += 1;
            let seq = CallSeq(self.made);
            self.children.insert(seq, child);
            // The timers of an ended frame are cancelled with it.
            let moot = ends && matches!(child.kind, ChildKind::Timer(_));
            if !moot && !dropped.contains(&seq) {
                effects.push(Effect::Begin { seq, row });
            }
        }
        for seq in dropped {
            if let Some(child) = self.children.remove(seq) {
                self.ready.retain(|ready| ready.seq != *seq);
                effects.push(Effect::Stop { seq: *seq, child });
            }
        }
        if ends {
            self.phase = Phase::Over;
            self.give_up(Vec::new(), effects);
            effects.push(Effect::Ended);
            return;
        }
        if self.vm_lost {
            self.phase = Phase::Over;
            self.give_up(Vec::new(), effects);
            effects.push(Effect::Reload);
            return;
        }
        self.phase = Phase::Waiting;
        if status == StackStatus::PendingResume {
            effects.push(Effect::ReadUnread);
        }
        self.deliver(effects);
    }

    /// Keeps the results of a VM that is dropped: each local outcome is recorded by itself (E2).
    fn give_up(&mut self, consumed: Vec<Ready>, effects: &mut Vec<Effect>) {
        for ready in consumed.into_iter().chain(self.ready.drain(..)) {
            if let ReadySource::Local(epoch) = ready.source {
                effects.push(Effect::Record {
                    seq: ready.seq,
                    id: ready.id,
                    epoch,
                    outcome: ready.outcome,
                });
            }
        }
    }
}
