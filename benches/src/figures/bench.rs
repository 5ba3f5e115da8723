//! An engine to measure, on any storage.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tasker_core::wall::Wall;
use tasker_core::{Engine, RunHandle, ServiceCall, Storage, service_fn};
use tasker_examples::metered::{Meter, Metered};

use super::Problem;
use crate::clock::Stopwatch;

/// Submits under way at one time.
const SUBMITTERS: usize = 256;

const TASKS: [&str; 4] = [
    "module.exports = async function chain({ calls }, { tools }) {
        let n = 0;
        for (let i = 0; i < calls; i++) n = (await tools.bench.step({ n: i, text: 'a step of a chain' })).n;
        return { n, text: 'a step of a chain' };
    }",
    "module.exports = async function fan({ calls }, { tools }) {
        const all = await Promise.all(Array.from({ length: calls }, (_, n) => tools.bench.step({ n, text: 'a step of a chain' })));
        return { n: all.length, text: 'a step of a chain' };
    }",
    "/** @task nest */
    module.exports = async function nest({ depth }, { tools }) {
        if (depth > 0) await tools.tasks.execute('nest', { depth: depth - 1 });
        return { n: depth, text: 'a step of a chain' };
    }",
    "module.exports = async function ready() { return 1; }",
];

/// An engine with the tasks of the figures.
pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) meter: Arc<Meter>,
}

impl Bench {
    pub(super) async fn start(storage: impl Storage) -> Result<Self, Problem> {
        let storage = Metered::new(storage);
        let meter = storage.meter();
        let engine = engine(storage).await?;
        for task in TASKS {
            engine.publish(task).await?;
        }
        // Threads, prepared statements and compiled tasks are there before the clock starts.
        engine.submit("ready", &json!({})).await?.outcome().await?;
        Ok(Self { engine, meter })
    }

    /// Submits all and waits for the last to complete.
    pub(super) async fn runs(
        &self,
        task: &str,
        input: &serde_json::Value,
        runs: u32,
    ) -> Result<(), Problem> {
        let handles: Vec<RunHandle> = stream::iter(0..runs)
            .map(|_| async { self.engine.submit(task, input).await })
            .buffer_unordered(SUBMITTERS)
            .try_collect()
            .await?;
        for handle in handles {
            handle.outcome().await?;
        }
        Ok(())
    }

    /// Runs of `calls` calls each, one after the other, with what they took.
    pub(super) async fn chains(&self, runs: u32, calls: u32) -> Result<Chains, Problem> {
        let steps = f64::from(runs) * f64::from(calls);
        let before = self.meter.commits();
        let watch = Stopwatch::start();
        self.runs("chain", &json!({ "calls": calls }), runs).await?;
        Ok(Chains {
            seconds: watch.seconds(),
            cpu_us: watch.cpu_seconds() * 1e6 / steps,
            batch: self.batch_since(before),
        })
    }

    /// Mean turns a commit since the first of these counts.
    pub(super) fn batch_since(&self, (commits, turns): (u64, u64)) -> f64 {
        let (commits_now, turns_now) = self.meter.commits();
        (turns_now - turns) as f64 / (commits_now - commits).max(1) as f64
    }
}

/// What chains took: seconds in all, processor microseconds of this process a step, mean turns a commit.
pub(super) struct Chains {
    pub(super) seconds: f64,
    pub(super) cpu_us: f64,
    pub(super) batch: f64,
}

/// An engine with the service of the figures.
pub(super) async fn engine(storage: impl Storage) -> Result<Engine, Problem> {
    Ok(Engine::builder()
        .storage(storage)
        .wall(Wall::in_process())
        .service(service_fn("bench", async |call: ServiceCall| {
            Ok(call.args().first().cloned().unwrap_or_default())
        }))
        .start()
        .await?)
}
