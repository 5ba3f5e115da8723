//! `hot_memory`: what frames take that wait with their VM in memory.

use std::process::Stdio;

use futures::future::try_join_all;
use serde_json::json;
use tokio::process::Command;

use super::vm::engine;
use super::{Problem, Size};
use crate::clock::resident_bytes;
use crate::figure::{Figure, Goal};

/// The hidden argument of the report binary that makes it a process of frames: how many, and their budget in MiB.
const FRAMES: &str = "--frames";

/// Enough that nothing is parked.
const NO_BUDGET_MB: usize = 1 << 20;
const BUDGET_MB: usize = 256;

/// KB a frame, and whether many more frames than fit into a budget stay within it: each in a process of its own.
pub async fn hot_memory(size: Size) -> Result<Figure, Problem> {
    let (few, many) = (size.of(2_000), size.of(10_000));
    let each = process(few, NO_BUDGET_MB).await? as f64 / f64::from(few) / 1_024.0;
    // Where nothing is hot, what is left is rows in memory and what the engine knows of calls that wait.
    let rest = process(many, 1).await?;
    let budget_mb = size.of(BUDGET_MB as u32) as usize;
    let in_budget = process(many, budget_mb).await?;
    let mib = |bytes: u64| bytes >> 20;
    Ok(Figure::new(
        "hot_memory",
        (each, "KB/frame"),
        0.0,
        Goal::Below(256.0, "at most 256 KB a frame, and the budget respected"),
        format!("{few} frames that wait for a service"),
    )
    .only_if(
        mib(in_budget.saturating_sub(rest)) as usize <= budget_mb,
        &format!(
            "{many} under way with a budget of {budget_mb} MiB: {} MiB, {} of them without a budget to speak of",
            mib(in_budget),
            mib(rest)
        ),
    ))
}

/// Bytes that so many frames take.
async fn process(frames: u32, budget_mb: usize) -> Result<u64, Problem> {
    let child = Command::new(std::env::current_exe()?)
        .args([FRAMES, &frames.to_string(), &budget_mb.to_string()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8(child.stdout)?;
    let bytes = said.trim().parse();
    bytes.map_err(|_| format!("the process of frames said {said:?}").into())
}

/// What the process of [`hot_memory`] does: prints what its frames take, in bytes.
pub async fn frames(count: u32, budget_mb: usize) -> Result<(), Problem> {
    let (engine, mut asked) = engine(false, budget_mb).await?;
    let mut next = async || asked.recv().await.ok_or("the service is gone");
    engine.submit("asks", &json!({})).await?;
    next().await?;
    let before = resident_bytes();
    try_join_all((0..count).map(|_| async { engine.submit("asks", &json!({})).await })).await?;
    for _ in 0..count {
        next().await?;
    }
    println!("{}", resident_bytes().saturating_sub(before));
    engine.abandon();
    Ok(())
}
