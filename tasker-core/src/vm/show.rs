//! Values as people read them in log lines: like JSON, with words for what JSON cannot hold.
//!
//! Reading a value runs its getters; whatever fails is shown as `[unreadable]`. The text is bounded, so is the depth.

use std::fmt::Write as _;

use super::raw::{Ctx, Kind, Thrown, Value};
use super::write::quote;

/// Deeper levels are shown as `…`.
const MAX_DEPTH: usize = 12;

/// One value: a string as it is, an error with its stack, anything else as [`Shower`] writes it.
pub(super) fn value(ctx: Ctx<'_>, value: &Value<'_>, max_bytes: usize) -> String {
    if value.kind() == Kind::String {
        return value.text().unwrap_or_default();
    }
    let mut shower = Shower {
        ctx,
        out: String::new(),
        max_bytes,
        ancestors: Vec::new(),
    };
    if is_error(value) {
        shower.error(value, true);
    } else {
        shower.show(value);
    }
    drop(ctx.exception());
    shower.out
}

fn is_error(value: &Value<'_>) -> bool {
    value.is_error() || value.brand().as_deref() == Some("DOMException")
}

struct Shower<'r> {
    ctx: Ctx<'r>,
    out: String,
    max_bytes: usize,
    ancestors: Vec<usize>,
}

impl<'r> Shower<'r> {
    /// Whether there is no room, or no time, for more.
    fn is_full(&self) -> bool {
        self.out.len() > self.max_bytes || self.ctx.is_tripped()
    }

    fn say(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into a `String` cannot fail.
        let _ = self.out.write_fmt(text);
    }

    fn show(&mut self, value: &Value<'r>) {
        match value.kind() {
            Kind::Undefined => self.out.push_str("undefined"),
            Kind::String => self.quoted(value),
            Kind::Symbol => {
                let name = value
                    .get(c"description")
                    .ok()
                    .and_then(|text| text.as_string());
                self.say(format_args!("Symbol({})", name.unwrap_or_default()));
            }
            Kind::BigInt => {
                self.plain(value);
                self.out.push('n');
            }
            Kind::Float(number) if number == 0.0 && number.is_sign_negative() => {
                self.out.push_str("-0");
            }
            Kind::Object => self.object(value),
            Kind::Other => self.unreadable(),
            _ => self.plain(value),
        }
    }

    fn unreadable(&mut self) {
        drop(self.ctx.exception());
        self.out.push_str("[unreadable]");
    }

    /// `String(value)`.
    fn plain(&mut self, value: &Value<'r>) {
        match value.text() {
            Ok(text) => self.out.push_str(&text),
            Err(Thrown) => self.unreadable(),
        }
    }

    fn quoted(&mut self, value: &Value<'r>) {
        let room = self.max_bytes.saturating_sub(self.out.len());
        let quoted = value.with_text(|text| {
            let mut out = Vec::new();
            quote(&text[..text.len().min(room.saturating_add(1))], &mut out);
            String::from_utf8_lossy(&out).into_owned()
        });
        match quoted {
            Ok(text) => self.out.push_str(&text),
            Err(Thrown) => self.unreadable(),
        }
    }

    fn error(&mut self, value: &Value<'r>, with_stack: bool) {
        let failure = super::capture::failure_of(self.ctx, value);
        if !with_stack {
            self.say(format_args!("[{failure}]"));
            return;
        }
        self.out.push_str(&failure.to_string());
        let mut next = Some(&failure);
        while let Some(failure) = next {
            if let Some(stack) = &failure.stack {
                self.out.push('\n');
                self.out.push_str(stack);
            }
            next = failure.cause.as_deref();
            if let Some(cause) = next {
                self.say(format_args!("\ncaused by {cause}"));
            }
        }
    }

    fn object(&mut self, value: &Value<'r>) {
        if value.is_function() {
            let name = value.get(c"name").ok().and_then(|name| name.as_string());
            drop(self.ctx.exception());
            match name.as_deref() {
                None | Some("") => self.out.push_str("[Function]"),
                Some(name) => self.say(format_args!("[Function: {name}]")),
            }
            return;
        }
        let identity = value.identity();
        if self.ancestors.contains(&identity) {
            self.out.push_str("[Circular]");
            return;
        }
        if self.ancestors.len() >= MAX_DEPTH {
            self.out.push('…');
            return;
        }
        self.ancestors.push(identity);
        if self.branded(value).is_err() {
            self.unreadable();
        }
        self.ancestors.pop();
    }

    fn branded(&mut self, value: &Value<'r>) -> Result<(), Thrown> {
        let brand = value.brand().unwrap_or_default();
        match brand.as_str() {
            "Error" | "DOMException" => self.error(value, false),
            "Date" => {
                let text = match value.get(c"toISOString")?.call_on(value, &[]) {
                    Ok(text) => text.text()?,
                    Err(Thrown) => "Invalid Date".to_owned(),
                };
                drop(self.ctx.exception());
                self.out.push_str(&text);
            }
            "RegExp" => self.plain(value),
            "Number" | "String" | "Boolean" | "BigInt" => {
                self.say(format_args!("[{brand}: {}]", value.text()?));
            }
            "Promise" | "WeakMap" | "WeakSet" | "Generator" | "AsyncGenerator" => {
                self.say(format_args!("[{brand}]"));
            }
            "ArrayBuffer" => {
                let size = value.with_bytes(|bytes| bytes.len()).unwrap_or(0);
                self.say(format_args!("[ArrayBuffer: {size} bytes]"));
            }
            "Map" | "Set" => self.collection(value, &brand)?,
            "Array" => self.list(value)?,
            _ if value.is_typed_array() => {
                self.say(format_args!("{brand}({}) ", value.length()?));
                self.list(value)?;
            }
            _ => {
                let to_json = value.get(c"toJSON")?;
                if to_json.is_function() {
                    let shown = to_json.call_on(value, &[])?;
                    self.show(&shown);
                } else {
                    self.members(value)?;
                }
            }
        }
        Ok(())
    }

    fn list(&mut self, value: &Value<'r>) -> Result<(), Thrown> {
        self.out.push('[');
        for index in 0..value.length()? {
            if index > 0 {
                self.out.push(',');
            }
            if self.is_full() {
                self.out.push('…');
                break;
            }
            let element = value.get_index(u32::try_from(index).unwrap_or(u32::MAX))?;
            self.show(&element);
        }
        self.out.push(']');
        Ok(())
    }

    fn members(&mut self, value: &Value<'r>) -> Result<(), Thrown> {
        self.out.push('{');
        for (index, key) in value.keys()?.into_iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            if self.is_full() {
                self.out.push('…');
                break;
            }
            let mut name = Vec::new();
            key.with_text(|text| quote(text, &mut name))?;
            self.out.push_str(&String::from_utf8_lossy(&name));
            self.out.push(':');
            match value.get_key(&key) {
                Ok(member) => self.show(&member),
                Err(Thrown) => self.unreadable(),
            }
        }
        self.out.push('}');
        Ok(())
    }

    fn collection(&mut self, value: &Value<'r>, brand: &str) -> Result<(), Thrown> {
        let size = value.get(c"size")?.text()?;
        self.say(format_args!("{brand}({size}) {{"));
        let entries = value.get(c"entries")?.call_on(value, &[])?;
        let next = entries.get(c"next")?;
        let mut first = true;
        loop {
            let step = next.call_on(&entries, &[])?;
            if step.get(c"done")?.kind() != Kind::Bool(false) {
                break;
            }
            if !first {
                self.out.push_str(", ");
            }
            first = false;
            if self.is_full() {
                self.out.push('…');
                break;
            }
            let entry = step.get(c"value")?;
            self.show(&entry.get_index(0)?);
            if brand == "Map" {
                self.out.push_str(" => ");
                self.show(&entry.get_index(1)?);
            }
        }
        self.out.push('}');
        Ok(())
    }
}
