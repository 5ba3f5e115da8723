//! What goes wrong with a file gives its own error, loses nothing, and is over when the cause is.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

mod support;

use std::time::Duration;

use support::*;
use tasker_adaptor::*;
use tasker_adaptor_sqlite::{SqliteStorage, rusqlite};

#[tokio::test]
async fn another_process_that_writes_too_long_gives_busy_and_then_it_goes_on() {
    let folder = Folder::new();
    let storage = SqliteStorage::options(folder.file())
        .busy_timeout(Duration::from_millis(20))
        .open()
        .await
        .unwrap();
    let other = rusqlite::Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = storage.submit(vec![new_run()], at(0)).await.unwrap_err();
    assert!(matches!(error, StorageError::Busy { .. }), "{error}");
    assert!(error.is_retryable());
    other.execute_batch("COMMIT").unwrap();
    assert!(storage.submit(vec![new_run()], at(0)).await.unwrap()[0].is_ok());
    assert_sound(&storage).await;
}

#[tokio::test]
async fn a_full_store_refuses_and_goes_on_when_there_is_room() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    storage.limit_pages(Some(1)).await.unwrap();
    let mut big = new_run();
    big.input = Json::parse(format!("\"{}\"", "x".repeat(200_000))).unwrap();
    let error = storage.submit(vec![big.clone()], at(0)).await.unwrap_err();
    assert!(
        matches!(&error, StorageError::Full { place, .. } if place.ends_with("tasker.db")),
        "{error}"
    );
    assert_eq!(storage.run(big.id).await.unwrap(), None);
    storage.limit_pages(None).await.unwrap();
    assert!(storage.submit(vec![big], at(0)).await.unwrap()[0].is_ok());
    assert_sound(&storage).await;
}

#[tokio::test]
async fn an_operation_that_fails_leaves_the_company_of_its_transaction_alone() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    // Several operations wait while the first one's transaction runs, so that they share the next.
    let worker = live_worker(&storage).await;
    let (frame, _) = waiting_run(&storage, worker).await;
    let twice = call(true);
    let mut bad = turn(&frame.row, worker, 1, FrameNext::Suspended);
    bad.made = vec![twice.clone(), twice];
    let good: Vec<_> = (0..50).map(|_| new_run()).collect();
    let submits = good
        .iter()
        .map(|run| storage.submit(vec![run.clone()], at(0)));
    let (refused, submitted) = futures::join!(
        storage.commit(vec![bad].into()),
        futures::future::join_all(submits)
    );
    assert!(
        matches!(refused, Err(StorageError::Misuse { .. })),
        "{refused:?}"
    );
    assert!(submitted.iter().all(Result::is_ok));
    for run in &good {
        assert!(storage.run(run.id).await.unwrap().is_some());
    }
    assert_sound(&storage).await;
}

#[tokio::test]
async fn a_store_opened_for_reading_reads_and_refuses_to_write() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let new = new_run();
    storage.submit(vec![new.clone()], at(0)).await.unwrap();
    let reading = SqliteStorage::options(folder.file())
        .read_only(true)
        .open()
        .await
        .unwrap();
    assert!(reading.run(new.id).await.unwrap().is_some());
    let error = reading.submit(vec![new_run()], at(0)).await.unwrap_err();
    assert!(matches!(error, StorageError::ReadOnly { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_database_is_refused_and_named() {
    let folder = Folder::new();
    std::fs::write(
        folder.file(),
        "this is a letter, not a database. ".repeat(200),
    )
    .unwrap();
    let error = SqliteStorage::open(folder.file()).await.unwrap_err();
    assert!(
        matches!(&error, StorageError::Corrupt { what, .. } if what.contains("tasker.db")),
        "{error}"
    );
    let error = SqliteStorage::open(folder.file().join("below"))
        .await
        .unwrap_err();
    assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_row_blocks_its_own_run_only() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let worker = live_worker(&storage).await;
    let runs: Vec<_> = (0..3).map(|_| new_run()).collect();
    storage.submit(runs.clone(), at(0)).await.unwrap();
    let other = rusqlite::Connection::open(folder.file()).unwrap();
    other
        .execute(
            "UPDATE task_runs SET labels = 'a secret: {' WHERE id = ?1",
            [runs[1].id.to_string()],
        )
        .unwrap();

    let frames = storage.claim_frames(claim(worker, 10)).await.unwrap();
    let claimed: Vec<_> = frames.iter().map(|frame| frame.row.task_run).collect();
    assert_eq!(claimed, [runs[0].id, runs[2].id]);
    let error = storage.run(runs[1].id).await.unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(&error, StorageError::Corrupt { task_run, .. } if *task_run == Some(runs[1].id)),
        "{text}"
    );
    assert!(
        text.contains("task_runs.labels") && text.contains(&runs[1].id.to_string()),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
    let root = storage.stack_run(runs[1].root).await.unwrap().unwrap();
    assert_eq!(root.status, StackStatus::Blocked);
    assert!(matches!(root.blocked, Some(BlockedReason::Corrupt { .. })));
    assert_sound(&storage).await;

    other
        .execute(
            "UPDATE task_runs SET labels = NULL WHERE id = ?1",
            [runs[1].id.to_string()],
        )
        .unwrap();
    let unblock = Unblock {
        run: runs[1].id,
        row: None,
        decision: UnblockDecision::Retry,
        now: at(20),
    };
    assert_eq!(storage.unblock(unblock).await.unwrap(), 1);
    let again = storage
        .claim_frames(Claim {
            now: at(20),
            ..claim(worker, 10)
        })
        .await
        .unwrap();
    assert_eq!(again.len(), 1);
    assert_sound(&storage).await;
}

#[tokio::test]
async fn a_commit_of_another_connection_is_hinted() {
    use futures::StreamExt as _;

    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let mut hints = storage.watch();
    // The first look says `Any`, for what may have come between.
    let first = tokio::time::timeout(Duration::from_mins(3), hints.next()).await;
    assert_eq!(first.unwrap(), Some(Hint::Any));
    let mut other = rusqlite::Connection::open(folder.file()).unwrap();
    let transaction = other.transaction().unwrap();
    let new = new_run();
    let submitted = SqliteStorage::submit_in(&transaction, new.clone(), at(0)).unwrap();
    assert!(submitted.created);
    transaction.commit().unwrap();
    let next = tokio::time::timeout(Duration::from_mins(3), hints.next()).await;
    assert_eq!(next.unwrap(), Some(Hint::Any));
    storage.submit(vec![new_run()], at(0)).await.unwrap();
    let own = tokio::time::timeout(Duration::from_mins(3), hints.next()).await;
    assert_eq!(own.unwrap(), Some(Hint::Work));
    drop(storage);
    let end = tokio::time::timeout(Duration::from_mins(3), hints.next()).await;
    assert_eq!(end.unwrap(), None);
}

#[tokio::test]
async fn a_frame_without_counters_is_named_by_the_audit_and_blocks_its_own_run_only() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let worker = live_worker(&storage).await;
    let submitted = storage.submit(vec![new_run(), new_run()], at(0)).await;
    let runs: Vec<TaskRunId> = submitted
        .unwrap()
        .into_iter()
        .map(|run| run.unwrap().id)
        .collect();
    assert_sound(&storage).await;
    let other = rusqlite::Connection::open(folder.file()).unwrap();
    other
        .execute("UPDATE frame_counters SET no = 1000 WHERE no = 1", [])
        .unwrap();
    let rows = storage.stack_runs(runs[1]).await.unwrap();
    assert_eq!(rows.len(), 1, "the other one is as it was");
    let broken = storage.audit().await.unwrap();
    let broken: Vec<_> = broken
        .iter()
        .map(|broken| (broken.invariant, broken.id.contains("no 1000")))
        .collect();
    assert_eq!(broken, [("counters", false), ("counters", true)]);

    let claimed = storage.claim_frames(claim(worker, 10)).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].row.task_run, runs[1]);
    let blocked = storage.run(runs[0]).await.unwrap().unwrap();
    assert_eq!(blocked.status, RunStatus::Blocked);
    assert!(
        matches!(&blocked.blocked, Some(BlockedReason::Corrupt { what }) if what.contains("stack_runs.turn")),
        "{:?}",
        blocked.blocked
    );
}

#[tokio::test]
async fn a_wrapped_store_says_too_that_one_writer_does_all() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    assert!(storage.has_one_writer());
    assert!(!MemoryStorage::new().has_one_writer());
    assert!(FaultStorage::over(std::sync::Arc::new(storage)).has_one_writer());
}
