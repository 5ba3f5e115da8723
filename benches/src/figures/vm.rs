//! Figures of engines without a disk: the first call, replay, and doing nothing.

use std::time::Duration;

use serde_json::json;
use tasker_core::wall::Wall;
use tasker_core::{Engine, MemoryStorage, ServiceCall, service_fn};
use tokio::sync::mpsc;

use super::bare_start::bare_start;
use super::call::HotVm;
use super::{Problem, Size};
use crate::clock::{Moment, Stopwatch};
use crate::figure::{Figure, Goal, median};

const ASKS: &str = "module.exports = async function asks(input, { tools }) { return await tools.bench.step(input); }";

/// An engine whose service says when it was asked, and answers at once or never.
pub(super) async fn engine(
    answers: bool,
    hot_memory_mb: usize,
) -> Result<(Engine, mpsc::UnboundedReceiver<Moment>), Problem> {
    let (asked, inbox) = mpsc::unbounded_channel();
    let engine = Engine::builder()
        .storage(MemoryStorage::new())
        .wall(Wall::in_process())
        .hot_memory_mb(hot_memory_mb)
        .hot_frames(100_000)
        .calls_in_flight(100_000)
        .park_delay_ms(3_600_000)
        .service(service_fn("bench", move |call: ServiceCall| {
            let _ = asked.send(Moment::now());
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

/// `cold_start`: from the accepted submit to the first call asked, one run after the other, beside a bare runtime, context and
/// bytecode.
pub async fn cold_start(size: Size) -> Result<Figure, Problem> {
    let runs = size.of(1_000);
    let (mut values, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..size.rounds() {
        let (engine, mut asked) = engine(true, 1_024).await?;
        let mut seconds = 0.0;
        for n in 0..=runs {
            let handle = engine.submit("asks", &json!({ "n": n })).await?;
            let accepted = Moment::now();
            let asked = asked.recv().await.ok_or("the service is gone")?;
            // The first one reads and compiles the task.
            if n > 0 {
                seconds += asked.seconds_since(accepted);
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
        Goal::AtMost(1.5, "at most 1.5 of runtime + context + bytecode"),
        format!("{runs} runs, one after the other, on memory storage"),
    ))
}

/// `replay_per_call`: answers delivered to a VM, which is what a replay does with each recorded call, at 1,000 calls and at 100,000: the
/// dearer of the two, medians of rounds; the floor is the goal itself, 3.5 µs. Reading the journal is part of `recover_5k`.
pub fn replay_per_call(size: Size) -> Result<Figure, Problem> {
    let (few, many) = (size.of(1_000), size.of(100_000));
    let (mut shorts, mut longs, mut aparts) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=size.rounds() {
        let (short, long) = short_and_long(few, many)?;
        // The first one warms the caches.
        if round > 0 {
            shorts.push(short);
            longs.push(long);
            aparts.push(short.max(long) / short.min(long));
        }
    }
    let (short, long, apart) = (median(shorts), median(longs), median(aparts));
    Ok(Figure::new(
        "replay_per_call",
        (short.max(long), "us/call"),
        3.5,
        Goal::AtMost(
            1.0,
            "at most 3.5 us a call, at both sizes, and the two within 1.15 of each other",
        ),
        format!("{short:.1} us a call at {few} calls, {long:.1} at {many}"),
    )
    .only_if(apart <= 1.15, &format!("{apart:.2} apart")))
}

/// Microseconds a call in VMs of `few` calls each and in one of `many`: pieces in turn, so that noise of the machine meets both.
fn short_and_long(few: u32, many: u32) -> Result<(f64, f64), Problem> {
    const PIECES: u32 = 20;
    let timed = |vm: &mut HotVm, calls: u32| -> Result<f64, Problem> {
        let watch = Stopwatch::start();
        for _ in 0..calls {
            vm.round_trip()?;
        }
        Ok(watch.seconds())
    };
    let piece = many / PIECES;
    let (mut short, mut long) = (0.0, 0.0);
    let mut grows = HotVm::start()?;
    for _ in 0..PIECES {
        long += timed(&mut grows, piece)?;
        short += timed(&mut HotVm::start()?, few)?;
    }
    let each = |seconds: f64, calls: u32| seconds * 1e6 / f64::from(calls * PIECES);
    Ok((each(short, few), each(long, piece)))
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
