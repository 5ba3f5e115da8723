//! Frames driven by hand.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a kit of tests: each file uses a part, and a failure is a panic"
)]

use std::sync::Arc;

use tasker_core::adaptor::{CallSeq, Failure, Json, Outcome, TaskName, TaskVersion, Timestamp};
use tasker_core::limits::Limits;
use tasker_core::service::ServiceStyle;
use tasker_core::task::{Module, ModuleFormat, Program};
use tasker_core::vm::{
    BytecodeCache, Made, RunInfo, ToolNames, Turn, TurnEnd, Vm, VmDeliver, VmPool, VmStart,
};

pub const TIME: i64 = 1_700_000_000_000;

pub fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

pub fn completed(text: &str) -> TurnEnd {
    TurnEnd::Completed(Some(json(text)))
}

pub fn format_of(source: &str) -> ModuleFormat {
    let module = source.lines().any(|line| {
        let line = line.trim_start();
        line.starts_with("export ") || line.starts_with("import ")
    });
    if module {
        ModuleFormat::EsModule
    } else {
        ModuleFormat::CommonJs
    }
}

pub fn module(path: &str, source: &str) -> Module {
    Module {
        path: path.into(),
        source: source.into(),
        format: format_of(source),
    }
}

pub fn program(source: &str) -> Program {
    Program {
        name: TaskName::new("my-task"),
        version: TaskVersion::new("v1"),
        entry: module("task.js", source),
        modules: Vec::new(),
        bare_function: None,
    }
}

pub fn start_of(program: Program, input: &str) -> VmStart {
    VmStart {
        program: Arc::new(program),
        input: json(input),
        seed: [7; 32],
        time: Timestamp::from_millis(TIME),
        tools: Arc::new(ToolNames::new([
            ("supabase".to_owned(), ServiceStyle::Fluent),
            ("db".to_owned(), ServiceStyle::Plain),
            ("gapi".to_owned(), ServiceStyle::Plain),
        ])),
        run: RunInfo {
            id: "run-1".into(),
            task: "my-task".into(),
            ..RunInfo::default()
        },
        limits: Arc::new(Limits {
            turn_ticks: 2_000,
            ..Limits::default()
        }),
    }
}

pub struct Frame {
    pub vm: Vm,
    pub turn: Turn,
    pub time: i64,
}

impl Frame {
    pub fn of(start: &VmStart) -> Self {
        let cache = Arc::new(BytecodeCache::new());
        let (vm, turn) = VmPool::new(cache, 0).start(start);
        Self {
            vm,
            turn,
            time: TIME,
        }
    }

    pub fn start(source: &str, input: &str) -> Self {
        Self::of(&start_of(program(source), input))
    }

    pub fn deliver(&mut self, items: Vec<(u32, Outcome)>) -> &Turn {
        self.time += 1_000;
        self.turn = self.vm.deliver(&VmDeliver {
            time: Timestamp::from_millis(self.time),
            items: items
                .into_iter()
                .map(|(seq, outcome)| (CallSeq(seq), outcome))
                .collect(),
        });
        &self.turn
    }

    pub fn answer(&mut self, seq: u32, text: &str) -> &Turn {
        self.deliver(vec![(seq, Outcome::Completed(Some(json(text))))])
    }

    pub fn settle(&mut self, seq: u32) -> &Turn {
        self.deliver(vec![(seq, Outcome::Completed(None))])
    }

    pub fn fail(&mut self, seq: u32) -> &Turn {
        let failure = Failure {
            kind: Some("NOT_FOUND_ERROR".into()),
            code: Some("gone".into()),
            status: Some(404),
            details: Some(json(r#"{"id":7}"#)),
            ..Failure::new("ServiceError", "no such thing")
        };
        self.deliver(vec![(seq, Outcome::Failed(failure))])
    }

    /// Children made in the last turn, as `service.path args`.
    pub fn calls(&self) -> Vec<String> {
        self.turn.made.iter().map(shown).collect()
    }
}

pub fn shown(made: &Made) -> String {
    match made {
        Made::Call {
            service,
            path,
            args,
            policy,
        } => match policy {
            Some(policy) => format!("{service}.{path} {args} {policy}"),
            None => format!("{service}.{path} {args}"),
        },
        Made::Task { name, input } => format!("task {name} {input}"),
        Made::Timer { path, delay_ms } => format!("{path} {delay_ms}"),
        Made::Signal { name } => format!("signal {name}"),
    }
}

pub fn run(source: &str, input: &str) -> Turn {
    Frame::start(source, input).turn
}
