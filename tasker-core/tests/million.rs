//! A database that has run very many steps is small again: on a real SQLite file, with the host's clock.
//!
//! `TASKER_STEPS=1000000 cargo test -p tasker-core --test million -- --nocapture` runs a million steps a test and prints the sizes.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::adaptor::Maintenance;
use tasker_core::service::{ServiceCall, service_fn};
use tasker_core::{Engine, EngineBuilder, Json, RunFilter, RunStatus};

/// Steps in the normal test run.
const STEPS: usize = 20_000;
/// Calls of one run.
const CALLS: usize = 100;
/// Runs that are open at one time.
const OPEN: usize = 200;
/// What may be left: the cleaner keeps 16 MiB of free space for the next runs, and the log beside the file is cut back.
const SMALL: u64 = 20 << 20;
const CLEANED_WITHIN: Duration = Duration::from_mins(5);

const TASK: &str = r"module.exports = async (calls, { tools }) => {
    let n = 0;
    for (let i = 0; i < calls; i++) n = (await tools.svc.step(n + 1, 'an argument of a usual length')).n;
    return n;
}";

fn steps() -> usize {
    std::env::var("TASKER_STEPS").map_or(STEPS, |steps| steps.parse().unwrap())
}

async fn builder(path: &Path) -> EngineBuilder {
    let storage = SqliteStorage::open(path).await.unwrap();
    Engine::builder()
        .storage(storage)
        .service(service_fn("svc", async |call: ServiceCall| {
            let n: Value = call.arg(0)?;
            Ok(Json::from(&json!({ "n": n, "note": "an answer of a usual length" })).unwrap())
        }))
        .clean_every_ms(200)
}

/// Runs so many steps and looks at the file now and then; answers the largest size that it had.
async fn run_steps(engine: &Engine, path: &Path, steps: usize) -> u64 {
    engine.publish(TASK).name("steps").await.unwrap();
    let runs = steps.div_ceil(CALLS);
    let mut ended = futures::stream::iter(0..runs)
        .map(|_| async {
            let handle = engine.submit("steps", &CALLS).await.unwrap();
            assert_eq!(handle.result::<usize>().await.unwrap(), CALLS);
        })
        .buffer_unordered(OPEN);
    let mut largest = 0;
    let mut done = 0;
    while ended.next().await.is_some() {
        done += 1;
        if done % 50 == 0 || done == runs {
            largest = largest.max(size(path));
        }
    }
    largest
}

/// The file and its write-ahead log.
fn size(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    [path.to_owned(), PathBuf::from(log)]
        .iter()
        .filter_map(|file| std::fs::metadata(file).ok())
        .map(|file| file.len())
        .sum()
}

/// Waits until no run is left and the file is small; answers its size.
async fn cleaned(engine: &Engine, path: &Path) -> u64 {
    let all = RunFilter::default();
    let small = async {
        while !engine.runs(&all, 1).await.unwrap().runs.is_empty() || size(path) > SMALL {
            // The size of a file gives no signal.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let left = tokio::time::timeout(CLEANED_WITHIN, small).await;
    assert!(left.is_ok(), "{} bytes are left", size(path));
    size(path)
}

async fn sound(path: &Path) {
    let storage = SqliteStorage::open(path).await.unwrap();
    assert_eq!(storage.audit().await.unwrap(), Vec::new());
    let file = rusqlite::Connection::open(path).unwrap();
    let says: String = file
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(says, "ok");
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Everything is kept until the end, as by a host that turns retention on late.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_many_steps_is_cleaned_and_its_file_is_small_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasker.db");
    let engine = builder(&path).await.keep_rows_ms(u64::MAX);
    let engine = engine.start().await.unwrap();
    let largest = run_steps(&engine, &path, steps()).await;
    engine.shutdown().await.unwrap();
    let engine = builder(&path).await.keep_runs_ms(RunStatus::Completed, 0);
    let engine = engine.start().await.unwrap();
    let left = cleaned(&engine, &path).await;
    println!(
        "{} steps kept: {:.1} MiB; cleaned: {:.1} MiB",
        steps(),
        mib(largest),
        mib(left)
    );
    // The sizes can tell only when the history is larger than what may be left.
    assert!(largest > SMALL * 3 / 4, "it was {largest} bytes");
    engine.shutdown().await.unwrap();
    sound(&path).await;
}

/// Retention from the start: the file never becomes large, however many steps it has seen.
#[tokio::test(flavor = "multi_thread")]
async fn with_retention_on_the_file_stays_small_however_many_steps_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasker.db");
    let engine = builder(&path).await.keep_runs_ms(RunStatus::Completed, 0);
    let engine = engine.start().await.unwrap();
    let largest = run_steps(&engine, &path, steps()).await;
    let left = cleaned(&engine, &path).await;
    println!(
        "{} steps with retention: never more than {:.1} MiB; in the end {:.1} MiB",
        steps(),
        mib(largest),
        mib(left)
    );
    engine.shutdown().await.unwrap();
    sound(&path).await;
}
