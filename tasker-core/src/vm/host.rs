//! What stands behind the bridge: the frame's state, and what each bridge function does with it.
//!
//! Sequence numbers, limits and argument texts are made here, from nothing that the task can change afterwards.
//! Invariant: no borrow of a cell is held while JavaScript may run.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tasker_adaptor::{CallSeq, Failure, Json, LogLevel, LogLine, Outcome, Timestamp};

use super::cache::BytecodeCache;
use super::capture::{error_of, failure_of};
use super::compile::{CompileError, compile};
use super::message::{Made, ToolNames, TurnEnd, VmStart};
use super::random::Random;
use super::raw::{Args, Ctx, Host, Kept, Kind, ModuleError, ModuleSource, Thrown, Value};
use super::write::{WriteError, Writer};
use super::{modules, show, web};
use crate::limits::{Limit, Limits};
use crate::service::ServiceStyle;
use crate::task::{ModuleFormat, Program};

macro_rules! ops {
    ($($name:ident => $js:literal,)+) => {
        /// The bridge functions, by number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(i32)]
        pub(super) enum Op { $($name,)+ }

        impl Op {
            const ALL: &'static [Self] = &[$(Self::$name,)+];
            /// The names under which the prelude knows them, in order.
            pub(super) const NAMES: &'static [&'static str] = &[$($js,)+];
        }
    };
}

ops! {
    ToolCall => "host_tool_call",
    Tool => "host_tool",
    HostCall => "host_call",
    Chain => "host_chain",
    IsFluent => "host_is_fluent",
    Task => "host_task",
    Sleep => "host_sleep",
    Timer => "host_timer",
    Drop => "host_drop",
    Signal => "host_signal",
    Now => "host_now",
    Random => "host_random",
    RandomBytes => "host_random_bytes",
    Print => "host_print",
    Log => "host_log",
    Load => "host_load",
    Require => "host_require",
    RequireFrom => "host_require_from",
    Done => "host_done",
    Fail => "host_fail",
    UrlParse => "host_url_parse",
    UrlSet => "host_url_set",
    QueryParse => "host_query_parse",
    QueryWrite => "host_query_write",
    Encode => "host_encode",
    Decode => "host_decode",
    Clean => "host_clean_stack",
    Brand => "host_brand",
    IsView => "host_is_view",
}

/// Functions of the prelude that Rust calls.
pub(super) struct Kernel {
    /// `start(data)`: runs the task.
    pub(super) start: Kept,
    /// `fire(seq)`: a timer came due.
    pub(super) fire: Kept,
    /// `toError(failure)`: an `Error` of data.
    pub(super) error: Kept,
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

/// What a frame runs, fixed at its start.
pub(super) struct Frame {
    pub(super) program: Arc<Program>,
    pub(super) tools: Arc<ToolNames>,
    pub(super) limits: Arc<Limits>,
}

/// The `module` object, what the file's end gave (its bare function), and the object that `exports` was at first.
type Common<'r> = (Value<'r>, Value<'r>, Value<'r>);

/// See the module.
pub(super) struct FrameHost {
    cache: Arc<BytecodeCache>,
    frame: RefCell<Option<Rc<Frame>>>,
    pub(super) kernel: RefCell<Option<Rc<Kernel>>>,
    time: Cell<Timestamp>,
    random: RefCell<Random>,
    open: RefCell<HashMap<u32, Open>>,
    made_total: Cell<u32>,
    made: RefCell<Vec<Made>>,
    dropped: RefCell<Vec<CallSeq>>,
    logs: RefCell<Vec<LogLine>>,
    log_total: Cell<u32>,
    /// Bytes that this turn has put outside the VM's heap.
    out_bytes: Cell<usize>,
    outcome: RefCell<Option<TurnEnd>>,
    unhandled: RefCell<Vec<(usize, Kept, Kept)>>,
    /// CommonJS modules by path: their `module` objects.
    common: RefCell<HashMap<String, Rc<Kept>>>,
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

    fn frame(&self, ctx: Ctx<'_>) -> Result<Rc<Frame>, Thrown> {
        self.frame
            .borrow()
            .clone()
            .ok_or_else(|| ctx.throw_type("the realm has no task yet"))
    }

    fn kernel(&self, ctx: Ctx<'_>) -> Result<Rc<Kernel>, Thrown> {
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
                    Outcome::Failed(failure) => Err(failure.clone()),
                };
                match settled {
                    Ok(value) => resolve.call(&[&value])?,
                    Err(failure) => {
                        let error = error_of(ctx, &ctx.kept(&kernel.error), &failure)?;
                        reject.call(&[&error])?
                    }
                };
            }
        }
        Ok(())
    }

    /// A value from outside; one that is too large or too deep is a failure of the call that it answers.
    fn enter_value<'r>(&self, ctx: Ctx<'r>, json: &Json) -> Result<Value<'r>, Failure> {
        let limits = match self.frame.borrow().as_ref() {
            Some(frame) => frame.limits.clone(),
            None => Arc::default(),
        };
        if json.text().len() > limits.payload_bytes {
            return Err(too_much(Limit::Payload, &limits, "the answer of this call"));
        }
        if depth_of(json.text(), limits.json_depth) > limits.json_depth {
            return Err(too_much(
                Limit::JsonDepth,
                &limits,
                "the answer of this call",
            ));
        }
        ctx.parse_json(json.text())
            .map_err(|Thrown| failure_of(ctx, &ctx.exception()))
    }

    // --------------------------------------------------------------------------------------- making

    fn admit(&self, ctx: Ctx<'_>, what: &str) -> Result<Rc<Frame>, Thrown> {
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
                } => service.len() + path.len() + args.text().len(),
                Made::Task { name, input } => name.len() + input.text().len(),
                Made::Signal { name } => name.len(),
                Made::Timer { .. } => 0,
            };
        self.charge(ctx, bytes);
        self.made.borrow_mut().push(made);
        self.open.borrow_mut().insert(seq, open);
        seq
    }

    fn note_promise<'r>(&self, ctx: Ctx<'r>, made: Made) -> Result<Value<'r>, Thrown> {
        let (promise, resolve, reject) = ctx.promise()?;
        let open = Open::Promise {
            resolve: ctx.keep(resolve),
            reject: ctx.keep(reject),
        };
        self.note(ctx, made, open);
        Ok(promise)
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

    fn make_call<'r>(
        &self,
        ctx: Ctx<'r>,
        service: &str,
        path: String,
        args: impl FnOnce(Writer<'r>) -> Result<String, WriteError>,
    ) -> Result<Value<'r>, Thrown> {
        let frame = self.admit(ctx, &format!("the call of {service}.{path}"))?;
        let service = frame.tools.canonical(service);
        let writer = Writer::new(ctx, frame.limits.payload_bytes, frame.limits.json_depth);
        let what = || format!("the arguments of {service}.{path}");
        let args = self.json(ctx, args(writer), &frame.limits, what)?;
        // The arguments may have run code of the task, which may have ended it or made other calls.
        self.admit(ctx, &format!("the call of {service}.{path}"))?;
        let made = if service == "tasks" && path == "execute" {
            task_of(ctx, &args)?
        } else {
            Made::Call {
                service: service.to_owned(),
                path,
                args,
            }
        };
        self.note_promise(ctx, made)
    }

    fn json(
        &self,
        ctx: Ctx<'_>,
        written: Result<String, WriteError>,
        limits: &Limits,
        what: impl FnOnce() -> String,
    ) -> Result<Json, Thrown> {
        match written {
            Ok(text) => {
                Json::parse(text).map_err(|error| ctx.throw_type(&format!("{}: {error}", what())))
            }
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
    fn throw(&self, ctx: Ctx<'_>, failure: &Failure) -> Thrown {
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
        self.log_total.set(count + 1);
        let line = if count == limits.log_lines {
            LogLine {
                level: LogLevel::Warn,
                message: format!(
                    "further log lines are dropped: the task passed the limit of {} lines; it is set by Limits::log_lines",
                    limits.log_lines
                ),
                data: None,
            }
        } else {
            LogLine {
                level,
                message: cut(message, limits.log_line_bytes),
                data: data.filter(|data| data.text().len() <= limits.log_line_bytes),
            }
        };
        let bytes = line.message.len() + line.data.as_ref().map_or(0, |data| data.text().len());
        self.charge(ctx, bytes + 32);
        self.logs.borrow_mut().push(line);
    }

    /// Logs rejections that nobody handles, as Node reports them.
    pub(super) fn log_unhandled(&self, ctx: Ctx<'_>) {
        for (_, promise, reason) in self.unhandled.take() {
            drop(ctx.release(promise));
            let reason = ctx.release(reason);
            let shown = show::value(ctx, &reason, 16 << 10);
            self.log(
                ctx,
                LogLevel::Error,
                format!("Unhandled promise rejection: {shown}"),
                None,
            );
        }
    }

    /// Logs an exception that nothing could catch: of a timer's callback or a microtask.
    pub(super) fn log_uncaught(&self, ctx: Ctx<'_>) {
        let thrown = ctx.exception();
        let shown = show::value(ctx, &thrown, 16 << 10);
        self.log(ctx, LogLevel::Error, format!("Uncaught {shown}"), None);
    }

    // -------------------------------------------------------------------------------------- modules

    /// Bytecode of a file, from the cache or compiled.
    fn bytecode(&self, ctx: Ctx<'_>, program: &Program, path: &str) -> Result<Arc<[u8]>, Thrown> {
        if let Some(code) = self.cache.find(&program.version, path) {
            return Ok(code);
        }
        let Some(module) = modules::find(program, path) else {
            return Err(ctx.throw_named("Error", &format!("the task has no file {path}")));
        };
        let limits = self.frame(ctx)?.limits.clone();
        let code: Arc<[u8]> = match compile(program, module, &limits) {
            Ok(code) => code.into(),
            Err(CompileError::Syntax(failure)) => return Err(self.throw(ctx, &failure)),
            Err(CompileError::Limit(limit)) => {
                ctx.trip(limit);
                return Err(Thrown);
            }
        };
        self.cache.keep(&program.version, path, &code);
        Ok(code)
    }

    /// A CommonJS file, run at its first use.
    fn common<'r>(&self, ctx: Ctx<'r>, path: &str) -> Result<Common<'r>, Thrown> {
        if let Some(module) = self.common.borrow().get(path).cloned() {
            return Ok((ctx.kept(&module), ctx.undefined(), ctx.undefined()));
        }
        let frame = self.frame(ctx)?;
        let module = ctx.parse_json(r#"{"exports":{}}"#)?;
        let exports = module.get(c"exports")?;
        let key = Rc::new(ctx.keep(module.clone()));
        self.common.borrow_mut().insert(path.to_owned(), key);
        let ran = (|| {
            if std::path::Path::new(path)
                .extension()
                .is_some_and(|end| end == "json")
            {
                let source = modules::find(&frame.program, path).map_or("", |file| &file.source);
                let value = ctx.parse_json(source)?;
                module.define_hidden(c"exports", value)?;
                return Ok(ctx.undefined());
            }
            let code = self.bytecode(ctx, &frame.program, path)?;
            let function = ctx.run_script(&code)?;
            let here = ctx.string(path)?;
            let require = ctx.bound_function(Op::RequireFrom as i32, &here, &ctx.undefined())?;
            let folder = ctx.string(path.rsplit_once('/').map_or(".", |(folder, _)| folder))?;
            function.call_on(&exports, &[&exports, &require, &module, &here, &folder])
        })();
        match ran {
            Ok(end) => Ok((module, end, exports)),
            Err(Thrown) => {
                self.common.borrow_mut().remove(path);
                Err(Thrown)
            }
        }
    }

    fn require<'r>(&self, ctx: Ctx<'r>, base: &str, name: &str) -> Result<Value<'r>, Thrown> {
        let frame = self.frame(ctx)?;
        let path = modules::resolve(&frame.program, base, name).map_err(|message| {
            self.throw(
                ctx,
                &Failure {
                    code: Some("MODULE_NOT_FOUND".into()),
                    ..Failure::new("Error", message)
                },
            )
        })?;
        let format = modules::find(&frame.program, &path).map(|module| module.format);
        if format == Some(ModuleFormat::EsModule) && !path.ends_with(".json") {
            return Err(ctx.throw_named(
                "Error",
                &format!("{path} is an ES module: load it with import('{name}')"),
            ));
        }
        self.common(ctx, &path)?.0.get(c"exports")
    }

    /// Loads the entry: `[isModule, exports or namespace, promise of the evaluation or bare function, was exported]`.
    fn load<'r>(&self, ctx: Ctx<'r>) -> Result<Value<'r>, Thrown> {
        let frame = self.frame(ctx)?;
        let entry = &frame.program.entry;
        match entry.format {
            ModuleFormat::CommonJs => {
                let (module, end, first) = self.common(ctx, &entry.path)?;
                let exports = module.get(c"exports")?;
                let replaced = exports.identity() == 0 || exports.identity() != first.identity();
                let parts = vec![ctx.bool(false), exports, end, ctx.bool(replaced)];
                ctx.array(parts)
            }
            ModuleFormat::EsModule => {
                let code = self.bytecode(ctx, &frame.program, &entry.path)?;
                let module = ctx.load_module(&code)?;
                let evaluated = ctx.evaluate_module(module)?;
                let parts = vec![ctx.bool(true), ctx.namespace(module)?, evaluated];
                ctx.array(parts)
            }
        }
    }

    // ---------------------------------------------------------------------------------------- ending

    fn done<'r>(&self, ctx: Ctx<'r>, value: &Value<'r>) -> Result<(), Thrown> {
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
            Ok(None) => TurnEnd::Completed(None),
            Ok(Some(text)) => match Json::parse(text) {
                Ok(json) => TurnEnd::Completed(Some(json)),
                Err(error) => TurnEnd::Failed(Failure::new("TypeError", error.to_string())),
            },
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

    fn fail<'r>(&self, ctx: Ctx<'r>, thrown: &Value<'r>) {
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
    let args: Vec<Json> = args.to().unwrap_or_default();
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
        text.push_str(&format!("… [cut: the line has {whole} bytes]"));
    }
    text
}

fn level_of(word: &str) -> LogLevel {
    match word.to_ascii_lowercase().as_str() {
        "debug" | "trace" => LogLevel::Debug,
        "warn" | "warning" => LogLevel::Warn,
        "error" | "fatal" => LogLevel::Error,
        _ => LogLevel::Info,
    }
}

impl Host for FrameHost {
    fn call<'r>(&self, ctx: Ctx<'r>, op: i32, args: &Args<'r>) -> Result<Value<'r>, Thrown> {
        let Some(op) = usize::try_from(op).ok().and_then(|op| Op::ALL.get(op)) else {
            return Err(ctx.throw_type("unknown bridge function"));
        };
        if ctx.is_tripped() {
            return Err(ctx.throw_type("the frame has ended"));
        }
        match op {
            Op::ToolCall => {
                let service = args.bound(0).text()?;
                let path = args.bound(1).text()?;
                self.make_call(ctx, &service, path, |writer| writer.args(args, 0))
            }
            Op::Tool => ctx.bound_function(Op::ToolCall as i32, &args.at(0), &args.at(1)),
            Op::HostCall | Op::Chain => {
                let (service, path) = (args.at(0).text()?, args.at(1).text()?);
                let list = args.at(2);
                self.make_call(ctx, &service, path, |writer| {
                    if *op == Op::Chain {
                        writer.arg_arrays(&list)
                    } else {
                        writer.arg_array(&list)
                    }
                })
            }
            Op::IsFluent => {
                let frame = self.frame(ctx)?;
                let service = args.at(0).text()?;
                Ok(ctx.bool(frame.tools.style(&service) == ServiceStyle::Fluent))
            }
            Op::Task => self.make_call(ctx, "tasks", "execute".into(), |writer| {
                writer.args(args, 0)
            }),
            Op::Sleep => {
                self.admit(ctx, "sleep")?;
                let made = Made::Timer {
                    path: "sleep",
                    delay_ms: delay_of(&args.at(0))?,
                };
                self.note_promise(ctx, made)
            }
            Op::Timer => {
                let path = match args.at(0).kind() {
                    Kind::Int(1) => "setInterval",
                    _ => "setTimeout",
                };
                self.admit(ctx, path)?;
                let delay_ms = delay_of(&args.at(1))?;
                let seq = self.note(ctx, Made::Timer { path, delay_ms }, Open::Callback);
                Ok(ctx.number(f64::from(seq)))
            }
            Op::Drop => {
                if let Kind::Int(seq) = args.at(0).kind() {
                    let seq = seq as u32;
                    if self.open.borrow_mut().remove(&seq).is_some() {
                        self.dropped.borrow_mut().push(CallSeq(seq));
                    }
                }
                Ok(ctx.undefined())
            }
            Op::Signal => {
                self.admit(ctx, "the wait for a signal")?;
                let name = args.at(0);
                let Some(name) = name.as_string().filter(|name| !name.is_empty()) else {
                    return Err(ctx.throw_type("signal(name) takes the name of a signal as text"));
                };
                self.note_promise(ctx, Made::Signal { name })
            }
            Op::Now => Ok(ctx.number(self.time.get().as_millis() as f64)),
            Op::Random => Ok(ctx.number(self.random.borrow_mut().number())),
            Op::RandomBytes => {
                let filled = args
                    .at(0)
                    .with_bytes(|bytes| self.random.borrow_mut().fill(bytes));
                Ok(ctx.bool(filled.is_some()))
            }
            Op::Print => {
                let level = level_of(&args.at(0).text()?);
                let mut message = args.at(1).text()?;
                let max = self.frame(ctx)?.limits.log_line_bytes;
                for index in 2..args.len() {
                    if index > 2 {
                        message.push(' ');
                    }
                    message.push_str(&show::value(ctx, &args.at(index), max));
                    if message.len() > max || ctx.is_tripped() {
                        break;
                    }
                }
                self.log(ctx, level, message, None);
                Ok(ctx.undefined())
            }
            Op::Log => {
                let frame = self.frame(ctx)?;
                let max = frame.limits.log_line_bytes;
                let level = level_of(&show::value(ctx, &args.at(0), 64));
                let message = show::value(ctx, &args.at(1), max);
                let data = match args.at(2) {
                    none if none.kind() == Kind::Undefined => None,
                    some => Some(some),
                };
                let (mut message, mut json) = (message, None);
                if let Some(data) = data {
                    let text = Writer::new(ctx, max, frame.limits.json_depth).value(&data, "data");
                    drop(ctx.exception());
                    json = text.ok().flatten().and_then(|text| Json::parse(text).ok());
                    if json.is_none() {
                        message.push(' ');
                        message.push_str(&show::value(ctx, &data, max));
                    }
                }
                self.log(ctx, level, message, json);
                Ok(ctx.undefined())
            }
            Op::Load => self.load(ctx),
            Op::Require | Op::RequireFrom => {
                let base = args.bound(0).text()?;
                let Some(name) = args.at(0).as_string() else {
                    return Err(ctx.throw_type("require(path) takes the path of a file as text"));
                };
                self.require(ctx, &base, &name)
            }
            Op::Done => {
                self.done(ctx, &args.at(0))?;
                Ok(ctx.undefined())
            }
            Op::Fail => {
                self.fail(ctx, &args.at(0));
                Ok(ctx.undefined())
            }
            Op::UrlParse => web::url_parse(ctx, args),
            Op::UrlSet => web::url_set(ctx, args),
            Op::QueryParse => web::query_parse(ctx, args),
            Op::QueryWrite => web::query_write(ctx, args),
            Op::Encode => web::encode(ctx, args),
            Op::Decode => web::decode(ctx, args),
            Op::Brand => match args.at(0).brand() {
                Some(brand) => ctx.string(&brand),
                None => Ok(ctx.undefined()),
            },
            Op::IsView => Ok(ctx.bool(args.at(0).is_typed_array())),
            Op::Clean => ctx.string(&super::capture::clean_stack(&args.at(0).text()?)),
        }
    }

    fn resolve(&self, base: &str, name: &str) -> Result<String, String> {
        match self.frame.borrow().as_ref() {
            Some(frame) => modules::resolve(&frame.program, base, name),
            None => Err(format!("cannot find module '{name}'")),
        }
    }

    fn module<'r>(&self, ctx: Ctx<'r>, name: &str) -> Result<ModuleSource<'r>, ModuleError> {
        let frame = self.frame(ctx).map_err(|Thrown| ModuleError::Thrown)?;
        match modules::find(&frame.program, name) {
            None => Err(ModuleError::Missing(format!("the task has no file {name}"))),
            Some(module) if module.format == ModuleFormat::CommonJs || name.ends_with(".json") => {
                self.common(ctx, name)
                      .and_then(|(module, ..)| module.get(c"exports"))
                    .map(ModuleSource::Exports)
                    .map_err(|Thrown| ModuleError::Thrown)
            }
            Some(_) => self
                .bytecode(ctx, &frame.program, name)
                .map(ModuleSource::Bytecode)
                .map_err(|Thrown| ModuleError::Thrown),
        }
    }

    fn rejection<'r>(&self, ctx: Ctx<'r>, promise: &Value<'r>, reason: &Value<'r>, handled: bool) {
        let identity = promise.identity();
        if handled {
            let mut unhandled = self.unhandled.borrow_mut();
            if let Some(at) = unhandled.iter().position(|(id, ..)| *id == identity) {
                let (_, promise, reason) = unhandled.remove(at);
                drop(unhandled);
                drop((ctx.release(promise), ctx.release(reason)));
            }
        } else {
            let entry = (
                identity,
                ctx.keep(promise.clone()),
                ctx.keep(reason.clone()),
            );
            self.unhandled.borrow_mut().push(entry);
        }
    }
}

/// A delay in whole milliseconds, never negative, at most what a timer can hold.
fn delay_of(value: &Value<'_>) -> Result<u64, Thrown> {
    /// About 285,000 years: any longer wait is the same.
    const MAX: f64 = 9e15;
    let millis = value.to_number()?;
    Ok(if millis.is_nan() || millis <= 0.0 {
        0
    } else {
        millis.min(MAX).ceil() as u64
    })
}
