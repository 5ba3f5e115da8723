//! Who has which row, and what a turn costs the indexes.

use std::sync::Arc;

use tasker_adaptor::{
    BlockedReason, Epoch, FrameNext, Journal as _, Lease, Queue as _, StackKind, StackRunId,
    StackStatus, WorkerId, Workers as _,
};
use tasker_adaptor_postgres::PostgresStorage;

use crate::kit::{
    Held, NOW, TestSchema, assert_sound, begin, call, commit_one, connect, local, turn, until,
    worker,
};

/// What becomes of a frame whose call is under way.
#[derive(Clone, Copy, Debug)]
enum Frame {
    Hot,
    Parked,
    Reloaded,
    Ended,
    Blocked,
    Freed,
}

/// A frame that made a call, which its owner asks.
async fn with_call(storage: &PostgresStorage, worker: WorkerId) -> (Held, StackRunId) {
    let mut held = begin(storage, worker).await;
    let made = call(true);
    let id = made.id;
    commit_one(storage, turn(held, vec![made]))
        .await
        .unwrap()
        .unwrap();
    held.turn = held.turn.next();
    (held, id)
}

async fn let_go(storage: &PostgresStorage, held: Held, how: Frame) {
    let next = match how {
        Frame::Hot | Frame::Freed => return,
        Frame::Parked => {
            let frames = [(held.frame, held.lease)];
            storage.release_frames(&frames, NOW).await.unwrap()[0].unwrap();
            return;
        }
        Frame::Reloaded => {
            let worker = held.lease.worker;
            let claimed = storage.reload_frame(held.frame, worker, NOW).await.unwrap();
            assert!(claimed.is_none(), "it has nothing to do and is parked");
            return;
        }
        Frame::Ended => FrameNext::Completed(None),
        Frame::Blocked => FrameNext::Blocked(BlockedReason::OutcomeUnknown {
            service: "s".into(),
            path: "p".into(),
        }),
    };
    let mut last = turn(held, Vec::new());
    last.next = next;
    commit_one(storage, last).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_is_found_when_its_asker_dies_whatever_became_of_its_frame() {
    for how in [
        Frame::Hot,
        Frame::Parked,
        Frame::Reloaded,
        Frame::Ended,
        Frame::Blocked,
        Frame::Freed,
    ] {
        let schema = TestSchema::new();
        let storage = schema.storage().await;
        let (doomed, reaper) = (worker(&storage).await, worker(&storage).await);
        let (held, call) = with_call(&storage, doomed).await;
        let_go(&storage, held, how).await;
        let owned = storage.owned(doomed, false).await.unwrap();
        let calls: Vec<_> = owned
            .iter()
            .filter(|row| row.kind == StackKind::Call)
            .map(|row| row.id)
            .collect();
        assert_eq!(calls, [call], "{how:?}");
        let late = NOW.plus_millis(61_000);
        storage.heartbeat(reaper, late, 60_000).await.unwrap();
        if matches!(how, Frame::Freed) {
            // One row a time: the frame first, its call by itself.
            assert!(storage.reap(reaper, late, 1).await.unwrap().more);
        }
        let reaped = storage.reap(reaper, late, 10).await.unwrap();
        assert_eq!((reaped.calls, reaped.more), (1, false), "{how:?}");
        let row = storage.stack_run(call).await.unwrap().unwrap();
        assert_eq!(
            (row.status, row.owner, row.in_doubt),
            (StackStatus::Pending, None, true),
            "{how:?}"
        );
        assert!(storage.owned(doomed, false).await.unwrap().is_empty());
        assert_sound(&storage).await;
    }
}

#[tokio::test]
async fn a_call_that_changes_hands_is_its_new_owners_alone() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let (first, second) = (worker(&storage).await, worker(&storage).await);
    let (_, call) = with_call(&storage, first).await;
    let released = tasker_adaptor::ReleasedCall {
        call,
        lease: Lease {
            worker: first,
            epoch: Epoch(1),
        },
        asked: false,
    };
    storage.release_calls(&[released], NOW).await.unwrap()[0].unwrap();
    let claimed = storage
        .claim_calls(crate::kit::claim(second, 10))
        .await
        .unwrap();
    assert_eq!(claimed.len(), 1);
    let owned = async |worker| -> Vec<StackRunId> {
        let rows = storage.owned(worker, false).await.unwrap();
        rows.iter().map(|row| row.id).collect()
    };
    assert!(!owned(first).await.contains(&call));
    assert_eq!(owned(second).await, [call]);
    let late = NOW.plus_millis(61_000);
    storage.heartbeat(first, late, 60_000).await.unwrap();
    let reaped = storage.reap(first, late, 10).await.unwrap();
    assert_eq!((reaped.frames, reaped.calls), (0, 1));
}

/// What a turn writes into rows that are there, and no index may name.
const WRITTEN: &str = "status owner epoch turn made_count delivered_count delivered_order delivered_turn delivered_at attempt in_doubt ready_at outcome started_at settled_at";

#[tokio::test]
async fn the_turns_of_a_chain_write_no_index_but_for_the_calls_that_they_make() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let client = schema.client().await;
    let named = client
        .query(
            "SELECT a.attname::text, d.objid::regclass::text FROM pg_depend d JOIN pg_index i ON i.indexrelid = d.objid \
             JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
             WHERE i.indrelid = 'stack_runs'::regclass AND d.refobjid = i.indrelid AND d.classid = 'pg_class'::regclass",
            &[],
        )
        .await
        .unwrap();
    assert!(!named.is_empty());
    for row in named {
        let (column, index): (String, String) = (row.get(0), row.get(1));
        assert!(
            !WRITTEN.split(' ').any(|written| written == column),
            "{index} names {column}"
        );
    }
    let worker = worker(&storage).await;
    let mut held = begin(&storage, worker).await;
    let mut answered = None;
    for seq in 1..=5 {
        let made = call(true);
        let mut next = turn(held, vec![made.clone()]);
        next.delivered = answered
            .replace(made.id)
            .map(|id| local(id, seq - 1))
            .into_iter()
            .collect();
        commit_one(&storage, next).await.unwrap().unwrap();
        held.turn = held.turn.next();
    }
    // A connection says what it did when it ends.
    drop(storage);
    let counts = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'stack_runs'::regclass";
    until("the server has counted", async || {
        let row = client.query_one(counts, &[]).await.unwrap();
        row.get::<_, i64>(0) >= 10
    })
    .await;
    let row = client.query_one(counts, &[]).await.unwrap();
    let (updates, hot): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!((updates, hot), (10, 9), "all but the claim");
}

#[tokio::test]
async fn rows_of_an_older_schema_are_found_after_the_migration() {
    let schema = TestSchema::new();
    let client = connect(&schema.url).await;
    let name = &schema.name;
    let old = concat!(
        include_str!("../../migrations/0001_first.sql"),
        include_str!("../../migrations/0002_calls.sql")
    )
    .replace("tasker.", &format!("{name}."));
    let rows = "
        CREATE TABLE tasker_schema (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
        INSERT INTO tasker_schema (version, name) VALUES (1, '0001_first'), (2, '0002_calls');
        INSERT INTO workers VALUES ('00000000-0000-7000-8000-000000000001', 'old', 'live', 0, 1);
        INSERT INTO task_runs (id, task, version, status, input, request_hash, priority, run_at, labels, created_at)
            SELECT ('00000000-0000-7000-9000-00000000000' || n)::uuid, 'demo', 'v1', CASE n WHEN 1 THEN 'processing' ELSE 'queued' END, '{}', 'h', 0, 0, '{}', 0 FROM generate_series(1, 2) n;
        INSERT INTO stack_runs (id, task_run_id, kind, seq, depth, status, owner, epoch, turn, made_count, due_at, ready_at, priority, service, path, created_at) VALUES
            ('00000000-0000-7000-a000-000000000001', '00000000-0000-7000-9000-000000000001', 'frame', 0, 0, 'suspended_waiting_child', '00000000-0000-7000-8000-000000000001', 1, 1, 1, 0, 0, 0, 'task', 'demo', 0),
            ('00000000-0000-7000-a000-000000000002', '00000000-0000-7000-9000-000000000002', 'frame', 0, 0, 'pending', NULL, 0, 0, 0, 0, 0, 0, 'task', 'demo', 0);
        INSERT INTO stack_runs (id, task_run_id, parent_id, kind, seq, depth, status, owner, epoch, attempt, ready_at, priority, service, path, args, created_at) VALUES
            ('00000000-0000-7000-a000-000000000003', '00000000-0000-7000-9000-000000000001', '00000000-0000-7000-a000-000000000001', 'call', 1, 0, 'processing', '00000000-0000-7000-8000-000000000001', 1, 1, 0, 0, 's', 'p', '[]', 0);";
    client
        .batch_execute(&format!(
            "CREATE SCHEMA {name}; SET search_path TO {name}; {old} {rows}"
        ))
        .await
        .unwrap();
    let storage = schema.storage().await;
    let worker = worker(&storage).await;
    let claimed = storage
        .claim_frames(crate::kit::claim(worker, 10))
        .await
        .unwrap();
    assert_eq!(claimed.len(), 1);
    let reaped = storage.reap(worker, NOW, 10).await.unwrap();
    assert_eq!((reaped.frames, reaped.calls), (1, 1));
    let calls = storage
        .claim_calls(crate::kit::claim(worker, 10))
        .await
        .unwrap();
    let call = calls[0].row.id;
    assert!(calls[0].row.in_doubt);
    let end = crate::kit::settled(call, worker, calls[0].row.epoch);
    storage
        .finish_calls(Arc::from(vec![end]), NOW)
        .await
        .unwrap()[0]
        .unwrap();
    let woken = storage
        .claim_frames(crate::kit::claim(worker, 10))
        .await
        .unwrap();
    assert_eq!(woken.len(), 1);
    assert_eq!(storage.unread(woken[0].row.id).await.unwrap()[0].id, call);
    assert_sound(&storage).await;
}
