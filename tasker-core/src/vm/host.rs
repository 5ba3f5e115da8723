//! What stands behind the bridge: the frame's state, and the acts that change it.
//!
//! Sequence numbers, limits and argument texts are made here, from nothing that the task can change afterwards.
//! Invariant: no borrow of a cell is held while JavaScript may run.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use tasker_adaptor::{CallSeq, Failure, Json, LogLevel, LogLine, Outcome, Timestamp};

use super::cache::BytecodeCache;
use super::capture::{error_of, failure_of};
use super::message::{Made, ToolNames, TurnEnd, VmStart};
use super::random::Random;
use super::raw::{Ctx, Kept, Thrown, Value};
use super::write::{WriteError, Writer};
use super::{read, show};
use crate::limits::{Limit, Limits};
use crate::service::CallPolicy;
use crate::task::Program;

/// Text of an error in a log line, in bytes.
const MAX_SHOWN: usize = 16 << 10;

/// Functions of the prelude that Rust calls.
pub(super) struct Kernel {
    /// `start(data)`: runs the task.
    pub(super) start: Kept,
    /// `fire(seq)`: a timer came due.
    pub(super) fire: Kept,
    /// `toError(failure)`: an `Error` of data.
    pub(super) error: Kept,
    /// `toRejection(failure)`: the same, of a call that failed.
    pub(super) rejection: Kept,
}

impl Kernel {
    /// The same functions in a copy of their runtime.
    pub(super) const fn in_copy(&self) -> Self {
        Self {
            start: self.start.in_copy(),
            fire: self.fire.in_copy(),
            error: self.error.in_copy(),
            rejection: self.rejection.in_copy(),
        }
    }
}

/// Promises that were rejected and have no handler yet, in the order of rejection.
#[derive(Default)]
struct Rejections {
    /// Promise and reason.
    by_order: BTreeMap<u64, (Kept, Kept)>,
    /// The promise's address, good while the promise is kept.
    by_promise: HashMap<usize, u64>,
    next: u64,
}

/// A child that has not settled.
enum Open {
    Promise {
        resolve: Kept,
        reject: Kept,
    },
    /// A timer with a callback, which the prelude keeps.
    Callback,
}

/// Hashes sequence numbers, which are made here: no stranger can choose them to collide.
#[derive(Default)]
struct SeqHasher(u64);

impl Hasher for SeqHasher {
    fn write_u32(&mut self, seq: u32) {
        // Spread over all bits: the table takes its place from low ones and tells neighbours apart by high ones.
        self.0 = u64::from(seq).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What a frame runs, fixed at its start.
pub(super) struct Frame {
    pub(super) program: Arc<Program>,
    pub(super) tools: Arc<ToolNames>,
    pub(super) limits: Arc<Limits>,
}

/// See the module.
pub(super) struct FrameHost {
    pub(super) cache: Arc<BytecodeCache>,
    frame: RefCell<Option<Rc<Frame>>>,
    pub(super) kernel: RefCell<Option<Rc<Kernel>>>,
    time: Cell<Timestamp>,
    random: RefCell<Random>,
    open: RefCell<HashMap<u32, Open, BuildHasherDefault<SeqHasher>>>,
    made_total: Cell<u32>,
    made: RefCell<Vec<Made>>,
    dropped: RefCell<Vec<CallSeq>>,
    logs: RefCell<Vec<LogLine>>,
    log_total: Cell<u32>,
    log_bytes: Cell<usize>,
    /// Bytes that this turn has put outside the VM's heap.
    out_bytes: Cell<usize>,
    outcome: RefCell<Option<TurnEnd>>,
    unhandled: RefCell<Rejections>,
    /// CommonJS modules by path: their `module` objects.
    pub(super) common: RefCell<HashMap<String, Rc<Kept>>>,
}

impl FrameHost {
    pub(super) fn new(cache: Arc<BytecodeCache>) -> Self {
        Self {
            cache,
            frame: RefCell::default(),
            kernel: RefCell::default(),
            time: Cell::default(),
            random: RefCell::new(Random::new([0; 32])),
            open: RefCell::default(),
            made_total: Cell::default(),
            made: RefCell::default(),
            dropped: RefCell::default(),
            logs: RefCell::default(),
            log_total: Cell::default(),
            log_bytes: Cell::default(),
            out_bytes: Cell::default(),
            outcome: RefCell::default(),
            unhandled: RefCell::default(),
            common: RefCell::default(),
        }
    }

    pub(super) fn begin_frame(&self, start: &VmStart) {
        self.frame.replace(Some(Rc::new(Frame {
            program: start.program.clone(),
            tools: start.tools.clone(),
            limits: start.limits.clone(),
        })));
        self.random.replace(Random::new(start.seed));
    }

    pub(super) fn begin_turn(&self, time: Timestamp) {
        self.time.set(time);
        self.out_bytes.set(0);
    }

    /// The turn's time, in milliseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        self.time.get().as_millis()
    }

    /// The next random number in `0..1`.
    pub(super) fn random_number(&self) -> f64 {
        self.random.borrow_mut().number()
    }

    /// The next random bytes.
    pub(super) fn random_bytes(&self, bytes: &mut [u8]) {
        self.random.borrow_mut().fill(bytes);
    }

    /// Where an import leads.
    pub(super) fn resolve_import(&self, base: &str, name: &str) -> Result<String, String> {
        match self.frame.borrow().as_ref() {
            Some(frame) => super::modules::resolve(&frame.program, base, name),
            None => Err(format!("cannot find module '{name}'")),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.outcome.borrow().is_some()
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.open.borrow().is_empty()
    }

    /// Ends the frame.
    pub(super) fn end(&self, end: TurnEnd) {
        self.outcome.replace(Some(end));
    }

    pub(super) fn take_outcome(&self) -> Option<TurnEnd> {
        self.outcome.take()
    }

    pub(super) fn take_made(&self) -> (Vec<Made>, Vec<CallSeq>, Vec<LogLine>) {
        (self.made.take(), self.dropped.take(), self.logs.take())
    }

    pub(super) fn frame(&self, ctx: Ctx<'_>) -> Result<Rc<Frame>, Thrown> {
        self.frame
            .borrow()
            .clone()
            .ok_or_else(|| ctx.throw_type("the realm has no task yet"))
    }

    pub(super) fn kernel(&self, ctx: Ctx<'_>) -> Result<Rc<Kernel>, Thrown> {
        self.kernel
            .borrow()
            .clone()
            .ok_or_else(|| ctx.throw_type("the realm is not ready"))
    }

    // ------------------------------------------------------------------------------------- settling

    /// Settles a child. One that is not open (cleared, or of a frame that ended) is passed over.
    pub(super) fn settle(
        &self,
        ctx: Ctx<'_>,
        seq: CallSeq,
        outcome: &Outcome,
    ) -> Result<(), Thrown> {
        let Some(open) = self.open.borrow_mut().remove(&seq.0) else {
            return Ok(());
        };
        let kernel = self.kernel(ctx)?;
        match open {
            Open::Callback => {
                if matches!(outcome, Outcome::Completed(_)) {
                    let seq = ctx.number(f64::from(seq.0));
                    ctx.kept(&kernel.fire).call(&[&seq])?;
                }
            }
            Open::Promise { resolve, reject } => {
                let (resolve, reject) = (ctx.release(resolve), ctx.release(reject));
                let settled = match outcome {
                    Outcome::Completed(None) => Ok(ctx.undefined()),
                    Outcome::Completed(Some(json)) => self.enter_value(ctx, json),
                    Outcome::Failed(failure) => Err(Box::new(failure.clone())),
                };
                match settled {
                    Ok(value) => resolve.call(&[&value])?,
                    Err(failure) => {
                        let error = error_of(ctx, &ctx.kept(&kernel.rejection), &failure)?;
                        reject.call(&[&error])?
                    }
                };
            }
        }
        Ok(())
    }

    /// A value from outside; one that is too large or too deep is a failure of the call that it answers.
    fn enter_value<'r>(&self, ctx: Ctx<'r>, json: &Json) -> Result<Value<'r>, Box<Failure>> {
        const ANSWER: &str = "the answer of this call";
        let limits = match self.frame.borrow().as_ref() {
            Some(frame) => frame.limits.clone(),
            None => Arc::default(),
        };
        if json.text().len() > limits.payload_bytes {
            return Err(Box::new(too_much(Limit::Payload, &limits, ANSWER)));
        }
        let read = match read::within(ctx, json.text(), limits.json_depth) {
            Ok(Some(value)) => return Ok(value),
            Ok(None) if depth_of(json.text(), limits.json_depth) > limits.json_depth => {
                return Err(Box::new(too_much(Limit::JsonDepth, &limits, ANSWER)));
            }
            Ok(None) => ctx.parse_json(json.text()),
            Err(Thrown) => Err(Thrown),
        };
        read.map_err(|Thrown| Box::new(failure_of(ctx, &ctx.exception())))
    }

    // --------------------------------------------------------------------------------------- making

    pub(super) fn admit(
        &self,
        ctx: Ctx<'_>,
        what: impl std::fmt::Display,
    ) -> Result<Rc<Frame>, Thrown> {
        let frame = self.frame(ctx)?;
        if self.has_ended() {
            let message =
                format!("{what} was refused: the task has ended; await what it should wait for");
            self.log(
                ctx,
                LogLevel::Error,
                format!("InvalidStateError: {message}"),
                None,
            );
            return Err(self.throw(ctx, &Failure::new("InvalidStateError", message)));
        }
        if self.made_total.get() >= frame.limits.calls {
            ctx.trip(Limit::Calls);
            return Err(ctx.throw_type("too many calls"));
        }
        if self.open.borrow().len() >= frame.limits.open_calls as usize {
            ctx.trip(Limit::OpenCalls);
            return Err(ctx.throw_type("too many open calls"));
        }
        Ok(frame)
    }

    /// Notes a child; its number.
    fn note(&self, ctx: Ctx<'_>, made: Made, open: Open) -> u32 {
        let seq = self.made_total.get() + 1;
        self.made_total.set(seq);
        let bytes = 64
            + match &made {
                Made::Call {
                    service,
                    path,
                    args,
                    policy,
                } => {
                    let policy = policy.as_ref().map_or(0, |policy| policy.text().len());
                    service.len() + path.len() + args.text().len() + policy
                }
                Made::Task { name, input } => name.len() + input.text().len(),
                Made::Signal { name } => name.len(),
                Made::Timer { .. } => 0,
            };
        self.charge(ctx, bytes);
        self.made.borrow_mut().push(made);
        self.open.borrow_mut().insert(seq, open);
        seq
    }

    pub(super) fn note_promise<'r>(&self, ctx: Ctx<'r>, made: Made) -> Result<Value<'r>, Thrown> {
        let (promise, resolve, reject) = ctx.promise()?;
        let open = Open::Promise {
            resolve: ctx.keep(resolve),
            reject: ctx.keep(reject),
        };
        self.note(ctx, made, open);
        Ok(promise)
    }

    /// Notes a timer whose callback the prelude keeps; its number.
    pub(super) fn note_timer(&self, ctx: Ctx<'_>, path: &'static str, delay_ms: u64) -> u32 {
        self.note(ctx, Made::Timer { path, delay_ms }, Open::Callback)
    }

    /// Gives a child up, if it is open.
    pub(super) fn drop_child(&self, seq: u32) {
        if self.open.borrow_mut().remove(&seq).is_some() {
            self.dropped.borrow_mut().push(CallSeq(seq));
        }
    }

    /// Counts what a turn puts outside the heap as if it were inside.
    fn charge(&self, ctx: Ctx<'_>, bytes: usize) {
        let total = self.out_bytes.get().saturating_add(bytes);
        self.out_bytes.set(total);
        let limit = match self.frame.borrow().as_ref() {
            Some(frame) => frame.limits.memory_bytes,
            None => usize::MAX,
        };
        if total > limit {
            ctx.trip(Limit::Memory);
        }
    }

    pub(super) fn make_call<'r>(
        &self,
        ctx: Ctx<'r>,
        service: String,
        path: String,
        policy: Option<Json>,
        args: impl FnOnce(Writer<'r>) -> Result<Json, WriteError>,
    ) -> Result<Value<'r>, Thrown> {
        let frame = self.admit(ctx, format_args!("the call of {service}.{path}"))?;
        let service = match frame.tools.canonical(&service) {
            same if same == service => service,
            other => other.to_owned(),
        };
        let writer = Writer::new(ctx, frame.limits.payload_bytes, frame.limits.json_depth);
        let what = || format!("the arguments of {service}.{path}");
        let args = self.json(ctx, args(writer), &frame.limits, what)?;
        // The arguments may have run code of the task, which may have ended it or made other calls.
        self.admit(ctx, format_args!("the call of {service}.{path}"))?;
        let made = if service == "tasks" && path == "execute" {
            task_of(ctx, &args)?
        } else {
            Made::Call {
                service,
                path,
                args,
                policy,
            }
        };
        self.note_promise(ctx, made)
    }

    /// The text of the policy that a task gives to `withPolicy`, checked.
    pub(super) fn policy<'r>(&self, ctx: Ctx<'r>, value: &Value<'r>) -> Result<Value<'r>, Thrown> {
        let limits = &self.frame(ctx)?.limits;
        let refuse = |why: &str| Err(ctx.throw_type(&format!("withPolicy(policy): {why}")));
        let writer = Writer::new(ctx, limits.payload_bytes, limits.json_depth);
        let json = match writer.value(value, "policy") {
            Ok(json) => json.unwrap_or_default(),
            Err(WriteError::Thrown) => return Err(Thrown),
            Err(WriteError::Refused(why)) => return refuse(&why),
            Err(WriteError::TooLarge | WriteError::TooDeep) => {
                return refuse("it is too large or too deep");
            }
        };
        match CallPolicy::parse(&json) {
            Ok(_) => ctx.string(json.text()),
            Err(why) => refuse(&why),
        }
    }

    pub(super) fn json(
        &self,
        ctx: Ctx<'_>,
        written: Result<Json, WriteError>,
        limits: &Limits,
        what: impl FnOnce() -> String,
    ) -> Result<Json, Thrown> {
        match written {
            Ok(json) => Ok(json),
            Err(WriteError::Thrown) => Err(Thrown),
            Err(WriteError::Refused(message)) => {
                Err(self.throw(ctx, &Failure::new("TypeError", message)))
            }
            Err(WriteError::TooLarge) => {
                Err(self.throw(ctx, &too_much(Limit::Payload, limits, &what())))
            }
            Err(WriteError::TooDeep) => {
                Err(self.throw(ctx, &too_much(Limit::JsonDepth, limits, &what())))
            }
        }
    }

    /// Throws the error that a failure is in the task.
    pub(super) fn throw(&self, ctx: Ctx<'_>, failure: &Failure) -> Thrown {
        let error = self
            .kernel(ctx)
            .and_then(|kernel| error_of(ctx, &ctx.kept(&kernel.error), failure));
        match error {
            Ok(error) => ctx.throw(error),
            Err(Thrown) => Thrown,
        }
    }

    // -------------------------------------------------------------------------------------- logging

    /// Adds a line, within the limits on lines.
    pub(super) fn log(&self, ctx: Ctx<'_>, level: LogLevel, message: String, data: Option<Json>) {
        let limits = match self.frame.borrow().as_ref() {
            Some(frame) => frame.limits.clone(),
            None => return,
        };
        let count = self.log_total.get();
        if count > limits.log_lines {
            return;
        }
        self.log_total.set(count.saturating_add(1));
        let line = LogLine {
            level,
            message: cut(message, limits.log_line_bytes),
            data: data.filter(|data| data.text().len() <= limits.log_line_bytes),
        };
        let bytes = line.message.len() + line.data.as_ref().map_or(0, |data| data.text().len());
        let all = self.log_bytes.get().saturating_add(bytes);
        let dropped = |limit: String| LogLine {
            level: LogLevel::Warn,
            message: format!("further log lines are dropped: the task passed the limit of {limit}"),
            data: None,
        };
        let line = if count == limits.log_lines {
            dropped(format!("{count} lines; it is set by Limits::log_lines"))
        } else if all > limits.log_bytes {
            self.log_total.set(u32::MAX);
            dropped(format!(
                "{} bytes of log lines; it is set by Limits::log_bytes",
                limits.log_bytes
            ))
        } else {
            self.log_bytes.set(all);
            line
        };
        let bytes = line.message.len() + line.data.as_ref().map_or(0, |data| data.text().len());
        self.charge(ctx, bytes + 32);
        self.logs.borrow_mut().push(line);
    }

    /// A promise was rejected without a handler, or got one later.
    pub(super) fn note_rejection<'r>(
        &self,
        ctx: Ctx<'r>,
        promise: &Value<'r>,
        reason: &Value<'r>,
        handled: bool,
    ) {
        let identity = promise.identity();
        let mut unhandled = self.unhandled.borrow_mut();
        if handled {
            if let Some(order) = unhandled.by_promise.remove(&identity)
                && let Some((promise, reason)) = unhandled.by_order.remove(&order)
            {
                drop(unhandled);
                drop((ctx.release(promise), ctx.release(reason)));
            }
        } else {
            let order = unhandled.next;
            unhandled.next += 1;
            unhandled.by_promise.insert(identity, order);
            let kept = (ctx.keep(promise.clone()), ctx.keep(reason.clone()));
            unhandled.by_order.insert(order, kept);
        }
    }

    /// Logs rejections that nobody handles, as Node reports them; whether there were any.
    pub(super) fn log_unhandled(&self, ctx: Ctx<'_>) -> bool {
        if self.unhandled.borrow().by_order.is_empty() {
            return false;
        }
        let unhandled = self.unhandled.take();
        for (promise, reason) in unhandled.by_order.into_values() {
            drop(ctx.release(promise));
            let reason = ctx.release(reason);
            if self.may_log() {
                let shown = show::value(ctx, &reason, MAX_SHOWN);
                let message = format!("Unhandled promise rejection: {shown}");
                self.log(ctx, LogLevel::Error, message, None);
            }
        }
        true
    }

    fn may_log(&self) -> bool {
        let frame = self.frame.borrow();
        frame
            .as_ref()
            .is_some_and(|frame| self.log_total.get() <= frame.limits.log_lines)
    }

    /// Logs an exception that nothing could catch: of a timer's callback or a microtask.
    pub(super) fn log_uncaught(&self, ctx: Ctx<'_>) {
        let thrown = ctx.exception();
        let shown = show::value(ctx, &thrown, MAX_SHOWN);
        self.log(ctx, LogLevel::Error, format!("Uncaught {shown}"), None);
    }

    // ---------------------------------------------------------------------------------------- ending

    pub(super) fn done<'r>(&self, ctx: Ctx<'r>, value: &Value<'r>) -> Result<(), Thrown> {
        if self.has_ended() {
            return Ok(());
        }
        let frame = self.frame(ctx)?;
        // From here on calls are refused: reading the result out runs getters of the task.
        self.outcome.replace(Some(TurnEnd::Completed(None)));
        let limits = &frame.limits;
        let written =
            Writer::new(ctx, limits.payload_bytes, limits.json_depth).value(value, "result");
        let end = match written {
            Ok(json) => TurnEnd::Completed(json),
            Err(WriteError::Thrown) => TurnEnd::Failed(failure_of(ctx, &ctx.exception())),
            Err(WriteError::Refused(message)) => {
                TurnEnd::Failed(Failure::new("TypeError", message))
            }
            Err(WriteError::TooLarge) => TurnEnd::Failed(Limit::Payload.failure(limits)),
            Err(WriteError::TooDeep) => TurnEnd::Failed(Limit::JsonDepth.failure(limits)),
        };
        self.outcome.replace(Some(end));
        Ok(())
    }

    pub(super) fn fail<'r>(&self, ctx: Ctx<'r>, thrown: &Value<'r>) {
        if self.has_ended() {
            return;
        }
        self.outcome.replace(Some(TurnEnd::Completed(None)));
        let failure = failure_of(ctx, thrown);
        self.outcome.replace(Some(TurnEnd::Failed(failure)));
    }
}

/// `tools.tasks.execute(name, input)` from its argument text.
fn task_of(ctx: Ctx<'_>, args: &Json) -> Result<Made, Thrown> {
    let args = args.elements().unwrap_or_default();
    let name = args.first().and_then(|name| name.to::<String>().ok());
    match name {
        Some(name) if !name.is_empty() => Ok(Made::Task {
            name,
            input: args.into_iter().nth(1).unwrap_or_default(),
        }),
        _ => Err(ctx.throw_type("tasks.execute(name, input) takes the name of a task as text")),
    }
}

/// The failure of a value that is too large or too deep to pass.
fn too_much(limit: Limit, limits: &Limits, what: &str) -> Failure {
    let base = limit.failure(limits);
    let mend = match limit {
        Limit::JsonDepth => "give a flatter value",
        _ => "pass less, in parts, or a reference to where the data is",
    };
    Failure {
        message: format!("{what} passed a limit: {}; {mend}", base.message),
        ..base
    }
}

/// Levels of a JSON text, counted only as far as `stop`.
fn depth_of(text: &str, stop: u32) -> u32 {
    if text.len() as u64 <= u64::from(stop) * 2 {
        return 0;
    }
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0u32, 0u32, false, false);
    for byte in text.bytes() {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
                if deepest > stop {
                    return deepest;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Cuts a log line with a mark.
fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let whole = text.len();
        let mut end = max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        let _ = write!(text, "… [cut: the line has {whole} bytes]");
    }
    text
}
