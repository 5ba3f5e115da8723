//! The parts that operations share: the envelope, runs, failures, headers.

use serde_json::{Value, json};
use tasker_core::RunStatus;

/// A reference to a schema of this file.
pub(super) fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The envelope around this data, as content of an answer.
pub(super) fn envelope(about: &str, data: &Value) -> Value {
    json!({
        "description": about,
        "headers": { "x-request-id": { "schema": { "type": "string" } } },
        "content": { "application/json": { "schema": {
            "type": "object",
            "required": ["success", "data", "metadata"],
            "properties": {
                "success": { "const": true },
                "data": data,
                "metadata": schema("Metadata"),
            },
        } } },
    })
}

pub(super) fn responses() -> Value {
    let refused = |about: &str| {
        json!({
            "description": about,
            "headers": { "x-request-id": { "schema": { "type": "string" } } },
            "content": { "application/json": { "schema": schema("Refused") } },
        })
    };
    json!({
        "Wrong": refused("What was sent is wrong, or not allowed, or names what is not there"),
        "Trouble": refused("It did not work here, or at a service"),
    })
}

pub(super) fn parameters() -> Value {
    json!({
        "RequestId": {
            "name": "x-request-id", "in": "header", "schema": { "type": "string" },
            "description": "Names the request in logs and in the answer: at most 128 visible ASCII characters; another is passed over",
        },
        "CorrelationId": {
            "name": "x-correlation-id", "in": "header", "schema": { "type": "string" },
            "description": "Goes with the run through all its calls, and comes back in the answer",
        },
    })
}

pub(super) fn all() -> Value {
    let statuses: Vec<&str> = RunStatus::ALL
        .iter()
        .map(|status| status.as_str())
        .collect();
    let id = || json!({ "type": "string", "format": "uuid" });
    let time = || json!({ "type": "string", "format": "date-time" });
    let time_or_null = || json!({ "type": ["string", "null"], "format": "date-time" });
    json!({
        "Metadata": {
            "type": "object",
            "required": ["duration", "timestamp", "requestId"],
            "properties": {
                "duration": { "type": "integer", "minimum": 0, "description": "Milliseconds" },
                "timestamp": time(),
                "requestId": { "type": "string" },
            },
        },
        "Refused": {
            "type": "object",
            "required": ["success", "error", "errorDetails", "metadata"],
            "properties": {
                "success": { "const": false },
                "error": { "type": "string", "description": "For people" },
                "errorDetails": {
                    "type": "object",
                    "description": "For programs",
                    "required": ["type", "code"],
                    "properties": {
                        "type": { "enum": [
                            "VALIDATION_ERROR", "AUTHENTICATION_ERROR", "AUTHORIZATION_ERROR", "NOT_FOUND_ERROR", "CONFLICT_ERROR",
                            "RATE_LIMIT_ERROR", "EXTERNAL_SERVICE_ERROR", "INTERNAL_ERROR", "TIMEOUT_ERROR", "CONFIGURATION_ERROR",
                        ] },
                        "code": { "type": "string" },
                        "status": { "type": "integer" },
                        "retryAfterMs": { "type": "integer" },
                        "details": {},
                    },
                },
                "metadata": schema("Metadata"),
            },
        },
        "Health": {
            "type": "object",
            "required": ["service"],
            "properties": { "service": { "type": "string" }, "status": { "enum": ["healthy", "unhealthy"] } },
        },
        "RunStatus": { "enum": statuses },
        "Run": {
            "type": "object",
            "required": ["taskRunId", "task", "version", "status", "input", "priority", "createdAt", "startedAt", "endedAt"],
            "properties": {
                "taskRunId": id(),
                "task": { "type": "string" },
                "version": { "type": "string" },
                "status": schema("RunStatus"),
                "input": {},
                "result": {},
                "failure": schema("Failure"),
                "blocked": { "type": "object", "required": ["message"], "properties": { "message": { "type": "string" } } },
                "idempotencyKey": { "type": "string" },
                "correlationId": { "type": "string" },
                "priority": { "type": "integer" },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                "createdAt": time(),
                "startedAt": time_or_null(),
                "endedAt": time_or_null(),
            },
        },
        "Failure": {
            "type": "object",
            "required": ["name", "message"],
            "properties": { "name": { "type": "string" }, "message": { "type": "string" } },
        },
        "RunPage": {
            "type": "object",
            "required": ["runs", "next"],
            "properties": {
                "runs": { "type": "array", "items": schema("Run") },
                "next": { "type": ["string", "null"], "description": "Give it as `before`" },
            },
        },
        "Submitted": {
            "type": "object",
            "required": ["taskRunId", "status", "message"],
            "properties": { "taskRunId": id(), "status": schema("RunStatus"), "message": { "type": "string" } },
        },
        "Task": {
            "type": "object",
            "required": ["name", "description", "version", "publishedAt"],
            "properties": {
                "name": { "type": "string" },
                "description": { "type": "string" },
                "version": { "type": "string" },
                "publishedAt": time(),
            },
        },
        "LogLine": {
            "type": "object",
            "required": ["cursor", "time", "level", "message"],
            "properties": {
                "cursor": { "type": "integer" },
                "time": time(),
                "level": { "enum": ["debug", "info", "warn", "error"] },
                "message": { "type": "string" },
                "data": {},
                "stackRunId": id(),
            },
        },
        "ExternalError": {
            "type": ["object", "null"],
            "required": ["message"],
            "properties": {
                "name": { "type": "string" },
                "message": { "type": "string" },
                "type": { "type": ["string", "null"] },
                "code": { "type": ["string", "null"] },
                "status": { "type": ["integer", "null"], "minimum": 0, "maximum": 65535 },
                "details": {},
            },
        },
        "VmState": {
            "type": ["object", "null"],
            "required": ["state", "first"],
            "properties": {
                "state": { "type": "string" },
                "first": { "type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32 },
            },
        },
        "Executed": {
            "type": "object",
            "required": ["status"],
            "properties": {
                "status": { "enum": ["completed", "failed", "paused", "resumed"] },
                "result": {},
                "failure": schema("Failure"),
                "suspensionData": { "type": "object" },
                "vmState": schema("VmState"),
                "logs": { "type": "array", "items": { "type": "object" } },
                "taskRunId": id(),
                "stackRunId": id(),
            },
        },
        "Processed": {
            "type": "object",
            "required": ["status", "processed"],
            "properties": {
                "status": { "const": "success" },
                "processed": { "type": "boolean" },
                "kind": { "enum": ["frame", "call"] },
                "reason": { "enum": ["no_pending", "not_ready"] },
                "stackRunId": { "type": ["string", "null"], "format": "uuid" },
            },
        },
    })
}
