//! `/openapi.json`: what each service answers, as OpenAPI 3.1.
//!
//! The document says what is true of every request, not what a method of a service asks of its arguments beyond its schema.
//! A test sends the server what the document allows and what it forbids, and compares the answers.

mod paths;
mod schemas;

use serde_json::{Map, Value, json};

pub(super) use paths::{admin_debug, executor, service, stack_processor, task_executor};

use super::RouterOptions;

/// A document that is put together.
pub(super) struct Document {
    service: String,
    about: String,
    has_token: bool,
    paths: Map<String, Value>,
}

impl Document {
    /// Of a service by this name.
    pub(super) fn new(service: &str, about: &str, options: &RouterOptions) -> Self {
        Self {
            service: service.to_owned(),
            about: about.to_owned(),
            has_token: options.token.is_some(),
            paths: paths::common(),
        }
    }

    /// Its name.
    pub(super) fn service(&self) -> &str {
        &self.service
    }

    /// With these paths under this prefix.
    pub(super) fn with(mut self, prefix: &str, paths: Map<String, Value>) -> Self {
        for (path, item) in paths {
            let path = match (prefix, path.as_str()) {
                ("", path) => path.to_owned(),
                (prefix, "/") => prefix.to_owned(),
                (prefix, path) => format!("{prefix}{path}"),
            };
            let item = with_prefixed_ids(item, prefix);
            self.paths.insert(path, item);
        }
        self
    }

    /// The document.
    pub(super) fn build(self) -> Value {
        let mut document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": self.service,
                "description": self.about,
                "version": env!("CARGO_PKG_VERSION"),
            },
            "servers": [{ "url": "/" }],
            "paths": self.paths,
            "components": {
                "schemas": schemas::all(),
                "parameters": schemas::parameters(),
                "responses": schemas::responses(),
            },
        });
        if self.has_token {
            document["components"]["securitySchemes"] =
                json!({ "token": { "type": "http", "scheme": "bearer" } });
            document["security"] = json!([{ "token": [] }]);
        }
        document
    }
}

/// Names of operations are unique in a document.
fn with_prefixed_ids(mut item: Value, prefix: &str) -> Value {
    if let (Some(operations), false) = (item.as_object_mut(), prefix.is_empty()) {
        for operation in operations.values_mut() {
            if let Some(Value::String(id)) = operation.get_mut("operationId") {
                *id = format!("{}-{id}", prefix.trim_start_matches('/').replace('/', "-"));
            }
        }
    }
    item
}
