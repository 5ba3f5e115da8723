//! A thrown value as a [`Failure`], and a [`Failure`] as a thrown value.
//!
//! What a task throws may be anything: an error with hostile getters, a revoked proxy, a string, `null`. Reading it runs code of
//! the task under the turn's budget; what cannot be read is left out.

use tasker_adaptor::{Failure, Json};

use super::raw::{Ctx, Kind, Thrown, Value};
use super::show;
use super::write::Writer;

/// The file name of our own JavaScript; its frames are taken out of stacks.
pub(super) const PRELUDE: &str = "<tasker>";
/// Links of a `cause` chain that are kept.
const MAX_CAUSES: u32 = 8;
/// Text of a message or stack, in bytes.
const MAX_TEXT: usize = 16 << 10;
/// JSON of `details`, in bytes.
const MAX_DETAILS: usize = 64 << 10;

/// What was thrown, as data.
pub(super) fn failure_of(ctx: Ctx<'_>, thrown: &Value<'_>) -> Failure {
    failure_at(ctx, thrown, 0)
}

/// Takes the pending exception as data.
pub(super) fn pending_failure(ctx: Ctx<'_>) -> Failure {
    let thrown = ctx.exception();
    failure_of(ctx, &thrown)
}

fn failure_at<'r>(ctx: Ctx<'r>, thrown: &Value<'r>, depth: u32) -> Failure {
    match thrown.kind() {
        Kind::Object if !thrown.is_function() => {}
        Kind::String => return Failure::new("Error", cut(thrown.text().unwrap_or_default())),
        Kind::Null => return Failure::new("Error", "the task threw null"),
        Kind::Undefined => return Failure::new("Error", "the task threw undefined"),
        _ => {
            return Failure::new(
                "Error",
                cut(format!(
                    "the task threw {}",
                    show::value(ctx, thrown, MAX_TEXT)
                )),
            );
        }
    }
    let message = text(ctx, thrown, c"message");
    let name = text(ctx, thrown, c"name").filter(|name| !name.is_empty());
    let is_error = thrown.is_error() || (message.is_some() && name.is_some());
    let message = match message {
        Some(message) => message,
        None if is_error => String::new(),
        None => format!("the task threw {}", show::value(ctx, thrown, MAX_TEXT)),
    };
    let number = |key| match read(ctx, thrown, key).kind() {
        Kind::Int(number) => Some(f64::from(number)),
        Kind::Float(number) => Some(number),
        _ => None,
    };
    let status = number(c"status")
        .filter(|status| (0.0..=65_535.0).contains(status) && status.fract() == 0.0)
        .map(|status| status as u16);
    let retry_after_ms = number(c"retryAfterMs")
        .filter(|millis| (0.0..=9e15).contains(millis))
        .map(|millis| millis as u64);
    let code = read(ctx, thrown, c"code");
    let code = match code.kind() {
        Kind::String => code.as_string().map(cut),
        Kind::Int(_) | Kind::Float(_) => code.text().ok(),
        _ => None,
    };
    let details = json(ctx, thrown, c"details").or_else(|| json(ctx, thrown, c"errors"));
    let stack = text(ctx, thrown, c"stack")
        .map(|stack| clean_stack(&stack))
        .filter(|stack| !stack.is_empty());
    let cause = if depth + 1 < MAX_CAUSES {
        let cause = read(ctx, thrown, c"cause");
        match cause.kind() {
            Kind::Undefined | Kind::Null => None,
            _ => Some(Box::new(failure_at(ctx, &cause, depth + 1))),
        }
    } else {
        None
    };
    Failure {
        name: name.unwrap_or_else(|| "Error".to_owned()),
        message: cut(message),
        kind: text(ctx, thrown, c"type"),
        code,
        status,
        details,
        retry_after_ms,
        stack: stack.map(cut),
        cause,
    }
}

/// A member; `undefined` when reading it throws.
fn read<'r>(ctx: Ctx<'r>, thrown: &Value<'r>, key: &std::ffi::CStr) -> Value<'r> {
    thrown.get(key).unwrap_or_else(|Thrown| {
        drop(ctx.exception());
        ctx.undefined()
    })
}

fn text<'r>(ctx: Ctx<'r>, thrown: &Value<'r>, key: &std::ffi::CStr) -> Option<String> {
    read(ctx, thrown, key).as_string()
}

fn json<'r>(ctx: Ctx<'r>, thrown: &Value<'r>, key: &std::ffi::CStr) -> Option<Json> {
    let value = read(ctx, thrown, key);
    let written = Writer::new(ctx, MAX_DETAILS, 64).value(&value, "details");
    drop(ctx.exception());
    written.ok()?
}

/// The lines of the task's own files: without those of our own JavaScript and of native functions.
pub(super) fn clean_stack(stack: &str) -> String {
    let mut clean = String::new();
    for line in stack.lines() {
        let inner = line.contains(PRELUDE)
            || line.contains("(native)")
            || line.trim() == "at native"
            || line.contains("<json>");
        if inner || line.trim().is_empty() {
            continue;
        }
        if !clean.is_empty() {
            clean.push('\n');
        }
        clean.push_str(line);
    }
    clean
}

/// Cuts a text that is too long, on a character.
fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let mut end = MAX_TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The `Error` that a failure is in the task, made by `make` (a function of the prelude that takes the failure as data).
pub(super) fn error_of<'r>(
    ctx: Ctx<'r>,
    make: &Value<'r>,
    failure: &Failure,
) -> Result<Value<'r>, Thrown> {
    let text = serde_json::to_string(failure)
        .unwrap_or_else(|_| r#"{"name":"Error","message":"a failure that cannot be read"}"#.into());
    let data = super::read::value(ctx, &text)?;
    make.call(&[&data])
}
