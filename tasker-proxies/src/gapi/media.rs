//! Uploads in one request: the media of a call, with its metadata as `multipart/related` or by itself.
//!
//! `media: {mimeType, body}` beside `requestBody`, as users of Google's Node client write it; bytes that are no text as
//! `{mimeType, base64}`. Uploads in several requests (`resumable`) are not made: what a call can hold fits in one.

use std::hash::{DefaultHasher, Hash, Hasher};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use tasker_core::Json;

/// The media of a call.
#[derive(Debug)]
pub(super) struct Media {
    mime_type: String,
    bytes: Vec<u8>,
}

/// The body of an upload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upload {
    /// `uploadType` in the query.
    pub(super) kind: &'static str,
    pub(super) content_type: String,
    pub(super) bytes: Vec<u8>,
}

impl Media {
    /// # Errors
    /// What is wrong with it, for the author of the task.
    pub(super) fn read(json: &Json) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Written {
            mime_type: Option<String>,
            body: Option<String>,
            base64: Option<String>,
        }
        let form = "media is {mimeType, body} with a text, or {mimeType, base64} with bytes";
        let written: Written = json.to().map_err(|error| format!("{form}: {error}"))?;
        let bytes = match (written.body, written.base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(base64)) => BASE64_STANDARD
                .decode(base64)
                .map_err(|error| format!("media.base64 is no base64: {error}"))?,
            _ => return Err(form.to_owned()),
        };
        let default = || "application/octet-stream".to_owned();
        let mime_type = written.mime_type.unwrap_or_else(default);
        let plain = |c: char| c.is_ascii_graphic() || c == ' ';
        if mime_type.is_empty() || !mime_type.chars().all(plain) {
            return Err("media.mimeType is a type such as text/plain".to_owned());
        }
        Ok(Self { mime_type, bytes })
    }

    /// The upload, with the metadata when there is any.
    pub(super) fn upload(self, metadata: Option<&Json>) -> Upload {
        let Some(metadata) = metadata else {
            return Upload {
                kind: "media",
                content_type: self.mime_type,
                bytes: self.bytes,
            };
        };
        let boundary = self.boundary(metadata);
        let mut bytes = Vec::with_capacity(self.bytes.len() + metadata.text().len() + 256);
        let head = format!(
            "--{boundary}\r\nContent-Type: application/json\r\n\r\n{metadata}\r\n--{boundary}\r\nContent-Type: {}\r\n\r\n",
            self.mime_type
        );
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&self.bytes);
        bytes.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        Upload {
            kind: "multipart",
            content_type: format!("multipart/related; boundary={boundary}"),
            bytes,
        }
    }

    /// A text that is in neither part. Made from the parts, so that the same call sends the same bytes.
    fn boundary(&self, metadata: &Json) -> String {
        let mut hasher = DefaultHasher::new();
        (&self.bytes, metadata.text()).hash(&mut hasher);
        let mut boundary = format!("tasker-{:016x}", hasher.finish());
        let holds = |bytes: &[u8], text: &str| {
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        while holds(&self.bytes, &boundary) || metadata.text().contains(&boundary) {
            boundary.push('x');
        }
        boundary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text).unwrap()
    }

    #[test]
    fn media_is_a_text_or_bytes_and_nothing_else() {
        let text = Media::read(&json(r#"{"mimeType":"text/plain","body":"é"}"#)).unwrap();
        assert_eq!(text.bytes, "é".as_bytes());
        let bytes = Media::read(&json(r#"{"base64":"/wA="}"#)).unwrap();
        assert_eq!(
            (&*bytes.bytes, &*bytes.mime_type),
            (&[0xff, 0][..], "application/octet-stream")
        );
        for wrong in [
            "1",
            "{}",
            r#"{"body":"a","base64":"/wA="}"#,
            r#"{"base64":"?"}"#,
            r#"{"body":"a","mimeType":"a\r\nb: c"}"#,
            r#"{"body":"a","size":1}"#,
        ] {
            Media::read(&json(wrong)).unwrap_err();
        }
    }

    #[test]
    fn the_boundary_is_in_no_part() {
        let metadata = json("{}");
        let media = |bytes: Vec<u8>| Media {
            mime_type: "a/b".to_owned(),
            bytes,
        };
        let first = media(b"x".to_vec()).boundary(&metadata);
        assert!(first.starts_with("tasker-"));
        let again = media(b"x".to_vec()).boundary(&metadata);
        assert_eq!(first, again);
        let upload = media(b"x".to_vec()).upload(Some(&metadata));
        let text = String::from_utf8(upload.bytes).unwrap();
        assert_eq!(
            text,
            format!(
                "--{first}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{first}\r\nContent-Type: a/b\r\n\r\nx\r\n--{first}--\r\n"
            )
        );
    }
}
