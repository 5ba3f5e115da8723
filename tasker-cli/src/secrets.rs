//! The values that nothing that is written to standard error may hold: those of secret settings, and those that pass through the
//! keystore while this process runs.
//!
//! A value is looked for as it is, as it stands in JSON, in JSON inside of JSON and so on, and as it stands in a URL. Of a value that is a
//! JSON object the members with names of secrets are looked for too. Invariants: of two values that begin alike the longer one is
//! taken out whole · a line costs the same however many values are known.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use crate::redact::{REDACTED, is_secret};

/// Shorter values would be found in words that hide nothing.
const SHORTEST: usize = 6;
/// How deep in JSON inside of JSON a value is looked for: what a service of the folder says of a request's body is three deep in a
/// log in JSON.
const JSON_IN_JSON: usize = 4;
/// Bytes of values that came at run time and are remembered. Of more those that came first are forgotten.
const MOST_BYTES: usize = 256 << 10;
/// A longer value is looked for piece by piece, each so long: what a line costs to look at must not depend on one value.
const PIECE: usize = 16 << 10;

/// The values known to this process.
static KNOWN: LazyLock<KnownSecrets> = LazyLock::new(KnownSecrets::default);

/// Keeps the values of settings out of standard error from now on, for ever.
pub(crate) fn hide_settings(values: &[String]) {
    for value in values {
        KNOWN.add(value, Stays::ForEver);
    }
}

/// Keeps a value that came at run time out of standard error from now on.
pub(crate) fn hide(value: &str) {
    KNOWN.add(value, Stays::WhileThereIsRoom);
}

/// The values known to this process.
pub(crate) fn known() -> KnownSecrets {
    KNOWN.clone()
}

/// Values to take out of lines. Clones know the same.
#[derive(Clone, Default)]
pub(crate) struct KnownSecrets(Arc<RwLock<Values>>);

/// How long a value is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stays {
    ForEver,
    WhileThereIsRoom,
}

#[derive(Default)]
struct Values {
    all: BTreeSet<String>,
    /// Those that may be forgotten, in the order in which they came.
    order: VecDeque<String>,
    /// Their bytes.
    bytes: usize,
    /// Finds all of them; made anew when it is needed after there were more.
    finder: Option<Arc<AhoCorasick>>,
}

impl KnownSecrets {
    /// Takes this value out of lines from now on, if it is not too short.
    pub(crate) fn add(&self, value: &str, stays: Stays) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for value in std::iter::once(value.to_owned()).chain(members(value)) {
            for piece in pieces(&value) {
                known.add(piece, stays);
            }
        }
    }

    /// A line without them.
    pub(crate) fn take_out<'l>(&self, line: &'l str) -> Cow<'l, str> {
        match self.finder() {
            Some(finder) if finder.is_match(line) => {
                let mut clean = String::with_capacity(line.len());
                finder.replace_all_with(line, &mut clean, |_, _, clean| {
                    clean.push_str(REDACTED);
                    true
                });
                Cow::Owned(clean)
            }
            _ => Cow::Borrowed(line),
        }
    }

    fn finder(&self) -> Option<Arc<AhoCorasick>> {
        {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if known.all.is_empty() || known.finder.is_some() {
                return known.finder.clone();
            }
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.finder.is_none() {
            let forms: BTreeSet<String> = known.all.iter().flat_map(|value| forms(value)).collect();
            let finder = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                // The small one: values may be long.
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(forms);
            known.finder = Some(Arc::new(finder.expect(
                "MOST_BYTES of texts and those of the settings are far below what it takes: 2 GiB",
            )));
        }
        known.finder.clone()
    }
}

impl Values {
    fn add(&mut self, value: &str, stays: Stays) {
        if value.len() < SHORTEST || !self.all.insert(value.to_owned()) {
            return;
        }
        self.finder = None;
        if stays == Stays::ForEver {
            return;
        }
        self.bytes += value.len();
        self.order.push_back(value.to_owned());
        while self.bytes > MOST_BYTES
            && self.order.len() > 1
            && let Some(first) = self.order.pop_front()
        {
            self.bytes -= first.len();
            self.all.remove(&first);
        }
    }
}

/// A value in pieces of at most [`PIECE`] bytes.
fn pieces(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The texts of a value that is a JSON object, as accounts of services are, whose names say that they are secrets.
fn members(value: &str) -> Vec<String> {
    if !value.trim_start().starts_with('{') {
        return Vec::new();
    }
    let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(value);
    let members = object.unwrap_or_default().into_iter();
    let secret = members.filter(|(name, _)| is_secret(name));
    secret
        .filter_map(|(_, member)| member.as_str().map(str::to_owned))
        .collect()
}

/// How a value may be written.
fn forms(value: &str) -> Vec<String> {
    let in_json = |text: &str| {
        let quoted = serde_json::Value::from(text).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let in_form: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
    let in_url = in_form.replace('+', "%20");
    let mut forms = vec![value.to_owned(), in_form, in_url];
    let mut text = value.to_owned();
    for _ in 0..JSON_IN_JSON {
        text = in_json(&text);
        forms.push(text.clone());
    }
    forms.sort_unstable();
    forms.dedup();
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(values: &[&str]) -> KnownSecrets {
        let known = KnownSecrets::default();
        for value in values {
            known.add(value, Stays::WhileThereIsRoom);
        }
        known
    }

    #[test]
    fn values_are_taken_out_in_every_form_that_a_line_may_have() {
        let known = known(&["a\"b\nprivate", "with blank&more", "ab"]);
        for line in [
            "x a\"b\nprivate y",
            r#"{"m":"x a\"b\nprivate y"}"#,
            r#"{"m":"{\"m\":\"x a\\\"b\\nprivate y\"}"}"#,
            r#"{"m":"{\"m\":\"{\\\"m\\\":\\\"x a\\\\\\\"b\\\\nprivate y\\\"}\"}"}"#,
            "GET /x?k=with+blank%26more",
            "GET /x?k=with%20blank%26more",
        ] {
            let clean = known.take_out(line);
            assert!(clean.contains(REDACTED), "{line}: {clean}");
            assert!(
                !clean.contains("private") && !clean.contains("blank"),
                "{line}: {clean}"
            );
        }
        assert_eq!(
            known.take_out("ab stays: it is too short"),
            "ab stays: it is too short"
        );
    }

    #[test]
    fn of_values_that_begin_alike_the_longer_is_taken_out_whole() {
        let known = known(&["secret-1", "secret-12345"]);
        assert_eq!(
            known.take_out("secret-12345 secret-1!"),
            "[redacted] [redacted]!"
        );
    }

    #[test]
    fn values_may_come_at_any_time_and_be_many() {
        let known = known(&["first-value"]);
        known.add("of-a-setting", Stays::ForEver);
        let line = "first-value other-value";
        assert_eq!(known.take_out(line), "[redacted] other-value");
        known.add("other-value", Stays::WhileThereIsRoom);
        assert_eq!(known.take_out(line), "[redacted] [redacted]");
        let large = "x".repeat(MOST_BYTES / 100);
        for n in 0..200 {
            known.add(&format!("{n:04}{large}"), Stays::WhileThereIsRoom);
        }
        assert_eq!(known.take_out(&format!("0199{large}")), REDACTED);
        assert_eq!(known.take_out("of-a-setting"), REDACTED);
        assert_eq!(known.take_out("first-value"), "first-value", "forgotten");
        assert!(known.0.read().unwrap().all.len() < 110);
        let long = "é".repeat(PIECE);
        known.add(&long, Stays::WhileThereIsRoom);
        let clean = known.take_out(&long).into_owned();
        assert_eq!(clean.replace(REDACTED, ""), "", "piece by piece");
    }

    #[test]
    fn an_account_in_json_is_known_by_its_members_too() {
        let known = known(&[r#"{"type":"service_account","private_key":"-----BEGIN\nMII\n"}"#]);
        assert_eq!(known.take_out("-----BEGIN\nMII\n!"), "[redacted]!");
        assert_eq!(known.take_out("service_account"), "service_account");
    }
}
