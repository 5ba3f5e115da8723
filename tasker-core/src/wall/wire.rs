//! The words of the pipe: numbers, texts and lists as bytes.
//!
//! Numbers are LEB128, texts and lists carry their length first. [`Input`] takes nothing on trust: a length never makes it reserve
//! more than there are bytes, and it never panics.

use tasker_adaptor::Json;

/// Bytes that do not say what they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Garbled(pub(crate) &'static str);

/// Bytes being written.
#[derive(Debug, Default)]
pub(crate) struct Output(pub(crate) Vec<u8>);

impl Output {
    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// A number that may be negative.
    pub(crate) fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.number(items.len() as u64);
        for item in items {
            write(self, item);
        }
    }
}

/// Bytes being read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, Garbled> {
        let (first, rest) = self.0.split_first().ok_or(Garbled("it ends too soon"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(Garbled("it ends too soon"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Garbled> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Garbled("a number is too large"))
    }

    /// A number of 32 bits.
    pub(crate) fn small(&mut self) -> Result<u32, Garbled> {
        u32::try_from(self.number()?).map_err(|_| Garbled("a number is too large"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Garbled> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, Garbled> {
        let length =
            usize::try_from(self.number()?).map_err(|_| Garbled("a text is longer than all"))?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| Garbled("a text is not UTF-8"))
    }

    pub(crate) fn text(&mut self) -> Result<String, Garbled> {
        self.str().map(str::to_owned)
    }

    pub(crate) fn json(&mut self) -> Result<Json, Garbled> {
        Json::parse(self.str()?).map_err(|_| Garbled("a payload is not JSON"))
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Garbled>,
    ) -> Result<Option<T>, Garbled> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Garbled("an option is neither there nor not")),
        }
    }

    pub(crate) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Garbled>,
    ) -> Result<Vec<T>, Garbled> {
        let count = usize::try_from(self.number()?)
            .ok()
            .filter(|count| *count <= self.0.len())
            .ok_or(Garbled("a list is longer than all"))?;
        // Each item takes at least a byte; what it takes in memory is bounded by what has come.
        let mut items = Vec::with_capacity(count.min(1_024));
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// All has been read.
    pub(crate) fn end(self) -> Result<(), Garbled> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Garbled("it goes on after its end"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(numbers: Vec<u64>, signed: i64, text: String, option: Option<u64>) {
            let mut out = Output::default();
            out.list(numbers.iter(), |out, n| out.number(*n));
            out.signed(signed);
            out.text(&text);
            out.option(option, Output::number);
            let mut input = Input(&out.0);
            prop_assert_eq!(input.list(Input::number).unwrap(), numbers);
            prop_assert_eq!(input.signed().unwrap(), signed);
            prop_assert_eq!(input.text().unwrap(), text);
            prop_assert_eq!(input.option(Input::number).unwrap(), option);
            input.end().unwrap();
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = Input(&bytes).list(Input::json);
            let _ = Input(&bytes).list(|input| input.option(Input::text));
            let _ = Input(&bytes).number();
        }
    }
}
