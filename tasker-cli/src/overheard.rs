//! A keystore that is overheard: every value that it is given or gives is kept out of the log from then on.

use async_trait::async_trait;
use tasker_core::service::{Health, Reconciled, ServiceCall, ServiceError, ServiceProxy};
use tasker_core::{Json, ServiceDescription};

use crate::secrets;

/// The keystore of this process, or one elsewhere.
pub(crate) struct Overheard<P>(pub(crate) P);

#[async_trait]
impl<P: ServiceProxy> ServiceProxy for Overheard<P> {
    fn describe(&self) -> ServiceDescription {
        self.0.describe()
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        let method = call.method();
        if method == "setKey"
            && let Some(value) = given(&call)
        {
            secrets::hide(&value);
        }
        let answer = self.0.call(call).await?;
        if method == "getKey"
            && let Ok(Some(value)) = answer.to::<Option<String>>()
        {
            secrets::hide(&value);
        }
        Ok(answer)
    }

    async fn reconcile(&self, call: &ServiceCall) -> Result<Reconciled, ServiceError> {
        self.0.reconcile(call).await
    }

    async fn health(&self) -> Health {
        self.0.health().await
    }

    async fn health_within(&self, call: &ServiceCall) -> Health {
        self.0.health_within(call).await
    }

    async fn shutdown(&self) {
        self.0.shutdown().await;
    }
}

/// The value that `setKey` is given: the last argument, or the member `value` of an object.
fn given(call: &ServiceCall) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        value: String,
    }
    let last = call.args().last()?;
    let named = || Some(last.to::<Named>().ok()?.value);
    last.to::<String>().ok().or_else(named)
}
