//! A task's schema as an OpenAPI document.

use serde::Serialize;
use serde_json::json;
use tasker_adaptor::Json;

use super::schema::Schema;
use super::shape::Dialect;

/// OpenAPI 3.0.0 with the one path `/execute`; bodies for 200 and 400.
pub(super) fn document(schema: &Schema) -> Json {
    let first_line = schema.description.lines().next().unwrap_or_default();
    let errors: Vec<&str> = schema
        .errors
        .iter()
        .map(|error| error.kind.as_str())
        .collect();
    let mut error_type = json!({ "type": "string", "description": "Type or name of the error" });
    if !errors.is_empty() {
        error_type["example"] = json!(errors[0]);
        error_type["description"] = json!(format!(
            "Type or name of the error; documented: {}",
            errors.join(", ")
        ));
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": {
            "title": schema.name,
            "description": schema.description,
            "version": "1.0.0",
        },
        "paths": {
            "/execute": {
                "post": {
                    "operationId": schema.name,
                    "summary": first_line,
                    "requestBody": {
                        "required": true,
                        "content": { "application/json": { "schema": value(&schema.parameters(Dialect::OpenApi30)) } },
                    },
                    "responses": {
                        "200": {
                            "description": "The task's result",
                            "content": { "application/json": { "schema": value(&schema.returns.written(Dialect::OpenApi30)) } },
                        },
                        "400": {
                            "description": "The task failed, or its input was refused",
                            "content": { "application/json": { "schema": {
                                "type": "object",
                                "properties": {
                                    "error": {
                                        "type": "object",
                                        "properties": {
                                            "type": error_type,
                                            "message": { "type": "string" },
                                        },
                                        "required": ["message"],
                                    },
                                },
                                "required": ["error"],
                            } } },
                        },
                    },
                },
            },
        },
    });
    Json::from(&document).expect("a JSON value is JSON")
}

/// Loses the order of members, which OpenAPI readers do not need.
fn value(part: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(part)
        .expect("schemas are maps with text keys and defaults that were parsed as JSON")
}
