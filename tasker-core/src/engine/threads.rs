//! The homes of VMs: threads of this process, child processes, or both. Each frame stays in its home while it is hot.
//!
//! A VM is built or has a turn, one at a time. That work waits here while it does not fit into the memory budget, or its home has enough
//! to do: what was sent to a home is done before a VM there can be given back. Turns go before new VMs, for they may give memory back.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use super::budget::{Budget, Work};
use super::clock::EngineClock;
use super::core::Message;
use super::home_threads::ThreadHomes;
use super::options::Options;
use crate::limits::{Limit, Limits};
use crate::run::History;
use crate::vm::{VmDeliver, VmStart};
#[cfg(feature = "process-wall")]
use crate::wall::process::ProcessHomes;
use crate::wall::worker::VmCommand;
pub(crate) use crate::wall::worker::{VmDid, VmKey, VmReport};
use crate::wall::{Wall, WallError};

/// Work that is sent to one home at a time: enough that it never waits for the next one.
const DEPTH: usize = 16;

/// What a frame takes beside the heap of its VM, in bytes: what stands behind its bridge, its machine, what the allocator rounds up.
/// Seen as resident memory (figure `hot_memory`).
const BESIDE_HEAP: usize = 32 << 10;

/// The homes of an engine's VMs. The first ones are threads, the others child processes.
pub(crate) struct VmThreads {
    next: u64,
    vms: HashMap<VmKey, Place>,
    homes: Vec<Home>,
    budget: Budget,
    wall: Wall,
    outbox: Arc<Outbox>,
    threads: Option<ThreadHomes>,
    #[cfg(feature = "process-wall")]
    processes: Option<ProcessHomes>,
}

/// Reports that the core has not taken. It is woken apart from that, for several at one time.
pub(super) struct Outbox {
    reports: Mutex<Vec<VmReport>>,
    core: UnboundedSender<Message>,
}

impl Outbox {
    /// How many there are with this one.
    pub(super) fn put(&self, report: VmReport) -> usize {
        let mut reports = lock(&self.reports);
        reports.push(report);
        reports.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.reports).is_empty()
    }

    /// Whether there is a core.
    pub(super) fn wake_core(&self) -> bool {
        self.core.send(Message::VmsReported).is_ok()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in it is whole at every point where a holder could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Home {
    vms: usize,
    /// Work that was sent and is not over.
    sent: usize,
    held_turns: VecDeque<(VmKey, VmCommand)>,
    held_builds: VecDeque<(VmKey, VmCommand)>,
}

/// Where a VM is, and what it takes.
struct Place {
    home: usize,
    bytes: usize,
    work: WorkIs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WorkIs {
    Over,
    Held(Work),
    Sent(Work),
}

impl Home {
    fn held(&mut self, work: Work) -> &mut VecDeque<(VmKey, VmCommand)> {
        match work {
            Work::Build => &mut self.held_builds,
            Work::Turn => &mut self.held_turns,
        }
    }
}

impl VmThreads {
    /// Starts the homes behind `wall` for this core.
    #[cfg_attr(
        not(feature = "process-wall"),
        expect(
            clippy::unused_async,
            reason = "threads are there at once, children are not"
        )
    )]
    pub(crate) async fn start(
        wall: Wall,
        options: &Options,
        clock: EngineClock,
        core: &UnboundedSender<Message>,
    ) -> Result<Self, WallError> {
        let outbox = Arc::new(Outbox {
            reports: Mutex::default(),
            core: core.clone(),
        });
        let (count, js_stack) = (options.threads, options.limits.stack_bytes);
        #[cfg(feature = "process-wall")]
        let processes = match wall.processes() {
            Some(settings) => {
                let outbox = Arc::clone(&outbox);
                let report = move |report| {
                    outbox.put(report);
                    outbox.wake_core()
                };
                let report = Arc::new(report);
                Some(ProcessHomes::start(settings, count, js_stack, report).await?)
            }
            None => None,
        };
        let threads = wall
            .has_threads()
            .then(|| ThreadHomes::start(count, js_stack, clock, Arc::clone(&outbox)))
            .transpose()
            .map_err(WallError::Threads)?;
        let mut all = Self {
            next: 0,
            vms: HashMap::new(),
            homes: Vec::new(),
            budget: Budget::new(options.hot_bytes, options.limits.memory_bytes),
            wall,
            outbox,
            threads,
            #[cfg(feature = "process-wall")]
            processes,
        };
        let count = all.first_process() + all.process_count();
        all.homes.resize_with(count, Home::default);
        Ok(all)
    }

    /// Threads come first.
    fn first_process(&self) -> usize {
        self.threads.as_ref().map_or(0, ThreadHomes::count)
    }

    #[cfg(feature = "process-wall")]
    fn process_count(&self) -> usize {
        self.processes.as_ref().map_or(0, ProcessHomes::count)
    }

    #[cfg(not(feature = "process-wall"))]
    fn process_count(&self) -> usize {
        0
    }

    /// Moves what VMs have reported into `reports`.
    pub(crate) fn take_reports(&self, reports: &mut Vec<VmReport>) {
        reports.append(&mut lock(&self.outbox.reports));
    }

    /// Whether a thread may have reported and told nobody, because it went on with more work at once.
    pub(crate) fn may_have_reported(&self) -> bool {
        let threads = &self.homes[..self.first_process()];
        threads.iter().any(|home| home.sent > 1)
    }

    /// Pieces of work that threads of this process have and have not reported.
    pub(crate) fn turns_on_threads(&self) -> usize {
        let threads = &self.homes[..self.first_process()];
        threads.iter().map(|home| home.sent).sum()
    }

    /// The homes in which this frame may live.
    fn homes_for(&self, start: &VmStart) -> Range<usize> {
        let program = &start.program;
        if self.wall.is_in_process(&program.name, &program.version) {
            0..self.first_process()
        } else {
            self.first_process()..self.homes.len()
        }
    }

    /// Memory of one VM, in bytes.
    pub(crate) fn memory_of(&self, key: VmKey) -> usize {
        self.vms.get(&key).map_or(0, |place| place.bytes)
    }

    /// Memory that VMs must give back so that the work that waits can be sent, in bytes.
    pub(crate) fn lack(&self) -> usize {
        let (mut builds, mut turns) = (0, 0);
        for home in &self.homes {
            let free = DEPTH - home.sent;
            let first = home.held_turns.len().min(free);
            turns += first;
            builds += home.held_builds.len().min(free - first);
        }
        self.budget.lack(builds, turns)
    }

    /// For how many more VMs there is memory, if `builds` others were built and so many bytes given back.
    pub(crate) fn room(&self, builds: usize, back: usize) -> usize {
        let held: usize = self.homes.iter().map(|home| home.held_builds.len()).sum();
        self.budget.room(held + builds, back)
    }

    /// Notes that a VM was built or its turn is over, and what it says that it takes, and sends what fits now.
    pub(crate) fn note(&mut self, report: &VmReport) {
        let Some(place) = self.vms.get_mut(&report.key) else {
            return;
        };
        let WorkIs::Sent(work) = place.work else {
            // It is gone with its home; the core gives it back.
            return;
        };
        place.work = WorkIs::Over;
        self.homes[place.home].sent -= 1;
        self.budget.ends(work);
        if let Some(bytes) = report.memory.map(|heap| heap + BESIDE_HEAP) {
            self.budget.said(work, place.bytes, bytes);
            place.bytes = bytes;
        }
        self.send_held();
    }

    /// Stops turns that have outlived their guard, and gives up threads that do not answer to that: the frame whose turn does not
    /// end is reported as destroyed, the others as lost. Child processes have a watch of their own.
    pub(crate) fn watch(&mut self, limits: &Limits) {
        let Some(threads) = &mut self.threads else {
            return;
        };
        let given_up = threads.give_up(limits.turn_wall_ms);
        for (home, guilty) in given_up {
            let here = |(key, place): (&VmKey, &Place)| (place.home == home).then_some(*key);
            let gone: Vec<VmKey> = self.vms.iter().filter_map(here).collect();
            for key in gone {
                self.forget(key);
                let what = if key == guilty {
                    VmDid::Destroyed(Limit::WallClock.failure(limits))
                } else {
                    VmDid::Lost
                };
                if let Some(threads) = &self.threads {
                    threads.report(key, what);
                }
            }
        }
    }

    /// When [`VmThreads::watch`] has to look next, on the monotonic clock, as far as turns are under way.
    pub(crate) fn next_watch_ms(&self, wall_ms: u64) -> Option<i64> {
        self.threads.as_ref()?.next_watch_ms(wall_ms)
    }

    /// Builds a VM in that one of its homes that has the fewest.
    pub(crate) fn start_vm(&mut self, start: VmStart, history: Option<Arc<History>>) -> VmKey {
        self.next += 1;
        let key = VmKey(self.next);
        let home = self
            .homes_for(&start)
            .min_by_key(|n| self.homes[*n].vms)
            .unwrap_or(0);
        self.homes[home].vms += 1;
        self.vms.insert(
            key,
            Place {
                home,
                bytes: 0,
                work: WorkIs::Over,
            },
        );
        let start = Box::new(start);
        let command = VmCommand::Start {
            key,
            start,
            history,
        };
        self.ask(key, Work::Build, command);
        key
    }

    pub(crate) fn deliver(&mut self, key: VmKey, deliver: VmDeliver) {
        self.ask(key, Work::Turn, VmCommand::Deliver { key, deliver });
    }

    pub(crate) fn drop_vm(&mut self, key: VmKey) {
        if let Some(home) = self.forget(key) {
            self.send(home, VmCommand::Drop { key });
            self.send_held();
        }
    }

    /// The home in which it was; `None` when it was never sent there.
    fn forget(&mut self, key: VmKey) -> Option<usize> {
        let Place { home, bytes, work } = self.vms.remove(&key)?;
        let at = &mut self.homes[home];
        at.vms -= 1;
        match work {
            WorkIs::Over => {}
            WorkIs::Held(work) => {
                at.held(work).retain(|(held, _)| *held != key);
                if work == Work::Build {
                    return None;
                }
            }
            WorkIs::Sent(work) => {
                at.sent -= 1;
                self.budget.ends(work);
            }
        }
        self.budget.gone(bytes);
        Some(home)
    }

    fn ask(&mut self, key: VmKey, work: Work, command: VmCommand) {
        if let Some(place) = self.vms.get_mut(&key) {
            place.work = WorkIs::Held(work);
            let held = self.homes[place.home].held(work);
            held.push_back((key, command));
            self.send_held();
        }
    }

    /// Sends what waits, as far as it fits: to one home after the other, so that none has all of the budget.
    fn send_held(&mut self) {
        for work in [Work::Turn, Work::Build] {
            let mut sent = true;
            while std::mem::take(&mut sent) {
                for n in 0..self.homes.len() {
                    let home = &mut self.homes[n];
                    if home.sent >= DEPTH || home.held(work).is_empty() || !self.budget.fits(work) {
                        continue;
                    }
                    if let Some((key, command)) = home.held(work).pop_front() {
                        home.sent += 1;
                        self.budget.begins(work);
                        if let Some(place) = self.vms.get_mut(&key) {
                            place.work = WorkIs::Sent(work);
                        }
                        self.send(n, command);
                        sent = true;
                    }
                }
            }
        }
    }

    fn send(&self, home: usize, command: VmCommand) {
        match &self.threads {
            Some(threads) if home < threads.count() => threads.send(home, command),
            #[cfg(feature = "process-wall")]
            _ => {
                if let Some(processes) = &self.processes {
                    processes.send(home - self.first_process(), command);
                }
            }
            #[cfg(not(feature = "process-wall"))]
            _ => {}
        }
    }

    /// Stops the homes and waits for them.
    pub(crate) fn join(self) {
        if let Some(threads) = self.threads {
            threads.join();
        }
        #[cfg(feature = "process-wall")]
        if let Some(processes) = self.processes {
            processes.join();
        }
    }
}
