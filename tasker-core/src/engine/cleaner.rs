//! After the end: folds the call tree of ended runs into one record, deletes their rows, then the runs themselves when their time
//! is over, and gives the space back; all in bounded batches. While runs are under way it leaves what has just ended alone: a rush has
//! the disk to itself, and what it leaves is cleaned after it.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::core::Shared;
use super::error::EngineError;
use super::trace;
use tasker_adaptor::{Retention, RunStatus, TaskRunId};

/// How long after its end a run is left alone while others are under way, in milliseconds.
const RUSH_MS: i64 = 10_000;
/// Runs folded in one round.
const RUNS: usize = 200;
/// Runs folded at one time, which share commits.
const FOLDS: usize = 16;
/// Rows deleted in one round.
const ROWS: usize = 5_000;
/// Free space that the database keeps for the next runs, in bytes.
const KEEP_FREE: u64 = 16 << 20;
/// Runs deleted in one round.
const ENDED: usize = 500;

/// Starts the cleaner of an engine.
pub(crate) fn start(shared: &Arc<Shared>) {
    let every = shared.options.clean_every_ms;
    if every == 0 {
        return;
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = shared.clock.sleep(every) => {}
                () = shared.stop.cancelled() => return,
            }
            // While there is much to do there is no pause but the one that lets others write.
            loop {
                match clean(&shared).await {
                    Ok(more) if more && !shared.stop.is_cancelled() => {
                        tokio::task::yield_now().await;
                    }
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%error, "cleaning failed; it is tried again");
                        break;
                    }
                }
            }
        }
    });
}

/// One round; whether there is more to do.
pub(crate) async fn clean(shared: &Shared) -> Result<bool, EngineError> {
    let now = shared.clock.now();
    let rush = if shared.hub.counts.is_busy() {
        RUSH_MS
    } else {
        0
    };
    let ended_before = |keep: u64| {
        let keep = i64::try_from(keep).unwrap_or(i64::MAX).max(rush);
        now.plus_millis(1 - keep)
    };
    let foldable = ended_before(shared.options.keep_rows_ms);
    let runs = shared.storage.foldable(foldable, RUNS).await?;
    let more = runs.len() == RUNS;
    stream::iter(runs)
        .map(|run| fold(shared, run))
        .buffer_unordered(FOLDS)
        .try_collect::<()>()
        .await?;
    let rows = shared.storage.delete_folded_rows(ROWS).await?;
    let mut more = more || rows == ROWS;
    for (status, keep) in &shared.options.keep_runs {
        let deleted = shared
            .storage
            .delete_runs(&Retention {
                statuses: vec![*status],
                ended_before: ended_before(*keep),
                max: ENDED,
            })
            .await?;
        more |= deleted == ENDED;
    }
    // Free space is used again by the next runs; only what a past rush has left goes back.
    if !more {
        more = shared.storage.compact(KEEP_FREE).await?;
    }
    Ok(more)
}

async fn fold(shared: &Shared, id: TaskRunId) -> Result<(), EngineError> {
    let Some(run) = shared.storage.run(id).await? else {
        return Ok(());
    };
    let rows = shared.storage.stack_runs(id).await?;
    // What went wrong keeps its arguments and results.
    let payloads = run.status != RunStatus::Completed;
    let record = match trace::tree(&rows, payloads) {
        Some(root) => trace::pack(&root)?,
        None => Vec::new(),
    };
    shared.storage.fold(id, record, shared.clock.now()).await?;
    Ok(())
}
