//! JSDoc comments: text and tags, each tag with its type, name, default and description.
//!
//! Comments are found by the JavaScript parser; here their inside is read. Types and defaults stay text:
//! [`super::doc_type`] and [`super::literal`] give them meaning.

/// A comment, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Doc {
    /// Text before the first tag.
    pub(super) text: String,
    pub(super) tags: Vec<Tag>,
}

/// A tag and what follows it, up to the next tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// `param`, `returns`, …
    pub(super) kind: String,
    body: String,
}

/// The parts of a tag.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// Text between the braces.
    pub(super) type_text: Option<String>,
    /// Dotted name; empty when there is none.
    pub(super) name: String,
    /// The name was in brackets.
    pub(super) optional: bool,
    /// Text after `=` in the brackets.
    pub(super) default: Option<String>,
    pub(super) description: String,
}

impl Doc {
    /// Reads the text between `/**` and `*/`.
    pub(super) fn read(comment: &str) -> Self {
        let mut doc = Self::default();
        let mut fence = false;
        for line in comment.lines() {
            let line = without_star(line);
            let trimmed = line.trim();
            // A tag begins a line, but not inside a code block.
            if let Some((kind, rest)) = tag_start(trimmed).filter(|_| !fence) {
                doc.tags.push(Tag {
                    kind: kind.to_owned(),
                    body: rest.trim().to_owned(),
                });
                continue;
            }
            let into = match doc.tags.last_mut() {
                Some(tag) => &mut tag.body,
                None => &mut doc.text,
            };
            if !into.is_empty() {
                into.push('\n');
            }
            into.push_str(line.trim_end());
            fence ^= trimmed.starts_with("```");
        }
        doc.text = tidy(&doc.text);
        doc
    }

    /// The tags of this kind.
    pub(super) fn tags<'d>(&'d self, kinds: &'d [&str]) -> impl Iterator<Item = &'d Tag> {
        self.tags
            .iter()
            .filter(move |tag| kinds.contains(&tag.kind.as_str()))
    }
}

impl Tag {
    /// The whole text after the tag's word.
    pub(super) fn text(&self) -> String {
        tidy(&self.body)
    }

    /// `{type} name - description`, with `[name=default]`. A type alone, or a name alone, is fine.
    pub(super) fn parts(&self) -> Parts {
        let (type_text, rest) = self.split_type();
        let (mut parts, rest) = read_name(rest);
        parts.type_text = type_text;
        parts.description = description(rest);
        parts
    }

    /// `{type} description`, and `{type} [prop.path] - text` or `{type} prop.path - text` as a property.
    ///
    /// A property is in brackets, or is one dotted or plain name before ` - `: so prose does not lose its first word.
    pub(super) fn return_parts(&self) -> Parts {
        let (type_text, rest) = self.split_type();
        let (parts, after) = read_name(rest);
        let is_property = !parts.name.is_empty()
            && is_path(&parts.name)
            && (parts.optional || starts_with_dash(after));
        if is_property {
            Parts {
                type_text,
                description: description(after),
                ..parts
            }
        } else {
            Parts {
                type_text,
                description: description(rest),
                ..Parts::default()
            }
        }
    }

    fn split_type(&self) -> (Option<String>, &str) {
        let body = self.body.trim_start();
        if !body.starts_with('{') {
            return (None, body);
        }
        match closing(body) {
            Some(end) => (Some(body[1..end].trim().to_owned()), &body[end + 1..]),
            // An unclosed brace: no type, the rest of its line is prose.
            None => (None, body.trim_start_matches('{')),
        }
    }
}

/// Removes the indentation and the star that lines of a comment begin with.
fn without_star(line: &str) -> &str {
    let trimmed = line.trim_start();
    match trimmed.strip_prefix('*') {
        Some(rest) => rest.strip_prefix(' ').unwrap_or(rest),
        None => trimmed,
    }
}

/// `@word rest`.
fn tag_start(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix('@')?;
    let end = rest
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
        .unwrap_or(rest.len());
    let (kind, after) = rest.split_at(end);
    // `@scope/package` and `@me.com` in prose are no tags.
    (!kind.is_empty() && (after.is_empty() || after.starts_with([' ', '\t', '{', '['])))
        .then_some((kind, after))
}

/// The name at the start of `text` and what follows it.
fn read_name(text: &str) -> (Parts, &str) {
    let text = text.trim_start();
    let mut parts = Parts::default();
    if text.starts_with('[') {
        let Some(end) = closing(text) else {
            return (parts, text);
        };
        parts.optional = true;
        let inside = text[1..end].trim();
        match inside.split_once('=') {
            Some((name, default)) => {
                name.trim().clone_into(&mut parts.name);
                parts.default = Some(default.trim().to_owned());
            }
            None => inside.clone_into(&mut parts.name),
        }
        return (parts, &text[end + 1..]);
    }
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    // `name=default` without brackets is seen in the wild.
    match name.split_once('=') {
        Some((name, default)) if is_path(name) => {
            parts.optional = true;
            name.clone_into(&mut parts.name);
            parts.default = Some(default.to_owned());
        }
        // A lone dash begins the description: there is no name.
        _ if name.starts_with('-') => return (parts, text),
        _ => name
            .trim_end_matches([',', ':'])
            .clone_into(&mut parts.name),
    }
    (parts, rest)
}

/// Where the bracket that `text` begins with is closed; text in quotes does not count.
///
/// Without that bracket a quote is an apostrophe, so a second look ignores quotes.
fn closing(text: &str) -> Option<usize> {
    closing_with(text, true).or_else(|| closing_with(text, false))
}

fn closing_with(text: &str, quotes: bool) -> Option<usize> {
    let mut open = Vec::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '{' => open.push('}'),
            '[' => open.push(']'),
            '(' => open.push(')'),
            // A bracket that closes nothing of its kind is text.
            '}' | ']' | ')' if open.last() == Some(&c) => {
                open.pop();
                if open.is_empty() {
                    return Some(index);
                }
            }
            '"' | '\'' | '`' if quotes => loop {
                match chars.next()? {
                    (_, '\\') => {
                        chars.next();
                    }
                    (_, end) if end == c => break,
                    _ => {}
                }
            },
            _ => {}
        }
    }
    None
}

fn starts_with_dash(text: &str) -> bool {
    let text = text.trim_start_matches([' ', '\t']);
    text.strip_prefix(['-', '–', '—'])
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// The description without the dash before it.
fn description(text: &str) -> String {
    let text = text.trim_start();
    let text = if starts_with_dash(text) {
        text.trim_start_matches(['-', '–', '—'])
    } else {
        text
    };
    tidy(text)
}

/// Whether `name` is made of dotted identifiers and indices: `a`, `messages.0.role`, `items[].id`.
pub(super) fn is_path(name: &str) -> bool {
    name.replace("[]", ".0").split('.').all(|part| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '-'))
    })
}

/// Trims lines and text, keeps line breaks and blank lines between paragraphs.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.trim().lines() {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(line.trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(body: &str) -> Parts {
        let doc = Doc::read(&format!(" @param {body} "));
        assert_eq!(doc.tags.len(), 1, "{body}");
        doc.tags[0].parts()
    }

    fn expect(
        type_text: &str,
        name: &str,
        default: Option<&str>,
        optional: bool,
        description: &str,
    ) -> Parts {
        Parts {
            type_text: Some(type_text.to_owned()),
            name: name.to_owned(),
            optional,
            default: default.map(str::to_owned),
            description: description.to_owned(),
        }
    }

    #[test]
    fn text_and_tags_are_told_apart() {
        let doc = Doc::read(
            "*\n * Lists things.\n *\n * Mail me@example.com, see @scope/pkg.\n * @task list\n * @description More\n *   lines\n * @returns {string}\n ",
        );
        assert_eq!(
            doc.text,
            "Lists things.\n\nMail me@example.com, see @scope/pkg."
        );
        let tags: Vec<_> = doc
            .tags
            .iter()
            .map(|tag| (tag.kind.as_str(), tag.text()))
            .collect();
        assert_eq!(
            tags,
            [
                ("task", "list".to_owned()),
                ("description", "More\n  lines".to_owned()),
                ("returns", "{string}".to_owned())
            ]
        );
    }

    #[test]
    fn every_default_keeps_its_parameter() {
        assert_eq!(
            parts("{number} [input.max=3] - Most"),
            expect("number", "input.max", Some("3"), true, "Most")
        );
        assert_eq!(
            parts("{string} [x=\"gpt-4o\"] - Model"),
            expect("string", "x", Some("\"gpt-4o\""), true, "Model")
        );
        assert_eq!(
            parts("{string} [x=\"two words - and ] more\"] t"),
            expect("string", "x", Some("\"two words - and ] more\""), true, "t")
        );
        assert_eq!(
            parts("{number} [t=0.7]"),
            expect("number", "t", Some("0.7"), true, "")
        );
        assert_eq!(
            parts("{string[]} [l=[]] - List"),
            expect("string[]", "l", Some("[]"), true, "List")
        );
        assert_eq!(
            parts("{object} [o={a: [1, 2]}]"),
            expect("object", "o", Some("{a: [1, 2]}"), true, "")
        );
        assert_eq!(
            parts("{string} [x=don't] - odd"),
            expect("string", "x", Some("don't"), true, "odd")
        );
    }

    #[test]
    fn a_parameter_needs_no_dash_and_a_type_may_span_lines() {
        assert_eq!(
            parts("{string} name the name"),
            expect("string", "name", None, false, "the name")
        );
        assert_eq!(
            parts("{string} name"),
            expect("string", "name", None, false, "")
        );
        assert_eq!(
            parts("{{a: string,\n *  b: {c: number}}} input - In\n * two"),
            expect(
                "{a: string,\n b: {c: number}}",
                "input",
                None,
                false,
                "In\ntwo"
            )
        );
        assert_eq!(
            parts("name - untyped"),
            Parts {
                type_text: None,
                ..expect("", "name", None, false, "untyped")
            }
        );
    }

    #[test]
    fn prose_of_returns_is_no_property() {
        let read = |body: &str| Doc::read(&format!("@returns {body}")).tags[0].return_parts();
        assert_eq!(
            read("{Object} Domain information"),
            expect("Object", "", None, false, "Domain information")
        );
        assert_eq!(
            read("{string} [prop.path] - text"),
            expect("string", "prop.path", None, true, "text")
        );
        assert_eq!(
            read("{string} prop.path - text"),
            expect("string", "prop.path", None, false, "text")
        );
        assert_eq!(
            read("{string} - text"),
            expect("string", "", None, false, "text")
        );
        assert_eq!(read("{Object} Result - as it came").name, "Result");
        assert_eq!(read("the sum").description, "the sum");
    }

    #[test]
    fn unclosed_brackets_lose_only_themselves() {
        let doc = Doc::read("* Text {unclosed\n* @param {string name - n\n* @returns {string} ok");
        assert_eq!(doc.text, "Text {unclosed");
        assert_eq!(doc.tags[0].parts().type_text, None);
        assert_eq!(doc.tags[1].parts().type_text.as_deref(), Some("string"));
        assert_eq!(parts("{string} [a - text").name, "");
    }
}
