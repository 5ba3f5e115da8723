//! Code by strangers: VMs in confined child processes, which run this same program again.
//!
//! ```text
//! cargo run --release -p tasker-examples --bin sandboxed
//! ```

use std::error::Error;

use tasker_core::{Engine, Limits, MemoryStorage, RunError, Service, Wall};

/// What a stranger may send: a regular expression that never ends, a native operation that nothing can interrupt, an attempt to look
/// at the host, and something useful.
const TASKS: [&str; 4] = [
    "module.exports = async function backtracks() { return /(x+x+)+y/.test('x'.repeat(64)) }",
    "module.exports = async function stuck() { return [].indexOf.call({ length: 2 ** 53 - 1 }, 1) }",
    "module.exports = async function looks() { return [typeof process, typeof require, typeof fetch, typeof Deno] }",
    "module.exports = async function adds({ numbers }, { tools }) {
        let sum = 0;
        for (const number of numbers) sum = await tools.adder.add({ a: sum, b: number });
        return sum;
    }",
];

#[derive(serde::Deserialize)]
struct Pair {
    a: i64,
    b: i64,
}

fn main() -> Result<(), Box<dyn Error>> {
    // The first line, before the runtime starts its threads: in a child process it never returns.
    tasker_core::wall::child_main();
    tokio::runtime::Runtime::new()?.block_on(host())
}

async fn host() -> Result<(), Box<dyn Error>> {
    let engine = Engine::builder()
        .storage(MemoryStorage::new())
        .wall(Wall::process())
        .limits(Limits {
            turn_wall_ms: 300,
            ..Limits::default()
        })
        .service(Service::new("adder").method("add", async |_, pair: Pair| Ok(pair.a + pair.b)))
        .start()
        .await?;
    for task in TASKS {
        engine.publish(task).await?;
    }
    let adds = engine
        .submit("adds", &serde_json::json!({ "numbers": [1, 2, 3, 4] }))
        .await?;
    for hostile in ["backtracks", "stuck"] {
        match engine.submit(hostile, &()).await?.outcome().await {
            Err(RunError::Failed(failure)) => println!("{hostile}: {failure}"),
            other => return Err(format!("{hostile} ended otherwise: {other:?}").into()),
        }
    }
    let seen: Vec<String> = engine.submit("looks", &()).await?.result().await?;
    println!("looks: {}", seen.join(", "));
    let sum: i64 = adds.result().await?;
    println!("adds: {sum}");
    engine.shutdown().await?;
    if sum == 10 {
        Ok(())
    } else {
        Err(format!("1 + 2 + 3 + 4 gave {sum}").into())
    }
}
