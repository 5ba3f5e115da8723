//! What a service says of itself.

use serde::{Deserialize, Serialize};
use tasker_adaptor::Json;

use super::MethodPolicy;

/// How tasks speak to a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceStyle {
    /// `tools.service.path.to.method(args)`: fires when called, awaited or not.
    #[default]
    Plain,
    /// `tools.service.from('t').select('*').eq('id', 1)`: collects a chain and fires when awaited.
    Fluent,
}

/// A service: name, style, methods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDescription {
    /// Name that tasks use: letters, digits, `_`, `-`; begins with a letter.
    pub name: String,
    /// For people.
    pub description: String,
    /// Style.
    pub style: ServiceStyle,
    /// Its methods. A call of a method that is not here is refused with `NOT_FOUND_ERROR` unless `open`.
    pub methods: Vec<MethodDescription>,
    /// Takes methods that it does not list (Google's APIs, fluent chains, services in other processes).
    pub open: bool,
    /// Policy of methods that name none of their own.
    pub policy: MethodPolicy,
}

/// A method.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodDescription {
    /// Dotted name.
    pub name: String,
    /// For people.
    pub description: String,
    /// JSON Schema of each positional argument.
    pub args: Vec<Json>,
    /// JSON Schema of the result.
    pub result: Option<Json>,
    /// Policy; what it leaves open comes from the service's.
    pub policy: MethodPolicy,
}

impl ServiceDescription {
    /// A plain service with no methods yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Sets the text for people.
    #[must_use]
    pub fn describe(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// Makes it fluent (and open).
    #[must_use]
    pub const fn fluent(mut self) -> Self {
        self.style = ServiceStyle::Fluent;
        self.open = true;
        self
    }

    /// Takes methods that it does not list.
    #[must_use]
    pub const fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Adds a method.
    #[must_use]
    pub fn method(mut self, method: MethodDescription) -> Self {
        self.methods.push(method);
        self
    }

    /// Sets the policy of methods that name none of their own.
    #[must_use]
    pub fn policy(mut self, policy: MethodPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The method of this dotted name.
    pub fn find(&self, method: &str) -> Option<&MethodDescription> {
        self.methods
            .iter()
            .find(|candidate| candidate.name == method)
    }
}

impl MethodDescription {
    /// A method with no schema.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Sets the text for people.
    #[must_use]
    pub fn describe(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// Adds a positional argument by its JSON Schema.
    #[must_use]
    pub fn arg(mut self, schema: Json) -> Self {
        self.args.push(schema);
        self
    }

    /// Sets the JSON Schema of the result.
    #[must_use]
    pub fn result(mut self, schema: Json) -> Self {
        self.result = Some(schema);
        self
    }

    /// Sets the policy.
    #[must_use]
    pub fn policy(mut self, policy: MethodPolicy) -> Self {
        self.policy = policy;
        self
    }
}
