//! The sandbox from outside: tasks in, turns out.

mod vm_support;

use tasker_core::vm::TurnEnd;
use vm_support::{Frame, completed, run};

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

fn failed(turn: &tasker_core::vm::Turn) -> &tasker_core::Failure {
    match &turn.end {
        TurnEnd::Failed(failure) => failure,
        other => panic!("expected a failure, got {other:?} {:?}", turn.logs),
    }
}

fn messages(frame: &Frame) -> Vec<&str> {
    frame
        .turn
        .logs
        .iter()
        .map(|line| line.message.as_str())
        .collect()
}

#[test]
fn settled_calls_are_delivered_one_by_one() {
    let source = "module.exports = async (i, { tools }) => { const order = []; const chain = async (n) => { await tools.db.a(n); order.push(n); await tools.db.b(n); order.push(n + 10); }; await Promise.all([chain(1), chain(2)]); return order; };";
    let mut frame = Frame::start(source, "null");
    assert_eq!(frame.calls(), ["db.a [1]", "db.a [2]"]);
    let none = || tasker_core::Outcome::Completed(None);
    frame.deliver(vec![(2, none()), (1, none())]);
    assert_eq!(
        frame.calls(),
        ["db.b [2]", "db.b [1]"],
        "calls are numbered in the order of delivery"
    );
    frame.deliver(vec![(4, none()), (3, none())]);
    assert_eq!(frame.turn.end, completed("[2,1,11,12]"));
}

#[test]
fn races_and_settlements_of_all_kinds() {
    for (expression, order, expected) in [
        ("Promise.race([a, b])", vec![2], "\"v2\""),
        ("Promise.any([a, b])", vec![2], "\"v2\""),
        (
            "Promise.allSettled([a, b]).then((l) => l.map((x) => x.status))",
            vec![1, 2],
            r#"["fulfilled","fulfilled"]"#,
        ),
        ("Promise.all([a, b])", vec![2, 1], r#"["v1","v2"]"#),
        (
            "(async () => { const out = []; for await (const v of [a, b]) out.push(v); return out })()",
            vec![2, 1],
            r#"["v1","v2"]"#,
        ),
    ] {
        let mut frame = Frame::start(
            &format!(
                "module.exports = async (i, {{ tools }}) => {{ const a = tools.db.a(), b = tools.db.b(); return await {expression}; }};"
            ),
            "null",
        );
        for seq in order {
            frame.answer(seq, &format!("\"v{seq}\""));
        }
        assert_eq!(frame.turn.end, completed(expected), "{expression}");
    }
}

#[test]
fn timers_are_children_that_call_back() {
    let mut frame = Frame::start(
        "module.exports = () => new Promise((resolve) => { const seen = []; setTimeout((a, b) => seen.push(a + b + Date.now()), 10.2, 'x', 'y'); const gone = setTimeout(() => seen.push('never'), 5); clearTimeout(gone); let n = 0; const every = setInterval(() => { seen.push('i' + ++n); if (n === 2) { clearInterval(every); resolve(seen); } }, -3); });",
        "null",
    );
    assert_eq!(
        frame.calls(),
        ["setTimeout 11", "setTimeout 5", "setInterval 1"]
    );
    assert_eq!(
        frame
            .turn
            .dropped
            .iter()
            .map(|seq| seq.0)
            .collect::<Vec<_>>(),
        [2]
    );
    frame.settle(3);
    assert_eq!(frame.calls(), ["setInterval 1"]);
    frame.settle(1);
    assert!(frame.calls().is_empty());
    frame.settle(2);
    assert_eq!(
        frame.turn.end,
        TurnEnd::Waiting,
        "a cleared timer calls nobody"
    );
    frame.settle(4);
    assert_eq!(
        frame.turn.end,
        completed(r#"["i1","xy1700000002000","i2"]"#)
    );
}

#[test]
fn sleep_signal_and_nested_tasks_are_children() {
    let mut frame = Frame::start(
        "module.exports = async (i, context) => { await context.sleep(1000); await context.tools.sleep('5'); const s = await context.signal('go'); const t = await context.tools.tasks.execute('child', { a: 1 }); const u = await context.task.execute('child'); const v = await __callHostTool__('tasks', 'execute', ['third', 2]); return [s, t, u, v]; };",
        "null",
    );
    let mut seen = frame.calls();
    for seq in 1..=6 {
        frame.answer(seq, &format!("{seq}"));
        seen.extend(frame.calls());
    }
    assert_eq!(
        seen,
        [
            "sleep 1000",
            "sleep 5",
            "signal go",
            r#"task child {"a":1}"#,
            "task child null",
            "task third 2"
        ]
    );
    assert_eq!(frame.turn.end, completed("[3,4,5,6]"));
}

#[test]
fn a_host_call_by_name_is_the_same_call() {
    let frame = Frame::start(
        "module.exports = async () => { __callHostTool__('gmail', 'users.messages.list', { userId: 'me' }); __callHostTool__('wrappedgapi', ['admin', 'list'], [1, 2]); __callHostTool__('database', 'x'); tools.database.from('t'); tools.wrappeddb.q(); for (const bad of ['', 'a..b', 'a.(', 'x\\n']) try { __callHostTool__('db', bad, []); } catch (e) { console.log(e.name); } await tools.db.z(undefined, 1, undefined); };",
        "null",
    );
    assert_eq!(
        frame.calls(),
        [
            r#"gmail.users.messages.list [{"userId":"me"}]"#,
            "gapi.admin.list [1,2]",
            "supabase.x []",
            "db.q []",
            "db.z [null,1,null]"
        ]
    );
    assert_eq!(messages(&frame), ["TypeError"; 4]);
}

#[test]
fn a_fluent_chain_fires_once_when_awaited() {
    let mut frame = Frame::start(
        "module.exports = async (i, { tools }) => { const q = tools.supabase.from('t').select('*').eq('id', 1); const again = q; tools.supabase.from('unused').select(); const [a, b] = await Promise.all([q, again]); const c = await tools.database.rpc('f', { x: 1 }); const d = await tools.supabase.auth.admin.listUsers(); const e = await q; return [a, b, c, d, e]; };",
        "null",
    );
    assert_eq!(
        frame.calls(),
        [r#"supabase.from().select().eq() [["t"],["*"],["id",1]]"#]
    );
    frame.answer(1, "1");
    assert_eq!(frame.calls(), [r#"supabase.rpc ["f",{"x":1}]"#]);
    frame.answer(2, "2");
    assert_eq!(frame.calls(), ["supabase.auth.admin.listUsers []"]);
    frame.answer(3, "3");
    assert_eq!(frame.turn.end, completed("[1,1,2,3,1]"));

    let mut frame = Frame::start(
        "module.exports = (i, { tools }) => tools.supabase.from('t').select('*').single();",
        "null",
    );
    assert_eq!(
        frame.calls(),
        [r#"supabase.from().select().single() [["t"],["*"],[]]"#],
        "a returned chain is awaited"
    );
    frame.fail(1);
    assert_eq!(failed(&frame.turn).kind.as_deref(), Some("NOT_FOUND_ERROR"));
}

#[test]
fn tools_are_made_of_names_only() {
    let turn = run(
        "module.exports = async (i, { tools }) => { const t = tools.db; return [typeof t.then, typeof t.find.then, typeof tools.then, typeof t.toJSON, typeof t.constructor, typeof t[Symbol.iterator], typeof t.find.call, typeof t.call, typeof t.x.bind, t.find === t.find, `${Object.prototype.toString.call(t)}`, JSON.stringify(t), t instanceof Object, t.find instanceof Function, typeof t.find.name, typeof t.find.length, 'find' in t, await tools.db === tools.db, (() => { try { t['a.b'] } catch (e) { return e.name } })(), (() => { try { tools.db() } catch (e) { return e.name } })()]; };",
        "null",
    );
    assert_eq!(
        turn.end,
        completed(
            r#"["undefined","undefined","undefined","undefined","undefined","undefined","function","function","function",true,"[object Object]","{}",true,true,"function","function",true,true,"TypeError","TypeError"]"#
        ),
        "{turn:?}"
    );
    assert!(turn.made.is_empty());
    let frame = Frame::start(
        "module.exports = async (i, { tools }) => { tools.db.find.call(null, 1); tools.db.find.apply(null, [2]); tools.db.find.bind(null, 3)(4); const { find } = tools.db; find(5); await tools.db.call(6); };",
        "null",
    );
    assert_eq!(
        frame.calls(),
        [
            "db.find [1]",
            "db.find [2]",
            "db.find [3,4]",
            "db.find [5]",
            "db.call [6]"
        ]
    );
}

#[test]
fn what_can_never_settle_fails_at_once() {
    let turn = run("module.exports = () => new Promise(() => {});", "null");
    assert_eq!(failed(&turn).name, "NeverSettlesError");
    let turn = run(
        "Object.prototype.then = function () {}; module.exports = async () => ({ a: 1 });",
        "null",
    );
    assert_eq!(failed(&turn).name, "NeverSettlesError");
    let mut frame = Frame::start(
        "module.exports = async () => { setTimeout(() => {}, 5); await new Promise(() => {}); };",
        "null",
    );
    assert_eq!(frame.turn.end, TurnEnd::Waiting);
    frame.settle(1);
    assert_eq!(failed(&frame.turn).name, "NeverSettlesError");
}

#[test]
fn after_the_end_calls_are_refused() {
    let frame = Frame::start(
        "module.exports = async (i, { tools }) => { tools.db.detached(); (async () => { for (let n = 0; n < 20; n++) await 0; tools.db.late(); })(); return 1; };",
        "null",
    );
    assert_eq!(frame.turn.end, completed("1"));
    assert_eq!(frame.calls(), ["db.detached []"]);
    assert!(
        frame.turn.logs[0]
            .message
            .starts_with("InvalidStateError: the call of db.late was refused"),
        "{:?}",
        frame.turn.logs
    );
    let turn = run(
        "module.exports = async (i, { tools }) => ({ get a() { tools.db.sneaky(); return 1 } });",
        "null",
    );
    assert_eq!(failed(&turn).name, "InvalidStateError");
    assert!(turn.made.is_empty());
}

#[test]
fn rejections_that_nobody_handles_are_logged() {
    let mut frame = Frame::start(
        "module.exports = async (i, { tools }) => { tools.db.one(); Promise.reject(new RangeError('loose')); const late = Promise.reject(1); late.catch(() => {}); queueMicrotask(() => { throw new Error('micro') }); setTimeout(() => { throw new Error('timer') }, 1); await tools.db.two(); };",
        "null",
    );
    assert_eq!(
        messages(&frame),
        [
            "Uncaught Error: micro\n    at <anonymous> (task.js:1:188)",
            "Unhandled promise rejection: RangeError: loose\n    at <anonymous> (task.js:1:79)"
        ]
    );
    frame.fail(1);
    assert!(
        messages(&frame)[0].starts_with("Unhandled promise rejection: ServiceError: no such thing"),
        "{:?}",
        frame.turn
    );
    frame.settle(2);
    assert!(messages(&frame)[0].starts_with("Uncaught Error: timer"));
    frame.settle(3);
    assert_eq!(frame.turn.end, TurnEnd::Completed(None));
}

#[test]
fn whatever_is_thrown_becomes_a_failure() {
    for (thrown, name, message) in [
        ("'text'", "Error", "text"),
        ("null", "Error", "the task threw null"),
        ("undefined", "Error", "the task threw undefined"),
        ("5", "Error", "the task threw 5"),
        ("Symbol('s')", "Error", "the task threw Symbol(s)"),
        ("{ a: 1 }", "Error", r#"the task threw {"a":1}"#),
        ("{ name: 'Mine', message: 'm' }", "Mine", "m"),
        (
            "new (class Mine extends Error { constructor() { super('x'); this.name = 'Mine' } })()",
            "Mine",
            "x",
        ),
        (
            "(() => { const p = Proxy.revocable({}, {}); p.revoke(); return p.proxy })()",
            "Error",
            "the task threw [unreadable]",
        ),
        (
            "Object.defineProperty(new Error('x'), 'message', { get() { throw 1 } })",
            "Error",
            "",
        ),
        ("new DOMException('m', 'AbortError')", "AbortError", "m"),
        (
            "new AggregateError([new Error('a')], 'many')",
            "AggregateError",
            "many",
        ),
    ] {
        let turn = run(
            &format!("module.exports = async () => {{ throw {thrown}; }};"),
            "null",
        );
        let failure = failed(&turn);
        assert_eq!(
            (failure.name.as_str(), failure.message.as_str()),
            (name, message),
            "{thrown}"
        );
    }
    let turn = run(
        "module.exports = async () => { const e = new Error('top', { cause: new TypeError('under', { cause: 'root' }) }); e.code = 'E1'; e.status = 418; e.details = { a: [1] }; e.type = 'T'; e.retryAfterMs = 7; throw e };",
        "null",
    );
    let failure = failed(&turn);
    assert_eq!(
        (
            failure.code.as_deref(),
            failure.status,
            failure.kind.as_deref(),
            failure.retry_after_ms
        ),
        (Some("E1"), Some(418), Some("T"), Some(7))
    );
    assert_eq!(failure.details.as_ref().unwrap().text(), r#"{"a":[1]}"#);
    let cause = failure.cause.as_ref().unwrap();
    assert_eq!(
        (
            cause.name.as_str(),
            cause.cause.as_ref().unwrap().message.as_str()
        ),
        ("TypeError", "root")
    );
    let turn = run(
        "module.exports = () => { const e = new Error('loop'); e.cause = e; throw e };",
        "null",
    );
    let mut depth = 0;
    let mut next = Some(failed(&turn));
    while let Some(failure) = next {
        depth += 1;
        next = failure.cause.as_deref();
    }
    assert_eq!(depth, 8);
}

#[test]
fn stacks_show_the_tasks_own_lines_only() {
    let source = "// one\nfunction inner() {\n  null.x;\n}\nmodule.exports = async function execute() {\n  [1].forEach(() => inner());\n};";
    let turn = run(source, "null");
    assert_eq!(
        failed(&turn).stack.as_deref(),
        Some(
            "    at inner (task.js:3:3)\n    at <anonymous> (task.js:6:21)\n    at execute (task.js:6:7)"
        )
    );
    let turn = run(
        "export default async function () {\n  await 0;\n  throw new Error('x');\n}",
        "null",
    );
    assert!(
        failed(&turn)
            .stack
            .as_deref()
            .unwrap()
            .contains("(task.js:3:"),
        "{turn:?}"
    );
    let turn = run(
        "module.exports = () => { Error.prepareStackTrace = (e, s) => { for (;;); }; Error.stackTraceLimit = Infinity; throw new Error('x') };",
        "null",
    );
    assert_eq!(failed(&turn).message, "x");
    let turn = run(
        "module.exports = () => {\n  return JSON.parse('{');\n};",
        "null",
    );
    assert_eq!(failed(&turn).name, "SyntaxError");
    assert!(
        failed(&turn)
            .stack
            .as_deref()
            .unwrap()
            .contains("task.js:2:"),
        "{turn:?}"
    );
    let turn = run("module.exports = () => {\n  let x = ;\n};", "null");
    assert!(
        failed(&turn)
            .stack
            .as_deref()
            .unwrap()
            .contains("task.js:2:"),
        "{turn:?}"
    );
}

#[test]
fn an_uncaught_service_failure_keeps_all_that_it_said() {
    let mut frame = Frame::start(
        "module.exports = async (i, { tools }) => {\n  await tools.db.find();\n};",
        "null",
    );
    frame.fail(1);
    let failure = failed(&frame.turn);
    assert_eq!(
        (
            failure.name.as_str(),
            failure.kind.as_deref(),
            failure.code.as_deref(),
            failure.status
        ),
        (
            "ServiceError",
            Some("NOT_FOUND_ERROR"),
            Some("gone"),
            Some(404)
        )
    );
    assert_eq!(failure.details.as_ref().unwrap().text(), r#"{"id":7}"#);
    assert_eq!(
        failure.stack.as_deref(),
        Some("    at <anonymous> (task.js:2:18)"),
        "the line that called"
    );
}
