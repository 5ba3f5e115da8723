//! Web search: `search({query, limit})` → `{query, results: [{title, url, snippet}], timestamp}`.
//!
//! Who searches is a [`SearchProvider`]: [`GoogleSearch`] (Programmable Search, needs a key) or [`DuckDuckGo`] (its
//! HTML page, needs none). Results are what the provider gave, in its order; none is made up.

mod duckduckgo;
mod google;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tasker_core::Json;
use tasker_core::service::{
    Health, MethodDescription, MethodPolicy, RetryPolicy, ServiceCall, ServiceDescription,
    ServiceError, ServiceProxy,
};

pub use duckduckgo::DuckDuckGo;
pub use google::{GoogleSearch, GoogleSearchOptions};

use crate::http_client::HttpOptions;
use crate::{Clock, system_clock};

/// Results of a search that names no limit.
const DEFAULT_LIMIT: usize = 5;
/// Most results that a search may ask for.
const MAX_LIMIT: usize = 50;

/// A page that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SearchResult {
    /// Its title.
    pub title: String,
    /// Where it is.
    pub url: String,
    /// What it says about the query.
    pub snippet: String,
}

/// Who searches.
#[async_trait]
pub trait SearchProvider: Send + Sync + 'static {
    /// At most `limit` results, the best first. `limit` is 1 to 50.
    async fn search(
        &self,
        call: &ServiceCall,
        query: &str,
        limit: usize,
    ) -> Result<Vec<SearchResult>, ServiceError>;
}

/// The service `websearch`.
pub struct WebSearch {
    provider: Arc<dyn SearchProvider>,
    clock: Clock,
}

impl WebSearch {
    /// The service with this provider.
    pub fn new(provider: impl SearchProvider) -> Self {
        Self {
            provider: Arc::new(provider),
            clock: system_clock(),
        }
    }

    /// Google when `WEBSEARCH_API_KEY` and `WEBSEARCH_ENGINE_ID` are set, else `DuckDuckGo`.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` when TLS cannot be set up.
    pub fn from_env() -> Result<Self, ServiceError> {
        match GoogleSearchOptions::from_env() {
            Some(options) => Ok(Self::new(GoogleSearch::new(options)?)),
            None => Ok(Self::new(DuckDuckGo::new(HttpOptions::default())?)),
        }
    }

    /// Sets the clock. Default: the system's.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    async fn search(&self, call: &ServiceCall) -> Result<Json, ServiceError> {
        #[derive(Serialize)]
        struct Answer<'a> {
            query: &'a str,
            results: Vec<SearchResult>,
            timestamp: String,
        }
        let asked = Asked::of(call)?;
        let mut results = self
            .provider
            .search(call, &asked.query, asked.limit)
            .await?;
        results.truncate(asked.limit);
        Json::from(&Answer {
            query: &asked.query,
            results,
            timestamp: (self.clock)().to_string(),
        })
        .map_err(ServiceError::internal)
    }
}

/// `search({query, limit})` or `search(query, {limit})`.
struct Asked {
    query: String,
    limit: usize,
}

impl Asked {
    fn of(call: &ServiceCall) -> Result<Self, ServiceError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Named {
            query: Option<String>,
            limit: Option<i64>,
        }
        let wrong = |text: &str| {
            ServiceError::validation(format!(
                "{}.search: {text}; write search({{query: \"…\", limit: 5}})",
                call.service
            ))
        };
        let object = |index: usize| match call.args().get(index) {
            Some(json) if json.text().starts_with('{') => json
                .to::<Named>()
                .map_err(|error| wrong(&format!("the options cannot be read: {error}"))),
            _ => Ok(Named::default()),
        };
        let text = call
            .args()
            .first()
            .and_then(|json| json.to::<String>().ok());
        let named = if text.is_some() {
            object(1)?
        } else {
            object(0)?
        };
        let query = text.or(named.query).unwrap_or_default();
        let query = query.trim().to_owned();
        if query.is_empty() {
            return Err(wrong("the query is empty"));
        }
        let limit = match named.limit {
            None => DEFAULT_LIMIT,
            Some(limit) => usize::try_from(limit)
                .ok()
                .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                .ok_or_else(|| wrong(&format!("the limit is 1 to {MAX_LIMIT}")))?,
        };
        Ok(Self { query, limit })
    }
}

#[async_trait]
impl ServiceProxy for WebSearch {
    fn describe(&self) -> ServiceDescription {
        ServiceDescription::new("websearch")
            .describe("Searches the web")
            .policy(MethodPolicy {
                retry: Some(RetryPolicy::attempts(3)),
                ..MethodPolicy::default()
            })
            .method(
                MethodDescription::new("search")
                    .describe("Pages about a query, the best first")
                    .arg(schema(&json!({
                        "type": "object",
                        "properties": {
                            "query": {"type": "string"},
                            "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                        },
                        "required": ["query"],
                    })))
                    .result(schema(&json!({
                        "type": "object",
                        "properties": {
                            "query": {"type": "string"},
                            "results": {"type": "array", "items": {
                                "type": "object",
                                "properties": {
                                    "title": {"type": "string"},
                                    "url": {"type": "string"},
                                    "snippet": {"type": "string"},
                                },
                            }},
                            "timestamp": {"type": "string"},
                        },
                    }))),
            )
            .method(
                MethodDescription::new("getServerTime").describe("The time of the service"),
            )
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        match call.method().as_str() {
            "search" => self.search(&call).await,
            "getServerTime" => Json::from(&json!({
                "timestamp": (self.clock)().to_string(),
                "source": "websearch",
            }))
            .map_err(ServiceError::internal),
            other => Err(ServiceError::not_found(format!(
                "websearch has no method {other:?}; it has search, getServerTime"
            ))),
        }
    }

    /// Searches for one word with the credentials that the host gave.
    async fn health(&self) -> Health {
        let call = ServiceCall::test("websearch", "search", vec![]);
        self.health_within(&call).await
    }

    /// Searches for one word, with the credentials of the keystore when the host gave none.
    async fn health_within(&self, call: &ServiceCall) -> Health {
        match self.provider.search(call, "health", 1).await {
            Ok(_) => Health::Healthy,
            Err(error) => Health::Unhealthy(error.message),
        }
    }
}

/// White space as a reader sees it: one blank.
fn tidy(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn schema(value: &serde_json::Value) -> Json {
    Json::from(value).unwrap_or_default()
}

#[cfg(test)]
#[path = "websearch_tests.rs"]
mod tests;
