//! Takes secrets out of lines for people and programs: known ones by their value, others by the name of the field they stand in.
//!
//! A name is one of a secret when it holds `password`, `secret`, `token` and the like, or ends in `key`. What follows it after
//! `=` or `:` is taken out, in quotes or bare; so is what follows `Bearer`, and the password of a URL.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::secrets::KnownSecrets;

/// What a removed secret leaves behind.
pub(crate) const REDACTED: &str = "[redacted]";
/// Parts of names of secrets, in small letters without `-` and `_`.
const PARTS: [&str; 8] = [
    "password",
    "passwd",
    "secret",
    "token",
    "authorization",
    "credential",
    "cookie",
    "adminemail",
];
/// Names that end in `key` and hide nothing.
const OPEN_KEYS: [&str; 3] = ["idempotencykey", "publickey", "primarykey"];

/// A line without the known values and without what stands after names of secrets.
pub(crate) fn redact<'l>(line: &'l str, known: &KnownSecrets) -> Cow<'l, str> {
    let line = known.take_out(line);
    match without_named(&line) {
        Some(text) => Cow::Owned(text),
        None => line,
    }
}

/// The line without what stands after names of secrets; `None` when there is nothing to take out.
fn without_named(line: &str) -> Option<String> {
    let mut out = String::new();
    let mut kept = 0;
    let mut at = 0;
    while at < line.len() {
        let rest = &line[at..];
        let word = rest.find(|c: char| !is_of_name(c)).unwrap_or(rest.len());
        if word == 0 {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        }
        let after = at + word;
        let secret = if rest[..word].eq_ignore_ascii_case("bearer") {
            bare(line, after + blanks(&line[after..]))
        } else if is_secret(&rest[..word]) {
            value_after(line, after)
        } else if line[after..].starts_with("://") {
            password_of_url(line, after + 3)
        } else {
            None
        };
        match secret {
            Some((from, to)) if from < to && !line[from..to].starts_with(REDACTED) => {
                out.push_str(&line[kept..from]);
                // A number in JSON stands without quotes, and what takes its place does not.
                let quote = quote_of_name(&line[..from]);
                for piece in [quote, REDACTED, quote] {
                    out.push_str(piece);
                }
                kept = to;
                at = to;
            }
            _ => at = after,
        }
    }
    if kept == 0 {
        return None;
    }
    out.push_str(&line[kept..]);
    Some(out)
}

/// The quote that ends a name in JSON right before a value without quotes; else nothing.
fn quote_of_name(before: &str) -> &'static str {
    let name = before.trim_end_matches(' ').strip_suffix(':');
    match name.map(|name| name.trim_end_matches(' ')) {
        Some(name) if name.ends_with("\\\"") => "\\\"",
        Some(name) if name.ends_with('"') => "\"",
        _ => "",
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// Whether what has this name is a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    let name: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    PARTS.iter().any(|part| name.contains(part))
        || (name.ends_with("key") && name != "key" && !OPEN_KEYS.contains(&name.as_str()))
}

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start_matches(' ').len()
}

/// Where the value stands whose name ends here: `name=value`, `name: value`, `"name":"value"`.
fn value_after(line: &str, name_ends: usize) -> Option<(usize, usize)> {
    let mut at = name_ends;
    at += 2 * usize::from(line[at..].starts_with("\\\""));
    at += usize::from(line[at..].starts_with(['"', '\'']));
    at += blanks(&line[at..]);
    if !line[at..].starts_with(['=', ':']) || line[at..].starts_with("::") {
        return None;
    }
    at += 1;
    at += blanks(&line[at..]);
    for (opens, closes) in [("\\\"", "\\\""), ("\"", "\""), ("'", "'")] {
        if line[at..].starts_with(opens) {
            let from = at + opens.len();
            return Some((from, from + end_of_quoted(&line[from..], closes)));
        }
    }
    let value = &line[at..];
    if value.to_ascii_lowercase().starts_with("bearer ") {
        return bare(line, at + "bearer ".len());
    }
    // What opens a list or an object is no value itself: its members are looked at one by one.
    if value.starts_with(['{', '[']) {
        None
    } else {
        bare(line, at)
    }
}

fn end_of_quoted(text: &str, closes: &str) -> usize {
    let mut from = 0;
    while let Some(found) = text[from..].find(closes) {
        let at = from + found;
        let escapes = text[..at]
            .bytes()
            .rev()
            .take_while(|byte| *byte == b'\\')
            .count();
        if closes.len() > 1 || escapes % 2 == 0 {
            return at;
        }
        from = at + closes.len();
    }
    text.len()
}

fn bare(line: &str, from: usize) -> Option<(usize, usize)> {
    let rest = line.get(from..)?;
    let length = rest
        .find(|c: char| {
            c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '&' | '}' | ')' | ']')
        })
        .unwrap_or(rest.len());
    Some((from, from + length))
}

/// Where the password stands in `scheme://user:password@host`.
fn password_of_url(line: &str, from: usize) -> Option<(usize, usize)> {
    let authority = line[from..]
        .split(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\''))
        .next()?;
    let user_info = &authority[..authority.rfind('@')?];
    let colon = user_info.find(':')?;
    Some((from + colon + 1, from + user_info.len()))
}

/// A writer of whole lines that takes secrets out of them.
pub(crate) struct Redacting<W> {
    inner: W,
    known: KnownSecrets,
}

impl<W> Redacting<W> {
    /// Before this writer.
    pub(crate) const fn new(inner: W, known: KnownSecrets) -> Self {
        Self { inner, known }
    }
}

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        self.inner
            .write_all(redact(&line, &self.known).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Stays;

    #[test]
    fn what_stands_after_a_name_of_a_secret_is_taken_out() {
        for (line, clean) in [
            ("password=hunter22 user=me", "password=[redacted] user=me"),
            (
                r#"{"api_key":"a\"b","n":1}"#,
                r#"{"api_key":"[redacted]","n":1}"#,
            ),
            (
                "Authorization: Bearer abc.def next",
                "Authorization: Bearer [redacted] next",
            ),
            ("sent Bearer abc.def", "sent Bearer [redacted]"),
            ("X-Api-Key: 'v 1'", "X-Api-Key: '[redacted]'"),
            (
                "at postgres://me:pw12@db/app",
                "at postgres://me:[redacted]@db/app",
            ),
            (
                r#""message":"bad \"token\":\"t1\" there""#,
                r#""message":"bad \"token\":\"[redacted]\" there""#,
            ),
            ("access_token=t1&x=2", "access_token=[redacted]&x=2"),
            (
                "key=K idempotency_key=order-1",
                "key=K idempotency_key=order-1",
            ),
            ("the token was wrong", "the token was wrong"),
            ("tasker_cli::token::x", "tasker_cli::token::x"),
            (
                "tokens: {\"secret\": \"s\"}",
                "tokens: {\"secret\": \"[redacted]\"}",
            ),
            ("größe password=ä", "größe password=[redacted]"),
            ("password=", "password="),
            (
                r#"{"prompt_tokens":12,"n":1}"#,
                r#"{"prompt_tokens":"[redacted]","n":1}"#,
            ),
            (
                r#"{"m":"{\"tokens\": 12}"}"#,
                r#"{"m":"{\"tokens\": \"[redacted]\"}"}"#,
            ),
        ] {
            assert_eq!(redact(line, &KnownSecrets::default()), clean, "{line}");
        }
    }

    #[test]
    fn a_writer_takes_out_what_is_known_and_what_is_named() {
        let known = KnownSecrets::default();
        known.add("sk-12345", Stays::ForEver);
        let mut out = Vec::new();
        Redacting::new(&mut out, known)
            .write_all(b"q=sk-12345 password=x1\n")
            .unwrap();
        assert_eq!(out, b"q=[redacted] password=[redacted]\n");
    }

    #[test]
    fn any_text_passes_without_a_panic() {
        let pieces = [
            "token", "=", ":", "\"", "\\", "\\\"", "://", "@", "é", " ", "Bearer ", "{", "x", "'",
        ];
        let known = KnownSecrets::default();
        known.add("xéx-xéx", Stays::ForEver);
        for a in pieces {
            for b in pieces {
                for c in pieces {
                    for d in pieces {
                        let _ = redact(&format!("{a}{b}{c}{d}"), &known);
                    }
                }
            }
        }
    }
}
