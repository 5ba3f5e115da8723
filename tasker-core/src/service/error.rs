//! What a service answers when it cannot do what was asked.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};
use tasker_adaptor::{Failure, Json};

/// The ten kinds of service errors, the same in Rust, in tasks, on the wire and in rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceErrorType {
    /// `VALIDATION_ERROR` (400): the arguments are wrong.
    #[serde(rename = "VALIDATION_ERROR")]
    Validation,
    /// `AUTHENTICATION_ERROR` (401): who asks is not known.
    #[serde(rename = "AUTHENTICATION_ERROR")]
    Authentication,
    /// `AUTHORIZATION_ERROR` (403): who asks may not.
    #[serde(rename = "AUTHORIZATION_ERROR")]
    Authorization,
    /// `NOT_FOUND_ERROR` (404).
    #[serde(rename = "NOT_FOUND_ERROR")]
    NotFound,
    /// `CONFLICT_ERROR` (409).
    #[serde(rename = "CONFLICT_ERROR")]
    Conflict,
    /// `RATE_LIMIT_ERROR` (429).
    #[serde(rename = "RATE_LIMIT_ERROR")]
    RateLimit,
    /// `EXTERNAL_SERVICE_ERROR` (502): the provider behind the service failed.
    #[serde(rename = "EXTERNAL_SERVICE_ERROR")]
    External,
    /// `INTERNAL_ERROR` (500): the service itself failed.
    #[serde(rename = "INTERNAL_ERROR")]
    Internal,
    /// `TIMEOUT_ERROR` (504).
    #[serde(rename = "TIMEOUT_ERROR")]
    Timeout,
    /// `CONFIGURATION_ERROR` (500): a key or setting is missing.
    #[serde(rename = "CONFIGURATION_ERROR")]
    Configuration,
}

impl ServiceErrorType {
    /// All ten.
    pub const ALL: [Self; 10] = [
        Self::Validation,
        Self::Authentication,
        Self::Authorization,
        Self::NotFound,
        Self::Conflict,
        Self::RateLimit,
        Self::External,
        Self::Internal,
        Self::Timeout,
        Self::Configuration,
    ];

    /// The word on the wire and in `error.type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Validation => "VALIDATION_ERROR",
            Self::Authentication => "AUTHENTICATION_ERROR",
            Self::Authorization => "AUTHORIZATION_ERROR",
            Self::NotFound => "NOT_FOUND_ERROR",
            Self::Conflict => "CONFLICT_ERROR",
            Self::RateLimit => "RATE_LIMIT_ERROR",
            Self::External => "EXTERNAL_SERVICE_ERROR",
            Self::Internal => "INTERNAL_ERROR",
            Self::Timeout => "TIMEOUT_ERROR",
            Self::Configuration => "CONFIGURATION_ERROR",
        }
    }

    /// The type of a word; `None` for any other word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The HTTP status that goes with it when the service names none.
    pub const fn status(self) -> u16 {
        match self {
            Self::Validation => 400,
            Self::Authentication => 401,
            Self::Authorization => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::RateLimit => 429,
            Self::External => 502,
            Self::Internal | Self::Configuration => 500,
            Self::Timeout => 504,
        }
    }

    /// The type of a provider's HTTP error status: a server error is `External`, an unknown client error `Validation`.
    pub const fn from_status(status: u16) -> Self {
        match status {
            401 | 407 => Self::Authentication,
            402 | 403 | 451 => Self::Authorization,
            404 | 410 => Self::NotFound,
            409 | 412 => Self::Conflict,
            408 | 504 => Self::Timeout,
            425 | 429 => Self::RateLimit,
            400..=499 => Self::Validation,
            _ => Self::External,
        }
    }

    /// Whether the same call may well succeed later: what the default retry policy retries.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::RateLimit | Self::External | Self::Timeout)
    }
}

impl fmt::Display for ServiceErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of a service call. In the task it arrives as an `Error` with `name` (`ServiceError`), `type`, `code`, `status`, `details`.
#[derive(Debug)]
pub struct ServiceError {
    /// One of the ten.
    pub kind: ServiceErrorType,
    /// A code for programs; `None`: the type's word.
    pub code: Option<String>,
    /// What was tried, what stood in the way, what to do next.
    pub message: String,
    /// More, as data.
    pub details: Option<Json>,
    /// HTTP status; `None`: the type's.
    pub status: Option<u16>,
    /// How long to wait before the next attempt, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// What caused it; stays in this process, only its text is stored (as `cause`).
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident,)+) => {
        impl ServiceError {
            $($(#[$doc])*
            pub fn $name(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
                Self::of(ServiceErrorType::$kind, error)
            })+
        }
    };
}

constructors! {
    /// `VALIDATION_ERROR`
    validation => Validation,
    /// `AUTHENTICATION_ERROR`
    authentication => Authentication,
    /// `AUTHORIZATION_ERROR`
    authorization => Authorization,
    /// `NOT_FOUND_ERROR`
    not_found => NotFound,
    /// `CONFLICT_ERROR`
    conflict => Conflict,
    /// `RATE_LIMIT_ERROR`
    rate_limit => RateLimit,
    /// `EXTERNAL_SERVICE_ERROR`
    external => External,
    /// `INTERNAL_ERROR`
    internal => Internal,
    /// `TIMEOUT_ERROR`
    timeout => Timeout,
    /// `CONFIGURATION_ERROR`
    configuration => Configuration,
}

impl ServiceError {
    /// An error of this type; the message is the error's text, and what caused it is kept.
    pub fn of(kind: ServiceErrorType, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let error = error.into();
        Self {
            kind,
            code: None,
            message: error.to_string(),
            details: None,
            status: None,
            retry_after_ms: None,
            source: error.source().is_some().then_some(error),
        }
    }

    /// Sets the code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Sets the details.
    #[must_use]
    pub fn with_details(mut self, details: Json) -> Self {
        self.details = Some(details);
        self
    }

    /// Sets the HTTP status.
    #[must_use]
    pub const fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Sets how long to wait before the next attempt.
    #[must_use]
    pub const fn with_retry_after_ms(mut self, millis: u64) -> Self {
        self.retry_after_ms = Some(millis);
        self
    }

    /// The HTTP status: the one set, else the type's.
    pub fn status(&self) -> u16 {
        self.status.unwrap_or(self.kind.status())
    }

    /// The code for programs: the one set, else the type's word.
    pub fn code(&self) -> &str {
        self.code.as_deref().unwrap_or(self.kind.as_str())
    }

    /// The error that a failure was made from; `INTERNAL_ERROR` when the failure is not a service's.
    pub fn from_failure(failure: &Failure) -> Self {
        let kind = failure
            .kind
            .as_deref()
            .and_then(ServiceErrorType::from_word)
            .unwrap_or(ServiceErrorType::Internal);
        Self {
            code: failure.code.clone().filter(|code| code != kind.as_str()),
            details: failure.details.clone(),
            status: failure.status.filter(|status| *status != kind.status()),
            retry_after_ms: failure.retry_after_ms,
            ..Self::of(kind, failure.message.clone())
        }
    }

    /// As it is stored and given to the task.
    pub fn to_failure(&self) -> Failure {
        Failure {
            name: "ServiceError".to_owned(),
            message: self.message.clone(),
            kind: Some(self.kind.as_str().to_owned()),
            code: Some(self.code().to_owned()),
            status: Some(self.status()),
            details: self.details.clone(),
            retry_after_ms: self.retry_after_ms,
            stack: None,
            cause: self
                .source
                .as_ref()
                .and_then(|error| error.source())
                .map(|cause| Box::new(Failure::new("Error", cause.to_string()))),
        }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl Error for ServiceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_ref()
            .map(|error| &**error as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_statuses_read_back() {
        for kind in ServiceErrorType::ALL {
            assert_eq!(ServiceErrorType::from_word(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
            let back = ServiceErrorType::from_status(kind.status());
            // Our own 500s are a failing provider for who asked us.
            if kind.status() == 500 {
                assert_eq!(back, ServiceErrorType::External);
            } else {
                assert_eq!(back, kind);
            }
        }
        for (status, kind) in [
            (418, ServiceErrorType::Validation),
            (422, ServiceErrorType::Validation),
            (408, ServiceErrorType::Timeout),
            (503, ServiceErrorType::External),
            (302, ServiceErrorType::External),
        ] {
            assert_eq!(ServiceErrorType::from_status(status), kind, "{status}");
        }
    }

    #[test]
    fn a_failure_gives_its_error_back() {
        let error = ServiceError::rate_limit("slow down")
            .with_code("quota")
            .with_status(503)
            .with_details(Json::parse(r#"{"left":0}"#).unwrap())
            .with_retry_after_ms(1_500);
        let failure = error.to_failure();
        assert_eq!(ServiceError::from_failure(&failure).to_failure(), failure);
        let plain = ServiceError::timeout("late").to_failure();
        assert_eq!(ServiceError::from_failure(&plain).to_failure(), plain);
        assert_eq!(
            ServiceError::from_failure(&Failure::new("TypeError", "no")).kind,
            ServiceErrorType::Internal
        );
    }
}
