//! Supabase: chains as users of supabase-js write them, turned into PostgREST requests.
//!
//! `tools.supabase.from('t').select('*').eq('id', 1)` answers what the client answers: `{success, data, error, count,
//! status, statusText}`. An error of the database is the value `error` – or is thrown, when the chain says
//! `throwOnError()`. What the database never answered (no connection, a timeout, 429, 5xx) is always thrown, so that
//! the method's retry policy sees it. Lists of allowed tables, functions and operations bound what tasks can do.

mod allowed;
mod args;
mod filters;
mod query;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tasker_core::Json;
use tasker_core::service::{
    Health, MethodDescription, MethodPolicy, RetryPolicy, ServiceCall, ServiceDescription,
    ServiceError, ServiceErrorType, ServiceProxy,
};
use url::Url;

pub use allowed::Allowed;
use query::{Query, Verb};

use crate::http_client::{HttpAnswer, HttpClient, HttpOptions, HttpRequest};
use crate::{Clock, Secret, credentials, system_clock};

/// The name of the key, in the environment and in the keystore.
pub const SERVICE_KEY: &str = "SUPABASE_SERVICE_ROLE_KEY";

/// How to reach the database, and what tasks may do with it.
#[derive(Clone, Debug)]
pub struct SupabaseOptions {
    /// Name of the service. Default `supabase`.
    pub name: String,
    /// The project: `https://xyz.supabase.co`.
    pub url: String,
    /// The key; `None`: it is in the keystore, `global/SUPABASE_SERVICE_ROLE_KEY`.
    pub key: Option<Secret>,
    /// Schema of tables and functions. Default `public`.
    pub schema: String,
    /// What tasks may do. Default: everything that the key may.
    pub allowed: Allowed,
    /// Bounds.
    pub http: HttpOptions,
}

impl SupabaseOptions {
    /// A project, with its key in the keystore.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            name: "supabase".to_owned(),
            url: url.into(),
            key: None,
            schema: "public".to_owned(),
            allowed: Allowed::default(),
            http: HttpOptions::default(),
        }
    }

    /// `SUPABASE_URL` and `SUPABASE_SERVICE_ROLE_KEY`; `None` when there is no `SUPABASE_URL`.
    pub fn from_env() -> Option<Self> {
        let url = std::env::var("SUPABASE_URL").ok()?;
        Some(Self {
            key: Secret::from_env(SERVICE_KEY),
            ..Self::new(url)
        })
    }
}

/// The service `supabase`.
pub struct Supabase {
    client: HttpClient,
    root: Url,
    options: SupabaseOptions,
}

impl Supabase {
    /// The service.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` when the URL is none.
    pub fn new(options: SupabaseOptions) -> Result<Self, ServiceError> {
        Self::with_clock(options, system_clock())
    }

    /// The service with a clock of the host's.
    ///
    /// # Errors
    /// As [`Supabase::new`].
    pub fn with_clock(options: SupabaseOptions, clock: Clock) -> Result<Self, ServiceError> {
        let wrong = || {
            ServiceError::configuration(
                "the URL of the Supabase project is no URL; it looks like https://xyz.supabase.co (SUPABASE_URL)",
            )
        };
        let mut root = Url::parse(&options.url).map_err(|_| wrong())?;
        root.path_segments_mut()
            .map_err(|()| wrong())?
            .pop_if_empty()
            .extend(["rest", "v1"]);
        let client = HttpClient::new(options.http.clone(), clock)?;
        Ok(Self {
            client,
            root,
            options,
        })
    }

    async fn request(
        &self,
        call: &ServiceCall,
        query: &Query,
    ) -> Result<HttpRequest, ServiceError> {
        let key = credentials::find(call, self.options.key.as_ref(), SERVICE_KEY).await?;
        let mut url = self.root.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(&query.path);
        }
        if !query.params.is_empty() {
            url.query_pairs_mut().extend_pairs(&query.params);
        }
        let (method, profile) = match query.verb {
            Verb::Get => (Method::GET, "accept-profile"),
            Verb::Head => (Method::HEAD, "accept-profile"),
            Verb::Post => (Method::POST, "content-profile"),
            Verb::Patch => (Method::PATCH, "content-profile"),
            Verb::Delete => (Method::DELETE, "content-profile"),
        };
        let what = format!("{} {}", call.service, query.path.join("/"));
        let mut request = HttpRequest::new(what, method, url)
            .secret_header("apikey", "", &key)?
            .secret_header("authorization", "Bearer ", &key)?
            .header("accept", query.accept.as_deref().unwrap_or("*/*"))?
            .header(profile, &query.schema)?;
        if !query.prefer.is_empty() {
            request = request.header("prefer", &query.prefer.join(", "))?;
        }
        if !matches!(query.verb, Verb::Get | Verb::Head) {
            request = request.header("content-type", "application/json")?;
        }
        if let Some(body) = &query.body {
            request = request.json(body);
        }
        Ok(request)
    }

    async fn ask(&self, call: &ServiceCall, query: &Query) -> Result<Json, ServiceError> {
        let request = self.request(call, query).await?;
        let answer = self.client.send(call, &request).await?;
        let status = answer.status.as_u16();
        if answer.status.is_success() {
            return done(query, &request, &answer);
        }
        let error = database_error(&answer);
        if query.throws || status == 429 || !(400..500).contains(&status) {
            let message = error.message.as_deref().unwrap_or("it gave no reason");
            let details = Some(error.whole).filter(|whole| whole.text().starts_with('{'));
            let code = Some(error.code.unwrap_or_else(|| "DATABASE_ERROR".to_owned()));
            return Err(answer.error(&request, code, message, details));
        }
        // PostgREST of old answers a list that is not there with 404 and a list.
        if status == 404 && error.whole.text().starts_with('[') {
            return result(&Ok(error_free_list()), None, 200, "OK");
        }
        if status == 404 && answer.body.is_empty() {
            return result(&Ok(Json::null()), None, 204, "No Content");
        }
        let shown = crate::secret::redact(error.whole.text(), &request.secrets);
        let shown = Json::parse(shown).map_err(ServiceError::internal)?;
        result(&Err(shown), None, status, reason(&answer))
    }

    /// `HEAD` of the REST root, which needs the key and reads nothing.
    async fn describe_api(&self, call: &ServiceCall) -> Result<(), ServiceError> {
        let key = credentials::find(call, self.options.key.as_ref(), SERVICE_KEY).await?;
        let mut url = self.root.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push("");
        }
        let request = HttpRequest::new("supabase health", Method::HEAD, url)
            .secret_header("apikey", "", &key)?
            .secret_header("authorization", "Bearer ", &key)?;
        let answer = self.client.send(call, &request).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(answer.error(&request, None, "the REST API refused", None))
    }
}

#[async_trait]
impl ServiceProxy for Supabase {
    fn describe(&self) -> ServiceDescription {
        let again = MethodPolicy {
            retry: Some(RetryPolicy::attempts(3)),
            ..MethodPolicy::default()
        };
        // A write that failed may have been done: only a refusal for the rate limit is repeated.
        let refused = MethodPolicy {
            retry: Some(RetryPolicy {
                types: Some(vec![ServiceErrorType::RateLimit]),
                ..RetryPolicy::attempts(3)
            }),
            ..MethodPolicy::default()
        };
        let method = |name, text, policy: &MethodPolicy| {
            MethodDescription::new(name)
                .describe(text)
                .arg(schema(&json!({})))
                .policy(policy.clone())
        };
        ServiceDescription::new(&self.options.name)
            .describe("Tables and functions of a Supabase project, written as in supabase-js")
            .fluent()
            .method(method("insert", "from(table).insert(rows)", &refused))
            .method(method("upsert", "from(table).upsert(rows)", &refused))
            .method(method(
                "update",
                "from(table).update(values).eq(…)",
                &refused,
            ))
            .method(method("delete", "from(table).delete().eq(…)", &refused))
            .method(method("rpc", "rpc(function, arguments)", &refused))
            .method(method(
                "select",
                "from(table).select(columns).eq(…)",
                &again,
            ))
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        let query = query::build(&call.chain, &self.options.schema, &self.options.allowed)?;
        self.ask(&call, &query).await
    }

    /// Asks for the API's own description with the key that the host gave.
    async fn health(&self) -> Health {
        let call = ServiceCall::test(&self.options.name, "health", vec![]);
        self.health_within(&call).await
    }

    /// Asks for the API's own description, with the key of the keystore when the host gave none.
    async fn health_within(&self, call: &ServiceCall) -> Health {
        match self.describe_api(call).await {
            Ok(()) => Health::Healthy,
            Err(error) => Health::Unhealthy(error.message),
        }
    }
}

/// The value of an answer with a status of success.
fn done(query: &Query, request: &HttpRequest, answer: &HttpAnswer) -> Result<Json, ServiceError> {
    let status = answer.status.as_u16();
    let data = match query.accept.as_deref() {
        _ if answer.body.is_empty() => Json::null(),
        Some("text/csv") => {
            let text = String::from_utf8_lossy(&answer.body);
            Json::from(&*text).map_err(ServiceError::internal)?
        }
        _ => answer.json(request)?,
    };
    let counted = query.prefer.iter().any(|part| part.starts_with("count="));
    let range = answer.headers.get("content-range");
    let total = range
        .and_then(|range| range.to_str().ok())
        .and_then(|range| range.split('/').nth(1));
    let count = total
        .filter(|_| counted)
        .and_then(|total| total.parse().ok());
    if !query.maybe_single {
        return result(&Ok(data), count, status, reason(answer));
    }
    let Ok(rows) = data.elements() else {
        return result(&Ok(data), count, status, reason(answer));
    };
    match <[Json; 1]>::try_from(rows) {
        Ok([row]) => result(&Ok(row), count, status, reason(answer)),
        Err(rows) if rows.is_empty() => result(&Ok(Json::null()), count, status, reason(answer)),
        Err(rows) => {
            let error = json!({
                "code": "PGRST116",
                "details": format!(
                    "Results contain {} rows, application/vnd.pgrst.object+json requires 1 row",
                    rows.len()
                ),
                "hint": null,
                "message": "JSON object requested, multiple (or no) rows returned",
            });
            let error = schema(&error);
            if query.throws {
                return Err(ServiceError::validation(
                    "supabase: maybeSingle() wants one row or none, and there are more",
                )
                .with_code("PGRST116")
                .with_status(406)
                .with_details(error));
            }
            result(&Err(error), None, 406, "Not Acceptable")
        }
    }
}

struct DatabaseError {
    whole: Json,
    message: Option<String>,
    code: Option<String>,
}

/// `{code, message, details, hint}`, or the text of whatever else came.
fn database_error(answer: &HttpAnswer) -> DatabaseError {
    #[derive(Default, Deserialize)]
    struct Body {
        message: Option<String>,
        code: Option<String>,
    }
    let text = String::from_utf8_lossy(&answer.body);
    match Json::parse(text.trim()) {
        Ok(whole) if !text.trim().is_empty() => {
            let body = whole
                .text()
                .starts_with('{')
                .then(|| whole.to::<Body>().ok());
            let body = body.flatten().unwrap_or_default();
            DatabaseError {
                whole,
                message: body.message,
                code: body.code,
            }
        }
        _ => DatabaseError {
            whole: schema(&json!({"message": text})),
            message: Some(answer.beginning()),
            code: None,
        },
    }
}

/// What supabase-js answers; the data keeps its exact text.
fn result(
    outcome: &Result<Json, Json>,
    count: Option<u64>,
    status: u16,
    status_text: &str,
) -> Result<Json, ServiceError> {
    let null = Json::null();
    let (success, data, error) = match outcome {
        Ok(data) => (true, data, &null),
        Err(error) => (false, &null, error),
    };
    let count = count.map_or_else(|| "null".to_owned(), |count| count.to_string());
    let status_text = Json::from(status_text).map_err(ServiceError::internal)?;
    Json::parse(format!(
        r#"{{"success":{success},"error":{error},"data":{data},"count":{count},"status":{status},"statusText":{status_text}}}"#
    ))
    .map_err(ServiceError::internal)
}

fn reason(answer: &HttpAnswer) -> &'static str {
    answer.status.canonical_reason().unwrap_or_default()
}

fn error_free_list() -> Json {
    schema(&json!([]))
}

fn schema(value: &serde_json::Value) -> Json {
    Json::from(value).unwrap_or_default()
}

#[cfg(test)]
#[path = "supabase_tests.rs"]
mod tests;
