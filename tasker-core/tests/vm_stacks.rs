//! Which of a task's lines the error of a failed call shows: the same in the first call and in any later one, live and replayed, on
//! both walls.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod vm_support;

use std::sync::Arc;

use tasker_core::adaptor::{Failure, Outcome};
use tasker_core::service::ServiceStyle;
use tasker_core::vm::{ToolNames, TurnEnd, VmStart};
use tasker_core::{Engine, MemoryStorage, RunError, ServiceError, Wall, service_fn};
use vm_support::*;

/// A task in which calls fail, and the stack with which it fails.
const FAILING: [(&str, &str); 13] = [
    (
        "module.exports = async (i, { tools }) => {\n  await tools.db.find();\n};",
        "<anonymous> (task.js:2:18)",
    ),
    // Made on one line, awaited on another.
    (
        "module.exports = async (i, { tools }) => {\n  const late = tools.db.find();\n  await late;\n};",
        "<anonymous> (task.js:3:9)",
    ),
    (
        "module.exports = async function execute(i, { tools }) {\n  const call = (n) => tools.db.find(n);\n  await Promise.all([1, 2].map(call));\n};",
        "execute (task.js:3:32)",
    ),
    (
        "module.exports = async function execute(i, { tools }) {\n  await helper();\n  function helper() {\n    return tools.db.find();\n  }\n};",
        "execute (task.js:2:9)",
    ),
    (
        "module.exports = async function execute(i, { tools }) {\n  await helper();\n  async function helper() {\n    await tools.db.find();\n  }\n};",
        "helper (task.js:4:20)",
    ),
    // Awaited by nobody in the task: the function that is the task.
    (
        "\nmodule.exports = async function execute(i, { tools }) {\n  return tools.db.find();\n};",
        "execute (task.js:2:18)",
    ),
    (
        "export class Job {\n  run(i, { tools }) {\n    return tools.db.find();\n  }\n}\nexport default Job",
        "Job (task.js:5:1)",
    ),
    // A chain is asked when it is awaited.
    (
        "module.exports = async function execute(i, { tools }) {\n  const chain = tools.supabase.from('x').select();\n  await chain;\n};",
        "execute (task.js:3:9)",
    ),
    (
        "module.exports = async function execute(i, { tools }) {\n  await tools.tasks.execute('other');\n};",
        "execute (task.js:2:21)",
    ),
    (
        "module.exports = async function execute() {\n  const answer = await fetch('https://a.b');\n};",
        "execute (task.js:2:24)",
    ),
    (
        "module.exports = async function execute(i, { tools }) {\n  const [one] = await Promise.allSettled([tools.db.find()]);\n  throw one.reason;\n};",
        "execute (task.js:3:9)",
    ),
    (
        "export default async function execute(i, { tools }) {\n  for await (const one of rows()) ;\n  async function* rows() {\n    yield await tools.db.find();\n  }\n}",
        "rows (task.js:4:26)",
    ),
    (
        "const rows =\n  await tools.db.find();\nexport default rows;",
        "<anonymous> (task.js:2:18)",
    ),
];

fn at(line: &str) -> String {
    format!("    at {line}")
}

fn start_with_http(source: &str) -> VmStart {
    let mut start = start_of(program(source), "null");
    start.tools = Arc::new(ToolNames::new([
        ("http".to_owned(), ServiceStyle::Plain),
        ("db".to_owned(), ServiceStyle::Plain),
        ("supabase".to_owned(), ServiceStyle::Fluent),
    ]));
    start
}

/// The frame in which every call has failed.
fn failed(source: &str) -> Frame {
    let mut frame = Frame::of(&start_with_http(source));
    for seq in 1.. {
        if frame.turn.end != TurnEnd::Waiting {
            break;
        }
        frame.fail(seq);
    }
    frame
}

fn stack_of(frame: &Frame) -> &str {
    match &frame.turn.end {
        TurnEnd::Failed(failure) => failure.stack.as_deref().unwrap_or("none"),
        other => panic!("{other:?}"),
    }
}

/// What a task returns in which every call has failed.
fn seen(body: &str) -> TurnEnd {
    let source = format!("module.exports = async function execute(i, {{ tools }}) {{\n{body}\n}};");
    failed(&source).turn.end
}

#[test]
fn a_failed_call_shows_the_line_that_awaits_it() {
    let mut wrong = Vec::new();
    for (source, line) in FAILING {
        let frame = failed(source);
        if stack_of(&frame) != at(line) {
            wrong.push(format!("{source}\n{}", stack_of(&frame)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn the_line_is_the_same_in_any_call_and_in_a_replay() {
    let source = "module.exports = async function execute(i, { tools }) {\n  for (;;)\n    await tools.db.find();\n};";
    let failing_at = |call: u32| {
        let mut frame = Frame::start(source, "null");
        for seq in 1..call {
            frame.answer(seq, "1");
        }
        frame.fail(call);
        stack_of(&frame).to_owned()
    };
    for call in [1, 2, 600, 5_000] {
        assert_eq!(failing_at(call), at("execute (task.js:3:20)"), "{call}");
    }
    // Replayed: all at once.
    let mut frame = Frame::start(source, "null");
    let answered = (1..600).map(|seq| (seq, Outcome::Completed(Some(json("1")))));
    let failing = (600, Outcome::Failed(Failure::new("Error", "no")));
    frame.deliver(answered.chain([failing]).collect());
    assert_eq!(stack_of(&frame), at("execute (task.js:3:20)"));
}

#[tokio::test]
async fn the_line_is_the_same_on_both_walls() {
    let walls = [
        Wall::in_process(),
        Wall::process().program(env!("CARGO_BIN_EXE_tasker-sandbox")),
    ];
    for wall in walls {
        let svc = service_fn("svc", |_| async {
            Err(ServiceError::not_found("no such thing"))
        });
        let engine = Engine::builder()
            .storage(MemoryStorage::new())
            .service(svc)
            .wall(wall)
            .start()
            .await
            .unwrap();
        engine
            .publish("module.exports = async function direct(i, { tools }) {\n  await tools.svc.find();\n};")
            .await
            .unwrap();
        let run = engine.submit("direct", &()).await.unwrap();
        let Err(RunError::Failed(failure)) = run.result::<()>().await else {
            panic!("the run did not fail")
        };
        assert_eq!(failure.stack, Some(at("direct (direct.js:2:19)")));
    }
}

#[test]
fn an_error_that_nothing_has_thrown_shows_who_reads_it() {
    assert_eq!(
        seen("return tools.db.find().catch(\n  (error) => error.stack);"),
        completed(r#""    at <anonymous> (task.js:3:14)""#)
    );
    // The first reader, from then on.
    assert_eq!(
        seen(
            "const [one] = await Promise.allSettled([tools.db.find()]);\nconst first = one.reason.stack;\ntry { throw one.reason; } catch (error) { return error.stack === first && first; }"
        ),
        completed(r#""    at execute (task.js:3:15)""#)
    );
    let mut frame = Frame::start(
        "\nmodule.exports = async function execute(i, { tools }) {\n  tools.db.find();\n  await tools.db.find();\n};",
        "null",
    );
    frame.fail(1);
    assert_eq!(
        frame.turn.logs[0].message,
        "Unhandled promise rejection: ServiceError: no such thing\n    at execute (task.js:2:18)"
    );
}

#[test]
fn the_error_of_a_call_is_an_error_like_others() {
    let caught = |then: &str| {
        seen(&format!(
            "try {{ await tools.db.find(); }} catch (error) {{ {then} }}"
        ))
    };
    assert_eq!(
        caught(
            "return [error instanceof Error, Error.isError(error), Object.prototype.toString.call(error), String(error), error.constructor === Error, Object.keys(error)];"
        ),
        completed(
            r#"[true,true,"[object Error]","ServiceError: no such thing",true,["type","code","status","details"]]"#
        )
    );
    // Its stack is a member like any other once it is read or set.
    assert_eq!(
        caught(
            "error.stack; const own = Object.getOwnPropertyDescriptor(error, 'stack'); return [own.writable, own.enumerable, own.configurable];"
        ),
        completed("[true,false,true]")
    );
    assert_eq!(
        caught("error.stack = 7; return [error.stack, Object.keys(error).includes('stack')];"),
        completed("[7,false]")
    );
    assert_eq!(
        caught(
            "const proto = Object.getPrototypeOf(error), { get } = Object.getOwnPropertyDescriptor(proto, 'stack'); return [proto.stack === undefined, get.call(1) === undefined, get.call({}) === undefined, Object.hasOwn(proto, 'stack')];"
        ),
        completed("[true,true,true,true]")
    );
    assert_eq!(
        caught(
            "return [structuredClone(error).stack === error.stack, Object.isFrozen(Object.freeze(error)), error.stack];"
        ),
        completed(r#"[true,true,"    at execute (task.js:2:22)"]"#)
    );
}

#[test]
fn the_names_of_a_failure_choose_its_class() {
    let mut frame = Frame::start(
        "module.exports = async function execute(i, { tools }) {\n  try { await tools.db.find(); } catch (error) {\n    return [error instanceof TypeError, error.name, error.stack]; }\n};",
        "null",
    );
    let failure = Failure::new("TypeError", "no");
    frame.deliver(vec![(1, Outcome::Failed(failure))]);
    assert_eq!(
        frame.turn.end,
        completed(r#"[true,"TypeError","    at execute (task.js:2:24)"]"#)
    );
}

/// What is known of the stack is read as the language was before the task.
#[test]
fn a_task_that_replaces_the_language_reads_no_more() {
    let hostile = "const mine = () => { throw new Error('mine') };
for (const name of ['stack', 'message', 'name']) Object.defineProperty(Error.prototype, name, { get: mine, configurable: true });
for (const name of ['fileName', 'lineNumber', 'columnNumber']) Object.defineProperty(Function.prototype, name, { get: mine, configurable: true });
Map.prototype.get = Map.prototype.set = Reflect.apply = Reflect.defineProperty = Object.create = Object.defineProperty = mine;
for (const name of ['stack', 'get', 'value', 'message']) Object.prototype[name] = 'mine';
";
    for (act, line) in [
        ("await tools.db.find();", "execute (task.js:7:18)"),
        ("return tools.db.find();", "execute (task.js:6:18)"),
        (
            "Error.stackTraceLimit = 0; await tools.db.find();",
            "execute (task.js:6:18)",
        ),
    ] {
        let frame = failed(&format!(
            "{hostile}module.exports = async function execute(i, {{ tools }}) {{\n  {act}\n}};"
        ));
        assert_eq!(stack_of(&frame), at(line), "{act}");
    }
}
