//! `--watch`: tasks are published again as their files change.
//!
//! The folder is looked at, not listened to: that works on every file system. A change counts once the folder has been still
//! for one look, so that a file that is being written is not read half.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tasker_core::Engine;
use tokio_util::sync::CancellationToken;

use crate::command::Here;
use crate::command::publish::publish_changes;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Files that are looked at, at most.
const FILES: usize = 10_000;

/// A file as it was.
type Seen = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// Publishes the folder now, and again at each change until `stop`. What cannot be published is said, and the rest goes on.
pub(super) async fn watch(here: Here, engine: Engine, stop: CancellationToken) {
    let dir = here.config.tasks_dir();
    let mut published: Option<Seen> = None;
    let mut before = Seen::new();
    loop {
        let looked_at = dir.clone();
        let now = tokio::task::spawn_blocking(move || look(&looked_at));
        let now = now.await.unwrap_or_default();
        let still = now == before;
        if published.is_none() || (still && published.as_ref() != Some(&now)) {
            published = Some(now.clone());
            publish(&here, &engine).await;
        }
        before = now;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn publish(here: &Here, engine: &Engine) {
    match publish_changes(here, engine).await {
        Ok(changed) => {
            for (task, state) in changed {
                tracing::info!(task, state, "a task was published");
            }
        }
        Err(error) => {
            tracing::warn!("nothing was published: {error}");
        }
    }
}

/// Every file below a folder.
fn look(dir: &Path) -> Seen {
    let mut seen = Seen::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        // What cannot be read is as if it were not there; publishing says why.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if seen.len() < FILES {
                let facts = entry.metadata().ok();
                let length = facts.as_ref().map_or(0, std::fs::Metadata::len);
                let time = facts.and_then(|facts| facts.modified().ok());
                seen.push((entry.path(), time, length));
            }
        }
    }
    seen.sort();
    seen
}
