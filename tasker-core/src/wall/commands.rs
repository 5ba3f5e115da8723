//! Commands to a child, as bytes.
//!
//! Programs, tool names and limits go once and are named by a number after that, until the host says that the number is forgotten.

use std::collections::VecDeque;
use std::sync::Arc;

use tasker_adaptor::{CallSeq, Outcome, StackKind, TaskName, TaskVersion, Timestamp};

use super::codec::{message, read_failure, read_record, write_failure, write_record};
use super::wire::{Garbled, Input, Output};
use super::worker::{VmCommand, VmKey};
use crate::limits::Limits;
use crate::run::{History, RecordedTurn};
use crate::service::ServiceStyle;
use crate::task::{Module, ModuleFormat, Program};
use crate::vm::{RunInfo, ToolNames, VmDeliver, VmStart};

const DEFINE_PROGRAM: u8 = 1;
const DEFINE_TOOLS: u8 = 2;
const DEFINE_LIMITS: u8 = 3;
const FORGET: u8 = 4;
const START: u8 = 5;
const DELIVER: u8 = 6;
const DROP: u8 = 7;

/// What is kept of programs in a child, in bytes of source.
const PROGRAM_BYTES: usize = 32 << 20;
/// How many sets of tools and limits are kept in a child.
const SETS: usize = 64;

/// Writes commands for one child, and remembers what it knows.
#[derive(Debug, Default)]
pub(crate) struct CommandWriter {
    next: u64,
    programs: VecDeque<(u64, Arc<Program>)>,
    program_bytes: usize,
    tools: VecDeque<(u64, Arc<ToolNames>)>,
    limits: VecDeque<(u64, Arc<Limits>)>,
}

impl CommandWriter {
    pub(crate) fn write(&mut self, out: &mut Output, command: &VmCommand) {
        match command {
            VmCommand::Start {
                key,
                start,
                history,
            } => {
                let program = self.program(out, &start.program);
                let tools = self.tools(out, &start.tools);
                let limits = self.limits(out, &start.limits);
                message(out, |out| {
                    out.byte(START);
                    out.number(key.0);
                    out.number(program);
                    out.number(tools);
                    out.number(limits);
                    write_start(out, start);
                    out.option(history.as_deref(), write_history);
                });
            }
            VmCommand::Deliver { key, deliver } => message(out, |out| {
                out.byte(DELIVER);
                out.number(key.0);
                out.signed(deliver.time.as_millis());
                out.list(deliver.items.iter(), write_item);
            }),
            VmCommand::Drop { key } => message(out, |out| {
                out.byte(DROP);
                out.number(key.0);
            }),
        }
    }

    fn program(&mut self, out: &mut Output, program: &Arc<Program>) -> u64 {
        if let Some((id, _)) = self.programs.iter().find(|(_, known)| {
            Arc::ptr_eq(known, program)
                || (known.version == program.version && known.name == program.name)
        }) {
            return *id;
        }
        self.program_bytes += source_bytes(program);
        while self.program_bytes > PROGRAM_BYTES
            && let Some((id, old)) = self.programs.pop_front()
        {
            self.program_bytes -= source_bytes(&old);
            forget(out, id);
        }
        self.next += 1;
        self.programs.push_back((self.next, Arc::clone(program)));
        message(out, |out| {
            out.byte(DEFINE_PROGRAM);
            out.number(self.next);
            write_program(out, program);
        });
        self.next
    }

    fn tools(&mut self, out: &mut Output, tools: &Arc<ToolNames>) -> u64 {
        define(
            (&mut self.tools, &mut self.next),
            (out, DEFINE_TOOLS),
            tools,
            |out| {
                let names: Vec<&str> = tools.names().collect();
                out.list(names.into_iter(), |out, name| {
                    out.text(name);
                    out.byte(u8::from(tools.style(name) == ServiceStyle::Fluent));
                });
            },
        )
    }

    fn limits(&mut self, out: &mut Output, limits: &Arc<Limits>) -> u64 {
        define(
            (&mut self.limits, &mut self.next),
            (out, DEFINE_LIMITS),
            limits,
            |out| {
                // Numbers with names, so that a limit that is added cannot be forgotten here.
                let text = serde_json::to_string(&**limits).unwrap_or_default();
                out.text(&text);
            },
        )
    }
}

/// The number of a set, written when the child does not know it yet.
fn define<T: PartialEq>(
    (known, next): (&mut VecDeque<(u64, Arc<T>)>, &mut u64),
    (out, tag): (&mut Output, u8),
    set: &Arc<T>,
    write: impl FnOnce(&mut Output),
) -> u64 {
    if let Some((id, _)) = known
        .iter()
        .find(|(_, other)| Arc::ptr_eq(other, set) || **other == **set)
    {
        return *id;
    }
    if known.len() >= SETS
        && let Some((id, _)) = known.pop_front()
    {
        forget(out, id);
    }
    *next += 1;
    known.push_back((*next, Arc::clone(set)));
    message(out, |out| {
        out.byte(tag);
        out.number(*next);
        write(out);
    });
    *next
}

fn forget(out: &mut Output, id: u64) {
    message(out, |out| {
        out.byte(FORGET);
        out.number(id);
    });
}

fn source_bytes(program: &Program) -> usize {
    std::iter::once(&program.entry)
        .chain(&program.modules)
        .map(|module| module.source.len() + module.path.len())
        .sum()
}

fn write_program(out: &mut Output, program: &Program) {
    let Program {
        name,
        version,
        entry,
        modules,
        bare_function,
    } = program;
    out.text(name.as_str());
    out.text(version.as_str());
    let write_module = |out: &mut Output, module: &Module| {
        let Module {
            path,
            source,
            format,
        } = module;
        out.text(path);
        out.text(source);
        out.byte(u8::from(*format == ModuleFormat::EsModule));
    };
    write_module(out, entry);
    out.list(modules.iter(), write_module);
    out.option(bare_function.as_deref(), Output::text);
}

fn write_start(out: &mut Output, start: &VmStart) {
    let VmStart {
        program: _,
        input,
        seed,
        time,
        tools: _,
        run,
        limits: _,
    } = start;
    out.text(input.text());
    out.0.extend_from_slice(seed);
    out.signed(time.as_millis());
    let RunInfo {
        id,
        task,
        version,
        depth,
        correlation_id,
        labels,
    } = run;
    out.text(id);
    out.text(task);
    out.text(version);
    out.number(u64::from(*depth));
    out.option(correlation_id.as_deref(), Output::text);
    out.list(labels.iter(), |out, (name, value)| {
        out.text(name);
        out.text(value);
    });
}

fn write_history(out: &mut Output, history: &History) {
    out.list(history.recorded(), |out, (kind, record)| {
        out.byte(match kind {
            StackKind::Frame => 0,
            StackKind::Call => 1,
            StackKind::Timer => 2,
            StackKind::Signal => 3,
        });
        write_record(out, record);
    });
    out.list(history.turns().iter(), |out, turn| {
        out.signed(turn.time.as_millis());
        out.list(turn.items.iter(), write_item);
    });
}

/// Reads commands in a child, and keeps what they refer to.
#[derive(Debug, Default)]
pub(crate) struct CommandReader {
    programs: Vec<(u64, Arc<Program>)>,
    tools: Vec<(u64, Arc<ToolNames>)>,
    limits: Vec<(u64, Arc<Limits>)>,
}

fn known<T>(sets: &[(u64, Arc<T>)], id: u64) -> Result<Arc<T>, Garbled> {
    sets.iter()
        .find(|(known, _)| *known == id)
        .map(|(_, set)| Arc::clone(set))
        .ok_or(Garbled("it names what was not defined"))
}

impl CommandReader {
    /// Reads one message. `None`: it was for the reader alone.
    pub(crate) fn read(&mut self, body: &[u8]) -> Result<Option<VmCommand>, Garbled> {
        let input = &mut Input(body);
        let tag = input.byte()?;
        let id = input.number()?;
        let command = match tag {
            DEFINE_PROGRAM => {
                self.programs.push((id, Arc::new(read_program(input)?)));
                None
            }
            DEFINE_TOOLS => {
                let names = input.list(|input| {
                    let name = input.text()?;
                    Ok((name, read_style(input)?))
                })?;
                self.tools.push((id, Arc::new(ToolNames::new(names))));
                None
            }
            DEFINE_LIMITS => {
                let limits = serde_json::from_str(input.str()?)
                    .map_err(|_| Garbled("limits cannot be read"))?;
                self.limits.push((id, Arc::new(limits)));
                None
            }
            FORGET => {
                self.programs.retain(|(known, _)| *known != id);
                self.tools.retain(|(known, _)| *known != id);
                self.limits.retain(|(known, _)| *known != id);
                None
            }
            START => {
                let program = known(&self.programs, input.number()?)?;
                let tools = known(&self.tools, input.number()?)?;
                let limits = known(&self.limits, input.number()?)?;
                let start = read_start(input, program, tools, limits)?;
                let history = input.option(read_history)?.map(Arc::new);
                Some(VmCommand::Start {
                    key: VmKey(id),
                    start: Box::new(start),
                    history,
                })
            }
            DELIVER => Some(VmCommand::Deliver {
                key: VmKey(id),
                deliver: VmDeliver {
                    time: Timestamp::from_millis(input.signed()?),
                    items: input.list(read_item)?,
                },
            }),
            DROP => Some(VmCommand::Drop { key: VmKey(id) }),
            _ => return Err(Garbled("a command of no kind")),
        };
        input.end()?;
        Ok(command)
    }
}

/// The VM of which this message, which is not read yet, asks a turn.
pub(crate) fn turn_of(body: &[u8]) -> Option<VmKey> {
    let input = &mut Input(body);
    let is_turn = input.byte().ok()? == DELIVER;
    let id = input.number().ok()?;
    is_turn.then_some(VmKey(id))
}

fn read_style(input: &mut Input<'_>) -> Result<ServiceStyle, Garbled> {
    match input.byte()? {
        0 => Ok(ServiceStyle::Plain),
        1 => Ok(ServiceStyle::Fluent),
        _ => Err(Garbled("a style of no kind")),
    }
}

fn read_program(input: &mut Input<'_>) -> Result<Program, Garbled> {
    let read_module = |input: &mut Input<'_>| {
        Ok(Module {
            path: input.text()?,
            source: input.text()?,
            format: match input.byte()? {
                0 => ModuleFormat::CommonJs,
                1 => ModuleFormat::EsModule,
                _ => return Err(Garbled("a module of no format")),
            },
        })
    };
    Ok(Program {
        name: TaskName::new(input.str()?),
        version: TaskVersion::new(input.str()?),
        entry: read_module(input)?,
        modules: input.list(read_module)?,
        bare_function: input.option(Input::text)?,
    })
}

fn read_start(
    input: &mut Input<'_>,
    program: Arc<Program>,
    tools: Arc<ToolNames>,
    limits: Arc<Limits>,
) -> Result<VmStart, Garbled> {
    let payload = input.json()?;
    let mut seed = [0; 32];
    seed.copy_from_slice(input.bytes(32)?);
    Ok(VmStart {
        program,
        input: payload,
        seed,
        time: Timestamp::from_millis(input.signed()?),
        tools,
        run: RunInfo {
            id: input.text()?,
            task: input.text()?,
            version: input.text()?,
            depth: input.small()?,
            correlation_id: input.option(Input::text)?,
            labels: input
                .list(|input| Ok((input.text()?, input.text()?)))?
                .into_iter()
                .collect(),
        },
        limits,
    })
}

fn read_history(input: &mut Input<'_>) -> Result<History, Garbled> {
    let recorded = input.list(|input| {
        let kind = match input.byte()? {
            0 => StackKind::Frame,
            1 => StackKind::Call,
            2 => StackKind::Timer,
            3 => StackKind::Signal,
            _ => return Err(Garbled("a child of no kind")),
        };
        Ok((kind, read_record(input)?))
    })?;
    let turns = input.list(|input| {
        Ok(RecordedTurn {
            time: Timestamp::from_millis(input.signed()?),
            items: input.list(read_item)?,
        })
    })?;
    Ok(History::from_recorded(recorded, turns))
}

fn write_item(out: &mut Output, (seq, outcome): &(CallSeq, Outcome)) {
    out.number(u64::from(seq.0));
    match outcome {
        Outcome::Completed(None) => out.byte(0),
        Outcome::Completed(Some(json)) => {
            out.byte(1);
            out.text(json.text());
        }
        Outcome::Failed(failure) => {
            out.byte(2);
            write_failure(out, failure);
        }
    }
}

fn read_item(input: &mut Input<'_>) -> Result<(CallSeq, Outcome), Garbled> {
    let seq = CallSeq(input.small()?);
    let outcome = match input.byte()? {
        0 => Outcome::Completed(None),
        1 => Outcome::Completed(Some(input.json()?)),
        2 => Outcome::Failed(read_failure(input)?),
        _ => return Err(Garbled("an outcome of no kind")),
    };
    Ok((seq, outcome))
}
