//! One request and its answer in the standard envelope.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tasker_core::service::wire::{Envelope, Metadata};
use tasker_core::{Clock, EngineError, Json, ServiceError, StorageError, SystemClock, Timestamp};
use uuid::Uuid;

/// Longest id that a caller may bring, in bytes.
const ID_BYTES: usize = 128;

/// What is known of a request beside its body.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    begun: Timestamp,
    /// Names the request in logs and answers; the caller's `x-request-id` when it is a fit one.
    pub(super) request_id: String,
    /// Goes with the run through all its calls.
    pub(super) correlation_id: Option<String>,
    /// W3C trace context.
    pub(super) traceparent: Option<String>,
    /// `Idempotency-Key`.
    pub(super) idempotency_key: Option<String>,
}

impl Asked {
    /// From the headers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| {
            let text = headers.get(name)?.to_str().ok()?.trim();
            let fit = !text.is_empty()
                && text.len() <= ID_BYTES
                && text.bytes().all(|byte| byte.is_ascii_graphic());
            fit.then(|| text.to_owned())
        };
        Self {
            begun: now(),
            request_id: text("x-request-id").unwrap_or_else(|| Uuid::new_v4().to_string()),
            correlation_id: text("x-correlation-id"),
            traceparent: text("traceparent"),
            idempotency_key: text("idempotency-key"),
        }
    }

    /// The answer.
    pub(super) fn answer<T: Serialize>(&self, result: Result<T, ServiceError>) -> Response {
        self.answer_as(StatusCode::OK, result)
    }

    /// The answer, with this status where it is a success.
    pub(super) fn answer_as<T: Serialize>(
        &self,
        good: StatusCode,
        result: Result<T, ServiceError>,
    ) -> Response {
        let result = result.and_then(|data| Json::from(&data).map_err(ServiceError::internal));
        let retry_after = result.as_ref().err().and_then(|error| error.retry_after_ms);
        if let Err(error) = &result {
            tracing::debug!(request_id = %self.request_id, kind = %error.kind, message = %error.message, "a request was refused");
        }
        let (status, envelope) = Envelope::answer(
            &result,
            Metadata::new(self.begun, now(), self.request_id.as_str()),
        );
        let status = match StatusCode::from_u16(status) {
            Ok(StatusCode::OK) => good,
            Ok(status) => status,
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let Ok(body) = serde_json::to_string(&envelope) else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(millis) = retry_after {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(millis.div_ceil(1_000)),
            );
        }
        if [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::REQUEST_TIMEOUT].contains(&status) {
            // The rest of the body is not read: the connection is of no further use.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

fn now() -> Timestamp {
    SystemClock::default().now()
}

/// A body as JSON.
pub(super) fn body(body: Result<Bytes, BytesRejection>) -> Result<Json, ServiceError> {
    let bytes = body.map_err(|rejection| {
        let status = rejection.status().as_u16();
        ServiceError::validation(format!(
            "the body could not be read: {}",
            rejection.body_text()
        ))
        .with_status(status)
    })?;
    let text = String::from_utf8(bytes.into())
        .map_err(|_| ServiceError::validation("the body is not UTF-8; send JSON"))?;
    Json::parse(text).map_err(|error| ServiceError::validation(format!("the body is {error}")))
}

/// What a body says, or why it is not of this form: an object. Read as a list of its members by their order it would mean
/// something that nobody wrote.
pub(super) fn of_form<T: DeserializeOwned>(body: &Json, form: &str) -> Result<T, ServiceError> {
    if !body.text().trim_start().starts_with('{') {
        return Err(ServiceError::validation(format!(
            "the body is not as expected: it is no object; {form}"
        )));
    }
    body.to().map_err(|error| {
        // The text is JSON already; what is wrong with it stands in the cause.
        let why = std::error::Error::source(&error);
        let why = why.map_or_else(|| error.to_string(), ToString::to_string);
        ServiceError::validation(format!("the body is not as expected: {why}; {form}"))
    })
}

/// An error of the engine as an answer.
pub(super) fn of_engine(error: EngineError) -> ServiceError {
    match error {
        EngineError::UnknownTask { .. } => ServiceError::not_found(error).with_code("UNKNOWN_TASK"),
        EngineError::UnknownRun { .. } => ServiceError::not_found(error).with_code("UNKNOWN_RUN"),
        EngineError::UnknownStackRun { .. } => {
            ServiceError::not_found(error).with_code("UNKNOWN_STACK_RUN")
        }
        EngineError::NotWaiting { .. } => ServiceError::conflict(error).with_code("NOT_WAITING"),
        EngineError::InputDoesNotFit { ref problems, .. } => {
            let details = Json::from(problems).ok();
            let mut refused =
                ServiceError::validation(error.to_string()).with_code("INPUT_DOES_NOT_FIT");
            refused.details = details;
            refused
        }
        EngineError::InputTooLarge { .. } => ServiceError::validation(error).with_status(413),
        EngineError::BadInput { .. } | EngineError::BadSignalName { .. } => {
            ServiceError::validation(error)
        }
        EngineError::Storage(StorageError::IdempotencyConflict { .. }) => {
            ServiceError::conflict(error)
        }
        EngineError::ShutDown => ServiceError::external(error).with_status(503),
        EngineError::WrongDrive { .. } => ServiceError::configuration(error),
        _ if error.is_retryable() => ServiceError::external(error)
            .with_status(503)
            .with_retry_after_ms(1_000),
        _ => ServiceError::internal(error),
    }
}

/// No route.
pub(super) async fn no_such_path(Extension(asked): Extension<Asked>) -> Response {
    asked.answer::<()>(Err(ServiceError::not_found(
        "there is nothing at this path; GET /openapi.json says what is served here",
    )))
}

/// A route, with another method.
pub(super) async fn no_such_method(Extension(asked): Extension<Asked>) -> Response {
    asked.answer::<()>(Err(ServiceError::validation(
        "this path does not know this method; GET /openapi.json says what is served here",
    )
    .with_status(405)))
}
