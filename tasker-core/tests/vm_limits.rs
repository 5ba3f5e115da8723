//! What a frame may not pass, and that nothing of the task talks it out of it.

mod vm_support;

use std::sync::Arc;

use tasker_core::Failure;
use tasker_core::limits::Limits;
use tasker_core::vm::{Turn, TurnEnd};
use vm_support::{Frame, completed, program, run, start_of};

fn limits() -> Limits {
    Limits {
        memory_bytes: 32 << 20,
        turn_ticks: 200,
        ..Limits::default()
    }
}

fn run_with(source: &str, limits: Limits) -> Turn {
    let mut start = start_of(program(source), "null");
    start.limits = Arc::new(limits);
    Frame::of(&start).turn
}

fn failed(turn: &Turn) -> &Failure {
    match &turn.end {
        TurnEnd::Failed(failure) => failure,
        other => panic!("expected a failure, got {other:?} {:?}", turn.logs),
    }
}

/// Bodies of a task function, each with the limit that has to end it.
fn check(expected: &str, bodies: &[&str]) {
    for body in bodies {
        let turn = run_with(
            &format!("module.exports = async function execute(input, {{ tools }}) {{ {body} }};"),
            Limits {
                turn_ticks: if expected == "memory" { 20_000 } else { 200 },
                ..limits()
            },
        );
        let failure = failed(&turn);
        assert_eq!(
            (failure.name.as_str(), failure.code.as_deref()),
            ("LimitExceeded", Some(expected)),
            "{body}: {failure:?}"
        );
        // The thread's next frame is not disturbed.
        assert_eq!(run("module.exports = () => 1;", "null").end, completed("1"));
    }
}

#[test]
fn loops_that_swallow_the_interrupt_end() {
    check(
        "cpu",
        &[
            "for (;;);",
            "for (;;) { try { for (;;); } catch {} finally { continue; } }",
            "for (;;) new Promise(() => { for (;;); });",
            "for (;;) Promise.try(() => { for (;;); });",
            "for (;;) Promise.resolve({ get then() { for (;;); } });",
            "for (;;) { const { promise, resolve } = Promise.withResolvers(); resolve({ get then() { for (;;); } }); }",
            "for (;;) { const g = (async function* () { for (;;); })(); g.next(); }",
            "for (;;) (async () => { for (;;); })();",
            "for (;;) { try { import({ toString() { for (;;); } }); } catch {} }",
            "const loop = () => { Promise.resolve().then(loop); }; loop(); await new Promise(() => {});",
            "for (;;) await 0;",
            "await new Promise((r) => { const f = () => queueMicrotask(f); f(); });",
            "for (;;) { class X { static [Symbol.hasInstance]() { for (;;); } } try { 1 instanceof X; } catch {} }",
            "/(a+)+$/.test('a'.repeat(40) + 'b');",
            "for (;;) { try { Array.from({ length: 1e9, get 0() { for (;;); } }); } catch {} }",
            "return { get a() { for (;;); } };",
            "return { toJSON() { for (;;); } };",
            "throw { get message() { for (;;); } };",
            "throw new Proxy({}, { get() { for (;;); } });",
            "console.log({ get a() { for (;;); } }); await 0; return 1;",
            "tools.db.call({ toJSON() { for (;;); } }).catch(() => {}); return 1;",
            "[3, 1, 2].sort(() => { for (;;); });",
            "new Proxy({}, { ownKeys() { for (;;); } }), Object.keys(new Proxy({}, { ownKeys() { for (;;); } }));",
            "eval('for (;;);');",
            "new Function('for (;;);')();",
            "setTimeout(() => {}, 1); (async () => { for (;;) { try { await new Promise((r) => { for (;;); }); } catch {} } })(); return 1;",
        ],
    );
}

#[test]
fn memory_that_is_refused_ends_the_frame() {
    check(
        "memory",
        &[
            "const a = []; for (;;) a.push({ x: [1, 2, 3] });",
            "const a = []; for (;;) { try { a.push('x'.repeat(1e6) + a.length); } catch {} }",
            "try { 'x'.repeat(2 ** 29).split(''); } catch {} return 1;",
            "try { new ArrayBuffer(1 << 30); } catch {} return 1;",
            "try { new Uint8Array(1 << 30); } catch (e) {} for (;;);",
            "let s = 'x'; for (;;) { s += s; s.indexOf('y'); }",
            "const m = new Map(); for (let i = 0; ; i++) m.set(i, { i });",
            "for (;;) await Promise.all(new Array(1e6).fill(0).map(() => ({ a: 1 })));",
            "let f = () => {}; for (;;) f = f.bind(null, 1);",
            "let p = {}; for (;;) p = new Proxy(p, {});",
            "const a = []; try { for (;;) a.push(new Promise(() => {})); } catch (e) { return 'caught'; }",
            "function* g() { const a = []; for (;;) { a.push(a.slice()); yield 1; } } for (const x of g());",
            "JSON.parse('[' + '1,'.repeat(5e6) + '1]');",
            "await Promise.allSettled(Array.from({ length: 1e7 }, () => Promise.reject(1)));",
            "const deep = []; let at = deep; for (;;) { const next = [[]]; at.push(next); at = next; }",
            "structuredClone(Array.from({ length: 3e6 }, (_, i) => ({ i })));",
            "for (;;) tools.db.call('x'.repeat(1e6));",
        ],
    );
}

/// A frame that keeps so many objects of some 300 bytes, makes so many more that only a collection finds, and then a text of so many bytes.
fn frame_with_garbage(kept: u32, garbage: u32, memory_bytes: usize, text: usize) -> Frame {
    let source = format!(
        "module.exports = async (input, {{ tools }}) => {{
            const kept = Array.from({{ length: {kept} }}, (_, n) => ({{ n, list: [n] }}));
            for (let n = 0; n < {garbage}; n++) {{ const o = {{ n, list: [n] }}; o.self = o; }}
            const text = 'x'.repeat({text});
            await tools.svc.look(kept.length, text.length);
        }};"
    );
    let mut start = start_of(program(&source), "null");
    start.limits = Arc::new(Limits {
        memory_bytes,
        turn_ticks: 20_000,
        ..Limits::default()
    });
    Frame::of(&start)
}

#[test]
fn a_large_heap_is_looked_through_less_often_and_always_before_it_meets_its_limit() {
    const LARGE: usize = 1 << 30;
    let clean = |kept| frame_with_garbage(kept, 0, LARGE, 0).vm.memory_bytes();
    let live = clean(10_000);
    assert!(live > 1 << 20, "{live}");
    // QuickJS would look whenever there is half as much garbage as is kept.
    let later = frame_with_garbage(10_000, 16_000, LARGE, 0)
        .vm
        .memory_bytes();
    assert!(later > live * 2, "{later} of {live}");
    let much = frame_with_garbage(10_000, 400_000, LARGE, 0);
    let bytes = much.vm.memory_bytes();
    assert!(bytes < live * 7 / 2, "{bytes} of {live}");
    // Garbage is not what it fails of, however much of its limit it keeps (up to where QuickJS itself would not look in time), nor
    // when it makes one value of two thirds of its limit.
    let limit = live * 3;
    for kept in (1_000..19_000).step_by(1_000) {
        let frame = frame_with_garbage(kept, 200_000, limit, 0);
        let end = &frame.turn.end;
        assert!(matches!(end, TurnEnd::Waiting), "{kept} kept: {end:?}");
    }
    for garbage in (0..40_000).step_by(1_000) {
        let frame = frame_with_garbage(4_000, garbage, limit, limit * 13 / 20);
        let end = &frame.turn.end;
        assert!(
            matches!(end, TurnEnd::Waiting),
            "{garbage} thrown away: {end:?}"
        );
    }
}

#[test]
fn an_out_of_memory_anywhere_neither_aborts_nor_is_missed() {
    // The limit falls at another place each time; with it the place of the refused allocation.
    let source = "class A { #p = 1; get p() { return this.#p } } function* g() { yield* [1, 2] } module.exports = async (i, { tools }) => { const a = []; for (let n = 0; n < 40; n++) { a.push(new Map([[n, { n, s: 'x'.repeat(n) }]]), [...g()], new A().p, JSON.parse(JSON.stringify({ n })), /a(b)/.exec('ab'), new Error('e').stack, await (async () => n)(), new Promise(() => {}), new Proxy({}, {}), new Date(n).toString(), structuredClone({ n }), BigInt(n) ** 50n, Symbol(n), new Uint8Array(n), new URL('https://a.b/' + n).href); tools.db.call({ n }); } await Promise.allSettled(a.concat(Promise.reject(1))); return a.length; };";
    let full = {
        let frame = Frame::start(source, "null");
        frame.vm.memory_bytes()
    };
    let mut ended = 0;
    for limit in (full / 2..full + 20_000).step_by(997) {
        let mut start = start_of(program(source), "null");
        start.limits = Arc::new(Limits {
            memory_bytes: limit,
            ..limits()
        });
        let frame = Frame::of(&start);
        if let TurnEnd::Failed(failure) = &frame.turn.end {
            assert_eq!(
                failure.code.as_deref(),
                Some("memory"),
                "limit {limit}: {failure:?}"
            );
            ended += 1;
        }
    }
    assert!(ended > 10, "{ended}");
}

#[test]
fn deep_recursion_is_the_tasks_own_affair() {
    for body in [
        "const f = () => f() + 1; try { f() } catch (e) { return e.name }",
        "const o = { get a() { return this.a } }; try { o.a } catch (e) { return e.name }",
        "const o = { toString() { return '' + this } }; try { '' + o } catch (e) { return e.name }",
        "const o = { toJSON() { return JSON.stringify(this) } }; try { JSON.stringify(o) } catch (e) { return e.name }",
        "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; try { a.flat(Infinity) } catch (e) { return e.name }",
        "try { JSON.parse('['.repeat(1e5)) } catch (e) { return e.name === 'SyntaxError' ? 'RangeError' : e.name }",
        "try { eval('('.repeat(1e5)) } catch (e) { return e.name === 'SyntaxError' ? 'RangeError' : e.name }",
        "const p = new Proxy({}, { get(t, k, r) { return r[k] } }); try { p.x } catch (e) { return e.name }",
        "let f = async () => f(); try { await f() } catch (e) { return e.name }",
    ] {
        let turn = run(
            &format!("module.exports = async () => {{ {body} }};"),
            "null",
        );
        assert_eq!(turn.end, completed(r#""RangeError""#), "{body}");
    }
    let turn = run(
        "module.exports = () => { const f = () => f() + 1; f() };",
        "null",
    );
    assert_eq!(failed(&turn).name, "RangeError");
}

#[test]
fn calls_are_counted() {
    let turn = run_with(
        "module.exports = async (i, { tools }) => { for (;;) { try { tools.db.x().catch(() => {}); } catch {} } };",
        Limits {
            calls: 10,
            ..limits()
        },
    );
    assert_eq!(failed(&turn).code.as_deref(), Some("calls"));
    assert_eq!(turn.made.len(), 10);
    let turn = run_with(
        "module.exports = async (i, { tools }) => { for (let n = 0; n < 9; n++) { try { setTimeout(() => {}, 1); } catch {} } };",
        Limits {
            open_calls: 5,
            ..limits()
        },
    );
    assert_eq!(failed(&turn).code.as_deref(), Some("open_calls"));
    let mut start = start_of(
        program("module.exports = () => new Promise(() => setInterval(() => {}, 1));"),
        "null",
    );
    start.limits = Arc::new(Limits {
        calls: 3,
        ..limits()
    });
    let mut frame = Frame::of(&start);
    frame.settle(1);
    frame.settle(2);
    assert_eq!(frame.turn.end, TurnEnd::Waiting);
    frame.settle(3);
    assert_eq!(failed(&frame.turn).code.as_deref(), Some("calls"));
}

#[test]
fn payloads_have_a_size_and_a_depth() {
    let small = || Limits {
        payload_bytes: 100,
        json_depth: 5,
        ..limits()
    };
    let turn = run_with(
        "module.exports = async (i, { tools }) => { const seen = []; for (const v of ['x'.repeat(200), [[[[[[1]]]]]]]) { try { await tools.db.put(v) } catch (e) { seen.push([e.name, e.code, e.message.slice(0, 40)]) } } return seen.length === 2 ? seen[0].concat(seen[1]).join('|').slice(0, 95) : 0 };",
        small(),
    );
    assert_eq!(
        turn.end,
        completed(
            r#""LimitExceeded|payload|the arguments of db.put passed a limit: |LimitExceeded|json_depth|the arg""#
        ),
        "{turn:?}"
    );
    let turn = run_with("module.exports = () => 'x'.repeat(200);", small());
    assert_eq!(failed(&turn).code.as_deref(), Some("payload"));
    let turn = run_with("module.exports = () => [[[[[[1]]]]]];", small());
    assert_eq!(failed(&turn).code.as_deref(), Some("json_depth"));
    let mut start = start_of(
        program(
            "module.exports = async (i, { tools }) => { try { await tools.db.get() } catch (e) { return e.code } };",
        ),
        "null",
    );
    start.limits = Arc::new(small());
    for (answer, code) in [
        (format!("\"{}\"", "x".repeat(200)), "payload"),
        ("[[[[[[1]]]]]]".to_owned(), "json_depth"),
    ] {
        let mut frame = Frame::of(&start);
        frame.answer(1, &answer);
        assert_eq!(frame.turn.end, completed(&format!("\"{code}\"")));
    }
}

#[test]
fn log_lines_are_bounded() {
    let turn = run_with(
        "module.exports = () => { for (let n = 0; n < 50; n++) console.log(n); };",
        Limits {
            log_lines: 3,
            ..limits()
        },
    );
    let lines: Vec<_> = turn.logs.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(lines[..3], ["0", "1", "2"]);
    assert!(lines[3].contains("Limits::log_lines"));
    assert_eq!(lines.len(), 4);
    let turn = run_with(
        "module.exports = () => { console.log('é'.repeat(50)); console.log({ a: 'x'.repeat(50) }); };",
        Limits {
            log_line_bytes: 21,
            ..limits()
        },
    );
    assert_eq!(
        turn.logs[0].message,
        format!("{}… [cut: the line has 100 bytes]", "é".repeat(10))
    );
    assert!(turn.logs[1].message.starts_with("{\"a\":\"xxx"));
}

#[test]
fn an_interrupt_from_another_thread_ends_the_frame_for_good() {
    let mut frame = Frame::start(
        "module.exports = async (i, { tools }) => { await tools.db.x(); for (;;) { try { for (;;); } catch {} } };",
        "null",
    );
    frame.vm.stopper().stop();
    frame.settle(1);
    assert_eq!(failed(&frame.turn).code.as_deref(), Some("wall_clock"));
    frame.settle(2);
    assert_eq!(failed(&frame.turn).code.as_deref(), Some("wall_clock"));
}

#[test]
fn each_turn_has_its_own_budget() {
    let body = "for (let n = 0; n < 2e5; n++);";
    let mut start = start_of(
        program(&format!(
            "module.exports = async (i, {{ tools }}) => {{ for (;;) {{ {body} await tools.db.x(); }} }};"
        )),
        "null",
    );
    start.limits = Arc::new(Limits {
        turn_ticks: 100,
        ..limits()
    });
    let mut frame = Frame::of(&start);
    for seq in 1..5 {
        assert_eq!(frame.turn.end, TurnEnd::Waiting);
        frame.settle(seq);
    }
}

/// A loop whose value is the only one of its size takes and gives back an arena of QuickJS each time round: that is no work. What is alone
/// in its arena depends on what was made before, with a period of one arena.
#[test]
fn a_loop_costs_the_same_whatever_else_is_in_its_arena() {
    for before in 0..260 {
        let source = format!(
            "module.exports = async function execute(input, {{ tools }}) {{
                const kept = Array.from({{ length: {before} }}, (_, n) => n + 0.5 + 'th');
                await tools.svc.m(new Proxy([], {{ get: (t, k) => (k === 'length' ? 2 ** 53 - 1 : 1) }}));
                return kept;
            }};"
        );
        let limits = Limits {
            turn_ticks: 100,
            payload_bytes: 30_000,
            ..limits()
        };
        let turn = run_with(&source, limits);
        let code = failed(&turn).code.as_deref();
        assert_eq!(code, Some("payload"), "after {before} values");
    }
}

/// An operation of QuickJS that ended the process where its second allocation was refused: at each place where that may come.
#[test]
fn a_limit_in_the_middle_of_bind_ends_the_frame() {
    for (arguments, step) in [("1, 2", 1_531), ("...Array(2_000)", 61_007)] {
        let source = format!(
            "module.exports = function () {{ const kept = []; for (;;) kept.push((() => 1).bind({arguments})); }};"
        );
        for memory_bytes in (300 << 10..900 << 10).step_by(step) {
            let turn = run_with(
                &source,
                Limits {
                    memory_bytes,
                    turn_ticks: 20_000,
                    ..Limits::default()
                },
            );
            assert_eq!(failed(&turn).code.as_deref(), Some("memory"));
        }
        for turn_ticks in 1..60 {
            let turn = run_with(
                &source,
                Limits {
                    memory_bytes: 512 << 20,
                    turn_ticks,
                    ..Limits::default()
                },
            );
            assert_eq!(failed(&turn).code.as_deref(), Some("cpu"));
        }
    }
}
