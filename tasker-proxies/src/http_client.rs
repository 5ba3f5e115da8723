//! The one HTTP client of all services: pooled, bounded in time and size, retrying only where that is safe.
//!
//! What may be sent again without asking: a request that never reached the provider (no connection), one that the
//! provider refused for its rate limit (429), and any failure of a request that is `repeatable` (it reads, or the
//! provider honours its idempotency key). What waits longer than [`HttpOptions::max_wait_ms`] is left to the engine,
//! whose retries are durable: the error says how long to wait.

mod wait;

use std::error::Error;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use tasker_core::Json;
use tasker_core::service::{RetryPolicy, ServiceCall, ServiceError, ServiceErrorType};
use url::Url;

use crate::Clock;
use crate::secret::{REDACTED, Secret, redact};

/// Bounds of the client.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// How long a connection may take, in milliseconds. Default 10 000.
    pub connect_timeout_ms: u64,
    /// How long one attempt may take with its whole body, in milliseconds. Default 60 000. A call's deadline can only shorten it.
    pub attempt_timeout_ms: u64,
    /// Longest body that is read, in bytes, after decompression. Default 16 MiB.
    pub max_response_bytes: usize,
    /// Attempts and delays within one call. Default 3 attempts, 0.5 s, 1 s … up to 8 s.
    pub retry: RetryPolicy,
    /// Longest wait within a call, in milliseconds. Default 10 000.
    pub max_wait_ms: u64,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 10_000,
            attempt_timeout_ms: 60_000,
            max_response_bytes: 16 << 20,
            retry: RetryPolicy {
                initial_ms: 500,
                max_ms: 8_000,
                ..RetryPolicy::attempts(3)
            },
            max_wait_ms: 10_000,
        }
    }
}

/// A request. Its `Debug` shows no query value and no body.
#[derive(Clone)]
pub struct HttpRequest {
    /// For errors: `openai chat.completions.create`.
    pub what: String,
    /// Method.
    pub method: Method,
    /// Whole URL.
    pub url: Url,
    /// Headers besides those that every request has.
    pub headers: HeaderMap,
    /// Body.
    pub body: Option<Vec<u8>>,
    /// Whether sending it twice does what sending it once does.
    pub repeatable: bool,
    /// What must not be seen in any error, as it stands in headers, URL or body.
    pub secrets: Vec<Secret>,
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("what", &self.what)
            .field("method", &self.method)
            .field("url", &shown_url(&self.url))
            .field("body_bytes", &self.body.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

impl HttpRequest {
    /// A request without body and headers. `GET` and `HEAD` are repeatable.
    pub fn new(what: impl Into<String>, method: Method, url: Url) -> Self {
        Self {
            what: what.into(),
            repeatable: method.is_safe(),
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            secrets: Vec::new(),
        }
    }

    /// Adds a header.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` when the value cannot stand in a header; it is not shown.
    pub fn header(mut self, name: &'static str, value: &str) -> Result<Self, ServiceError> {
        let value = HeaderValue::from_str(value).map_err(|_| {
            ServiceError::validation(format!(
                "{}: the value for the header {name} holds a character that no header may hold",
                self.what
            ))
        })?;
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }

    /// Adds a header whose value begins with `prefix` and is secret after it.
    ///
    /// # Errors
    /// As [`HttpRequest::header`].
    pub fn secret_header(
        mut self,
        name: &'static str,
        prefix: &str,
        secret: &Secret,
    ) -> Result<Self, ServiceError> {
        self.secrets.push(secret.clone());
        let mut request = self.header(name, &format!("{prefix}{}", secret.expose()))?;
        if let Some(value) = request.headers.get_mut(name) {
            value.set_sensitive(true);
        }
        Ok(request)
    }

    /// Sets a JSON body, byte for byte, with its content type.
    #[must_use]
    pub fn json(mut self, body: &Json) -> Self {
        self.headers.insert(
            reqwest::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        self.body = Some(body.text().as_bytes().to_vec());
        self
    }

    /// An error about this request, without its secrets.
    pub fn error(&self, kind: ServiceErrorType, text: &str) -> ServiceError {
        let text = format!(
            "{}: {} {}: {text}",
            self.what,
            self.method,
            shown_url(&self.url)
        );
        ServiceError::of(kind, redact(&text, &self.secrets))
    }
}

/// What came back, whatever its status.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
    /// How long the provider asks to wait, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl HttpAnswer {
    /// The body as JSON; an empty one reads as `null`.
    ///
    /// # Errors
    /// `EXTERNAL_SERVICE_ERROR` with the beginning of what came instead.
    pub fn json(&self, request: &HttpRequest) -> Result<Json, ServiceError> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Json::null());
        }
        let text = String::from_utf8_lossy(&self.body);
        Json::parse(text.trim()).map_err(|_| {
            request.error(
                ServiceErrorType::External,
                &format!("the answer is not JSON: {}", beginning(&text)),
            )
        })
    }

    /// The body as text, its first 300 characters.
    pub fn beginning(&self) -> String {
        beginning(&String::from_utf8_lossy(&self.body))
    }

    /// The error of an answer whose status is none of success; its type comes from the status.
    pub fn error(
        &self,
        request: &HttpRequest,
        code: Option<String>,
        message: &str,
        details: Option<Json>,
    ) -> ServiceError {
        let kind = ServiceErrorType::from_status(self.status.as_u16());
        let text = format!("status {}: {message}", self.status.as_u16());
        let details = details.and_then(|json| {
            let text = redact(json.text(), &request.secrets);
            Json::parse(text).ok()
        });
        ServiceError {
            code: code.map(|code| redact(&code, &request.secrets)),
            details,
            status: Some(self.status.as_u16()),
            retry_after_ms: self.retry_after_ms,
            ..request.error(kind, &text)
        }
    }
}

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    client: reqwest::Client,
    options: HttpOptions,
    clock: Clock,
}

impl HttpClient {
    /// A client with these bounds. It follows no redirects: an API that redirects is at another address than configured.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` when TLS cannot be set up on this machine.
    pub fn new(options: HttpOptions, clock: Clock) -> Result<Self, ServiceError> {
        Self::with(reqwest::Client::builder(), options, clock)
    }

    /// A client from a builder of one's own (resolver, proxy, roots).
    ///
    /// # Errors
    /// As [`HttpClient::new`].
    pub fn with(
        builder: reqwest::ClientBuilder,
        options: HttpOptions,
        clock: Clock,
    ) -> Result<Self, ServiceError> {
        let client = builder
            .user_agent(concat!("tasker/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_millis(options.connect_timeout_ms))
            .build()
            .map_err(|error| no_client(&error))?;
        Ok(Self {
            client,
            options,
            clock,
        })
    }

    /// What time it is for this client.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sends a request on behalf of a call, with its request id, idempotency key, correlation id and trace.
    ///
    /// # Errors
    /// `EXTERNAL_SERVICE_ERROR` or `TIMEOUT_ERROR` when no whole answer came; `VALIDATION_ERROR` when it is too large.
    /// Any status is an answer.
    pub async fn send(
        &self,
        call: &ServiceCall,
        request: &HttpRequest,
    ) -> Result<HttpAnswer, ServiceError> {
        self.follow(call, request, &mut |_| {}).await
    }

    /// [`HttpClient::send`], where `see` is given each piece of a body whose status is one of success as it comes. A
    /// request that is sent again after a body broke off shows its pieces again.
    ///
    /// # Errors
    /// As [`HttpClient::send`].
    pub async fn follow(
        &self,
        call: &ServiceCall,
        request: &HttpRequest,
        see: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<HttpAnswer, ServiceError> {
        let mut attempt = 1;
        loop {
            let result = self.attempt(call, request, see).await;
            let Some(retry) = Retry::of(&result, request) else {
                return result.map_err(|failed| failed.error);
            };
            let policy = &self.options.retry;
            let wait = policy.delay_ms(attempt, seed(call), retry.after_ms);
            let in_time = self.left_ms(call).is_none_or(|left| wait < left);
            if attempt >= policy.attempts || wait > self.options.max_wait_ms || !in_time {
                return result.map_err(|failed| failed.error);
            }
            tracing::debug!(
                what = request.what,
                attempt,
                wait_ms = wait,
                "sending again"
            );
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                () = call.cancellation.cancelled() => return Err(cancelled(request)),
            }
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        call: &ServiceCall,
        request: &HttpRequest,
        see: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<HttpAnswer, Failed> {
        let limit = self.options.attempt_timeout_ms;
        let limit = self.left_ms(call).map_or(limit, |left| left.min(limit));
        tokio::select! {
            answer = tokio::time::timeout(Duration::from_millis(limit), self.exchange(call, request, see)) => {
                answer.unwrap_or_else(|_| {
                    let text = format!("no whole answer within {limit} ms");
                    Err(Failed::again(request.error(ServiceErrorType::Timeout, &text)))
                })
            }
            () = call.cancellation.cancelled() => Err(Failed::last(cancelled(request))),
        }
    }

    async fn exchange(
        &self,
        call: &ServiceCall,
        request: &HttpRequest,
        see: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<HttpAnswer, Failed> {
        let mut headers = request.headers.clone();
        context_headers(call, request, &mut headers);
        let mut sending = self
            .client
            .request(request.method.clone(), request.url.clone())
            .headers(headers);
        if let Some(body) = &request.body {
            sending = sending.body(body.clone());
        }
        let response = sending.send().await.map_err(|error| Failed {
            unsent: error.is_connect(),
            ..Failed::again(request.error(kind_of(&error), &text_of(error)))
        })?;
        let status = response.status();
        let headers = response.headers().clone();
        let now_ms = (self.clock)().as_millis();
        let retry_after_ms = wait::asked_ms(status, &headers, now_ms);
        let body = self.body(request, response, see).await?;
        Ok(HttpAnswer {
            status,
            headers,
            body,
            retry_after_ms,
        })
    }

    async fn body(
        &self,
        request: &HttpRequest,
        mut response: Response,
        see: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Vec<u8>, Failed> {
        let shown = response.status().is_success();
        let most = self.options.max_response_bytes;
        let too_large = || {
            let text = format!(
                "the answer is larger than {most} bytes; ask for less at a time or raise max_response_bytes"
            );
            let error = request.error(ServiceErrorType::Validation, &text);
            Failed::last(error.with_code("RESPONSE_TOO_LARGE"))
        };
        if response
            .content_length()
            .is_some_and(|length| length > most as u64)
        {
            return Err(too_large());
        }
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(None) => return Ok(body),
                Ok(Some(chunk)) if body.len() + chunk.len() > most => return Err(too_large()),
                Ok(Some(chunk)) => {
                    if shown {
                        see(&chunk);
                    }
                    body.extend_from_slice(&chunk);
                }
                Err(error) => {
                    let text = format!("the answer broke off: {}", text_of(error));
                    let error = request.error(ServiceErrorType::External, &text);
                    return Err(Failed::again(error));
                }
            }
        }
    }

    /// Milliseconds until the call's deadline.
    fn left_ms(&self, call: &ServiceCall) -> Option<u64> {
        let deadline = call.deadline?;
        let left = deadline.millis_since((self.clock)());
        Some(u64::try_from(left).unwrap_or(0))
    }
}

/// Why there is no client. As a rule a system without CA certificates, which says so in the innermost cause only.
fn no_client(error: &reqwest::Error) -> ServiceError {
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        why = format!("{why}: {inner}");
        cause = inner.source();
    }
    ServiceError::configuration(format!(
        "no HTTP client could be made: {why}; are there CA certificates? Install ca-certificates, or name a PEM file in SSL_CERT_FILE"
    ))
}

/// No whole answer.
struct Failed {
    error: ServiceError,
    /// Whether another attempt could do better.
    again: bool,
    /// The request never left.
    unsent: bool,
}

impl Failed {
    const fn again(error: ServiceError) -> Self {
        Self {
            error,
            again: true,
            unsent: false,
        }
    }

    const fn last(error: ServiceError) -> Self {
        Self {
            error,
            again: false,
            unsent: false,
        }
    }
}

/// Another attempt is allowed.
struct Retry {
    after_ms: Option<u64>,
}

impl Retry {
    fn of(result: &Result<HttpAnswer, Failed>, request: &HttpRequest) -> Option<Self> {
        let after_ms = match result {
            Ok(answer) => {
                let again = match answer.status.as_u16() {
                    429 => true,
                    408 | 425 | 500 | 502 | 503 | 504 => request.repeatable,
                    _ => false,
                };
                again.then_some(answer.retry_after_ms)?
            }
            Err(failed) => {
                (failed.unsent || (failed.again && request.repeatable)).then_some(None)?
            }
        };
        Some(Self { after_ms })
    }
}

fn cancelled(request: &HttpRequest) -> ServiceError {
    request
        .error(
            ServiceErrorType::Timeout,
            "given up: the run was cancelled, the call timed out, or the engine shuts down",
        )
        .with_code("CANCELLED")
}

fn context_headers(call: &ServiceCall, request: &HttpRequest, headers: &mut HeaderMap) {
    let mut add = |name: &'static str, value: &str| {
        let name = HeaderName::from_static(name);
        if let (false, Ok(value)) = (headers.contains_key(&name), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    };
    if let Some(id) = &call.stack_run {
        add("x-request-id", &format!("{id}-{}", call.attempt));
    }
    if !request.method.is_safe() && !call.idempotency_key.is_empty() {
        add("idempotency-key", &call.idempotency_key);
    }
    if let Some(id) = &call.correlation_id {
        add("x-correlation-id", id);
    }
    if let Some(trace) = &call.traceparent {
        add("traceparent", trace);
    }
}

fn kind_of(error: &reqwest::Error) -> ServiceErrorType {
    if error.is_timeout() {
        ServiceErrorType::Timeout
    } else if error.is_builder() {
        ServiceErrorType::Validation
    } else {
        ServiceErrorType::External
    }
}

/// The error with its causes; the URL is not in it.
fn text_of(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn seed(call: &ServiceCall) -> u64 {
    let mut hasher = DefaultHasher::new();
    call.idempotency_key.hash(&mut hasher);
    hasher.finish()
}

/// A URL as it may be shown: without user, password and the values of its query.
pub fn shown_url(url: &Url) -> String {
    let mut shown = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
    if let Some(port) = url.port() {
        let _ = write!(shown, ":{port}");
    }
    shown.push_str(url.path());
    for (index, (name, _)) in url.query_pairs().enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        let _ = write!(shown, "{name}={REDACTED}");
    }
    shown
}

fn beginning(text: &str) -> String {
    let mut beginning: String = text.chars().take(300).collect();
    if beginning.len() < text.len() {
        beginning.push('…');
    }
    beginning
}

#[cfg(test)]
#[path = "http_client_tests.rs"]
mod tests;
