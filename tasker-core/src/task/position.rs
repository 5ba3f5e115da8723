//! Lines, columns and the lines around a place in a source text.

use std::fmt::Write as _;

/// A place in a text, both numbers from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// The place of a byte offset. An offset past the end, or inside a character, counts as the character before it.
pub(super) fn position(source: &str, offset: usize) -> Position {
    let mut end = offset.min(source.len());
    while !source.is_char_boundary(end) {
        end -= 1;
    }
    let before = &source[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: before.matches('\n').count() as u32 + 1,
        column: before[line_start..].chars().count() as u32 + 1,
    }
}

/// The line of `at` with its neighbours and a mark below the column.
pub(super) fn code_frame(source: &str, at: Position) -> String {
    /// Longer lines are shown around the mark only.
    const WIDTH: usize = 120;
    let first = at.line.saturating_sub(1).max(1);
    let digits = (at.line + 1).to_string().len();
    let mut frame = String::new();
    for (index, text) in source
        .lines()
        .enumerate()
        .skip(first as usize - 1)
        .take((at.line + 2 - first) as usize)
    {
        let number = index as u32 + 1;
        let mark = if number == at.line { '>' } else { ' ' };
        let column = at.column as usize - 1;
        let skip = column.saturating_sub(WIDTH / 2);
        let shown: String = text
            .chars()
            .skip(skip)
            .take(WIDTH)
            .map(|c| if c == '\t' { ' ' } else { c })
            .collect();
        let _ = write!(frame, "\n{mark} {number:>digits$} | {}", shown.trim_end());
        if number == at.line {
            let _ = write!(
                frame,
                "\n  {:>digits$} | {}^",
                "",
                " ".repeat(column - skip)
            );
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = "a\nöb\n";
        assert_eq!(position(text, 0), Position { line: 1, column: 1 });
        assert_eq!(position(text, 4), Position { line: 2, column: 2 });
        assert_eq!(position(text, 3), Position { line: 2, column: 1 });
        assert_eq!(position(text, 99), Position { line: 3, column: 1 });
    }

    #[test]
    fn a_frame_marks_the_column() {
        let frame = code_frame("one\ntwo\nthree\nfour", Position { line: 2, column: 3 });
        assert_eq!(frame, "\n  1 | one\n> 2 | two\n    |   ^\n  3 | three");
    }
}
