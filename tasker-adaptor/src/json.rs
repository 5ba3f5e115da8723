//! JSON as exact text.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A JSON value as the exact text it was written in: key order, number form, lone surrogates and `\u0000` survive.
///
/// Cheap to clone. Equal when the text is equal. Do not put one under `#[serde(flatten)]` or into an `untagged` enum:
/// that compiles and fails at run time (a property of serde_json's `RawValue`).
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Arc<RawValue>);

/// Text that is not JSON, or a value that JSON cannot hold.
#[derive(Debug, thiserror::Error)]
#[error("not valid JSON: {0}; give one JSON value, with text in double quotes")]
pub struct InvalidJson(#[source] serde_json::Error);

impl Json {
    /// The value `null`.
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned().into())
    }

    /// Checks that `text` is one JSON value and keeps it as it is, without white space around it.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidJson> {
        let text = text.into();
        match RawValue::from_string(text) {
            Ok(raw) => Ok(Self(raw.into())),
            Err(error) => Err(InvalidJson(error)),
        }
    }

    /// Serializes a value.
    pub fn from<T: Serialize + ?Sized>(value: &T) -> Result<Self, InvalidJson> {
        serde_json::value::to_raw_value(value)
            .map(|raw| Self(raw.into()))
            .map_err(InvalidJson)
    }

    /// Reads the value as `T`.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, InvalidJson> {
        serde_json::from_str(self.text()).map_err(InvalidJson)
    }

    /// The text, exactly as written.
    pub fn text(&self) -> &str {
        self.0.get()
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::null()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Json {}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_byte_for_byte() {
        for text in [
            r#"{"b":1,"a":1.0,"a":2}"#,
            r#""\ud800\u0000""#,
            "1e400",
            "-0",
            "[ 1 ]",
        ] {
            let json = Json::parse(text).unwrap();
            assert_eq!(json.text(), text);
            let wrapped = serde_json::to_string(&vec![json.clone()]).unwrap();
            let back: Vec<Json> = serde_json::from_str(&wrapped).unwrap();
            assert_eq!(back[0], json);
        }
    }

    #[test]
    fn what_is_not_one_value_is_refused() {
        for text in ["", "{", "1 2", "undefined", "'a'"] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
    }
}
