//! `waiting`: memory with many runs that sleep.

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::{Engine, RunFilter, RunStatus};

use super::{Problem, Size};
use crate::clock::{Stopwatch, resident_bytes};
use crate::figure::{Figure, Goal};

const SUBMITTERS: usize = 256;
/// No machine needs longer for the first turns of all runs.
const PATIENCE_SECONDS: f64 = 900.0;

/// 100,000 submitted runs that have begun and wait for a timer of one hour.
pub async fn waiting(size: Size) -> Result<Figure, Problem> {
    let runs = size.of(100_000);
    let folder = tempfile::tempdir()?;
    let engine = Engine::builder()
        .storage(SqliteStorage::open(folder.path().join("engine.db")).await?)
        .start()
        .await?;
    engine
        .publish("module.exports = async function wait(input, { tools }) { await tools.sleep(3_600_000); return 1; }")
        .await?;
    let watch = Stopwatch::start();
    stream::iter(0..runs)
        .map(|_| async { engine.submit("wait", &json!({})).await.map(drop) })
        .buffer_unordered(SUBMITTERS)
        .try_collect::<()>()
        .await?;
    let submitted = watch.seconds();
    let mut most = resident_bytes();
    // Runs that have not had their turn are `queued`; the ones whose VM is still there are `processing`.
    for status in [RunStatus::Queued, RunStatus::Processing] {
        let filter = RunFilter {
            statuses: vec![status],
            ..RunFilter::default()
        };
        while !engine.runs(&filter, 1).await?.runs.is_empty() {
            if watch.seconds() > PATIENCE_SECONDS {
                return Err(format!("runs are still {status} after {PATIENCE_SECONDS} s").into());
            }
            most = most.max(resident_bytes());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    let suspended = watch.seconds();
    most = most.max(resident_bytes());
    let now = resident_bytes();
    engine.shutdown().await?;
    Ok(Figure::new(
        "waiting",
        (now as f64 / 1e6, "MB"),
        0.0,
        Goal::Below(200.0, "under 200 MB"),
        format!(
            "{runs} runs submitted in {submitted:.1} s and suspended after {suspended:.1} s; {:.0} MB at most",
            most as f64 / 1e6
        ),
    ))
}
