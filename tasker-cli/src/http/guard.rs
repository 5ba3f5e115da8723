//! What stands before every request: who is answered at all, how much and how slowly one may send, and what is counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;
use tasker_core::ServiceError;
use tokio::time::Instant;
use tracing::Instrument;

use super::RouterOptions;
use super::answer::Asked;

/// What the guard of a service knows.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    /// Its name, in logs and counts.
    pub(super) service: Arc<str>,
    pub(super) options: Arc<RouterOptions>,
}

/// Names the request, asks whether it may be answered, takes its body, and lets it through.
pub(super) async fn guard(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let asked = Asked::of(request.headers());
    let route = request.extensions().get::<MatchedPath>();
    let path = route.map_or("other", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let span = tracing::info_span!(
        "request",
        service = &*desk.service,
        %method,
        path,
        request_id = asked.request_id,
        correlation_id = asked.correlation_id,
    );
    let metrics = &desk.options.metrics;
    let _under_way = metrics.request(&desk.service);
    let begun = Instant::now();
    let mut response = answered(&desk.options, &asked, request, next)
        .instrument(span.clone())
        .await;
    let (took, status) = (begun.elapsed(), response.status().as_u16());
    metrics.answered(&desk.service, method.as_str(), &path, status, took);
    span.in_scope(|| tracing::debug!(status, ms = took.as_millis() as u64, "answered"));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&asked.request_id) {
        headers.insert("x-request-id", id);
    }
    if let Some(id) = asked.correlation_id.as_deref()
        && let Ok(id) = HeaderValue::from_str(id)
    {
        headers.insert("x-correlation-id", id);
    }
    response
}

async fn answered(
    options: &RouterOptions,
    asked: &Asked,
    request: Request,
    next: Next,
) -> Response {
    if let Err(error) = admit(options, request.uri().path(), request.headers()) {
        return asked.answer::<()>(Err(error));
    }
    let (mut parts, body) = request.into_parts();
    let bytes = match whole(body, options.body_bytes, options.body_timeout).await {
        Ok(bytes) => bytes,
        Err(error) => return asked.answer::<()>(Err(error)),
    };
    parts.extensions.insert(asked.clone());
    next.run(Request::from_parts(parts, bytes)).await
}

/// The body, once all of it is there.
async fn whole(body: Body, limit: usize, patience: Duration) -> Result<Body, ServiceError> {
    match tokio::time::timeout(patience, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) => {
            let too_large = std::error::Error::source(&error)
                .is_some_and(|source| source.to_string().contains("length limit"));
            Err(if too_large {
                ServiceError::validation(format!(
                    "the body is larger than {limit} bytes, and no more is taken"
                ))
                .with_status(413)
            } else {
                ServiceError::validation("the body broke off before its end")
            })
        }
        Err(_) => Err(ServiceError::validation(format!(
            "the body was not there within {} s; send it at once",
            patience.as_secs()
        ))
        .with_status(408)),
    }
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
    if let Some(origin) = headers.get(header::ORIGIN) {
        let listed = options.cors_origins.iter();
        if !listed
            .into_iter()
            .any(|known| known.as_bytes() == origin.as_bytes())
        {
            return Err(ServiceError::authorization(
                "web pages of this origin are not answered by a server without a token; list the origin in TASKER_CORS_ORIGINS, or set TASKER_TOKEN and send it",
            ));
        }
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
