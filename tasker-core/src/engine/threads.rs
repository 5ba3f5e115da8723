//! The threads that own VMs. Each frame stays on its thread while it is hot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use tasker_adaptor::{BlockedReason, CallSeq, Timestamp};
use tokio::sync::mpsc::UnboundedSender;

use super::background::OsThread;
use super::clock::EngineClock;
use super::core::Message;
use crate::run::{Attempted, Divergence, History};
use crate::vm::{BytecodeCache, Made, Stopper, Turn, TurnEnd, Vm, VmDeliver, VmPool, VmStart};

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
    /// On the monotonic clock.
    since_ms: i64,
    stopper: Stopper,
    stopped: bool,
}

/// What a VM thread is doing now.
type Doing = Arc<Mutex<Option<Running>>>;

/// How long after it was stopped a turn may go on before its thread is given up, in milliseconds:
/// it is stuck in a native operation that never asks. Short, for the other frames of the thread wait meanwhile.
const GRACE_MS: i64 = 300;

/// A thread that was given up.
pub(crate) struct GivenUp {
    /// The frame whose turn does not end.
    pub(crate) guilty: VmKey,
    /// The others that lived there.
    pub(crate) others: Vec<VmKey>,
}

/// The VM threads of an engine.
pub(crate) struct VmThreads {
    threads: Vec<VmThread>,
    next: u64,
    homes: HashMap<VmKey, usize>,
    settings: Settings,
}

/// What a new thread needs.
struct Settings {
    js_stack: usize,
    prepared: usize,
    clock: EngineClock,
    reports: UnboundedSender<Message>,
    cache: Arc<BytecodeCache>,
}

struct VmThread {
    commands: mpsc::Sender<VmCommand>,
    /// Frames that live here.
    load: usize,
    doing: Doing,
    os_thread: OsThread,
    handle: Option<JoinHandle<()>>,
}

impl VmThread {
    fn doing(&self) -> MutexGuard<'_, Option<Running>> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// JavaScript stack is at most 16 MiB; the thread has room for it and 2 MiB more for the host side.
fn thread_stack(js_stack: usize) -> usize {
    js_stack.min(16 << 20) + (2 << 20)
}

impl Settings {
    fn spawn(&self, n: usize) -> std::io::Result<VmThread> {
        let (commands, inbox) = mpsc::channel();
        let doing = Doing::default();
        let os_thread = OsThread::default();
        let worker = VmWorker {
            inbox,
            reports: self.reports.clone(),
            pool_of: (Arc::clone(&self.cache), self.prepared),
            doing: Arc::clone(&doing),
            clock: self.clock.clone(),
            os_thread: os_thread.clone(),
        };
        let handle = std::thread::Builder::new()
            .name(format!("tasker-vm-{n}"))
            .stack_size(thread_stack(self.js_stack))
            .spawn(move || worker.run())?;
        Ok(VmThread {
            commands,
            load: 0,
            doing,
            os_thread,
            handle: Some(handle),
        })
    }
}

impl VmThreads {
    /// Starts the threads; reports go to `reports`.
    pub(crate) fn start(
        count: usize,
        js_stack: usize,
        prepared: usize,
        clock: EngineClock,
        reports: &UnboundedSender<Message>,
    ) -> std::io::Result<Self> {
        let settings = Settings {
            js_stack,
            prepared,
            clock,
            reports: reports.clone(),
            cache: Arc::default(),
        };
        let threads = (0..count.max(1))
            .map(|n| settings.spawn(n))
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self {
            threads,
            next: 0,
            homes: HashMap::new(),
            settings,
        })
    }

    /// When [`VmThreads::watch`] has to look next, on the monotonic clock, as far as turns are under way.
    pub(crate) fn next_watch_ms(&self, wall_ms: u64) -> Option<i64> {
        let wall_ms = i64::try_from(wall_ms).unwrap_or(i64::MAX);
        let due = self.threads.iter().filter_map(|thread| {
            let doing = thread.doing();
            let running = doing.as_ref()?;
            let grace = if running.stopped { GRACE_MS } else { 0 };
            Some(
                running
                    .since_ms
                    .saturating_add(wall_ms)
                    .saturating_add(grace),
            )
        });
        due.min()
    }

    /// Stops turns that have outlived their wall-clock guard, and gives up threads that do not answer to that.
    pub(crate) fn watch(&mut self, wall_ms: u64) -> Vec<GivenUp> {
        let now = self.settings.clock.monotonic_ms();
        let mut given_up = Vec::new();
        for home in 0..self.threads.len() {
            let stuck = {
                let mut doing = self.threads[home].doing();
                let Some(running) = &mut *doing else { continue };
                let over = now - running.since_ms - i64::try_from(wall_ms).unwrap_or(i64::MAX);
                if over < 0 {
                    continue;
                }
                if !running.stopped {
                    running.stopper.stop();
                    running.stopped = true;
                }
                (over >= GRACE_MS).then_some(running.key)
            };
            if let Some(guilty) = stuck
                && let Ok(fresh) = self.settings.spawn(home)
            {
                // The old thread ends by itself when its native operation does: its channel is closed.
                let old = std::mem::replace(&mut self.threads[home], fresh);
                old.os_thread.into_background();
                let others: Vec<VmKey> = self
                    .homes
                    .iter()
                    .filter(|(key, at)| **at == home && **key != guilty)
                    .map(|(key, _)| *key)
                    .collect();
                self.homes.retain(|_, at| *at != home);
                given_up.push(GivenUp { guilty, others });
            }
        }
        given_up
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

/// What runs on a VM thread.
struct VmWorker {
    inbox: mpsc::Receiver<VmCommand>,
    reports: UnboundedSender<Message>,
    pool_of: (Arc<BytecodeCache>, usize),
    doing: Doing,
    clock: EngineClock,
    os_thread: OsThread,
}

impl VmWorker {
    fn run(self) {
        self.os_thread.is_here();
        let mut pool = VmPool::new(Arc::clone(&self.pool_of.0), self.pool_of.1);
        let mut vms: HashMap<VmKey, Vm> = HashMap::new();
        while let Some(command) = self.next(&mut pool) {
            let (key, time, what) = match command {
                VmCommand::Start {
                    key,
                    start,
                    history,
                } => {
                    self.begins(key, pool.next_stopper());
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
                    self.begins(key, vm.stopper());
                    (key, deliver.time, VmDid::Turned(vm.deliver(&deliver)))
                }
                VmCommand::Drop { key } => {
                    vms.remove(&key);
                    continue;
                }
                VmCommand::Stop => return,
            };
            *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = None;
            if self
                .reports
                .send(Message::Vm(VmReport { key, time, what }))
                .is_err()
            {
                return;
            }
        }
    }

    /// The next command. While there is none, realms are prepared.
    fn next(&self, pool: &mut VmPool) -> Option<VmCommand> {
        loop {
            match self.inbox.try_recv() {
                Ok(command) => return Some(command),
                Err(mpsc::TryRecvError::Disconnected) => return None,
                Err(mpsc::TryRecvError::Empty) => {
                    if !pool.refill() {
                        return self.inbox.recv().ok();
                    }
                }
            }
        }
    }

    fn begins(&self, key: VmKey, stopper: Stopper) {
        let running = Running {
            key,
            since_ms: self.clock.monotonic_ms(),
            stopper,
            stopped: false,
        };
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
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
