//! The homes of VMs: threads of this process, child processes, or both. Each frame stays in its home while it is hot.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::clock::EngineClock;
use super::core::Message;
use super::home_threads::ThreadHomes;
use crate::limits::{Limit, Limits};
use crate::run::History;
use crate::vm::{VmDeliver, VmStart};
#[cfg(feature = "process-wall")]
use crate::wall::process::ProcessHomes;
use crate::wall::worker::VmCommand;
pub(crate) use crate::wall::worker::{VmDid, VmKey, VmReport};
use crate::wall::{Wall, WallError};

/// What a VM counts as until it has said what it takes, in bytes: a realm and a small task.
pub(crate) const NEW_VM_BYTES: usize = 256 << 10;

/// The homes of an engine's VMs. The first ones are threads, the others child processes.
pub(crate) struct VmThreads {
    next: u64,
    vms: HashMap<VmKey, Place>,
    /// VMs in each home.
    loads: Vec<usize>,
    /// Memory of all VMs, in bytes.
    memory: usize,
    wall: Wall,
    threads: Option<ThreadHomes>,
    #[cfg(feature = "process-wall")]
    processes: Option<ProcessHomes>,
}

/// Where a VM is, and what it takes.
struct Place {
    home: usize,
    bytes: usize,
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
        wall: Wall,
        count: usize,
        js_stack: usize,
        clock: EngineClock,
        reports: &UnboundedSender<Message>,
    ) -> Result<Self, WallError> {
        #[cfg(feature = "process-wall")]
        let processes = match wall.processes() {
            Some(settings) => {
                let reports = reports.clone();
                let report = move |report| reports.send(Message::Vm(report)).is_ok();
                let report = Arc::new(report);
                Some(ProcessHomes::start(settings, count, js_stack, report).await?)
            }
            None => None,
        };
        let threads = wall
            .has_threads()
            .then(|| ThreadHomes::start(count, js_stack, clock, reports))
            .transpose()
            .map_err(WallError::Threads)?;
        let mut all = Self {
            next: 0,
            vms: HashMap::new(),
            loads: Vec::new(),
            memory: 0,
            wall,
            threads,
            #[cfg(feature = "process-wall")]
            processes,
        };
        all.loads = vec![0; all.first_process() + all.process_count()];
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

    /// The homes in which this frame may live.
    fn homes_for(&self, start: &VmStart) -> Range<usize> {
        let program = &start.program;
        if self.wall.is_in_process(&program.name, &program.version) {
            0..self.first_process()
        } else {
            self.first_process()..self.loads.len()
        }
    }

    /// Memory of all VMs as they said it last, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// Memory of one VM, in bytes.
    pub(crate) fn memory_of(&self, key: VmKey) -> usize {
        self.vms.get(&key).map_or(0, |place| place.bytes)
    }

    /// Notes what a VM says that it takes.
    pub(crate) fn note(&mut self, report: &VmReport) {
        if let (Some(place), Some(bytes)) = (self.vms.get_mut(&report.key), report.memory) {
            self.memory = self.memory - place.bytes + bytes;
            place.bytes = bytes;
        }
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
            .min_by_key(|n| self.loads[*n])
            .unwrap_or(0);
        self.loads[home] += 1;
        self.memory += NEW_VM_BYTES;
        let bytes = NEW_VM_BYTES;
        self.vms.insert(key, Place { home, bytes });
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
        if let Some(place) = self.vms.get(&key) {
            self.send(place.home, VmCommand::Deliver { key, deliver });
        }
    }

    pub(crate) fn drop_vm(&mut self, key: VmKey) {
        if let Some(home) = self.forget(key) {
            self.send(home, VmCommand::Drop { key });
        }
    }

    /// The home that it had.
    fn forget(&mut self, key: VmKey) -> Option<usize> {
        let Place { home, bytes } = self.vms.remove(&key)?;
        self.loads[home] -= 1;
        self.memory -= bytes;
        Some(home)
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
