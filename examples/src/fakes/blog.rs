//! What the blog generator needs: Google's search, OpenAI's chat, and a table behind PostgREST with a primary key.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::ledger::Ledger;

/// The keys that the servers accept.
pub const SEARCH_KEY: &str = "search-key-of-the-example";
/// Id of the search engine.
pub const SEARCH_ENGINE: &str = "engine-of-the-example";
/// Key of OpenAI.
pub const OPENAI_KEY: &str = "sk-of-the-example";
/// Key of the database.
pub const DATABASE_KEY: &str = "service-role-key-of-the-example";

/// The post that is written, in the pieces in which it comes.
pub const POST: [&str; 6] = [
    "Durable ",
    "runs ",
    "go on ",
    "where ",
    "they ",
    "were stopped.",
];

/// The three servers as one.
#[derive(Default)]
pub struct Blog {
    /// Requests to all three.
    pub ledger: Ledger,
    state: Mutex<Kept>,
    /// When set, a post is written to its half, and the rest when this has a permit or is closed.
    hold: Option<Arc<Semaphore>>,
}

#[derive(Default)]
struct Kept {
    /// Rows of the table by primary key.
    posts: BTreeMap<String, Value>,
    /// How often each idempotency key was sent to the chat. A provider that keeps them writes one post for each.
    keys: BTreeMap<String, usize>,
}

impl Blog {
    /// Writes each post to its half, and the rest when `hold` has a permit or is closed.
    pub fn held(hold: Arc<Semaphore>) -> Self {
        Self {
            hold: Some(hold),
            ..Self::default()
        }
    }

    /// The server.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/customsearch/v1", get(search))
            .route("/v1/chat/completions", post(chat))
            .route("/rest/v1/posts", post(insert))
            .with_state(Arc::clone(self))
    }

    /// The rows of the table.
    pub fn posts(&self) -> Vec<Value> {
        self.lock().posts.values().cloned().collect()
    }

    /// How many posts a provider that keeps idempotency keys has written.
    pub fn generations(&self) -> usize {
        self.lock().keys.len()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // The maps are whole at every point where a holder could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(headers: &HeaderMap) -> &str {
    let value = headers.get("authorization");
    let value = value.and_then(|value| value.to_str().ok());
    let value = value.unwrap_or_default();
    value.strip_prefix("Bearer ").unwrap_or_default()
}

#[derive(Deserialize)]
struct Search {
    key: String,
    cx: String,
    q: String,
    num: usize,
}

async fn search(
    State(blog): State<Arc<Blog>>,
    Query(asked): Query<Search>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    blog.ledger.enter(&method, &uri, &headers);
    if asked.key != SEARCH_KEY || asked.cx != SEARCH_ENGINE {
        let body = json!({"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}});
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    }
    let items: Vec<Value> = (1..=asked.num)
        .map(|n| json!({"title": format!("{} ({n})", asked.q), "link": format!("https://pages.example/{n}"), "snippet": format!("Page {n}.")}))
        .collect();
    Json(json!({"items": items})).into_response()
}

async fn chat(
    State(blog): State<Arc<Blog>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    blog.ledger.enter(&method, &uri, &headers);
    if bearer(&headers) != OPENAI_KEY {
        let body = json!({"error": {"message": "Incorrect API key provided.", "type": "invalid_request_error", "code": "invalid_api_key"}});
        return (StatusCode::UNAUTHORIZED, Json(body)).into_response();
    }
    let key = headers.get("idempotency-key");
    let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
    *blog.lock().keys.entry(key.to_owned()).or_default() += 1;
    if body["stream"] != true || body["stream_options"]["include_usage"] != true {
        let body = json!({"error": {"message": "this server streams, with usage", "type": "invalid_request_error"}});
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    }
    let model = body["model"].clone();
    let chunk = move |choices: Value, usage: Value| {
        let chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices, "usage": usage});
        format!("data: {chunk}\n\n")
    };
    let mut events: Vec<String> = POST
        .iter()
        .map(|piece| {
            let delta = json!([{"index": 0, "delta": {"content": piece}, "finish_reason": null}]);
            chunk(delta, Value::Null)
        })
        .collect();
    events.push(chunk(
        json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]),
        Value::Null,
    ));
    events.push(chunk(
        json!([]),
        json!({"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52}),
    ));
    events.push("data: [DONE]\n\n".to_owned());
    let rest = events.split_off(POST.len() / 2);
    let hold = blog.hold.clone();
    let rest = futures::stream::once(async move {
        if let Some(hold) = hold {
            // Closed or open, it goes on.
            let _permit = hold.acquire().await;
        }
        rest.concat()
    });
    let events = futures::stream::once(std::future::ready(events.concat())).chain(rest);
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(Body::from_stream(events.map(Ok::<_, Infallible>)))
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn insert(
    State(blog): State<Arc<Blog>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Json(row): Json<Value>,
) -> Response {
    blog.ledger.enter(&method, &uri, &headers);
    let key = headers.get("apikey").and_then(|key| key.to_str().ok());
    if key != Some(DATABASE_KEY) || bearer(&headers) != DATABASE_KEY {
        let body = json!({"message": "Invalid API key"});
        return (StatusCode::UNAUTHORIZED, Json(body)).into_response();
    }
    let id = row["id"].as_str().unwrap_or_default().to_owned();
    let mut state = blog.lock();
    if state.posts.contains_key(&id) {
        let body = json!({"code": "23505", "details": format!("Key (id)=({id}) already exists."), "hint": null, "message": "duplicate key value violates unique constraint \"posts_pkey\""});
        return (StatusCode::CONFLICT, Json(body)).into_response();
    }
    state.posts.insert(id, row);
    StatusCode::CREATED.into_response()
}
