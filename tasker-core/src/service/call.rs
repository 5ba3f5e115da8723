//! A question to a service.

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tasker_adaptor::{Json, LogLevel, LogLine, StackRunId, TaskName, TaskRunId, Timestamp};
use tokio_util::sync::CancellationToken;

use super::call_log::CallLog;
use super::{ServiceError, Services};

/// One link of a call chain: `list` in `tools.gapi.admin.directory.domains.list(…)`, with its arguments if it was called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Property name.
    #[serde(rename = "property", alias = "name")]
    pub name: String,
    /// Positional arguments; `None` when the link was only passed through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<Json>>,
}

impl Link {
    /// A link that was only passed through.
    pub fn through(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            args: None,
        }
    }

    /// A link that was called.
    pub fn called(name: impl Into<String>, args: Vec<Json>) -> Self {
        Self {
            name: name.into(),
            args: Some(args),
        }
    }
}

/// A question to a service, with all that travels with it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServiceCall {
    /// Service, by its registered name.
    pub service: Arc<str>,
    /// What is asked. Plain services have arguments on the last link only.
    pub chain: Arc<[Link]>,
    /// Task that asks; empty for a call of the host itself.
    pub task: TaskName,
    /// Its run; `None` for a call of the host itself.
    pub task_run: Option<TaskRunId>,
    /// The stack run of this call; `None` for calls from the host or from another service.
    pub stack_run: Option<StackRunId>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The same on each attempt: send it on where the provider has such a thing.
    pub idempotency_key: Arc<str>,
    /// Given at submit.
    pub correlation_id: Option<Arc<str>>,
    /// W3C trace context of this call.
    pub traceparent: Option<Arc<str>>,
    /// When the answer stops mattering: the run's deadline or the method's timeout, whichever is first.
    pub deadline: Option<Timestamp>,
    /// Fires when the run is cancelled, the call timed out, or the engine shuts down.
    pub cancellation: CancellationToken,
    pub(crate) log: CallLog,
    pub(crate) services: Services,
    /// Calls from service to service above this one.
    pub(crate) depth: u32,
}

/// The names of all links, with dots between them.
pub(crate) fn dotted(chain: &[Link]) -> Cow<'_, str> {
    match chain {
        [only] => only.name.as_str().into(),
        links => {
            let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
            names.join(".").into()
        }
    }
}

impl ServiceCall {
    /// A call as a test of a proxy makes it: `ServiceCall::test("keystore", "getKey", args)`.
    pub fn test(service: &str, method: &str, args: Vec<Json>) -> Self {
        let mut chain: Vec<Link> = method.split('.').map(Link::through).collect();
        if let Some(last) = chain.last_mut() {
            last.args = Some(args);
        }
        Self::test_chain(service, chain)
    }

    /// A call with a chain of its own, for tests of fluent proxies.
    pub fn test_chain(service: &str, chain: Vec<Link>) -> Self {
        Self {
            service: service.into(),
            chain: chain.into(),
            task: TaskName::new("test"),
            task_run: None,
            stack_run: None,
            attempt: 1,
            idempotency_key: "test-key".into(),
            correlation_id: None,
            traceparent: None,
            deadline: None,
            cancellation: CancellationToken::new(),
            log: CallLog::default(),
            services: Services::default(),
            depth: 0,
        }
    }

    /// The same call with these services within reach, for tests of proxies that call others.
    #[must_use]
    pub fn with_services(mut self, services: Services) -> Self {
        self.services = services;
        self
    }

    /// Dotted method: the names of all links.
    pub fn method(&self) -> String {
        dotted(&self.chain).into_owned()
    }

    /// Arguments of the last link.
    pub fn args(&self) -> &[Json] {
        self.chain
            .last()
            .and_then(|link| link.args.as_deref())
            .unwrap_or_default()
    }

    /// Argument `n` of the last link, from 0. An absent one reads as `null`.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` naming method and argument when it is no `T`.
    pub fn arg<T: DeserializeOwned>(&self, n: usize) -> Result<T, ServiceError> {
        let null = Json::null();
        let json = self.args().get(n).unwrap_or(&null);
        json.to().map_err(|error| {
            ServiceError::validation(format!(
                "{}.{}: argument {} is not as expected: {error}",
                self.service,
                self.method(),
                n + 1
            ))
        })
    }

    /// Writes a line to the log of the run while the call is under way, so that a person can follow a long one. Never
    /// waits; lines are bounded in number and length, and the log says so when some are missing. An attempt that is made
    /// again says its lines again. A call of the host belongs to no run: its lines go nowhere.
    pub fn log(&self, level: LogLevel, message: impl Into<String>, data: Option<Json>) {
        self.log.add(level, message.into(), data);
    }

    /// What [`ServiceCall::log`] was given since this was last asked, for tests of a proxy. In an engine the lines are
    /// taken by the engine.
    pub fn logged(&self) -> Vec<LogLine> {
        self.log.take()
    }

    /// Other services, host side: not in the task's journal, not subject to its grants, with the same run, deadline,
    /// correlation id and trace. A cycle ends at depth 8 with `CONFIGURATION_ERROR`.
    pub fn services(&self) -> Services {
        self.services.for_call(self)
    }
}
