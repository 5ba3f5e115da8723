//! Google Programmable Search (the Custom Search JSON API).

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use tasker_core::Json;
use tasker_core::service::{ServiceCall, ServiceError, ServiceErrorType};
use url::Url;

use super::{SearchProvider, SearchResult, tidy};
use crate::http_client::{HttpAnswer, HttpClient, HttpOptions, HttpRequest};
use crate::{Clock, Secret, credentials, system_clock};

/// Name of the key, in the environment and in the keystore.
pub(super) const API_KEY: &str = "WEBSEARCH_API_KEY";
/// Name of the engine's id, in the environment and in the keystore.
pub(super) const ENGINE_ID: &str = "WEBSEARCH_ENGINE_ID";
/// Results that one request can give.
const PAGE: usize = 10;

/// Key and search engine. What is `None` is in the keystore, `global/WEBSEARCH_API_KEY` and `global/WEBSEARCH_ENGINE_ID`.
#[derive(Clone, Debug)]
pub struct GoogleSearchOptions {
    /// The key.
    pub api_key: Option<Secret>,
    /// The id of the engine (`cx`).
    pub engine_id: Option<Secret>,
    /// Where the API is. Default `https://www.googleapis.com/customsearch/v1`.
    pub url: String,
    /// Bounds.
    pub http: HttpOptions,
}

impl Default for GoogleSearchOptions {
    fn default() -> Self {
        Self {
            api_key: None,
            engine_id: None,
            url: "https://www.googleapis.com/customsearch/v1".to_owned(),
            http: HttpOptions::default(),
        }
    }
}

impl GoogleSearchOptions {
    /// `WEBSEARCH_API_KEY` and `WEBSEARCH_ENGINE_ID`; `None` unless both are set.
    pub fn from_env() -> Option<Self> {
        Some(Self {
            api_key: Some(Secret::from_env(API_KEY)?),
            engine_id: Some(Secret::from_env(ENGINE_ID)?),
            ..Self::default()
        })
    }
}

/// Searches with Google.
pub struct GoogleSearch {
    client: HttpClient,
    url: Url,
    options: GoogleSearchOptions,
}

impl GoogleSearch {
    /// The provider.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` when the URL is none.
    pub fn new(options: GoogleSearchOptions) -> Result<Self, ServiceError> {
        Self::with_clock(options, system_clock())
    }

    /// The provider with a clock of the host's.
    ///
    /// # Errors
    /// As [`GoogleSearch::new`].
    pub fn with_clock(options: GoogleSearchOptions, clock: Clock) -> Result<Self, ServiceError> {
        Ok(Self {
            client: HttpClient::new(options.http.clone(), clock)?,
            url: Url::parse(&options.url).map_err(ServiceError::configuration)?,
            options,
        })
    }
}

#[async_trait]
impl SearchProvider for GoogleSearch {
    async fn search(
        &self,
        call: &ServiceCall,
        query: &str,
        limit: usize,
    ) -> Result<Vec<SearchResult>, ServiceError> {
        let key = credentials::find(call, self.options.api_key.as_ref(), API_KEY).await?;
        let engine = credentials::find(call, self.options.engine_id.as_ref(), ENGINE_ID).await?;
        let mut results = Vec::new();
        while results.len() < limit {
            let count = (limit - results.len()).min(PAGE);
            let mut url = self.url.clone();
            url.query_pairs_mut()
                .append_pair("key", key.expose())
                .append_pair("cx", engine.expose())
                .append_pair("q", query)
                .append_pair("num", &count.to_string())
                .append_pair("start", &(results.len() + 1).to_string());
            let mut request = HttpRequest::new("websearch search", Method::GET, url)
                .header("accept", "application/json")?;
            request.secrets = vec![key.clone(), engine.clone()];
            let answer = self.client.send(call, &request).await?;
            if !answer.status.is_success() {
                return Err(error(&answer, &request));
            }
            let found = items(&answer.json(&request)?, &request)?;
            let last = found.len() < count;
            results.extend(found);
            if last {
                break;
            }
        }
        Ok(results)
    }
}

fn items(body: &Json, request: &HttpRequest) -> Result<Vec<SearchResult>, ServiceError> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Item {
        title: String,
        link: String,
        snippet: String,
    }
    let body: Body = body.to().map_err(|error| {
        let text = format!("the answer has another form than Google describes: {error}");
        request.error(ServiceErrorType::External, &text)
    })?;
    let items = body.items.into_iter();
    Ok(items
        .map(|item| SearchResult {
            title: tidy(&item.title),
            url: item.link,
            snippet: tidy(&item.snippet),
        })
        .collect())
}

/// `{error: {code, message, status, errors: [{reason}]}}`
fn error(answer: &HttpAnswer, request: &HttpRequest) -> ServiceError {
    #[derive(Deserialize)]
    struct Body {
        error: Details,
    }
    #[derive(Deserialize)]
    struct Details {
        message: Option<String>,
        status: Option<String>,
    }
    let details = serde_json::from_slice::<Body>(&answer.body).ok();
    let details = details.map(|body| body.error);
    let (message, code) = details.map_or((None, None), |d| (d.message, d.status));
    let message = message.unwrap_or_else(|| answer.beginning());
    answer.error(request, code, &message, None)
}
