//! The homes of VMs: threads of this process, or child processes. Each frame stays in its home while it is hot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use super::background::OsThread;
use super::clock::EngineClock;
use super::core::Message;
use super::stats::Counts;
use crate::limits::{Limit, Limits};
use crate::run::History;
use crate::vm::{BytecodeCache, Stopper, VmDeliver, VmPool, VmStart};
#[cfg(feature = "process-wall")]
use crate::wall::process::ProcessHomes;
use crate::wall::worker::{VmCommand, Watched, Worker, thread_stack};
pub(crate) use crate::wall::worker::{VmDid, VmKey, VmReport};
use crate::wall::{Wall, WallError};

/// Realms that each home keeps ready.
const PREPARED: usize = 2;

/// How long after it was stopped a turn may go on before its thread is given up, in milliseconds:
/// it is stuck in a native operation that never asks. Short, for the other frames of the thread wait meanwhile.
const GRACE_MS: i64 = 300;

/// The homes of an engine's VMs.
pub(crate) struct VmThreads {
    next: u64,
    homes: HashMap<VmKey, usize>,
    /// Frames in each home.
    loads: Vec<usize>,
    kind: Homes,
    /// Is told how many VMs there are.
    counts: Arc<Counts>,
}

enum Homes {
    Threads(ThreadHomes),
    #[cfg(feature = "process-wall")]
    Processes(ProcessHomes),
}

impl VmThreads {
    /// Starts the homes behind `wall`; reports go to `reports`.
    #[cfg_attr(
        not(feature = "process-wall"),
        expect(
            clippy::unused_async,
            reason = "threads are there at once, children are not"
        )
    )]
    pub(crate) async fn start(
        wall: &Wall,
        threads: usize,
        js_stack: usize,
        clock: EngineClock,
        reports: &UnboundedSender<Message>,
        counts: Arc<Counts>,
    ) -> Result<Self, WallError> {
        let (count, kind) = match wall.processes() {
            #[cfg(feature = "process-wall")]
            Some(settings) => {
                let reports = reports.clone();
                let report = move |report| reports.send(Message::Vm(report)).is_ok();
                let homes =
                    ProcessHomes::start(settings, threads, js_stack, Arc::new(report)).await?;
                (homes.count(), Homes::Processes(homes))
            }
            #[cfg(not(feature = "process-wall"))]
            Some(never) => match *never {},
            None => {
                let threads = threads.max(1);
                let homes = ThreadHomes::start(threads, js_stack, clock, reports)
                    .map_err(WallError::Threads)?;
                (threads, Homes::Threads(homes))
            }
        };
        Ok(Self {
            next: 0,
            homes: HashMap::new(),
            loads: vec![0; count],
            kind,
            counts,
        })
    }

    /// Stops turns that have outlived their wall-clock guard, and gives up threads that do not answer to that: the frame whose
    /// turn does not end is reported as destroyed, the others as lost. Child processes have a watch of their own.
    pub(crate) fn watch(&mut self, limits: &Limits) {
        match &mut self.kind {
            Homes::Threads(threads) => {
                for (home, guilty) in threads.give_up(limits.turn_wall_ms) {
                    let gone: Vec<VmKey> = self
                        .homes
                        .iter()
                        .filter(|(_, at)| **at == home)
                        .map(|(key, _)| *key)
                        .collect();
                    for key in gone {
                        self.homes.remove(&key);
                        self.loads[home] -= 1;
                        threads.report(
                            key,
                            if key == guilty {
                                VmDid::Destroyed(Limit::WallClock.failure(limits))
                            } else {
                                VmDid::Lost
                            },
                        );
                    }
                }
            }
            #[cfg(feature = "process-wall")]
            Homes::Processes(_) => {}
        }
        self.counts.hot_frames(self.homes.len());
    }

    /// When [`VmThreads::watch`] has to look next, on the monotonic clock, as far as turns are under way.
    pub(crate) fn next_watch_ms(&self, wall_ms: u64) -> Option<i64> {
        match &self.kind {
            Homes::Threads(threads) => threads.next_watch_ms(wall_ms),
            #[cfg(feature = "process-wall")]
            Homes::Processes(_) => None,
        }
    }

    /// Builds a VM in the home with the fewest.
    pub(crate) fn start_vm(&mut self, start: VmStart, history: Option<Arc<History>>) -> VmKey {
        self.next += 1;
        let key = VmKey(self.next);
        let home = (0..self.loads.len())
            .min_by_key(|n| self.loads[*n])
            .unwrap_or(0);
        self.homes.insert(key, home);
        self.counts.hot_frames(self.homes.len());
        self.loads[home] += 1;
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
            self.counts.hot_frames(self.homes.len());
            self.loads[home] -= 1;
            self.send(home, VmCommand::Drop { key });
        }
    }

    fn send(&self, home: usize, command: VmCommand) {
        match &self.kind {
            Homes::Threads(threads) => threads.send(home, command),
            #[cfg(feature = "process-wall")]
            Homes::Processes(processes) => processes.send(home, command),
        }
    }

    /// Stops the homes and waits for them.
    pub(crate) fn join(self) {
        self.counts.hot_frames(0);
        match self.kind {
            Homes::Threads(threads) => threads.join(),
            #[cfg(feature = "process-wall")]
            Homes::Processes(processes) => processes.join(),
        }
    }
}

/// Threads of this process. When they are dropped they end after the turn they are in; nobody waits for them.
struct ThreadHomes {
    threads: Vec<VmThread>,
    settings: Settings,
}

/// What a new thread needs.
struct Settings {
    js_stack: usize,
    clock: EngineClock,
    reports: UnboundedSender<Message>,
    cache: Arc<BytecodeCache>,
}

struct VmThread {
    commands: mpsc::Sender<VmCommand>,
    doing: Doing,
    os_thread: OsThread,
    handle: JoinHandle<()>,
}

impl VmThread {
    fn doing(&self) -> MutexGuard<'_, Option<Running>> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

impl Settings {
    fn spawn(&self, n: usize) -> std::io::Result<VmThread> {
        let (commands, inbox) = mpsc::channel();
        let doing = Doing::default();
        let os_thread = OsThread::default();
        let home = ThreadHome {
            inbox,
            reports: self.reports.clone(),
            cache: Arc::clone(&self.cache),
            os_thread: os_thread.clone(),
            watched: WatchedThread {
                doing: Arc::clone(&doing),
                clock: self.clock.clone(),
            },
        };
        let handle = std::thread::Builder::new()
            .name(format!("tasker-vm-{n}"))
            .stack_size(thread_stack(self.js_stack))
            .spawn(move || home.run())?;
        Ok(VmThread {
            commands,
            doing,
            os_thread,
            handle,
        })
    }
}

impl ThreadHomes {
    fn start(
        count: usize,
        js_stack: usize,
        clock: EngineClock,
        reports: &UnboundedSender<Message>,
    ) -> std::io::Result<Self> {
        let settings = Settings {
            js_stack,
            clock,
            reports: reports.clone(),
            cache: Arc::default(),
        };
        let threads = (0..count)
            .map(|n| settings.spawn(n))
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self { threads, settings })
    }

    fn next_watch_ms(&self, wall_ms: u64) -> Option<i64> {
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

    /// Stops turns, and gives up the threads that do not answer to that: which, and the VM whose turn does not end.
    fn give_up(&mut self, wall_ms: u64) -> Vec<(usize, VmKey)> {
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
                given_up.push((home, guilty));
            }
        }
        given_up
    }

    fn report(&self, key: VmKey, what: VmDid) {
        let time = self.settings.clock.now();
        let report = VmReport { key, time, what };
        // Without a core there is nobody to tell.
        let _ = self.settings.reports.send(Message::Vm(report));
    }

    fn send(&self, home: usize, command: VmCommand) {
        // A thread that is gone has reported nothing and never will; its frames are lost with the worker's lease.
        if self.threads[home].commands.send(command).is_err() {
            tracing::error!(thread = home, "a VM thread is gone");
        }
    }

    fn join(self) {
        for VmThread {
            commands, handle, ..
        } in self.threads
        {
            drop(commands);
            let _ = handle.join();
        }
    }
}

/// What runs on a VM thread.
struct ThreadHome {
    inbox: mpsc::Receiver<VmCommand>,
    reports: UnboundedSender<Message>,
    cache: Arc<BytecodeCache>,
    os_thread: OsThread,
    watched: WatchedThread,
}

impl ThreadHome {
    fn run(mut self) {
        self.os_thread.is_here();
        let mut worker = Worker::new(VmPool::new(Arc::clone(&self.cache), PREPARED));
        while let Some(command) = self.next(&mut worker) {
            if let Some(report) = worker.handle(command, &mut self.watched)
                && self.reports.send(Message::Vm(report)).is_err()
            {
                return;
            }
        }
    }

    /// The next command. While there is none, realms are prepared.
    fn next(&self, worker: &mut Worker) -> Option<VmCommand> {
        loop {
            match self.inbox.try_recv() {
                Ok(command) => return Some(command),
                Err(mpsc::TryRecvError::Disconnected) => return None,
                Err(mpsc::TryRecvError::Empty) => {
                    if !worker.refill() {
                        return self.inbox.recv().ok();
                    }
                }
            }
        }
    }
}

/// Tells the watchdog what the thread is doing.
struct WatchedThread {
    doing: Doing,
    clock: EngineClock,
}

impl WatchedThread {
    fn set(&self, running: Option<Running>) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

impl Watched for WatchedThread {
    fn begins(&mut self, key: VmKey, stopper: Stopper, _wall_ms: u64) {
        self.set(Some(Running {
            key,
            since_ms: self.clock.monotonic_ms(),
            stopper,
            stopped: false,
        }));
    }

    fn replayed_one(&mut self, _key: VmKey) {
        let mut doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &mut *doing {
            running.since_ms = self.clock.monotonic_ms();
        }
    }

    fn ends(&mut self) {
        self.set(None);
    }
}
