//! OpenAI, and servers that speak its API.
//!
//! `chat.completions.create`, `responses.create`, `embeddings.create`, `models.list`, `models.retrieve(id)`. The body
//! of a request is sent byte for byte as the task wrote it, and the answer comes back as the server wrote it. With
//! `stream: true` the stream is gathered into the answer that the same request gives without it, while its text goes to
//! the log of the run as it comes. Tokens used are told there too (see `usage.rs`).

mod deltas;
mod stream;
mod usage;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tasker_core::service::{
    Health, MethodDescription, MethodPolicy, RetryPolicy, ServiceCall, ServiceDescription,
    ServiceError, ServiceErrorType, ServiceProxy,
};
use tasker_core::{Json, LogLevel};
use url::Url;

use deltas::Deltas;

use crate::http_client::{HttpAnswer, HttpClient, HttpOptions, HttpRequest};
use crate::{Clock, Secret, credentials, system_clock};

/// The name of the key, in the environment and in the keystore.
pub const API_KEY: &str = "OPENAI_API_KEY";

/// The service `openai`.
pub struct OpenAi {
    client: HttpClient,
    options: OpenAiOptions,
}

/// How to reach the API. [`OpenAiOptions::from_env`] reads what the official clients read.
#[derive(Clone, Debug)]
pub struct OpenAiOptions {
    /// Name of the service. Default `openai`; give another one to have several.
    pub name: String,
    /// Where the API is. Default `https://api.openai.com/v1`.
    pub base_url: String,
    /// The key; `None`: it is in the keystore, `global/OPENAI_API_KEY`.
    pub api_key: Option<Secret>,
    /// Sent as `OpenAI-Organization`.
    pub organization: Option<String>,
    /// Sent as `OpenAI-Project`.
    pub project: Option<String>,
    /// Bounds. Default: as [`HttpOptions`], with 10 minutes an attempt.
    pub http: HttpOptions,
}

impl Default for OpenAiOptions {
    fn default() -> Self {
        Self {
            name: "openai".to_owned(),
            base_url: "https://api.openai.com/v1".to_owned(),
            api_key: None,
            organization: None,
            project: None,
            http: HttpOptions {
                attempt_timeout_ms: 600_000,
                ..HttpOptions::default()
            },
        }
    }
}

impl OpenAiOptions {
    /// `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `OPENAI_ORG_ID`, `OPENAI_PROJECT_ID`; the defaults for what is not set.
    pub fn from_env() -> Self {
        let text = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let default = Self::default();
        Self {
            base_url: text("OPENAI_BASE_URL").unwrap_or(default.base_url),
            api_key: Secret::from_env(API_KEY),
            organization: text("OPENAI_ORG_ID"),
            project: text("OPENAI_PROJECT_ID"),
            ..Self::default()
        }
    }
}

impl OpenAi {
    /// The service.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` when the base URL is none.
    pub fn new(options: OpenAiOptions) -> Result<Self, ServiceError> {
        Self::with_clock(options, system_clock())
    }

    /// The service with a clock of the host's.
    ///
    /// # Errors
    /// As [`OpenAi::new`].
    pub fn with_clock(options: OpenAiOptions, clock: Clock) -> Result<Self, ServiceError> {
        let base = Url::parse(&options.base_url).ok();
        if base.is_none_or(|base| base.cannot_be_a_base()) {
            return Err(ServiceError::configuration(
                "the base URL of OpenAI is no URL; it looks like https://api.openai.com/v1",
            ));
        }
        let client = HttpClient::new(options.http.clone(), clock)?;
        Ok(Self { client, options })
    }

    async fn request(
        &self,
        call: &ServiceCall,
        method: Method,
        path: &[&str],
    ) -> Result<HttpRequest, ServiceError> {
        let key = credentials::find(call, self.options.api_key.as_ref(), API_KEY).await?;
        let mut url = Url::parse(&self.options.base_url).map_err(ServiceError::configuration)?;
        url.path_segments_mut()
            .map_err(|()| ServiceError::configuration("the base URL of OpenAI is no URL"))?
            .pop_if_empty()
            .extend(path);
        let what = format!("{} {}", call.service, call.method());
        let mut request = HttpRequest::new(what, method, url)
            .header("accept", "application/json")?
            .secret_header("authorization", "Bearer ", &key)?;
        if let Some(organization) = &self.options.organization {
            request = request.header("openai-organization", organization)?;
        }
        if let Some(project) = &self.options.project {
            request = request.header("openai-project", project)?;
        }
        Ok(request)
    }

    /// Sends; the answer has a status of success.
    async fn send(
        &self,
        call: &ServiceCall,
        request: &HttpRequest,
    ) -> Result<HttpAnswer, ServiceError> {
        let answer = self.client.send(call, request).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(error(&answer, request))
    }

    /// [`OpenAi::send`], with the text of the stream told to the run's log while it comes.
    async fn follow(
        &self,
        call: &ServiceCall,
        request: &HttpRequest,
    ) -> Result<HttpAnswer, ServiceError> {
        let mut deltas = Deltas::default();
        let mut tell = |piece: &[u8]| {
            for delta in deltas.feed(piece) {
                let data =
                    schema(&json!({"delta": {"service": &*call.service, "index": delta.index}}));
                let text = crate::secret::redact(&delta.text, &request.secrets);
                call.log(LogLevel::Info, text, Some(data));
            }
        };
        let answer = self.client.follow(call, request, &mut tell).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(error(&answer, request))
    }

    async fn create(
        &self,
        call: &ServiceCall,
        path: &[&str],
        gather: fn(&str) -> Result<Json, String>,
        repeatable: bool,
    ) -> Result<Json, ServiceError> {
        #[derive(Deserialize)]
        struct Streamed {
            #[serde(default)]
            stream: Option<bool>,
        }
        let [body, ..] = call.args() else {
            return Err(no_body(call));
        };
        if !body.text().starts_with('{') {
            return Err(no_body(call));
        }
        let streamed = body.to::<Streamed>().ok().and_then(|body| body.stream);
        let mut request = self.request(call, Method::POST, path).await?.json(body);
        request.repeatable = repeatable;
        let streamed = streamed == Some(true);
        let answer = if streamed {
            let answer = self.follow(call, &request).await?;
            let text = String::from_utf8_lossy(&answer.body);
            gather(&text).map_err(|reason| request.error(ServiceErrorType::External, &reason))?
        } else {
            self.send(call, &request).await?.json(&request)?
        };
        usage::report(call, &answer, streamed);
        Ok(answer)
    }

    async fn read(&self, call: &ServiceCall, path: &[&str]) -> Result<Json, ServiceError> {
        let request = self.request(call, Method::GET, path).await?;
        self.send(call, &request).await?.json(&request)
    }
}

#[async_trait]
impl ServiceProxy for OpenAi {
    fn describe(&self) -> ServiceDescription {
        let object = || schema(&json!({"type": "object"}));
        let body = |required: &[&str]| {
            schema(&json!({
                "type": "object",
                "properties": {"model": {"type": "string"}},
                "required": required,
                "additionalProperties": true,
            }))
        };
        // A refusal for the rate limit did nothing. Whether another failed request did something nobody can say, and
        // doing it twice costs money: the host raises this where that is fine.
        let paid = MethodPolicy {
            retry: Some(RetryPolicy {
                types: Some(vec![ServiceErrorType::RateLimit]),
                ..RetryPolicy::attempts(5)
            }),
            ..MethodPolicy::default()
        };
        ServiceDescription::new(&self.options.name)
            .describe("OpenAI: chat, responses, embeddings, models")
            .policy(MethodPolicy {
                retry: Some(RetryPolicy::attempts(3)),
                timeout_ms: Some(self.options.http.attempt_timeout_ms.saturating_mul(2)),
                ..MethodPolicy::default()
            })
            .method(
                MethodDescription::new("chat.completions.create")
                    .describe("Answers a conversation")
                    .arg(body(&["model", "messages"]))
                    .result(object())
                    .policy(paid.clone()),
            )
            .method(
                MethodDescription::new("responses.create")
                    .describe("Creates a response")
                    .arg(body(&[]))
                    .result(object())
                    .policy(paid),
            )
            .method(
                MethodDescription::new("embeddings.create")
                    .describe("Embeds text")
                    .arg(body(&["model", "input"]))
                    .result(object()),
            )
            .method(
                MethodDescription::new("models.list")
                    .describe("The models that there are")
                    .result(object()),
            )
            .method(
                MethodDescription::new("models.retrieve")
                    .describe("One model by its id")
                    .arg(schema(&json!({"type": "string"})))
                    .result(object()),
            )
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        match call.method().as_str() {
            "chat.completions.create" => {
                let path = ["chat", "completions"];
                self.create(&call, &path, stream::chat, false).await
            }
            "responses.create" => {
                self.create(&call, &["responses"], stream::response, false)
                    .await
            }
            // The same text gives the same vectors, and nothing else happens.
            "embeddings.create" => {
                self.create(&call, &["embeddings"], stream::none, true)
                    .await
            }
            "models.list" => self.read(&call, &["models"]).await,
            "models.retrieve" => {
                let id: String = call.arg(0)?;
                if matches!(id.as_str(), "" | "." | "..") {
                    return Err(ServiceError::validation(
                        "openai.models.retrieve needs the id of a model",
                    ));
                }
                self.read(&call, &["models", &id]).await
            }
            other => Err(ServiceError::not_found(format!(
                "openai has no method {other:?}; it has chat.completions.create, responses.create, embeddings.create, models.list, models.retrieve"
            ))),
        }
    }

    /// Lists the models with the key that the host gave.
    async fn health(&self) -> Health {
        let call = ServiceCall::test(&self.options.name, "models.list", vec![]);
        self.health_within(&call).await
    }

    /// Lists the models, with the key of the keystore when the host gave none.
    async fn health_within(&self, call: &ServiceCall) -> Health {
        match self.read(call, &["models"]).await {
            Ok(_) => Health::Healthy,
            Err(error) => Health::Unhealthy(error.message),
        }
    }
}

fn no_body(call: &ServiceCall) -> ServiceError {
    ServiceError::validation(format!(
        "{}.{} needs one object: the body of the request as the OpenAI reference describes it",
        call.service,
        call.method()
    ))
}

/// The error of the API: `{error: {message, type, param, code}}`.
fn error(answer: &HttpAnswer, request: &HttpRequest) -> ServiceError {
    #[derive(Deserialize)]
    struct Body {
        error: Json,
    }
    #[derive(Default, Deserialize)]
    struct Details {
        message: Option<String>,
        r#type: Option<String>,
        code: Option<serde_json::Value>,
    }
    let body = serde_json::from_slice::<Body>(&answer.body).ok();
    let details = body
        .as_ref()
        .and_then(|body| body.error.to::<Details>().ok());
    let details = details.unwrap_or_default();
    let code = match details.code {
        Some(serde_json::Value::String(code)) => Some(code),
        Some(serde_json::Value::Number(code)) => Some(code.to_string()),
        _ => details.r#type,
    };
    let message = details.message.unwrap_or_else(|| answer.beginning());
    let mut error = answer.error(request, code, &message, body.map(|body| body.error));
    if error.code() == "insufficient_quota" {
        // It says 429, and no waiting mends it.
        error.kind = ServiceErrorType::Authorization;
        error.retry_after_ms = None;
    }
    error
}

fn schema(value: &serde_json::Value) -> Json {
    Json::from(value).unwrap_or_default()
}

#[cfg(test)]
#[path = "openai_tests.rs"]
mod tests;
