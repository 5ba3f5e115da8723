//! `process_wall`: turns a second behind the process wall, beside the same turns in-process.

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tasker_core::{Engine, MemoryStorage, ServiceCall, Wall, service_fn};

use super::{Problem, Size};
use crate::clock::Stopwatch;
use crate::figure::{Figure, Goal};

/// Frames active at one time.
const ACTIVE: usize = 64;
/// Calls, and so turns but one, of a run.
const CALLS: u32 = 100;

const TASK: &str = "module.exports = async function chain({ calls }, { tools }) {
    let n = 0;
    for (let i = 0; i < calls; i++) n = (await tools.bench.step({ n: i, text: 'a step of a chain' })).n;
    return n;
}";

/// 1,280 runs of 100 calls in memory, 64 at one time; both walls in turn, twice, the better of each counts.
pub async fn process_wall(size: Size) -> Result<Figure, Problem> {
    let runs = size.of(1_280);
    let (mut floor, mut value) = (0.0_f64, 0.0_f64);
    for _ in 0..2 {
        floor = floor.max(turns_a_second(Wall::in_process(), runs).await?);
        value = value.max(turns_a_second(Wall::process(), runs).await?);
    }
    Ok(Figure::new(
        "process_wall",
        (value, "turns/s"),
        floor,
        Goal::AtLeast(0.5, "at least 0.5 of the in-process rate"),
        format!("{runs} runs of {CALLS} calls, {ACTIVE} active; floor: the same in-process"),
    ))
}

async fn turns_a_second(wall: Wall, runs: u32) -> Result<f64, Problem> {
    let engine = Engine::builder()
        .storage(MemoryStorage::new())
        .wall(wall)
        .service(service_fn("bench", async |call: ServiceCall| {
            Ok(call.args().first().cloned().unwrap_or_default())
        }))
        .start()
        .await?;
    engine.publish(TASK).await?;
    // What is compiled once is compiled before the clock starts.
    for _ in 0..8 {
        engine
            .submit("chain", &json!({ "calls": 1 }))
            .await?
            .outcome()
            .await?;
    }
    let watch = Stopwatch::start();
    stream::iter(0..runs)
        .map(|_| async {
            let run = engine.submit("chain", &json!({ "calls": CALLS })).await?;
            run.outcome().await.map(drop).map_err(Problem::from)
        })
        .buffer_unordered(ACTIVE)
        .try_collect::<()>()
        .await?;
    let seconds = watch.seconds();
    engine.shutdown().await?;
    Ok(f64::from(runs) * f64::from(CALLS + 1) / seconds)
}
