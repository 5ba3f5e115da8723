//! What the tests of all services use: a loopback server with queued answers that keeps what it was sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Request, Response};
use tasker_core::Timestamp;

use crate::Clock;

/// A clock that stands still.
pub(crate) fn still_clock() -> Clock {
    Arc::new(|| Timestamp::from_millis(1_700_000_000_000))
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "each service's tests look at their own part")]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

type Answer = Box<dyn FnOnce() -> Response<Body> + Send>;

/// A server on a free loopback port. Its answers are given in order; when there are none left, 418.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            seen: Arc::default(),
            answers: Arc::default(),
        };
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    /// Queues an answer.
    pub(crate) fn then(&self, answer: impl FnOnce() -> Response<Body> + Send + 'static) -> &Self {
        self.answers.lock().unwrap().push_back(Box::new(answer));
        self
    }

    /// Queues a JSON answer.
    pub(crate) fn then_json(&self, status: u16, body: &str) -> &Self {
        let body = body.to_owned();
        self.then(move || {
            Response::builder()
                .status(status)
                .header("content-type", "application/json")
                .body(Body::from(body))
                .unwrap()
        })
    }

    /// What came, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// What came; there was exactly one.
    pub(crate) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }
}

async fn answer(State(server): State<Server>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    server.seen.lock().unwrap().push(Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    let next = server.answers.lock().unwrap().pop_front();
    match next {
        Some(answer) => answer(),
        None => Response::builder().status(418).body(Body::empty()).unwrap(),
    }
}
