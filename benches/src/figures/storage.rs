//! Figures of runs on a SQLite file with `synchronous=FULL`, beside the same rows against bare rusqlite.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use serde_json::json;
use tasker_adaptor_sqlite::SqliteStorage;

use super::bench::Bench;
use super::{Problem, Size};
use crate::clock::Stopwatch;
use crate::figure::{BATCH_OF_FLOOR, Figure, Goal, median};
use crate::floor::Floor;

/// Below this many steps a second at [`BATCH_OF_FLOOR`] turns a commit the floor is no floor: half of what a machine of this kind does.
const FLOOR_AT_256: f64 = 69_500.0;
/// How often it may be looked at until it is reached.
const LOOKS_AT_FLOOR: u32 = 9;

/// An engine on a file of its own.
struct OnFile {
    folder: tempfile::TempDir,
    bench: Bench,
}

impl OnFile {
    async fn start() -> Result<Self, Problem> {
        let folder = tempfile::tempdir()?;
        let storage = SqliteStorage::open(folder.path().join("engine.db")).await?;
        let bench = Bench::start(storage).await?;
        Ok(Self { folder, bench })
    }

    fn floor(&self) -> Result<Floor, Problem> {
        let file = format!("floor_{}.db", uuid::Uuid::now_v7());
        Ok(Floor::open(&self.folder.path().join(file))?)
    }
}

impl Deref for OnFile {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.bench
    }
}

/// `chain_sqlite`: 2,000 runs of 10 calls.
pub async fn chain_sqlite(size: Size) -> Result<Figure, Problem> {
    let goal = Goal::AtLeast(0.5, "at least 0.5 of the floor, at most 20 us CPU a step");
    let (figure, cpu) = chain("chain_sqlite", size, 2_000, 10, goal).await?;
    Ok(figure.with_cpu(cpu, 20.0))
}

/// `chain_long_sqlite`: 1,000 runs of 100 calls.
pub async fn chain_long_sqlite(size: Size) -> Result<Figure, Problem> {
    let goal = Goal::AtLeast(0.6, "at least 0.6 of the floor");
    Ok(chain("chain_long_sqlite", size, 1_000, 100, goal).await?.0)
}

/// Steps that take less than a second.
const SHORT_CHAINS: f64 = 20_000.0;

/// The figure, and processor time a step in microseconds.
async fn chain(
    name: &'static str,
    size: Size,
    runs: u32,
    calls: u32,
    goal: Goal,
) -> Result<(Figure, f64), Problem> {
    let runs = size.of(runs);
    let steps = f64::from(runs) * f64::from(calls);
    let (mut seconds, mut cpu, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    let mut floors = Vec::new();
    let rounds = if steps > SHORT_CHAINS {
        size.rounds()
    } else {
        size.short_rounds()
    };
    for _ in 0..rounds {
        let bench = OnFile::start().await?;
        let took = bench.chains(runs, calls).await?;
        seconds.push(took.seconds);
        cpu.push(took.cpu_us);
        batches.push(took.batch);
        bench.engine.shutdown().await?;

        let batch = took.batch.round() as usize;
        floors.push(chains_of_floor(&mut bench.floor()?, runs, calls, batch)?);
    }
    let (seconds, cpu, batch) = (median(seconds), median(cpu), median(batches));
    let figure = Figure::new(
        name,
        (steps / seconds, "steps/s"),
        median(floors),
        goal,
        format!(
            "{runs} runs x {calls} calls in {seconds:.2} s, {cpu:.1} us CPU a step, {batch:.0} turns a commit"
        ),
    );
    Ok((checked(figure, size)?, cpu))
}

/// Steps a second of the bare driver.
fn chains_of_floor(floor: &mut Floor, runs: u32, calls: u32, batch: usize) -> Result<f64, Problem> {
    let watch = Stopwatch::start();
    floor.chains(runs, calls, batch)?;
    Ok(f64::from(runs) * f64::from(calls) / watch.seconds())
}

/// The figure, suspect when the bare driver of this machine is none to compare with: looked at once a process.
fn checked(figure: Figure, size: Size) -> Result<Figure, Problem> {
    static SEEN: Mutex<Option<f64>> = Mutex::new(None);
    if size == Size::Quick {
        return Ok(figure);
    }
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let at_256 = if let Some(seen) = *seen {
        seen
    } else {
        let mut best = 0.0_f64;
        // A neighbour on the machine may slow one look down: what the driver cannot do, it does in none.
        for _ in 0..LOOKS_AT_FLOOR {
            let folder = tempfile::tempdir()?;
            let mut floor = Floor::open(&folder.path().join("floor.db"))?;
            best = best.max(chains_of_floor(&mut floor, 2_000, 10, BATCH_OF_FLOOR)?);
            if best >= FLOOR_AT_256 {
                break;
            }
        }
        *seen.insert(best)
    };
    Ok(figure.unless_suspect(at_256, FLOOR_AT_256))
}

/// `latency_sqlite`: one chain of 1,000 calls alone, beside one bare one-row commit a step.
pub async fn latency_sqlite(size: Size) -> Result<Figure, Problem> {
    let calls = size.of(1_000);
    let (mut values, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..size.short_rounds() {
        let bench = OnFile::start().await?;
        let watch = Stopwatch::start();
        bench.runs("chain", &json!({ "calls": calls }), 1).await?;
        values.push(watch.seconds() * 1e6 / f64::from(calls));
        bench.engine.shutdown().await?;

        let mut floor = bench.floor()?;
        let watch = Stopwatch::start();
        for _ in 0..calls {
            floor.submit()?;
        }
        floors.push(watch.seconds() * 1e6 / f64::from(calls));
    }
    let figure = Figure::new(
        "latency_sqlite",
        (median(values), "us/step"),
        median(floors),
        Goal::AtMost(1.5, "at most 1.5 of a bare commit"),
        "the bare commit is that of one submitted run".to_owned(),
    );
    checked(figure, size)
}

/// `chain_sqlite_10k`: 10,000 runs of 10 calls.
pub async fn chain_sqlite_10k(size: Size) -> Result<Figure, Problem> {
    let goal = Goal::AtLeast(0.5, "at least 0.5 of the floor");
    Ok(chain("chain_sqlite_10k", size, 10_000, 10, goal).await?.0)
}

/// One run of so many parallel calls: milliseconds, turns, and its file.
async fn fan(calls: u32) -> Result<(f64, u64, OnFile), Problem> {
    let bench = OnFile::start().await?;
    let before = bench.meter.commits();
    let watch = Stopwatch::start();
    bench.runs("fan", &json!({ "calls": calls }), 1).await?;
    let millis = watch.seconds() * 1e3;
    let turns = (bench.meter.commits().1 - before.1).max(2) - 1;
    bench.engine.shutdown().await?;
    Ok((millis, turns, bench))
}

/// `fan_out_10k`: 10,000 parallel calls in one run, beside 1,000.
pub async fn fan_out_10k(size: Size) -> Result<Figure, Problem> {
    let calls = size.of(10_000);
    let (mut fews, mut values, mut floors, mut all_turns) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..size.short_rounds() {
        fews.push(fan(calls / 10).await?.0);
        let (value, turns, bench) = fan(calls).await?;
        values.push(value);
        all_turns += turns;
        floors.push(fan_of_floor(&bench, calls, turns)?);
    }
    let turns = all_turns / u64::from(size.short_rounds());
    let value = median(values);
    let times = value / median(fews);
    let figure = Figure::new(
        "fan_out_10k",
        (value, "ms"),
        median(floors),
        Goal::AtMost(
            3.0,
            "at most 3 times the floor, and 12 times as long as a tenth of them",
        ),
        format!("{calls} calls answered in {turns} turns"),
    );
    let figure = figure.only_if(
        times <= 12.0,
        &format!("{times:.1} times as long as a tenth"),
    );
    checked(figure, size)
}

/// Milliseconds of the bare driver for the same rows.
fn fan_of_floor(bench: &OnFile, calls: u32, turns: u64) -> Result<f64, Problem> {
    let mut floor = bench.floor()?;
    let answers_a_turn = calls.div_ceil(u32::try_from(turns)?);
    let watch = Stopwatch::start();
    floor.fan_out(calls, answers_a_turn)?;
    Ok(watch.seconds() * 1e3)
}

/// `fan_out_1k`: 1,000 parallel calls in one run.
pub async fn fan_out_1k(size: Size) -> Result<Figure, Problem> {
    let calls = size.of(1_000);
    let (mut values, mut floors, mut all_turns) = (Vec::new(), Vec::new(), 0);
    for _ in 0..size.short_rounds() {
        let (value, turns, bench) = fan(calls).await?;
        values.push(value);
        all_turns += turns;
        floors.push(fan_of_floor(&bench, calls, turns)?);
    }
    let figure = Figure::new(
        "fan_out_1k",
        (median(values), "ms"),
        median(floors),
        Goal::AtMost(3.0, "at most 3 times the floor"),
        format!(
            "{calls} calls answered in {} turns",
            all_turns / u64::from(size.short_rounds())
        ),
    );
    checked(figure, size)
}

/// `nested`: 200 parents, each with child and grandchild.
pub async fn nested(size: Size) -> Result<Figure, Problem> {
    let runs = size.of(200);
    let (mut seconds, mut batches, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..size.short_rounds() {
        let bench = OnFile::start().await?;
        let before = bench.meter.commits();
        let watch = Stopwatch::start();
        bench.runs("nest", &json!({ "depth": 2 }), runs).await?;
        seconds.push(watch.seconds());
        let batch = bench.batch_since(before);
        batches.push(batch);
        bench.engine.shutdown().await?;

        let mut floor = bench.floor()?;
        let watch = Stopwatch::start();
        floor.nested(runs, batch.round() as usize)?;
        floors.push(watch.seconds());
    }
    let (seconds, batch) = (median(seconds), median(batches));
    let figure = Figure::new(
        "nested",
        (f64::from(runs) / seconds, "runs/s"),
        f64::from(runs) / median(floors),
        Goal::AtLeast(0.4, "at least 0.4 of the floor"),
        format!("{:.0} ms, {batch:.0} turns a commit", seconds * 1e3),
    );
    checked(figure, size)
}
