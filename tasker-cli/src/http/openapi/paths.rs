//! The operations of each service.

use serde_json::{Map, Value, json};
use tasker_core::{RunStatus, ServiceDescription};

use super::schemas::{envelope, schema};
use crate::http::admin::ACTIONS;

type Paths = Map<String, Value>;

/// What every service answers.
pub(super) fn common() -> Paths {
    let text = |id: &str, about: &str, kind: &str| {
        json!({ "get": {
            "operationId": id,
            "summary": about,
            "responses": {
                "200": { "description": about, "content": { kind: { "schema": {} } } },
                "4XX": wrong(),
            },
        } })
    };
    Paths::from_iter([
        (
            "/openapi.json".to_owned(),
            text("openapi", "This document", "application/json"),
        ),
        (
            "/metrics".to_owned(),
            text(
                "metrics",
                "Counts for Prometheus",
                crate::http::metrics::CONTENT_TYPE,
            ),
        ),
    ])
}

/// Tasks and runs.
pub(crate) fn task_executor() -> Paths {
    let mut paths = health_at("task-executor");
    let wait = json!({ "anyOf": [
        { "enum": ["true", "false"] },
        { "type": "integer", "minimum": 0, "maximum": 300 },
    ] });
    let mut execute = operation(
        "execute",
        "Submits a task",
        vec![query(
            "wait",
            &wait,
            "Waits for the end: `true`, or seconds",
        )],
        &[
            (
                "200",
                envelope(
                    "With `wait`: the run, however it ended, or blocked",
                    &schema("Run"),
                ),
            ),
            (
                "202",
                envelope("Submitted, and not ended yet", &schema("Submitted")),
            ),
        ],
    );
    execute["requestBody"] = body(&json!({
        "type": "object",
        "oneOf": [{ "required": ["taskName"] }, { "required": ["task_identifier"] }],
        "properties": {
            "taskName": { "type": "string" },
            "task_identifier": { "type": "string", "description": "The same, as an earlier version spelled it" },
            "input": {},
            "idempotencyKey": { "type": ["string", "null"] },
            "priority": { "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX },
            "labels": { "type": "object", "additionalProperties": { "type": "string" } },
            "correlationId": { "type": ["string", "null"] },
            "validate": { "type": "boolean", "description": "Checks the input against the schema of the task first" },
        },
    }));
    let limit = query(
        "limit",
        &json!({ "type": "integer", "minimum": 1, "maximum": 200 }),
        "Items on the page; default 50",
    );
    let text = || json!({ "type": "string" });
    let id = || json!({ "type": "string", "format": "uuid" });
    let list = operation(
        "list",
        "Lists the published tasks by name",
        vec![
            limit.clone(),
            query("after", &text(), "`next` of the page before"),
        ],
        &[(
            "200",
            envelope(
                "Tasks",
                &json!({
                    "type": "object",
                    "required": ["tasks", "count", "next"],
                    "properties": {
                        "tasks": { "type": "array", "items": schema("Task") },
                        "count": { "type": "integer" },
                        "next": { "type": ["string", "null"] },
                    },
                }),
            ),
        )],
    );
    let mut name = query("name", &text(), "The task");
    name["required"] = json!(true);
    let of_task = operation(
        "schema",
        "The schema of a task, as read from its JSDoc",
        vec![
            name,
            query(
                "format",
                &json!({ "enum": ["json", "openapi", "openai"] }),
                "Default json",
            ),
        ],
        &[("200", envelope("The schema", &json!({ "type": "object" })))],
    );
    let statuses: Vec<&str> = RunStatus::ALL
        .iter()
        .map(|status| status.as_str())
        .collect();
    let status = operation(
        "status",
        "A run, with `id`; else the newest runs",
        vec![
            query("id", &id(), "The run"),
            query(
                "status",
                &json!({ "enum": statuses }),
                "Only runs of this status",
            ),
            query("name", &text(), "Only runs of this task"),
            query("before", &id(), "`next` of the page before"),
            limit.clone(),
        ],
        &[(
            "200",
            envelope(
                "The run, or a page",
                &json!({ "anyOf": [schema("Run"), schema("RunPage")] }),
            ),
        )],
    );
    let mut run = query("id", &id(), "The run");
    run["required"] = json!(true);
    let after = json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX });
    let logs = operation(
        "logs",
        "What a run logged",
        vec![
            run,
            query("after", &after, "`next` of the page before"),
            limit,
        ],
        &[(
            "200",
            envelope(
                "Lines",
                &json!({
                    "type": "object",
                    "required": ["logs", "next"],
                    "properties": { "logs": { "type": "array", "items": schema("LogLine") }, "next": { "type": "integer" } },
                }),
            ),
        )],
    );
    let in_path = json!({ "name": "id", "in": "path", "required": true, "schema": id() });
    let last = json!({ "name": "last-event-id", "in": "header", "schema": { "type": "string" }, "description": "Where to go on" });
    let name = json!({
        "name": "name", "in": "path", "required": true,
        "schema": { "type": "string", "pattern": "^[A-Za-z0-9_. -]{1,200}$" },
        "description": "What the task waits for with `context.signal(name)`: 1 to 200 characters, none of them a control character",
    });
    let mut signal = operation(
        "signal",
        "Sends a signal to a run: the body is what the task gets. Sent before the task waits, it is kept",
        vec![in_path.clone(), name],
        &[(
            "200",
            envelope(
                "It was sent",
                &json!({
                    "type": "object",
                    "required": ["taskRunId", "signal"],
                    "properties": { "taskRunId": id(), "signal": { "type": "string" } },
                }),
            ),
        )],
    );
    signal["requestBody"] = body(&json!({}));
    signal["requestBody"]["required"] = json!(false);
    let events = operation(
        "events",
        "A run as server-sent events: `status`, `log`, and `end` with the run",
        vec![in_path, last],
        &[(
            "200",
            json!({ "description": "Events", "content": { "text/event-stream": { "schema": { "type": "string" } } } }),
        )],
    );
    let mut call = operation(
        "call",
        "The same by method: execute, list, schema, status, logs, health",
        vec![],
        &[
            ("200", envelope("The answer", &json!({}))),
            ("202", envelope("Submitted", &schema("Submitted"))),
        ],
    );
    call["requestBody"] = body(&forms(&json!({ "type": "string", "minLength": 1 })));
    put(&mut paths, "/", "post", call);
    put(&mut paths, "/execute", "post", execute);
    put(&mut paths, "/list", "get", list);
    put(&mut paths, "/schema", "get", of_task);
    put(&mut paths, "/status", "get", status);
    put(&mut paths, "/logs", "get", logs);
    put(&mut paths, "/runs/{id}/events", "get", events);
    put(&mut paths, "/runs/{id}/signals/{name}", "post", signal);
    paths
}

/// Task code in the request.
pub(crate) fn executor() -> Paths {
    let mut paths = health_at("deno-executor");
    let answer = || [("200", envelope("How it went", &schema("Executed")))];
    let code = json!({
        "taskCode": { "type": "string" },
        "taskName": { "type": ["string", "null"] },
        "input": {},
        "vmState": schema("VmState"),
        "externalResult": { "description": "Answers the first open call" },
        "externalError": schema("ExternalError"),
        "externalResults": { "type": "array", "items": {
            "type": "object",
            "required": ["seq"],
            "properties": {
                "seq": { "type": "integer", "minimum": 0, "maximum": u32::MAX },
                "result": {},
                "error": schema("ExternalError"),
            },
        } },
    });
    let mut start = operation(
        "start",
        "Runs task code to its end or to its first wait",
        vec![],
        &answer(),
    );
    start["requestBody"] =
        body(&json!({ "type": "object", "required": ["taskCode"], "properties": code }));
    let mut resume = operation(
        "resume",
        "Goes on from a state, or answers a call of a stored run",
        vec![],
        &answer(),
    );
    resume["requestBody"] = body(&json!({ "oneOf": [
        { "type": "object", "required": ["taskCode", "vmState"], "properties": code },
        {
            "type": "object",
            "required": ["stackRunId"],
            "anyOf": [{ "required": ["result"] }, { "required": ["externalError"] }],
            "properties": {
                "stackRunId": { "type": "string", "format": "uuid", "description": "The call, or its frame" },
                "result": {},
                "externalError": schema("ExternalError"),
            },
        },
    ] }));
    put(&mut paths, "/", "post", start);
    put(&mut paths, "/resume", "post", resume);
    paths
}

/// Driving by hand.
pub(crate) fn stack_processor() -> Paths {
    let mut paths = health_at("simple-stack-processor");
    let mut process = operation(
        "process",
        "Takes a stack run through one turn or one call",
        vec![],
        &[("200", envelope("What was done", &schema("Processed")))],
    );
    process["requestBody"] = body(&json!({ "type": "object", "oneOf": [
        {
            "required": ["trigger"],
            "properties": { "trigger": { "const": "process-next" }, "stackRunId": { "type": "null" } },
        },
        {
            "required": ["stackRunId"],
            "properties": { "stackRunId": { "type": "string", "format": "uuid" }, "trigger": { "type": "null" } },
        },
    ] }));
    put(&mut paths, "/", "post", process);
    paths
}

/// Checks.
pub(crate) fn admin_debug() -> Paths {
    let mut paths = health_at("admin-debug");
    paths.remove("/");
    let answer = || {
        [(
            "200",
            envelope("What was found", &json!({ "type": "object" })),
        )]
    };
    let action = query(
        "action",
        &json!({ "enum": ACTIONS }),
        "What to check; without one: what there is",
    );
    let mut posted = operation("check", "Checks something", vec![action.clone()], &answer());
    posted["requestBody"] = body(&json!({
        "type": "object",
        "properties": {
            "action": { "anyOf": [{ "enum": ACTIONS }, { "type": "null" }] },
            "customer": { "type": ["string", "null"], "pattern": "^[A-Za-z0-9_@.-]{1,100}$", "description": "For test-direct-gapi; default my_customer" },
        },
    }));
    posted["requestBody"]["required"] = json!(false);
    put(&mut paths, "/", "post", posted);
    put(
        &mut paths,
        "/",
        "get",
        operation(
            "check-by-query",
            "Checks something",
            vec![action],
            &answer(),
        ),
    );
    paths
}

/// Any service, in the three request forms.
pub(crate) fn service(description: &ServiceDescription) -> Paths {
    let mut paths = health_at(&description.name);
    let methods: Vec<&str> = description
        .methods
        .iter()
        .map(|method| method.name.as_str())
        .collect();
    let about: Vec<String> = description
        .methods
        .iter()
        .map(|method| format!("- `{}`: {}", method.name, method.description))
        .collect();
    let mut name = json!({ "type": "string", "minLength": 1 });
    if !description.open && !methods.is_empty() {
        name = json!({ "enum": methods });
    }
    let mut call = operation(
        "call",
        "Asks the service",
        vec![],
        &[("200", envelope("Its answer", &json!({})))],
    );
    call["description"] = json!(about.join("\n"));
    call["requestBody"] = body(&forms(&name));
    put(&mut paths, "/", "post", call);
    paths
}

/// The request forms that every service knows.
fn forms(name: &Value) -> Value {
    json!({ "type": "object", "oneOf": [
        {
            "required": ["chain"],
            "properties": { "chain": { "type": "array", "minItems": 1, "items": {
                "type": "object",
                "required": ["property"],
                "properties": { "property": { "type": "string", "minLength": 1 }, "args": {}, "type": { "type": ["string", "null"] } },
            } } },
        },
        { "required": ["method"], "properties": { "method": name, "args": {} }, "not": { "required": ["chain"] } },
        {
            "required": ["action"],
            "properties": { "action": name },
            "not": { "anyOf": [{ "required": ["chain"] }, { "required": ["method"] }] },
        },
    ] })
}

fn health_at(service: &str) -> Paths {
    let mut paths = Paths::new();
    let answers = || {
        [
            ("200", envelope("It works", &schema("Health"))),
            ("503", envelope("It does not work; why", &schema("Health"))),
        ]
    };
    let about = format!("Whether {service} works: it is tried out");
    for (path, method, id) in [
        ("/health", "get", "health"),
        ("/health", "post", "health-by-post"),
        ("/", "get", "health-at-root"),
    ] {
        let mut operation = operation(id, &about, vec![], &answers());
        if path == "/health" {
            operation["security"] = json!([]);
        }
        put(&mut paths, path, method, operation);
    }
    paths
}

fn operation(id: &str, about: &str, parameters: Vec<Value>, good: &[(&str, Value)]) -> Value {
    let mut parameters = parameters;
    for name in ["RequestId", "CorrelationId"] {
        parameters.push(json!({ "$ref": format!("#/components/parameters/{name}") }));
    }
    let mut responses = Map::from_iter([
        ("4XX".to_owned(), wrong()),
        (
            "5XX".to_owned(),
            json!({ "$ref": "#/components/responses/Trouble" }),
        ),
    ]);
    for (status, response) in good {
        responses.insert((*status).to_owned(), response.clone());
    }
    json!({ "operationId": id, "summary": about, "parameters": parameters, "responses": responses })
}

fn wrong() -> Value {
    json!({ "$ref": "#/components/responses/Wrong" })
}

fn query(name: &str, schema: &Value, about: &str) -> Value {
    json!({ "name": name, "in": "query", "schema": schema, "description": about })
}

fn body(schema: &Value) -> Value {
    json!({ "required": true, "content": { "application/json": { "schema": schema } } })
}

fn put(paths: &mut Paths, path: &str, method: &str, operation: Value) {
    if let Value::Object(item) = paths.entry(path).or_insert_with(|| json!({})) {
        item.insert(method.to_owned(), operation);
    }
}
