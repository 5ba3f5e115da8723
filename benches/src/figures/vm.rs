//! Figures of engines without a disk: the first call, replay, memory of frames that wait, and doing nothing.

use std::time::Duration;

use futures::future::try_join_all;
use rquickjs::{Context, Module, Runtime};
use serde_json::json;
use tasker_core::wall::Wall;
use tasker_core::{Engine, Limits, MemoryStorage, ServiceCall, service_fn};
use tokio::sync::mpsc;

use super::call::HotVm;
use super::{Problem, Size};
use crate::clock::{Stopwatch, resident_bytes};
use crate::figure::{Figure, Goal, median};

const ASKS: &str = "module.exports = async function asks(input, { tools }) { return await tools.bench.step(input); }";

/// The same as a module of bare QuickJS.
const BARE: &str = "export default async function asks(input, { tools }) { return await tools.bench.step(input); }";

/// An engine whose service says that it was asked, and answers at once or never.
async fn engine(
    answers: bool,
    limits: Limits,
) -> Result<(Engine, mpsc::UnboundedReceiver<()>), Problem> {
    let (asked, inbox) = mpsc::unbounded_channel();
    let engine = Engine::builder()
        .storage(MemoryStorage::new())
        .wall(Wall::in_process())
        .limits(limits)
        .hot_frames(100_000)
        .calls_in_flight(100_000)
        .park_delay_ms(3_600_000)
        .service(service_fn("bench", move |call: ServiceCall| {
            let _ = asked.send(());
            async move {
                if !answers {
                    std::future::pending::<()>().await;
                }
                Ok(call.args().first().cloned().unwrap_or_default())
            }
        }))
        .start()
        .await?;
    engine.publish(ASKS).await?;
    Ok((engine, inbox))
}

/// `cold_start`: from the accepted submit to the first call asked, one run after the other, beside a bare runtime, context and module.
pub async fn cold_start(size: Size) -> Result<Figure, Problem> {
    let runs = size.of(1_000);
    let (mut values, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..size.rounds() {
        let (engine, mut asked) = engine(true, Limits::default()).await?;
        let mut seconds = 0.0;
        for n in 0..=runs {
            let handle = engine.submit("asks", &json!({ "n": n })).await?;
            let watch = Stopwatch::start();
            asked.recv().await.ok_or("the service is gone")?;
            // The first one reads and compiles the task.
            if n > 0 {
                seconds += watch.seconds();
            }
            handle.outcome().await?;
        }
        engine.shutdown().await?;
        values.push(seconds * 1e6 / f64::from(runs));
        floors.push(tokio::task::spawn_blocking(move || bare_start(runs)).await??);
    }
    Ok(Figure::new(
        "cold_start",
        (median(values), "us/run"),
        median(floors),
        Goal::AtMost(1.5, "at most 1.5 of runtime + context + module"),
        format!("{runs} runs, one after the other, on memory storage"),
    ))
}

/// Microseconds for a bare runtime and context, and a small module evaluated in it.
fn bare_start(runs: u32) -> Result<f64, Problem> {
    let watch = Stopwatch::start();
    for _ in 0..runs {
        let runtime = Runtime::new()?;
        Context::full(&runtime)?.with(|ctx| Module::evaluate(ctx, "asks", BARE).map(drop))?;
    }
    Ok(watch.seconds() * 1e6 / f64::from(runs))
}

/// `replay_per_call`: answers delivered from a journal, at 100,000 calls; the floor is the goal itself, 3.5 µs.
pub fn replay_per_call(size: Size) -> Result<Figure, Problem> {
    let (few, many) = (size.of(1_000), size.of(100_000));
    let each = |calls: u32, times: u32| -> Result<f64, Problem> {
        let mut seconds = 0.0;
        for _ in 0..times {
            let mut vm = HotVm::start()?;
            let watch = Stopwatch::start();
            for _ in 0..calls {
                vm.round_trip()?;
            }
            seconds += watch.seconds();
        }
        Ok(seconds * 1e6 / f64::from(calls * times))
    };
    each(few, 1)?;
    let short = each(few, 20)?;
    let long = each(many, 1)?;
    Ok(Figure::new(
        "replay_per_call",
        (long, "us/call"),
        3.5,
        Goal::AtMost(1.0, "at most 3.5 us a call"),
        format!(
            "{short:.1} us a call at {few} calls, {long:.1} at {many}: ratio {:.2} (goal 1.15)",
            long / short
        ),
    ))
}

/// `hot_memory`: what a frame takes that waits with its VM in memory.
pub async fn hot_memory(size: Size) -> Result<Figure, Problem> {
    let runs = size.of(2_000);
    let (engine, mut asked) = engine(false, Limits::default()).await?;
    engine.submit("asks", &json!({})).await?;
    asked.recv().await.ok_or("the service is gone")?;
    let before = resident_bytes();
    try_join_all((0..runs).map(|_| async { engine.submit("asks", &json!({})).await })).await?;
    for _ in 0..runs {
        asked.recv().await.ok_or("the service is gone")?;
    }
    let each = resident_bytes().saturating_sub(before) as f64 / f64::from(runs) / 1_024.0;
    engine.abandon();
    Ok(Figure::new(
        "hot_memory",
        (each, "KB/frame"),
        0.0,
        Goal::Below(256.0, "at most 256 KB a frame"),
        format!("{runs} frames that wait for a service"),
    ))
}

/// `idle_cpu`: an engine on a SQLite file with nothing to do.
pub async fn idle_cpu(size: Size) -> Result<Figure, Problem> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("engine.db");
    let engine = Engine::builder()
        .storage(tasker_adaptor_sqlite::SqliteStorage::open(path).await?)
        .wall(Wall::in_process())
        .start()
        .await?;
    // What a start leaves to do is done within this time.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let watch = Stopwatch::start();
    tokio::time::sleep(Duration::from_secs(u64::from(size.of(20)))).await;
    let share = watch.cpu_seconds() / watch.seconds() * 100.0;
    engine.shutdown().await?;
    Ok(Figure::new(
        "idle_cpu",
        (share, "% of a core"),
        0.0,
        Goal::Below(0.2, "under 0.2 % of a core"),
        String::new(),
    ))
}
