//! What a task finds in its realm, in one table: an expression (or body) and the JSON of its value.

mod vm_support;

use tasker_core::vm::TurnEnd;
use vm_support::{Frame, completed, program, run, start_of};

/// `(body of an async function, JSON of what it returns)`
fn check(cases: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (body, expected) in cases {
        let body = if body.contains("return") {
            (*body).to_owned()
        } else {
            format!("return {body}")
        };
        let turn = run(
            &format!("module.exports = async (input, context) => {{ {body} }};"),
            "null",
        );
        if turn.end != completed(expected) {
            wrong.push(format!(
                "{body}\n  expected {expected}\n  got      {:?} {:?}",
                turn.end, turn.logs
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_there_is_not_there() {
    for name in [
        "WeakRef",
        "FinalizationRegistry",
        "SharedArrayBuffer",
        "Atomics",
        "performance",
        "fetch",
        "process",
        "Deno",
        "global",
        "window",
        "std",
        "os",
        "bjson",
        "Worker",
        "module2",
        "host_call",
        "bridge",
        "Intl",
    ] {
        check(&[(&format!("typeof {name}"), r#""undefined""#)]);
    }
}

#[test]
fn dates_have_the_time_of_the_turn_and_no_zone() {
    check(&[
        ("Date.now()", "1700000000000"),
        ("new Date().toISOString()", r#""2023-11-14T22:13:20.000Z""#),
        ("new Date()", r#""2023-11-14T22:13:20.000Z""#),
        (
            "Date()",
            r#""Tue Nov 14 2023 22:13:20 GMT+0000 (Coordinated Universal Time)""#,
        ),
        (
            "String(new Date(0))",
            r#""Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)""#,
        ),
        ("new Date(0).getTimezoneOffset()", "0"),
        (
            "new Date(2020, 0, 1, 10).toISOString()",
            r#""2020-01-01T10:00:00.000Z""#,
        ),
        ("new Date(99, 0).getFullYear()", "1999"),
        ("new Date(2020, 1, 30).getMonth()", "2"),
        ("Date.parse('2020-01-01 10:00')", "1577872800000"),
        ("Date.parse('2020-01-01T10:00')", "1577872800000"),
        ("Date.parse('2020-01-01T10:00Z')", "1577872800000"),
        ("Date.parse('2020-01-01T10:00+01:00')", "1577869200000"),
        ("Date.parse('2020-01-01')", "1577836800000"),
        ("Date.parse('2020-01')", "1577836800000"),
        ("Date.parse('Jan 1, 2020 10:00')", "1577872800000"),
        ("Date.parse('Jan 1, 2020')", "1577836800000"),
        (
            "Date.parse('Wed, 01 Jan 2020 10:00:00 GMT')",
            "1577872800000",
        ),
        (
            "Date.parse('Wed Jan 01 2020 10:00:00 GMT+0100 (CET)')",
            "1577869200000",
        ),
        ("Number.isNaN(Date.parse('nonsense'))", "true"),
        ("new Date('nonsense')", "null"),
        ("String(new Date(NaN))", r#""Invalid Date""#),
        ("new Date(new Date(5)).getTime()", "5"),
        ("new Date('2020-01-01T10:00').getHours()", "10"),
        (
            "{ const d = new Date(0); d.setHours(5); d.setFullYear(2001, 2, 3); return d.toISOString() }",
            r#""2001-03-03T05:00:00.000Z""#,
        ),
        ("new Date(0).toLocaleString()", r#""1/1/1970, 12:00:00 AM""#),
        (
            "{ class D extends Date { x() { return this.getTime() + 1 } } const d = new D(4); return [d.x(), d instanceof D, d instanceof Date, d.constructor === D] }",
            "[5,true,true,true]",
        ),
        (
            "[new Date(0) instanceof Date, new Date(0).constructor === Date, Date.name, Date.length, Date.UTC(1970, 0, 2)]",
            r#"[true,true,"Date",7,86400000]"#,
        ),
        (
            "[new Date(0) + 1, new Date(7) - 2, `${new Date(0)}`.length]",
            r#"["Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)1",5,62]"#,
        ),
        (
            "Object.prototype.toString.call(new Date())",
            r#""[object Date]""#,
        ),
        (
            "[new Date(0).getHours.name, new Date(0).setHours.length]",
            r#"["getHours",4]"#,
        ),
    ]);
}

#[test]
fn randomness_follows_from_the_seed() {
    let body = "module.exports = () => [Math.random(), crypto.randomUUID(), [...crypto.getRandomValues(new Uint16Array(4))]];";
    let TurnEnd::Completed(Some(first)) = run(body, "null").end else {
        panic!()
    };
    assert_eq!(
        run(body, "null").end,
        TurnEnd::Completed(Some(first.clone()))
    );
    let mut start = start_of(program(body), "null");
    start.seed = [8; 32];
    let TurnEnd::Completed(Some(other)) = Frame::of(&start).turn.end else {
        panic!()
    };
    assert_ne!(first, other);
    check(&[
        (
            "/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID())",
            "true",
        ),
        (
            "{ const r = Math.random(); return r >= 0 && r < 1 }",
            "true",
        ),
        (
            "{ try { crypto.getRandomValues([]) } catch (e) { return e.name } }",
            r#""TypeMismatchError""#,
        ),
        (
            "{ try { crypto.getRandomValues(new Uint8Array(70000)) } catch (e) { return e.name } }",
            r#""QuotaExceededError""#,
        ),
        (
            "{ const a = new Uint8Array(8); crypto.getRandomValues(a.subarray(2, 4)); return [a[0], a[1], a[4]] }",
            "[0,0,0]",
        ),
    ]);
}

#[test]
fn urls_are_read_as_the_standard_says() {
    check(&[
        (
            "{ const u = new URL('https://Me:Pw@Example.com:8443/a/../b?x=1&x=2#h'); return [u.href, u.origin, u.protocol, u.username, u.password, u.host, u.hostname, u.port, u.pathname, u.search, u.hash] }",
            r##"["https://Me:Pw@example.com:8443/b?x=1&x=2#h","https://example.com:8443","https:","Me","Pw","example.com:8443","example.com","8443","/b","?x=1&x=2","#h"]"##,
        ),
        (
            "new URL('../c', 'https://a.b/x/y/z').href",
            r#""https://a.b/x/c""#,
        ),
        (
            "JSON.stringify({ u: new URL('https://a.b') })",
            r#""{\"u\":\"https://a.b/\"}""#,
        ),
        ("new URL('https://a.b')", r#""https://a.b/""#),
        (
            "{ try { new URL('no url') } catch (e) { return [e instanceof TypeError, e.code] } }",
            r#"[true,"ERR_INVALID_URL"]"#,
        ),
        (
            "[URL.canParse('x:y'), URL.canParse('y'), URL.parse('y')]",
            "[true,false,null]",
        ),
        (
            "{ const u = new URL('https://a.b/?q=1'); u.searchParams.append('r', 'ü &'); u.pathname = '/p q'; u.port = '81'; u.hash = 'z'; return String(u) }",
            r#""https://a.b:81/p%20q?q=1&r=%C3%BC+%26#z""#,
        ),
        (
            "{ const u = new URL('https://a.b/?q=1'); const p = u.searchParams; u.search = '?z=9'; return [p.get('z'), p.get('q'), p === u.searchParams] }",
            r#"["9",null,true]"#,
        ),
        (
            "{ const u = new URL('https://a.b/?q=1'); u.searchParams.delete('q'); return u.href }",
            r#""https://a.b/""#,
        ),
        (
            "{ const u = new URL('https://a.b/'); u.protocol = 'nonsense!'; u.host = ''; return u.href }",
            r#""https://a.b/""#,
        ),
        (
            "{ const p = new URLSearchParams('?a=1&b=%20x&a=2&c'); return [p.get('a'), p.getAll('a'), p.get('b'), p.get('c'), p.has('a', '2'), p.has('d'), p.size, [...p], String(p)] }",
            r#"["1",["1","2"]," x","",true,false,4,[["a","1"],["b"," x"],["a","2"],["c",""]],"a=1&b=+x&a=2&c="]"#,
        ),
        (
            "String(new URLSearchParams({ b: 2, a: [1, 2] }))",
            r#""b=2&a=1%2C2""#,
        ),
        (
            "String(new URLSearchParams([['x', '1'], ['y', '~*-._ ']]))",
            r#""x=1&y=%7E*-._+""#,
        ),
        (
            "{ const p = new URLSearchParams('b=1&a=2&b=3'); p.sort(); p.set('b', '9'); p.append('c', 'd'); return [String(p), [...p.keys()], [...p.values()], new URLSearchParams(p).get('a')] }",
            r#"["a=2&b=9&c=d",["a","b","c"],["2","9","d"],"2"]"#,
        ),
        (
            "{ const seen = []; new URLSearchParams('a=1&b=2').forEach((v, k) => seen.push(k + v)); return seen }",
            r#"["a1","b2"]"#,
        ),
        (
            "Object.prototype.toString.call(new URL('a:b')) + Object.prototype.toString.call(new URLSearchParams())",
            r#""[object URL][object URLSearchParams]""#,
        ),
    ]);
}

#[test]
fn texts_become_bytes_and_back() {
    check(&[
        (
            "[...new TextEncoder().encode('aü€😀')]",
            "[97,195,188,226,130,172,240,159,152,128]",
        ),
        (
            "[...new TextEncoder().encode('\\ud800x')]",
            "[239,191,189,120]",
        ),
        (
            "new TextDecoder().decode(new Uint8Array([0xef,0xbb,0xbf,97]))",
            r#""a""#,
        ),
        (
            "new TextDecoder('utf-8', { ignoreBOM: true }).decode(new Uint8Array([0xef,0xbb,0xbf,97])).length",
            "2",
        ),
        (
            "new TextDecoder().decode(new Uint8Array([0xff, 97, 0xe2, 0x82]))",
            "\"\u{fffd}a\u{fffd}\"",
        ),
        (
            "{ try { new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array([0xff])) } catch (e) { return e instanceof TypeError } }",
            "true",
        ),
        (
            "new TextDecoder('utf-16').decode(new Uint8Array([0x61, 0, 0x3d, 0xd8, 0, 0xde]))",
            "\"a😀\"",
        ),
        (
            "{ const d = new TextDecoder(); return d.decode(new Uint8Array([0xe2, 0x82]), { stream: true }) + d.decode(new Uint8Array([0xac]), { stream: true }) + d.decode() }",
            "\"€\"",
        ),
        (
            "new TextDecoder().decode(new Uint16Array([0x6161]).buffer)",
            r#""aa""#,
        ),
        (
            "new TextDecoder().decode(new DataView(new Uint8Array([97, 98, 99]).buffer, 1, 1))",
            r#""b""#,
        ),
        (
            "{ try { new TextDecoder('latin1') } catch (e) { return e.name } }",
            r#""RangeError""#,
        ),
        (
            "{ const a = new Uint8Array(5); const r = new TextEncoder().encodeInto('a€😀', a); return [r.read, r.written, [...a]] }",
            "[2,4,[97,226,130,172,0]]",
        ),
        (
            "[btoa('hé'), atob('aGk='), new TextEncoder().encoding, new TextDecoder('UTF8').encoding]",
            r#"["aOk=","hi","utf-8","utf-8"]"#,
        ),
        (
            "{ try { atob('*') } catch (e) { return [e.name, e instanceof DOMException] } }",
            r#"["InvalidCharacterError",true]"#,
        ),
        (
            "{ try { btoa('€') } catch (e) { return e.name } }",
            r#""InvalidCharacterError""#,
        ),
    ]);
}

#[test]
fn structured_clones_are_equal_and_apart() {
    check(&[
        (
            "{ const a = { d: new Date(5), r: /x/gi, m: new Map([[1, { z: 1 }]]), s: new Set(['q']), u: undefined, n: null, b: 10n }; a.self = a; const c = structuredClone(a); return [c !== a, c.self === c, c.d.getTime(), c.d !== a.d, String(c.r), c.m.get(1).z, c.m.get(1) !== a.m.get(1), c.s.has('q'), 'u' in c, c.n, String(c.b)] }",
            r#"[true,true,5,true,"/x/gi",1,true,true,true,null,"10"]"#,
        ),
        (
            "{ const b = new Uint8Array([1, 2, 3, 4]); const c = structuredClone({ x: b.subarray(1, 3), y: b }); return [[...c.x], c.x.buffer === c.y.buffer, c.y.constructor.name, c.x.byteOffset] }",
            r#"[[1,2],true,"Uint8Array",1]"#.replace("[[1,2]", "[[2,3]").leak(),
        ),
        (
            "{ const e = new RangeError('m', { cause: { a: 1 } }); const c = structuredClone(e); return [c instanceof RangeError, c.message, c.cause.a, c.name] }",
            r#"[true,"m",1,"RangeError"]"#,
        ),
        (
            "{ const l = [1, , 3]; const c = structuredClone(l); return [c.length, 1 in c] }",
            "[3,false]",
        ),
        (
            "{ class P { constructor() { this.a = 1 } get b() { return 2 } } const c = structuredClone(new P()); return [c, Object.getPrototypeOf(c) === Object.prototype] }",
            r#"[{"a":1},true]"#,
        ),
        (
            "{ try { structuredClone({ f() {} }) } catch (e) { return [e.name, e.code, e instanceof DOMException] } }",
            r#"["DataCloneError",25,true]"#,
        ),
        (
            "{ try { structuredClone(Symbol()) } catch (e) { return e.name } }",
            r#""DataCloneError""#,
        ),
        (
            "{ try { structuredClone(Promise.resolve()) } catch (e) { return e.name } }",
            r#""DataCloneError""#,
        ),
        (
            "{ const b = new ArrayBuffer(8); const c = structuredClone(b, { transfer: [b] }); return [b.byteLength, c.byteLength] }",
            "[0,8]",
        ),
        (
            "{ const c = structuredClone(new Number(3)); return [typeof c, c + 1] }",
            r#"["object",4]"#,
        ),
        (
            "{ const o = JSON.parse('{\"__proto__\":{\"x\":1}}'); const c = structuredClone(o); return [Object.keys(c), Object.getPrototypeOf(c) === Object.prototype] }",
            r#"[["__proto__"],true]"#,
        ),
    ]);
}

#[test]
fn aborting_reaches_who_listens() {
    check(&[
        (
            "{ const c = new AbortController(); const seen = []; c.signal.addEventListener('abort', (e) => seen.push(e.type)); c.signal.onabort = () => seen.push('on'); c.abort(); c.abort(); return [seen, c.signal.aborted, c.signal.reason.name] }",
            r#"[["on","abort"],true,"AbortError"]"#,
        ),
        (
            "{ const c = new AbortController(); c.abort('why'); try { c.signal.throwIfAborted() } catch (e) { return e } }",
            r#""why""#,
        ),
        (
            "{ const c = new AbortController(); const any = AbortSignal.any([c.signal, new AbortController().signal]); c.abort(7); return [any.aborted, any.reason] }",
            "[true,7]",
        ),
        ("AbortSignal.abort().reason.name", r#""AbortError""#),
        (
            "{ try { new AbortSignal() } catch (e) { return e.name } }",
            r#""TypeError""#,
        ),
        (
            "{ const c = new AbortController(); let n = 0; const f = () => n++; c.signal.addEventListener('abort', f, { once: true }); c.signal.removeEventListener('abort', f); c.abort(); return n }",
            "0",
        ),
    ]);
    let mut frame = Frame::start(
        "module.exports = () => new Promise((resolve) => { const s = AbortSignal.timeout(50); s.addEventListener('abort', () => resolve(s.reason.name)); });",
        "null",
    );
    assert_eq!(frame.calls(), ["setTimeout 50"]);
    frame.settle(1);
    assert_eq!(frame.turn.end, completed(r#""TimeoutError""#));
}

#[test]
fn fetch_is_a_call_where_http_is_granted() {
    use std::sync::Arc;
    use tasker_core::service::ServiceStyle;
    use tasker_core::vm::ToolNames;
    let mut start = start_of(
        program(
            "module.exports = async () => { const r = await fetch(new URL('https://a.b/x'), { method: 'POST', headers: { 'X-Y': 1 }, body: new URLSearchParams({ q: 'é' }) }); return [r.ok, r.status, r.statusText, r.headers.get('Content-Type'), await r.json(), r.bodyUsed]; };",
        ),
        "null",
    );
    start.tools = Arc::new(ToolNames::new([("http".to_owned(), ServiceStyle::Plain)]));
    let mut frame = Frame::of(&start);
    assert_eq!(
        frame.calls(),
        [
            r#"http.fetch ["https://a.b/x",{"method":"POST","body":"q=%C3%A9","headers":{"x-y":"1","content-type":"application/x-www-form-urlencoded;charset=UTF-8"}}]"#
        ],
        "{:?}",
        frame.turn
    );
    frame.answer(1, r#"{"status":201,"statusText":"Created","headers":{"Content-Type":"application/json"},"body":"{\"a\":[1]}"}"#);
    assert_eq!(
        frame.turn.end,
        completed(r#"[true,201,"Created","application/json",{"a":[1]},true]"#),
        "{:?}",
        frame.turn
    );
}

#[test]
fn console_lines_read_well() {
    let turn = run(
        "module.exports = () => { console.log('a', 1, { b: [1, 'x'] }, null, undefined, true, 10n, Symbol('s'), () => 1); console.warn(new TypeError('bad')); console.error(new Map([[1, 2]]), new Set(['q']), NaN); const c = { n: 1 }; c.c = c; console.debug(c); console.info(); console.group('g'); console.log('in'); console.groupEnd(); console.log([undefined, new Date(0), /r/g]); }",
        "null",
    );
    let lines: Vec<_> = turn
        .logs
        .iter()
        .map(|line| format!("{} {}", line.level.as_str(), line.message))
        .collect();
    assert_eq!(
        lines[0],
        "info a 1 {\"b\":[1,\"x\"]} null undefined true 10n Symbol(s) [Function]"
    );
    assert_eq!(
        lines[1],
        "warn TypeError: bad\n    at <anonymous> (task.js:1:131)"
    );
    assert_eq!(lines[2], "error Map(1) {1 => 2} Set(1) {\"q\"} NaN");
    assert_eq!(lines[3], "debug {\"n\":1,\"c\":[Circular]}");
    assert_eq!(lines[4], "info ");
    assert_eq!(lines[5..7], ["info g", "info   in"]);
    assert_eq!(lines[7], "info [undefined,1970-01-01T00:00:00.000Z,/r/g]");
}

/// What a task finds in `console`, timers and `crypto` is the same whether its text names them or not, whatever it did before.
#[test]
fn globals_made_when_they_are_touched_are_as_those_made_before() {
    let body = "
Map.prototype.get = Map.prototype.set = Map.prototype.delete = String.prototype.slice = Reflect.apply = Object.setPrototypeOf = Set.prototype.has = () => { throw 1; };
Object.prototype.value = 7;
const seen = (object) => Reflect.ownKeys(object).map((name) => {
  const { value, ...flags } = Object.getOwnPropertyDescriptor(object, name);
  return [name, typeof value, flags, typeof value === 'function' ? Reflect.ownKeys(value).map((key) => [key, Object.getOwnPropertyDescriptor(value, key)]) : value];
});
const timer = setTimeout(() => {}, 5), same = console === globalThis.console;
clearTimeout(timer);
console.count('n'); console.count('n');
const late = [console, setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, clearImmediate, crypto];
return [same, timer, crypto.randomUUID(), late.map(seen), seen(globalThis).filter(([name]) => ['console', 'setTimeout', 'crypto'].includes(name)), Reflect.ownKeys(globalThis)];";
    let hidden = body
        .replace("console", r"c\u006fnsole")
        .replace("Timeout(", r"T\u0069meout(")
        .replace("setTimeout,", r"setT\u0069meout,")
        .replace("'setTimeout'", "'setT' + 'imeout'")
        .replace("setI", r"s\u0065tI")
        .replace("crypto", r"crypt\u006f");
    for name in ["console", "setTimeout", "setI", "crypto"] {
        assert!(!hidden.contains(name), "{name}");
    }
    let of = |body: &str| {
        let turn = run(
            &format!("module.exports = async (input, context) => {{ {body} }};"),
            "null",
        );
        let lines: Vec<_> = turn.logs.into_iter().map(|line| line.message).collect();
        (turn.end, lines)
    };
    let (end, lines) = of(body);
    assert!(matches!(end, TurnEnd::Completed(Some(_))), "{end:?}");
    assert_eq!(lines, ["n: 1", "n: 2"]);
    assert_eq!(of(&hidden), (end, lines));
}
