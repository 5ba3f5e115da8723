//! A bound on how deep a parser must recurse for a text, counted before it is parsed.
//!
//! The parser is recursive and does not watch its stack, so `((((…` of a few thousand brackets would end the process.
//! This scan follows the tokens of the text without building anything. Where JavaScript cannot be split into tokens
//! without parsing it (`/` after `}` is a division or a regular expression), both readings are tried on the spot, and
//! a text for which they differ is refused: a wrong guess could hide brackets.

use super::TaskError;
use super::position::position;

/// Brackets and operators that may be open at one place. The parsing thread has stack for ten times as many.
pub(super) const LIMIT: u32 = 5_000;

/// Refuses a text that nests deeper than [`LIMIT`].
pub(super) fn check(file: &str, source: &str) -> Result<(), TaskError> {
    match Scan::new(source).run() {
        Ok(()) => Ok(()),
        Err(fault) => {
            let at = position(source, fault.offset);
            let file = file.to_owned();
            Err(match fault.kind {
                FaultKind::TooDeep => TaskError::TooDeep {
                    file,
                    line: at.line,
                    column: at.column,
                    limit: LIMIT,
                },
                FaultKind::Ambiguous => TaskError::Syntax {
                    file,
                    line: at.line,
                    column: at.column,
                    message: "this slash can be a division or the start of a regular expression; put the expression in parentheses or a semicolon before it".to_owned(),
                },
                FaultKind::HtmlComment => TaskError::Syntax {
                    file,
                    line: at.line,
                    column: at.column,
                    message: "comments in the form of HTML (<!-- and -->) are not taken; write // instead".to_owned(),
                },
            })
        }
    }
}

/// [`check`] for a text with types: angle brackets nest there, so all of them count.
pub(super) fn check_types(file: &str, source: &str) -> Result<(), TaskError> {
    check(file, source)?;
    match source.match_indices('<').nth(LIMIT as usize) {
        None => Ok(()),
        Some((offset, _)) => {
            let at = position(source, offset);
            Err(TaskError::TooDeep {
                file: file.to_owned(),
                line: at.line,
                column: at.column,
                limit: LIMIT,
            })
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Fault {
    offset: usize,
    kind: FaultKind,
}

#[derive(Debug, PartialEq, Eq)]
enum FaultKind {
    TooDeep,
    Ambiguous,
    HtmlComment,
}

/// What the token before a slash says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// A value ended: the slash divides.
    Value,
    /// A value is to come: the slash starts a regular expression.
    Operator,
    /// Either.
    Unclear,
}

/// What the last token was, where it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// A `}` that may have ended a statement.
    Block,
    /// `if`, `for`, `while` or `with`.
    HeadWord,
    /// A dot: the next word is a name, whatever it says.
    Dot,
    /// Anything else.
    Other,
}

/// An open bracket.
struct Open {
    bracket: u8,
    /// Operators and keywords since the last end of an expression inside it.
    run: u32,
    /// Statements that another one completes: `if (…)`, `else`, `do`, labels. They stay open over commas and semicolons.
    heads: u32,
    /// Colons since the last comma: labels, members of objects, halves of `?:`.
    colons: u32,
    /// Question marks of `?:` since the last comma.
    questions: u32,
    /// `if (…)`, `for (…)`, `while (…)`, `with (…)`: a statement follows, so a slash after it starts an expression.
    is_head: bool,
}

impl Open {
    const fn new(bracket: u8, is_head: bool) -> Self {
        Self {
            bracket,
            run: 0,
            heads: 0,
            colons: 0,
            questions: 0,
            is_head,
        }
    }

    const fn count(&self) -> u32 {
        self.run + self.heads + self.colons
    }
}

struct Scan<'s> {
    bytes: &'s [u8],
    at: usize,
    open: Vec<Open>,
    /// Sum of one and the counts of each open bracket.
    depth: u32,
    /// The last token was a semicolon: `else` and `while` go on with the statement before, other tokens begin a new one.
    after_semicolon: bool,
    before: Before,
    last: Last,
}

impl<'s> Scan<'s> {
    fn new(source: &'s str) -> Self {
        Self {
            bytes: source.as_bytes(),
            at: 0,
            open: vec![Open::new(b'{', false)],
            depth: 1,
            after_semicolon: false,
            before: Before::Operator,
            last: Last::Other,
        }
    }

    fn run(mut self) -> Result<(), Fault> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if self.depth > LIMIT {
                return Err(self.fault(FaultKind::TooDeep));
            }
            let start = self.at;
            self.at += 1;
            let blank = blank(self.bytes, start);
            self.at += blank.saturating_sub(1);
            let is_blank = blank > 0 || (byte == b'/' && matches!(self.peek(), b'/' | b'*'));
            if !is_blank && std::mem::take(&mut self.after_semicolon) && !self.goes_on(start) {
                self.end_statement();
            }
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c => {}
                0x80.. if is_blank => {}
                b'/' if self.peek() == b'/' => self.skip_line(),
                b'/' if self.peek() == b'*' => {
                    self.at = find(self.bytes, self.at + 1, b"*/")
                        .map_or(self.bytes.len(), |end| end + 2);
                }
                b'#' if start == 0 && self.peek() == b'!' => self.skip_line(),
                b'/' => self.slash(start)?,
                b'"' | b'\'' => {
                    self.end_block_before_value();
                    if !self.skip_string(byte) {
                        // The parser stops at such a string.
                        return Ok(());
                    }
                    self.token(Before::Value);
                }
                b'`' => {
                    self.operator();
                    self.open(b'`', false);
                    self.template();
                }
                b'(' | b'[' | b'{' => {
                    self.operator();
                    self.open(byte, byte == b'(' && self.last == Last::HeadWord);
                    self.token(Before::Operator);
                }
                b')' | b']' | b'}' => self.close(byte),
                b';' => {
                    self.end_expression();
                    self.token(Before::Operator);
                    self.after_semicolon = true;
                }
                b',' => {
                    self.end_item();
                    self.token(Before::Operator);
                }
                b':' => {
                    if let Some(open) = self.open.last_mut() {
                        open.colons += 1;
                        self.depth += 1;
                    }
                    self.token(Before::Operator);
                }
                b'?' => {
                    self.operator();
                    if matches!(self.peek(), b'?' | b'.') {
                        self.at += 1;
                    } else if let Some(open) = self.open.last_mut() {
                        open.questions += 1;
                    }
                    self.token(Before::Operator);
                }
                b'.' if self.peek().is_ascii_digit() => {
                    self.skip_word();
                    self.token(Before::Value);
                }
                b'.' => {
                    self.operator();
                    self.token(Before::Operator);
                    self.last = Last::Dot;
                }
                b'+' | b'-' if self.peek() == byte => {
                    if byte == b'-'
                        && self.bytes.get(self.at + 1) == Some(&b'>')
                        && self.begins_line(start)
                    {
                        return Err(self.fault(FaultKind::HtmlComment));
                    }
                    self.at += 1;
                    self.operator();
                    self.token(Before::Unclear);
                }
                b'<' if self.bytes[self.at..].starts_with(b"!--") => {
                    return Err(self.fault(FaultKind::HtmlComment));
                }
                b'0'..=b'9' => {
                    self.end_block_before_value();
                    self.skip_word();
                    self.token(Before::Value);
                }
                b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'\\' | b'#' | b'@' | 0x80.. => {
                    self.skip_word();
                    self.word(start);
                }
                _ => {
                    self.operator();
                    self.token(Before::Operator);
                }
            }
        }
        if self.depth > LIMIT {
            return Err(self.fault(FaultKind::TooDeep));
        }
        Ok(())
    }

    fn word(&mut self, start: usize) {
        let word = &self.bytes[start..self.at];
        if self.last == Last::Dot {
            self.token(Before::Value);
            return;
        }
        match word {
            // These begin a statement that only an expression ends: no expression before them goes on.
            b"const" | b"var" | b"return" | b"throw" | b"break" | b"continue" => {
                self.end_block_before_value();
                self.end_expression();
            }
            // Before these every statement is complete.
            b"case" | b"default" => self.end_statement(),
            b"if" | b"for" | b"with" | b"do" => {
                self.end_block_before_value();
                self.head();
            }
            b"else" | b"while" => self.head(),
            // These go on after a block.
            b"catch" | b"finally" | b"in" | b"of" | b"instanceof" | b"as" | b"satisfies"
            | b"extends" | b"implements" | b"from" => self.operator(),
            _ => {
                self.end_block_before_value();
                if is_keyword(word) {
                    self.operator();
                }
            }
        }
        let before = match word {
            b"await" | b"yield" | b"of" | b"let" | b"static" | b"async" | b"get" | b"set"
            | b"as" | b"satisfies" | b"implements" | b"type" => Before::Unclear,
            _ if is_keyword(word) => Before::Operator,
            _ => Before::Value,
        };
        let is_head = matches!(word, b"if" | b"for" | b"while" | b"with")
            // `for await (…)`
            || (word == b"await" && self.last == Last::HeadWord);
        self.token(before);
        if is_head {
            self.last = Last::HeadWord;
        }
    }

    fn slash(&mut self, start: usize) -> Result<(), Fault> {
        let regex_end = regex_end(self.bytes, start);
        match (self.before, regex_end) {
            (Before::Value, _) | (_, None) => {
                self.operator();
                self.token(Before::Operator);
            }
            (Before::Operator, Some(end)) => {
                self.end_block_before_value();
                self.at = end;
                self.skip_word();
                self.token(Before::Value);
            }
            (Before::Unclear, Some(end)) => {
                // Both readings agree when the text between the slashes opens, closes and quotes nothing,
                // and none of its characters can start a comment.
                let inside = &self.bytes[start + 1..end - 1];
                if inside.iter().any(|byte| b"()[]{}\"'`\\/<->".contains(byte)) {
                    self.at = start;
                    return Err(self.fault(FaultKind::Ambiguous));
                }
                self.operator();
                self.token(Before::Unclear);
            }
        }
        Ok(())
    }

    /// Inside a template, after its first quote or after a substitution.
    fn template(&mut self) {
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'`' => {
                    self.shut();
                    self.token(Before::Value);
                    return;
                }
                b'$' if self.peek() == b'{' => {
                    self.at += 1;
                    self.open(b'$', false);
                    self.token(Before::Operator);
                    return;
                }
                _ => {}
            }
        }
    }

    fn open(&mut self, bracket: u8, is_head: bool) {
        self.open.push(Open::new(bracket, is_head));
        self.depth += 1;
    }

    /// Takes the innermost bracket off, whatever it is: the text around decides nothing here.
    fn shut(&mut self) -> Option<Open> {
        if self.open.len() < 2 {
            return None;
        }
        let open = self.open.pop()?;
        self.depth -= 1 + open.count();
        Some(open)
    }

    fn close(&mut self, byte: u8) {
        let expected: &[u8] = match byte {
            b')' => b"(",
            b']' => b"[",
            _ => b"{$",
        };
        // A bracket that closes nothing of its kind is where the parser stops; what follows may count or not.
        let fits = self
            .open
            .last()
            .is_some_and(|open| expected.contains(&open.bracket));
        if !fits {
            self.token(Before::Unclear);
            return;
        }
        let closed = self.shut();
        match closed {
            Some(open) if open.bracket == b'$' => {
                self.template();
                return;
            }
            Some(open) if open.is_head => self.token(Before::Operator),
            _ if byte == b'}' => self.token(Before::Unclear),
            _ => self.token(Before::Value),
        }
        if byte == b'}' {
            self.last = Last::Block;
        }
    }

    /// Counts something that the parser may recurse for.
    fn operator(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.run += 1;
            self.depth += 1;
        }
    }

    /// Counts the head of a statement.
    fn head(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.heads += 1;
            self.depth += 1;
        }
    }

    /// An expression ended; the statement it belongs to may go on.
    fn end_expression(&mut self) {
        if let Some(open) = self.open.last_mut() {
            self.depth -= open.run;
            open.run = 0;
        }
    }

    /// An item of a list ended, or a part of a comma expression, which leaves the heads and labels before it open.
    fn end_item(&mut self) {
        self.end_expression();
        if let Some(open) = self.open.last_mut() {
            self.depth -= open.colons;
            if open.bracket == b'{' {
                // An object has one colon for each item, and one for each `?`; what is more are labels.
                let labels = open.colons.saturating_sub(open.questions + 1);
                open.heads += labels;
                self.depth += labels;
            }
            open.colons = 0;
            open.questions = 0;
        }
    }

    /// A statement ended with all its heads.
    fn end_statement(&mut self) {
        if let Some(open) = self.open.last_mut() {
            self.depth -= open.count();
            *open = Open::new(open.bracket, open.is_head);
        }
    }

    /// Whether the token at `start` goes on with the statement before a semicolon.
    fn goes_on(&self, start: usize) -> bool {
        [&b"else"[..], b"while"].iter().any(|word| {
            self.bytes[start..].starts_with(word)
                && !self.bytes.get(start + word.len()).is_some_and(|&byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'\\' | 0x80..)
                })
        })
    }

    /// Whether only blanks and comments come before `start` in its line.
    fn begins_line(&self, start: usize) -> bool {
        let line = self.bytes[..start]
            .iter()
            .rposition(|&byte| matches!(byte, b'\n' | b'\r' | 0xa8 | 0xa9))
            .map_or(0, |newline| newline + 1);
        let before = self.bytes[line..start].trim_ascii();
        before.is_empty() || before.ends_with(b"*/")
    }

    /// A value right after `}` begins a new statement or member.
    fn end_block_before_value(&mut self) {
        if self.last == Last::Block {
            self.end_statement();
        }
    }

    fn token(&mut self, before: Before) {
        self.before = before;
        self.last = Last::Other;
    }

    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or_default()
    }

    fn skip_line(&mut self) {
        while self.at < self.bytes.len() && line_end(self.bytes, self.at) == 0 {
            self.at += 1;
        }
    }

    fn skip_word(&mut self) {
        while self.bytes.get(self.at).is_some_and(|&byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'\\' | 0x80..)
        }) && blank(self.bytes, self.at) == 0
        {
            self.at += 1;
        }
    }

    /// Whether the string ends.
    fn skip_string(&mut self, quote: u8) -> bool {
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => {
                    // `\` and CR LF continue the string as one.
                    self.at += if self.bytes[self.at..].starts_with(b"\r\n") {
                        2
                    } else {
                        1
                    };
                }
                b'\n' | b'\r' => return false,
                _ if byte == quote => return true,
                _ => {}
            }
        }
        false
    }

    const fn fault(&self, kind: FaultKind) -> Fault {
        Fault {
            offset: self.at.saturating_sub(1),
            kind,
        }
    }
}

/// Length of the line end at `at`; U+2028 and U+2029 end lines too.
fn line_end(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'\n' | b'\r') => 1,
        Some(0xe2) if matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])) => 3,
        _ => 0,
    }
}

/// Length of the blank at `at`; JavaScript has more of them than ASCII.
fn blank(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..).unwrap_or_default() {
        [b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c, ..] => 1,
        // U+00A0
        [0xc2, 0xa0, ..] => 2,
        // U+1680, U+2000 to U+200A, U+2028, U+2029, U+202F, U+205F, U+3000, U+FEFF
        [0xe1, 0x9a, 0x80, ..]
        | [0xe2, 0x80, 0x80..=0x8a | 0xa8 | 0xa9 | 0xaf, ..]
        | [0xe2, 0x81, 0x9f, ..]
        | [0xe3, 0x80, 0x80, ..]
        | [0xef, 0xbb, 0xbf, ..] => 3,
        _ => 0,
    }
}

/// The offset after the slash that ends the regular expression at `start`; `None` when its line ends first.
fn regex_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    let mut in_class = false;
    while at < bytes.len() && line_end(bytes, at) == 0 {
        match bytes[at] {
            b'\\' => at += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'/' if !in_class => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

fn find(bytes: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    bytes
        .get(from..)?
        .windows(needle.len())
        .position(|window| window == needle)
        .map(|index| from + index)
}

fn is_keyword(word: &[u8]) -> bool {
    matches!(
        word,
        b"async"
            | b"await"
            | b"case"
            | b"class"
            | b"delete"
            | b"do"
            | b"else"
            | b"export"
            | b"extends"
            | b"for"
            | b"function"
            | b"if"
            | b"import"
            | b"in"
            | b"instanceof"
            | b"let"
            | b"new"
            | b"of"
            | b"switch"
            | b"try"
            | b"typeof"
            | b"void"
            | b"while"
            | b"with"
            | b"yield"
            | b"catch"
            | b"finally"
            | b"default"
            | b"as"
            | b"satisfies"
            | b"implements"
            | b"keyof"
            | b"infer"
            | b"readonly"
            | b"unique"
    )
}

#[cfg(test)]
mod tests;
