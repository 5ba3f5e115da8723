//! The arguments of one link of a chain, read as what the link wants.

use serde::Deserialize;
use tasker_core::Json;
use tasker_core::service::{Link, ServiceError};

/// The arguments of a link.
pub(super) struct Args<'a> {
    link: &'a Link,
    args: &'a [Json],
}

impl<'a> Args<'a> {
    pub(super) fn of(link: &'a Link) -> Result<Self, ServiceError> {
        match link.args.as_deref() {
            Some(args) => Ok(Self { link, args }),
            None => Err(format_error(&format!("{} is not called in it", link.name))),
        }
    }

    pub(super) fn wrong(&self, text: &str) -> ServiceError {
        ServiceError::validation(format!("supabase: {}(…): {text}", self.link.name))
    }

    pub(super) fn get(&self, index: usize) -> Option<&'a Json> {
        self.args.get(index)
    }

    pub(super) fn value(&self, index: usize, what: &str) -> Result<&'a Json, ServiceError> {
        let value = self.get(index);
        value.ok_or_else(|| self.wrong(&format!("argument {} is missing: {what}", index + 1)))
    }

    pub(super) fn text(&self, index: usize, what: &str) -> Result<String, ServiceError> {
        let value = self.value(index, what)?.to();
        value.map_err(|_| self.wrong(&format!("argument {} is a text: {what}", index + 1)))
    }

    pub(super) fn column(&self) -> Result<String, ServiceError> {
        self.text(0, "the name of a column")
    }

    pub(super) fn optional(&self, index: usize) -> Result<Option<String>, ServiceError> {
        match self.get(index) {
            None => Ok(None),
            Some(value) => value
                .to()
                .map_err(|_| self.wrong(&format!("argument {} is a text", index + 1))),
        }
    }

    pub(super) fn number(&self, index: usize) -> Result<i64, ServiceError> {
        let value = self.value(index, "a whole number")?.to();
        value.map_err(|_| self.wrong(&format!("argument {} is a whole number", index + 1)))
    }

    pub(super) fn list(&self, index: usize) -> Result<&'a Json, ServiceError> {
        let value = self.value(index, "a list")?;
        if is_array(value) {
            Ok(value)
        } else {
            Err(self.wrong(&format!("argument {} is a list", index + 1)))
        }
    }

    pub(super) fn options<T: Default + for<'de> Deserialize<'de>>(
        &self,
        index: usize,
    ) -> Result<T, ServiceError> {
        match self.get(index) {
            None => Ok(T::default()),
            Some(value) if value.text() == "null" => Ok(T::default()),
            Some(value) => value
                .to()
                .map_err(|error| self.wrong(&format!("its options cannot be read: {error}"))),
        }
    }

    /// A value as JavaScript writes it into a text: lists joined by commas, `null` within them empty.
    pub(super) fn plain(&self, value: &Json) -> Result<String, ServiceError> {
        let text = value.text();
        match text.as_bytes() {
            [b'"', ..] => value.to().map_err(|_| {
                self.wrong("a value holds half a surrogate pair, which no database text can")
            }),
            [b'[', ..] => {
                let items = value.elements().map_err(ServiceError::internal)?;
                let items: Result<Vec<String>, ServiceError> = items
                    .iter()
                    .map(|item| match item.text() {
                        "null" => Ok(String::new()),
                        _ => self.plain(item),
                    })
                    .collect();
                Ok(items?.join(","))
            }
            [b'{', ..] => Err(self.wrong(
                "an object is no value to compare with; give a text, a number, true, false or null",
            )),
            _ => Ok(text.to_owned()),
        }
    }
}

pub(super) fn is_array(value: &Json) -> bool {
    value.text().starts_with('[')
}

pub(super) fn format_error(text: &str) -> ServiceError {
    ServiceError::validation(format!(
        "supabase: the chain cannot be a request: {text}; write it as in supabase-js: from('table').select('*').eq('id', 1)"
    ))
    .with_code("INVALID_CHAIN_FORMAT")
}

pub(super) fn unknown_method(name: &str, text: &str) -> ServiceError {
    ServiceError::not_found(format!("supabase: {name:?} cannot stand here: {text}"))
        .with_code("METHOD_NOT_FOUND")
}
