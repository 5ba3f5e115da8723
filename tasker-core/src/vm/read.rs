//! JSON text to values, as `JSON.parse` makes them, at a fraction of the work of QuickJS's own reader.
//!
//! It does what is common and leaves the rest to QuickJS, the whole text of it: lone surrogates, more than [`MAX_DEPTH`] levels, and
//! what it does not understand, so that only one says what is wrong with a text. What it reads it reads as `JSON.parse` does (a test
//! compares them over many texts): of two members of one name the last wins in the place of the first, `__proto__` is a member like
//! any other. Members are defined, never set, so nothing of the task is asked or run.

use super::raw::{Ctx, Key, KeyOrder, Thrown, Value};

/// Deeper texts are QuickJS's, which looks at the room that the stack has.
const MAX_DEPTH: u32 = 128;

/// So many elements of an array are put together before it is made, and the others added one by one: they are not counted as memory
/// of the frame while they wait.
const BATCH: usize = 256;

/// Digits of a whole number that is below 2³¹, whichever they are.
const INT_DIGITS: usize = 9;

/// The value of a JSON text.
pub(super) fn value<'r>(ctx: Ctx<'r>, text: &str) -> Result<Value<'r>, Thrown> {
    match within(ctx, text, MAX_DEPTH)? {
        Some(value) => Ok(value),
        None => ctx.parse_json(text),
    }
}

/// The value of a JSON text; `None` when it is not for this reader, or has more levels than these.
pub(super) fn within<'r>(
    ctx: Ctx<'r>,
    text: &str,
    max_depth: u32,
) -> Result<Option<Value<'r>>, Thrown> {
    let mut reader = Reader {
        ctx,
        text,
        at: 0,
        levels: max_depth.min(MAX_DEPTH),
        elements: Vec::new(),
        unescaped: String::new(),
    };
    match reader.whole() {
        Ok(value) => Ok(Some(value)),
        Err(Stop::Thrown) => Err(Thrown),
        Err(Stop::Left) => Ok(None),
    }
}

enum Stop {
    /// An exception is pending.
    Thrown,
    /// The text is left to QuickJS.
    Left,
}

impl From<Thrown> for Stop {
    fn from(Thrown: Thrown) -> Self {
        Self::Thrown
    }
}

struct Reader<'r, 't> {
    ctx: Ctx<'r>,
    text: &'t str,
    at: usize,
    /// How many more may be opened.
    levels: u32,
    /// Of the arrays that are open, the innermost last.
    elements: Vec<Value<'r>>,
    unescaped: String,
}

impl<'r> Reader<'r, '_> {
    fn whole(&mut self) -> Result<Value<'r>, Stop> {
        if self.ctx.is_tripped() {
            return Err(Stop::Left);
        }
        let value = self.value()?;
        self.space();
        if self.at == self.text.len() {
            Ok(value)
        } else {
            Err(Stop::Left)
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Passes this byte, which may have space before it; false when there is another.
    fn pass(&mut self, byte: u8) -> bool {
        if self.peek() != Some(byte) {
            self.space();
            if self.peek() != Some(byte) {
                return false;
            }
        }
        self.at += 1;
        true
    }

    fn expect(&mut self, byte: u8) -> Result<(), Stop> {
        if self.pass(byte) {
            Ok(())
        } else {
            Err(Stop::Left)
        }
    }

    fn value(&mut self) -> Result<Value<'r>, Stop> {
        self.space();
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.string(Ctx::string)
            }
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b't') => self.word("true", self.ctx.bool(true)),
            Some(b'f') => self.word("false", self.ctx.bool(false)),
            Some(b'n') => self.word("null", self.ctx.null()),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str, value: Value<'r>) -> Result<Value<'r>, Stop> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(Stop::Left)
        }
    }

    fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Value<'r>, Stop>,
    ) -> Result<Value<'r>, Stop> {
        self.levels = self.levels.checked_sub(1).ok_or(Stop::Left)?;
        self.at += 1;
        let value = read(self)?;
        self.levels += 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value<'r>, Stop> {
        let object = self.ctx.object()?;
        if self.pass(b'}') {
            return Ok(object);
        }
        let mut order = KeyOrder::default();
        loop {
            self.expect(b'"')?;
            let key = self.string(Key::of_text)?;
            self.expect(b':')?;
            let member = self.value()?;
            object.define(&key, member)?;
            order.push(&key);
            if !self.pass(b',') {
                self.expect(b'}')?;
                if self.ctx.wants_shapes(order) {
                    self.ctx.hold_shapes(order, &object.keys()?)?;
                }
                return Ok(object);
            }
        }
    }

    fn array(&mut self) -> Result<Value<'r>, Stop> {
        let first = self.elements.len();
        if self.pass(b']') {
            return Ok(self.ctx.array_of(self.elements.drain(first..))?);
        }
        loop {
            let element = self.value()?;
            self.elements.push(element);
            if !self.pass(b',') {
                self.expect(b']')?;
                return Ok(self.ctx.array_of(self.elements.drain(first..))?);
            }
            if self.elements.len() - first == BATCH {
                break;
            }
        }
        let array = self.ctx.array_of(self.elements.drain(first..))?;
        for index in BATCH as u32.. {
            let element = self.value()?;
            array.define_index(index, element)?;
            if !self.pass(b',') {
                break;
            }
        }
        self.expect(b']')?;
        Ok(array)
    }

    /// What `make` makes of the text up to the closing quote.
    fn string<T>(
        &mut self,
        make: impl FnOnce(Ctx<'r>, &str) -> Result<T, Thrown>,
    ) -> Result<T, Stop> {
        let start = self.at;
        self.at += plain_len(&self.text.as_bytes()[start..]);
        let plain = &self.text[start..self.at];
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(make(self.ctx, plain)?);
        }
        self.unescaped.clear();
        self.unescaped.push_str(plain);
        while !self.pass_quote()? {
            let start = self.at;
            self.at += plain_len(&self.text.as_bytes()[start..]);
            self.unescaped.push_str(&self.text[start..self.at]);
        }
        Ok(make(self.ctx, &self.unescaped)?)
    }

    /// Passes the closing quote, else one escape.
    fn pass_quote(&mut self) -> Result<bool, Stop> {
        let byte = self.next()?;
        if byte == b'"' {
            return Ok(true);
        }
        if byte != b'\\' {
            return Err(Stop::Left);
        }
        let character = match self.next()? {
            quoted @ (b'"' | b'\\' | b'/') => char::from(quoted),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit()?;
                // The first of a pair, which JSON has as two escapes.
                let code = if (0xd800..0xdc00).contains(&unit) {
                    if (self.next()?, self.next()?) != (b'\\', b'u') {
                        return Err(Stop::Left);
                    }
                    let second = self.unit()?.wrapping_sub(0xdc00);
                    if second >= 0x400 {
                        return Err(Stop::Left);
                    }
                    0x1_0000 + ((unit - 0xd800) << 10) + second
                } else {
                    unit
                };
                char::from_u32(code).ok_or(Stop::Left)?
            }
            _ => return Err(Stop::Left),
        };
        self.unescaped.push(character);
        Ok(false)
    }

    fn next(&mut self) -> Result<u8, Stop> {
        let byte = self.peek().ok_or(Stop::Left)?;
        self.at += 1;
        Ok(byte)
    }

    /// The number of four hexadecimal digits.
    fn unit(&mut self) -> Result<u32, Stop> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16).ok_or(Stop::Left)?;
            unit = unit << 4 | digit;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<Value<'r>, Stop> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let first = self.at;
        let mut whole = 0i32;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            whole = whole.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - first;
        if digits == 0 || (digits > 1 && self.text.as_bytes()[first] == b'0') {
            return Err(Stop::Left);
        }
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            if self.peek() == Some(b'.') {
                self.at += 1;
                self.digits()?;
            }
            if let Some(b'e' | b'E') = self.peek() {
                self.at += 1;
                if let Some(b'+' | b'-') = self.peek() {
                    self.at += 1;
                }
                self.digits()?;
            }
        } else if digits <= INT_DIGITS && !(negative && whole == 0) {
            // Minus zero is no integer.
            return Ok(self.ctx.int(if negative { -whole } else { whole }));
        }
        // Correctly rounded, as C's `strtod` is; too large is infinite for both.
        match self.text[start..self.at].parse() {
            Ok(number) => Ok(self.ctx.number(number)),
            Err(_) => Err(Stop::Left),
        }
    }

    /// Passes one digit or more.
    fn digits(&mut self) -> Result<(), Stop> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start {
            Ok(())
        } else {
            Err(Stop::Left)
        }
    }
}

/// How many bytes stand before the next quote, backslash or control character.
fn plain_len(bytes: &[u8]) -> usize {
    /// One in each byte of a word.
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    let special = |byte: u8| byte == b'"' || byte == b'\\' || byte < 0x20;
    let mut at = 0;
    let (words, _) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        // The top bit of a byte is set where it is below: a zero after the difference, or less than 0x20. A byte after one that is set
        // may be set too, for the borrow; the first one is right.
        let below = |word: u64, than: u8| word.wrapping_sub(ONES * u64::from(than)) & !word & TOPS;
        let found = below(word, 0x20)
            | below(word ^ (ONES * u64::from(b'"')), 1)
            | below(word ^ (ONES * u64::from(b'\\')), 1);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + bytes[at..]
        .iter()
        .position(|byte| special(*byte))
        .unwrap_or(bytes.len() - at)
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
