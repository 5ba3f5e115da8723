//! A storage adaptor of one's own: it passes the conformance suite, and an engine runs on it.
//!
//! ```text
//! cargo run --release -p tasker-examples --bin custom_adaptor
//! ```
//!
//! The adaptor is `examples/src/metered.rs`. As a test the suite is two lines (see `docs/adaptor-guide.md`); here its cases are
//! run one by one, so that the program can say how many there are. A broken promise panics with the name of the case.

use std::error::Error;

use serde_json::{Value, json};
use tasker_adaptor::MemoryStorage;
use tasker_adaptor::conformance::{CASES, Harness, run_case};
use tasker_core::{Engine, Service};
use tasker_examples::metered::Metered;

/// Memory has no disk to fill.
const LACKS: &[&str] = &["batch_over_full_store"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    for case in CASES {
        let harness = Harness::new(Metered::new(MemoryStorage::new()))
            .spawn_with(|future| drop(tokio::spawn(future)))
            .lacks(LACKS);
        run_case(case.name, harness, case.run).await;
    }
    println!(
        "{} cases of the conformance suite hold\n",
        CASES.len() - LACKS.len()
    );

    let storage = Metered::new(MemoryStorage::new());
    let meter = storage.meter();
    let engine = Engine::builder()
        .storage(storage)
        .service(Service::new("math").method("add", async |_, (a, b): (i64, i64)| Ok(a + b)))
        .start()
        .await?;
    engine
        .publish(
            "module.exports = async function sum({ numbers }, { tools }) {
                let sum = 0;
                for (const number of numbers) sum = await tools.math.add(sum, number);
                return sum;
            }",
        )
        .await?;
    let run = engine
        .submit("sum", &json!({ "numbers": [1, 2, 3, 4] }))
        .await?;
    let sum: Value = run.result().await?;
    engine.shutdown().await?;
    println!("an engine on it answers {sum}; it asked:\n{meter}");
    if sum != json!(10) {
        return Err(format!("the sum of 1, 2, 3 and 4 is not {sum}").into());
    }
    Ok(())
}
