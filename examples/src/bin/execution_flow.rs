//! A run driven by hand, one step at a time, with the rows that each step leaves. `docs/execution-guide.md` shows its output.
//!
//! ```text
//! cargo run --release -p tasker-examples --bin execution_flow
//! ```

use std::error::Error;
use std::sync::Arc;

use serde_json::json;
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::{
    Drive, Engine, Json, Outcome, RunHandle, Service, ServiceError, StackKind, Storage,
};

const TASKS: [&str; 2] = [
    "module.exports = async function invoice({ order }, { tools }) {
        const items = await tools.orders.items(order);
        const [tax, address] = await Promise.allSettled([tools.orders.tax(items.length), tools.orders.address(order)]);
        const total = await tools.tasks.execute('total', items);
        return { total, tax: tax.value, address: address.status };
    }",
    "module.exports = async function total(items, { tools }) {
        await tools.sleep(1);
        return items.reduce((sum, item) => sum + item, 0);
    }",
];

/// No step of a run this small needs more.
const STEPS: usize = 50;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let storage: Arc<dyn Storage> =
        Arc::new(SqliteStorage::open(folder.path().join("flow.db")).await?);
    let orders = Service::new("orders")
        .method("items", async |_, _: Json| Ok([20, 22]))
        .method("tax", async |_, items: u32| Ok(items))
        .method("address", async |_, order: String| {
            Err::<(), _>(ServiceError::not_found(format!("{order} has no address")))
        });
    let engine = Engine::builder()
        .shared_storage(Arc::clone(&storage))
        .service(orders)
        .drive(Drive::Manual)
        .keep_rows_ms(u64::MAX)
        .start()
        .await?;
    for task in TASKS {
        engine.publish(task).await?;
    }
    let run = engine.submit("invoice", &json!({ "order": "A-1" })).await?;
    show("submitted", &storage, &run).await?;
    for step in 1..=STEPS {
        if run.status().await?.is_terminal() {
            let result: serde_json::Value = run.result().await?;
            println!("result: {result}");
            engine.shutdown().await?;
            return Ok(());
        }
        let processed = engine.process_next().await?;
        show(
            &format!("step {step}: {}", name(processed, &storage).await?),
            &storage,
            &run,
        )
        .await?;
    }
    Err(format!("the run has not ended after {STEPS} steps").into())
}

/// What a step did, by names instead of ids.
async fn name(
    processed: tasker_core::Processed,
    storage: &Arc<dyn Storage>,
) -> Result<String, Box<dyn Error>> {
    use tasker_core::Processed::{Call, Frame, Nothing};
    let (what, id) = match processed {
        // A timer that is due later: real time passes until it is.
        Nothing => {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            return Ok("nothing was ready".to_owned());
        }
        Frame(id) => ("a turn of", id),
        Call(id) => ("asked", id),
    };
    let row = storage.stack_run(id).await?;
    let (service, path) = row.map(|row| (row.service, row.path)).unwrap_or_default();
    Ok(format!("{what} {service}.{path}"))
}

async fn show(
    title: &str,
    storage: &Arc<dyn Storage>,
    run: &RunHandle,
) -> Result<(), Box<dyn Error>> {
    let info = run.info().await?;
    println!("{title}");
    println!("  task run {} is {}", info.task, info.status);
    println!(
        "  seq kind   service.path     status                   epoch turn made read order outcome"
    );
    for row in storage.stack_runs(run.id()).await? {
        let outcome = match &row.outcome {
            None => String::new(),
            Some(Outcome::Completed(value)) => value
                .as_ref()
                .map_or("undefined".to_owned(), ToString::to_string),
            Some(Outcome::Failed(failure)) => failure.to_string(),
        };
        let count = |number: u32| match row.kind {
            StackKind::Frame => number.to_string(),
            _ => String::new(),
        };
        println!(
            "  {:indent$}{:<width$} {:6} {:16} {:24} {:>5} {:>4} {:>4} {:>4} {:>5} {outcome}",
            "",
            row.seq,
            row.kind,
            format!("{}.{}", row.service, row.path),
            row.status.to_string(),
            row.epoch.0,
            count(row.turn.0),
            count(row.made_count),
            count(row.delivered_count),
            row.delivered_order
                .map(|order| order.to_string())
                .unwrap_or_default(),
            indent = row.depth as usize,
            width = 3 - row.depth.min(2) as usize,
        );
    }
    println!();
    Ok(())
}
