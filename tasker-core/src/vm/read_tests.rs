//! The reader against `JSON.parse`, in the same realm.

use std::sync::Arc;

use super::{MAX_DEPTH, value, within};
use crate::vm::raw::{Ctx, Kind, Runtime, Thrown, Trip, Value};
use crate::vm::realm::{self, With};

/// Whether two values are the same to every look that JavaScript has.
const SAME: &str = "(() => {
    const { is, getPrototypeOf, getOwnPropertyDescriptor } = Object, { ownKeys } = Reflect, { isArray } = Array;
    return function same(a, b) {
        if (typeof a !== 'object' || a === null || typeof b !== 'object' || b === null) return is(a, b);
        if (getPrototypeOf(a) !== getPrototypeOf(b) || isArray(a) !== isArray(b)) return false;
        const keys = ownKeys(a), others = ownKeys(b);
        if (keys.length !== others.length) return false;
        for (let i = 0; i < keys.length; i++) {
            if (keys[i] !== others[i]) return false;
            const one = getOwnPropertyDescriptor(a, keys[i]), two = getOwnPropertyDescriptor(b, keys[i]);
            if (one.writable !== two.writable || one.enumerable !== two.enumerable || one.configurable !== two.configurable) return false;
            if (!same(one.value, two.value)) return false;
        }
        return true;
    };
})()";

fn run<'r>(ctx: Ctx<'r>, source: &str) -> Value<'r> {
    let code = ctx.compile_script(source, "test", 1).unwrap();
    ctx.run_script(&code.into()).unwrap()
}

/// As a frame has it, without limits.
fn runtime() -> Runtime {
    let (runtime, _host) = realm::realm(&Arc::default(), With::Nothing);
    runtime.arm(usize::MAX, 1 << 20);
    runtime
}

/// Both readers of one realm, as it was before the test did anything to it.
struct Both<'r> {
    ctx: Ctx<'r>,
    parse: Value<'r>,
    same: Value<'r>,
}

impl<'r> Both<'r> {
    fn new(ctx: Ctx<'r>) -> Self {
        Self {
            ctx,
            parse: run(ctx, "JSON.parse"),
            same: run(ctx, SAME),
        }
    }

    /// Compares them; whether the text is read here, not by QuickJS.
    fn compare(&self, text: &str) -> bool {
        let theirs = self.parse.call(&[&self.ctx.string(text).unwrap()]);
        let their_error = theirs.is_err().then(|| self.error());
        let quick = within(self.ctx, text, MAX_DEPTH).unwrap();
        let is_quick = quick.is_some();
        match (value(self.ctx, text), &theirs) {
            (Ok(ours), Ok(theirs)) => {
                for ours in quick.iter().chain([&ours]) {
                    let same = self.same.call(&[ours, theirs]).unwrap();
                    assert_eq!(same.kind(), Kind::Bool(true), "{text:?}");
                }
            }
            (Err(Thrown), Err(Thrown)) => assert_eq!(Some(self.error()), their_error, "{text:?}"),
            (ours, _) => panic!(
                "read here: {}, there: {}: {text:?}",
                ours.is_ok(),
                theirs.is_ok()
            ),
        }
        assert!(theirs.is_ok() || !is_quick, "{text:?}");
        is_quick
    }

    fn error(&self) -> String {
        let error = self.ctx.exception();
        let part = |name| error.get(name).unwrap().text().unwrap();
        format!("{}: {}", part(c"name"), part(c"message"))
    }
}

const READ: &[&str] = &[
    "null",
    "true",
    "false",
    " [ ] ",
    "{}",
    "\t{\n\"a\" :\r1 }\n",
    r#""""#,
    "[[],{},[[]]]",
    r#"{"a":1,"b":2,"a":3}"#,
    r#"{"__proto__":{"x":1},"constructor":1,"toString":null}"#,
    r#"{"__proto__":1,"__proto__":[2]}"#,
    r#"{"b":1,"2":2,"1":3,"a":4,"01":5,"-1":6,"4294967295":7,"4294967294":8,"2147483648":9}"#,
    r#"{"length":1,"":2," ":3,"\u0000":4,"a\u0000b":5}"#,
    r#"{"é":1,"Ã©":2,"\u00e9":3,"日本":4,"😀":5,"\ud83d\ude00":6}"#,
    "0",
    "-0",
    "-0.0",
    "0e0",
    "-0e-1",
    "1",
    "-1",
    "999999999",
    "-999999999",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "4294967296",
    "9007199254740991",
    "9007199254740993",
    "123456789012345678901234567890",
    "1e400",
    "-1e400",
    "1e-400",
    "5e-324",
    "2.2250738585072011e-308",
    "1.7976931348623157e308",
    "1.7976931348623159e308",
    "0.1",
    "1E+2",
    "1.5e-7",
    "12.50",
    "0.30000000000000004",
    r#""\"\\\/\b\f\n\r\t""#,
    r#""\u0000\u0041\u2028\u2029\uFFFF\ufffe""#,
    "\"\u{2028}\u{2029}\u{7f}\u{feff}\"",
    r#""a\ud83d\ude00b""#,
    r#"["\uD800\uDC00","\uDBFF\uDFFF"]"#,
    "\"\u{e9}\"",
    "\"\u{ff}\u{100}\"",
    "\"\u{1f600}\"",
    r#""12345678\n2345678\\""#,
];

/// What QuickJS reads, or refuses.
const LEFT: &[&str] = &[
    r#""\ud800""#,
    r#""\udc00\ud800""#,
    r#""\ud800\u0041""#,
    r#""\ud800x""#,
    r#"{"\udfff":1}"#,
    r#""\ud800\ud800\udc00""#,
    "",
    " ",
    "nul",
    "nulll",
    "tru",
    "[",
    "[1",
    "[1,",
    "[1,]",
    "[,1]",
    "{",
    "{\"a\"",
    "{\"a\":",
    "{\"a\":1",
    "{\"a\":1,",
    "{\"a\":1,}",
    "{a:1}",
    "{1:1}",
    "{\"a\" 1}",
    "[1 2]",
    "1 2",
    "01",
    "-",
    "-01",
    "+1",
    ".5",
    "1.",
    "1.e1",
    "1e",
    "1e+",
    "0x1",
    "--1",
    "NaN",
    "Infinity",
    "\"",
    "\"a",
    "\"\\",
    "\"\\u",
    "\"\\u12",
    "\"\\u12g4\"",
    "\"\\x\"",
    "\"\\é\"",
    "\"\t\"",
    "\"\n\"",
    "\"\u{0}\"",
    "\"\u{1f}\"",
    "'a'",
    "\u{feff}1",
    "\u{a0}1",
    "\u{b}1",
    "/**/1",
    "undefined",
    "[1]]",
    "{}}",
    "\u{0}",
    "1\u{0}",
    "é",
];

#[test]
fn chosen_texts_are_read_as_json_parse_reads_them() {
    let runtime = runtime();
    let both = Both::new(runtime.enter());
    for text in READ {
        assert!(both.compare(text), "left to QuickJS: {text:?}");
    }
    for text in LEFT {
        assert!(!both.compare(text), "not left to QuickJS: {text:?}");
    }
    // A special byte at each place of a word, after and before others.
    for at in 0..20 {
        for special in [
            "\\\"", "\\\\", "\u{20}", "!", "[", "\u{7f}", "\u{80}", "\u{a2}", "\u{dc}", "\u{ffff}",
        ] {
            assert!(both.compare(&format!(
                "[\"{}{special}{}\"]",
                "x".repeat(at),
                "é".repeat(at)
            )));
        }
        for control in ['\u{0}', '\u{1}', '\n', '\u{1f}'] {
            let text = format!("[\"{}{control}{}\"]", "x".repeat(at), "é".repeat(20 - at));
            assert!(!both.compare(&text), "{text:?}");
        }
    }
    for length in [1, 255, 256, 257, 1_000] {
        assert!(both.compare(&format!("[[{}],{{}}]", vec!["[1.5]"; length].join(","))));
    }
}

#[test]
fn depth_is_bounded() {
    let runtime = runtime();
    let both = Both::new(runtime.enter());
    let nest = |open: &str, close: &str, depth: u32| {
        let depth = depth as usize;
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    };
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[0,", ",2]")] {
        assert!(both.compare(&nest(open, close, MAX_DEPTH)));
        assert!(!both.compare(&nest(open, close, MAX_DEPTH + 1)));
        assert!(
            within(both.ctx, &nest(open, close, 5), 5)
                .unwrap()
                .is_some()
        );
        assert!(
            within(both.ctx, &nest(open, close, 6), 5)
                .unwrap()
                .is_none()
        );
        // Far deeper than any stack.
        assert_eq!(
            value(both.ctx, &nest(open, close, 500_000)).err(),
            Some(Thrown)
        );
        drop(both.ctx.exception());
    }
    // Levels beside each other are not levels within each other.
    assert!(
        within(both.ctx, "[[[1],[2]],[[3],{}],[[4]]]", 3)
            .unwrap()
            .is_some()
    );
}

/// Texts from a seed; the same in each run.
struct Texts(u64);

impl Texts {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn space(&mut self, out: &mut String) {
        if self.below(8) == 0 {
            out.push_str(self.one(&[" ", "\n", "\r\n", "\t", "  \n "]));
        }
    }

    fn string(&mut self, out: &mut String) {
        const PARTS: &[&str] = &[
            "a",
            "id",
            "name",
            "0",
            "7",
            "12",
            "__proto__",
            "length",
            "a longer part of a text",
            "é",
            "ß",
            "日本",
            "😀",
            "\u{2028}",
            "\\n",
            "\\\"",
            "\\\\",
            "\\/",
            "\\u0041",
            "\\u00e9",
            "\\u0000",
            "\\u2029",
            "\\uD83D\\uDE00",
            "\\b\\f\\r\\t",
            " ",
            "{",
            "]",
            ":",
        ];
        out.push('"');
        for _ in 0..self.below(4) {
            out.push_str(self.one(PARTS));
        }
        if self.below(60) == 0 {
            out.push_str(self.one(&["\\ud800", "\\udfff", "\\udbff\\u0020"]));
        }
        out.push('"');
    }

    fn number(&mut self, out: &mut String) {
        let digits = |texts: &mut Self, out: &mut String| {
            for _ in 0..=texts.below(18) {
                out.push(char::from(b'0' + texts.below(10) as u8));
            }
        };
        out.push_str(self.one(&["", "", "-"]));
        if self.below(4) == 0 {
            out.push('0');
        } else {
            out.push(char::from(b'1' + self.below(9) as u8));
            if self.below(2) == 0 {
                digits(self, out);
            }
        }
        if self.below(3) == 0 {
            out.push('.');
            digits(self, out);
        }
        if self.below(5) == 0 {
            out.push_str(self.one(&["e", "E", "e+", "E-", "e-"]));
            out.push_str(&self.below(400).to_string());
        }
    }

    fn value(&mut self, depth: usize, out: &mut String) {
        self.space(out);
        match self.below(if depth == 0 { 7 } else { 12 }) {
            0 => out.push_str(self.one(&["true", "false", "null"])),
            1..=3 => self.string(out),
            4..=6 => self.number(out),
            7 | 8 => {
                out.push('[');
                for index in 0..self.below(6) {
                    if index > 0 {
                        out.push(',');
                    }
                    self.value(depth - 1, out);
                }
                out.push(']');
            }
            _ => {
                out.push('{');
                for index in 0..self.below(7) {
                    if index > 0 {
                        out.push(',');
                    }
                    self.space(out);
                    self.string(out);
                    self.space(out);
                    out.push(':');
                    self.value(depth - 1, out);
                }
                out.push('}');
            }
        }
        self.space(out);
    }

    /// The text with some characters put in, taken out or replaced.
    fn damaged(&mut self, text: &str) -> String {
        let mut characters: Vec<char> = text.chars().collect();
        for _ in 0..=self.below(2) {
            let at = self.below(characters.len() + 1);
            let character = self.one(&[
                "\"", "\\", ",", ":", "[", "]", "{", "}", "0", ".", "e", "-", "u", "\n", "\u{1}",
                "é", " ",
            ]);
            let (from, to) = match self.below(3) {
                0 => (at, at),
                _ => (at, (at + 1 + self.below(2)).min(characters.len())),
            };
            let new = if self.below(3) == 0 { "" } else { character };
            characters.splice(from..to, new.chars());
        }
        characters.into_iter().collect()
    }
}

#[test]
fn generated_texts_are_read_as_json_parse_reads_them() {
    const COUNT: usize = 20_000;
    let runtime = runtime();
    let both = Both::new(runtime.enter());
    let mut texts = Texts(0x7a5c_e21d_90b3_4f68);
    let (mut quick, mut damaged, mut damaged_quick) = (0, 0, 0);
    for _ in 0..COUNT {
        let mut text = String::new();
        texts.value(5, &mut text);
        quick += usize::from(both.compare(&text));
        let text = texts.damaged(&text);
        damaged += 1;
        damaged_quick += usize::from(both.compare(&text));
    }
    // Lone surrogates alone are left.
    assert!(quick > COUNT * 9 / 10, "{quick} of {COUNT}");
    assert!(
        (damaged / 20..damaged * 19 / 20).contains(&damaged_quick),
        "{damaged_quick} of {damaged}"
    );
}

#[test]
fn a_task_cannot_reach_into_it() {
    let runtime = runtime();
    let both = Both::new(runtime.enter());
    run(
        both.ctx,
        "const refuse = { get() { throw new Error('got'); }, set() { throw new Error('set'); }, configurable: true };
         for (const name of ['a', 'b', 'name', '0', '1', 'length', 'toJSON', 'then']) Object.defineProperty(Object.prototype, name, refuse);
         for (const name of ['0', '1', '300']) Object.defineProperty(Array.prototype, name, refuse);
         Object.freeze(Object.prototype); Object.freeze(Array.prototype);
         JSON.parse = () => { throw new Error('parsed'); };
         Object.defineProperty = Array.from = globalThis.Object = globalThis.Array = globalThis.JSON = undefined;",
    );
    let mut texts = Texts(0x11f0_93aa_5d0e_c701);
    for text in READ {
        both.compare(text);
    }
    both.compare(&format!(
        "[{}]",
        vec![r#"{"a":[0,1],"0":1,"length":2}"#; 400].join(",")
    ));
    for _ in 0..2_000 {
        let mut text = String::new();
        texts.value(5, &mut text);
        both.compare(&text);
    }
}

#[test]
fn nothing_is_left_behind() {
    let runtime = runtime();
    {
        let ctx = runtime.enter();
        let mut texts = Texts(0x55aa_1234_9876_0f0f);
        for _ in 0..2_000 {
            let mut text = String::new();
            texts.value(6, &mut text);
            let text = texts.damaged(&text);
            drop(within(ctx, &text, 1 + texts.below(6) as u32));
            drop(value(ctx, &text));
            drop(ctx.exception());
        }
    }
    assert_eq!(runtime.free_by_quickjs(), 0);
}

/// By texts that no reserve holds.
#[test]
fn refused_memory_ends_the_frame() {
    let many = format!(
        "[{}]",
        vec![r#"{"id":1,"né":[1.5,"a text of some length"]}"#; 20_000].join(",")
    );
    let long = format!("[\"{}\"]", "x".repeat(5_000_000));
    for text in [&many, &long] {
        for room in (0..40_000).step_by(1_111) {
            let runtime = runtime();
            runtime.arm(runtime.memory_bytes() + room, 1 << 18);
            let ctx = runtime.enter();
            assert!(
                matches!(within(ctx, text, MAX_DEPTH), Err(Thrown)),
                "{room}"
            );
            drop(ctx.exception());
            assert_eq!(runtime.tripped(), Some(Trip::Memory), "{room}");
            // What has ended reads no more.
            assert!(matches!(within(ctx, "1", MAX_DEPTH), Ok(None)));
        }
    }
}
