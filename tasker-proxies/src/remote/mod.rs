//! A service in any other process, by HTTP: this is how services in Node, Deno, Python plug in.
//!
//! A call is `POST url` with `{chain:[{property,args}]}` (or `{method,args}`), and is answered by the standard envelope
//! ([`tasker_core::service::wire`]). `GET url/health` says how the service is. Request id, idempotency key, correlation
//! id and trace are headers. A service that failed several times in a row is left alone for a while; name a fallback
//! for it in `ServicesBuilder::fallback`.

mod breaker;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use tasker_core::Json;
use tasker_core::service::{
    Health, ServiceCall, ServiceDescription, ServiceError, ServiceErrorType, ServiceProxy,
    ServiceStyle, wire,
};
use url::Url;

use breaker::Breaker;
pub use breaker::BreakerOptions;

use crate::http_client::{HttpAnswer, HttpClient, HttpOptions, HttpRequest, shown_url};
use crate::secret::redact;
use crate::{Clock, Secret, system_clock};

/// The file in which services say where they are.
pub const REGISTRY_FILE: &str = ".service-registry.json";

/// How a call is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestForm {
    /// `{chain:[{property,args}]}`: says everything.
    #[default]
    Chain,
    /// `{method,args}`: for services that know no chains; a fluent chain cannot be written so.
    Method,
}

/// A service in another process.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// What it says of itself; `open` unless its methods are listed.
    pub description: ServiceDescription,
    /// Where it is: `http://localhost:3104`.
    pub url: String,
    /// Sent as bearer token.
    pub token: Option<Secret>,
    /// How a call is written.
    pub form: RequestForm,
    /// Whether it does a call with a known idempotency key only once: then a call is sent again after a failure.
    pub honours_idempotency_keys: bool,
    /// When to leave it alone.
    pub breaker: BreakerOptions,
    /// Bounds.
    pub http: HttpOptions,
}

impl RemoteOptions {
    /// A plain, open service at this URL.
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            description: ServiceDescription::new(name).open(),
            url: url.into(),
            token: None,
            form: RequestForm::default(),
            honours_idempotency_keys: false,
            breaker: BreakerOptions::default(),
            http: HttpOptions::default(),
        }
    }

    /// The services that a `.service-registry.json` lists: `{services: [{name, url} or {name, port}]}`.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` naming the file when it cannot be read.
    pub fn from_registry_file(path: impl AsRef<Path>) -> Result<Vec<Self>, ServiceError> {
        #[derive(Deserialize)]
        struct File {
            services: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            name: String,
            url: Option<String>,
            port: Option<u16>,
        }
        let path = path.as_ref();
        let wrong = |text: String| {
            ServiceError::configuration(format!("the service registry {}: {text}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let file: File = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let entries = file.services.into_iter();
        entries
            .map(|entry| {
                let local = entry.port.map(|port| format!("http://localhost:{port}"));
                let url = entry.url.or(local);
                let url = url.ok_or_else(|| {
                    wrong(format!(
                        "the service {:?} has neither url nor port",
                        entry.name
                    ))
                })?;
                Ok(Self::new(entry.name, url))
            })
            .collect()
    }
}

/// The proxy of a service in another process.
pub struct Remote {
    client: HttpClient,
    url: Url,
    options: RemoteOptions,
    breaker: Mutex<Breaker>,
}

impl Remote {
    /// The proxy.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` when the URL is none.
    pub fn new(options: RemoteOptions) -> Result<Self, ServiceError> {
        Self::with_clock(options, system_clock())
    }

    /// The proxy with a clock of the host's.
    ///
    /// # Errors
    /// As [`Remote::new`].
    pub fn with_clock(options: RemoteOptions, clock: Clock) -> Result<Self, ServiceError> {
        let url = Url::parse(&options.url).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| {
            ServiceError::configuration(format!(
                "the URL of the service {:?} is none; it looks like http://localhost:3104",
                options.description.name
            ))
        })?;
        Ok(Self {
            client: HttpClient::new(options.http.clone(), clock)?,
            url,
            options,
            breaker: Mutex::new(Breaker::new()),
        })
    }

    fn request(&self, call: &ServiceCall) -> Result<HttpRequest, ServiceError> {
        let what = format!("{} {}", call.service, call.method());
        let mut request = HttpRequest::new(what, Method::POST, self.url.clone())
            .header("accept", "application/json")?
            .json(&self.body(call)?);
        if let Some(token) = &self.options.token {
            request = request.secret_header("authorization", "Bearer ", token)?;
        }
        request.repeatable = self.options.honours_idempotency_keys;
        Ok(request)
    }

    fn body(&self, call: &ServiceCall) -> Result<Json, ServiceError> {
        #[derive(Serialize)]
        struct Body<'a> {
            method: String,
            args: &'a [Json],
        }
        if self.options.form == RequestForm::Chain {
            return Ok(wire::request(&call.chain));
        }
        let before = call
            .chain
            .split_last()
            .map_or(&[][..], |(_, before)| before);
        if before.iter().any(|link| link.args.is_some()) {
            return Err(ServiceError::validation(format!(
                "{}.{}: arguments stand in the middle of the chain, and this service takes {{method,args}} only; set its request form to Chain",
                call.service,
                call.method()
            )));
        }
        let body = Body {
            method: call.method(),
            args: call.args(),
        };
        Json::from(&body).map_err(ServiceError::internal)
    }

    async fn ask(&self, call: &ServiceCall) -> Result<Json, ServiceError> {
        let request = self.request(call)?;
        let answer = self.client.send(call, &request).await?;
        let good = answer.status.is_success();
        let body = match answer.json(&request) {
            Ok(body) => body,
            Err(error) if good => return Err(error),
            Err(_) => return Err(answer.error(&request, None, &answer.beginning(), None)),
        };
        let read = wire::Envelope::read(answer.status.as_u16(), &body, answer.retry_after_ms);
        read.map_err(|error| ServiceError {
            message: redact(&error.message, &request.secrets),
            code: error.code.map(|code| redact(&code, &request.secrets)),
            details: error
                .details
                .and_then(|json| Json::parse(redact(json.text(), &request.secrets)).ok()),
            ..error
        })
    }

    fn with_breaker<T>(&self, act: impl FnOnce(&mut Breaker) -> T) -> T {
        // The breaker is whole at every point where a holder could panic.
        act(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn ask_health(&self) -> Result<HttpAnswer, ServiceError> {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("health");
        }
        let mut request = HttpRequest::new("health", Method::GET, url);
        request.repeatable = false;
        if let Some(token) = &self.options.token {
            request = request.secret_header("authorization", "Bearer ", token)?;
        }
        let call = ServiceCall::test(&self.options.description.name, "health", vec![]);
        self.client.send(&call, &request).await
    }
}

#[async_trait]
impl ServiceProxy for Remote {
    fn describe(&self) -> ServiceDescription {
        let mut description = self.options.description.clone();
        if description.style == ServiceStyle::Fluent || description.methods.is_empty() {
            description.open = true;
        }
        if description.description.is_empty() {
            description.description = format!("A service at {}", shown_url(&self.url));
        }
        description
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        let options = self.options.breaker;
        let now = || (self.client.clock())();
        if let Err(wait_ms) = self.with_breaker(|breaker| breaker.admit(now(), options)) {
            return Err(ServiceError::external(format!(
                "the service {} failed several times in a row and is left alone for {wait_ms} ms more; look at it at {}",
                call.service,
                shown_url(&self.url)
            ))
            .with_code("CIRCUIT_OPEN")
            .with_retry_after_ms(wait_ms));
        }
        let answer = self.ask(&call).await;
        let failed = answer.as_ref().is_err_and(|error| {
            let kind = matches!(
                error.kind,
                ServiceErrorType::External | ServiceErrorType::Timeout
            );
            kind && error.code() != "CANCELLED"
        });
        self.with_breaker(|breaker| breaker.settle(!failed, now(), options));
        answer
    }

    /// `GET url/health`: what its body says, else what its status says.
    async fn health(&self) -> Health {
        #[derive(Default, Deserialize)]
        struct Body {
            status: Option<String>,
            data: Option<Json>,
        }
        let answer = match self.ask_health().await {
            Ok(answer) => answer,
            Err(error) => return Health::Unhealthy(error.message),
        };
        let body: Body = serde_json::from_slice(&answer.body).unwrap_or_default();
        let inner = body.data.and_then(|data| data.to::<Body>().ok());
        let word = inner.and_then(|inner| inner.status).or(body.status);
        match word.as_deref() {
            Some("degraded") => Health::Degraded("it says that it is degraded".to_owned()),
            Some("unhealthy") => Health::Unhealthy("it says that it is unhealthy".to_owned()),
            _ if answer.status.is_success() => Health::Healthy,
            _ => Health::Unhealthy(format!(
                "it answers status {} to its health check",
                answer.status.as_u16()
            )),
        }
    }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
