//! Who is answered at all.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;
use tasker_core::ServiceError;

use super::RouterOptions;
use super::answer::Asked;

/// Names the request, asks whether it may be answered, and lets it through.
pub(super) async fn guard(
    State(options): State<Arc<RouterOptions>>,
    mut request: Request,
    next: Next,
) -> Response {
    let asked = Asked::of(request.headers());
    let id = HeaderValue::from_str(&asked.request_id).ok();
    let mut response = match admit(&options, request.uri().path(), request.headers()) {
        Ok(()) => {
            request.extensions_mut().insert(asked);
            next.run(request).await
        }
        Err(error) => asked.answer::<()>(Err(error)),
    };
    if let Some(id) = id {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

fn admit(options: &RouterOptions, path: &str, headers: &HeaderMap) -> Result<(), ServiceError> {
    if let Some(token) = &options.token {
        if path == "/health" || path.ends_with("/health") || bears(headers, token.expose()) {
            return Ok(());
        }
        return Err(ServiceError::authentication(
            "this server asks for a token: send Authorization: Bearer with the value of TASKER_TOKEN",
        ));
    }
    if headers.contains_key(header::ORIGIN) {
        return Err(ServiceError::authorization(
            "web pages are not answered by a server without a token; set TASKER_TOKEN and send it",
        ));
    }
    if !options.any_host && !is_this_machine(headers) {
        return Err(ServiceError::authorization(
            "this server has no token and answers requests to localhost only; set TASKER_TOKEN and send it",
        ));
    }
    Ok(())
}

/// Whether the request bears the token. Takes the same time wherever the two differ.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let given = given.and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    });
    given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(token.as_bytes())))
}

/// Whether the `Host` header is a name of this machine. A page under another name that points here is not answered.
fn is_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else {
        // HTTP/2 and tests inside the process have no such header; browsers always send one.
        return true;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use tasker_proxies::Secret;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_token_is_asked_for_everywhere_but_at_health() {
        let options = RouterOptions {
            token: Some(Secret::new("t0ken")),
            ..RouterOptions::default()
        };
        let admitted = |path: &str, pairs: &[(&'static str, &'static str)]| {
            admit(&options, path, &headers(pairs)).is_ok()
        };
        assert!(admitted("/list", &[("authorization", "Bearer t0ken")]));
        assert!(admitted(
            "/list",
            &[("authorization", "bearer t0ken"), ("host", "example.com")]
        ));
        for wrong in [
            "Bearer t0ke",
            "Bearer t0ken2",
            "Bearer ",
            "t0ken",
            "Basic t0ken",
        ] {
            assert!(!admitted("/list", &[("authorization", wrong)]), "{wrong}");
        }
        assert!(!admitted("/list", &[("host", "localhost")]));
        assert!(admitted("/health", &[]));
    }

    #[test]
    fn without_a_token_only_this_machine_is_answered_and_no_web_page() {
        let options = RouterOptions::default();
        let admitted = |pairs: &[(&'static str, &'static str)]| {
            admit(&options, "/list", &headers(pairs)).is_ok()
        };
        for host in [
            "localhost:3102",
            "127.0.0.1:3102",
            "[::1]:3102",
            "LOCALHOST",
        ] {
            assert!(admitted(&[("host", host)]), "{host}");
        }
        for host in [
            "evil.example:3102",
            "192.168.1.5",
            "localhost.evil.example",
            "[::2]:1",
            "",
        ] {
            assert!(!admitted(&[("host", host)]), "{host}");
        }
        assert!(!admitted(&[
            ("host", "localhost"),
            ("origin", "http://evil.example")
        ]));
    }
}
