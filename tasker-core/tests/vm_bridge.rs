//! What a task does to its own globals confuses the task alone.

mod vm_support;

use tasker_core::vm::TurnEnd;
use vm_support::{Frame, completed, program, run, start_of};

/// A call whose arguments and answer hold a nested value, after the task has done its worst.
const CALL: &str = "module.exports = async (i, { tools }) => { const r = await tools.db.find({ a: [1, { b: 'x' }] }); return [r.list[1].v, Object.keys(r)]; };";

#[test]
fn replaced_globals_change_neither_calls_nor_answers() {
    for tampering in [
        "",
        "JSON.stringify = () => '\"forged\"'; JSON.parse = () => ({ forged: 1 });",
        "Promise = class extends Promise {}; Promise.resolve = () => { throw 1 };",
        "Promise.prototype.then = function () { return 'forged' };",
        "Array.prototype[Symbol.iterator] = function* () { yield 'forged' };",
        "Array.prototype.push = Array.prototype.map = Array.prototype.join = () => { throw 1 };",
        "Object.defineProperty(Array.prototype, '0', { set(v) { console.log('seen', v) }, get() { return 'forged' }, configurable: true });",
        "Object.defineProperty(Object.prototype, 'list', { set(v) { console.log('stolen', v) }, get() { return 'forged' }, configurable: true });",
        "Object.defineProperty(Object.prototype, 'a', { set(v) { console.log('stolen', v) }, configurable: true });",
        "for (const k of ['value', 'get', 'set', 'enumerable', 'writable', 'configurable']) Object.defineProperty(Object.prototype, k, { __proto__: null, get() { return () => 'forged' }, configurable: true });",
        "Object.defineProperty = Object.create = Object.keys = Object.setPrototypeOf = () => { throw 1 };",
        "Reflect.apply = Reflect.construct = Reflect.defineProperty = () => { throw 1 };",
        "Function.prototype.call = Function.prototype.apply = Function.prototype.bind = () => 'forged';",
        "String.prototype.slice = String.prototype.indexOf = RegExp.prototype.exec = () => 'forged';",
        "Map.prototype.get = Map.prototype.set = Set.prototype.has = () => { throw 1 };",
        "Error = TypeError = Proxy = Map = Set = Symbol = undefined;",
        "Symbol.prototype.toString = Number.prototype.toString = () => 'forged';",
        "globalThis.tools = { db: 'forged' }; delete globalThis.__callHostTool__;",
        "Object.prototype.constructor = function () { return 'forged' };",
        "Object.freeze(Object.prototype); Object.freeze(Array.prototype); Object.freeze(globalThis);",
    ] {
        let mut frame = Frame::start(&format!("{tampering}\n{CALL}"), "null");
        assert_eq!(
            frame.calls(),
            [r#"db.find [{"a":[1,{"b":"x"}]}]"#],
            "{tampering} {:?}",
            frame.turn
        );
        frame.answer(1, r#"{"list":[0,{"v":7}]}"#);
        assert!(
            frame.turn.logs.is_empty(),
            "{tampering}: {:?}",
            frame.turn.logs
        );
        assert_eq!(
            frame.turn.end,
            completed(r#"[7,["list"]]"#).or_forged_keys(tampering),
            "{tampering}"
        );
    }
}

trait OrForged {
    fn or_forged_keys(self, tampering: &str) -> TurnEnd;
}

impl OrForged for TurnEnd {
    /// Where the task broke the `Object.keys` that it then uses, it gets what it asked for.
    fn or_forged_keys(self, tampering: &str) -> TurnEnd {
        if tampering.starts_with("Object.defineProperty = Object.create") {
            TurnEnd::Failed(tasker_core::Failure::new("Error", "the task threw 1"))
        } else {
            self
        }
    }
}

#[test]
fn nothing_of_the_bridge_is_within_reach() {
    let turn = run(
        "module.exports = async (i, context) => { const seen = new Set(); const found = []; const walk = (o, path) => { if ((typeof o !== 'object' && typeof o !== 'function') || o === null || seen.has(o) || path.length > 8) return; seen.add(o); for (const k of Reflect.ownKeys(o)) { const d = Reflect.getOwnPropertyDescriptor(o, k); if (/host_|bridge|kernel/i.test(String(k))) found.push(path.concat(String(k)).join('.')); for (const v of [d.value, d.get, d.set]) walk(v, path.concat(String(k))); } walk(Reflect.getPrototypeOf(o), path.concat('proto')); }; walk(globalThis, []); walk(context, ['context']); return [found, seen.size > 500]; };",
        "null",
    );
    assert_eq!(turn.end, completed("[[],true]"), "{turn:?}");
    let turn = run(
        "module.exports = async () => { const out = []; for (const text of ['typeof host_call', 'typeof bridge', 'typeof timers', 'typeof hide']) out.push(eval(text), new Function('return ' + text)()); return [...new Set(out)]; };",
        "null",
    );
    assert_eq!(turn.end, completed(r#"["undefined"]"#));
    let turn = run(
        "module.exports = () => { let caller; function f() { try { caller = f.caller } catch (e) { caller = e.name } } f(); return [typeof caller, Object.keys(globalThis)]; };",
        "null",
    );
    assert!(matches!(turn.end, TurnEnd::Completed(_)), "{turn:?}");
}

#[test]
fn code_that_runs_while_arguments_are_read_cannot_confuse_the_numbers() {
    let mut frame = Frame::start(
        "module.exports = async (i, { tools }) => { const a = tools.db.outer({ get x() { tools.db.inner(1); return 5 } }); const b = tools.db.after(); return [await a, await b]; };",
        "null",
    );
    assert_eq!(
        frame.calls(),
        ["db.inner [1]", r#"db.outer [{"x":5}]"#, "db.after []"]
    );
    frame.answer(2, "\"outer\"");
    frame.answer(3, "\"after\"");
    assert_eq!(frame.turn.end, completed(r#"["outer","after"]"#));
    let turn = run(
        "module.exports = async (i, { tools }) => { try { await tools.db.x({ toJSON() { throw new RangeError('mine') } }) } catch (e) { return e.message } };",
        "null",
    );
    assert_eq!(turn.end, completed(r#""mine""#));
    assert!(turn.made.is_empty());
}

#[test]
fn frames_do_not_see_each_other() {
    let first = run(
        "globalThis.secret = 1; Object.prototype.leak = 2; module.exports = () => 1;",
        "null",
    );
    assert_eq!(first.end, completed("1"));
    assert_eq!(
        run(
            "module.exports = () => [typeof secret, typeof {}.leak];",
            "null"
        )
        .end,
        completed(r#"["undefined","undefined"]"#)
    );
}

#[test]
fn the_same_start_and_deliveries_give_the_same_turns() {
    let source = "module.exports = async (i, { tools }) => { const out = []; for (const n of [1, 2, 3]) out.push(await tools.db.get(n, Math.random(), crypto.randomUUID(), Date.now())); console.log(out); return out; };";
    let history = || {
        let mut frame = Frame::start(source, "null");
        let mut turns = vec![frame.turn.clone()];
        for seq in 1..=3 {
            turns.push(frame.answer(seq, "{\"v\":1}").clone());
        }
        turns
    };
    assert_eq!(history(), history());
}

#[test]
fn code_of_text_can_be_switched_off() {
    let tries = "module.exports = async () => {
        const ends = [];
        for (const attempt of [
            () => eval('1'),
            () => (0, eval)('1'),
            () => globalThis['ev' + 'al']('1'),
            () => new Function('return 1')(),
            () => (() => {}).constructor('return 1')(),
            () => (async () => {}).constructor('return 1')(),
            () => Object.getPrototypeOf(function* () {}).constructor('yield 1')(),
            () => (async function* () {}).constructor('yield 1')(),
            () => Object.getPrototypeOf((async () => {}).constructor)('return 1')(),
            () => Reflect.construct(Object.getPrototypeOf(class {}).constructor, ['return 1'])(),
            () => new (class extends Function {})('return 1')(),
            () => console.log.constructor('return 1')(),
            () => Object.getOwnPropertyDescriptor(Function.prototype, 'constructor').value('return 1')(),
        ]) {
            try { ends.push(typeof (await attempt())) } catch (e) { ends.push(e.message.includes('Limits::eval') ? 'refused' : e.message) }
        }
        return ends.filter((end) => end === 'number' || end === 'object');
    };";
    let mut start = start_of(program(tries), "null");
    let TurnEnd::Completed(Some(made)) = Frame::of(&start).turn.end else {
        panic!("allowed unless switched off")
    };
    assert_eq!(made.to::<Vec<String>>().unwrap().len(), 13);
    start.limits = std::sync::Arc::new(tasker_core::limits::Limits {
        eval: false,
        ..tasker_core::limits::Limits::default()
    });
    assert_eq!(Frame::of(&start).turn.end, completed("[]"));
    // The rest of the language does not need it.
    let mut start = start_of(
        program(
            "module.exports = async () => { class A { async *g() { yield* [1, 2] } } const all = []; for await (const n of new A().g()) all.push(n); return all }",
        ),
        "null",
    );
    start.limits = std::sync::Arc::new(tasker_core::limits::Limits {
        eval: false,
        ..tasker_core::limits::Limits::default()
    });
    assert_eq!(Frame::of(&start).turn.end, completed("[1,2]"));
}

#[test]
fn recorded_stacks_show_the_files_of_the_task_only() {
    for body in [
        "throw new Error('x')",
        "[1].map(() => { throw new Error('x') })",
        "JSON.parse('{')",
        "setTimeout('no function')",
        "new URL('::')",
        "await tools.db.find(Symbol('x'))",
        "__callHostTool__('db', 7)",
        "structuredClone(() => 1)",
        "atob('*')",
        "eval('(() => { throw new Error(1) })()')",
        "new Function('throw new Error(1)')()",
        "Error.prepareStackTrace = (e, sites) => sites.join('|'); throw new Error('x')",
        "Error.stackTraceLimit = 1e9; const f = (n) => { if (n) f(n - 1); else throw new Error('x') }; f(100)",
        "const e = new Error('x'); e.stack = 'at host (/etc/passwd:1:1)\\n    at start (<tasker>:1:1)'; throw e",
        "tools.then",
        "await new Promise((go) => setTimeout(go)); null.x",
    ] {
        let mut frame = Frame::start(
            &format!("module.exports = async (i, {{ tools }}) => {{ {body} }};"),
            "null",
        );
        if frame.turn.end == TurnEnd::Waiting {
            frame.settle(1);
        }
        let TurnEnd::Failed(failure) = &frame.turn.end else {
            assert_eq!(body, "tools.then", "{:?}", frame.turn);
            continue;
        };
        let stack = failure.stack.clone().unwrap_or_default();
        for word in ["<tasker>", "native", "host_"] {
            assert!(!stack.contains(word), "{body}: {stack}");
        }
    }
}

/// Behind each object of tools stands a proxy, which a task can take hold of.
#[test]
fn the_proxies_of_tools_give_nothing_but_tools() {
    let turn = run(
        "module.exports = async (i, context) => {
            const { tools } = context, says = (act) => { try { return String(act()); } catch (e) { return e.constructor.name; } };
            const behind = [tools, context, tools.db, tools.db.find].map(Object.getPrototypeOf);
            const called = behind.map((p) => [says(() => p('a.b')), says(() => new p('a.b')), says(() => Reflect.apply(p, tools, ['a.b'])), says(() => p.then), says(() => Function.prototype.toString.call(p).includes('[native code]'))]);
            const given = [1, 'text', null, undefined, Symbol(), Object.freeze({}), new Proxy({}, { defineProperty() { throw new RangeError('mine'); } })].map((receiver) => says(() => typeof Reflect.get(tools.db, 'other', receiver)));
            return [called, given];
        };",
        "null",
    );
    let called = r#"["TypeError","TypeError","TypeError","undefined","true"]"#;
    let given =
        r#"["TypeError","TypeError","TypeError","TypeError","TypeError","function","RangeError"]"#;
    assert_eq!(
        turn.end,
        completed(&format!("[[{called},{called},{called},{called}],{given}]")),
        "{turn:?}"
    );
}

#[test]
fn tools_list_services_and_keep_what_a_task_does_to_them() {
    let turn = run(
        "'use strict'; module.exports = async (i, context) => {
            const { tools } = context, own = Object.getOwnPropertyNames, says = (act) => { try { return String(act()); } catch (e) { return e.constructor.name; } };
            const same = [tools.db === tools.db, tools.db.find === tools.db.find, context.tools === tools, globalThis.tools === tools, tools.tasks === context.tasks, 'db' in tools, 'none' in tools, 'none' in tools.db];
            tools.gapi = 'mine'; tools.own = 'too'; tools.db.find = 'mine';
            const frozen = Object.freeze(tools.supabase);
            return [Object.keys(tools), Object.keys(context), own(tools).includes('log'), own(context).filter((name) => !own(tools).includes(name)), same, tools.gapi, tools.own, tools.db.find, typeof frozen.from, says(() => { frozen.x = 1; })];
        };",
        "null",
    );
    assert_eq!(
        turn.end,
        completed(
            r#"[["db","gapi","supabase","own"],["db","gapi","supabase"],true,["tools","signal","task","run","withPolicy"],[true,true,true,true,false,true,false,false],"mine","too","mine","function","TypeError"]"#
        ),
        "{turn:?}"
    );
}
