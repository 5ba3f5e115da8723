//! Values to JSON text, as `JSON.stringify` writes it, by walking the value.
//!
//! Nothing of the realm is asked but the value itself: a replaced `JSON`, `Array.prototype` or `toString` changes nothing.
//! Getters, proxies and `toJSON` of the task do run, as the language says, under the turn's budget.
//! A value that JSON cannot hold is refused with the path at which it stands.

use std::fmt::Write as _;
use std::io::Write as _;

use tasker_adaptor::Json;

use super::raw::{Args, Ctx, Key, KeyOrder, Kind, Thrown, Value};

/// Class numbers of QuickJS for wrapper objects; `tests` checks them against the engine in use.
const CLASS_NUMBER: u32 = 4;
const CLASS_STRING: u32 = 5;
const CLASS_BOOLEAN: u32 = 6;

/// Deeper values are refused whatever the limit says: each level takes room on the thread's stack.
const MAX_DEPTH: u32 = 1_000;

/// Why a value has no text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WriteError {
    /// Code of the task threw; the exception is pending.
    Thrown,
    /// JSON cannot hold it: `result.items[3].id is a BigInt: …`.
    Refused(String),
    /// More than `max_bytes`.
    TooLarge,
    /// More than `max_depth` levels.
    TooDeep,
}

impl From<Thrown> for WriteError {
    fn from(Thrown: Thrown) -> Self {
        Self::Thrown
    }
}

enum Part {
    /// Where the key's JSON text stands in `out`.
    Key(usize, usize),
    Index(u64),
}

/// Writes values into one text.
pub(super) struct Writer<'r> {
    ctx: Ctx<'r>,
    out: Vec<u8>,
    max_bytes: usize,
    max_depth: u32,
    path: Vec<Part>,
    ancestors: Vec<usize>,
}

impl<'r> Writer<'r> {
    pub(super) fn new(ctx: Ctx<'r>, max_bytes: usize, max_depth: u32) -> Self {
        Self {
            ctx,
            out: Vec::with_capacity(160),
            max_bytes,
            max_depth: max_depth.min(MAX_DEPTH),
            path: Vec::new(),
            ancestors: Vec::new(),
        }
    }

    /// The text of a value; `None` for `undefined`. `root` names it in messages.
    pub(super) fn value(
        mut self,
        value: &Value<'r>,
        root: &str,
    ) -> Result<Option<Json>, WriteError> {
        match value.kind() {
            Kind::Undefined => return Ok(None),
            Kind::Symbol => {
                return Err(WriteError::Refused(format!(
                    "{root} is a symbol: JSON cannot hold it; give its description instead"
                )));
            }
            Kind::Object if value.is_function() => {
                return Err(WriteError::Refused(format!(
                    "{root} is a function: JSON cannot hold it; give what it returns instead"
                )));
            }
            _ => {}
        }
        let written = self.write(value, root, |_| String::new())?;
        Ok(written.then(|| self.finish()))
    }

    /// The text of the array of arguments from `first` on.
    pub(super) fn args(mut self, args: &Args<'r>, first: usize) -> Result<Json, WriteError> {
        self.out.push(b'[');
        for index in first..args.len() {
            if index > first {
                self.out.push(b',');
            }
            let value = args.at(index);
            let root = || format!("argument {}", index - first + 1);
            self.argument(&value, root)?;
        }
        self.out.push(b']');
        self.check_size()?;
        Ok(self.finish())
    }

    /// The text of an array of arguments that is an array (or, given alone, one argument).
    pub(super) fn arg_array(mut self, args: &Value<'r>) -> Result<Json, WriteError> {
        self.out.push(b'[');
        self.arg_list(args)?;
        self.out.push(b']');
        self.check_size()?;
        Ok(self.finish())
    }

    /// The text of an array of arrays of arguments.
    pub(super) fn arg_arrays(mut self, lists: &Value<'r>) -> Result<Json, WriteError> {
        self.out.push(b'[');
        for index in 0..lists.length()? {
            if index > 0 {
                self.out.push(b',');
            }
            self.out.push(b'[');
            let list = lists.get_index(index as u32)?;
            self.arg_list(&list)?;
            self.out.push(b']');
        }
        self.out.push(b']');
        self.check_size()?;
        Ok(self.finish())
    }

    fn arg_list(&mut self, args: &Value<'r>) -> Result<(), WriteError> {
        if is_array(args) {
            for index in 0..args.length()? {
                if index > 0 {
                    self.out.push(b',');
                }
                let value = args.get_index(index as u32)?;
                self.argument(&value, || format!("argument {}", index + 1))?;
            }
        } else if args.kind() != Kind::Undefined {
            self.argument(args, || "argument 1".to_owned())?;
        }
        Ok(())
    }

    fn argument(&mut self, value: &Value<'r>, root: impl Fn() -> String) -> Result<(), WriteError> {
        let what = match value.kind() {
            Kind::Symbol => "a symbol",
            Kind::Object if value.is_function() => "a function",
            _ => {
                if !self.write(value, "", |_| root())? {
                    self.out.extend_from_slice(b"null");
                }
                return Ok(());
            }
        };
        Err(WriteError::Refused(format!(
            "{} is {what}: a call takes values that JSON can hold",
            root()
        )))
    }

    fn finish(self) -> Json {
        // Only ASCII and text that QuickJS encoded is written, with lone surrogates as escapes.
        Json::written(&String::from_utf8_lossy(&self.out))
    }

    fn check_size(&self) -> Result<(), WriteError> {
        if self.out.len() > self.max_bytes {
            Err(WriteError::TooLarge)
        } else {
            Ok(())
        }
    }

    fn place(&self, root: &str, name: &dyn Fn(&str) -> String) -> String {
        let mut place = name(root);
        if place.is_empty() {
            root.clone_into(&mut place);
        }
        for part in &self.path {
            match part {
                Part::Index(index) => {
                    let _ = write!(place, "[{index}]");
                }
                Part::Key(start, end) => {
                    let key = String::from_utf8_lossy(&self.out[*start..*end]);
                    let plain = key.trim_matches('"');
                    let is_name = !plain.is_empty()
                        && plain
                            .chars()
                            .all(|c| c.is_alphanumeric() || c == '_' || c == '$')
                        && !plain.starts_with(|c: char| c.is_ascii_digit());
                    if is_name {
                        place.push('.');
                        place.push_str(plain);
                    } else {
                        let _ = write!(place, "[{key}]");
                    }
                }
            }
        }
        place
    }

    /// Writes a value; false when it is one that JSON leaves out.
    fn write(
        &mut self,
        value: &Value<'r>,
        root: &str,
        name: impl Fn(&str) -> String + Copy,
    ) -> Result<bool, WriteError> {
        match value.kind() {
            Kind::Undefined | Kind::Symbol | Kind::Other => return Ok(false),
            Kind::Null => self.out.extend_from_slice(b"null"),
            Kind::Bool(true) => self.out.extend_from_slice(b"true"),
            Kind::Bool(false) => self.out.extend_from_slice(b"false"),
            Kind::Int(number) => self.int(i64::from(number)),
            Kind::Float(number) => self.float(value, number)?,
            Kind::String => self.string(value)?,
            Kind::BigInt => {
                let to_json = value.get_to_json()?;
                if to_json.is_function() {
                    let key = self.key_value()?;
                    let replaced = to_json.call_on(value, &[&key])?;
                    if replaced.kind() != Kind::BigInt {
                        return self.write(&replaced, root, name);
                    }
                }
                return Err(WriteError::Refused(format!(
                    "{} is a BigInt: JSON has no such number; give it as text, with String(value)",
                    self.place(root, &name)
                )));
            }
            Kind::Object => return self.object(value, root, name),
        }
        self.check_size()?;
        Ok(true)
    }

    /// The key under which the value stands, as `toJSON` gets it.
    fn key_value(&self) -> Result<Value<'r>, Thrown> {
        match self.path.last() {
            None => self.ctx.string(""),
            Some(Part::Index(index)) => self.ctx.string(&index.to_string()),
            Some(Part::Key(start, end)) => {
                let key = String::from_utf8_lossy(&self.out[*start..*end]);
                self.ctx.parse_json(&key)
            }
        }
    }

    fn object(
        &mut self,
        value: &Value<'r>,
        root: &str,
        name: impl Fn(&str) -> String + Copy,
    ) -> Result<bool, WriteError> {
        if self.ctx.is_tripped() {
            return Err(WriteError::Thrown);
        }
        let to_json = value.get_to_json()?;
        if to_json.is_function() {
            let key = self.key_value()?;
            let replaced = to_json.call_on(value, &[&key])?;
            if replaced.kind() != Kind::Object {
                return self.write(&replaced, root, name);
            }
            return self.plain(&replaced, root, name);
        }
        self.plain(value, root, name)
    }

    fn plain(
        &mut self,
        value: &Value<'r>,
        root: &str,
        name: impl Fn(&str) -> String + Copy,
    ) -> Result<bool, WriteError> {
        if value.is_function() {
            return Ok(false);
        }
        match value.class() {
            CLASS_NUMBER => {
                let number = value.to_number()?;
                return self.write(&self.ctx.number(number), root, name);
            }
            CLASS_STRING => {
                self.string(value)?;
                self.check_size()?;
                return Ok(true);
            }
            CLASS_BOOLEAN => {
                // The wrapped truth is only reachable through `valueOf`, which the task may have replaced: then it confuses itself.
                let inner = value.get(c"valueOf")?.call_on(value, &[])?;
                if inner.kind() != Kind::Object {
                    return self.write(&inner, root, name);
                }
            }
            _ => {}
        }
        let identity = value.identity();
        if self.ancestors.contains(&identity) {
            return Err(WriteError::Refused(format!(
                "{} refers to a value that contains it: JSON cannot hold a cycle; leave the reference out or give an id",
                self.place(root, &name)
            )));
        }
        if self.ancestors.len() as u32 >= self.max_depth {
            return Err(WriteError::TooDeep);
        }
        self.ancestors.push(identity);
        let done = if is_array(value) {
            self.array(value, root, name)
        } else {
            self.members(value, root, name)
        };
        self.ancestors.pop();
        done?;
        self.check_size()?;
        Ok(true)
    }

    fn array(
        &mut self,
        value: &Value<'r>,
        root: &str,
        name: impl Fn(&str) -> String + Copy,
    ) -> Result<(), WriteError> {
        self.out.push(b'[');
        let length = value.length()?;
        for index in 0..length {
            if index > 0 {
                self.out.push(b',');
            }
            if index % 4_096 == 4_095 && self.ctx.tick() {
                return Err(WriteError::Thrown);
            }
            let element =
                value.get_index(u32::try_from(index).map_err(|_| WriteError::TooLarge)?)?;
            self.path.push(Part::Index(index));
            if !self.write(&element, root, name)? {
                self.out.extend_from_slice(b"null");
                self.check_size()?;
            }
            self.path.pop();
        }
        self.out.push(b']');
        Ok(())
    }

    fn members(
        &mut self,
        value: &Value<'r>,
        root: &str,
        name: impl Fn(&str) -> String + Copy,
    ) -> Result<(), WriteError> {
        self.out.push(b'{');
        let mut first = true;
        let keys = value.keys()?;
        let mut order = KeyOrder::default();
        for key in &keys {
            order.push(key);
        }
        if !keys.is_empty() && self.ctx.wants_shapes(order) {
            self.ctx.hold_shapes(order, &keys)?;
        }
        for (index, key) in keys.iter().enumerate() {
            if index % 4_096 == 4_095 && self.ctx.tick() {
                return Err(WriteError::Thrown);
            }
            let member = value.get_key(key)?;
            if matches!(member.kind(), Kind::Undefined | Kind::Symbol) {
                continue;
            }
            let before = self.out.len();
            if !first {
                self.out.push(b',');
            }
            let start = self.out.len();
            self.key(key)?;
            let end = self.out.len();
            self.out.push(b':');
            self.path.push(Part::Key(start, end));
            if self.write(&member, root, name)? {
                first = false;
            } else {
                self.out.truncate(before);
            }
            self.path.pop();
        }
        self.out.push(b'}');
        Ok(())
    }

    fn int(&mut self, number: i64) {
        if (0..10).contains(&number) {
            self.out.push(b'0' + number as u8);
        } else {
            let mut digits = [0u8; 20];
            let mut at = digits.len();
            let mut rest = number.unsigned_abs();
            while rest > 0 {
                at -= 1;
                digits[at] = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            if number < 0 {
                self.out.push(b'-');
            }
            self.out.extend_from_slice(&digits[at..]);
        }
    }

    fn float(&mut self, value: &Value<'r>, number: f64) -> Result<(), WriteError> {
        /// Whole numbers below this are written as they are.
        const EXACT: f64 = 1e15;
        /// Below this JavaScript writes an exponent.
        const PLAIN: f64 = 1e-6;
        /// Up to 15 digits and a point: such a text is the only one of its length that reads as this number, whoever writes it.
        /// Longer ones may be one of two, of which JavaScript wants the even one.
        const UNIQUE: usize = 16;
        if !number.is_finite() {
            self.out.extend_from_slice(b"null");
        } else if number == 0.0 {
            self.out.push(b'0');
        } else if number.abs() < EXACT && number.fract() == 0.0 {
            self.int(number as i64);
        } else {
            let start = self.out.len();
            if (PLAIN..EXACT).contains(&number.abs()) {
                // Rust writes no exponent, and as few digits as read back, at a fraction of QuickJS's work. Memory takes all that is written.
                let _ = write!(self.out, "{number}");
                if self.out.len() - start <= UNIQUE {
                    return Ok(());
                }
                self.out.truncate(start);
            }
            // JavaScript's own shortest form; a primitive number runs no code of the task.
            let out = &mut self.out;
            value.with_text(|text| out.extend_from_slice(text))?;
        }
        Ok(())
    }

    fn string(&mut self, value: &Value<'r>) -> Result<(), WriteError> {
        let (out, max) = (&mut self.out, self.max_bytes);
        let fits = value.with_text(|text| {
            let fits = out.len() + text.len() <= max;
            if fits {
                quote(text, out);
            }
            fits
        })?;
        if fits {
            Ok(())
        } else {
            Err(WriteError::TooLarge)
        }
    }

    fn key(&mut self, key: &Key<'r>) -> Result<(), WriteError> {
        let out = &mut self.out;
        key.with_text(|text| quote(text, out))?;
        self.check_size()
    }
}

/// Whether it is an array, also behind proxies.
fn is_array(value: &Value<'_>) -> bool {
    if value.is_array() {
        return true;
    }
    if !value.is_proxy() {
        return false;
    }
    let mut target = value.proxy_target();
    for _ in 0..100 {
        if target.is_array() {
            return true;
        }
        if !target.is_proxy() {
            return false;
        }
        target = target.proxy_target();
    }
    false
}

/// Writes WTF-8 text as a JSON string; a lone surrogate as its escape, as `JSON.stringify` does.
pub(super) fn quote(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut clean = 0;
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        if byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != 0xed {
            at += 1;
            continue;
        }
        if byte == 0xed {
            // ED A0..BF xx is a surrogate; ED 80..9F xx is an ordinary character.
            let surrogate = at + 2 < text.len() && text[at + 1] >= 0xa0;
            if !surrogate {
                at += 1;
                continue;
            }
            out.extend_from_slice(&text[clean..at]);
            let unit =
                0xd000 | (u16::from(text[at + 1] & 0x3f) << 6) | u16::from(text[at + 2] & 0x3f);
            out.extend_from_slice(b"\\u");
            for shift in [12, 8, 4, 0] {
                out.push(HEX[usize::from(unit >> shift) & 15]);
            }
            at += 3;
            clean = at;
            continue;
        }
        out.extend_from_slice(&text[clean..at]);
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
        at += 1;
        clean = at;
    }
    out.extend_from_slice(&text[clean..]);
    out.push(b'"');
}
