//! Answers of a child, as bytes. Whether they are believed is said in [`super::check`].

use tasker_adaptor::{BlockedReason, CallSeq, Json, LogLevel, LogLine};

use super::codec::{message, read_failure, read_record, write_failure, write_record};
use super::wire::{Garbled, Input, Output};
use super::worker::{VmDid, VmKey, VmReport};
use crate::vm::{Made, Turn, TurnEnd};

/// Raised with every change of what crosses the pipe: host and child must agree.
pub(crate) const PROTOCOL: u32 = 3;

const READY: u8 = 1;
const TURNED: u8 = 2;
const REPLAYED: u8 = 3;
const DIVERGED: u8 = 4;
const REPLAYED_ONE: u8 = 5;
const FAULT: u8 = 6;

/// What a child says.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is confined and takes commands.
    Ready(Ready),
    /// A turn, and what the VM takes after it, in bytes.
    Turned(VmKey, usize, Turn),
    /// A replay that matched, and what the VM takes after it, in bytes.
    Replayed(VmKey, usize),
    /// A replay that did not.
    Diverged(VmKey, BlockedReason),
    /// One recorded turn was run again: it has not hung.
    ReplayedOne(VmKey),
    /// It cannot go on, and says why.
    Fault(String),
}

/// How a child is confined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) protocol: u32,
    /// Version of the crate.
    pub(crate) version: String,
    /// What its system does not have of the wall.
    pub(crate) missing: Vec<String>,
}

pub(crate) fn write_ready(out: &mut Output, ready: &Ready) {
    message(out, |out| {
        out.byte(READY);
        out.number(u64::from(ready.protocol));
        out.text(&ready.version);
        out.list(ready.missing.iter(), |out, what| out.text(what));
    });
}

pub(crate) fn write_fault(out: &mut Output, what: &str) {
    message(out, |out| {
        out.byte(FAULT);
        out.text(what);
    });
}

pub(crate) fn write_replayed_one(out: &mut Output, key: VmKey) {
    message(out, |out| {
        out.byte(REPLAYED_ONE);
        out.number(key.0);
    });
}

pub(crate) fn write_report(out: &mut Output, report: &VmReport) {
    let key = report.key.0;
    let memory = report.memory.unwrap_or(0) as u64;
    match &report.what {
        VmDid::Turned(turn) => message(out, |out| {
            out.byte(TURNED);
            out.number(key);
            out.number(memory);
            write_turn(out, turn);
        }),
        VmDid::Replayed => message(out, |out| {
            out.byte(REPLAYED);
            out.number(key);
            out.number(memory);
        }),
        VmDid::Diverged(reason) => message(out, |out| {
            out.byte(DIVERGED);
            out.number(key);
            let (seq, recorded, attempted, cause) = match reason {
                BlockedReason::Diverged {
                    seq,
                    recorded,
                    attempted,
                    cause,
                } => (*seq, recorded.as_ref(), attempted.as_ref(), cause.as_str()),
                // A replay gives no other reason.
                _ => (CallSeq(0), None, None, "the replay did not match"),
            };
            out.number(u64::from(seq.0));
            out.option(recorded, write_record);
            out.option(attempted, write_record);
            out.text(cause);
        }),
        // Only the host can say these.
        VmDid::Lost | VmDid::Destroyed(_) => {}
    }
}

/// Reads one message of a child.
pub(crate) fn read_answer(body: &[u8]) -> Result<Answer, Garbled> {
    let input = &mut Input(body);
    let answer = match input.byte()? {
        READY => Answer::Ready(Ready {
            protocol: input.small()?,
            version: input.text()?,
            missing: input.list(Input::text)?,
        }),
        TURNED => Answer::Turned(
            VmKey(input.number()?),
            read_memory(input)?,
            read_turn(input)?,
        ),
        REPLAYED => Answer::Replayed(VmKey(input.number()?), read_memory(input)?),
        DIVERGED => Answer::Diverged(
            VmKey(input.number()?),
            BlockedReason::Diverged {
                seq: CallSeq(input.small()?),
                recorded: input.option(read_record)?,
                attempted: input.option(read_record)?,
                cause: input.text()?,
            },
        ),
        REPLAYED_ONE => Answer::ReplayedOne(VmKey(input.number()?)),
        FAULT => Answer::Fault(input.text()?),
        _ => return Err(Garbled("an answer of no kind")),
    };
    input.end()?;
    Ok(answer)
}

fn read_memory(input: &mut Input<'_>) -> Result<usize, Garbled> {
    usize::try_from(input.number()?).map_err(|_| Garbled("more memory than there is"))
}

fn write_turn(out: &mut Output, turn: &Turn) {
    let Turn {
        made,
        dropped,
        logs,
        end,
    } = turn;
    out.list(made.iter(), |out, made| match made {
        Made::Call {
            service,
            path,
            args,
            policy,
        } => {
            out.byte(0);
            out.text(service);
            out.text(path);
            out.text(args.text());
            out.option(policy.as_ref().map(Json::text), Output::text);
        }
        Made::Task { name, input } => {
            out.byte(1);
            out.text(name);
            out.text(input.text());
        }
        Made::Timer { path, delay_ms } => {
            out.byte(2);
            out.text(path);
            out.number(*delay_ms);
        }
        Made::Signal { name } => {
            out.byte(3);
            out.text(name);
        }
    });
    out.list(dropped.iter(), |out, seq| out.number(u64::from(seq.0)));
    out.list(logs.iter(), |out, line| {
        let LogLine {
            level,
            message,
            data,
        } = line;
        out.byte(match level {
            LogLevel::Debug => 0,
            LogLevel::Info => 1,
            LogLevel::Warn => 2,
            LogLevel::Error => 3,
        });
        out.text(message);
        out.option(data.as_ref().map(Json::text), Output::text);
    });
    match end {
        TurnEnd::Waiting => out.byte(0),
        TurnEnd::Completed(None) => out.byte(1),
        TurnEnd::Completed(Some(json)) => {
            out.byte(2);
            out.text(json.text());
        }
        TurnEnd::Failed(failure) => {
            out.byte(3);
            write_failure(out, failure);
        }
    }
}

fn read_turn(input: &mut Input<'_>) -> Result<Turn, Garbled> {
    Ok(Turn {
        made: input.list(|input| {
            Ok(match input.byte()? {
                0 => Made::Call {
                    service: input.text()?,
                    path: input.text()?,
                    args: input.json()?,
                    policy: input.option(Input::json)?,
                },
                1 => Made::Task {
                    name: input.text()?,
                    input: input.json()?,
                },
                2 => Made::Timer {
                    path: match input.str()? {
                        "sleep" => "sleep",
                        "setTimeout" => "setTimeout",
                        "setInterval" => "setInterval",
                        _ => return Err(Garbled("a timer of no kind")),
                    },
                    delay_ms: input.number()?,
                },
                3 => Made::Signal {
                    name: input.text()?,
                },
                _ => return Err(Garbled("a child of no kind")),
            })
        })?,
        dropped: input.list(|input| input.small().map(CallSeq))?,
        logs: input.list(|input| {
            Ok(LogLine {
                level: match input.byte()? {
                    0 => LogLevel::Debug,
                    1 => LogLevel::Info,
                    2 => LogLevel::Warn,
                    3 => LogLevel::Error,
                    _ => return Err(Garbled("a line of no level")),
                },
                message: input.text()?,
                data: input.option(Input::json)?,
            })
        })?,
        end: match input.byte()? {
            0 => TurnEnd::Waiting,
            1 => TurnEnd::Completed(None),
            2 => TurnEnd::Completed(Some(input.json()?)),
            3 => TurnEnd::Failed(read_failure(input)?),
            _ => return Err(Garbled("an end of no kind")),
        },
    })
}
