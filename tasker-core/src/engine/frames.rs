//! Hot frames: from a claimed row to a VM, from a VM's turn to the machine, from the machine's effects to the world.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tasker_adaptor::{
    BlockedReason, CallSeq, ClaimedFrame, Epoch, Failure, FrameJournal, FrameNext, Json, Lease,
    LogLevel, LogLine, MadeKind, NewStackRun, Outcome, RunContext, StackKind, StackRun, StackRunId,
    StackStatus, StorageError, TaskName, TaskRunId, TaskVersion, Timestamp,
};

use super::core::{Core, Message};
use super::options::Drive;
use super::programs::{Current, Loaded};
use super::threads::{GivenUp, VmDid, VmKey, VmReport};
use crate::limits::Limit;
use crate::run::{
    Child, ChildKind, EXECUTE, Effect, Event, Frame, FrameFacts, History, MadeChild, Ready,
    ReadySource, TASKS, execute_args,
};
use crate::service::UnknownOutcome;
use crate::vm::{Made, RunInfo, Turn, TurnEnd, VmDeliver, VmStart};

/// A frame whose VM is here.
pub(crate) struct HotFrame {
    pub(crate) machine: Frame,
    pub(crate) vm: Option<VmKey>,
    pub(crate) parent: Option<(StackRunId, CallSeq)>,
    pub(crate) depth: u32,
    pub(crate) context: Arc<RunContext>,
    pub(crate) loaded: Option<Arc<Loaded>>,
    /// A cancel of the run has reached this frame.
    cancelled: bool,
    /// A turn that waits for the current versions of the nested tasks it calls.
    held: Option<(Timestamp, Turn)>,
    /// What the turn under commit makes of the frame.
    next: Option<FrameNext>,
    /// Settled children that were read and wait for the replay to end.
    unread: Vec<Ready>,
    /// `tasker.run`, and within it the `tasker.turn` under way: the parent of the calls that it makes.
    span: tracing::Span,
    turn_span: tracing::Span,
    /// Since when it has been idle, on the monotonic clock.
    idle_since: Option<i64>,
}

impl HotFrame {
    pub(crate) fn run(&self) -> TaskRunId {
        self.machine.facts.task_run
    }
}

/// What a claimed frame needs before its VM can be built.
pub(crate) struct Prepared {
    claimed: ClaimedFrame,
    what: Result<Parts, BlockedReason>,
}

struct Parts {
    loaded: Arc<Loaded>,
    /// `None` for a frame that has had no turn.
    journal: Option<(History, FrameJournal)>,
}

impl Core {
    /// Frames that are not merely waiting.
    pub(crate) fn active(&self) -> usize {
        self.hot.len() - self.idle.len() + self.preparing.len()
    }

    /// Takes up a frame that this worker has just claimed.
    pub(crate) fn begin_claimed(&mut self, claimed: ClaimedFrame) {
        let id = claimed.row.id;
        if self.hot.contains_key(&id) || self.preparing.contains_key(&id) {
            // A reply that was lost and found: the newest claim is the one that counts.
            self.forget(id);
        }
        if claimed.row.attempt > 1 {
            if self.suspect.is_some() && self.suspect != Some(id) {
                // It ended its worker before: one such frame at a time, so that the guilty one is known.
                self.suspects.push_back(claimed);
                return;
            }
            self.suspect = Some(id);
        }
        let lease = Lease {
            worker: self.worker,
            epoch: claimed.row.epoch,
        };
        self.preparing.insert(id, lease);
        if claimed.row.attempt > self.shared.options.poison_limit {
            let reason = BlockedReason::Poisoned {
                take_overs: claimed.row.attempt,
            };
            self.prepared(
                id,
                lease,
                Prepared {
                    claimed,
                    what: Err(reason),
                },
            );
            return;
        }
        if claimed.row.turn.0 == 0
            && let Some(loaded) = self.shared.programs.cached(&claimed.task, &claimed.version)
        {
            self.prepared(
                id,
                lease,
                Prepared {
                    claimed,
                    what: Ok(Parts {
                        loaded,
                        journal: None,
                    }),
                },
            );
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.spawn(async move {
            let what = read_parts(&shared, &claimed).await?;
            let prepared = Box::new(Prepared { claimed, what });
            Some(Message::Prepared {
                frame: id,
                lease,
                prepared,
            })
        });
    }

    /// Code and journal are here: build the VM.
    pub(crate) fn prepared(&mut self, id: StackRunId, lease: Lease, prepared: Prepared) {
        if self.preparing.get(&id) != Some(&lease) {
            return;
        }
        self.preparing.remove(&id);
        let Prepared { claimed, what } = prepared;
        let row = &claimed.row;
        let mut children = BTreeMap::new();
        let mut unread = Vec::new();
        if let Ok(Parts {
            journal: Some((_, journal)),
            ..
        }) = &what
        {
            for child in &journal.children {
                if let Some(kind) = self.open_kind(child) {
                    children.insert(child.seq, Child { id: child.id, kind });
                }
            }
            unread = ready_of(&journal.children);
        }
        let last_time = [
            row.started_at,
            row.parent.is_none().then_some(row.created_at),
        ]
        .into_iter()
        .flatten()
        .chain(match &what {
            Ok(Parts {
                journal: Some((history, _)),
                ..
            }) => history.turns().last().map(|turn| turn.time),
            _ => None,
        })
        .max()
        .unwrap_or(row.created_at);
        for (seq, child) in &children {
            if let ChildKind::Timer(due) = child.kind {
                self.timers.insert((due, id, *seq));
            }
        }
        let machine = Frame::loading(
            FrameFacts {
                id,
                task_run: row.task_run,
                lease,
            },
            row.turn,
            row.made_count,
            last_time,
            row.in_doubt,
            children,
        );
        let span = tracing::info_span!(
            "tasker.run",
            run_id = %row.task_run,
            task = %claimed.task,
            version = %claimed.version,
        );
        let mut hot = HotFrame {
            machine,
            vm: None,
            parent: row.parent.map(|parent| (parent, row.seq)),
            depth: row.depth,
            cancelled: claimed.context.cancel_by.is_some(),
            context: Arc::new(claimed.context),
            loaded: None,
            held: None,
            next: None,
            unread,
            turn_span: turn_span(&span, id, row.turn),
            span,
            idle_since: None,
        };
        let now = self.shared.clock.now();
        match what {
            Err(reason) => {
                let time = hot.machine.turn_time(now);
                self.hot.insert(id, hot);
                self.block(id, time, reason);
            }
            Ok(Parts { loaded, journal }) => {
                let history = journal.map(|(history, _)| Arc::new(history));
                // The first turn is replayed at the time it had.
                let time = match &history {
                    Some(_) => row.started_at.unwrap_or(row.created_at),
                    None => hot.machine.turn_time(now),
                };
                let start = VmStart {
                    program: Arc::clone(&loaded.program),
                    input: claimed.input,
                    seed: Sha256::digest(id.as_uuid().as_bytes()).into(),
                    time,
                    tools: Arc::clone(&self.tools),
                    run: RunInfo {
                        id: row.task_run.to_string(),
                        task: claimed.task.as_str().to_owned(),
                        version: claimed.version.as_str().to_owned(),
                        depth: row.depth,
                        correlation_id: hot.context.correlation_id.clone(),
                        labels: hot.context.labels.clone(),
                    },
                    limits: Arc::clone(&self.shared.options.limits),
                };
                let key = self.threads.start_vm(start, history);
                hot.vm = Some(key);
                hot.loaded = Some(loaded);
                self.vms.insert(key, id);
                self.hot.insert(id, hot);
            }
        }
        self.step_events();
    }

    /// How an open child's outcome will arrive; `None` for children that are delivered or given up.
    fn open_kind(&self, child: &StackRun) -> Option<ChildKind> {
        if child.delivered_order.is_some() || child.status == StackStatus::Cancelled {
            return None;
        }
        Some(match (child.kind, child.due_at) {
            (StackKind::Timer, Some(due)) if !child.status.is_settled() => ChildKind::Timer(due),
            (StackKind::Call, _) => match self.calls.get(&child.id) {
                Some(asked) if asked.lease.epoch == child.epoch && !asked.record_at_once => {
                    ChildKind::Here(child.epoch)
                }
                _ => ChildKind::Elsewhere,
            },
            _ => ChildKind::Elsewhere,
        })
    }

    /// A VM did something.
    pub(crate) fn vm_reported(&mut self, report: VmReport) {
        let Some(id) = self.vms.get(&report.key).copied() else {
            return;
        };
        let Some(frame) = self.hot.get_mut(&id) else {
            return;
        };
        match report.what {
            VmDid::Replayed => {
                let unread = std::mem::take(&mut frame.unread);
                self.events.push_back((id, Event::Loaded { unread }));
            }
            VmDid::Diverged(reason) => {
                let time = frame.machine.turn_time(self.shared.clock.now());
                self.block(id, time, reason);
            }
            VmDid::Turned(turn) => self.turned(id, report.key, report.time, turn),
        }
    }

    /// A turn ended. Before it is committed the versions of the nested tasks that it calls must be known.
    fn turned(&mut self, id: StackRunId, vm: VmKey, time: Timestamp, turn: Turn) {
        let mut names = HashMap::new();
        let mut unknown = Vec::new();
        for made in &turn.made {
            if let Made::Task { name, .. } = made {
                let task = TaskName::new(name.as_str());
                match self.shared.programs.current_cached(&task) {
                    Some(current) => {
                        names.insert(name.clone(), current);
                    }
                    None => unknown.push(task),
                }
            }
        }
        if unknown.is_empty() {
            self.turn_ended(id, time, turn, &names);
            return;
        }
        if let Some(frame) = self.hot.get_mut(&id) {
            frame.held = Some((time, turn));
        }
        let shared = Arc::clone(&self.shared);
        self.spawn(async move {
            for name in unknown {
                shared.insist("read a task", || read_name(&shared, &name)).await?;
            }
            Some(Message::NamesResolved { frame: id, vm })
        });
    }

    pub(crate) fn names_resolved(&mut self, id: StackRunId, vm: VmKey) {
        if let Some(frame) = self.hot.get_mut(&id)
            && frame.vm == Some(vm)
            && let Some((time, turn)) = frame.held.take()
        {
            // What was read a moment too long ago is asked for again.
            self.turned(id, vm, time, turn);
        }
    }

    /// Makes rows of what the turn made, and steps the machine.
    fn turn_ended(
        &mut self,
        id: StackRunId,
        time: Timestamp,
        turn: Turn,
        names: &HashMap<String, Current>,
    ) {
        let Some(frame) = self.hot.get(&id) else {
            return;
        };
        let mut logs = turn.logs;
        let mut rows = Vec::with_capacity(turn.made.len());
        let mut asking = self.calls.len();
        let mut starting = self.active();
        let by_hand = self.shared.options.drive == Drive::Manual;
        let options = &self.shared.options;
        for made in turn.made {
            let child = self.shared.ids.stack_run(time);
            let (kind, claimed, known) = match made {
                Made::Call {
                    service,
                    path,
                    args,
                } => {
                    let policy = self.shared.services.policy(&service, &path);
                    let claimed = !by_hand
                        && asking < options.calls_in_flight
                        && policy.unknown_outcome != UnknownOutcome::Block;
                    asking += usize::from(claimed);
                    (
                        MadeKind::Call {
                            service,
                            path,
                            args,
                        },
                        claimed,
                        ChildKind::Elsewhere,
                    )
                }
                Made::Task { name, input } => {
                    match names.get(&name).cloned() {
                        Some(Current::Version(version)) if frame.depth < options.limits.depth => {
                            let claimed = !by_hand
                                && starting < options.window
                                && self
                                    .shared
                                    .programs
                                    .cached(&TaskName::new(name.as_str()), &version)
                                    .is_some();
                            starting += usize::from(claimed);
                            let depth = frame.depth + 1;
                            let task = TaskName::new(name);
                            (
                                MadeKind::Frame {
                                    task,
                                    version,
                                    input,
                                    depth,
                                },
                                claimed,
                                ChildKind::Elsewhere,
                            )
                        }
                        // No such task, or too deep: a call that is answered with an error which the task can catch.
                        _ => {
                            let args =
                                Json::parse(execute_args(&name, input.text())).unwrap_or_default();
                            asking += usize::from(!by_hand);
                            let (service, path) = (TASKS.to_owned(), EXECUTE.to_owned());
                            (
                                MadeKind::Call {
                                    service,
                                    path,
                                    args,
                                },
                                !by_hand,
                                ChildKind::Elsewhere,
                            )
                        }
                    }
                }
                Made::Timer { path, delay_ms } => {
                    let due_at = time.plus_millis(i64::try_from(delay_ms).unwrap_or(i64::MAX));
                    let args = Json::from(&delay_ms).unwrap_or_default();
                    let path = path.to_owned();
                    (
                        MadeKind::Timer { path, args, due_at },
                        false,
                        ChildKind::Timer(due_at),
                    )
                }
                Made::Signal { name } => (MadeKind::Signal { name }, false, ChildKind::Elsewhere),
            };
            let known = match (&kind, claimed) {
                (MadeKind::Call { .. }, true) => ChildKind::Here(Epoch(1)),
                _ => known,
            };
            rows.push(MadeChild {
                row: NewStackRun {
                    id: child,
                    kind,
                    claimed,
                },
                kind: known,
            });
        }
        let next = match turn.end {
            TurnEnd::Waiting => FrameNext::Suspended,
            TurnEnd::Completed(value) => FrameNext::Completed(value),
            TurnEnd::Failed(failure) if frame.cancelled && failure.name == "CancelledError" => {
                FrameNext::Cancelled
            }
            TurnEnd::Failed(failure) => FrameNext::Failed(failure),
        };
        if let FrameNext::Failed(failure) = &next
            && failure.code.as_deref() == Some(Limit::WallClock.as_str())
        {
            logs.push(LogLine {
                level: LogLevel::Error,
                message: failure.message.clone(),
                data: None,
            });
        }
        self.events.push_back((
            id,
            Event::TurnEnded {
                time,
                made: rows,
                dropped: turn.dropped,
                logs,
                next,
            },
        ));
    }

    /// Turns that do not end: interrupted first; then their thread is given up, its other frames are loaded again, and the guilty one fails.
    pub(crate) fn watch_turns(&mut self) {
        if self.active() == 0 {
            return;
        }
        let limits = Arc::clone(&self.shared.options.limits);
        for GivenUp { guilty, others } in self.threads.watch(limits.turn_wall_ms) {
            for key in others {
                if let Some(id) = self.vms.remove(&key) {
                    self.events.push_back((id, Event::VmLost));
                }
            }
            let Some(id) = self.vms.remove(&guilty) else { continue };
            let Some(frame) = self.hot.get_mut(&id) else { continue };
            tracing::error!(frame = %id, "a turn did not end: its thread was given up");
            frame.vm = None;
            let time = frame.machine.turn_time(self.shared.clock.now());
            let next = FrameNext::Failed(Limit::WallClock.failure(&limits));
            let (made, dropped, logs) = (Vec::new(), Vec::new(), Vec::new());
            self.events.push_back((id, Event::TurnEnded { time, made, dropped, logs, next }));
        }
        self.step_events();
    }

    /// Commits that the frame needs a person.
    fn block(&mut self, id: StackRunId, time: Timestamp, reason: BlockedReason) {
        tracing::warn!(frame = %id, %reason, "a run is blocked");
        self.events.push_back((
            id,
            Event::TurnEnded {
                time,
                made: Vec::new(),
                dropped: Vec::new(),
                logs: Vec::new(),
                next: FrameNext::Blocked(reason),
            },
        ));
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
                frame.next = Some(turn.next.clone());
                self.commits.push(turn);
            }
            Effect::Begin { seq, made } => self.begin_child(id, seq, made),
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
    fn begin_child(&mut self, frame: StackRunId, seq: CallSeq, made: MadeChild) {
        let Some(parent) = self.hot.get(&frame) else {
            return;
        };
        let row = made.row;
        match row.kind {
            MadeKind::Call {
                service,
                path,
                args,
            } if row.claimed => {
                let lease = Lease {
                    worker: self.worker,
                    epoch: Epoch(1),
                };
                let context = Arc::clone(&parent.context);
                let run = parent.run();
                let grants = parent.loaded.clone();
                self.ask(super::calls::Asking {
                    id: row.id,
                    frame,
                    seq,
                    run,
                    lease,
                    attempt: 1,
                    in_doubt: false,
                    service,
                    path,
                    args,
                    context,
                    loaded: grants,
                    depth: parent.depth,
                    span: parent.turn_span.clone(),
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
        for asked in self.calls.values_mut().filter(|asked| asked.frame == id) {
            asked.detached = true;
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

    /// A frame that was resumed alone has committed a turn, or is gone: the next one may.
    pub(crate) fn next_suspect(&mut self) {
        self.suspect = None;
        if let Some(claimed) = self.suspects.pop_front() {
            self.begin_claimed(claimed);
        }
    }

    pub(crate) fn reload(&mut self, id: StackRunId) {
        let shared = Arc::clone(&self.shared);
        let worker = self.worker;
        self.spawn(async move {
            let claimed = shared
                .insist("load a frame again", || {
                    shared.storage.reload_frame(id, worker, shared.clock.now())
                })
                .await?;
            Some(Message::Reloaded { frame: id, claimed })
        });
    }

    pub(crate) fn reloaded(&mut self, id: StackRunId, claimed: Option<ClaimedFrame>) {
        match claimed {
            Some(claimed) if claimed.row.owner == Some(self.worker) => self.begin_claimed(claimed),
            _ => {
                self.manual_frame_over(id);
                self.want_frames = true;
            }
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

    fn note_idle(&mut self, id: StackRunId) {
        let Some(frame) = self.hot.get_mut(&id) else {
            return;
        };
        match (frame.machine.is_idle(), frame.idle_since) {
            (true, None) => {
                let now = self.shared.clock.monotonic_ms();
                frame.idle_since = Some(now);
                self.idle.insert((now, id));
                if self.suspect == Some(id) && frame.machine.turn().0 > 0 {
                    self.next_suspect();
                }
                if self.waits_long(id) {
                    self.events.push_back((id, Event::Park));
                }
            }
            (false, Some(since)) => {
                frame.idle_since = None;
                self.idle.remove(&(since, id));
            }
            _ => {}
        }
    }

    /// A frame that waits for nothing but far timers and signals keeps no VM.
    fn waits_long(&self, id: StackRunId) -> bool {
        if self.shared.options.park_always || self.shared.options.drive == Drive::Manual {
            return true;
        }
        let Some(frame) = self.hot.get(&id) else {
            return false;
        };
        let far = self
            .shared
            .clock
            .now()
            .plus_millis(i64::try_from(self.shared.options.park_delay_ms).unwrap_or(i64::MAX));
        frame.machine.open().all(|(_, child)| match child.kind {
            ChildKind::Timer(due) => due > far,
            ChildKind::Here(_) | ChildKind::Elsewhere | ChildKind::Ready => false,
        })
    }

    /// Parks frames that have waited too long, that are too many, or that a shutdown gives back.
    pub(crate) fn park_idle(&mut self) {
        let options = &self.shared.options;
        let old = self.shared.clock.monotonic_ms() - options.park_delay_ms as i64;
        let mut excess = self.hot.len().saturating_sub(options.hot_frames);
        let all = self.draining.is_some();
        let park: Vec<StackRunId> = self
            .idle
            .iter()
            .take_while(|(since, _)| {
                let take = all || *since <= old || excess > 0;
                excess = excess.saturating_sub(1);
                take
            })
            .map(|(_, id)| *id)
            .collect();
        for id in park {
            self.events.push_back((id, Event::Park));
        }
    }
}

fn turn_span(run: &tracing::Span, frame: StackRunId, turn: tasker_adaptor::TurnNo) -> tracing::Span {
    tracing::info_span!(parent: run, "tasker.turn", %frame, %turn)
}

/// Reads the current version of a task and its code, so that a frame of it can start without a wait.
async fn read_name(shared: &super::core::Shared, name: &TaskName) -> Result<(), StorageError> {
    match shared.programs.current(name).await {
        Ok(Current::Version(version)) => {
            // What is wrong with its code is said when the frame begins.
            let _ = shared.programs.load(name, &version).await;
            Ok(())
        }
        Err(super::error::EngineError::Storage(error)) => Err(error),
        Ok(Current::Unpublished) | Err(_) => Ok(()),
    }
}

/// Reads code and journal. `None`: the engine stops.
async fn read_parts(
    shared: &super::core::Shared,
    claimed: &ClaimedFrame,
) -> Option<Result<Parts, BlockedReason>> {
    use super::error::EngineError;

    let loaded = loop {
        match shared.programs.load(&claimed.task, &claimed.version).await {
            Ok(Some(loaded)) => break loaded,
            Ok(None) => {
                return Some(Err(BlockedReason::VersionMissing {
                    task: claimed.task.to_string(),
                    version: claimed.version.to_string(),
                }));
            }
            Err(EngineError::Storage(error)) if error.is_retryable() => {
                tracing::warn!(%error, "a task could not be read; it is tried again");
                tokio::select! {
                    () = shared.clock.sleep(200) => {}
                    () = shared.stop.cancelled() => return None,
                }
            }
            Err(error) => {
                return Some(Err(BlockedReason::Corrupt {
                    what: error.to_string(),
                }));
            }
        }
    };
    if claimed.row.turn.0 == 0 {
        return Some(Ok(Parts {
            loaded,
            journal: None,
        }));
    }
    loop {
        let journal = match shared.storage.load(claimed.row.id).await {
            Ok(Some(journal)) => journal,
            Ok(None) => {
                return Some(Err(BlockedReason::Corrupt {
                    what: "the frame's row is gone".to_owned(),
                }));
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "a journal could not be read; it is tried again");
                tokio::select! {
                    () = shared.clock.sleep(200) => {}
                    () = shared.stop.cancelled() => return None,
                }
                continue;
            }
            Err(error) => return Some(Err(corrupt(&error))),
        };
        return Some(match History::from_journal(&journal) {
            Ok(history) => Ok(Parts {
                loaded,
                journal: Some((history, journal)),
            }),
            Err(error) => Err(corrupt(&error)),
        });
    }
}

fn corrupt(error: &StorageError) -> BlockedReason {
    BlockedReason::Corrupt {
        what: error.to_string(),
    }
}

/// Settled, undelivered children in the order in which they settled.
fn ready_of(children: &[StackRun]) -> Vec<Ready> {
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
        due_at: None,
        service: TASKS.to_owned(),
        path: task.as_str().to_owned(),
        args: None,
        version: Some(version.clone()),
        outcome: None,
        blocked: None,
        created_at: now,
        started_at: None,
        settled_at: None,
    }
}
