//! A task driven by hand, without engine and without storage.
//!
//! [`Execution::start`] runs a task to its first suspension and gives what it waits for, with its state as bytes.
//! [`Execution::resume`] takes the bytes and the answers, anywhere: in another process, on another machine, months later. The state
//! is the task's journal: resuming runs the task again from its beginning, gives it the recorded answers in the recorded order,
//! checks that it makes the recorded calls, and goes on. Nothing is sent anywhere: asking the services is the caller's.
//!
//! ```
//! use std::sync::Arc;
//! use tasker_core::adaptor::{CallSeq, Json, Outcome, TaskName, TaskVersion, Timestamp};
//! use tasker_core::execution::{Execution, ExecutionOptions, ResumeOptions, Step};
//! use tasker_core::task::{Module, ModuleFormat, Program};
//!
//! let program = Arc::new(Program {
//!     name: TaskName::new("greet"),
//!     version: TaskVersion::new("1"),
//!     entry: Module {
//!         path: "greet.js".into(),
//!         source: "module.exports = async (name, { tools }) => 'hello ' + await tools.names.full(name);".into(),
//!         format: ModuleFormat::CommonJs,
//!     },
//!     modules: Vec::new(),
//!     bare_function: None,
//! });
//! let input = Json::parse(r#""Ada""#).unwrap();
//! let Step::Suspended { state, calls, .. } = Execution::start(&program, input, ExecutionOptions::default()).unwrap() else {
//!     panic!("it waits for names.full");
//! };
//! assert_eq!(calls[0].seq, CallSeq(1));
//! let answer = Outcome::Completed(Some(Json::parse(r#""Ada Lovelace""#).unwrap()));
//! let options = ResumeOptions { time: Timestamp::from_millis(1), key: None };
//! let step = Execution::resume(&program, &state, vec![(CallSeq(1), answer)], &options).unwrap();
//! assert!(matches!(step, Step::Completed { value: Some(text), .. } if text.text() == r#""hello Ada Lovelace""#));
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tasker_adaptor::{
    BlockedReason, CallRecord, CallSeq, Failure, Json, LogLine, Outcome, TaskVersion, Timestamp,
};

use crate::limits::Limits;
use crate::service::ServiceStyle;
use crate::task::Program;
use crate::vm::{
    BytecodeCache, Made, RunInfo, ToolNames, Turn, TurnEnd, Vm, VmDeliver, VmPool, VmStart,
};

/// First bytes of a state. The number is raised when a state of before can no longer be read.
const MAGIC: &str = "tasker-execution-1 ";
/// In place of a tag, when no key was given.
const UNSIGNED: &str = "unsigned";

/// How a task is started.
#[derive(Clone, Debug, Default)]
pub struct ExecutionOptions {
    /// Services by the names that the task may use.
    pub tools: Arc<ToolNames>,
    /// Limits.
    pub limits: Arc<Limits>,
    /// Now.
    pub time: Timestamp,
    /// Seed of the task's randomness. Take a fresh one for each execution.
    pub seed: [u8; 32],
    /// What `context.run` shows.
    pub run: RunInfo,
    /// Signs the state, so that one that was changed is refused. The state itself stays readable.
    pub key: Option<[u8; 32]>,
}

/// How a task is resumed. The rest is in the state.
#[derive(Clone, Debug, Default)]
pub struct ResumeOptions {
    /// Now; a time before the last turn's counts as the last turn's.
    pub time: Timestamp,
    /// The key that the state was signed with.
    pub key: Option<[u8; 32]>,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It waits.
    Suspended {
        /// All that is open, by `seq`: made now or before.
        calls: Vec<PendingCall>,
        /// For [`Execution::resume`].
        state: Vec<u8>,
        /// Lines of this step.
        logs: Vec<LogLine>,
    },
    /// It returned; `None` is `undefined`.
    Completed {
        /// The value.
        value: Option<Json>,
        /// Lines of this step.
        logs: Vec<LogLine>,
    },
    /// It threw, or passed a limit, or waits for what can never settle.
    Failed {
        /// Why.
        failure: Failure,
        /// Lines of this step.
        logs: Vec<LogLine>,
    },
}

/// Something that a task waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingCall {
    /// Its number: answers name it.
    pub seq: CallSeq,
    /// What it is.
    pub what: Pending,
}

/// What a task waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// A service's answer. A policy that the task gave with the call (`withPolicy`) is not told: timeouts and retries are the host's here.
    Call {
        /// Service.
        service: String,
        /// Dotted path; see [`Made::Call`].
        path: String,
        /// Arguments; see [`Made::Call`].
        args: Json,
    },
    /// Another task's result.
    Task {
        /// Name.
        name: String,
        /// Input.
        input: Json,
    },
    /// A point in time: answer `Outcome::Completed(None)` when it has come.
    Timer {
        /// When.
        due: Timestamp,
    },
    /// A signal's payload.
    Signal {
        /// Name.
        name: String,
    },
}

/// Why an execution cannot go on. The state given stays good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutionError {
    /// The bytes are no state, or of another version of Tasker.
    #[error("the state cannot be read: {0}; give the bytes of Step::Suspended as they were")]
    Unreadable(String),
    /// The tag does not fit bytes and key.
    #[error("the state was changed, or was signed with another key; it is not used")]
    Tampered,
    /// A key was given for a state without a tag, or none for one with a tag.
    #[error("the state is {0}; resume with the options that it was started with, as to the key")]
    WrongKeyUse(&'static str),
    /// The program is another than the one that was started.
    #[error(
        "the state is of task {task}, version {expected}, and the program has version {actual}; resume with the program that was started"
    )]
    OtherProgram {
        /// Task of the state.
        task: String,
        /// Version in the state.
        expected: TaskVersion,
        /// Version given.
        actual: TaskVersion,
    },
    /// An answer for what is not open.
    #[error(
        "call {0} is not open: it was never made, is answered already, or was given up; answer one of the calls of the last step"
    )]
    NotOpen(CallSeq),
    /// The code no longer makes the recorded calls.
    #[error("{0}")]
    Diverged(BlockedReason),
    /// A state that cannot be written: a value of the host's that JSON cannot hold.
    #[error("the state cannot be written: {0}")]
    Unwritable(#[source] serde_json::Error),
}

/// The journal as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    task: String,
    version: TaskVersion,
    input: Json,
    time: Timestamp,
    seed: [u8; 32],
    tools: Vec<(String, ServiceStyle)>,
    run: StoredRun,
    limits: Limits,
    made: Vec<StoredCall>,
    turns: Vec<StoredTurn>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredRun {
    id: String,
    task: String,
    version: String,
    depth: u32,
    correlation_id: Option<String>,
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredCall {
    kind: Kind,
    record: CallRecord,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Call,
    Task,
    Timer,
    Signal,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredTurn {
    time: Timestamp,
    items: Vec<(CallSeq, Outcome)>,
}

/// A task driven by hand; see the module.
#[derive(Debug)]
pub struct Execution {
    vm: Vm,
    state: State,
    open: BTreeMap<CallSeq, Pending>,
    key: Option<[u8; 32]>,
}

impl Execution {
    /// Runs a task to its first suspension, or to its end.
    ///
    /// # Errors
    /// `Unwritable` only.
    pub fn start(
        program: &Arc<Program>,
        input: Json,
        options: ExecutionOptions,
    ) -> Result<Step, ExecutionError> {
        let state = State {
            task: program.name.as_str().to_owned(),
            version: program.version.clone(),
            input,
            time: options.time,
            seed: options.seed,
            tools: options
                .tools
                .names()
                .map(|name| (name.to_owned(), options.tools.style(name)))
                .collect(),
            run: StoredRun {
                id: options.run.id,
                task: options.run.task,
                version: options.run.version,
                depth: options.run.depth,
                correlation_id: options.run.correlation_id,
                labels: options.run.labels,
            },
            limits: Limits::clone(&options.limits),
            made: Vec::new(),
            turns: Vec::new(),
        };
        let (mut execution, turn) = Self::begin(program, state, options.key);
        execution.note(&turn, execution.state.time);
        execution.step(turn)
    }

    /// Gives a suspended task the answers, in this order, and runs it to its next suspension, or to its end.
    ///
    /// # Errors
    /// Each names what is wrong with state, program or answers; see [`ExecutionError`].
    pub fn resume(
        program: &Arc<Program>,
        state: &[u8],
        answers: Vec<(CallSeq, Outcome)>,
        options: &ResumeOptions,
    ) -> Result<Step, ExecutionError> {
        let state = State::open(state, options.key.as_ref())?;
        if state.version != program.version || state.task != program.name.as_str() {
            return Err(ExecutionError::OtherProgram {
                task: state.task,
                expected: state.version,
                actual: program.version.clone(),
            });
        }
        let last = state.turns.last().map_or(state.time, |turn| turn.time);
        let (mut execution, turn) = Self::begin(program, state, options.key);
        execution.replay(&turn)?;
        execution.deliver(StoredTurn {
            time: last.max(options.time),
            items: answers,
        })
    }

    fn begin(program: &Arc<Program>, state: State, key: Option<[u8; 32]>) -> (Self, Turn) {
        let run = state.run.clone();
        let start = VmStart {
            program: program.clone(),
            input: state.input.clone(),
            seed: state.seed,
            time: state.time,
            tools: Arc::new(ToolNames::new(state.tools.iter().cloned())),
            run: RunInfo {
                id: run.id,
                task: run.task,
                version: run.version,
                depth: run.depth,
                correlation_id: run.correlation_id,
                labels: run.labels,
            },
            limits: Arc::new(state.limits.clone()),
        };
        let (vm, turn) = VmPool::new(Arc::new(BytecodeCache::new()), 0).start(&start);
        let execution = Self {
            vm,
            state,
            open: BTreeMap::new(),
            key,
        };
        (execution, turn)
    }

    /// Runs the recorded turns again, checking each against the record.
    fn replay(&mut self, first: &Turn) -> Result<(), ExecutionError> {
        let recorded = std::mem::take(&mut self.state.made);
        let turns = std::mem::take(&mut self.state.turns);
        let time = self.state.time;
        self.replay_turn(first, time, &recorded)?;
        for turn in turns {
            self.check_open(&turn.items)?;
            let replayed = self.vm.deliver(&VmDeliver {
                time: turn.time,
                items: turn.items.clone(),
            });
            self.close(&turn.items);
            let time = turn.time;
            self.state.turns.push(turn);
            self.replay_turn(&replayed, time, &recorded)?;
        }
        if self.state.made.len() < recorded.len() {
            return Err(diverged(
                self.state.made.len(),
                recorded.get(self.state.made.len()),
                None,
            ));
        }
        Ok(())
    }

    fn replay_turn(
        &mut self,
        turn: &Turn,
        time: Timestamp,
        recorded: &[StoredCall],
    ) -> Result<(), ExecutionError> {
        let before = self.state.made.len();
        self.note(turn, time);
        for index in before..self.state.made.len() {
            let (was, is) = (recorded.get(index), &self.state.made[index]);
            if was != Some(is) {
                return Err(diverged(index, was, Some(is)));
            }
        }
        if turn.end == TurnEnd::Waiting {
            Ok(())
        } else {
            let made = self.state.made.len();
            Err(diverged(made, recorded.get(made), None))
        }
    }

    fn deliver(mut self, turn: StoredTurn) -> Result<Step, ExecutionError> {
        self.check_open(&turn.items)?;
        let done = self.vm.deliver(&VmDeliver {
            time: turn.time,
            items: turn.items.clone(),
        });
        self.close(&turn.items);
        self.note(&done, turn.time);
        self.state.turns.push(turn);
        self.step(done)
    }

    fn check_open(&self, items: &[(CallSeq, Outcome)]) -> Result<(), ExecutionError> {
        for (index, (seq, _)) in items.iter().enumerate() {
            let again = items[..index].iter().any(|(other, _)| other == seq);
            if again || !self.open.contains_key(seq) {
                return Err(ExecutionError::NotOpen(*seq));
            }
        }
        Ok(())
    }

    fn close(&mut self, items: &[(CallSeq, Outcome)]) {
        for (seq, _) in items {
            self.open.remove(seq);
        }
    }

    /// Notes what a turn made and gave up.
    fn note(&mut self, turn: &Turn, time: Timestamp) {
        for made in &turn.made {
            let seq = CallSeq(self.state.made.len() as u32 + 1);
            self.state.made.push(StoredCall::of(made));
            self.open.insert(seq, Pending::of(made, time));
        }
        for seq in &turn.dropped {
            self.open.remove(seq);
        }
    }

    fn step(self, turn: Turn) -> Result<Step, ExecutionError> {
        let logs = turn.logs;
        Ok(match turn.end {
            TurnEnd::Completed(value) => Step::Completed { value, logs },
            TurnEnd::Failed(failure) => Step::Failed { failure, logs },
            TurnEnd::Waiting => Step::Suspended {
                state: self.state.seal(self.key.as_ref())?,
                calls: self
                    .open
                    .into_iter()
                    .map(|(seq, what)| PendingCall { seq, what })
                    .collect(),
                logs,
            },
        })
    }
}

impl State {
    /// `tasker-execution-1 TAG` and the journal as JSON on the next line.
    fn seal(&self, key: Option<&[u8; 32]>) -> Result<Vec<u8>, ExecutionError> {
        let body = serde_json::to_vec(self).map_err(ExecutionError::Unwritable)?;
        let tag = key.map_or_else(
            || UNSIGNED.to_owned(),
            |key| hex(&mac(key, &body).finalize().into_bytes()),
        );
        let mut bytes = format!("{MAGIC}{tag}\n").into_bytes();
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    fn open(bytes: &[u8], key: Option<&[u8; 32]>) -> Result<Self, ExecutionError> {
        let unreadable = |what: &str| ExecutionError::Unreadable(what.to_owned());
        let rest = bytes
            .strip_prefix(MAGIC.as_bytes())
            .ok_or_else(|| unreadable("it does not begin as a state of this version does"))?;
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(|| unreadable("it is cut off"))?;
        let (tag, body) = (&rest[..end], &rest[end + 1..]);
        match (key, tag == UNSIGNED.as_bytes()) {
            (None, true) => {}
            (None, false) => return Err(ExecutionError::WrongKeyUse("signed")),
            (Some(_), true) => return Err(ExecutionError::WrongKeyUse("not signed")),
            (Some(key), false) => {
                let tag = unhex(tag).ok_or(ExecutionError::Tampered)?;
                // Compared in constant time.
                mac(key, body)
                    .verify_slice(&tag)
                    .map_err(|_| ExecutionError::Tampered)?;
            }
        }
        serde_json::from_slice(body).map_err(|error| ExecutionError::Unreadable(error.to_string()))
    }
}

fn mac(key: &[u8; 32], body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(MAGIC.as_bytes());
    mac.update(body);
    mac
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    text.chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

impl StoredCall {
    fn of(made: &Made) -> Self {
        let (kind, service, path, args) = match made {
            Made::Call {
                service,
                path,
                args,
                ..
            } => (
                Kind::Call,
                service.clone(),
                path.clone(),
                args.text().to_owned(),
            ),
            Made::Task { name, input } => (
                Kind::Task,
                "tasks".to_owned(),
                name.clone(),
                input.text().to_owned(),
            ),
            Made::Timer { path, delay_ms } => (
                Kind::Timer,
                "timer".to_owned(),
                (*path).to_owned(),
                delay_ms.to_string(),
            ),
            Made::Signal { name } => (
                Kind::Signal,
                "signal".to_owned(),
                name.clone(),
                String::new(),
            ),
        };
        Self {
            kind,
            record: CallRecord {
                service,
                path,
                args,
            },
        }
    }
}

impl Pending {
    fn of(made: &Made, time: Timestamp) -> Self {
        match made.clone() {
            Made::Call {
                service,
                path,
                args,
                ..
            } => Self::Call {
                service,
                path,
                args,
            },
            Made::Task { name, input } => Self::Task { name, input },
            Made::Timer { delay_ms, .. } => Self::Timer {
                due: time.plus_millis(i64::try_from(delay_ms).unwrap_or(i64::MAX)),
            },
            Made::Signal { name } => Self::Signal { name },
        }
    }
}

fn diverged(
    index: usize,
    recorded: Option<&StoredCall>,
    attempted: Option<&StoredCall>,
) -> ExecutionError {
    let cause = match (recorded, attempted) {
        (Some(_), Some(_)) => "the code was changed, or depends on something that is not recorded",
        (Some(_), None) => "the code stopped where it made a call before",
        _ => "the code goes on, or ends, where it waited before",
    };
    ExecutionError::Diverged(BlockedReason::Diverged {
        seq: CallSeq(index as u32 + 1),
        recorded: recorded.map(|call| call.record.clone()),
        attempted: attempted.map(|call| call.record.clone()),
        cause: cause.to_owned(),
    })
}
