//! Homes of VMs on threads of this process, and the watchdog that gives a thread up when its turn does not end.

use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;

use super::background::OsThread;
use super::clock::EngineClock;
use super::threads::{Outbox, lock};
use crate::vm::{BytecodeCache, Stopper, VmPool};
use crate::wall::guard::{Spent, since};
use crate::wall::processor;
use crate::wall::worker::{VmCommand, VmDid, VmKey, VmReport, Watched, Worker, thread_stack};

/// Realms that each home keeps ready.
const PREPARED: usize = 2;
/// After so many reports the core is woken though there is more to do: a home is sent twice as much at one time.
const REPORTS: usize = 8;
/// How long after it was stopped a turn may go on before its thread is given up, in milliseconds, counted as the guard is:
/// it is stuck in a native operation that never asks. Short, for the other frames of the thread wait meanwhile.
const GRACE_MS: u64 = 300;
/// For how long a thread takes the processor time that it last asked for as its own of now, in milliseconds.
/// Asking is a system call, which many a turn is shorter than.
const FRESH_MS: i64 = 10;

/// Threads of this process. When they are dropped they end after the turn they are in; nobody waits for them.
pub(super) struct ThreadHomes {
    threads: Vec<VmThread>,
    settings: Settings,
}

/// What a new thread needs.
struct Settings {
    js_stack: usize,
    clock: EngineClock,
    outbox: Arc<Outbox>,
    cache: Arc<BytecodeCache>,
}

struct VmThread {
    /// Goes first when this is dropped: a thread must not end while it is being detached. glibc up to 2.36 reads the thread's memory once
    /// more after it has said that nobody joins it, and a stack as large as this is given back at once.
    handle: JoinHandle<()>,
    /// The thread ends when this is gone.
    commands: mpsc::Sender<VmCommand>,
    doing: Doing,
    os_thread: OsThread,
}

impl VmThread {
    fn doing(&self) -> MutexGuard<'_, Option<Running>> {
        lock(&self.doing)
    }
}

/// A turn that is under way, for the watchdog.
struct Running {
    key: VmKey,
    began: Moment,
    stopper: Stopper,
    /// It was stopped: what counted of it then, in milliseconds.
    stopped: Option<u64>,
    /// Before this moment of the monotonic clock the watchdog need not look again.
    look_ms: i64,
}

/// A moment of a thread.
#[derive(Clone, Copy, Default)]
struct Moment {
    /// On the monotonic clock.
    ms: i64,
    /// Time that the thread had had on a processor.
    processor_ms: Option<u64>,
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
            outbox: Arc::clone(&self.outbox),
            cache: Arc::clone(&self.cache),
            os_thread: os_thread.clone(),
            watched: WatchedThread {
                doing: Arc::clone(&doing),
                clock: self.clock.clone(),
                asked: None,
            },
            ahead: None,
        };
        let handle = std::thread::Builder::new()
            .name(format!("tasker-vm-{n}"))
            .stack_size(thread_stack(self.js_stack))
            .spawn(move || home.run())?;
        Ok(VmThread {
            handle,
            commands,
            doing,
            os_thread,
        })
    }
}

impl ThreadHomes {
    pub(super) fn start(
        count: usize,
        js_stack: usize,
        clock: EngineClock,
        outbox: Arc<Outbox>,
    ) -> std::io::Result<Self> {
        let settings = Settings {
            js_stack,
            clock,
            outbox,
            cache: Arc::default(),
        };
        let threads = (0..count.max(1))
            .map(|n| settings.spawn(n))
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self { threads, settings })
    }

    pub(super) fn count(&self) -> usize {
        self.threads.len()
    }

    /// When [`ThreadHomes::give_up`] has to look next, on the monotonic clock, as far as turns are under way.
    pub(super) fn next_watch_ms(&self, guard_ms: u64) -> Option<i64> {
        let due = self.threads.iter().filter_map(|thread| {
            let doing = thread.doing();
            let running = doing.as_ref()?;
            let first = running.began.ms.saturating_add_unsigned(guard_ms);
            Some(first.max(running.look_ms))
        });
        due.min()
    }

    /// Stops turns, and gives up the threads that do not answer to that: which, and the VM whose turn does not end.
    pub(super) fn give_up(&mut self, guard_ms: u64) -> Vec<(usize, VmKey)> {
        let mut given_up = Vec::new();
        for home in 0..self.threads.len() {
            if let Some(guilty) = self.stuck(home, guard_ms)
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

    /// The VM whose turn does not end though it was stopped.
    fn stuck(&self, home: usize, guard_ms: u64) -> Option<VmKey> {
        let thread = &self.threads[home];
        let now_ms = self.settings.clock.monotonic_ms();
        let mut doing = thread.doing();
        let running = doing.as_mut()?;
        if now_ms < running.look_ms {
            return None;
        }
        let guard_ms = match running.stopped {
            Some(counted_ms) => counted_ms.saturating_add(GRACE_MS),
            None => guard_ms,
        };
        let began = running.began;
        let clock_ms = now_ms.saturating_sub(began.ms).max(0).unsigned_abs();
        let processor = || since(began.processor_ms, thread.os_thread.processor_ms());
        let spent = Spent::when_due(clock_ms, guard_ms, processor)?;
        if !spent.is_over(guard_ms) {
            running.look_ms = now_ms.saturating_add_unsigned(spent.rest_ms(guard_ms));
            return None;
        }
        running.look_ms = now_ms.saturating_add_unsigned(GRACE_MS);
        if running.stopped.is_some() {
            return Some(running.key);
        }
        running.stopper.stop();
        running.stopped = Some(spent.counted_ms());
        None
    }

    pub(super) fn report(&self, key: VmKey, what: VmDid) {
        let report = VmReport {
            key,
            time: self.settings.clock.now(),
            memory: None,
            what,
        };
        self.settings.outbox.put(report);
        self.settings.outbox.wake_core();
    }

    pub(super) fn send(&self, home: usize, command: VmCommand) {
        // A thread that is gone has reported nothing and never will; its frames are lost with the worker's lease.
        if self.threads[home].commands.send(command).is_err() {
            tracing::error!(thread = home, "a VM thread is gone");
        }
    }

    pub(super) fn join(self) {
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
    outbox: Arc<Outbox>,
    cache: Arc<BytecodeCache>,
    os_thread: OsThread,
    watched: WatchedThread,
    /// The command after the one under way, if it has come.
    ahead: Option<VmCommand>,
}

impl ThreadHome {
    fn run(mut self) {
        self.os_thread.is_here();
        let mut worker = Worker::new(VmPool::new(Arc::clone(&self.cache), PREPARED));
        while let Some(command) = self.next(&mut worker) {
            self.ahead = self.inbox.try_recv().ok();
            if let Some(VmCommand::Deliver { key, .. }) = &self.ahead {
                worker.prefetch(*key);
            }
            if let Some(report) = worker.handle(command, &mut self.watched)
                && self.outbox.put(report) >= REPORTS
            {
                self.outbox.wake_core();
            }
        }
    }

    /// The next command. While there is none, realms are prepared.
    fn next(&mut self, worker: &mut Worker) -> Option<VmCommand> {
        if let Some(command) = self.ahead.take() {
            return Some(command);
        }
        loop {
            match self.inbox.try_recv() {
                Ok(command) => return Some(command),
                Err(mpsc::TryRecvError::Disconnected) => return None,
                Err(mpsc::TryRecvError::Empty) => {}
            }
            if !self.outbox.is_empty() {
                self.outbox.wake_core();
            }
            if !worker.refill() {
                return self.inbox.recv().ok();
            }
        }
    }
}

/// Tells the watchdog what the thread is doing.
struct WatchedThread {
    doing: Doing,
    clock: EngineClock,
    /// When it last asked for its processor time, and what it was.
    asked: Option<Moment>,
}

impl WatchedThread {
    fn set(&self, running: Option<Running>) {
        *lock(&self.doing) = running;
    }

    /// Now; its processor time as it was a moment ago.
    fn now(&mut self) -> Moment {
        let ms = self.clock.monotonic_ms();
        let asked = match self.asked {
            Some(asked) if ms < asked.ms.saturating_add(FRESH_MS) => asked,
            _ => Moment {
                ms,
                processor_ms: processor::own_thread(),
            },
        };
        self.asked = Some(asked);
        Moment { ms, ..asked }
    }
}

impl Watched for WatchedThread {
    fn begins(&mut self, key: VmKey, stopper: Stopper, _wall_ms: u64) {
        let began = self.now();
        self.set(Some(Running {
            key,
            began,
            stopper,
            stopped: None,
            look_ms: 0,
        }));
    }

    fn replayed_one(&mut self, _key: VmKey) {
        let now = self.now();
        let mut doing = lock(&self.doing);
        if let Some(running) = &mut *doing {
            running.began = now;
        }
    }

    fn ends(&mut self) {
        self.set(None);
    }
}
