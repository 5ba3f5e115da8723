//! A home of VMs behind the process wall: one child after the other, the pipes to it, and its end.
//!
//! Two threads serve it. One lives as long as the home: it starts the child, reads its answers, and takes care of what is left when it
//! dies. The other writes, whatever is queued in one go.
//! Invariants: the first command without an answer is the one under way · after its child died a VM is reported once more, as destroyed or
//! as lost · a child is ended by the handle that started it, never by a number that may be somebody else's.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tasker_adaptor::Timestamp;
use tokio::sync::oneshot;

use super::WallError;
use super::answers::{Answer, PROTOCOL, Ready, read_answer};
use super::check::{Believed, Ledger, max_answer};
use super::codec::split;
use super::commands::CommandWriter;
use super::guard::{Spent, since};
use super::process::{Bell, Plan, Reports};
use super::processor;
use super::verdict::{End, SUSPICIONS, Sentence, Suspects, describe, failure, is_crash};
use super::wire::{Garbled, Output};
use super::worker::{VmCommand, VmDid, VmReport};

/// How long a child may take to become ready, in milliseconds.
pub(super) const READY_MS: u64 = 20_000;
/// How long after its guard a turn may go on before its child is killed, in milliseconds, counted as the guard is; never longer than
/// the guard itself.
const GRACE_MS: u64 = 1_000;
/// Bytes read from a child at one time.
const READ: usize = 64 << 10;
/// Commands are written when so many bytes of them have come together, or when there are no more.
const WRITE: usize = 256 << 10;
/// The longest answer of a child that has been asked nothing.
const MAX_READY: u64 = 64 << 10;

/// A place for VMs, with one child after the other in it.
pub(super) struct Home {
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
    looked: Looked,
    /// The watch has killed the child.
    sentence: Option<Sentence>,
}

/// What the watch saw when it last looked.
#[derive(Default)]
struct Looked {
    /// `State::answers`.
    answers: u64,
    /// For how long it has been so, in milliseconds.
    for_ms: u64,
    /// Processor time that the child had had, at the second look that found it so.
    processor_ms: Option<u64>,
}

impl Looked {
    fn first(answers: u64) -> Self {
        Self {
            answers,
            ..Self::default()
        }
    }
}

impl Home {
    pub(super) fn new(
        plan: Arc<Plan>,
        reports: Reports,
        suspects: Arc<Suspects>,
        bell: Arc<Bell>,
    ) -> Self {
        Self {
            plan,
            reports,
            suspects,
            bell,
            state: Mutex::default(),
            work: Condvar::new(),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Something is asked and not answered.
    pub(super) fn is_busy(&self) -> bool {
        self.state().ledger.waiting() > 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, command: VmCommand) {
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

    pub(super) fn stop(&self) {
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
    pub(super) fn live(self: Arc<Self>, first: oneshot::Sender<Result<(), WallError>>) {
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
            state.looked = Looked::first(state.answers);
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
                self.bury(&end);
                let _ = writer.join();
                return Ok(());
            }
        };
        let problem = self.bury(&end);
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
        state.looked = Looked::first(state.answers);
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
                self.bury(&End::Closed);
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
    fn bury(&self, end: &End) -> String {
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

        let what = describe(end, sentence, status);
        if stopping {
            return what;
        }
        tracing::error!(frames = keys.len(), %what, "a sandbox is gone; another takes its place");
        let mut guilty = None;
        if let Some((key, frame)) = under_way {
            let hung = sentence == Some(Sentence::Turn(key));
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
            let _ = (self.reports)(VmReport {
                key,
                time,
                memory: None,
                what,
            });
        }
        what
    }

    /// One look of the watch. Whether there is something to watch.
    pub(super) fn look(&self, passed_ms: u64) -> bool {
        let mut state = self.state();
        let state = &mut *state;
        let Some(child) = &mut state.child else {
            // The next look is rung for.
            return false;
        };
        let turn = state
            .ledger
            .under_way()
            .zip(state.ledger.limits_under_way());
        if state.is_ready && turn.is_none() || state.looked.answers != state.answers {
            state.looked = Looked::first(state.answers);
            return !state.is_ready || turn.is_some();
        }
        let looked = &mut state.looked;
        looked.for_ms += passed_ms;
        let sentence = if let (true, Some(((key, _), limits))) = (state.is_ready, turn) {
            let processor_ms = || processor::of_process(child.id());
            if looked.processor_ms.is_none() {
                looked.processor_ms = processor_ms();
            }
            let guard_ms = limits.turn_wall_ms;
            let guard_ms = guard_ms.saturating_add(guard_ms.min(GRACE_MS));
            let had = || since(looked.processor_ms, processor_ms());
            Spent::when_due(looked.for_ms, guard_ms, had)
                .filter(|spent| spent.is_over(guard_ms))
                .map(|_| Sentence::Turn(key))
        } else {
            (looked.for_ms >= READY_MS).then_some(Sentence::NotReady)
        };
        if sentence.is_some() && state.sentence.is_none() {
            state.sentence = sentence;
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

/// Bytes from a child: read, and not yet taken.
#[derive(Default)]
struct Bytes {
    buffer: Vec<u8>,
    filled: usize,
    taken: usize,
}

impl Bytes {
    /// The next whole message.
    fn take(&mut self, max: u64) -> Result<Option<&[u8]>, Garbled> {
        let Some((body, size)) = split(&self.buffer[self.taken..self.filled], max)? else {
            return Ok(None);
        };
        self.taken += size;
        Ok(Some(body))
    }

    /// Waits for more. What was taken is gone.
    fn fill(&mut self, output: &mut ChildStdout) -> Result<(), End> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        if self.filled < READ && self.buffer.len() > (1 << 20) {
            self.buffer.truncate(READ * 2);
            self.buffer.shrink_to_fit();
        }
        if self.buffer.len() < self.filled + READ {
            self.buffer.resize(self.filled + READ, 0);
        }
        match output.read(&mut self.buffer[self.filled..]) {
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
