//! Fuzz targets: each takes any bytes and panics when something is wrong with what Tasker makes of them.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "programs for the fuzzer: a panic is what it looks for"
)]

use std::sync::Arc;

use tasker_core::adaptor::{CallSeq, Json, Outcome, Timestamp};
use tasker_core::execution::{Execution, ExecutionOptions, ResumeOptions, Step};
use tasker_core::limits::Limits;
use tasker_core::service::ServiceStyle;
use tasker_core::task::{Program, TaskOptions, TaskSource, prepare};
use tasker_core::vm::{ToolNames, check_program};

fn limits() -> Limits {
    Limits {
        memory_bytes: 4 << 20,
        stack_bytes: 128 << 10,
        turn_ticks: 100,
        payload_bytes: 64 << 10,
        json_depth: 50,
        calls: 100,
        open_calls: 50,
        log_lines: 50,
        source_bytes: 64 << 10,
        ..Limits::default()
    }
}

fn program_of(source: &str) -> Option<Arc<Program>> {
    let source = TaskSource::file("fuzz.js", source).named("fuzz");
    let prepared = prepare(source, &TaskOptions::default(), &limits()).ok()?;
    Json::parse(prepared.schema.json().text()).unwrap();
    check_program(&prepared.program, &limits()).ok()?;
    Some(Arc::new(prepared.program))
}

fn options() -> ExecutionOptions {
    let styles = [("svc", ServiceStyle::Plain), ("db", ServiceStyle::Fluent)];
    let tools = styles.map(|(name, style)| (name.to_owned(), style));
    ExecutionOptions {
        tools: Arc::new(ToolNames::new(tools)),
        limits: Arc::new(limits()),
        ..ExecutionOptions::default()
    }
}

/// Task source: published, run and resumed a few times. Whatever it is, it ends, and a replay does what the first run did.
pub fn source(data: &[u8]) {
    let Some(program) = program_of(&String::from_utf8_lossy(data)) else {
        return;
    };
    let mut step = Execution::start(&program, Json::default(), options()).unwrap();
    for turn in 1..=4 {
        let Step::Suspended { calls, state, .. } = step else {
            return;
        };
        let first = calls
            .first()
            .expect("a task that waits waits for something");
        let answer = Outcome::Completed(Some(Json::parse(r#"{"a":[1,"x"]}"#).unwrap()));
        let resume = || {
            let answers = vec![(first.seq, answer.clone())];
            let options = ResumeOptions {
                time: Timestamp::from_millis(turn),
                key: None,
            };
            Execution::resume(&program, &state, answers, &options).unwrap()
        };
        let (one, other) = (resume(), resume());
        assert_eq!(one, other, "the same answers gave two ends");
        step = one;
    }
}

/// A JSDoc comment: its schema is JSON, whatever it says.
pub fn jsdoc(data: &[u8]) {
    let text = String::from_utf8_lossy(data).replace("*/", "* /");
    let source = format!(
        "/**{text}*/\nmodule.exports = async function execute({{ a, b = 1 }}, {{ tools }}) {{ return a; }};"
    );
    let task = TaskSource::file("fuzz.js", source).named("fuzz");
    if let Ok(prepared) = prepare(task, &TaskOptions::default(), &limits()) {
        Json::parse(prepared.schema.json().text()).unwrap();
        Json::parse(prepared.new_task.schema.text()).unwrap();
    }
}

/// A task whose journal is read back: every kind of child.
const RECORDED: &str = "module.exports = async (input, { tools, signal }) => {
    const a = await tools.svc.one({ n: 1 });
    const [b] = await Promise.all([tools.db.from('t').select('*'), tools.sleep(5)]);
    return [a, b, await signal('go'), await tools.tasks.execute('other', a)];
};";

/// A journal as bytes, changed anywhere: it is refused, or the execution goes on; nothing else.
pub fn journal(data: &[u8]) {
    let program = program_of(RECORDED).expect("it is published");
    let answer = || Outcome::Completed(Some(Json::default()));
    for seq in 0..6 {
        // Limits in a state are the host's own; without loops the task cannot use what a changed one allows.
        let answers = vec![(CallSeq(seq), answer())];
        let _ = Execution::resume(&program, data, answers, &ResumeOptions::default());
    }
}

/// A journal to begin with, for the corpus.
pub fn a_journal(turns: u32) -> Vec<u8> {
    let program = program_of(RECORDED).expect("it is published");
    let mut step = Execution::start(&program, Json::default(), options()).unwrap();
    for _ in 0..turns {
        let Step::Suspended { calls, state, .. } = &step else {
            break;
        };
        let answers = vec![(calls[0].seq, Outcome::Completed(Some(Json::default())))];
        step = Execution::resume(&program, state, answers, &ResumeOptions::default()).unwrap();
    }
    match step {
        Step::Suspended { state, .. } => state,
        other => panic!("{other:?}"),
    }
}

/// What a child process says: read, or refused.
pub fn wire(data: &[u8]) {
    tasker_core::wall::read_answers(data);
}
