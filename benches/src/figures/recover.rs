//! `recover_5k`: a run with 5,000 recorded calls is taken up by a fresh process.

use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::wall::Wall;
use tasker_core::{Engine, RunFilter, ServiceCall, ServiceError, service_fn};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

use super::{Problem, Size};
use crate::clock::Stopwatch;
use crate::figure::{Figure, Goal, median};

const LONG: &str = "module.exports = async function long({ calls }, { tools }) {
    let n = 0;
    for (let i = 0; i < calls; i++) n = (await tools.bench.step({ n: i, text: 'a step of a chain' })).n;
    await tools.bench.last();
    await tools.bench.after();
    return n;
}";

/// Processor microseconds that the goal allows a replayed call.
const REPLAY_US: f64 = 3.0;

/// An engine that says when this method is asked, which is never answered.
async fn engine(
    path: &Path,
    held: &'static str,
) -> Result<(Engine, mpsc::UnboundedReceiver<()>), Problem> {
    let (asked, inbox) = mpsc::unbounded_channel();
    let engine = Engine::builder()
        .storage(SqliteStorage::open(path).await?)
        .wall(Wall::in_process())
        .service(service_fn("bench", move |call: ServiceCall| {
            let asked = asked.clone();
            async move {
                if call.method() == held {
                    let _ = asked.send(());
                    call.cancellation.cancelled().await;
                    return Err(ServiceError::external("the engine stops"));
                }
                Ok(call.args().first().cloned().unwrap_or_default())
            }
        }))
        .start()
        .await?;
    Ok((engine, inbox))
}

/// From the start of the process to the first new call, beside a process that reads the rows with bare rusqlite, and 3 µs a call.
pub async fn recover_5k(size: Size) -> Result<Figure, Problem> {
    let calls = size.of(5_000);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("engine.db");
    let (first, mut asked) = engine(&path, "last").await?;
    first.publish(LONG).await?;
    first.submit("long", &json!({ "calls": calls })).await?;
    asked.recv().await.ok_or("the service is gone")?;
    first.shutdown_within(100).await?;
    drop(first);
    // The file alone is copied: nothing of it may be left in its log, whoever still holds it open.
    let busy: u32 = rusqlite::Connection::open(&path)?.query_row(
        "PRAGMA wal_checkpoint(TRUNCATE)",
        [],
        |row| row.get(0),
    )?;
    if busy != 0 {
        return Err("the log of the first engine could not be copied back".into());
    }
    let (mut values, mut floors) = (Vec::new(), Vec::new());
    for round in 0..size.rounds() {
        // Each takes up a copy of the file as the first engine has left it.
        let copy = folder.path().join(format!("copy_{round}.db"));
        std::fs::copy(&path, &copy)?;
        floors.push(child("--read-rows", &copy).await? + f64::from(calls) * REPLAY_US / 1e3);
        values.push(child("--recover", &copy).await?);
    }
    Ok(Figure::new(
        "recover_5k",
        (median(values), "ms"),
        median(floors),
        Goal::AtMost(2.0, "at most 2 times process start + rows + 3 us a call"),
        format!("{calls} recorded calls"),
    ))
}

/// Milliseconds from starting this program with `argument` to its first line.
async fn child(argument: &str, path: &Path) -> Result<f64, Problem> {
    let watch = Stopwatch::start();
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .arg(argument)
        .arg(path)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let out = child.stdout.take().ok_or("a child without output")?;
    let line = BufReader::new(out).lines().next_line().await?;
    let millis = watch.seconds() * 1e3;
    child.kill().await?;
    line.ok_or("the child said nothing")?;
    Ok(millis)
}

/// What the child of [`recover_5k`] does: takes the run up (its last call is answered now), and says so at its first new call.
pub async fn recover(path: &Path) -> Result<(), Problem> {
    let (engine, mut asked) = engine(path, "after").await?;
    asked.recv().await.ok_or("the service is gone")?;
    println!("asked");
    engine.runs(&RunFilter::default(), 1).await?;
    std::future::pending().await
}

/// What the floor's child does: reads all rows.
pub async fn read_rows(path: &Path) -> Result<(), Problem> {
    let db = rusqlite::Connection::open(path)?;
    let mut bytes = 0;
    for table in ["task_runs", "stack_runs"] {
        let mut rows = db.prepare(&format!("SELECT * FROM {table}"))?;
        let columns = rows.column_count();
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                bytes += row.get_ref(column)?.as_str().map_or(8, str::len);
            }
        }
    }
    println!("{bytes}");
    std::future::pending().await
}
