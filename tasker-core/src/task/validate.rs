//! Whether a value fits a shape.
//!
//! Shapes come from a task's comment, so they say what the author meant: other members are allowed, and what a shape
//! does not say is not checked. The value is read as text, because JSON that a task can hold (lone surrogates, numbers
//! beyond `f64`) is more than `serde_json::Value` can.

use tasker_adaptor::Json;

use super::schema::Schema;
use super::schema_text::Members;
use super::shape::{Kind, Shape};

/// Faults that are listed; more are counted.
const LISTED: usize = 20;

impl Schema {
    /// Checks an input against what the task documents.
    ///
    /// # Errors
    /// One line for each fault, with the path in the value: `input.messages[0].role: expected text, found 3`.
    pub fn validate(&self, input: &Json) -> Result<(), Vec<String>> {
        let Some(expected) = &self.input else {
            return Ok(());
        };
        if expected.optional && input.text() == "null" {
            return Ok(());
        }
        let mut faults = Vec::new();
        check(&expected.shape, input, &expected.name, &mut faults);
        let more = faults.len().saturating_sub(LISTED);
        if more > 0 {
            faults.truncate(LISTED);
            faults.push(format!("and {more} more"));
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults)
        }
    }
}

fn check(shape: &Shape, value: &Json, path: &str, faults: &mut Vec<String>) {
    let text = value.text();
    if text == "null" && (shape.nullable || matches!(shape.kind, Kind::Any | Kind::Null)) {
        return;
    }
    let first = text.as_bytes().first().copied().unwrap_or_default();
    let is_number = matches!(first, b'-' | b'0'..=b'9');
    let fits = match &shape.kind {
        Kind::Any => true,
        // `null` was seen above.
        Kind::Null => false,
        Kind::Boolean => matches!(first, b't' | b'f'),
        Kind::Number => is_number,
        Kind::Integer => is_number && is_whole(text),
        Kind::String => first == b'"',
        Kind::DateTime => first == b'"' && is_date(value),
        Kind::Enum(values) => values.iter().any(|one| same_literal(one, value)),
        Kind::Array(items) => match value.elements() {
            Ok(found) if first == b'[' => {
                for (index, item) in found.iter().enumerate() {
                    check(items, item, &format!("{path}[{index}]"), faults);
                }
                true
            }
            _ => false,
        },
        Kind::Map(values) => {
            if first == b'{' {
                for (name, member) in Members::of(value).0 {
                    check(values, &member, &format!("{path}.{name}"), faults);
                }
            }
            first == b'{'
        }
        Kind::Object(members) => {
            if first == b'{' {
                let found = Members::of(value);
                for member in members {
                    let path = format!("{path}.{}", member.name);
                    match found.find(&member.name) {
                        Some(value) if member.optional && value.text() == "null" => {}
                        Some(value) => check(&member.shape, value, &path, faults),
                        None if member.optional => {}
                        None => faults.push(format!(
                            "{path}: is missing, expected {}",
                            name(&member.shape)
                        )),
                    }
                }
            }
            first == b'{'
        }
        Kind::Union(shapes) => shapes.iter().any(|one| {
            let mut none = Vec::new();
            check(one, value, path, &mut none);
            none.is_empty()
        }),
    };
    if !fits {
        faults.push(format!(
            "{path}: expected {}, found {}",
            name(shape),
            shown(text)
        ));
    }
}

fn is_whole(text: &str) -> bool {
    text.parse::<f64>()
        .is_ok_and(|number| number.is_finite() && number.fract() == 0.0)
}

/// A date with or without a time, and with a zone or not: what `new Date(text)` takes.
fn is_date(value: &Json) -> bool {
    value.to::<String>().is_ok_and(|text| {
        text.parse::<jiff::Timestamp>().is_ok()
            || text.parse::<jiff::civil::DateTime>().is_ok()
            || text.parse::<jiff::civil::Date>().is_ok()
    })
}

fn same_literal(one: &Json, other: &Json) -> bool {
    one == other
        || match (
            one.to::<serde_json::Value>(),
            other.to::<serde_json::Value>(),
        ) {
            (Ok(one), Ok(other)) => match (one.as_f64(), other.as_f64()) {
                (Some(one), Some(other)) => one.total_cmp(&other).is_eq(),
                _ => one == other,
            },
            _ => false,
        }
}

/// A shape for people.
fn name(shape: &Shape) -> String {
    let kind = match &shape.kind {
        Kind::Any => "anything".to_owned(),
        Kind::Null => "null".to_owned(),
        Kind::Boolean => "true or false".to_owned(),
        Kind::Integer => "a whole number".to_owned(),
        Kind::Number => "a number".to_owned(),
        Kind::String => "text".to_owned(),
        Kind::DateTime => "a date as ISO text".to_owned(),
        Kind::Enum(values) => {
            let values: Vec<_> = values.iter().map(Json::text).collect();
            format!("one of {}", values.join(", "))
        }
        Kind::Array(_) => "an array".to_owned(),
        Kind::Object(_) | Kind::Map(_) => "an object".to_owned(),
        Kind::Union(shapes) => shapes.iter().map(name).collect::<Vec<_>>().join(" or "),
    };
    if shape.nullable {
        format!("{kind} or null")
    } else {
        kind
    }
}

/// The beginning of a value.
fn shown(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut start: String = text.chars().take(SHOWN).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}
