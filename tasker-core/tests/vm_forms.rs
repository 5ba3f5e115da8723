//! How a task may be written, what it may reach, and how its value leaves.

mod vm_support;

use std::sync::Arc;

use tasker_core::adaptor::LogLevel;
use tasker_core::limits::Limits;
use tasker_core::task::Program;
use tasker_core::vm::{RunInfo, TurnEnd, check_program};
use vm_support::{Frame, completed, module, program, run, start_of};

fn failure(end: &TurnEnd) -> &tasker_core::Failure {
    match end {
        TurnEnd::Failed(failure) => failure,
        other => panic!("expected a failure, got {other:?}"),
    }
}

#[test]
fn every_form_of_a_task_runs() {
    let input = r#"{"a":2}"#;
    let mut wrong = Vec::new();
    for (source, expected) in [
        (
            "module.exports = async function execute(input, context) { return [input.a, typeof context.tools.db] };",
            r#"[2,"object"]"#,
        ),
        (
            "module.exports = async function execute(input, { tools }) { return typeof tools.db.find };",
            r#""function""#,
        ),
        (
            "module.exports = async function ({ a, b = 3 }) { return a + b };",
            "5",
        ),
        (
            "module.exports = async function () { return [typeof tools, typeof tools.db.x.y, Object.keys(tools)] };",
            r#"["object","function",["db","gapi","supabase"]]"#,
        ),
        (
            "async function named(input) { return input.a } module.exports = named;",
            "2",
        ),
        (
            "function named(input) { return input.a }\nglobalThis.taskResult = 1; module.exports = named;",
            "2",
        ),
        ("module.exports = (input) => input.a;", "2"),
        (
            "module.exports = { a: 1, list: [1] };",
            r#"{"a":1,"list":[1]}"#,
        ),
        ("module.exports = 'text';", r#""text""#),
        ("module.exports = Promise.resolve(7);", "7"),
        (
            "export default async function name(input) { return input.a }",
            "2",
        ),
        ("export default (input) => input.a;", "2"),
        (
            "export default class { async execute(input) { return input.a } }",
            "2",
        ),
        ("export default { value: 1 };", r#"{"value":1}"#),
        (
            "export async function runTask(input, tools) { return [input.a, typeof tools.db.find, typeof tools.tools.db] }",
            r#"[2,"function","object"]"#,
        ),
        (
            "export async function my_task(input) { return input.a }\nexport const config = { name: 'x' };",
            "2",
        ),
        (
            "export async function anything(input) { return input.a }",
            "2",
        ),
        ("exports.default = async (input) => input.a;", "2"),
        ("exports.run = async (input) => input.a;", "2"),
        ("exports.something = async (input) => input.a;", "2"),
        (
            "module.exports = { execute: async (input) => input.a, name: 'x' };",
            "2",
        ),
        (
            "module.exports = class { run(input) { return input.a } };",
            "2",
        ),
        (
            "module.exports = async function () { return this === undefined || this === globalThis };",
            "true",
        ),
        (
            "module.exports = async (i, c) => [typeof module, typeof exports, typeof require, __filename, __dirname, typeof globalThis.module];",
            r#"["object","object","function","task.js",".","undefined"]"#,
        ),
        (
            "export default () => [typeof module, typeof require]",
            r#"["undefined","undefined"]"#,
        ),
        ("#!/usr/bin/env node\nmodule.exports = () => 1 // end", "1"),
        (
            "const x = await Promise.resolve(4);\nexport default () => x;",
            "4",
        ),
    ] {
        let turn = run(source, input);
        if turn.end != completed(expected) {
            wrong.push(format!(
                "{source}\n  expected {expected}\n  got {:?}",
                turn.end
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_bare_function_runs() {
    let bare = Program {
        bare_function: Some("greet".into()),
        ..program("async function greet(input) { return 'hi ' + input }")
    };
    assert_eq!(
        Frame::of(&start_of(bare, "\"you\"")).turn.end,
        completed(r#""hi you""#)
    );
}

#[test]
fn a_text_without_a_function_says_so() {
    for source in ["const x = 1;", "export const config = 1;"] {
        let turn = run(source, "null");
        assert!(
            failure(&turn.end)
                .message
                .contains("has no function to run"),
            "{turn:?}"
        );
    }
}

#[test]
fn undefined_is_no_value() {
    assert_eq!(
        run("module.exports = () => {};", "null").end,
        TurnEnd::Completed(None)
    );
}

#[test]
fn files_of_a_task_load_each_other() {
    let with = |source: &str, modules: &[(&str, &str)]| {
        let mut program = program(source);
        program.modules = modules
            .iter()
            .map(|(path, text)| module(path, text))
            .collect();
        Frame::of(&start_of(program, "null")).turn
    };
    let turn = with(
        "const { twice } = require('./lib/math'); const again = require('./lib/math.js'); module.exports = () => [twice(4), again.twice === twice, require('./data.json').x];",
        &[
            (
                "lib/math.js",
                "const { base } = require('../base'); exports.twice = (n) => n * base;",
            ),
            ("base.js", "module.exports = { base: 2 };"),
            ("data.json", "{\"x\":1}"),
        ],
    );
    assert_eq!(turn.end, completed("[8,true,1]"));
    let turn = with(
        "import { twice } from './lib/math.js';\nimport common, { base } from './base';\nexport default async () => [twice(4), base, common.base, (await import('./lib/math.js')).twice(1), import.meta.url];",
        &[
            (
                "lib/math.js",
                "import { base } from '../base.js';\nexport const twice = (n) => n * base;",
            ),
            ("base.js", "module.exports = { base: 2 };"),
        ],
    );
    assert_eq!(
        turn.end,
        completed("[8,2,2,2,null]").into_without_null(),
        "{turn:?}"
    );
    // Cycles.
    let turn = with(
        "exports.a = 1; const b = require('./b'); module.exports = () => [b.seen, b.late()];",
        &[(
            "b.js",
            "const a = require('./task'); exports.seen = a.a; exports.late = () => typeof a;",
        )],
    );
    assert_eq!(turn.end, completed(r#"[1,"object"]"#));
    let turn = with(
        "import { b } from './b.js';\nexport const a = 1;\nexport default () => b();",
        &[(
            "b.js",
            "import { a } from './task.js';\nexport const b = () => a + 1;",
        )],
    );
    assert_eq!(turn.end, completed("2"));
    let turn = with(
        "module.exports = async () => (await import('./m.js')).default;",
        &[("m.js", "export default 5;")],
    );
    assert_eq!(turn.end, completed("5"));
    for (source, message) in [
        (
            "module.exports = require('fs');",
            "cannot find module 'fs' from task.js: a task may load only its own files",
        ),
        (
            "module.exports = require('./nope');",
            "it was not published with the task; the task has task.js, a.js",
        ),
        (
            "import x from '../../etc/passwd';\nexport default x;",
            "the path leaves the task's folder",
        ),
        ("import 'os';\nexport default 1;", "cannot find module 'os'"),
        (
            "module.exports = async () => import('/etc/passwd');",
            "cannot find module '/etc/passwd'",
        ),
        (
            "module.exports = require('./m.js');",
            "load it with import(",
        ),
    ] {
        let turn = with(source, &[("a.js", ""), ("m.js", "export default 1;")]);
        assert!(
            failure(&turn.end).message.contains(message),
            "{source}: {:?}",
            turn.end
        );
    }
}

trait WithoutNull {
    fn into_without_null(self) -> Self;
}

impl WithoutNull for TurnEnd {
    /// `import.meta.url` is `undefined`, which an array shows as null.
    fn into_without_null(self) -> Self {
        self
    }
}

#[test]
fn syntax_errors_are_found_before_running() {
    let limits = Limits::default();
    assert_eq!(
        check_program(&program("module.exports = () => 1;"), &limits),
        Ok(())
    );
    assert_eq!(
        check_program(&program("import './later.js';\nexport default 1;"), &limits),
        Ok(())
    );
    let failure = check_program(
        &program("module.exports = () => {\n  let x = ;\n};"),
        &limits,
    )
    .unwrap_err();
    assert_eq!(failure.name, "SyntaxError");
    assert!(
        failure.stack.as_deref().unwrap().contains("task.js:2:"),
        "{failure:?}"
    );
    let mut two = program("export default 1;");
    two.modules = vec![module("lib/x.js", "\n\nlet 1;")];
    let failure = check_program(&two, &limits).unwrap_err();
    assert!(
        failure.stack.as_deref().unwrap().contains("lib/x.js:3:"),
        "{failure:?}"
    );
}

#[test]
fn values_leave_as_json_says() {
    let mut wrong = Vec::new();
    for (value, expected) in [
        (
            "{ a: undefined, b: () => 1, c: Symbol(), d: 1 }",
            r#"{"d":1}"#,
        ),
        ("[undefined, () => 1, Symbol()]", "[null,null,null]"),
        (
            "[NaN, Infinity, -0, 1e21, 1e-7, 0.1, 123456789012345680000, 1e15, -5, 2**53, 1.5e300]",
            "[null,null,0,1e+21,1e-7,0.1,123456789012345680000,1000000000000000,-5,9007199254740992,1.5e+300]",
        ),
        ("new Date(5)", r#""1970-01-01T00:00:00.005Z""#),
        (
            "'\\ud800a\\udc00\\ud83d\\ude00\\u0000\\u001f\\n\\t\\b\\f\\r\"\\\\/\\u2028é'",
            "\"\\ud800a\\udc00😀\\u0000\\u001f\\n\\t\\b\\f\\r\\\"\\\\/\u{2028}é\"",
        ),
        (
            "{ '\\udfff': 1, 'a\\nb': 2, 2: 'x', 1: 'y' }",
            r#"{"1":"y","2":"x","\udfff":1,"a\nb":2}"#,
        ),
        (
            "[new Number(3), new String('s'), new Boolean(false)]",
            r#"[3,"s",false]"#,
        ),
        ("{ toJSON() { return { x: 1 } } }", r#"{"x":1}"#),
        (
            "{ a: { toJSON(k) { return 'key ' + k } }, b: [{ toJSON(k) { return k } }] }",
            r#"{"a":"key a","b":["0"]}"#,
        ),
        ("new Map([[1, 2]])", "{}"),
        ("new Proxy([1, 2], {})", "[1,2]"),
        (
            "new Proxy({ a: 1 }, { ownKeys: () => ['a', 'b'], getOwnPropertyDescriptor: (t, k) => ({ value: k, enumerable: true, configurable: true }), get: (t, k) => k === 'toJSON' ? undefined : k })",
            r#"{"a":"a","b":"b"}"#,
        ),
        (
            "Object.defineProperty({ get g() { return 4 } }, 'h', { value: 1, enumerable: false })",
            r#"{"g":4}"#,
        ),
        (
            "(() => { const s = { z: 1 }; return [s, s] })()",
            r#"[{"z":1},{"z":1}]"#,
        ),
        ("new Uint8Array(2)", r#"{"0":0,"1":0}"#),
        (
            "Object.create({ inherited: 1 }, { own: { value: 2, enumerable: true } })",
            r#"{"own":2}"#,
        ),
        ("[, 1]", "[null,1]"),
        ("{ __proto__: null, a: 1 }", r#"{"a":1}"#),
        ("JSON.parse('{\"__proto__\":1}')", r#"{"__proto__":1}"#),
    ] {
        let turn = run(&format!("module.exports = () => ({value});"), "null");
        if turn.end != completed(expected) {
            wrong.push(format!(
                "{value}\n  expected {expected}\n  got      {:?}",
                turn.end
            ));
        }
        // The engine's own JSON agrees.
        let turn = run(
            &format!("module.exports = () => JSON.stringify({value});"),
            "null",
        );
        let TurnEnd::Completed(Some(text)) = &turn.end else {
            panic!("{turn:?}")
        };
        let text: String = match text.to() {
            Ok(text) => text,
            Err(_) => continue,
        };
        if text != expected {
            wrong.push(format!(
                "{value}\n  JSON.stringify says {text}\n  the test says       {expected}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_json_cannot_hold_is_named() {
    for (value, message) in [
        (
            "{ items: [0, 1, 2, { id: 5n }] }",
            "result.items[3].id is a BigInt",
        ),
        ("{ 'a b': 5n }", "result[\"a b\"] is a BigInt"),
        ("5n", "result is a BigInt"),
        (
            "(() => { const a = { b: {} }; a.b.c = a; return a })()",
            "result.b.c refers to a value that contains it",
        ),
        ("() => 1", "result is a function"),
        ("Symbol('x')", "result is a symbol"),
    ] {
        let turn = run(&format!("module.exports = () => ({value});"), "null");
        let failure = failure(&turn.end);
        assert!(failure.message.starts_with(message), "{value}: {failure:?}");
        assert_eq!(failure.name, "TypeError");
    }
    let turn = run(
        "module.exports = async (i, { tools }) => { const seen = []; for (const v of [5n, () => 1, Symbol(), { a: [1n] }]) { try { await tools.db.find('x', v) } catch (e) { seen.push(e.name + ': ' + e.message) } } return seen };",
        "null",
    );
    assert_eq!(
        turn.end,
        completed(
            r#"["TypeError: argument 2 is a BigInt: JSON has no such number; give it as text, with String(value)","TypeError: argument 2 is a function: a call takes values that JSON can hold","TypeError: argument 2 is a symbol: a call takes values that JSON can hold","TypeError: argument 2.a[0] is a BigInt: JSON has no such number; give it as text, with String(value)"]"#
        ),
        "{turn:?}"
    );
    assert!(turn.made.is_empty());
}

#[test]
fn answers_enter_as_they_are() {
    for text in [
        r#"{"b":1,"a":[1.0,1e400,-0]}"#,
        r#""\ud800\u0000\udc00""#,
        r#"{"__proto__":{"x":1},"then":1}"#,
        "null",
        r#"{"a":1,"a":2}"#,
    ] {
        let mut frame = Frame::start(
            "module.exports = async (i, { tools }) => { const v = await tools.db.find(); await tools.db.put(v); return v };",
            "null",
        );
        frame.answer(1, text);
        let expected = match text {
            r#"{"b":1,"a":[1.0,1e400,-0]}"# => r#"{"b":1,"a":[1,null,0]}"#,
            r#"{"a":1,"a":2}"# => r#"{"a":2}"#,
            same => same,
        };
        assert_eq!(frame.calls(), [format!("db.put [{expected}]")]);
        frame.settle(2);
        assert_eq!(frame.turn.end, completed(expected));
    }
}

#[test]
fn the_context_carries_what_tasks_use() {
    let mut start = start_of(
        program(
            "module.exports = async (input, context) => { const { tools, db, log, sleep, run, signal, task } = context; log('warn', 'careful', { a: 1 }); tools.log('plain'); tools.log('error', { x: 1 }, undefined); return [run, db === tools.db || typeof db.find, typeof sleep, typeof signal, typeof task.execute, typeof context.gapi.a.b.c] };",
        ),
        "null",
    );
    start.run = RunInfo {
        id: "r1".into(),
        task: "t".into(),
        version: "v".into(),
        depth: 2,
        correlation_id: Some("c".into()),
        labels: [("k".to_owned(), "v".to_owned())].into(),
    };
    let turn = Frame::of(&start).turn;
    assert_eq!(
        turn.end,
        completed(
            r#"[{"id":"r1","task":"t","version":"v","depth":2,"correlationId":"c","labels":{"k":"v"}},"function","function","function","function","function"]"#
        ),
        "{turn:?}"
    );
    let lines: Vec<_> = turn
        .logs
        .iter()
        .map(|l| {
            (
                l.level,
                l.message.as_str(),
                l.data.as_ref().map(ToString::to_string),
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            (LogLevel::Warn, "careful", Some(r#"{"a":1}"#.to_owned())),
            (LogLevel::Info, "plain", None),
            (LogLevel::Error, r#"{"x":1}"#, None),
        ]
    );
}

#[test]
fn one_cache_serves_many_frames() {
    use tasker_core::vm::{BytecodeCache, VmPool};
    let cache = Arc::new(BytecodeCache::new());
    let mut pool = VmPool::new(cache, 2);
    assert!(pool.refill() && pool.refill() && !pool.refill());
    for _ in 0..4 {
        let (vm, turn) = pool.start(&start_of(
            program("module.exports = (i) => i.n + 1;"),
            r#"{"n":1}"#,
        ));
        assert_eq!(turn.end, completed("2"));
        assert!(vm.memory_bytes() > 10_000);
    }
    assert!(pool.refill());
}

#[test]
fn calls_with_a_policy_have_the_forms_of_those_without() {
    const POLICY: &str = r#"{"timeoutMs":5,"retry":{"attempts":2}}"#;
    let source = "Object.defineProperty(Array.prototype, '0', { set() { throw 1 }, get() { return 'forged' }, configurable: true });
        Function.prototype.call = Function.prototype.apply = () => 'forged';
        module.exports = async (i, context) => {
            const own = context.withPolicy({ timeoutMs: 5, retry: { attempts: 2, types: undefined } });
            own.db.find(1, { a: 2 });
            own.wrappedgapi.gmail.users.list();
            own.supabase.from('t').select('*').then();
            own.supabase.rpc('x').then();
            own.sleep(4);
            own.log('info', 'line');
            own.tasks.execute('child', 1);
            context.db.find(6);
            return [typeof own.withPolicy, typeof context.tools.withPolicy, Object.keys(own)];
        };";
    let frame = Frame::start(source, "null");
    assert_eq!(
        frame.calls(),
        [
            format!(r#"db.find [1,{{"a":2}}] {POLICY}"#),
            format!("gapi.gmail.users.list [] {POLICY}"),
            format!(r#"supabase.from().select() [["t"],["*"]] {POLICY}"#),
            format!(r#"supabase.rpc ["x"] {POLICY}"#),
            "sleep 4".to_owned(),
            "task child 1".to_owned(),
            "db.find [6]".to_owned(),
        ]
    );
    assert_eq!(
        frame.turn.end,
        completed(r#"["object","object",["db","gapi","supabase"]]"#)
    );
}
