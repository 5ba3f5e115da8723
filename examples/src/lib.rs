//! What the example programs share. The programs themselves are in `src/bin/`, the tasks that they run in `tasks/`.

pub mod fakes;
pub mod killed;
pub mod metered;

/// JSON text on several lines, two spaces a level. Only white space between values changes: numbers, key order and escapes stay
/// as the task wrote them, which a parse into a tree would not promise.
pub fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.push_str(&"  ".repeat(depth));
    };
    let mut characters = json.chars().peekable();
    while let Some(character) = characters.next() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            text.push(character);
            continue;
        }
        match character {
            '{' | '[' => {
                text.push(character);
                while characters.next_if(|next| next.is_whitespace()).is_some() {}
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(end);
                } else {
                    depth += 1;
                    line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(character);
            }
            ',' => {
                text.push(character);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            '"' => {
                in_string = true;
                text.push(character);
            }
            other if other.is_whitespace() => {}
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::indented;

    #[test]
    fn only_white_space_between_values_changes() {
        let text = r#"{"b": [1.0, "a,\"{:\\"] ,"a":{},"c":[ ],"d":-0}"#;
        let expected = "{\n  \"b\": [\n    1.0,\n    \"a,\\\"{:\\\\\"\n  ],\n  \"a\": {},\n  \"c\": [],\n  \"d\": -0\n}";
        assert_eq!(indented(text), expected);
        assert_eq!(indented(expected), expected);
    }
}
