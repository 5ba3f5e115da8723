//! JSON as exact text.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use serde_json::value::RawValue;

/// A JSON value as the exact text it was written in: key order, number form, lone surrogates and `\u0000` survive.
///
/// Cheap to clone. Equal when the text is equal. Do not put one under `#[serde(flatten)]` or into an `untagged` enum:
/// that compiles and fails at run time (a property of serde_json's `RawValue`).
#[derive(Clone)]
pub struct Json(Arc<str>);

/// Text that is not JSON, or a value that JSON cannot hold.
#[derive(Debug, thiserror::Error)]
#[error("not valid JSON: {0}; give one JSON value, with text in double quotes")]
pub struct InvalidJson(#[source] serde_json::Error);

impl Json {
    /// The value `null`.
    pub fn null() -> Self {
        Self("null".into())
    }

    /// Checks that `text` is one JSON value and keeps it as it is, without white space around it.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidJson> {
        let text = text.into();
        match RawValue::from_string(text) {
            Ok(raw) => Ok(raw.into()),
            Err(error) => Err(InvalidJson(error)),
        }
    }

    /// Keeps a text that its caller has just written as one JSON value, without another look: for writers of JSON, which are tested to
    /// write nothing else. Of any other text [`Json::parse`] is the way in; debug builds panic at one that it would refuse.
    #[doc(hidden)]
    pub fn written(text: &str) -> Self {
        debug_assert!(
            serde_json::from_str::<&RawValue>(text).is_ok_and(|raw| raw.get() == text),
            "a writer of JSON wrote what is no JSON value: {text:?}"
        );
        Self(text.into())
    }

    /// Serializes a value.
    pub fn from<T: Serialize + ?Sized>(value: &T) -> Result<Self, InvalidJson> {
        serde_json::value::to_raw_value(value)
            .map(Into::into)
            .map_err(InvalidJson)
    }

    /// Reads the value as `T`.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, InvalidJson> {
        serde_json::from_str(self.text()).map_err(InvalidJson)
    }

    /// The elements of an array, each as the exact text that it has there.
    ///
    /// # Errors
    /// When it is no array.
    pub fn elements(&self) -> Result<Vec<Self>, InvalidJson> {
        let elements: Vec<Element> = serde_json::from_str(self.text()).map_err(InvalidJson)?;
        Ok(elements.into_iter().map(|Element(json)| json).collect())
    }

    /// The text, exactly as written.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// A value in a text that outlives its reading, so that it is copied once.
struct Element(Json);

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(Self(Json(raw.get().into())))
    }
}

impl From<Box<RawValue>> for Json {
    fn from(raw: Box<RawValue>) -> Self {
        Self(Box::<str>::from(raw).into())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(self.text())
            .map_err(ser::Error::custom)?
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Into::into)
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
    #[cfg_attr(debug_assertions, should_panic(expected = "no JSON value"))]
    fn a_writer_that_writes_no_json_is_noticed() {
        // What a release build keeps is still refused where it would be put into other JSON.
        assert!(serde_json::to_string(&[Json::written("1,2")]).is_err());
    }

    #[test]
    fn elements_of_an_array_have_their_text() {
        let texts = |text: &str| {
            let elements = Json::parse(text).unwrap().elements().ok()?;
            Some(
                elements
                    .iter()
                    .map(|json| json.text().to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(texts("[]").unwrap(), [""; 0]);
        assert_eq!(
            texts(r#"[ {"b" : 1.0} ,"\ud800", -0,[[ ]]]"#).unwrap(),
            [r#"{"b" : 1.0}"#, r#""\ud800""#, "-0", "[[ ]]"]
        );
        for text in ["{}", "1", "null", r#""[]""#] {
            assert_eq!(texts(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_one_value_is_refused() {
        for text in ["", "{", "1 2", "undefined", "'a'"] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
    }
}
