//! Hot frames: the machine's effects carried out to the world.

use std::sync::Arc;

use tasker_adaptor::{
    CallSeq, ClaimedFrame, Epoch, Failure, FrameNext, Lease, MadeKind, NewStackRun, Outcome,
    RunContext, StackKind, StackRun, StackRunId, StackStatus, TaskName, TaskRunId, TaskVersion,
    Timestamp,
};
use tokio_util::sync::CancellationToken;

use super::asking::Asking;
use super::core::{Core, Message};
use super::programs::Loaded;
use super::threads::VmKey;
use crate::run::{ChildKind, Effect, Event, Frame, Ready, ReadySource, TASKS};
use crate::vm::{Turn, VmDeliver};

/// A frame whose VM is here.
pub(crate) struct HotFrame {
    pub(crate) machine: Frame,
    pub(crate) vm: Option<VmKey>,
    pub(crate) parent: Option<(StackRunId, CallSeq)>,
    pub(crate) depth: u32,
    pub(crate) context: Arc<RunContext>,
    pub(crate) loaded: Option<Arc<Loaded>>,
    /// A cancel of the run has reached this frame.
    pub(crate) cancelled: bool,
    /// A turn that waits for the current versions of the nested tasks it calls.
    pub(crate) held: Option<(Timestamp, Turn)>,
    /// What the turn under commit makes of the frame.
    pub(crate) next: Option<FrameNext>,
    /// Settled children that were read and wait for the replay to end.
    pub(crate) unread: Vec<Ready>,
    /// `tasker.run`, and within it the `tasker.turn` under way: the parent of the calls that it makes.
    pub(crate) span: tracing::Span,
    pub(crate) turn_span: tracing::Span,
    /// Since when it has been idle, on the monotonic clock.
    pub(crate) idle_since: Option<i64>,
}

impl HotFrame {
    pub(crate) fn run(&self) -> TaskRunId {
        self.machine.facts.task_run
    }
}

impl Core {
    /// Frames that are not merely waiting.
    pub(crate) fn active(&self) -> usize {
        self.hot.len() - self.idle.len() + self.preparing.len()
    }

    /// Steps the machines until nothing is left to step.
    pub(crate) fn step_events(&mut self) {
        let mut effects = Vec::new();
        while let Some((id, event)) = self.events.pop_front() {
            let Some(frame) = self.hot.get_mut(&id) else {
                continue;
            };
            frame.machine.step(event, &mut effects);
            for effect in effects.drain(..) {
                self.carry_out(id, effect);
            }
            self.note_idle(id);
        }
    }

    pub(crate) fn carry_out(&mut self, id: StackRunId, effect: Effect) {
        let Some(frame) = self.hot.get_mut(&id) else {
            return;
        };
        match effect {
            Effect::Deliver(items) => {
                let time = frame.machine.turn_time(self.shared.clock.now());
                frame.turn_span = turn_span(&frame.span, id, frame.machine.turn());
                frame.cancelled |= items.iter().any(|ready| is_cancel(&ready.outcome));
                let items = items
                    .into_iter()
                    .map(|ready| (ready.seq, ready.outcome))
                    .collect();
                if let Some(key) = frame.vm {
                    self.threads.deliver(key, VmDeliver { time, items });
                }
            }
            Effect::Commit(turn) => {
                let ends = !matches!(turn.next, FrameNext::Suspended | FrameNext::Blocked(_));
                if ends && frame.parent.is_none() {
                    self.ending.insert(turn.task_run);
                }
                frame.next = Some(turn.next.clone());
                self.commits.push(turn);
            }
            Effect::Begin { seq, row } => self.begin_child(id, seq, row),
            Effect::Stop { seq, child } => match child.kind {
                ChildKind::Timer(due) => {
                    self.timers.remove(&(due, id, seq));
                }
                _ => {
                    if let Some(asked) = self.calls.remove(&child.id) {
                        asked.token.cancel();
                    }
                }
            },
            Effect::Record {
                id: call,
                epoch,
                outcome,
                ..
            } => self.record(call, epoch, outcome),
            Effect::ReadUnread => {
                let shared = Arc::clone(&self.shared);
                self.spawn(async move {
                    let children = shared
                        .insist("read settled calls", || shared.storage.unread(id))
                        .await?;
                    Some(Message::Unread {
                        frame: id,
                        children,
                    })
                });
            }
            Effect::Release => {
                // Whatever becomes of it, it is not this VM that goes on.
                if let Some(key) = frame.vm.take() {
                    self.vms.remove(&key);
                    self.threads.drop_vm(key);
                }
                let lease = frame.machine.facts.lease;
                self.releases.push((id, lease));
            }
            Effect::Reload => {
                self.forget(id);
                self.reload(id);
            }
            Effect::Drop => self.forget(id),
            Effect::Ended => self.ended(id),
        }
    }

    /// A child that a committed turn made is begun.
    fn begin_child(&mut self, frame: StackRunId, seq: CallSeq, row: NewStackRun) {
        let Some(parent) = self.hot.get(&frame) else {
            return;
        };
        match row.kind {
            MadeKind::Call {
                service,
                path,
                args,
                policy,
            } if row.claimed => {
                let lease = Lease {
                    worker: self.worker,
                    epoch: Epoch(1),
                };
                let context = Arc::clone(&parent.context);
                let run = parent.run();
                let grants = parent.loaded.clone();
                let (depth, span) = (parent.depth, parent.turn_span.clone());
                let call = (row.id, lease, run);
                let Some(policy) = self.policy_of(call, &service, &path, policy.as_ref()) else {
                    return;
                };
                self.ask(Asking {
                    id: row.id,
                    frame,
                    seq,
                    run,
                    lease,
                    attempt: 1,
                    in_doubt: false,
                    alone: false,
                    service,
                    path,
                    args,
                    policy,
                    context,
                    loaded: grants,
                    depth,
                    span,
                    token: CancellationToken::new(),
                });
            }
            MadeKind::Call { .. } => self.want_calls = true,
            MadeKind::Frame {
                task,
                version,
                input,
                depth,
            } if row.claimed => {
                let context = RunContext::clone(&parent.context);
                let now = self.shared.clock.now();
                let row = born_frame(
                    parent,
                    &row.id,
                    seq,
                    &task,
                    &version,
                    depth,
                    self.worker,
                    now,
                );
                self.begin_claimed(ClaimedFrame {
                    row,
                    task,
                    version,
                    input,
                    context,
                });
            }
            MadeKind::Frame { .. } => self.want_frames = true,
            MadeKind::Timer { due_at, .. } => {
                self.timers.insert((due_at, frame, seq));
            }
            MadeKind::Signal { .. } => {}
        }
    }

    /// The frame ended by the turn that was just committed.
    fn ended(&mut self, id: StackRunId) {
        let Some(frame) = self.hot.get_mut(&id) else {
            return;
        };
        let next = frame.next.take();
        let run = frame.run();
        let parent = frame.parent;
        if parent.is_none() {
            self.totals.ended(run);
            self.ending.remove(&run);
        }
        match (parent, next) {
            (_, Some(FrameNext::Blocked(reason))) => self.shared.hub.blocked(run, reason),
            (None, Some(FrameNext::Completed(value))) => {
                self.shared.hub.ended(run, Ok(Outcome::Completed(value)));
            }
            (None, Some(FrameNext::Failed(failure))) => {
                self.shared.hub.ended(run, Ok(Outcome::Failed(failure)));
            }
            (None, Some(FrameNext::Cancelled)) => self.shared.hub.ended(run, Err(())),
            (Some((parent, seq)), Some(next)) => {
                let outcome = match next {
                    FrameNext::Completed(value) => Outcome::Completed(value),
                    FrameNext::Failed(failure) => Outcome::Failed(failure),
                    _ => Outcome::Failed(Failure::cancelled()),
                };
                let ready = Ready {
                    seq,
                    id,
                    source: ReadySource::Recorded,
                    outcome,
                };
                self.events
                    .push_back((parent, Event::Recorded(vec![ready])));
            }
            (_, _) => {}
        }
        for (_, child) in frame.machine.open() {
            if let Some(asked) = self.calls.get_mut(&child.id) {
                asked.detached = true;
            }
        }
        self.manual_frame_over(id);
        self.forget(id);
        self.want_frames = true;
    }

    /// Drops the VM and all local knowledge of the frame. Its rows are what remains.
    pub(crate) fn forget(&mut self, id: StackRunId) {
        self.preparing.remove(&id);
        if let Some(frame) = self.hot.remove(&id) {
            for (seq, child) in frame.machine.open() {
                if let ChildKind::Timer(due) = child.kind {
                    self.timers.remove(&(due, id, seq));
                }
            }
            if let Some(since) = frame.idle_since {
                self.idle.remove(&(since, id));
            }
            if let Some(key) = frame.vm {
                self.vms.remove(&key);
                self.threads.drop_vm(key);
            }
        }
        if self.suspect == Some(id) {
            self.next_suspect();
        }
    }

    /// Settled children were read from their rows.
    pub(crate) fn found_settled(&mut self, id: StackRunId, children: &[StackRun]) {
        let found = ready_of(children);
        for child in children {
            // What its row says counts; an answer that is still on its way is nobody's.
            if let Some(asked) = self.calls.remove(&child.id) {
                asked.token.cancel();
            }
        }
        self.events.push_back((id, Event::Recorded(found)));
    }

    /// Something happened to the frame's rows from outside: read what is settled, or find that it is not ours any more.
    pub(crate) fn check_still_mine(&mut self, id: StackRunId) {
        let shared = Arc::clone(&self.shared);
        let Some(frame) = self.hot.get(&id) else {
            return;
        };
        let lease = frame.machine.facts.lease;
        self.spawn(async move {
            let row = shared
                .insist("read a frame", || shared.storage.stack_run(id))
                .await?;
            match row {
                Some(row) if row.owner == Some(lease.worker) && row.epoch == lease.epoch => {
                    let children = shared
                        .insist("read settled calls", || shared.storage.unread(id))
                        .await?;
                    Some(Message::Unread {
                        frame: id,
                        children,
                    })
                }
                // Somebody ended or took it: its VM is worthless.
                _ => Some(Message::NotMine { frame: id, lease }),
            }
        });
    }

    pub(crate) fn not_mine(&mut self, id: StackRunId, lease: Lease) {
        if self
            .hot
            .get(&id)
            .is_some_and(|hot| hot.machine.facts.lease == lease)
        {
            self.events.push_back((id, Event::LeaseLost));
        }
    }
}

pub(crate) fn turn_span(
    run: &tracing::Span,
    frame: StackRunId,
    turn: tasker_adaptor::TurnNo,
) -> tracing::Span {
    tracing::info_span!(parent: run, "tasker.turn", %frame, %turn)
}

/// Settled, undelivered children in the order in which they settled.
pub(crate) fn ready_of(children: &[StackRun]) -> Vec<Ready> {
    let mut unread: Vec<&StackRun> = children
        .iter()
        .filter(|child| child.status.is_settled() && child.delivered_order.is_none())
        .collect();
    unread.sort_by_key(|child| (child.settled_at, child.seq));
    unread
        .into_iter()
        .filter_map(|child| {
            Some(Ready {
                seq: child.seq,
                id: child.id,
                source: ReadySource::Recorded,
                outcome: child.outcome.clone()?,
            })
        })
        .collect()
}

fn is_cancel(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(failure) if failure.name == "CancelledError")
}

/// The row of a nested frame that was born claimed, as its commit wrote it.
#[expect(clippy::too_many_arguments, reason = "one call site; each is a column")]
fn born_frame(
    parent: &HotFrame,
    id: &StackRunId,
    seq: CallSeq,
    task: &TaskName,
    version: &TaskVersion,
    depth: u32,
    worker: tasker_adaptor::WorkerId,
    now: Timestamp,
) -> StackRun {
    StackRun {
        id: *id,
        task_run: parent.run(),
        parent: Some(parent.machine.facts.id),
        kind: StackKind::Frame,
        seq,
        depth,
        status: StackStatus::Processing,
        owner: Some(worker),
        epoch: Epoch(1),
        turn: tasker_adaptor::TurnNo(0),
        made_count: 0,
        delivered_count: 0,
        delivered_order: None,
        delivered_turn: None,
        delivered_at: None,
        attempt: 0,
        in_doubt: false,
        take_overs: 0,
        due_at: None,
        service: TASKS.to_owned(),
        path: task.as_str().to_owned(),
        args: None,
        policy: None,
        version: Some(version.clone()),
        outcome: None,
        blocked: None,
        created_at: now,
        started_at: None,
        settled_at: None,
    }
}
