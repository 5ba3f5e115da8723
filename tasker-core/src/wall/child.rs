//! What runs in a child process: one thread that turns VMs, and the main thread, which interrupts turns that take too long.
//!
//! The child confines itself before it reads anything; task source comes over the pipe only after that. It trusts what the host
//! says and expects nothing of itself: whatever goes wrong here, the host takes it for a crash.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use tasker_adaptor::Failure;

use super::answers::{PROTOCOL, Ready, write_fault, write_ready, write_replayed_one, write_report};
use super::check::max_answer;
use super::codec::{LENGTH, split};
use super::commands::{CommandReader, turn_of};
use super::confine;
use super::guard::{Spent, since};
use super::processor;
use super::wire::Output;
use super::worker::{VmDid, VmKey, VmReport, Watched, Worker};
use crate::vm::{BytecodeCache, Stopper, Turn, TurnEnd, VmPool};

/// First argument of a child.
pub(super) const MARK: &str = "--tasker-sandbox-child";
/// Exit code of a child that has said what went wrong.
const FAULTED: i32 = 70;
/// Exit code of a child that has no more memory.
pub(super) const OUT_OF_MEMORY: i32 = 71;
/// Realms kept ready.
const PREPARED: usize = 2;
/// Bytes asked of the pipe at one time.
const READ: usize = 64 << 10;

/// [`child_main`] was called, so this executable can be its own sandbox program.
static CALLED: AtomicBool = AtomicBool::new(false);

/// The child's pipe to the host: a static, so that a panic can be told.
static OUTPUT: OnceLock<File> = OnceLock::new();

/// Makes this executable its own sandbox program: the first line of a plain `fn main`.
///
/// In a child process that an engine with `Wall::process()` started, this confines the process, turns VMs until the engine is done
/// with them, and never returns. Otherwise it notes that it was called and returns at once.
///
/// It must come before anything else: before `#[tokio::main]` starts its threads, before files are opened, before secrets are read.
///
/// ```no_run
/// // fn main() {
/// tasker_core::wall::child_main();
/// // Now the runtime, the storage, the engine with .wall(Wall::process()).
/// // }
/// ```
pub fn child_main() {
    CALLED.store(true, Ordering::Relaxed);
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != MARK) {
        return;
    }
    let orders = arguments
        .next()
        .and_then(|text| Orders::parse(text.to_str()?));
    let Some(orders) = orders else {
        std::process::exit(FAULTED);
    };
    std::process::exit(match run(orders) {
        Ok(never) => match never {},
        Err(what) => {
            fault(&what);
            FAULTED
        }
    })
}

/// Whether [`child_main`] was called in this process.
pub(super) fn was_called() -> bool {
    CALLED.load(Ordering::Relaxed)
}

/// What the host tells a child before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orders {
    /// The host's process id.
    pub(super) parent: u32,
    /// Stack of the VM thread, in bytes.
    pub(super) stack: usize,
    /// Memory of the process, in bytes.
    pub(super) memory: u64,
}

impl Orders {
    pub(super) fn text(self) -> String {
        let Self {
            parent,
            stack,
            memory,
        } = self;
        format!("{parent},{stack},{memory}")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        Some(Self {
            parent: parts.next()?.parse().ok()?,
            stack: parts.next()?.parse().ok()?,
            memory: parts.next()?.parse().ok()?,
        })
    }
}

enum Never {}

fn run(orders: Orders) -> Result<Never, String> {
    let pipe = |what| move |error: std::io::Error| format!("its {what} cannot be used: {error}");
    let input = confine::input().map_err(pipe("input"))?;
    let output = confine::output().map_err(pipe("output"))?;
    let output = OUTPUT.get_or_init(|| output);
    std::panic::set_hook(Box::new(|panic| {
        fault(&format!("it panicked: {panic}"));
        std::process::exit(FAULTED);
    }));
    crate::vm::when_out_of_memory(|| std::process::exit(OUT_OF_MEMORY));
    let pipes = confine::Pipes::new(&input, output);
    let missing = confine::close_in(orders, &pipes)?;

    // The VM thread is there before the filter that lets no thread begin.
    let (confined, go) = mpsc::channel();
    let (begun, has_begun) = mpsc::channel();
    let clockwork = Arc::new(Clockwork::default());
    let turning = VmThread {
        input,
        output,
        clockwork: Arc::clone(&clockwork),
    };
    std::thread::Builder::new()
        .stack_size(orders.stack)
        .spawn(move || {
            // A first allocation: what the allocator asks the system about threads it asks now.
            drop(begun.send(Box::new([0u8; 64])));
            if go.recv() == Ok(true) {
                turning.run(missing);
            }
        })
        .map_err(|error| format!("its thread could not be started: {error}"))?;
    has_begun
        .recv()
        .map_err(|_| "its thread ended at once".to_owned())?;
    // A first time: where the system keeps its clocks is looked up now.
    processor::own_process();
    confine::seal(&pipes)?;
    confined
        .send(true)
        .map_err(|_| "its thread ended at once".to_owned())?;
    clockwork.tick()
}

/// Says what went wrong.
fn fault(what: &str) {
    let mut out = Output::default();
    write_fault(&mut out, what);
    if let Some(mut output) = OUTPUT.get() {
        // Without a host there is nobody to tell.
        let _ = output.write_all(&out.0);
    }
}

struct VmThread {
    input: File,
    output: &'static File,
    clockwork: Arc<Clockwork>,
}

impl VmThread {
    /// Takes commands until the host is done. Each turn is answered as soon as it is over, so that the first command without an
    /// answer is the one that is under way.
    fn run(mut self, missing: Vec<String>) -> ! {
        let mut worker = Worker::new(VmPool::new(Arc::new(BytecodeCache::new()), PREPARED));
        // The first realm shows that the filter lets through what QuickJS needs.
        worker.refill();
        let mut out = Output::default();
        write_ready(
            &mut out,
            &Ready {
                protocol: PROTOCOL,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                missing,
            },
        );
        self.say(&mut out);
        let mut reader = CommandReader::default();
        let mut bytes = Vec::new();
        let mut filled = 0;
        loop {
            while worker.refill() {}
            if bytes.len() < filled + READ {
                bytes.resize(filled + READ, 0);
            }
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) | Err(_) => std::process::exit(0),
                Ok(more) => filled += more,
            }
            let mut taken = 0;
            loop {
                let (body, size) = match split(&bytes[taken..filled], u64::MAX) {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(garbled) => fail(garbled.0),
                };
                taken += size;
                let command = match reader.read(body) {
                    Ok(Some(command)) => command,
                    Ok(None) => continue,
                    Err(garbled) => fail(garbled.0),
                };
                if let Ok(Some((next, _))) = split(&bytes[taken..filled], u64::MAX)
                    && let Some(key) = turn_of(next)
                {
                    worker.prefetch(key);
                }
                let mut watched = WatchedThread {
                    clockwork: &self.clockwork,
                    output: self.output,
                };
                if let Some(report) = worker.handle(command, &mut watched) {
                    write_bounded(&mut out, &report, &worker);
                    self.say(&mut out);
                }
            }
            bytes.copy_within(taken..filled, 0);
            filled -= taken;
            if bytes.len() > (1 << 20) && filled < READ {
                bytes = bytes[..filled].to_vec();
            }
        }
    }

    fn say(&mut self, out: &mut Output) {
        if self.output.write_all(&out.0).is_err() {
            std::process::exit(0);
        }
        out.0.clear();
        out.0.shrink_to(1 << 20);
    }
}

fn fail(what: &str) -> ! {
    fault(&format!("it does not understand the host: {what}"));
    std::process::exit(FAULTED)
}

/// Writes a report, or, when it is longer than the host takes, a failure in its place.
fn write_bounded(out: &mut Output, report: &VmReport, worker: &Worker) {
    write_report(out, report);
    let max = worker
        .limits(report.key)
        .map_or(u64::MAX, |limits| max_answer(limits));
    if (out.0.len() - LENGTH) as u64 <= max {
        return;
    }
    out.0.clear();
    let what = format!(
        "what the turn put out has more than {max} bytes; make fewer calls at one time, or smaller ones"
    );
    let failure = Failure {
        code: Some(crate::limits::Limit::Memory.as_str().to_owned()),
        ..Failure::new("LimitExceeded", what)
    };
    let turn = Turn {
        made: Vec::new(),
        dropped: Vec::new(),
        logs: Vec::new(),
        end: TurnEnd::Failed(failure),
    };
    write_report(
        out,
        &VmReport {
            what: VmDid::Turned(turn),
            ..*report
        },
    );
}

/// Interrupts turns that outlive their guard. Counts its own pauses instead of asking for the time.
#[derive(Default)]
struct Clockwork {
    doing: Mutex<Doing>,
    begun: Condvar,
}

#[derive(Default)]
struct Doing {
    /// Counts turns.
    turn: u64,
    running: Option<(Stopper, u64)>,
    /// The clockwork stands still until a turn begins.
    stands: bool,
}

impl Clockwork {
    fn doing(&self) -> std::sync::MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) -> ! {
        let mut doing = self.doing();
        let (mut seen, mut waited_ms, mut processor_ms) = (0, 0, None);
        loop {
            let Some((_, guard_ms)) = doing.running else {
                doing.stands = true;
                doing = self
                    .begun
                    .wait(doing)
                    .unwrap_or_else(PoisonError::into_inner);
                doing.stands = false;
                continue;
            };
            if doing.turn != seen {
                (seen, waited_ms, processor_ms) = (doing.turn, 0, processor::own_process());
            }
            let pause = (guard_ms / 8).clamp(1, 50);
            doing = self
                .begun
                .wait_timeout(doing, Duration::from_millis(pause))
                .map_or_else(|poisoned| poisoned.into_inner().0, |(doing, _)| doing);
            if doing.turn != seen {
                continue;
            }
            waited_ms += pause;
            let had = || since(processor_ms, processor::own_process());
            if let Some((stopper, guard_ms)) = &doing.running
                && Spent::when_due(waited_ms, *guard_ms, had)
                    .is_some_and(|spent| spent.is_over(*guard_ms))
            {
                stopper.stop();
            }
        }
    }
}

struct WatchedThread<'a> {
    clockwork: &'a Clockwork,
    output: &'static File,
}

impl Watched for WatchedThread<'_> {
    fn begins(&mut self, _key: VmKey, stopper: Stopper, wall_ms: u64) {
        let mut doing = self.clockwork.doing();
        doing.turn += 1;
        doing.running = Some((stopper, wall_ms));
        if doing.stands {
            self.clockwork.begun.notify_one();
        }
    }

    fn replayed_one(&mut self, key: VmKey) {
        self.clockwork.doing().turn += 1;
        let mut out = Output::default();
        write_replayed_one(&mut out, key);
        if self.output.write_all(&out.0).is_err() {
            std::process::exit(0);
        }
    }

    fn ends(&mut self) {
        self.clockwork.doing().running = None;
    }
}
