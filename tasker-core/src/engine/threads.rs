//! The threads that own VMs. Each frame stays on its thread while it is hot.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tasker_adaptor::{BlockedReason, CallSeq, Timestamp};
use tokio::sync::mpsc::UnboundedSender;

use super::core::Message;
use crate::run::{Attempted, Divergence, History};
use crate::vm::{BytecodeCache, Made, Turn, TurnEnd, Vm, VmDeliver, VmPool, VmStart};

/// Names one VM for ever: a counter of this engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct VmKey(pub(crate) u64);

/// What a VM thread is asked to do.
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
    /// The thread ends.
    Stop,
}

/// What a VM thread answers.
#[derive(Debug)]
pub(crate) struct VmReport {
    pub(crate) key: VmKey,
    /// Time of the turn.
    pub(crate) time: Timestamp,
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
}

/// A turn that is under way, for the watchdog.
struct Running {
    key: VmKey,
    since_ms: i64,
    interrupt: Arc<AtomicBool>,
}

/// The VM threads of an engine.
pub(crate) struct VmThreads {
    threads: Vec<VmThread>,
    next: u64,
    homes: HashMap<VmKey, usize>,
}

struct VmThread {
    commands: mpsc::Sender<VmCommand>,
    /// Frames that live here.
    load: usize,
    handle: Option<JoinHandle<()>>,
}

/// JavaScript stack is at most 16 MiB; the thread has room for it and 1 MiB more for the host side.
fn thread_stack(js_stack: usize) -> usize {
    js_stack.min(16 << 20) + (2 << 20)
}

impl VmThreads {
    /// Starts the threads; reports go to `reports`.
    pub(crate) fn start(
        count: usize,
        js_stack: usize,
        prepared: usize,
        reports: &UnboundedSender<Message>,
    ) -> std::io::Result<Self> {
        let cache = Arc::new(BytecodeCache::default());
        let threads = (0..count.max(1))
            .map(|n| {
                let (commands, inbox) = mpsc::channel();
                let reports = reports.clone();
                let cache = Arc::clone(&cache);
                let handle = std::thread::Builder::new()
                    .name(format!("tasker-vm-{n}"))
                    .stack_size(thread_stack(js_stack))
                    .spawn(move || run(&inbox, &reports, VmPool::new(cache, prepared)))?;
                Ok(VmThread {
                    commands,
                    load: 0,
                    handle: Some(handle),
                })
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self {
            threads,
            next: 0,
            homes: HashMap::new(),
        })
    }

    /// Builds a VM on the thread with the fewest.
    pub(crate) fn start_vm(&mut self, start: VmStart, history: Option<Arc<History>>) -> VmKey {
        self.next += 1;
        let key = VmKey(self.next);
        let home = (0..self.threads.len())
            .min_by_key(|n| self.threads[*n].load)
            .unwrap_or(0);
        self.homes.insert(key, home);
        self.threads[home].load += 1;
        self.send(
            home,
            VmCommand::Start {
                key,
                start: Box::new(start),
                history,
            },
        );
        key
    }

    pub(crate) fn deliver(&self, key: VmKey, deliver: VmDeliver) {
        if let Some(home) = self.homes.get(&key) {
            self.send(*home, VmCommand::Deliver { key, deliver });
        }
    }

    pub(crate) fn drop_vm(&mut self, key: VmKey) {
        if let Some(home) = self.homes.remove(&key) {
            self.threads[home].load -= 1;
            self.send(home, VmCommand::Drop { key });
        }
    }

    fn send(&self, home: usize, command: VmCommand) {
        // A thread that is gone has reported nothing and never will; its frames are lost with the worker's lease.
        if self.threads[home].commands.send(command).is_err() {
            tracing::error!(thread = home, "a VM thread is gone");
        }
    }
}

impl VmThreads {
    /// Stops the threads and waits for them.
    pub(crate) fn join(mut self) {
        self.stop();
        for thread in &mut self.threads {
            if let Some(handle) = thread.handle.take() {
                let _ = handle.join();
            }
        }
    }

    fn stop(&self) {
        for thread in &self.threads {
            let _ = thread.commands.send(VmCommand::Stop);
        }
    }
}

impl Drop for VmThreads {
    /// The threads end after the turn they are in; nobody waits for them.
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(inbox: &mpsc::Receiver<VmCommand>, reports: &UnboundedSender<Message>, mut pool: VmPool) {
    let mut vms: HashMap<VmKey, Vm> = HashMap::new();
    loop {
        let command = match inbox.try_recv() {
            Ok(command) => command,
            Err(mpsc::TryRecvError::Empty) => {
                // Realms are prepared while there is nothing better to do.
                if pool.refill() {
                    continue;
                }
                match inbox.recv() {
                    Ok(command) => command,
                    Err(_) => return,
                }
            }
            Err(mpsc::TryRecvError::Disconnected) => return,
        };
        let (key, time, what) = match command {
            VmCommand::Start {
                key,
                start,
                history,
            } => {
                let (mut vm, turn) = pool.start(&start);
                let what = match history {
                    None => VmDid::Turned(turn),
                    Some(history) => match replay(&mut vm, turn, &history) {
                        Ok(()) => VmDid::Replayed,
                        Err(Divergence(reason)) => VmDid::Diverged(reason),
                    },
                };
                vms.insert(key, vm);
                (key, start.time, what)
            }
            VmCommand::Deliver { key, deliver } => {
                let Some(vm) = vms.get_mut(&key) else {
                    continue;
                };
                (key, deliver.time, VmDid::Turned(vm.deliver(&deliver)))
            }
            VmCommand::Drop { key } => {
                vms.remove(&key);
                continue;
            }
            VmCommand::Stop => return,
        };
        if reports
            .send(Message::Vm(VmReport { key, time, what }))
            .is_err()
        {
            return;
        }
    }
}

/// Runs the recorded turns again and checks that the code makes the recorded calls.
pub(crate) fn replay(vm: &mut Vm, first: Turn, history: &History) -> Result<(), Divergence> {
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
