//! `fetch` for tasks that were granted it.
//!
//! `tools.http.fetch(url, {method, headers, body, redirect})` answers `{ok, status, statusText, url, redirected,
//! headers, body}`, which the sandbox shows as the usual `Response`. `body` is text; bytes that are no UTF-8 stand
//! exactly in `bodyBase64` besides. Register it with `private_service`.
//!
//! Invariants: a request goes nowhere unless an [`EgressRule`] allows it, at every redirect anew · every address of a
//! name is checked when it is resolved for the connection, and the connection goes to a checked address, so a name
//! that changes its address between check and use gains nothing · proxies of the environment are not used.

mod address;
mod egress;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::future::BoxFuture;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, dns};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tasker_core::Json;
use tasker_core::service::{
    MethodDescription, MethodPolicy, ServiceCall, ServiceDescription, ServiceError,
    ServiceErrorType, ServiceProxy,
};
use url::{Host, Url};

pub use egress::EgressRule;

use crate::http_client::{HttpAnswer, HttpClient, HttpOptions, HttpRequest};
use crate::{Clock, system_clock};

/// Redirects that are followed, at most.
const MAX_REDIRECTS: usize = 5;

/// Headers that are the host's: they say how the connection works, or who sends.
const NOT_FOR_TASKS: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
];

/// Headers that stay behind when a redirect leads to another origin.
const FOR_ONE_ORIGIN: [&str; 5] = [
    "authorization",
    "cookie",
    "x-api-key",
    "apikey",
    "x-auth-token",
];

/// Finds the addresses of a name. The default asks the system; tests and hosts with a resolver of their own give another.
pub type Lookup =
    Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> + Send + Sync>;

/// The service `http`.
pub struct Http {
    client: HttpClient,
    guard: Guard,
}

impl Http {
    /// The service with these rules; none: every request is refused.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` when TLS cannot be set up.
    pub fn new(rules: Vec<EgressRule>, options: HttpOptions) -> Result<Self, ServiceError> {
        Self::with(rules, options, system_lookup(), system_clock())
    }

    /// The service with a resolver and a clock of the host's.
    ///
    /// # Errors
    /// As [`Http::new`].
    pub fn with(
        rules: Vec<EgressRule>,
        options: HttpOptions,
        lookup: Lookup,
        clock: Clock,
    ) -> Result<Self, ServiceError> {
        let guard = Guard {
            rules: rules.into(),
            lookup,
        };
        let builder = reqwest::Client::builder()
            .no_proxy()
            .dns_resolver(Arc::new(guard.clone()));
        let client = HttpClient::with(builder, options, clock)?;
        Ok(Self { client, guard })
    }

    async fn fetch(&self, call: &ServiceCall) -> Result<Json, ServiceError> {
        let url: String = call.arg(0)?;
        let url = Url::parse(&url).map_err(|error| {
            ServiceError::validation(format!(
                "http.fetch: the first argument is not a whole URL ({error}); it begins with https://"
            ))
        })?;
        let init: Init = match call.args().get(1) {
            None => Init::default(),
            Some(json) if json.text() == "null" => Init::default(),
            Some(_) => call.arg(1)?,
        };
        let follow = init.follow()?;
        let mut request = init.request(url)?;
        for hop in 0.. {
            self.guard.check(&request).await?;
            let answer = self.client.send(call, &request).await?;
            let next = next_url(&request, &answer)?;
            match (next, follow) {
                (Some(next), Follow::Yes) => {
                    if hop == MAX_REDIRECTS {
                        let text = format!("more than {MAX_REDIRECTS} redirects");
                        return Err(request.error(ServiceErrorType::External, &text));
                    }
                    request = redirected(request, next, answer.status.as_u16())?;
                }
                (Some(_), Follow::Error) => {
                    return Err(request.error(
                        ServiceErrorType::External,
                        "it is a redirect, and the request says redirect: 'error'",
                    ));
                }
                _ => return response(&request, &answer, hop > 0),
            }
        }
        Err(ServiceError::internal("redirects ended without an answer"))
    }
}

#[async_trait]
impl ServiceProxy for Http {
    fn describe(&self) -> ServiceDescription {
        let url = json!({"type": "string", "format": "uri"});
        let init = json!({
            "type": "object",
            "properties": {
                "method": {"type": "string"},
                "headers": {"type": "object", "additionalProperties": {"type": "string"}},
                "body": {"type": "string"},
                "redirect": {"enum": ["follow", "manual", "error"]},
            },
        });
        ServiceDescription::new("http")
            .describe("Requests to the hosts that the egress rules name")
            .policy(MethodPolicy {
                timeout_ms: Some(300_000),
                ..MethodPolicy::default()
            })
            .method(
                MethodDescription::new("fetch")
                    .describe("Fetches a URL")
                    .arg(schema(&url))
                    .arg(schema(&init))
                    .result(schema(&json!({
                        "type": "object",
                        "properties": {
                            "ok": {"type": "boolean"},
                            "status": {"type": "integer"},
                            "statusText": {"type": "string"},
                            "url": {"type": "string"},
                            "redirected": {"type": "boolean"},
                            "headers": {"type": "object", "additionalProperties": {"type": "string"}},
                            "body": {"type": "string"},
                            "bodyBase64": {"type": "string"},
                        },
                    }))),
            )
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        match call.method().as_str() {
            "fetch" => self.fetch(&call).await,
            other => Err(ServiceError::not_found(format!(
                "http has no method {other:?}; it has fetch"
            ))),
        }
    }
}

/// The second argument of `fetch`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Init {
    method: Option<String>,
    headers: BTreeMap<String, String>,
    body: Option<String>,
    redirect: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Follow {
    Yes,
    No,
    Error,
}

impl Init {
    fn follow(&self) -> Result<Follow, ServiceError> {
        match self.redirect.as_deref() {
            None | Some("follow") => Ok(Follow::Yes),
            Some("manual") => Ok(Follow::No),
            Some("error") => Ok(Follow::Error),
            Some(_) => Err(ServiceError::validation(
                "http.fetch: redirect is 'follow', 'manual' or 'error'",
            )),
        }
    }

    fn request(self, url: Url) -> Result<HttpRequest, ServiceError> {
        let name = self.method.unwrap_or_else(|| "GET".to_owned());
        let name = name.to_ascii_uppercase();
        let wrong = |text: String| ServiceError::validation(format!("http.fetch: {text}"));
        if matches!(name.as_str(), "CONNECT" | "TRACE" | "TRACK") {
            return Err(wrong(format!("the method {name} is refused")));
        }
        let method = Method::from_bytes(name.as_bytes())
            .map_err(|_| wrong(format!("{name:?} is no method")))?;
        if self.body.is_some() && matches!(name.as_str(), "GET" | "HEAD") {
            return Err(wrong(format!("a {name} request has no body")));
        }
        let mut request = HttpRequest::new("http fetch", method, url);
        for (name, value) in self.headers {
            let lower = name.to_ascii_lowercase();
            if NOT_FOR_TASKS.contains(&lower.as_str())
                || lower.starts_with("proxy-")
                || lower.starts_with("sec-")
                || lower.starts_with("x-forwarded-")
            {
                return Err(wrong(format!(
                    "the header {lower:?} is not for tasks to set"
                )));
            }
            let header = HeaderName::from_bytes(lower.as_bytes())
                .map_err(|_| wrong(format!("{name:?} is no name of a header")))?;
            let value = HeaderValue::from_str(&value).map_err(|_| {
                wrong(format!(
                    "the value of the header {lower:?} holds a character that no header may hold"
                ))
            })?;
            request.headers.insert(header, value);
        }
        if let Some(body) = self.body {
            let content = HeaderValue::from_static("text/plain;charset=UTF-8");
            request
                .headers
                .entry(reqwest::header::CONTENT_TYPE)
                .or_insert(content);
            request.body = Some(body.into_bytes());
        }
        Ok(request)
    }
}

/// Where an answer redirects to.
fn next_url(request: &HttpRequest, answer: &HttpAnswer) -> Result<Option<Url>, ServiceError> {
    if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = answer.headers.get(LOCATION) else {
        return Ok(None);
    };
    let target = location.to_str().ok();
    let target = target.and_then(|target| request.url.join(target).ok());
    target.map(Some).ok_or_else(|| {
        request.error(
            ServiceErrorType::External,
            "it redirects to something that is no URL",
        )
    })
}

/// The request after a redirect, as the fetch standard has it; from https never to http.
fn redirected(
    mut request: HttpRequest,
    next: Url,
    status: u16,
) -> Result<HttpRequest, ServiceError> {
    if request.url.scheme() == "https" && next.scheme() != "https" {
        return Err(request.error(
            ServiceErrorType::Authorization,
            "it redirects from https to plain http, which is refused",
        ));
    }
    let post = request.method == Method::POST;
    let becomes_get = (matches!(status, 301 | 302) && post)
        || (status == 303 && !matches!(request.method, Method::GET | Method::HEAD));
    if becomes_get {
        request.method = Method::GET;
        request.repeatable = true;
        request.body = None;
        for name in ["content-type", "content-encoding", "content-language"] {
            request.headers.remove(name);
        }
    }
    if request.url.origin() != next.origin() {
        for name in FOR_ONE_ORIGIN {
            request.headers.remove(name);
        }
    }
    request.url = next;
    request.url.set_fragment(None);
    Ok(request)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FetchResponse<'a> {
    ok: bool,
    status: u16,
    status_text: &'a str,
    url: &'a str,
    redirected: bool,
    headers: BTreeMap<&'a str, String>,
    body: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

fn response(
    request: &HttpRequest,
    answer: &HttpAnswer,
    redirected: bool,
) -> Result<Json, ServiceError> {
    let text = String::from_utf8_lossy(&answer.body);
    let exact = matches!(text, std::borrow::Cow::Borrowed(_));
    let response = FetchResponse {
        ok: answer.status.is_success(),
        status: answer.status.as_u16(),
        status_text: answer.status.canonical_reason().unwrap_or_default(),
        url: request.url.as_str(),
        redirected,
        headers: headers_of(&answer.headers),
        body: &text,
        body_base64: (!exact).then(|| BASE64_STANDARD.encode(&answer.body)),
    };
    Json::from(&response).map_err(ServiceError::internal)
}

/// Header values by lower-case name; those of one name joined by commas.
fn headers_of(headers: &HeaderMap) -> BTreeMap<&str, String> {
    let mut all: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        all.entry(name.as_str())
            .and_modify(|known| {
                known.push_str(", ");
                known.push_str(&value);
            })
            .or_insert_with(|| value.to_string());
    }
    all
}

/// The rules with the resolver that enforces them for addresses.
#[derive(Clone)]
struct Guard {
    rules: Arc<[EgressRule]>,
    lookup: Lookup,
}

impl Guard {
    /// Rules and addresses, before anything is sent. The resolver checks again when it connects.
    async fn check(&self, request: &HttpRequest) -> Result<(), ServiceError> {
        egress::check(&self.rules, request.method.as_str(), &request.url)?;
        let name = egress::host_name(&request.url).unwrap_or_default();
        let addresses = match request.url.host() {
            Some(Host::Ipv4(address)) => vec![IpAddr::V4(address)],
            Some(Host::Ipv6(address)) => vec![IpAddr::V6(address)],
            _ => (self.lookup)(name.clone()).await.map_err(|error| {
                let text = format!("the address of {name} was not found: {error}");
                request.error(ServiceErrorType::External, &text)
            })?,
        };
        self.public(&name, &addresses).map_err(|text| {
            request
                .error(ServiceErrorType::Authorization, &text)
                .with_code("EGRESS_DENIED")
        })
    }

    /// Every address must be public, or the rule of this name says otherwise.
    fn public(&self, name: &str, addresses: &[IpAddr]) -> Result<(), String> {
        if egress::may_be_private(&self.rules, name) {
            return Ok(());
        }
        match addresses.iter().find_map(|a| address::not_public(*a)) {
            Some(why) => Err(format!(
                "the address of {name} is not of the public internet ({why}); the host allows that by a rule with private_addresses()"
            )),
            None => Ok(()),
        }
    }
}

impl dns::Resolve for Guard {
    fn resolve(&self, name: dns::Name) -> dns::Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let name = name.as_str().trim_end_matches('.').to_ascii_lowercase();
            let addresses = (guard.lookup)(name.clone()).await?;
            guard.public(&name, &addresses)?;
            let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0));
            let addresses: dns::Addrs = Box::new(addresses);
            Ok(addresses)
        })
    }
}

fn system_lookup() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

fn schema(value: &serde_json::Value) -> Json {
    Json::from(value).unwrap_or_default()
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
