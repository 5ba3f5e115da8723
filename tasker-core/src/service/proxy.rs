//! The trait that a service implements.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tasker_adaptor::Json;

use super::{ServiceCall, ServiceDescription, ServiceError};

/// What a task can call, implemented in the host.
#[async_trait]
pub trait ServiceProxy: Send + Sync + 'static {
    /// Name, style, methods with schema and policy. Asked once, at registration.
    fn describe(&self) -> ServiceDescription;

    /// Does what is asked. At-least-once: the same call may come again after a crash, with the same idempotency key.
    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError>;

    /// Says what became of a call whose worker died between asking and recording (policy `Reconcile`). An error means that nobody
    /// can say now: asked again by the method's retry policy, then the run is blocked as after `Unknown`.
    async fn reconcile(&self, call: &ServiceCall) -> Result<Reconciled, ServiceError> {
        let _ = call;
        Ok(Reconciled::Unknown)
    }

    /// Whether it works. Really asks.
    async fn health(&self) -> Health {
        Health::Healthy
    }

    /// Whether it works, asked by a registry: `call` is a call of the host without a method, with the other services
    /// within reach ([`ServiceCall::services`]). A service that keeps its credentials in the keystore overrides this.
    async fn health_within(&self, call: &ServiceCall) -> Health {
        let _ = call;
        self.health().await
    }

    /// Ends what it holds open. Called once, when the engine shuts down.
    async fn shutdown(&self) {}
}

#[async_trait]
impl<P: ServiceProxy + ?Sized> ServiceProxy for Arc<P> {
    fn describe(&self) -> ServiceDescription {
        (**self).describe()
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        (**self).call(call).await
    }

    async fn reconcile(&self, call: &ServiceCall) -> Result<Reconciled, ServiceError> {
        (**self).reconcile(call).await
    }

    async fn health(&self) -> Health {
        (**self).health().await
    }

    async fn health_within(&self, call: &ServiceCall) -> Health {
        (**self).health_within(call).await
    }

    async fn shutdown(&self) {
        (**self).shutdown().await;
    }
}

/// What became of a call of unknown outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reconciled {
    /// It happened; this is its result.
    Happened(Json),
    /// It did not happen: it can be asked again.
    DidNotHappen,
    /// Nobody can say: the run is blocked for a person.
    Unknown,
}

/// How well a service works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", content = "reason", rename_all = "lowercase")]
pub enum Health {
    /// Works.
    Healthy,
    /// Works in part; why.
    Degraded(String),
    /// Does not work; why.
    Unhealthy(String),
}
