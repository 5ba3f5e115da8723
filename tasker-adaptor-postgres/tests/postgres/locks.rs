//! The races of PROTOCOL b2, each forced: another connection holds the lock, has done its part, and commits while ours waits.

use std::sync::Arc;

use tasker_adaptor::{
    CommitRefused, Epoch, Journal as _, MadeKind, NewSignal, NewStackRun, Queue as _,
    RunStore as _, Signals as _, StackRunId, StackStatus, Workers as _,
};
use tasker_adaptor_postgres::PostgresStorage;

use crate::kit::{
    Held, NOW, TestDatabase, TestSchema, assert_sound, begin, call, commit_one, dice, id, json,
    local, lock_row, settled, turn, until_blocked, worker,
};

type Committing = tokio::task::JoinHandle<Result<tasker_adaptor::TurnReceipt, CommitRefused>>;

fn committing(storage: &PostgresStorage, turn: tasker_adaptor::TurnCommit) -> Committing {
    let storage = storage.clone();
    tokio::spawn(async move { commit_one(&storage, turn).await.unwrap() })
}

/// A frame after its first turn, with two calls open to anyone.
async fn with_two_calls(
    storage: &PostgresStorage,
    worker: tasker_adaptor::WorkerId,
) -> (Held, [StackRunId; 2]) {
    let held = begin(storage, worker).await;
    let calls = [call(true), call(true)];
    let ids = [calls[0].id, calls[1].id];
    commit_one(storage, turn(held, calls.to_vec()))
        .await
        .unwrap()
        .unwrap();
    (
        Held {
            turn: held.turn.next(),
            ..held
        },
        ids,
    )
}

#[tokio::test]
async fn p1_a_suspend_that_waited_for_the_completer_sees_the_child() {
    let schema = TestSchema::new();
    suspend_waits_for_completer(&schema, &schema.storage().await).await;
}

pub(crate) async fn suspend_waits_for_completer(schema: &TestSchema, storage: &PostgresStorage) {
    let worker = worker(storage).await;
    let (held, [first, second]) = with_two_calls(storage, worker).await;
    let mut other = schema.client().await;
    let completer = other.transaction().await.unwrap();
    for row in [held.frame, second] {
        lock_row(&completer, "stack_runs", row.as_uuid()).await;
    }
    completer
        .execute("UPDATE stack_runs SET status = 'completed', outcome = '2', owner = NULL, settled_at = 0 WHERE id = $1", &[&second.as_uuid()])
        .await
        .unwrap();
    let mut suspend = turn(held, vec![]);
    suspend.delivered = vec![local(first, 1)];
    let suspending = committing(storage, suspend);
    until_blocked(&schema.client().await, &schema.name, 1).await;
    completer.commit().await.unwrap();
    assert_eq!(
        suspending.await.unwrap().unwrap().status,
        StackStatus::PendingResume
    );
    assert_sound(storage).await;
}

#[tokio::test]
async fn p4_a_commit_that_waited_for_the_reaper_finds_its_worker_dead() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let worker = worker(&storage).await;
    let held = begin(&storage, worker).await;
    let mut other = schema.client().await;
    let reaper = other.transaction().await.unwrap();
    lock_row(&reaper, "workers", worker.as_uuid()).await;
    reaper
        .execute(
            "UPDATE workers SET state = 'dead' WHERE id = $1",
            &[&worker.as_uuid()],
        )
        .await
        .unwrap();
    let late = committing(&storage, turn(held, vec![call(true)]));
    until_blocked(&schema.client().await, &schema.name, 1).await;
    reaper.commit().await.unwrap();
    assert_eq!(late.await.unwrap(), Err(CommitRefused::LeaseLost));
    storage.retire(worker, NOW).await.unwrap();
    assert_sound(&storage).await;
}

#[tokio::test]
async fn p5_a_reaper_waits_for_the_commit_and_a_heartbeat_does_not() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let (worker, reaper) = (worker(&storage).await, worker(&storage).await);
    let held = begin(&storage, worker).await;
    let mut other = schema.client().await;
    // A commit under way: it holds its worker and has borne a claimed row.
    let commit = other.transaction().await.unwrap();
    commit
        .execute(
            "SELECT 1 FROM workers WHERE id = $1 FOR KEY SHARE",
            &[&worker.as_uuid()],
        )
        .await
        .unwrap();
    assert!(storage.heartbeat(worker, NOW, 1).await.unwrap());
    let reaping = {
        let storage = storage.clone();
        tokio::spawn(async move {
            storage
                .reap(reaper, NOW.plus_millis(1_000), 100)
                .await
                .unwrap()
        })
    };
    until_blocked(&schema.client().await, &schema.name, 1).await;
    commit
        .execute(
            "INSERT INTO stack_runs (id, task_run_id, parent_id, kind, seq, depth, status, owner, epoch, attempt, ready_at, priority, service, path, args, created_at) \
             VALUES ($1, $2, $3, 'call', 1, 0, 'processing', $4, 1, 1, 0, 0, 's', 'p', '[]', 0)",
            &[&id(), &held.run.as_uuid(), &held.frame.as_uuid(), &worker.as_uuid()],
        )
        .await
        .unwrap();
    commit
        .execute("UPDATE stack_runs SET status = 'suspended_waiting_child', turn = 1, made_count = 1 WHERE id = $1", &[&held.frame.as_uuid()])
        .await
        .unwrap();
    commit.commit().await.unwrap();
    let reaped = reaping.await.unwrap();
    assert_eq!(
        (reaped.workers, reaped.frames, reaped.calls),
        (vec![worker], 1, 1)
    );
    assert_sound(&storage).await;
}

#[tokio::test]
async fn p6_a_commit_that_waited_for_a_cancel_adds_nothing_to_the_run() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let worker = worker(&storage).await;
    let held = begin(&storage, worker).await;
    let mut other = schema.client().await;
    let gate = other.transaction().await.unwrap();
    lock_row(&gate, "stack_runs", held.frame.as_uuid()).await;
    // The cancel has the run and waits for its row; the commit waits for the run.
    let cancel = {
        let storage = storage.clone();
        tokio::spawn(async move { storage.cancel(held.run, NOW).await.unwrap() })
    };
    let client = schema.client().await;
    until_blocked(&client, &schema.name, 1).await;
    let late = committing(&storage, turn(held, vec![call(true)]));
    until_blocked(&client, &schema.name, 2).await;
    gate.commit().await.unwrap();
    assert_eq!(cancel.await.unwrap(), tasker_adaptor::Cancelled::Done);
    assert_eq!(late.await.unwrap(), Err(CommitRefused::Ended));
    assert_eq!(storage.stack_runs(held.run).await.unwrap().len(), 1);
    assert_sound(&storage).await;
}

#[tokio::test]
async fn p7_a_signal_and_the_wait_for_it_meet_whichever_is_first() {
    let schema = TestSchema::new();
    signal_and_wait_meet(&schema, &schema.storage().await).await;
}

pub(crate) async fn signal_and_wait_meet(schema: &TestSchema, storage: &PostgresStorage) {
    let worker = worker(storage).await;
    for signal_first in [true, false] {
        let held = begin(storage, worker).await;
        let wait = NewStackRun {
            id: StackRunId::from_uuid(id()),
            kind: MadeKind::Signal {
                name: "go".to_owned(),
            },
            claimed: false,
        };
        let mut other = schema.client().await;
        let client = schema.client().await;
        let gate = other.transaction().await.unwrap();
        lock_row(&gate, "task_runs", held.run.as_uuid()).await;
        let signal = NewSignal {
            id: id(),
            run: held.run,
            name: "go".to_owned(),
            payload: json("7"),
        };
        let send = || {
            let storage = storage.clone();
            let signal = signal.clone();
            tokio::spawn(async move { storage.send_signal(signal, NOW).await.unwrap() })
        };
        // Locks are given in the order in which they were asked for.
        let mut sent = None;
        if signal_first {
            sent = Some(send());
            until_blocked(&client, &schema.name, 1).await;
        }
        let waiting = committing(storage, turn(held, vec![wait.clone()]));
        until_blocked(&client, &schema.name, 1 + i64::from(signal_first)).await;
        let sent = sent.unwrap_or_else(send);
        until_blocked(&client, &schema.name, 2).await;
        gate.commit().await.unwrap();
        assert!(sent.await.unwrap());
        waiting.await.unwrap().unwrap();
        let frame = storage.stack_run(held.frame).await.unwrap().unwrap();
        assert_eq!(frame.status, StackStatus::PendingResume);
        assert_sound(storage).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p8_completers_and_commits_of_the_same_frames_end_in_no_deadlock() {
    let database = TestDatabase::new().await;
    let schema = TestSchema::at(database.url.clone());
    let storage = schema.storage().await;
    let worker = worker(&storage).await;
    let client = schema.client().await;
    for _ in 0..20 {
        let mut frames = Vec::new();
        for _ in 0..4 {
            frames.push(with_two_calls(&storage, worker).await);
        }
        let mut tasks = Vec::new();
        for (held, [first, second]) in frames.clone() {
            let mut suspend = turn(held, vec![]);
            suspend.delivered = vec![local(first, 1)];
            let storage = storage.clone();
            tasks.push(tokio::spawn(async move {
                commit_one(&storage, suspend).await.unwrap().unwrap();
            }));
            let _ = second;
        }
        // All second calls in one batch, in an order of its own.
        let mut ends: Vec<_> = frames
            .iter()
            .map(|(_, [_, second])| settled(*second, worker, Epoch(1)))
            .collect();
        // The key is thrown once a call: a key of its own at each comparison is no order.
        ends.sort_by_cached_key(|_| dice());
        let finisher = storage.clone();
        tasks.push(tokio::spawn(async move {
            let answers = finisher.finish_calls(Arc::from(ends), NOW).await.unwrap();
            assert!(
                answers.iter().all(|answer| *answer == Ok(true)),
                "{answers:?}"
            );
        }));
        for task in tasks {
            task.await.unwrap();
        }
        for (held, _) in &frames {
            let frame = storage.stack_run(held.frame).await.unwrap().unwrap();
            assert_eq!(frame.status, StackStatus::PendingResume);
        }
    }
    assert_sound(&storage).await;
    let waiting = client
        .query_one(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'stack_runs'::regclass",
            &[],
        )
        .await;
    assert_eq!(waiting.unwrap().get::<_, i64>(0), 0);
    drop((storage, client));
    assert_eq!(database.deadlocks().await, 0);
}

#[tokio::test]
async fn a_call_that_is_given_back_while_it_is_delivered_refuses_its_turn_alone() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let worker = worker(&storage).await;
    let (lost, [given_back, _]) = with_two_calls(&storage, worker).await;
    let (kept, [answered, _]) = with_two_calls(&storage, worker).await;
    let mut other = schema.client().await;
    let release = other.transaction().await.unwrap();
    lock_row(&release, "stack_runs", given_back.as_uuid()).await;
    release
        .execute("UPDATE stack_runs SET status = 'pending', owner = NULL, epoch = epoch + 1 WHERE id = $1", &[&given_back.as_uuid()])
        .await
        .unwrap();
    let turns: Vec<_> = [(lost, given_back), (kept, answered)]
        .into_iter()
        .map(|(held, child)| {
            let mut turn = turn(held, vec![call(true)]);
            turn.delivered = vec![local(child, 1)];
            turn
        })
        .collect();
    let committing = {
        let storage = storage.clone();
        tokio::spawn(async move { storage.commit(Arc::from(turns)).await.unwrap() })
    };
    until_blocked(&schema.client().await, &schema.name, 1).await;
    release.commit().await.unwrap();
    let answers = committing.await.unwrap();
    assert_eq!(
        answers[0],
        Err(CommitRefused::Stale {
            seq: tasker_adaptor::CallSeq(1)
        })
    );
    assert_eq!(
        answers[1].unwrap().status,
        StackStatus::SuspendedWaitingChild
    );
    for (held, child, rows, status) in [
        (lost, given_back, 3, StackStatus::Pending),
        (kept, answered, 4, StackStatus::Completed),
    ] {
        assert_eq!(storage.stack_runs(held.run).await.unwrap().len(), rows);
        let call = storage.stack_run(child).await.unwrap().unwrap();
        assert_eq!(call.status, status);
    }
    assert_sound(&storage).await;
}
