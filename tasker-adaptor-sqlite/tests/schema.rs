//! Files of every schema: older ones open, newer ones are refused untouched.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

mod support;

use std::path::{Path, PathBuf};

use support::*;
use tasker_adaptor::*;
use tasker_adaptor_sqlite::{SqliteStorage, rusqlite};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schema_1.db")
}

/// Writes the fixture of the newest schema anew; run by hand, once, when a schema is released.
#[tokio::test]
#[ignore = "writes a fixture: run it once for each released schema, under a new name"]
async fn write_fixture() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let worker = live_worker(&storage).await;
    waiting_run(&storage, worker).await;
    drop(storage);
    std::fs::copy(folder.file(), fixture()).unwrap();
}

#[tokio::test]
async fn a_file_of_schema_1_opens_and_its_run_goes_on() {
    let folder = Folder::new();
    std::fs::copy(fixture(), folder.file()).unwrap();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    assert_sound(&storage).await;
    let run = storage.runs(&RunFilter::default(), 10).await.unwrap().runs[0].clone();
    assert_eq!(run.status, RunStatus::Processing);

    let worker = live_worker(&storage).await;
    let reaped = storage.reap(worker, at(1_000_000), 10).await.unwrap();
    assert_eq!((reaped.frames, reaped.calls), (1, 1));
    let calls = storage
        .claim_calls(Claim {
            now: at(1_000_001),
            ..claim(worker, 10)
        })
        .await
        .unwrap();
    assert_eq!(calls.len(), 1);
    assert!(calls[0].row.in_doubt);
    assert_sound(&storage).await;
}

#[tokio::test]
async fn a_file_of_a_newer_schema_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    drop(SqliteStorage::open(folder.file()).await.unwrap());
    let conn = rusqlite::Connection::open(folder.file()).unwrap();
    conn.execute_batch("INSERT INTO tasker_schema VALUES (99, '0099_later', 0)")
        .unwrap();
    drop(conn);
    let before = std::fs::read(folder.file()).unwrap();

    let error = SqliteStorage::open(folder.file()).await.unwrap_err();
    assert!(
        matches!(
            error,
            StorageError::NewerSchema {
                found: 99,
                known: 2
            }
        ),
        "{error}"
    );
    assert_eq!(std::fs::read(folder.file()).unwrap(), before);
}

#[tokio::test]
async fn without_leave_to_migrate_an_empty_file_is_refused_and_the_script_mends_it() {
    let folder = Folder::new();
    std::fs::write(folder.file(), []).unwrap();
    let open = || SqliteStorage::options(folder.file()).migrate(false).open();
    let error = open().await.unwrap_err();
    assert!(
        matches!(&error, StorageError::MigrationNeeded { found: 0, needed: 2, missing } if missing == "0001_first, 0002_calls"),
        "{error}"
    );
    assert_eq!(std::fs::metadata(folder.file()).unwrap().len(), 0);

    let conn = rusqlite::Connection::open(folder.file()).unwrap();
    conn.execute_batch(&SqliteStorage::migration_sql()).unwrap();
    drop(conn);
    let storage = open().await.unwrap();
    let worker = live_worker(&storage).await;
    waiting_run(&storage, worker).await;
    assert_sound(&storage).await;
}

#[tokio::test]
async fn what_names_no_file_is_refused() {
    for path in ["", ":memory:", "file:x?mode=memory"] {
        let error = SqliteStorage::open(path).await.unwrap_err();
        assert!(matches!(error, StorageError::Misuse { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_parked_run_with_a_timer_takes_less_than_1200_bytes() {
    const RUNS: usize = 2_000;
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let worker = live_worker(&storage).await;
    let runs = (0..RUNS).map(|_| new_run()).collect();
    storage.submit(runs, at(0)).await.unwrap();
    let frames = storage.claim_frames(claim(worker, RUNS)).await.unwrap();
    let turns: Vec<TurnCommit> = frames
        .iter()
        .map(|frame| {
            let mut turn = turn(&frame.row, worker, 0, FrameNext::Suspended);
            turn.made.push(NewStackRun {
                id: row_id(),
                kind: MadeKind::Timer {
                    path: "sleep".to_owned(),
                    args: Json::parse("3600000").unwrap(),
                    due_at: at(3_600_000),
                },
                claimed: false,
            });
            turn
        })
        .collect();
    storage.commit(turns.into()).await.unwrap();
    let held: Vec<_> = frames
        .iter()
        .map(|frame| {
            let epoch = frame.row.epoch;
            (frame.row.id, Lease { worker, epoch })
        })
        .collect();
    storage.release_frames(&held, at(30)).await.unwrap();
    assert_eq!(storage.next_due().await.unwrap(), Some(at(3_600_000)));
    drop(storage);
    let bytes = std::fs::metadata(folder.file()).unwrap().len() as usize;
    assert!(bytes / RUNS <= 1_200, "{} bytes a run", bytes / RUNS);
}
