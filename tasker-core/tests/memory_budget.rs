//! The memory of all VMs together keeps within its budget, and everything ends. On Linux, where the memory of a process is told.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::sync::Arc;
use std::time::Duration;

use tasker_core::adaptor::{FaultAction, FaultStorage};
use tasker_core::{
    Engine, EngineBuilder, MemoryStorage, RunFilter, RunHandle, RunStatus, Wall, service_fn,
};
use tokio::sync::Semaphore;

#[path = "support/sandboxes.rs"]
mod sandboxes;

use sandboxes::{alone, the_sandbox, until};

const SANDBOX: &str = env!("CARGO_BIN_EXE_tasker-sandbox");
const BUDGET_MB: usize = 32;
/// What each frame of the test holds while it waits.
const FRAME_MB: usize = 4;
const ELEMENTS: usize = FRAME_MB << 16;
/// Together they would hold eight times the budget.
const FRAMES: usize = 64;

/// Holds an array (16 bytes an element) across a call.
const HOLDS: &str = "module.exports = async function holds({ n, elements }, { tools }) {
    const held = new Array(elements);
    for (let i = 0; i < held.length; i++) held[i] = i;
    const answer = await tools.gate.pass(n);
    return held.length + answer;
};";

/// `gate.pass(n)` answers `n` when the gate is open.
fn gated(builder: EngineBuilder, gate: &Arc<Semaphore>, asked: &Arc<Semaphore>) -> EngineBuilder {
    let (gate, asked) = (Arc::clone(gate), Arc::clone(asked));
    builder.service(service_fn("gate", move |call: tasker_core::ServiceCall| {
        let (gate, asked) = (Arc::clone(&gate), Arc::clone(&asked));
        async move {
            asked.add_permits(1);
            if let Ok(permit) = gate.acquire().await {
                permit.forget();
            }
            Ok(call.args().first().cloned().unwrap_or_default())
        }
    }))
}

/// What a process has in memory, in MiB.
fn resident_mb(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() / 1_024
}

async fn submit(engine: &Engine, count: usize, elements: usize) -> Vec<RunHandle> {
    let mut runs = Vec::new();
    for n in 0..count {
        let input = serde_json::json!({ "n": n, "elements": elements });
        runs.push(engine.submit("holds", &input).await.unwrap());
    }
    runs
}

async fn all_end(runs: &[RunHandle], elements: usize) {
    for (n, run) in runs.iter().enumerate() {
        let answer: usize = tokio::time::timeout(Duration::from_mins(5), run.result())
            .await
            .expect("the run never ended")
            .unwrap();
        assert_eq!(answer, elements + n);
    }
}

/// Runs all to the gate, then through it; the most that the process of the VMs had more than before, in MiB.
async fn growth(wall: Wall, budget_mb: usize, in_child: bool) -> usize {
    let (gate, asked) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let engine = gated(Engine::builder(), &gate, &asked)
        .storage(MemoryStorage::new())
        .wall(wall)
        .threads(2)
        .hot_memory_mb(budget_mb)
        .park_delay_ms(600_000)
        .start()
        .await
        .unwrap();
    engine.publish(HOLDS).await.unwrap();
    let process = if in_child {
        the_sandbox().await
    } else {
        std::process::id()
    };
    let before = resident_mb(process);
    let mut most = before;
    let runs = submit(&engine, FRAMES, ELEMENTS).await;
    let watched = async {
        loop {
            most = most.max(resident_mb(process));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let through = async {
        let _all_asked = asked.acquire_many(FRAMES as u32).await.unwrap();
        gate.add_permits(FRAMES);
        all_end(&runs, ELEMENTS).await;
    };
    tokio::select! {
        () = watched => {}
        () = through => {}
    }
    let found = engine.audit().await.unwrap();
    assert!(found.is_empty(), "{found:?}");
    engine.shutdown().await.unwrap();
    most - before
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_wait_make_room_and_all_of_them_end() {
    let _alone = alone().await;
    // Twice the budget for the allocators' sake, and what the turns under way take.
    let bound = 2 * BUDGET_MB + 4 * FRAME_MB;
    let children = || Wall::process().program(SANDBOX).children(1);
    let in_child = growth(children(), BUDGET_MB, true).await;
    assert!(in_child < bound, "a child grew by {in_child} MiB");
    let in_process = growth(Wall::in_process(), BUDGET_MB, false).await;
    assert!(in_process < bound, "the host grew by {in_process} MiB");
    // Without a budget to speak of it is seen that they hold something.
    let all = growth(children(), 10_000, true).await;
    assert!(
        all > FRAMES * FRAME_MB,
        "all frames together took {all} MiB"
    );
}

/// Frames that cannot be parked, because their turns are not stored: no others are taken up.
#[tokio::test(flavor = "multi_thread")]
async fn while_active_frames_fill_the_budget_none_is_taken_up() {
    let _alone = alone().await;
    let storage = FaultStorage::over(Arc::new(MemoryStorage::new()));
    let (gate, asked) = (
        Arc::new(Semaphore::new(FRAMES + 1)),
        Arc::new(Semaphore::new(0)),
    );
    let engine = gated(Engine::builder(), &gate, &asked)
        .storage(storage.clone())
        .wall(Wall::in_process())
        .threads(1)
        .hot_memory_mb(BUDGET_MB)
        .start()
        .await
        .unwrap();
    engine.publish(HOLDS).await.unwrap();
    // What frames take is known by now.
    let first = submit(&engine, 1, ELEMENTS).await;
    all_end(&first, ELEMENTS).await;

    let control = storage.control();
    control.on_call(|call| match call.method {
        "commit" => FaultAction::Delay,
        _ => FaultAction::Pass,
    });
    let runs = submit(&engine, FRAMES, ELEMENTS).await;
    until("turns wait to be stored", || control.delayed() > 0).await;
    // Claims go on beside the commits that wait; the last of them is long over when these questions were answered.
    let processing = RunFilter {
        statuses: vec![RunStatus::Processing],
        ..RunFilter::default()
    };
    let mut taken_up = 0;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let page = engine.runs(&processing, 1_000).await.unwrap();
        taken_up = page.runs.len();
    }
    let fit = BUDGET_MB / FRAME_MB;
    assert!(
        (1..=fit + 1).contains(&taken_up),
        "{taken_up} of {FRAMES} frames were taken up, {fit} fit"
    );
    control.on_call(|_| FaultAction::Pass);
    control.release();
    all_end(&runs, ELEMENTS).await;
    engine.shutdown().await.unwrap();
}

/// Not a test, but a measure: `TASKER_RUNS=10000 cargo test -p tasker-core --test memory_budget -- --ignored --nocapture` prints what
/// many runs that wait at one time, each holding 1 MiB, take of a budget of 256.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measure, which takes minutes"]
async fn many_active_runs() {
    let count = std::env::var("TASKER_RUNS").map_or(10_000, |text| text.parse().unwrap());
    let (gate, asked) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let engine = gated(Engine::builder(), &gate, &asked)
        .storage(MemoryStorage::new())
        .wall(Wall::in_process())
        .hot_frames(count)
        .calls_in_flight(count)
        .hot_memory_mb(256)
        .start()
        .await
        .unwrap();
    engine.publish(HOLDS).await.unwrap();
    let process = std::process::id();
    let before = resident_mb(process);
    let since = sandboxes::now();
    let runs = submit(&engine, count, 1 << 16).await;
    println!(
        "{count} runs submitted in {:?}: {before} MiB before, {} MiB",
        sandboxes::now() - since,
        resident_mb(process)
    );
    let _all_asked = asked.acquire_many(count as u32).await.unwrap();
    println!(
        "all wait after {:?}: {} MiB",
        sandboxes::now() - since,
        resident_mb(process)
    );
    gate.add_permits(count);
    let mut most = 0;
    for (n, run) in runs.iter().enumerate() {
        assert_eq!(run.result::<usize>().await.unwrap(), (1 << 16) + n);
        most = most.max(resident_mb(process));
    }
    println!(
        "all ended after {:?}: {most} MiB at most",
        sandboxes::now() - since
    );
    engine.shutdown().await.unwrap();
}
