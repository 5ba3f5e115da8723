//! What commands and answers have in common: how a message is marked off, and the values that stand in both.
//!
//! A message is its length (8 bytes, little-endian) and its body. What each body holds is in [`super::commands`] and
//! [`super::answers`]. Bytecode never crosses.

use tasker_adaptor::{CallRecord, Failure, Json};

use super::wire::{Garbled, Input, Output};

/// Bytes of a message's length.
pub(crate) const LENGTH: usize = 8;

/// Links of a `cause` chain at most. No failure that was read back from a row has more: its JSON would be too deep.
const MAX_CAUSES: u32 = 128;

/// Writes one message.
pub(super) fn message(out: &mut Output, body: impl FnOnce(&mut Output)) {
    let start = out.0.len();
    out.0.extend_from_slice(&[0; LENGTH]);
    body(out);
    let length = (out.0.len() - start - LENGTH) as u64;
    out.0[start..start + LENGTH].copy_from_slice(&length.to_le_bytes());
}

/// The first whole message of `bytes`, and how many bytes it takes. `None`: more must come.
///
/// # Errors
/// Its length is over `max`.
pub(crate) fn split(bytes: &[u8], max: u64) -> Result<Option<(&[u8], usize)>, Garbled> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = u64::from_le_bytes(*length);
    if length > max {
        return Err(Garbled("it is longer than an answer can be"));
    }
    let length = length as usize;
    Ok(rest.get(..length).map(|body| (body, LENGTH + length)))
}

pub(super) fn write_record(out: &mut Output, record: &CallRecord) {
    let CallRecord {
        service,
        path,
        args,
    } = record;
    out.text(service);
    out.text(path);
    out.text(args);
}

pub(super) fn read_record(input: &mut Input<'_>) -> Result<CallRecord, Garbled> {
    Ok(CallRecord {
        service: input.text()?,
        path: input.text()?,
        args: input.text()?,
    })
}

pub(super) fn write_failure(out: &mut Output, failure: &Failure) {
    let Failure {
        name,
        message,
        kind,
        code,
        status,
        details,
        retry_after_ms,
        stack,
        cause,
    } = failure;
    out.text(name);
    out.text(message);
    out.option(kind.as_deref(), Output::text);
    out.option(code.as_deref(), Output::text);
    out.option(*status, |out, status| out.number(u64::from(status)));
    out.option(details.as_ref().map(Json::text), Output::text);
    out.option(*retry_after_ms, Output::number);
    out.option(stack.as_deref(), Output::text);
    out.option(cause.as_deref(), write_failure);
}

pub(super) fn read_failure(input: &mut Input<'_>) -> Result<Failure, Garbled> {
    read_failure_at(input, 0)
}

fn read_failure_at(input: &mut Input<'_>, depth: u32) -> Result<Failure, Garbled> {
    if depth > MAX_CAUSES {
        return Err(Garbled("a failure has too many causes"));
    }
    Ok(Failure {
        name: input.text()?,
        message: input.text()?,
        kind: input.option(Input::text)?,
        code: input.option(Input::text)?,
        status: input.option(|input| {
            u16::try_from(input.number()?).map_err(|_| Garbled("a status is too large"))
        })?,
        details: input.option(Input::json)?,
        retry_after_ms: input.option(Input::number)?,
        stack: input.option(Input::text)?,
        cause: input.option(|input| read_failure_at(input, depth + 1).map(Box::new))?,
    })
}
