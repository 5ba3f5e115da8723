//! From a claimed row to a VM: reads code and journal, and starts or replays.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tasker_adaptor::{
    BlockedReason, ClaimedFrame, FrameJournal, Lease, StackKind, StackRun, StackRunId, StackStatus,
    StorageError,
};

use super::claims::is_suspect;
use super::core::{Core, Message};
use super::frames::{HotFrame, ready_of, turn_span};
use super::programs::Loaded;
use crate::run::{Child, ChildKind, Frame, FrameFacts, History};
use crate::vm::{RunInfo, VmStart};

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
    /// Takes up a frame that this worker has just claimed.
    pub(crate) fn begin_claimed(&mut self, claimed: ClaimedFrame) {
        let id = claimed.row.id;
        if self.hot.contains_key(&id) || self.preparing.contains_key(&id) {
            // A reply that was lost and found: the newest claim is the one that counts.
            self.forget(id);
        }
        if is_suspect(&claimed) {
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
        self.totals.loaded(row.task_run, id, row.made_count);
        self.totals.trim(self.hot.values().map(HotFrame::run));
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

    /// A frame that was resumed alone has committed a turn, or is gone: the next one may.
    pub(crate) fn next_suspect(&mut self) {
        self.suspect = None;
        self.want_frames = true;
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
            let claimed = claimed.map(Box::new);
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
