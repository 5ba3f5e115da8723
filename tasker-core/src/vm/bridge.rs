//! The bridge functions: what JavaScript may ask of the host, one arm each.
//!
//! Only the prelude holds them; a task reaches them through what the prelude gives it.

use tasker_adaptor::{Json, LogLevel};

use super::host::FrameHost;
use super::message::Made;
use super::prelude::Script;
use super::raw::{Args, Ctx, Host, Key, Kind, ModuleError, ModuleSource, Thrown, Value};
use super::write::Writer;
use super::{capture, realm, show, web};
use crate::limits::{Limit, is_signal_name};
use crate::service::ServiceStyle;

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
    Script => "host_script",
    Policy => "host_policy",
    Error => "host_error",
    Hide => "host_hide",
    Show => "host_show",
    Accessor => "host_accessor",
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
                self.make_call(ctx, service, path, None, |writer| writer.args(args, 0))
            }
            Op::Tool => ctx.bound_function(Op::ToolCall as i32, &args.at(0), &args.at(1)),
            Op::HostCall | Op::Chain => {
                let (service, path) = (args.at(0).text()?, args.at(1).text()?);
                let list = args.at(2);
                // From `Op::Policy`, which checked it.
                let policy = args.at(3).as_string();
                let policy = policy.and_then(|text| Json::parse(text).ok());
                self.make_call(ctx, service, path, policy, |writer| {
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
            Op::Task => self.make_call(ctx, "tasks".into(), "execute".into(), None, |writer| {
                writer.args(args, 0)
            }),
            Op::Sleep => {
                let delay_ms = delay_of(&args.at(0))?;
                self.admit(ctx, "sleep")?;
                let made = Made::Timer {
                    path: "sleep",
                    delay_ms,
                };
                self.note_promise(ctx, made)
            }
            Op::Timer => {
                let path = match args.at(0).kind() {
                    Kind::Int(1) => "setInterval",
                    _ => "setTimeout",
                };
                let delay_ms = delay_of(&args.at(1))?;
                self.admit(ctx, path)?;
                let seq = self.note_timer(ctx, path, delay_ms);
                Ok(ctx.number(f64::from(seq)))
            }
            Op::Drop => {
                if let Kind::Int(seq) = args.at(0).kind() {
                    self.drop_child(seq as u32);
                }
                Ok(ctx.undefined())
            }
            Op::Signal => {
                self.admit(ctx, "the wait for a signal")?;
                let name = args.at(0);
                let Some(name) = name.as_string().filter(|name| is_signal_name(name)) else {
                    return Err(ctx.throw_type(
                        "signal(name) takes the name of a signal as text: 1 to 200 characters, none of them a control character",
                    ));
                };
                self.note_promise(ctx, Made::Signal { name })
            }
            Op::Now => Ok(ctx.number(self.now() as f64)),
            Op::Random => Ok(ctx.number(self.random_number())),
            Op::RandomBytes => {
                let filled = args.at(0).with_bytes(|bytes| self.random_bytes(bytes));
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
                    let written =
                        Writer::new(ctx, max, frame.limits.json_depth).value(&data, "data");
                    drop(ctx.exception());
                    json = written.ok().flatten();
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
            Op::Script => {
                let name = args.at(0).text()?;
                let script = Script::ALL.iter().find(|script| script.name() == name);
                let Some(code) = script.and_then(|script| realm::bytecode(*script)) else {
                    // The machine has no memory to compile it in.
                    ctx.trip(Limit::Memory);
                    return Err(Thrown);
                };
                ctx.run_script(&code)
            }
            Op::Policy => self.policy(ctx, &args.at(0)),
            Op::Error => ctx.error_without_stack(&args.at(0)),
            Op::Hide | Op::Show => {
                let value = args.at(2);
                args.at(0)
                    .define_as(&Key::of(&args.at(1))?, value.clone(), *op == Op::Show)?;
                Ok(value)
            }
            Op::Accessor => {
                let key = Key::of(&args.at(1))?;
                let shown = args.at(4).kind() == Kind::Bool(true);
                args.at(0)
                    .define_accessor(&key, args.at(2), args.at(3), shown)?;
                Ok(ctx.undefined())
            }
            Op::Clean => ctx.string(&capture::clean_stack(&args.at(0).text()?)),
        }
    }

    fn resolve(&self, base: &str, name: &str) -> Result<String, String> {
        self.resolve_import(base, name)
    }

    fn module<'r>(&self, ctx: Ctx<'r>, name: &str) -> Result<ModuleSource<'r>, ModuleError> {
        self.import(ctx, name)
    }

    fn rejection<'r>(&self, ctx: Ctx<'r>, promise: &Value<'r>, reason: &Value<'r>, handled: bool) {
        self.note_rejection(ctx, promise, reason, handled);
    }
}

fn level_of(word: &str) -> LogLevel {
    match word.to_ascii_lowercase().as_str() {
        "debug" | "trace" => LogLevel::Debug,
        "warn" | "warning" => LogLevel::Warn,
        "error" | "fatal" => LogLevel::Error,
        _ => LogLevel::Info,
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
