//! The sandbox from outside: tasks in, turns out.

mod vm_support;

use tasker_core::vm::TurnEnd;
use vm_support::{Frame, run};

#[test]
fn a_task_that_returns_completes() {
    let turn = run(
        "module.exports = async function execute(input) { return { sum: input.a + 1 }; }",
        r#"{"a":2}"#,
    );
    assert_eq!(turn.end, vm_support::completed(r#"{"sum":3}"#), "{turn:?}");
}

#[test]
fn a_call_suspends_and_its_answer_resumes() {
    let mut frame = Frame::start(
        "module.exports = async (input, { tools }) => { const a = await tools.db.users.find({ id: 1 }, 'x'); try { await context_less(); } catch (e) { return [a, e.name]; } }",
        "null",
    );
    assert_eq!(frame.turn.end, TurnEnd::Waiting, "{:?}", frame.turn);
    assert_eq!(frame.calls(), ["db.users.find [{\"id\":1},\"x\"]"]);
    frame.answer(1, r#"{"name":"Ada"}"#);
    assert_eq!(
        frame.turn.end,
        vm_support::completed(r#"[{"name":"Ada"},"ReferenceError"]"#),
        "{:?}",
        frame.turn
    );
}

#[test]
fn an_uncaught_error_fails_with_its_line() {
    let turn = run(
        "\nmodule.exports = async function execute(input) {\n  throw new TypeError('bad');\n}",
        "null",
    );
    let TurnEnd::Failed(failure) = &turn.end else {
        panic!("{turn:?}")
    };
    assert_eq!(
        (failure.name.as_str(), failure.message.as_str()),
        ("TypeError", "bad")
    );
    assert_eq!(
        failure.stack.as_deref(),
        Some("    at execute (task.js:3:13)")
    );
}

#[test]
fn a_failed_service_is_an_error_that_can_be_caught() {
    let mut frame = Frame::start(
        "module.exports = async (input, { tools }) => { try { await tools.db.find(); } catch (e) { return [e instanceof Error, e.name, e.type, e.status, e.message]; } }",
        "null",
    );
    frame.fail(1);
    assert_eq!(
        frame.turn.end,
        vm_support::completed(r#"[true,"ServiceError","NOT_FOUND_ERROR",404,"no such thing"]"#),
        "{:?}",
        frame.turn
    );
}

#[test]
fn an_endless_loop_ends() {
    let turn = run(
        "module.exports = async () => { for (;;) new Promise(() => { for (;;); }); }",
        "null",
    );
    let TurnEnd::Failed(failure) = &turn.end else {
        panic!("{turn:?}")
    };
    assert_eq!(failure.code.as_deref(), Some("cpu"));
}

#[test]
fn too_much_memory_ends() {
    let turn = run(
        "module.exports = async () => { const a = []; for (;;) { try { a.push(new Array(1000).fill(7)); } catch {} } }",
        "null",
    );
    let TurnEnd::Failed(failure) = &turn.end else {
        panic!("{turn:?}")
    };
    assert_eq!(failure.code.as_deref(), Some("memory"));
}
