//! Values as people read them in log lines.

use super::raw::{Ctx, Kind, Value};
use super::write::Writer;

/// One value: a string as it is, an error with its stack, anything else as JSON, or by its kind where JSON has no word for it.
pub(super) fn value(ctx: Ctx<'_>, value: &Value<'_>, max_bytes: usize) -> String {
    let shown = match value.kind() {
        Kind::String => value.text().ok(),
        Kind::Undefined => Some("undefined".to_owned()),
        Kind::Symbol => value
            .get(c"description")
            .ok()
            .and_then(|text| text.as_string())
            .map(|text| format!("Symbol({text})")),
        Kind::BigInt => value.text().ok().map(|digits| format!("{digits}n")),
        Kind::Float(number) if !number.is_finite() => value.text().ok(),
        Kind::Object => object(ctx, value, max_bytes),
        Kind::Other => Some("[unreadable]".to_owned()),
        _ => Writer::new(ctx, max_bytes, 100)
            .value(value, "value")
            .ok()
            .flatten(),
    };
    drop(ctx.exception());
    shown.unwrap_or_else(|| "[unreadable]".to_owned())
}

fn object(ctx: Ctx<'_>, value: &Value<'_>, max_bytes: usize) -> Option<String> {
    if value.is_function() {
        let name = value.get(c"name").ok().and_then(|name| name.as_string());
        return Some(match name.as_deref() {
            None | Some("") => "[Function]".to_owned(),
            Some(name) => format!("[Function: {name}]"),
        });
    }
    if value.is_error() {
        let failure = super::capture::failure_of(ctx, value);
        let mut text = failure.to_string();
        if let Some(stack) = &failure.stack {
            text.push('\n');
            text.push_str(stack);
        }
        return Some(text);
    }
    Writer::new(ctx, max_bytes, 100)
        .value(value, "value")
        .ok()
        .flatten()
}
