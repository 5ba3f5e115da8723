//! Text that must not be seen.

use std::fmt;

/// What a removed secret leaves behind.
pub(crate) const REDACTED: &str = "[redacted]";

/// A key, token or password. Prints as `[redacted]` and cannot be serialized.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text as a secret. White space around it (a newline at the end of a file) does not belong to it.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(text.as_ref().trim().to_owned())
    }

    /// Takes a text as it is, white space and all.
    #[cfg(feature = "keystore")]
    pub(crate) const fn exact(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An environment variable; `None` when it is not set or empty.
    pub fn from_env(name: &str) -> Option<Self> {
        let secret = Self::new(std::env::var(name).ok()?);
        (!secret.is_empty()).then_some(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// `text` without these secrets. Those shorter than 4 letters stay: they would be found in words that hide nothing.
#[cfg(feature = "_http")]
pub(crate) fn redact(text: &str, secrets: &[Secret]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        if secret.0.len() >= 4 && text.contains(&secret.0) {
            text = text.replace(&secret.0, REDACTED);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::new("sk-12345\n");
        assert_eq!(secret.expose(), "sk-12345");
        assert_eq!(
            format!("{secret:?} {:#?}", Some(&secret))
                .matches("12345")
                .count(),
            0
        );
    }

    #[cfg(feature = "_http")]
    #[test]
    fn a_secret_is_taken_out_of_a_text() {
        let secrets = [Secret::new("sk-12345"), Secret::new("a"), Secret::new("")];
        assert_eq!(redact("bad key sk-12345!", &secrets), "bad key [redacted]!");
    }
}
