//! The host's side of child processes: starts them, speaks to them, watches them, buries them.
//!
//! Each child has two threads here: one lives as long as the home, starts the child, reads its answers and takes its place when it
//! dies; one writes, whatever is queued in one go. One more thread watches all children of an engine. Nothing here waits for a child
//! without a watch, and no child is ever waited for by the engine.
//! Invariants: the first command without an answer is the one under way · a VM is told of once more after its child died, as
//! destroyed or as lost · children are ended by the handle that started them, never by a number that may be somebody else's.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tasker_adaptor::{Failure, Timestamp};
use tokio::sync::oneshot;

use super::check::{Believed, Ledger, max_answer};
use super::child::{MARK, Orders, was_called};
use super::codec::{Answer, CommandWriter, PROTOCOL, Ready, read_answer, split};
use super::wire::{Garbled, Output};
use super::worker::{VmCommand, VmDid, VmKey, VmReport, thread_stack};
use super::{Processes, WallError};
use crate::limits::{Limit, Limits};

/// How often busy children are looked at, in milliseconds.
const LOOK_MS: u64 = 20;
/// How long a child may take to become ready, in milliseconds.
const READY_MS: u64 = 20_000;
/// How long after its wall-clock guard a turn may go on before its child is killed, in milliseconds; never longer than the guard itself.
const GRACE_MS: u64 = 1_000;
/// Bytes read from a child at one time.
const READ: usize = 64 << 10;
/// Commands are written when so many bytes of them have come together, or when there are no more.
const WRITE: usize = 256 << 10;
/// How often a frame may be under way when its child dies for a reason outside of it (killed by somebody, out of processor time).
const SUSPICIONS: u32 = 3;
/// The longest answer of a child that has been asked nothing.
const MAX_READY: u64 = 64 << 10;

/// Takes reports; false when nobody wants them any more.
pub(crate) type Reports = Arc<dyn Fn(VmReport) -> bool + Send + Sync>;

/// The children of an engine. When they are dropped they are killed; nobody waits for them.
pub(crate) struct ProcessHomes {
    homes: Vec<Arc<Home>>,
    threads: Vec<JoinHandle<()>>,
}

impl ProcessHomes {
    /// Starts the children, and waits until all are ready.
    pub(crate) async fn start(
        settings: &Processes,
        threads: usize,
        js_stack: usize,
        reports: Reports,
    ) -> Result<Self, WallError> {
        let plan = Arc::new(Plan::new(settings, js_stack)?);
        let suspects = Arc::new(Suspects::default());
        let (bell, rung) = mpsc::channel();
        let bell = Arc::new(Bell {
            rope: Mutex::new(bell),
            awake: AtomicBool::new(false),
        });
        let mut all = Self {
            homes: Vec::new(),
            threads: Vec::new(),
        };
        let mut ready = Vec::new();
        for n in 0..settings.count.unwrap_or(threads).max(1) {
            let home = Arc::new(Home {
                plan: Arc::clone(&plan),
                reports: Arc::clone(&reports),
                suspects: Arc::clone(&suspects),
                bell: Arc::clone(&bell),
                state: Mutex::default(),
                work: Condvar::new(),
            });
            let (first, is_ready) = oneshot::channel();
            ready.push(is_ready);
            all.homes.push(Arc::clone(&home));
            all.threads.push(
                std::thread::Builder::new()
                    .name(format!("tasker-wall-{n}"))
                    .spawn(move || home.live(first))
                    .map_err(WallError::Threads)?,
            );
        }
        let watched = all.homes.clone();
        all.threads.push(
            std::thread::Builder::new()
                .name("tasker-watch".to_owned())
                .spawn(move || watch(&watched, &bell.awake, &rung))
                .map_err(WallError::Threads)?,
        );
        for is_ready in ready {
            is_ready
                .await
                .map_err(|_| plan.not_ready("its thread ended"))??;
        }
        Ok(all)
    }

    pub(crate) fn count(&self) -> usize {
        self.homes.len()
    }

    pub(crate) fn send(&self, home: usize, command: VmCommand) {
        self.homes[home].send(command);
    }

    /// Kills the children and waits for the threads.
    pub(crate) fn join(mut self) {
        self.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    fn stop(&self) {
        for home in &self.homes {
            home.stop();
        }
        if let Some(home) = self.homes.first() {
            home.bell.ring();
        }
    }
}

impl Drop for ProcessHomes {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What to run in the children.
#[derive(Debug)]
struct Plan {
    program: PathBuf,
    stack: usize,
    memory: u64,
}

impl Plan {
    fn new(settings: &Processes, js_stack: usize) -> Result<Self, WallError> {
        let program = match &settings.program {
            Some(program) => std::path::absolute(program).map_err(|source| WallError::Spawn {
                program: program.clone(),
                source,
            })?,
            None if !was_called() => return Err(WallError::NoProgram),
            // The same file, also when another was put in its place since.
            None if cfg!(target_os = "linux") => PathBuf::from("/proc/self/exe"),
            None => std::env::current_exe().map_err(|source| WallError::Spawn {
                program: PathBuf::from("this executable"),
                source,
            })?,
        };
        Ok(Self {
            program,
            stack: thread_stack(js_stack),
            memory: settings.memory_bytes,
        })
    }

    fn spawn(&self) -> Result<Child, WallError> {
        let orders = Orders {
            parent: std::process::id(),
            stack: self.stack,
            memory: self.memory,
        };
        let mut command = Command::new(&self.program);
        command
            .arg(MARK)
            .arg(orders.text())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            command.arg0("tasker-sandbox").current_dir("/");
        }
        #[cfg(windows)]
        if let Some(root) = std::env::var_os("SystemRoot") {
            // Without it programs do not start there.
            command.env("SystemRoot", root);
        }
        command.spawn().map_err(|source| WallError::Spawn {
            program: self.program.clone(),
            source,
        })
    }

    fn not_ready(&self, problem: impl Into<String>) -> WallError {
        WallError::NotReady {
            program: self.program.clone(),
            problem: problem.into(),
        }
    }
}

/// Wakes the watch.
struct Bell {
    rope: Mutex<mpsc::Sender<()>>,
    awake: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        if !self.awake.swap(true, Ordering::AcqRel) {
            let rope = self.rope.lock().unwrap_or_else(PoisonError::into_inner);
            // Without a watch the engine is ending.
            let _ = rope.send(());
        }
    }
}

/// Frames that were under way when their child died for a reason that may lie outside of it, and how often.
#[derive(Default)]
struct Suspects {
    any: AtomicBool,
    frames: Mutex<HashMap<[u8; 32], u32>>,
}

impl Suspects {
    fn accuse(&self, frame: [u8; 32]) -> u32 {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() >= 1_024 {
            frames.clear();
        }
        self.any.store(true, Ordering::Release);
        let times = frames.entry(frame).or_default();
        *times += 1;
        *times
    }

    fn acquit(&self, frame: &[u8; 32]) {
        if self.any.load(Ordering::Acquire) {
            let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
            frames.remove(frame);
            self.any.store(!frames.is_empty(), Ordering::Release);
        }
    }
}

/// A place for VMs, with one child after the other in it.
struct Home {
    plan: Arc<Plan>,
    reports: Reports,
    suspects: Arc<Suspects>,
    bell: Arc<Bell>,
    state: Mutex<State>,
    /// Told when there is something to write, or nothing ever more.
    work: Condvar,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    /// Commands that are not yet written.
    queue: Vec<VmCommand>,
    child: Option<Child>,
    /// Counts children.
    incarnation: u64,
    is_ready: bool,
    stopping: bool,
    /// Answers of all children.
    answers: u64,
    /// `answers` when the watch last looked, and for how long it has been so, in milliseconds.
    looked: (u64, u64),
    /// The watch has killed the child because of this VM; `None`: because it did not become ready.
    sentence: Option<Option<VmKey>>,
}

/// Why a child is no more.
#[derive(Debug)]
enum End {
    /// Its pipe was closed.
    Closed,
    /// What it said is not believed.
    Garbled(Garbled),
    /// It said itself what went wrong.
    Fault(String),
}

impl Home {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, command: VmCommand) {
        let mut state = self.state();
        if !state.ledger.note(&command) {
            return;
        }
        state.queue.push(command);
        let first = state.queue.len() == 1;
        drop(state);
        if first {
            self.work.notify_one();
        }
        self.bell.ring();
    }

    fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        if let Some(child) = &mut state.child {
            // It has nothing that is not recorded.
            let _ = child.kill();
        }
        drop(state);
        self.work.notify_all();
    }

    /// One child after the other.
    fn live(self: Arc<Self>, first: oneshot::Sender<Result<(), WallError>>) {
        let mut first = Some(first);
        let mut pause = Duration::from_millis(20);
        while let Some(incarnation) = self.next_incarnation() {
            let answers = self.state().answers;
            let begun = self.begin(incarnation, &mut first);
            if let Err(error) = begun {
                if let Some(first) = first.take() {
                    // The engine does not start; a receiver that is gone has stopped waiting.
                    let _ = first.send(Err(error));
                    return;
                }
                tracing::error!(%error, "a sandbox could not be started; it is tried again");
            }
            if self.state().answers == answers {
                // A child that dies without having done anything: not too many of them.
                let state = self.state();
                let _ = self
                    .work
                    .wait_timeout_while(state, pause, |state| !state.stopping);
                pause = (pause * 2).min(Duration::from_secs(5));
            } else {
                pause = Duration::from_millis(20);
            }
        }
    }

    fn next_incarnation(&self) -> Option<u64> {
        let mut state = self.state();
        state.incarnation += 1;
        (!state.stopping).then_some(state.incarnation)
    }

    /// The life of one child.
    fn begin(
        self: &Arc<Self>,
        incarnation: u64,
        first: &mut Option<oneshot::Sender<Result<(), WallError>>>,
    ) -> Result<(), WallError> {
        let mut child = self.plan.spawn()?;
        let (Some(input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(self.plan.not_ready("it has no pipes"));
        };
        {
            let mut state = self.state();
            if state.stopping {
                let _ = child.kill();
            }
            state.child = Some(child);
            state.is_ready = false;
            state.sentence = None;
            state.looked = (state.answers, 0);
        }
        self.bell.ring();
        let mut bytes = Bytes::default();
        let end = match self.welcome(&mut output, &mut bytes) {
            Err(end) => end,
            Ok(ready) => {
                let writer = self.write_to(input, incarnation)?;
                for what in &ready.missing {
                    tracing::warn!(%what, "the sandbox is not as closed as it could be: this system does not have all of it");
                }
                if let Some(first) = first.take() {
                    let _ = first.send(Ok(()));
                }
                let end = self.listen(&mut output, &mut bytes);
                self.bury(end);
                let _ = writer.join();
                return Ok(());
            }
        };
        let problem = self.bury(end);
        Err(self.plan.not_ready(problem))
    }

    /// Waits until the child is confined.
    fn welcome(&self, output: &mut ChildStdout, bytes: &mut Bytes) -> Result<Ready, End> {
        let ready = loop {
            if let Some(body) = bytes.take(MAX_READY).map_err(End::Garbled)? {
                match read_answer(body).map_err(End::Garbled)? {
                    Answer::Ready(ready) => break ready,
                    Answer::Fault(what) => return Err(End::Fault(what)),
                    _ => return Err(End::Garbled(Garbled("it answers what was not asked"))),
                }
            }
            bytes.fill(output)?;
        };
        let ours = env!("CARGO_PKG_VERSION");
        if ready.protocol != PROTOCOL || ready.version != ours {
            return Err(End::Fault(format!(
                "it is of version {} (protocol {}), the engine of {ours} ({PROTOCOL}): build both from one version",
                ready.version, ready.protocol
            )));
        }
        let mut state = self.state();
        state.is_ready = true;
        state.looked = (state.answers, 0);
        Ok(ready)
    }

    /// A thread that writes to this child what is queued.
    fn write_to(
        self: &Arc<Self>,
        mut input: ChildStdin,
        incarnation: u64,
    ) -> Result<JoinHandle<()>, WallError> {
        let home = Arc::clone(self);
        let write = move || {
            let mut writer = CommandWriter::default();
            let mut out = Output::default();
            while let Some(commands) = home.queued(incarnation) {
                for command in &commands {
                    writer.write(&mut out, command);
                    if out.0.len() >= WRITE && !flush(&mut input, &mut out) {
                        return;
                    }
                }
                if !flush(&mut input, &mut out) {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("tasker-wall-out".to_owned())
            .spawn(write)
            .map_err(|error| {
                self.bury(End::Closed);
                WallError::Threads(error)
            })
    }

    /// What is to be written to this child. `None`: it is no more.
    fn queued(&self, incarnation: u64) -> Option<Vec<VmCommand>> {
        let mut state = self
            .work
            .wait_while(self.state(), |state| {
                state.queue.is_empty() && state.incarnation == incarnation && !state.stopping
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.incarnation != incarnation || state.stopping {
            return None;
        }
        Some(std::mem::take(&mut state.queue))
    }

    /// Reads answers until there are none, or one that is not believed.
    fn listen(&self, output: &mut ChildStdout, bytes: &mut Bytes) -> End {
        let mut reports = Vec::new();
        loop {
            let end = self.hear(bytes, &mut reports).err();
            for report in reports.drain(..) {
                // An engine that is gone has stopped this home too.
                let _ = (self.reports)(report);
            }
            if let Some(end) = end {
                return end;
            }
            if let Err(end) = bytes.fill(output) {
                return end;
            }
        }
    }

    /// Takes all whole answers.
    fn hear(&self, bytes: &mut Bytes, reports: &mut Vec<VmReport>) -> Result<(), End> {
        let mut state = self.state();
        loop {
            let max = state
                .ledger
                .limits_under_way()
                .map_or(MAX_READY, |limits| max_answer(limits));
            let Some(body) = bytes.take(max).map_err(End::Garbled)? else {
                return Ok(());
            };
            let answer = match read_answer(body).map_err(End::Garbled)? {
                Answer::Fault(what) => return Err(End::Fault(what)),
                answer => answer,
            };
            let frame = state.ledger.under_way().map(|(_, frame)| frame);
            let believed = state.ledger.check(answer).map_err(End::Garbled)?;
            state.answers += 1;
            if let Believed::Report(report) = believed {
                // A replay only leads back to the turn that it is suspected of.
                if let (Some(frame), VmDid::Turned(_)) = (frame, &report.what) {
                    self.suspects.acquit(&frame);
                }
                reports.push(report);
            }
        }
    }

    /// Ends the child, finds out why it died, and says what becomes of its VMs. Returns what happened, in words.
    fn bury(&self, end: End) -> String {
        let (child, sentence) = {
            let mut state = self.state();
            (state.child.take(), state.sentence.take())
        };
        let status = child.and_then(|mut child| {
            let _ = child.kill();
            child.wait().ok()
        });
        let mut state = self.state();
        // A command that was not yet written was not under way.
        let unwritten = state
            .queue
            .iter()
            .filter(|command| !matches!(command, VmCommand::Drop { .. }))
            .count();
        let under_way = (state.ledger.waiting() > unwritten)
            .then(|| state.ledger.under_way())
            .flatten();
        let limits = state.ledger.limits_under_way().cloned();
        let keys = state.ledger.clear();
        state.queue.clear();
        state.incarnation += 1;
        state.is_ready = false;
        let stopping = state.stopping;
        drop(state);
        self.work.notify_all();

        let what = describe(&end, sentence, status);
        if stopping {
            return what;
        }
        tracing::error!(frames = keys.len(), %what, "a sandbox is gone; another takes its place");
        let mut guilty = None;
        if let Some((key, frame)) = under_way {
            let hung = sentence == Some(Some(key));
            let certain = hung || !matches!(end, End::Closed) || is_crash(status);
            if certain || self.suspects.accuse(frame) >= SUSPICIONS {
                self.suspects.acquit(&frame);
                guilty = Some((key, failure(&what, hung, limits.as_deref())));
            }
        }
        for key in keys {
            let what = match &guilty {
                Some((guilty, failure)) if *guilty == key => VmDid::Destroyed(failure.clone()),
                _ => VmDid::Lost,
            };
            let time = Timestamp::default();
            let _ = (self.reports)(VmReport { key, time, what });
        }
        what
    }

    /// One look of the watch. Whether there is something to watch.
    fn look(&self, passed_ms: u64) -> bool {
        let mut state = self.state();
        let state = &mut *state;
        let Some(child) = &mut state.child else {
            // The next look is rung for.
            return false;
        };
        let (limit, key) = if state.is_ready {
            match (state.ledger.under_way(), state.ledger.limits_under_way()) {
                (Some((key, _)), Some(limits)) => {
                    let wall = limits.turn_wall_ms;
                    (wall.saturating_add(wall.min(GRACE_MS)), Some(key))
                }
                _ => {
                    state.looked = (state.answers, 0);
                    return false;
                }
            }
        } else {
            (READY_MS, None)
        };
        if state.looked.0 == state.answers {
            state.looked.1 += passed_ms;
        } else {
            state.looked = (state.answers, 0);
        }
        if state.looked.1 >= limit && state.sentence.is_none() {
            state.sentence = Some(key);
            let _ = child.kill();
        }
        true
    }
}

fn flush(input: &mut ChildStdin, out: &mut Output) -> bool {
    // A pipe that is closed is the reader's business.
    let written = input.write_all(&out.0).is_ok();
    out.0.clear();
    out.0.shrink_to(WRITE * 4);
    written
}

/// Looks at busy children until the engine is gone. It counts its own pauses: a host that was stopped for a while blames nobody for it.
fn watch(homes: &[Arc<Home>], awake: &AtomicBool, rung: &mpsc::Receiver<()>) {
    while rung.recv().is_ok() {
        loop {
            match rung.recv_timeout(Duration::from_millis(LOOK_MS)) {
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Ok(()) | Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if homes.iter().any(|home| home.state().stopping) {
                return;
            }
            let look = || {
                homes
                    .iter()
                    .fold(false, |busy, home| home.look(LOOK_MS) | busy)
            };
            if !look() {
                awake.store(false, Ordering::Release);
                // What was sent between the look and this did not ring.
                if !homes.iter().any(|home| home.state().ledger.waiting() > 0) {
                    break;
                }
                awake.store(true, Ordering::Release);
            }
        }
    }
}

/// Bytes from a child: read, and not yet taken.
#[derive(Default)]
struct Bytes {
    bytes: Vec<u8>,
    filled: usize,
    taken: usize,
}

impl Bytes {
    /// The next whole message.
    fn take(&mut self, max: u64) -> Result<Option<&[u8]>, Garbled> {
        let Some((body, size)) = split(&self.bytes[self.taken..self.filled], max)? else {
            return Ok(None);
        };
        self.taken += size;
        Ok(Some(body))
    }

    /// Waits for more. What was taken is gone.
    fn fill(&mut self, output: &mut ChildStdout) -> Result<(), End> {
        self.bytes.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        if self.filled < READ && self.bytes.len() > (1 << 20) {
            self.bytes.truncate(READ * 2);
            self.bytes.shrink_to_fit();
        }
        if self.bytes.len() < self.filled + READ {
            self.bytes.resize(self.filled + READ, 0);
        }
        match output.read(&mut self.bytes[self.filled..]) {
            Ok(0) => Err(End::Closed),
            Ok(more) => {
                self.filled += more;
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(End::Closed),
        }
    }
}

/// What happened, in words.
fn describe(end: &End, sentence: Option<Option<VmKey>>, status: Option<ExitStatus>) -> String {
    match (end, sentence) {
        (_, Some(Some(_))) => "it did not end its turn in time and was killed".to_owned(),
        (_, Some(None)) => format!("it was not ready after {READY_MS} ms and was killed"),
        (End::Garbled(Garbled(what)), None) => format!("it said what cannot be: {what}"),
        (End::Fault(what), None) => what.clone(),
        (End::Closed, None) => match status {
            Some(status) => format!("it ended: {status}"),
            None => "it ended, nobody knows how".to_owned(),
        },
    }
}

/// Whether a process ended by its own doing, and not because somebody wanted it to.
fn is_crash(status: Option<ExitStatus>) -> bool {
    #[cfg(unix)]
    {
        use rustix::process::Signal;
        use std::os::unix::process::ExitStatusExt;

        let outside = [
            Signal::KILL,
            Signal::TERM,
            Signal::INT,
            Signal::HUP,
            Signal::QUIT,
            Signal::XCPU,
        ];
        status.is_some_and(|status| match status.signal() {
            Some(signal) => outside.iter().all(|other| other.as_raw() != signal),
            None => !status.success(),
        })
    }
    #[cfg(not(unix))]
    status.is_some_and(|status| !status.success())
}

/// The failure of the frame whose turn ended its child.
fn failure(what: &str, hung: bool, limits: Option<&Limits>) -> Failure {
    if hung && let Some(limits) = limits {
        return Limit::WallClock.failure(limits);
    }
    Failure {
        code: Some("sandbox_died".to_owned()),
        ..Failure::new(
            "SandboxError",
            format!(
                "the sandbox process did not survive this turn: {what}; look for what the task does that is out of the ordinary, \
                 and report it if it is not the task's intent"
            ),
        )
    }
}
