//! The stack processor: one ready stack run a request, through one turn or one call.
//!
//! It does not call itself again: who wants the next step done asks for it.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tasker_core::{Engine, Json, Processed, ServiceError, StackRunId};

use super::answer::{self, Asked, of_engine};
use super::resume::stack_run_id;
use super::task_executor;

const FORMS: &str = r#"send {"trigger":"process-next"} or {"stackRunId":"…"}"#;

pub(super) fn routes(engine: Engine) -> Router {
    Router::new()
        .route("/", post(process).get(health))
        .route("/health", get(health).post(health))
        .with_state(engine)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    trigger: Option<String>,
    #[serde(alias = "stack_run_id")]
    stack_run_id: Option<Json>,
}

async fn process(
    State(engine): State<Engine>,
    Extension(asked): Extension<Asked>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let result: Result<Value, ServiceError> = async {
        let body: Body = answer::of_form(&answer::body(body)?, FORMS)?;
        match (body.stack_run_id, body.trigger.as_deref()) {
            (Some(_), Some(_)) => Err(ServiceError::validation(format!(
                "the body asks for two things at once; {FORMS}"
            ))),
            (Some(id), None) => {
                let id = stack_run_id(&id)?;
                Ok(said(
                    engine.process(id).await.map_err(of_engine)?,
                    "not_ready",
                    Some(id),
                ))
            }
            (None, Some("process-next")) => Ok(said(
                engine.process_next().await.map_err(of_engine)?,
                "no_pending",
                None,
            )),
            _ => Err(ServiceError::validation(format!(
                "the body asks for nothing that is known; {FORMS}"
            ))),
        }
    }
    .await;
    asked.answer(result)
}

fn said(processed: Processed, nothing: &str, asked: Option<StackRunId>) -> Value {
    match processed {
        Processed::Nothing => {
            json!({ "status": "success", "processed": false, "reason": nothing, "stackRunId": asked })
        }
        Processed::Frame(id) => {
            json!({ "status": "success", "processed": true, "kind": "frame", "stackRunId": id })
        }
        Processed::Call(id) => {
            json!({ "status": "success", "processed": true, "kind": "call", "stackRunId": id })
        }
    }
}

async fn health(State(engine): State<Engine>, Extension(asked): Extension<Asked>) -> Response {
    task_executor::checked(&engine, &asked, "simple-stack-processor").await
}
