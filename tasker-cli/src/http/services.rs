//! Any registered service over HTTP, in the three request forms.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde_json::json;
use tasker_core::service::wire::parse_request;
use tasker_core::{Engine, Health, Json, ServiceError};

use super::answer::{self, Asked};

#[derive(Clone)]
struct Shop {
    engine: Engine,
    name: String,
}

pub(super) fn routes(engine: Engine, name: String) -> Router {
    Router::new()
        .route("/", post(call).get(health))
        .route("/health", get(health).post(health))
        .with_state(Shop { engine, name })
}

async fn call(
    State(shop): State<Shop>,
    Extension(asked): Extension<Asked>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let result: Result<Json, ServiceError> = async {
        let links = parse_request(&answer::body(body)?)?;
        shop.engine.services().call_chain(&shop.name, links).await
    }
    .await;
    asked.answer(result)
}

async fn health(State(shop): State<Shop>, Extension(asked): Extension<Asked>) -> Response {
    let health = shop.engine.services().health(&shop.name).await;
    let status = match health {
        Some(Health::Healthy | Health::Degraded(_)) => StatusCode::OK,
        Some(Health::Unhealthy(_)) | None => StatusCode::SERVICE_UNAVAILABLE,
    };
    asked.answer_as(
        status,
        Ok(json!({ "service": shop.name, "health": health })),
    )
}
