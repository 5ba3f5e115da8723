//! `parked_disk`, `parked_memory`, `parked_speed`: what runs cost that wait in the file, and what they cost others.

use std::path::Path;

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::wall::Wall;
use tasker_core::{Engine, RunFilter, RunStatus};
use tokio::sync::OnceCell;

use super::{Problem, Size};
use crate::clock::{Stopwatch, resident_bytes};
use crate::figure::{Figure, Goal};

const SUBMITTERS: usize = 256;
const WAITS: &str = "module.exports = async function wait(input, { tools }) { await tools.sleep(3_600_000); return 1; }";
const WAKES: &str =
    "module.exports = async function wake(input, { tools }) { await tools.sleep(1); return 1; }";

/// What was seen, once for all three figures.
struct Seen {
    runs: u32,
    disk: f64,
    memory: f64,
    /// Seconds for a thousand short runs with few and with many parked ones.
    few: f64,
    many: f64,
}

static SEEN: OnceCell<Seen> = OnceCell::const_new();

async fn seen(size: Size) -> Result<&'static Seen, Problem> {
    let (runs, short) = match size {
        Size::Full => (1_000_000, 20_000),
        Size::Quick => (100_000, 2_000),
    };
    SEEN.get_or_try_init(|| park(runs, short)).await
}

async fn park(runs: u32, short: u32) -> Result<Seen, Problem> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("engine.db");
    let engine = Engine::builder()
        .storage(SqliteStorage::open(&path).await?)
        .wall(Wall::in_process())
        .start()
        .await?;
    engine.publish(WAITS).await?;
    engine.publish(WAKES).await?;
    submit(&engine, "wait", 1_000).await?;
    settled(&engine).await?;
    let few = speed(&engine, short).await?;
    let before = (file_bytes(&path)?, resident_bytes());
    submit(&engine, "wait", runs).await?;
    settled(&engine).await?;
    let memory = resident_bytes().saturating_sub(before.1) as f64 / f64::from(runs);
    let disk = file_bytes(&path)?.saturating_sub(before.0) as f64 / f64::from(runs);
    let many = speed(&engine, short).await?;
    engine.shutdown().await?;
    Ok(Seen {
        runs,
        disk,
        memory,
        few,
        many,
    })
}

/// Size of a database with all that was committed in it, and not in the log beside it.
fn file_bytes(path: &Path) -> Result<u64, Problem> {
    let connection = rusqlite::Connection::open(path)?;
    connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))?;
    Ok(std::fs::metadata(path)?.len())
}

async fn submit(engine: &Engine, task: &str, runs: u32) -> Result<(), Problem> {
    stream::iter(0..runs)
        .map(|_| async { engine.submit(task, &json!({})).await.map(drop) })
        .buffer_unordered(SUBMITTERS)
        .try_collect::<()>()
        .await?;
    Ok(())
}

/// Waits until no run is queued or under way.
async fn settled(engine: &Engine) -> Result<(), Problem> {
    for status in [RunStatus::Queued, RunStatus::Processing] {
        let filter = RunFilter {
            statuses: vec![status],
            ..RunFilter::default()
        };
        while !engine.runs(&filter, 1).await?.runs.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

/// Seconds for so many short runs, each of which waits once.
async fn speed(engine: &Engine, runs: u32) -> Result<f64, Problem> {
    let watch = Stopwatch::start();
    stream::iter(0..runs)
        .map(|_| async { engine.submit("wake", &json!({})).await })
        .buffer_unordered(SUBMITTERS)
        .map_err(Problem::from)
        .try_for_each_concurrent(None, |handle| async move {
            handle.outcome().await?;
            Ok(())
        })
        .await?;
    Ok(watch.seconds())
}

/// `parked_disk`: bytes in the file for each parked run.
pub async fn parked_disk(size: Size) -> Result<Figure, Problem> {
    let seen = seen(size).await?;
    Ok(Figure::new(
        "parked_disk",
        (seen.disk, "B/run"),
        0.0,
        Goal::Below(1_228.8, "at most 1.2 KB a run"),
        format!("{} parked runs", seen.runs),
    ))
}

/// `parked_memory`: memory of the process for each parked run.
pub async fn parked_memory(size: Size) -> Result<Figure, Problem> {
    let seen = seen(size).await?;
    Ok(Figure::new(
        "parked_memory",
        (seen.memory, "B/run"),
        0.0,
        Goal::Below(100.0, "under 100 bytes a run"),
        format!("{} parked runs, allocator and caches included", seen.runs),
    ))
}

/// `parked_speed`: short runs beside many parked ones, and beside 1,000.
pub async fn parked_speed(size: Size) -> Result<Figure, Problem> {
    let seen = seen(size).await?;
    Ok(Figure::new(
        "parked_speed",
        (seen.many, "s"),
        seen.few,
        Goal::AtMost(2.0, "at most 2 times as slow as with 1,000"),
        format!("{} parked runs", seen.runs),
    ))
}
