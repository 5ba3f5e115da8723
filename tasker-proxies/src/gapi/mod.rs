//! Google's APIs, driven by their discovery documents.
//!
//! `tools.gapi.gmail.users.messages.list({userId, q})`, `tools.gapi.admin.directory.domains.list({customer})`, and so
//! on: the first argument holds path and query parameters by their names in Google's reference, and `requestBody`; the
//! second may hold `requestBody` and `impersonate`. The answer is Google's, as written, `nextPageToken` included; a body
//! that is no JSON (`alt: 'media'`) is `{contentType, base64}`.
//!
//! The common APIs come with the crate (admin directory, gmail, drive, calendar, sheets, people); the document of any
//! other is loaded when it is first asked for. A request is made with a token of a service account, for one scope
//! (read-only for reads), on behalf of: who the call impersonates, else the user of a gmail call, else the administrator.

mod auth;
mod discovery;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tasker_core::Json;
use tasker_core::service::{
    Health, MethodDescription, MethodPolicy, RetryPolicy, ServiceCall, ServiceDescription,
    ServiceError, ServiceErrorType, ServiceProxy,
};
use url::Url;

use auth::{Account, Tokens};
use discovery::Api;

use crate::http_client::{HttpAnswer, HttpClient, HttpOptions, HttpRequest};
use crate::{Clock, Secret, credentials, system_clock};

/// Name of the service account's JSON, in the environment and in the keystore.
pub const ACCOUNT: &str = "GAPI_KEY";
/// Name of the administrator's address, in the environment and in the keystore.
pub const ADMIN_EMAIL: &str = "GAPI_ADMIN_EMAIL";

/// How to reach Google, and as whom.
#[derive(Clone, Debug, Default)]
pub struct GapiOptions {
    /// The JSON of the service account; `None`: it is in the keystore, `global/GAPI_KEY`.
    pub account: Option<Secret>,
    /// The administrator on whose behalf calls are made that name nobody; `None`: `global/GAPI_ADMIN_EMAIL` of the keystore.
    pub admin_email: Option<Secret>,
    /// The scopes that the account was granted for the whole domain; `None`: any that a document lists may be asked for.
    pub granted_scopes: Option<Vec<String>>,
    /// The APIs that tasks may use; `None`: all.
    pub apis: Option<Vec<String>>,
    /// Instead of every API's own root and of the discovery service's: for a proxy of Google.
    pub root_url: Option<String>,
    /// Bounds.
    pub http: HttpOptions,
}

impl GapiOptions {
    /// `GAPI_KEY` (or `GAPI_SERVICE_ACCOUNT_JSON`) and `GAPI_ADMIN_EMAIL`.
    pub fn from_env() -> Self {
        let account = Secret::from_env(ACCOUNT);
        Self {
            account: account.or_else(|| Secret::from_env("GAPI_SERVICE_ACCOUNT_JSON")),
            admin_email: Secret::from_env(ADMIN_EMAIL),
            ..Self::default()
        }
    }
}

/// The service `gapi`.
pub struct Gapi {
    client: HttpClient,
    options: GapiOptions,
    common: Vec<Arc<Api>>,
    /// Documents that were loaded, by name and version as asked for.
    loaded: tokio::sync::Mutex<BTreeMap<String, Arc<Api>>>,
    tokens: Tokens,
}

impl Gapi {
    /// The service.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` when TLS cannot be set up.
    pub fn new(options: GapiOptions) -> Result<Self, ServiceError> {
        Self::with_clock(options, system_clock())
    }

    /// The service with a clock of the host's.
    ///
    /// # Errors
    /// As [`Gapi::new`].
    pub fn with_clock(options: GapiOptions, clock: Clock) -> Result<Self, ServiceError> {
        let common = discovery::common()?;
        Ok(Self {
            client: HttpClient::new(options.http.clone(), clock)?,
            options,
            common: common.into_iter().map(Arc::new).collect(),
            loaded: tokio::sync::Mutex::default(),
            tokens: Tokens::default(),
        })
    }

    async fn google(&self, call: &ServiceCall) -> Result<Json, ServiceError> {
        let name = call.method();
        let api = self.api(call, &name).await?;
        let method = api.method(&name).ok_or_else(|| unknown(&api, &name))?;
        let asked = api.request(method, call, self.options.root_url.as_deref())?;
        let granted = self.options.granted_scopes.as_deref();
        let scope = discovery::scope(method, granted).ok_or_else(|| {
            ServiceError::authorization(format!(
                "gapi.{name} needs one of these scopes, and none is among the granted ones: {}",
                method.scopes.join(", ")
            ))
        })?;
        let account = self.account(call).await?;
        let subject = self.subject(call, &api, asked.subject).await?;
        let verb = Method::from_bytes(method.verb.as_bytes());
        let verb = verb.map_err(ServiceError::internal)?;
        let accept = match method.response {
            Some(_) => "application/json",
            None => "*/*",
        };
        for attempt in 1.. {
            let tokens = &self.tokens;
            let token = tokens
                .get(&self.client, call, &account, scope, subject.as_deref())
                .await?;
            let what = format!("gapi {name}");
            let mut request = HttpRequest::new(what, verb.clone(), asked.url.clone())
                .header("accept", accept)?
                .secret_header("authorization", "Bearer ", &token)?;
            if let Some(body) = &asked.body {
                request = request.json(body);
            }
            let answer = self.client.send(call, &request).await?;
            if answer.status.is_success() {
                return value(&request, &answer);
            }
            if answer.status.as_u16() != 401 || attempt > 1 {
                return Err(error(&answer, &request));
            }
            // It was taken back before its time. Nothing was done: ask once more with a new one.
            tokens
                .refused(&account, scope, subject.as_deref(), &token)
                .await;
        }
        Err(ServiceError::internal("no attempt was made"))
    }

    async fn account(&self, call: &ServiceCall) -> Result<Account, ServiceError> {
        let json = credentials::find(call, self.options.account.as_ref(), ACCOUNT).await?;
        Account::parse(&json)
    }

    async fn admin(&self, call: &ServiceCall) -> Result<Option<String>, ServiceError> {
        let given = self.options.admin_email.as_ref();
        match credentials::find(call, given, ADMIN_EMAIL).await {
            Ok(email) => Ok(Some(email.expose().to_owned())),
            Err(error) if error.code() == "MISSING_CREDENTIALS" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// On whose behalf a call is made.
    async fn subject(
        &self,
        call: &ServiceCall,
        api: &Api,
        named: Option<String>,
    ) -> Result<Option<String>, ServiceError> {
        #[derive(Deserialize)]
        struct User {
            #[serde(rename = "userId")]
            user_id: Option<String>,
        }
        if named.is_some() {
            return Ok(named);
        }
        if api.name == "gmail" {
            let user = call.args().first().and_then(|json| json.to::<User>().ok());
            let user = user.and_then(|user| user.user_id);
            if let Some(user) = user.filter(|user| user.contains('@')) {
                return Ok(Some(user));
            }
        }
        self.admin(call).await
    }

    /// The API that a name begins with: of the table, or loaded.
    async fn api(&self, call: &ServiceCall, name: &str) -> Result<Arc<Api>, ServiceError> {
        let mut parts = name.split('.');
        let api = parts.next().unwrap_or_default();
        let version = parts.next().filter(|part| discovery::is_version(part));
        let plain = api.starts_with(|c: char| c.is_ascii_lowercase())
            && api
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !plain {
            return Err(ServiceError::not_found(format!(
                "gapi.{name}: {api:?} is no name of a Google API; it is like gmail or drive"
            )));
        }
        if let Some(allowed) = &self.options.apis
            && !allowed.iter().any(|known| known == api)
        {
            return Err(ServiceError::authorization(format!(
                "gapi.{name}: the API {api} is not on the list of allowed ones; the host adds it to the service's options"
            )));
        }
        let mut common = self.common.iter().filter(|known| known.name == api);
        if let Some(api) = common.find(|known| version.is_none() || known.method(name).is_some()) {
            return Ok(Arc::clone(api));
        }
        let key = format!("{api}.{}", version.unwrap_or_default());
        let mut loaded = self.loaded.lock().await;
        if let Some(api) = loaded.get(&key) {
            return Ok(Arc::clone(api));
        }
        let document = Arc::new(self.load(call, api, version).await?);
        loaded.insert(key, Arc::clone(&document));
        Ok(document)
    }

    /// Asks Google's directory where the document is, then for the document.
    async fn load(
        &self,
        call: &ServiceCall,
        api: &str,
        version: Option<&str>,
    ) -> Result<Api, ServiceError> {
        #[derive(Deserialize)]
        struct Directory {
            #[serde(default)]
            items: Vec<Item>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Item {
            version: String,
            preferred: bool,
            discovery_rest_url: String,
        }
        let root = self.options.root_url.as_deref();
        let root = root
            .unwrap_or("https://www.googleapis.com/")
            .trim_end_matches('/');
        let url = Url::parse(&format!("{root}/discovery/v1/apis?name={api}"));
        let directory = self.document(call, url.map_err(ServiceError::configuration)?);
        let directory: Directory = directory.await?.to().map_err(ServiceError::external)?;
        let wanted =
            |item: &&Item| version.map_or(item.preferred, |version| item.version == version);
        let item = directory.items.iter().find(wanted).ok_or_else(|| {
            let versions: Vec<&str> = directory.items.iter().map(|item| &*item.version).collect();
            ServiceError::not_found(format!(
                "Google has no API {api} {}; its versions are: {}",
                version.unwrap_or_default(),
                versions.join(", ")
            ))
        })?;
        let url = Url::parse(&item.discovery_rest_url).map_err(ServiceError::external)?;
        let known = url
            .domain()
            .is_some_and(|host| host.ends_with(".googleapis.com"))
            || self.options.root_url.is_some();
        if !known {
            return Err(ServiceError::external(format!(
                "the document of {api} is said to be at {}, which is not Google's",
                crate::http_client::shown_url(&url)
            )));
        }
        let document = self.document(call, url).await?;
        discovery::read(&document).map_err(|error| {
            ServiceError::external(format!("the document of {api} cannot be read: {error}"))
        })
    }

    async fn document(&self, call: &ServiceCall, url: Url) -> Result<Json, ServiceError> {
        let request = HttpRequest::new("gapi discovery", Method::GET, url);
        let answer = self.client.send(call, &request).await?;
        if !answer.status.is_success() {
            return Err(error(&answer, &request));
        }
        answer.json(&request)
    }

    /// Gets a token for these scopes (default: reading users), or the one that is known.
    async fn authenticate(
        &self,
        call: &ServiceCall,
        scopes: Option<Vec<String>>,
    ) -> Result<serde_json::Value, ServiceError> {
        let now = (self.client.clock())();
        let scope = scopes.map_or_else(
            || "https://www.googleapis.com/auth/admin.directory.user.readonly".to_owned(),
            |mut scopes| {
                scopes.sort();
                scopes.join(" ")
            },
        );
        let granted = self.options.granted_scopes.as_deref();
        if let Some(granted) = granted
            && let Some(other) = scope.split(' ').find(|s| !granted.iter().any(|g| g == s))
        {
            return Err(ServiceError::authorization(format!(
                "gapi.authenticate: the scope {other} is not among the granted ones"
            )));
        }
        let account = self.account(call).await?;
        let admin = self.admin(call).await?;
        let subject = admin.as_deref();
        self.tokens
            .get(&self.client, call, &account, &scope, subject)
            .await?;
        Ok(
            json!({"authenticated": true, "clientEmail": account.email, "adminEmail": admin, "timestamp": now.to_string()}),
        )
    }

    async fn own(&self, call: &ServiceCall) -> Result<serde_json::Value, ServiceError> {
        let now = (self.client.clock())();
        match call.method().as_str() {
            "authenticate" => {
                let scopes: Option<Scopes> = call.arg(0)?;
                self.authenticate(call, scopes.map(Scopes::into_list)).await
            }
            "checkCredentials" => {
                let account = self.account(call).await?;
                let admin = self.admin(call).await?;
                Ok(
                    json!({"status": "ok", "adminEmail": admin, "clientEmail": account.email, "timestamp": now.to_string()}),
                )
            }
            "getTokenInfo" => {
                let tokens = self.tokens.list(now);
                Ok(json!({"count": tokens.len(), "tokens": tokens, "timestamp": now.to_string()}))
            }
            "clearTokenCache" => {
                let scope: Option<String> = call.arg(0)?;
                let count = self.tokens.clear(scope.as_deref());
                Ok(
                    json!({"status": "ok", "message": format!("{count} tokens forgotten"), "timestamp": now.to_string()}),
                )
            }
            _ => Ok(json!({"echo": call.arg::<serde_json::Value>(0)?})),
        }
    }
}

#[async_trait]
impl ServiceProxy for Gapi {
    fn describe(&self) -> ServiceDescription {
        let again = MethodPolicy {
            retry: Some(RetryPolicy::attempts(4)),
            ..MethodPolicy::default()
        };
        let refused = MethodPolicy {
            retry: Some(RetryPolicy {
                types: Some(vec![ServiceErrorType::RateLimit]),
                ..RetryPolicy::attempts(4)
            }),
            ..MethodPolicy::default()
        };
        let mut description = ServiceDescription::new("gapi")
            .describe("Google's APIs")
            .open();
        for name in [
            "authenticate",
            "checkCredentials",
            "getTokenInfo",
            "clearTokenCache",
            "echo",
        ] {
            let method = MethodDescription::new(name).arg(schema(&json!({})));
            description = description.method(method.policy(again.clone()));
        }
        for api in &self.common {
            for method in &api.methods {
                let reads = method.verb == "GET";
                let described = MethodDescription::new(api.name_of(method))
                    .describe(format!("{} of {} ({})", method.id, api.name, method.verb))
                    .arg(arguments(method))
                    .result(schema(&json!({"type": "object"})))
                    .policy(if reads {
                        again.clone()
                    } else {
                        refused.clone()
                    });
                description = description.method(described);
            }
        }
        description
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        match call.method().as_str() {
            "authenticate" | "checkCredentials" | "getTokenInfo" | "clearTokenCache" | "echo" => {
                Json::from(&self.own(&call).await?).map_err(ServiceError::internal)
            }
            _ => self.google(&call).await,
        }
    }

    /// Gets a token with the account that the host gave.
    async fn health(&self) -> Health {
        let call = ServiceCall::test("gapi", "authenticate", vec![]);
        self.health_within(&call).await
    }

    /// Gets a token, with the account of the keystore when the host gave none.
    async fn health_within(&self, call: &ServiceCall) -> Health {
        match self.authenticate(call, None).await {
            Ok(_) => Health::Healthy,
            Err(error) => Health::Unhealthy(error.message),
        }
    }
}

/// One scope or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scopes {
    One(String),
    Many(Vec<String>),
}

impl Scopes {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::One(scope) => vec![scope],
            Self::Many(scopes) => scopes,
        }
    }
}

fn arguments(method: &discovery::Method) -> Json {
    let mut properties: serde_json::Map<String, serde_json::Value> = serde_json::Map::new();
    for (name, parameter) in &method.parameters {
        let one = json!({"type": ["string", "number", "boolean"]});
        let schema = if parameter.repeated {
            json!({"type": "array", "items": one})
        } else {
            one
        };
        properties.insert(name.clone(), schema);
    }
    if method.request.is_some() {
        properties.insert("requestBody".to_owned(), json!({"type": "object"}));
    }
    let required = method.parameters.iter();
    let required: Vec<&String> = required
        .filter(|(name, parameter)| parameter.required && *name != "customer")
        .map(|(name, _)| name)
        .collect();
    schema(&json!({"type": "object", "properties": properties, "required": required}))
}

fn unknown(api: &Api, name: &str) -> ServiceError {
    let last = name.rsplit('.').next().unwrap_or_default();
    let near: Vec<String> = api
        .methods
        .iter()
        .filter(|method| method.id.rsplit('.').next() == Some(last))
        .map(|method| api.name_of(method))
        .take(10)
        .collect();
    let hint = if near.is_empty() {
        "look it up in Google's reference".to_owned()
    } else {
        format!("there are {}", near.join(", "))
    };
    ServiceError::not_found(format!(
        "gapi: the API {} has no method {name:?}; {hint}",
        api.name
    ))
    .with_code("UNKNOWN_METHOD")
}

/// The body as written; what is no JSON as `{contentType, base64}`.
fn value(request: &HttpRequest, answer: &HttpAnswer) -> Result<Json, ServiceError> {
    let kind = answer.headers.get(reqwest::header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let media = request
        .url
        .query_pairs()
        .any(|(name, value)| name == "alt" && value == "media");
    if media && !answer.body.is_empty() {
        let base64 = BASE64_STANDARD.encode(&answer.body);
        return Json::from(&json!({"contentType": kind, "base64": base64}))
            .map_err(ServiceError::internal);
    }
    answer.json(request)
}

/// `{error: {code, message, status, errors: [{reason}]}}`
fn error(answer: &HttpAnswer, request: &HttpRequest) -> ServiceError {
    #[derive(Deserialize)]
    struct Body {
        error: Json,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Details {
        message: Option<String>,
        status: Option<String>,
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        reason: Option<String>,
    }
    let body = serde_json::from_slice::<Body>(&answer.body).ok();
    let details = body
        .as_ref()
        .and_then(|body| body.error.to::<Details>().ok());
    let details = details.unwrap_or_default();
    let reason = details.errors.into_iter().find_map(|error| error.reason);
    let code = reason.or(details.status);
    let limited = matches!(
        code.as_deref(),
        Some(
            "rateLimitExceeded" | "userRateLimitExceeded" | "quotaExceeded" | "RESOURCE_EXHAUSTED"
        )
    );
    let message = details.message.unwrap_or_else(|| answer.beginning());
    let mut error = answer.error(request, code, &message, body.map(|body| body.error));
    if limited {
        error.kind = ServiceErrorType::RateLimit;
    }
    error
}

fn schema(value: &serde_json::Value) -> Json {
    Json::from(value).unwrap_or_default()
}

#[cfg(test)]
#[path = "gapi_tests.rs"]
pub(crate) mod tests;
