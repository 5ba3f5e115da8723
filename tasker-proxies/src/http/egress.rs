//! Where tasks may send requests: nowhere, except where a rule of the host says so. Pure.

use tasker_core::service::ServiceError;
use url::{Host, Url};

/// One place that tasks may reach. What a rule does not name is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressRule {
    host: String,
    methods: Vec<String>,
    path: Option<String>,
    ports: Vec<u16>,
    plain: bool,
    private: bool,
}

impl EgressRule {
    /// `GET` and `HEAD` by https on port 443: `api.example.com`, `*.example.com` (not `example.com` itself), or `*` for
    /// every host of the public internet.
    pub fn host(host: impl Into<String>) -> Self {
        Self {
            host: host.into().to_ascii_lowercase(),
            methods: vec!["GET".to_owned(), "HEAD".to_owned()],
            path: None,
            ports: Vec::new(),
            plain: false,
            private: false,
        }
    }

    /// These methods instead; `*` is every method.
    #[must_use]
    pub fn methods<T: Into<String>>(mut self, methods: impl IntoIterator<Item = T>) -> Self {
        let methods = methods.into_iter();
        self.methods = methods
            .map(|method| method.into().to_ascii_uppercase())
            .collect();
        self
    }

    /// Only paths below this one: `/v1` allows `/v1` and `/v1/x`, and not `/v10`.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        let path = path.into();
        self.path = Some(path.trim_end_matches('/').to_owned());
        self
    }

    /// This port besides the scheme's own.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// Plain http as well.
    #[must_use]
    pub const fn plain_http(mut self) -> Self {
        self.plain = true;
        self
    }

    /// Addresses that are not of the public internet as well: for a service of the host's own network, by its name.
    #[must_use]
    pub const fn private_addresses(mut self) -> Self {
        self.private = true;
        self
    }

    fn names(&self, host: &str) -> bool {
        match self.host.strip_prefix("*.") {
            Some(parent) => host
                .strip_suffix(parent)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            None => self.host == "*" || self.host == host,
        }
    }

    fn allows(&self, method: &str, url: &Url, host: &str) -> bool {
        let scheme = url.scheme() == "https" || (self.plain && url.scheme() == "http");
        let port = url.port().is_none_or(|port| self.ports.contains(&port));
        let method = self.methods.iter().any(|m| m == "*" || m == method);
        let path = self.path.as_deref().is_none_or(|prefix| {
            let lower = url.path().to_ascii_lowercase();
            // A server may read these as separators and leave the folder again.
            let tricky = lower.contains("%2f") || lower.contains("%5c") || lower.contains("%2e");
            let below = url.path().strip_prefix(prefix);
            !tricky && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        self.names(host) && scheme && port && method && path
    }
}

/// The host of a URL as rules name it.
pub(super) fn host_name(url: &Url) -> Option<String> {
    Some(match url.host()? {
        Host::Domain(name) => name.trim_end_matches('.').to_ascii_lowercase(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    })
}

/// Whether a rule lets this host be at an address that is not public. `*` never does.
pub(super) fn may_be_private(rules: &[EgressRule], host: &str) -> bool {
    let mut rules = rules.iter();
    rules.any(|rule| rule.private && rule.host != "*" && rule.names(host))
}

/// Whether a rule allows this request.
///
/// # Errors
/// `VALIDATION_ERROR` for a URL that is none for requests, `AUTHORIZATION_ERROR` when no rule allows it.
pub(super) fn check(rules: &[EgressRule], method: &str, url: &Url) -> Result<(), ServiceError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(ServiceError::validation(format!(
            "http.fetch: {:?} URLs cannot be fetched; use https",
            url.scheme()
        )));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ServiceError::validation(
            "http.fetch: a URL with user and password is refused; send an authorization header",
        ));
    }
    let host = host_name(url).unwrap_or_default();
    if rules.iter().any(|rule| rule.allows(method, url, &host)) {
        return Ok(());
    }
    Err(ServiceError::authorization(format!(
        "http.fetch: no egress rule allows {method} {}; the host of the engine adds one where this is wanted",
        crate::http_client::shown_url(url)
    ))
    .with_code("EGRESS_DENIED"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rules: &[EgressRule], method: &str, url: &str) -> bool {
        check(rules, method, &Url::parse(url).unwrap()).is_ok()
    }

    #[test]
    fn nothing_is_allowed_without_a_rule() {
        assert!(!allowed(&[], "GET", "https://example.com/"));
        let error =
            check(&[], "GET", &Url::parse("https://e.com/a?key=sk-1").unwrap()).unwrap_err();
        assert_eq!(error.code(), "EGRESS_DENIED");
        assert!(!error.message.contains("sk-1"));
    }

    #[test]
    fn a_rule_allows_what_it_names_and_nothing_else() {
        let rules = [
            EgressRule::host("API.example.com")
                .methods(["get", "post"])
                .path("/v1/"),
            EgressRule::host("*.shop.com").port(8443),
            EgressRule::host("plain.com").plain_http().methods(["*"]),
        ];
        for (method, url) in [
            ("GET", "https://api.example.com/v1"),
            ("POST", "https://API.EXAMPLE.com./v1/x?y#z"),
            ("GET", "https://a.shop.com/"),
            ("HEAD", "https://a.b.shop.com:8443/x"),
            ("DELETE", "http://plain.com/"),
            ("PUT", "https://plain.com:443/"),
        ] {
            assert!(allowed(&rules, method, url), "{method} {url}");
        }
        for (method, url) in [
            ("DELETE", "https://api.example.com/v1"),
            ("GET", "http://api.example.com/v1"),
            ("GET", "https://api.example.com/v10"),
            ("GET", "https://api.example.com/v1/../admin"),
            ("GET", "https://api.example.com/v1/%2e%2e/admin"),
            ("GET", "https://api.example.com/v1/..%2Fadmin"),
            ("GET", "https://api.example.com/v1/..%5cadmin"),
            ("GET", "https://api.example.com:444/v1"),
            ("GET", "https://api.example.com.evil.com/v1"),
            ("GET", "https://example.com/v1"),
            ("GET", "https://shop.com/"),
            ("GET", "https://evilshop.com/"),
            ("POST", "https://a.shop.com/"),
            ("GET", "https://user:pw@plain.com/"),
            ("GET", "ftp://plain.com/"),
            ("GET", "file:///etc/passwd"),
        ] {
            assert!(!allowed(&rules, method, url), "{method} {url}");
        }
    }

    #[test]
    fn only_a_rule_with_a_name_opens_private_addresses() {
        let rules = [
            EgressRule::host("*").private_addresses(),
            EgressRule::host("db.corp").private_addresses(),
        ];
        assert!(may_be_private(&rules, "db.corp"));
        assert!(!may_be_private(&rules, "other.corp"));
    }
}
