//! Text columns that must hold any text: PostgreSQL's `text` refuses the character NUL.
//!
//! U+E000, a private-use character, is the escape: NUL is stored as U+E000 `0`, U+E000 itself as U+E000 `1`.
//! All other text is stored as it is. Payloads need none of this: JSON text writes NUL as `\u0000`.

use std::borrow::Cow;

const ESCAPE: char = '\u{e000}';

/// The text as a column takes it.
pub(crate) fn to_column(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    let mut column = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\0' => column.extend([ESCAPE, '0']),
            ESCAPE => column.extend([ESCAPE, '1']),
            other => column.push(other),
        }
    }
    Cow::Owned(column)
}

/// Reads [`to_column`] back. An escape that is followed by something else stands for itself: no text is refused.
pub(crate) fn from_column(column: String) -> String {
    if !column.contains(ESCAPE) {
        return column;
    }
    let mut text = String::with_capacity(column.len());
    let mut characters = column.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            (ESCAPE, Some('0')) => {
                characters.next();
                text.push('\0');
            }
            (ESCAPE, Some('1')) => {
                characters.next();
                text.push(ESCAPE);
            }
            (other, _) => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_and_plain_text_is_stored_as_it_is() {
        for text in [
            "",
            "plain",
            "a\0b",
            "\u{e000}",
            "\u{e000}0\0\u{e000}1",
            "\0\0",
        ] {
            let column = to_column(text).into_owned();
            assert!(!column.contains('\0'));
            assert_eq!(from_column(column), text);
        }
        assert!(matches!(to_column("plain ünïcode"), Cow::Borrowed(_)));
    }
}
