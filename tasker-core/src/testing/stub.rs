//! Services that answer as a test says, and remember what they performed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use tasker_adaptor::Json;

use crate::service::{MethodPolicy, ServiceCall, ServiceDescription, ServiceError, ServiceProxy};

/// A call that a stub performed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Performed {
    /// Dotted method.
    pub method: String,
    /// Text of the positional arguments.
    pub args: Vec<String>,
    /// The same on each attempt.
    pub idempotency_key: String,
    /// 1 for the first attempt.
    pub attempt: u32,
}

type Answer =
    Arc<dyn Fn(ServiceCall) -> BoxFuture<'static, Result<Json, ServiceError>> + Send + Sync>;

/// A service that answers as a test says. Clones share answers and ledger.
#[derive(Clone)]
pub struct Stub {
    name: String,
    policy: MethodPolicy,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    ledger: Arc<Mutex<Vec<Performed>>>,
}

impl Stub {
    /// A stub that answers every method with its first argument (or `null`) until told otherwise.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            policy: MethodPolicy::default(),
            answers: Arc::default(),
            ledger: Arc::default(),
        }
    }

    /// Policy of all its methods.
    #[must_use]
    pub fn policy(mut self, policy: MethodPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Answers a method by a function.
    #[must_use]
    pub fn answer(
        self,
        method: &str,
        answer: impl Fn(ServiceCall) -> Result<Json, ServiceError> + Send + Sync + 'static,
    ) -> Self {
        self.answer_later(method, move |call| {
            futures::future::ready(answer(call)).boxed()
        })
    }

    /// Answers a method by a future.
    #[must_use]
    pub fn answer_later(
        self,
        method: &str,
        answer: impl Fn(ServiceCall) -> BoxFuture<'static, Result<Json, ServiceError>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(method.to_owned(), Arc::new(answer));
        self
    }

    /// All that was performed, in order.
    pub fn ledger(&self) -> Vec<Performed> {
        self.ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How often a method was performed.
    pub fn performed(&self, method: &str) -> usize {
        self.ledger()
            .iter()
            .filter(|performed| performed.method == method)
            .count()
    }
}

#[async_trait]
impl ServiceProxy for Stub {
    fn describe(&self) -> ServiceDescription {
        ServiceDescription::new(self.name.as_str())
            .open()
            .policy(self.policy.clone())
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        let method = call.method();
        self.ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Performed {
                method: method.clone(),
                args: call
                    .args()
                    .iter()
                    .map(|arg| arg.text().to_owned())
                    .collect(),
                idempotency_key: call.idempotency_key.to_string(),
                attempt: call.attempt,
            });
        let answer = self
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&method)
            .cloned();
        match answer {
            Some(answer) => answer(call).await,
            None => Ok(call.args().first().cloned().unwrap_or_default()),
        }
    }
}
