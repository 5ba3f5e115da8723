//! From a VM's turn to the machine: rows of what it made, names resolved, turns that do not end.

use std::collections::HashMap;
use std::sync::Arc;

use tasker_adaptor::{
    BlockedReason, Failure, FrameNext, Json, LogLevel, LogLine, MadeKind, NewStackRun, StackRunId,
    StorageError, TaskName, Timestamp,
};

use super::core::{Core, Message};
use super::options::Drive;
use super::programs::Current;
use super::threads::{VmDid, VmKey, VmReport};
use crate::limits::Limit;
use crate::run::{EXECUTE, Event, TASKS, execute_args};
use crate::service::UnknownOutcome;
use crate::vm::{Made, Turn, TurnEnd};

impl Core {
    /// A VM did something.
    pub(crate) fn vm_reported(&mut self, report: VmReport) {
        self.threads.note(&report);
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
            VmDid::Lost => {
                self.vms.remove(&report.key);
                self.events.push_back((id, Event::VmLost));
            }
            VmDid::Destroyed(failure) => {
                self.vms.remove(&report.key);
                self.threads.drop_vm(report.key);
                self.fail_turn(id, failure);
            }
        }
    }

    /// The turn of a frame ended its home: the frame fails, without a VM.
    fn fail_turn(&mut self, id: StackRunId, failure: Failure) {
        let Some(frame) = self.hot.get_mut(&id) else {
            return;
        };
        tracing::error!(frame = %id, %failure, "a turn did not end: its VM was given up");
        frame.vm = None;
        let time = frame.machine.turn_time(self.shared.clock.now());
        self.end_bare(id, time, FrameNext::Failed(failure));
    }

    /// Ends a turn that made nothing.
    fn end_bare(&mut self, id: StackRunId, time: Timestamp, next: FrameNext) {
        let bare = Event::TurnEnded {
            time,
            made: Vec::new(),
            dropped: Vec::new(),
            logs: Vec::new(),
            next,
        };
        self.events.push_back((id, bare));
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
                shared
                    .insist("read a task", || read_name(&shared, &name))
                    .await?;
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
        mut turn: Turn,
        names: &HashMap<String, Current>,
    ) {
        let Some(frame) = self.hot.get(&id) else {
            return;
        };
        let limits = &self.shared.options.limits;
        self.totals
            .bound(frame.run(), id, frame.depth, &mut turn, limits);
        let mut logs = turn.logs;
        let mut rows = Vec::with_capacity(turn.made.len());
        let mut asking = self.calls.len();
        let nests = turn
            .made
            .iter()
            .any(|made| matches!(made, Made::Task { .. }));
        let mut room = if nests { self.room() } else { 0 };
        let by_hand = self.shared.options.drive == Drive::Manual;
        let options = &self.shared.options;
        for made in turn.made {
            let child = self.shared.ids.stack_run(time);
            let (kind, claimed) = match made {
                Made::Call {
                    service,
                    path,
                    args,
                    policy,
                } => {
                    let services = &self.shared.services;
                    let claimed = !by_hand
                        && asking < options.calls_in_flight
                        && services
                            .call_policy(&service, &path, policy.as_ref())
                            .is_ok_and(|policy| policy.unknown_outcome != UnknownOutcome::Block);
                    asking += usize::from(claimed);
                    (
                        MadeKind::Call {
                            service,
                            path,
                            args,
                            policy,
                        },
                        claimed,
                    )
                }
                Made::Task { name, input } => {
                    match names.get(&name).cloned() {
                        Some(Current::Version(version)) if frame.depth < options.limits.depth => {
                            let claimed = !by_hand
                                && room > 0
                                && self
                                    .shared
                                    .programs
                                    .cached(&TaskName::new(name.as_str()), &version)
                                    .is_some();
                            room -= usize::from(claimed);
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
                                    policy: None,
                                },
                                !by_hand,
                            )
                        }
                    }
                }
                Made::Timer { path, delay_ms } => {
                    let due_at = time.plus_millis(i64::try_from(delay_ms).unwrap_or(i64::MAX));
                    let args = Json::from(&delay_ms).unwrap_or_default();
                    let path = path.to_owned();
                    (MadeKind::Timer { path, args, due_at }, false)
                }
                Made::Signal { name } => (MadeKind::Signal { name }, false),
            };
            rows.push(NewStackRun {
                id: child,
                kind,
                claimed,
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

    /// Turns that do not end: interrupted first; then their home is given up, which comes back as reports.
    pub(crate) fn watch_turns(&mut self) {
        if self.active() > 0 {
            self.threads.watch(&self.shared.options.limits);
        }
    }

    /// Commits that the frame needs a person.
    pub(crate) fn block(&mut self, id: StackRunId, time: Timestamp, reason: BlockedReason) {
        tracing::warn!(frame = %id, %reason, "a run is blocked");
        self.end_bare(id, time, FrameNext::Blocked(reason));
    }
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
