//! DuckDuckGo by its HTML page, the one for browsers without scripts.

use async_trait::async_trait;
use reqwest::Method;
use scraper::{ElementRef, Html, Selector};
use tasker_core::service::{ServiceCall, ServiceError, ServiceErrorType};
use url::Url;

use super::{SearchProvider, SearchResult, tidy};
use crate::http_client::{HttpClient, HttpOptions, HttpRequest};
use crate::{Clock, system_clock};

/// The page refuses clients that say nothing of a browser.
const USER_AGENT: &str = "Mozilla/5.0 (compatible; tasker)";

/// Searches with `DuckDuckGo`. One page, some thirty results at most.
pub struct DuckDuckGo {
    client: HttpClient,
    url: Url,
}

impl DuckDuckGo {
    /// The provider.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` when TLS cannot be set up.
    pub fn new(options: HttpOptions) -> Result<Self, ServiceError> {
        Self::at("https://html.duckduckgo.com/html/", options, system_clock())
    }

    /// The provider with its page at another URL, and a clock of the host's.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` when the URL is none.
    pub fn at(url: &str, options: HttpOptions, clock: Clock) -> Result<Self, ServiceError> {
        Ok(Self {
            client: HttpClient::new(options, clock)?,
            url: Url::parse(url).map_err(ServiceError::configuration)?,
        })
    }
}

#[async_trait]
impl SearchProvider for DuckDuckGo {
    async fn search(
        &self,
        call: &ServiceCall,
        query: &str,
        limit: usize,
    ) -> Result<Vec<SearchResult>, ServiceError> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("q", query);
        let request = HttpRequest::new("websearch search", Method::GET, url)
            .header("accept", "text/html")?
            .header("user-agent", USER_AGENT)?;
        let answer = self.client.send(call, &request).await?;
        if !answer.status.is_success() {
            return Err(answer.error(&request, None, "DuckDuckGo refused to search", None));
        }
        let page = String::from_utf8_lossy(&answer.body);
        match read(&page, &self.url, limit) {
            Page::Results(results) => Ok(results),
            Page::Challenge => Err(request
                .error(
                    ServiceErrorType::RateLimit,
                    "DuckDuckGo asks whether a person is searching; wait, search less often, or use Google with WEBSEARCH_API_KEY and WEBSEARCH_ENGINE_ID",
                )
                .with_code("CHALLENGE")),
            Page::Unknown => Err(request.error(
                ServiceErrorType::External,
                "the page of DuckDuckGo has another form than this service knows",
            )),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Page {
    Results(Vec<SearchResult>),
    /// A question to a person.
    Challenge,
    /// Neither results nor the sentence that there are none.
    Unknown,
}

fn read(page: &str, base: &Url, limit: usize) -> Page {
    let page = Html::parse_document(page);
    let all = |css: &str| Selector::parse(css).ok();
    let (Some(results), Some(links), Some(snippets), Some(challenge), Some(none)) = (
        all(".result:not(.result--ad)"),
        all("a.result__a"),
        all(".result__snippet"),
        all(".anomaly-modal__modal, #challenge-form"),
        all(".no-results, .result--no-result"),
    ) else {
        return Page::Unknown;
    };
    if page.select(&challenge).next().is_some() {
        return Page::Challenge;
    }
    let found: Vec<SearchResult> = page
        .select(&results)
        .filter_map(|result| {
            let link = result.select(&links).next()?;
            let snippet = result.select(&snippets).next();
            Some(SearchResult {
                title: text(link),
                url: target(base, link.value().attr("href")?)?,
                snippet: snippet.map(text).unwrap_or_default(),
            })
        })
        .take(limit)
        .collect();
    if found.is_empty() && page.select(&none).next().is_none() {
        return Page::Unknown;
    }
    Page::Results(found)
}

fn text(element: ElementRef<'_>) -> String {
    tidy(&element.text().collect::<String>())
}

/// Where a link leads: the page counts clicks by `//duckduckgo.com/l/?uddg=…`. `None` for advertisements (`/y.js`).
fn target(base: &Url, link: &str) -> Option<String> {
    let url = base.join(link).ok()?;
    let own = url
        .domain()
        .is_some_and(|domain| domain.ends_with("duckduckgo.com"));
    match url.path() {
        "/l/" if own => url
            .query_pairs()
            .find(|(name, _)| name == "uddg")
            .map(|(_, target)| target.into_owned())
            .filter(|target| target.starts_with("http")),
        "/y.js" if own => None,
        _ => Some(url.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("duckduckgo_page.html");

    fn base() -> Url {
        Url::parse("https://html.duckduckgo.com/html/").unwrap()
    }

    #[test]
    fn results_are_read_and_advertisements_are_not() {
        let Page::Results(results) = read(PAGE, &base(), 10) else {
            panic!("no results");
        };
        assert_eq!(
            results,
            [
                SearchResult {
                    title: "Rust & its <friends>".to_owned(),
                    url: "https://www.rust-lang.org/learn?a=1&b=2".to_owned(),
                    snippet: "A language empowering everyone.".to_owned(),
                },
                SearchResult {
                    title: "Direct".to_owned(),
                    url: "https://example.com/direct".to_owned(),
                    snippet: String::new(),
                },
            ]
        );
        let Page::Results(one) = read(PAGE, &base(), 1) else {
            panic!("no results");
        };
        assert_eq!(one.len(), 1);
    }

    #[test]
    fn nothing_found_is_not_a_broken_page() {
        let none = r#"<div class="no-results">No results.</div>"#;
        assert_eq!(read(none, &base(), 5), Page::Results(vec![]));
        assert_eq!(read("<html>Hello", &base(), 5), Page::Unknown);
        let challenge = r#"<form id="challenge-form"></form><div class="no-results"></div>"#;
        assert_eq!(read(challenge, &base(), 5), Page::Challenge);
    }
}
