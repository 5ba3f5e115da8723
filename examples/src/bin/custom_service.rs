//! Three ways to write a service: a trait, typed methods, one function.
//!
//! ```text
//! cargo run --release -p tasker-examples --bin custom_service
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tasker_core::{
    Engine, Health, Json, MemoryStorage, MethodDescription, MethodPolicy, Reconciled, RetryPolicy,
    Service, ServiceCall, ServiceDescription, ServiceError, ServiceProxy, UnknownOutcome,
    service_fn,
};

/// The whole trait: a service that knows by its idempotency keys what it has done already.
#[derive(Default)]
struct Payments {
    /// What was paid, by idempotency key.
    paid: Mutex<BTreeMap<String, u32>>,
}

#[derive(Deserialize)]
struct Pay {
    cents: u32,
}

impl Payments {
    fn receipt(key: &str, cents: u32) -> Result<Json, ServiceError> {
        Json::from(&json!({ "receipt": key, "cents": cents })).map_err(ServiceError::internal)
    }
}

#[async_trait]
impl ServiceProxy for Payments {
    fn describe(&self) -> ServiceDescription {
        ServiceDescription::new("payments")
            .describe("Pays, once for each idempotency key")
            .method(
                MethodDescription::new("pay")
                    .describe("Pays an amount")
                    // After a crash between asking and recording the engine asks `reconcile` what became of the call.
                    .policy(MethodPolicy {
                        unknown_outcome: Some(UnknownOutcome::Reconcile),
                        retry: Some(RetryPolicy::none()),
                        timeout_ms: Some(10_000),
                        ..MethodPolicy::default()
                    }),
            )
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        let Pay { cents } = call.arg(0)?;
        if cents == 0 {
            return Err(ServiceError::validation("an amount above 0 is needed").with_code("ZERO"));
        }
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        // The same key is the same payment, however often it is asked for.
        let cents = *paid
            .entry(call.idempotency_key.to_string())
            .or_insert(cents);
        Self::receipt(&call.idempotency_key, cents)
    }

    async fn reconcile(&self, call: &ServiceCall) -> Result<Reconciled, ServiceError> {
        let paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match paid.get(&*call.idempotency_key) {
            Some(cents) => Reconciled::Happened(Self::receipt(&call.idempotency_key, *cents)?),
            None => Reconciled::DidNotHappen,
        })
    }

    async fn health(&self) -> Health {
        Health::Healthy
    }
}

/// Typed methods without a trait: arguments are read and answers written by serde; state is a parameter.
fn people() -> impl ServiceProxy {
    #[derive(Deserialize)]
    struct Find {
        id: usize,
    }
    Service::with_state("people", vec!["Ada", "Grace", "Margaret"])
        .describe("People by number")
        .method("find", async |c, find: Find| {
            let name = c.state.get(find.id).copied();
            name.ok_or_else(|| ServiceError::not_found(format!("nobody has number {}", find.id)))
        })
        .method("count", async |c, (): ()| Ok(c.state.len()))
}

/// One function for every method.
fn shout() -> impl ServiceProxy {
    service_fn("shout", async |call: ServiceCall| {
        let text: String = call.arg(0)?;
        Json::from(&format!("{}: {}!", call.method(), text.to_uppercase()))
            .map_err(ServiceError::internal)
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::builder()
        .storage(MemoryStorage::new())
        .service(Payments::default())
        .service(people())
        .service(shout())
        .start()
        .await?;
    engine
        .publish(
            "module.exports = async function bill({ id }, { tools }) {
                const name = await tools.people.find({ id });
                const { cents } = await tools.payments.pay({ cents: 1250 });
                let refused;
                try { await tools.payments.pay({ cents: 0 }); } catch (error) { refused = [error.type, error.code]; }
                return { heard: await tools.shout.at.last(name), cents, refused };
            }",
        )
        .await?;
    let run = engine.submit("bill", &json!({ "id": 1 })).await?;
    let result: Value = run.result().await?;
    engine.shutdown().await?;
    println!("{result:#}");
    let expected = json!({
        "heard": "at.last: GRACE!",
        "cents": 1250,
        "refused": ["VALIDATION_ERROR", "ZERO"],
    });
    if result != expected {
        return Err(format!("expected {expected}").into());
    }
    Ok(())
}
