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

/// Id, parent, kind, status, whether it has an owner, whether it was delivered.
type OldRow = (u32, Option<u32>, &'static str, &'static str, bool, bool);

/// Rows of schema 2 in every state that can be open, and in those that have ended.
const OF_SCHEMA_2: &[OldRow] = &[
    (1, None, "frame", "suspended_waiting_child", false, false),
    (2, Some(1), "timer", "completed", false, true),
    (3, Some(1), "call", "pending", false, false),
    (4, Some(1), "call", "processing", true, false),
    (5, Some(1), "timer", "pending", false, false),
    (6, Some(1), "signal", "pending", false, false),
    (7, Some(1), "call", "blocked", false, false),
    (8, Some(1), "call", "cancelled", false, false),
    (9, Some(1), "frame", "pending_resume", true, false),
    (10, Some(9), "call", "failed", false, false),
    (11, Some(9), "call", "completed", false, false),
    (12, Some(9), "signal", "completed", false, true),
];

fn old_id(number: u32) -> String {
    format!("00000000-0000-7000-8000-{number:012}")
}

fn write_schema_2(path: &Path) {
    let conn = rusqlite::Connection::open(path).unwrap();
    let script = SqliteStorage::migration_sql();
    let until = script.find("-- Rows that cost less to write").unwrap();
    conn.execute_batch(&format!("{}COMMIT;", &script[..until]))
        .unwrap();
    let (run, live, gone) = (old_id(100), old_id(200), old_id(201));
    conn.execute_batch(&format!(
        "INSERT INTO task_runs (id, task, version, status, input, blocked_reason, request_hash, priority, run_at, created_at) \
         VALUES ('{run}', 'hello', 'v1', 'blocked', '1', '{{\"reason\":\"outcome_unknown\",\"service\":\"s\",\"path\":\"p\"}}', 'h', 0, 0, 0); \
         INSERT INTO workers VALUES ('{live}', 'w', 'live', 0, 1700000030000)"
    ))
    .unwrap();
    let (mut made, mut delivered) = ([0; 13], [0; 13]);
    for &(id, parent, kind, status, owned, is_delivered) in OF_SCHEMA_2 {
        let at = parent.unwrap_or(0) as usize;
        made[at] += 1;
        delivered[at] += i32::from(is_delivered);
        let settled = matches!(status, "completed" | "failed");
        let failure = r#"{"name":"Error","message":"no"}"#;
        let owner = if id == 4 { &gone } else { &live };
        conn.execute(
            "INSERT INTO stack_runs (no, id, task_run_id, parent_id, parent_no, kind, seq, depth, priority, status, owner, epoch, turn, \
             made_count, delivered_count, dropped_count, delivered_order, delivered_turn, attempt, in_doubt, due_at, ready_at, service, \
             path, args, outcome, blocked_reason, created_at, take_overs, policy) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, ?8, ?9, 1, ?10, 0, 0, 0, ?11, ?11, 0, 0, ?12, ?13, 's', 'p', '[1]', ?14, ?15, 7, 2, '{}')",
            rusqlite::params![
                id,
                old_id(id),
                run,
                parent.map(old_id),
                parent,
                kind,
                if parent.is_some() { made[at] } else { 0 },
                status,
                owned.then_some(owner),
                i64::from(kind == "frame"),
                is_delivered.then_some(1),
                (kind == "timer").then_some(1_700_000_000_500_i64),
                (kind == "call" && status == "pending").then_some(0),
                settled.then_some(if status == "failed" { failure } else { "[2]" }),
                (status == "blocked").then_some(r#"{"reason":"outcome_unknown","service":"s","path":"p"}"#),
            ],
        )
        .unwrap();
    }
    for frame in [1_usize, 9] {
        conn.execute(
            "UPDATE stack_runs SET made_count = ?2, delivered_count = ?3, dropped_count = ?4 WHERE no = ?1",
            (frame as i64, made[frame], delivered[frame], i64::from(frame == 1)),
        )
        .unwrap();
    }
}

/// Makes a file of schema 2 one of schema 3.
fn go_on_to_schema_3(path: &Path) {
    let script = SqliteStorage::migration_sql();
    let of_3 = script.find("-- Rows that cost less to write").unwrap();
    let of_4 = script.find("-- What the turns of a frame count").unwrap();
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.execute_batch(&format!("BEGIN; {} COMMIT;", &script[of_3..of_4]))
        .unwrap();
}

#[tokio::test]
async fn a_file_of_schema_2_keeps_every_row_and_goes_on() {
    let folder = Folder::new();
    write_schema_2(&folder.file());
    keeps_every_row_and_goes_on(&folder).await;
}

#[tokio::test]
async fn a_file_of_schema_3_keeps_every_row_and_goes_on() {
    let folder = Folder::new();
    write_schema_2(&folder.file());
    go_on_to_schema_3(&folder.file());
    keeps_every_row_and_goes_on(&folder).await;
}

async fn keeps_every_row_and_goes_on(folder: &Folder) {
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let broken = storage.audit().await.unwrap();
    let unknown_owner: Vec<_> = broken.iter().map(|broken| broken.invariant).collect();
    assert_eq!(unknown_owner, ["I8"], "{broken:?}");

    let run: TaskRunId = old_id(100).parse().unwrap();
    let rows = storage.stack_runs(run).await.unwrap();
    assert_eq!(rows.len(), OF_SCHEMA_2.len());
    let live: WorkerId = old_id(200).parse().unwrap();
    let gone: WorkerId = old_id(201).parse().unwrap();
    for &(id, parent, kind, status, owned, is_delivered) in OF_SCHEMA_2 {
        let row = rows
            .iter()
            .find(|row| row.id.to_string() == old_id(id))
            .unwrap();
        assert_eq!(
            row.parent.map(|parent| parent.to_string()),
            parent.map(old_id)
        );
        assert_eq!((row.kind.as_str(), row.status.as_str()), (kind, status));
        assert_eq!(
            row.owner,
            owned.then_some(if id == 4 { gone } else { live })
        );
        assert_eq!(row.delivered_order.is_some(), is_delivered);
        let made = OF_SCHEMA_2.iter().filter(|row| row.1 == Some(id));
        let delivered = made.clone().filter(|row| row.5).count();
        assert_eq!(row.turn.0, u32::from(kind == "frame"));
        assert_eq!(row.made_count as usize, made.count());
        assert_eq!(row.delivered_count as usize, delivered);
        assert_eq!((row.take_overs, row.created_at.as_millis()), (2, 7));
        assert_eq!(row.args.as_ref().unwrap().text(), "[1]");
        assert_eq!(row.policy.as_ref().unwrap().text(), "{}");
        assert_eq!(
            row.outcome.is_some(),
            matches!(status, "completed" | "failed")
        );
        assert_eq!(row.blocked.is_some(), status == "blocked");
    }

    let unread = storage.unread(
        rows.iter()
            .find(|row| row.id.to_string() == old_id(9))
            .unwrap()
            .id,
    );
    assert_eq!(unread.await.unwrap().len(), 2);
    let worker = live_worker(&storage).await;
    let reaped = storage.reap(worker, at(1), 10).await.unwrap();
    assert_eq!((reaped.frames, reaped.calls), (0, 1));
    assert_sound(&storage).await;
    assert_eq!(storage.fire_timers(at(600), 0, 10).await.unwrap(), 1);
    let signal = NewSignal {
        id: worker.as_uuid(),
        run,
        name: "p".to_owned(),
        payload: Json::null(),
    };
    assert!(storage.send_signal(signal, at(600)).await.unwrap());
    assert_sound(&storage).await;
    let frames = storage
        .claim_frames(Claim {
            now: at(700),
            ..claim(worker, 10)
        })
        .await
        .unwrap();
    assert_eq!(frames.len(), 1);
    assert_eq!(
        storage
            .load(frames[0].row.id)
            .await
            .unwrap()
            .unwrap()
            .children
            .len(),
        8
    );
    assert_eq!(storage.cancel(run, at(800)).await.unwrap(), Cancelled::Done);
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
                known: 4
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
        matches!(&error, StorageError::MigrationNeeded { found: 0, needed: 4, missing } if missing == "0001_first, 0002_calls, 0003_lean, 0004_counters"),
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
