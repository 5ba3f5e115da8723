//! Commits of other connections are seen, whether there is work or rest.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

mod support;

use std::time::Duration;

use futures::StreamExt as _;
use support::*;
use tasker_adaptor::*;
use tasker_adaptor_sqlite::SqliteStorage;
use tokio::time::timeout;

/// Longer than a writer looks often after the last write.
const REST: Duration = Duration::from_millis(1_500);
/// Far longer than any look is away.
const PATIENCE: Duration = Duration::from_mins(3);

#[tokio::test]
async fn at_rest_the_commits_of_others_are_seen_and_heartbeats_are_not_taken_for_them() {
    let folder = Folder::new();
    let storage = SqliteStorage::options(folder.file())
        .watch_interval(Duration::from_millis(2))
        .open()
        .await
        .unwrap();
    let worker = live_worker(&storage).await;
    let other = rusqlite::Connection::open(folder.file()).unwrap();
    other
        .execute_batch("CREATE TABLE others (x INTEGER)")
        .unwrap();
    let mut hints = storage.watch();
    for round in 0..4 {
        // What was seen late is taken; then nobody writes but the heartbeat, and nobody is told anything. What this machine lets be seen
        // even later is no hint at the heartbeat, which there would be each time.
        for chance in 1.. {
            while timeout(REST, hints.next()).await.is_ok() {}
            assert!(storage.heartbeat(worker, at(5), 1_000_000).await.unwrap());
            if timeout(REST / 5, hints.next()).await.is_err() {
                break;
            }
            assert!(
                chance < 5,
                "round {round}: a hint without a commit of others, again and again"
            );
        }
        other
            .execute("INSERT INTO others VALUES (?1)", [round])
            .unwrap();
        let hint = timeout(PATIENCE, hints.next()).await;
        assert!(
            matches!(hint, Ok(Some(Hint::Any))),
            "round {round}: {hint:?} instead of a hint"
        );
    }
}
