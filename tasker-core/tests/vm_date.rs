//! `Date` is made when a task first touches it, or is there from the start where the text of the task names it. No way of touching it,
//! and nothing that a task does before, shows the host's clock or zone.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod vm_support;

use std::process::Command;
use std::sync::Arc;

use tasker_core::Limits;
use tasker_core::vm::TurnEnd;
use vm_support::{Frame, completed, program, start_of};

/// What a `Date` of a task says, whatever zone and time the host has.
const LOOK: &str = "
const look = (D) => {
  const d = new D(2020, 5, 1, 10), names = Reflect.ownKeys(D.prototype).filter((name) => typeof name === 'string' && /^(get|to)/.test(name));
  return [D === Date, D.prototype.constructor === D, D.now(), new D().getTime(), D(), D.parse('2020-06-01T10:00') === +d, D.parse('10:00 June 1 2020') === +d,
    D.parse('June 1 2020 10:00 (x)') === +d, names.filter((name) => {
      const utc = name.replace(/^get(?!UTC|Time|Year)/, 'getUTC');
      return utc !== name && name !== 'getTimezoneOffset' && d[name]() !== d[utc]();
    }), d.getTimezoneOffset(), `${d}`, d.toLocaleString(), new D(d.setHours(11)).toISOString(), structuredClone(d).getHours(), new D('2020-06-01 10:00').toJSON()];
};";
const SEEN: &str = r#"[true,true,1700000000000,1700000000000,"Tue Nov 14 2023 22:13:20 GMT+0000 (Coordinated Universal Time)",true,true,true,[],0,"Mon Jun 01 2020 10:00:00 GMT+0000 (Coordinated Universal Time)","6/1/2020, 10:00:00 AM","2020-06-01T11:00:00.000Z",11,"2020-06-01T10:00:00.000Z"]"#;

/// Where the host's zone differs from UTC: this test again, in a process of its own. False in that one.
fn in_another_zone(test: &str) -> bool {
    const MARK: &str = "TASKER_TEST_ZONE";
    if std::env::var_os(MARK).is_some() {
        return false;
    }
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("TZ", "XYZ-5:30")
        .env(MARK, "1")
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    true
}

/// How a task ends whose text does not name `Date`, so that it is made when it is touched.
fn end_of(body: &str, limits: Limits) -> TurnEnd {
    end_as_written(&body.replace("Date", r"D\u0061te"), limits)
}

fn end_as_written(body: &str, limits: Limits) -> TurnEnd {
    let look = LOOK.replace("Date", r"D\u0061te");
    let source = format!("module.exports = async (input, context) => {{ {look}\n{body} }};");
    let mut start = start_of(program(&source), "null");
    start.limits = Arc::new(limits);
    Frame::of(&start).turn.end
}

#[test]
fn no_way_of_touching_it_shows_the_real_one() {
    if in_another_zone("no_way_of_touching_it_shows_the_real_one") {
        return;
    }
    let ways = [
        "return look(Date)",
        "return look(globalThis['Date'])",
        "return look(Reflect.get(globalThis, 'Date', null))",
        "return look(Object.values(Object.getOwnPropertyDescriptors({ ...{ Date } }))[0].value)",
        "const { get } = Object.getOwnPropertyDescriptor(globalThis, 'Date'); return look(get.call({}))",
        "const { get } = Object.getOwnPropertyDescriptor(globalThis, 'Date'); globalThis.Date = 7; if (Date !== 7) throw Date; return look(get())",
        "const { get } = Object.getOwnPropertyDescriptor(globalThis, 'Date'); delete globalThis.Date; if (typeof Date !== 'undefined') throw Date; return look(get())",
        "const { get, set } = Object.getOwnPropertyDescriptor(globalThis, 'Date'); get(); set(7); if (Date !== 7) throw Date; return look(get())",
        "const { get } = Object.getOwnPropertyDescriptor(globalThis, 'Date'); Object.defineProperty(globalThis, 'Date', { value: 7 }); const D = get(); globalThis.Date = D; \
         if (Date === 7) { const of = look(D); of[0] = true; return of } return look(D)",
        "Object.freeze(globalThis); return look(Date)",
        "Object.preventExtensions(globalThis); return look(Date)",
        "(0, eval)('function Date() { throw 1 }'); delete globalThis.Date; globalThis.Date = new URL('http://a').constructor === URL && structuredClone; return [typeof Date, Date.now]",
        "return look(new Date().constructor)",
        "return look(Date.prototype.constructor)",
        "return look(Object.getPrototypeOf(new Date(5)).constructor)",
        "return look(structuredClone(new Date(5)).constructor)",
        "class D extends Date {} return look(Object.getPrototypeOf(D))",
        "class D extends Date {} return look(Object.getPrototypeOf(D.prototype).constructor)",
        "return look(Reflect.construct(Date, [], Object).constructor === Object && Date)",
        "return look(Reflect.construct(Object, [], Date).constructor)",
        "return look(Reflect.construct(Date, [], new Proxy(Date, {})).constructor)",
        // Templates ask String.prototype.concat.
        "const { concat } = String.prototype, { apply } = Reflect; \
         String.prototype.concat = function (...parts) { return parts[1] === 'Z' || parts[1] === ' GMT' ? parts[0] : `${this}` === 'getUTC' ? 'getHours' : apply(concat, this, parts) }; \
         const D = Date; String.prototype.concat = concat; return look(D)",
        "const { concat } = String.prototype; Date; String.prototype.concat = function () { return '2020-06-01T10:00' }; const time = Date.parse('2020-06-01T10:00'); \
         String.prototype.concat = concat; if (time !== Date.UTC(2020, 5, 1, 10)) throw time; return look(Date)",
        "const { concat } = String.prototype; String.prototype.concat = function (...parts) { return parts[0] === '2020-06-01T10:00' ? parts[0] : apply(concat, this, parts) }; \
         const { apply } = Reflect; return look(Date)",
    ];
    let asks_for_getter = |way: &str| way.contains("const { get");
    let late = ways.iter().map(|way| (way, end_of(way, Limits::default())));
    let early = ways.iter().filter(|way| !asks_for_getter(way));
    let early = early.map(|way| (way, end_as_written(way, Limits::default())));
    let wrong = late.chain(early).filter_map(|(way, end)| {
        let expected = if way.contains("throw 1") {
            completed(r#"["function",null]"#)
        } else {
            completed(SEEN)
        };
        (end != expected).then(|| format!("{way}\n  {end:?}"))
    });
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each replaced part of the language notes that it was asked: making `Date` asks none.
#[test]
fn making_it_asks_nothing_that_a_task_can_replace() {
    if in_another_zone("making_it_asks_nothing_that_a_task_can_replace") {
        return;
    }
    let body = "
const { defineProperty, ownKeys, getOwnPropertyDescriptor, setPrototypeOf } = Reflect;
const asked = [], undo = [], push = (name) => { asked[asked.length] = name; };
const { get } = getOwnPropertyDescriptor(globalThis, 'Date');
// Members that any object or function inherits.
const inherited = ['get', 'set', 'value', 'writable', 'enumerable', 'configurable', 'f', 'parse', 'now', 'UTC', 'apply', 'construct', 'name', 'length', 'local', 'lastIndex',
  'index', 'groups', 'indices', 'getHours', 'getUTCHours', 'setUTCHours', 'Hours', '0', '1', '2', '7', '40'];
const trap = (target, key) => {
  const own = getOwnPropertyDescriptor(target, key);
  if (own !== undefined && !own.configurable) return;
  defineProperty(target, key, { __proto__: null, get() { push(key); return own?.value; }, set(value) { push(key); }, configurable: true });
  undo[undo.length] = () => { if (own) { setPrototypeOf(own, null); defineProperty(target, key, own); } else delete target[key]; };
};
// Every member of the built-in prototypes and constructors, then the constructors themselves.
const names = ['Function', 'Array', 'String', 'Number', 'RegExp', 'Symbol', 'Proxy', 'Reflect', 'Map', 'Set', 'Error', 'TypeError', 'Promise', 'Math', 'Object'];
const real = names.map((name) => globalThis[name]), trapAll = (object) => { const keys = ownKeys(object); for (let i = 0; i < keys.length; i++) trap(object, keys[i]); };
const arrayIterator = Object.getPrototypeOf([][Symbol.iterator]()), bound = real[0].prototype.call;
const objects = [];
for (let i = 0; i < real.length; i++) { objects[objects.length] = real[i]; if (real[i].prototype) objects[objects.length] = real[i].prototype; }
objects[objects.length] = arrayIterator; objects[objects.length] = bound;
objects[objects.length] = globalThis;
let D;
for (let i = 0; i < inherited.length; i++) trap(real[14].prototype, inherited[i]);
for (let i = 0; i < objects.length; i++) if (objects[i] !== globalThis) trapAll(objects[i]);
for (let i = 0; i < names.length; i++) trap(globalThis, names[i]);
asked.length = 0;
D = get();
const before = asked.length;
new D(), D.now(), D();
const after = asked.length;
for (let i = undo.length - 1; i >= 0; i--) undo[i]();
return [asked.slice(0, before).map(String), after - before, look(D)];";
    assert_eq!(
        end_of(body, Limits::default()),
        completed(&format!("[[],0,{SEEN}]"))
    );
}

/// Wherever the stack ends while it is made: what is seen afterwards is whole, and made once.
#[test]
fn a_full_stack_leaves_no_half_of_it() {
    if in_another_zone("a_full_stack_leaves_no_half_of_it") {
        return;
    }
    let body = "
let first, tries = 0;
const down = () => { try { down(); } catch { if (first === undefined) { tries++; first = Date; } } };
down();
return [tries > 1, look(first)];";
    let mut refused = 0;
    for stack_bytes in (192 << 10..200 << 10).step_by(48) {
        let limits = Limits {
            stack_bytes,
            ..Limits::default()
        };
        let end = end_of(body, limits);
        if end == completed(&format!("[true,{SEEN}]")) {
            refused += 1;
        } else {
            assert_eq!(end, completed(&format!("[false,{SEEN}]")), "{stack_bytes}");
        }
    }
    assert!(refused > 100, "{refused} stacks ended while it was made");
}

/// Wherever the memory ends while it is made, the frame ends.
#[test]
fn a_full_heap_ends_the_frame() {
    if in_another_zone("a_full_heap_ends_the_frame") {
        return;
    }
    let body = "
let first;
try { first = Date } catch {}
try { first ??= Date } catch {}
return look(first);";
    let (mut ended, mut whole) = (0, 0);
    for memory_bytes in (200 << 10..520 << 10).step_by(1_500) {
        let limits = Limits {
            memory_bytes,
            ..Limits::default()
        };
        match end_of(body, limits) {
            TurnEnd::Failed(failure) => {
                assert_eq!(failure.code.as_deref(), Some("memory"), "{failure:?}");
                ended += 1;
            }
            end => {
                assert_eq!(end, completed(SEEN), "{memory_bytes}");
                whole += 1;
            }
        }
    }
    assert!(ended > 20 && whole > 20, "{ended} {whole}");
}

#[test]
fn it_stands_where_a_global_stands() {
    let body = "
const seen = () => { const { enumerable, configurable } = Object.getOwnPropertyDescriptor(globalThis, 'Date'); return [enumerable, configurable, Object.keys(globalThis).includes('Date'), 'Date' in globalThis]; };
const before = seen(), D = Date, after = seen();
const { value, writable } = Object.getOwnPropertyDescriptor(globalThis, 'Date');
globalThis.Date = 5;
return [before, after, value === D, writable, Date];";
    assert_eq!(
        end_of(body, Limits::default()),
        completed("[[false,true,false,true],[false,true,false,true],true,true,5]")
    );
}
