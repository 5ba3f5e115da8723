//! What is done with VMs, whether their home is a thread of the host or a child process: the same commands, the same reports.
//!
//! Synchronous, one command after the other. Every [`VmCommand::Start`] and [`VmCommand::Deliver`] has exactly one report, in order.

use std::collections::HashMap;
use std::sync::Arc;

use tasker_adaptor::{BlockedReason, CallSeq, Failure, Timestamp};

use crate::limits::Limits;
use crate::run::{Attempted, Divergence, History};
use crate::vm::{Made, Stopper, Turn, TurnEnd, Vm, VmDeliver, VmPool, VmStart};

/// Names one VM for ever: a counter of its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct VmKey(pub(crate) u64);

/// What a home of VMs is asked to do.
#[derive(Debug)]
pub(crate) enum VmCommand {
    /// Build a VM; with a history, replay it.
    Start {
        key: VmKey,
        start: Box<VmStart>,
        history: Option<Arc<History>>,
    },
    /// One more turn.
    Deliver { key: VmKey, deliver: VmDeliver },
    /// The VM is not needed any more.
    Drop { key: VmKey },
}

/// What a home of VMs answers.
#[derive(Debug)]
pub(crate) struct VmReport {
    pub(crate) key: VmKey,
    /// Time of the turn.
    pub(crate) time: Timestamp,
    /// What the VM takes after that, in bytes; `None`: there is no VM any more.
    pub(crate) memory: Option<usize>,
    pub(crate) what: VmDid,
}

/// What a VM did.
#[derive(Debug)]
pub(crate) enum VmDid {
    /// A turn.
    Turned(Turn),
    /// The replay of its history, which matched.
    Replayed,
    /// The replay did not match: the run must be blocked.
    Diverged(BlockedReason),
    /// Its home is gone, through no fault of its own: it can be built again.
    Lost,
    /// Its turn ended its home: the frame fails with this.
    Destroyed(Failure),
}

/// JavaScript stack is at most 16 MiB; the thread has room for it and 2 MiB more for the host side.
pub(crate) fn thread_stack(js_stack: usize) -> usize {
    js_stack.min(16 << 20) + (2 << 20)
}

/// Who is told which turn is under way.
pub(crate) trait Watched {
    /// A turn of this VM begins; the stopper ends it.
    fn begins(&mut self, key: VmKey, stopper: Stopper, wall_ms: u64);
    /// A recorded turn was run again; the next one begins.
    fn replayed_one(&mut self, key: VmKey);
    /// The turn is over.
    fn ends(&mut self);
}

/// The VMs of one home.
#[derive(Debug)]
pub(crate) struct Worker {
    pool: VmPool,
    vms: HashMap<VmKey, (Vm, Arc<Limits>)>,
}

impl Worker {
    pub(crate) fn new(pool: VmPool) -> Self {
        Self {
            pool,
            vms: HashMap::new(),
        }
    }

    /// Prepares one more realm, when idle; false when there are enough.
    pub(crate) fn refill(&mut self) -> bool {
        self.pool.refill()
    }

    /// The next turn is of this VM: what it touches is brought into the caches while another command is carried out.
    pub(crate) fn prefetch(&self, key: VmKey) {
        if let Some((vm, _)) = self.vms.get(&key) {
            vm.prefetch();
        }
    }

    /// Limits of a VM that is here.
    #[cfg(feature = "process-wall")]
    pub(crate) fn limits(&self, key: VmKey) -> Option<&Arc<Limits>> {
        self.vms.get(&key).map(|(_, limits)| limits)
    }

    /// Carries a command out. `None`: there is nothing to answer.
    pub(crate) fn handle(
        &mut self,
        command: VmCommand,
        watched: &mut impl Watched,
    ) -> Option<VmReport> {
        let (key, time, memory, what) = match command {
            VmCommand::Start {
                key,
                start,
                history,
            } => {
                let stopper = self.pool.next_stopper(&start);
                watched.begins(key, stopper, start.limits.turn_wall_ms);
                let (mut vm, turn) = self.pool.start(&start);
                let what = match history {
                    None => VmDid::Turned(turn),
                    Some(history) => {
                        let replayed =
                            replay(&mut vm, turn, &history, || watched.replayed_one(key));
                        match replayed {
                            Ok(()) => VmDid::Replayed,
                            Err(Divergence(reason)) => VmDid::Diverged(reason),
                        }
                    }
                };
                let memory = vm.memory_bytes();
                self.vms.insert(key, (vm, Arc::clone(&start.limits)));
                (key, start.time, memory, what)
            }
            VmCommand::Deliver { key, deliver } => {
                let (vm, limits) = self.vms.get_mut(&key)?;
                watched.begins(key, vm.stopper(), limits.turn_wall_ms);
                let turn = vm.deliver(&deliver);
                (key, deliver.time, vm.memory_bytes(), VmDid::Turned(turn))
            }
            VmCommand::Drop { key } => {
                self.vms.remove(&key);
                return None;
            }
        };
        watched.ends();
        Some(VmReport {
            key,
            time,
            memory: Some(memory),
            what,
        })
    }
}

/// Runs the recorded turns again and checks that the code makes the recorded calls.
fn replay(
    vm: &mut Vm,
    first: Turn,
    history: &History,
    mut replayed_one: impl FnMut(),
) -> Result<(), Divergence> {
    let mut made = 0;
    let mut turn = first;
    let mut turns = history.turns().iter();
    loop {
        for call in &turn.made {
            made += 1;
            history.check(CallSeq(made), attempted(call))?;
        }
        let next = turns.next();
        match (&turn.end, next) {
            (TurnEnd::Waiting, None) => break,
            (TurnEnd::Waiting, Some(recorded)) => {
                // A delivery of a call that the code has not made yet is caught by the VM's own count.
                if recorded.items.iter().any(|(seq, _)| seq.0 > made) {
                    return Err(history.stopped_at(made, "waits"));
                }
                replayed_one();
                turn = vm.deliver(&VmDeliver {
                    time: recorded.time,
                    items: recorded.items.clone(),
                });
            }
            (TurnEnd::Completed(_), _) => return Err(history.stopped_at(made, "ends")),
            (TurnEnd::Failed(failure), _) => {
                return Err(history.stopped_at(made, &format!("fails ({failure})")));
            }
        }
    }
    if made < history.made() {
        return Err(history.stopped_at(made, "waits"));
    }
    Ok(())
}

fn attempted(made: &Made) -> Attempted<'_> {
    match made {
        Made::Call {
            service,
            path,
            args,
            ..
        } => Attempted::Call {
            service,
            path,
            args: args.text(),
        },
        Made::Task { name, input } => Attempted::Task {
            name,
            input: input.text(),
        },
        Made::Timer { path, delay_ms } => Attempted::Timer {
            path,
            delay_ms: *delay_ms,
        },
        Made::Signal { name } => Attempted::Signal { name },
    }
}
