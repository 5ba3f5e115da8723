//! Lost replies, killed connections, a server that crashes under load: the same request again is always safe.

use std::sync::Arc;
use std::time::Duration;

use tasker_adaptor::{
    FrameNext, Journal as _, Lease, Queue as _, RunStatus, RunStore as _, StackStatus,
    StorageError, TurnNo, Workers as _,
};
use tasker_adaptor_postgres::PostgresStorage;
use tokio_postgres::Client;

use crate::kit::{
    Held, NOW, PATIENCE, Served, TestSchema, assert_sound, begin, call, claim, commit_one, connect,
    json, local, lock_row, new_run, settled, turn, until, until_blocked, worker,
};
use crate::proxy::{Cut, Proxy};

/// `COMMIT` as the client sends it, and as the server answers it.
const BEFORE: Cut = Cut::Before(b"COMMIT\0");
const AFTER: Cut = Cut::After(b"COMMIT\0");

async fn behind_proxy() -> (TestSchema, Proxy, PostgresStorage) {
    let schema = TestSchema::new();
    let proxy = Proxy::start(&schema.url).await;
    let storage = schema
        .options_at(&proxy.url)
        .listen(false)
        .connect()
        .await
        .unwrap();
    (schema, proxy, storage)
}

fn assert_unknown<T: std::fmt::Debug>(outcome: Result<T, StorageError>, proxy: &Proxy) {
    assert!(proxy.has_cut(), "the cut did not happen");
    let error = outcome.expect_err("the reply was lost");
    assert!(
        matches!(error, StorageError::Unavailable { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn pg_reply_cut() {
    let (_schema, proxy, storage) = behind_proxy().await;
    let worker = worker(&storage).await;
    for (cut, was_applied) in [(BEFORE, false), (AFTER, true)] {
        let held = begin(&storage, worker).await;
        let made = call(true);
        let first = turn(held, vec![made.clone()]);
        proxy.arm(cut.clone());
        assert_unknown(commit_one(&storage, first.clone()).await, &proxy);
        let receipt = commit_one(&storage, first).await.unwrap().unwrap();
        assert_eq!(receipt.already_applied, was_applied, "{cut:?}");
        assert_eq!(receipt.status, StackStatus::SuspendedWaitingChild);
        let journal = storage.load(held.frame).await.unwrap().unwrap();
        assert_eq!(journal.children.len(), 1);

        let mut last = turn(
            Held {
                turn: TurnNo(1),
                ..held
            },
            vec![],
        );
        last.delivered = vec![local(made.id, 1)];
        last.next = FrameNext::Completed(Some(json("42")));
        proxy.arm(cut.clone());
        assert_unknown(commit_one(&storage, last.clone()).await, &proxy);
        let receipt = commit_one(&storage, last).await.unwrap().unwrap();
        assert_eq!(receipt.already_applied, was_applied, "{cut:?}");
        assert_eq!(
            storage.run(held.run).await.unwrap().unwrap().status,
            RunStatus::Completed
        );
    }
    assert_sound(&storage).await;
}

#[tokio::test]
async fn a_claim_whose_reply_is_lost_is_found_among_the_owned_rows() {
    let (_schema, proxy, storage) = behind_proxy().await;
    let worker = worker(&storage).await;
    storage.submit(vec![new_run()], NOW).await.unwrap();
    proxy.arm(BEFORE);
    assert_unknown(storage.claim_frames(claim(worker, 1)).await, &proxy);
    assert!(storage.owned(worker, false).await.unwrap().is_empty());
    proxy.arm(AFTER);
    // Until the server has noticed the cut, the lost transaction holds its locks and a claim passes the row over.
    let outcome = tokio::time::timeout(PATIENCE, async {
        loop {
            match storage.claim_frames(claim(worker, 1)).await {
                Ok(claimed) if claimed.is_empty() => {}
                outcome => break outcome,
            }
        }
    })
    .await
    .expect("the row never became claimable");
    assert_unknown(outcome, &proxy);
    let owned = storage.owned(worker, false).await.unwrap();
    assert_eq!(owned.len(), 1);
    let again = storage
        .reload_frame(owned[0].id, worker, NOW)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again.row.epoch, owned[0].epoch.next());
    assert_sound(&storage).await;
}

#[tokio::test]
async fn a_finish_and_a_submit_whose_reply_is_lost_are_sent_again() {
    let (_schema, proxy, storage) = behind_proxy().await;
    let worker = worker(&storage).await;
    for (cut, was_applied) in [(BEFORE, false), (AFTER, true)] {
        let held = begin(&storage, worker).await;
        let made = call(true);
        commit_one(&storage, turn(held, vec![made.clone()]))
            .await
            .unwrap()
            .unwrap();
        let finish: Arc<[_]> = Arc::from(vec![settled(made.id, worker, tasker_adaptor::Epoch(1))]);
        proxy.arm(cut);
        assert_unknown(storage.finish_calls(Arc::clone(&finish), NOW).await, &proxy);
        assert_eq!(
            storage.finish_calls(finish, NOW).await.unwrap(),
            [Ok(!was_applied)]
        );
        let row = storage.stack_run(held.frame).await.unwrap().unwrap();
        assert_eq!(row.status, StackStatus::PendingResume);
    }
    let run = new_run();
    proxy.arm(Cut::After(b"SELECT 1\0"));
    assert_unknown(storage.submit(vec![run.clone()], NOW).await, &proxy);
    let answer = storage.submit(vec![run.clone()], NOW).await.unwrap();
    assert!(!answer[0].as_ref().unwrap().created);
    assert_eq!(storage.stack_runs(run.id).await.unwrap().len(), 1);
    assert_sound(&storage).await;
}

/// Server processes of the connections of [`TestSchema::named_storage`], as far as the condition holds.
async fn processes(client: &Client, schema: &TestSchema, condition: &str) -> Vec<i32> {
    let sql =
        format!("SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND {condition}");
    let rows = client.query(&sql, &[&schema.name]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn kill(client: &Client, processes: &[i32]) {
    let sql = "SELECT bool_and(pg_terminate_backend(pid)) FROM unnest($1::int4[]) AS pid";
    let row = client.query_one(sql, &[&processes]).await.unwrap();
    assert!(row.get::<_, bool>(0));
    until("the killed processes are gone", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1)";
        let row = client.query_one(sql, &[&processes]).await.unwrap();
        row.get::<_, i64>(0) == 0
    })
    .await;
}

#[tokio::test]
async fn killed_backends_cost_an_error_at_most_and_then_it_works_again() {
    let schema = TestSchema::new();
    let storage = schema.named_storage().await;
    let worker = worker(&storage).await;
    let held = begin(&storage, worker).await;
    let client = connect(&schema.url).await;
    let all = processes(&client, &schema, "true").await;
    assert!(
        all.len() >= 3,
        "one for work, for leases, for hints: {all:?}"
    );
    kill(&client, &all).await;
    let first = turn(held, vec![call(true)]);
    let outcome = commit_one(&storage, first.clone()).await;
    assert!(
        matches!(outcome, Ok(Ok(_)) | Err(StorageError::Unavailable { .. })),
        "{outcome:?}"
    );
    let receipt = persist(async || commit_one(&storage, first.clone()).await)
        .await
        .unwrap();
    assert_eq!(receipt.already_applied, outcome.is_ok());
    assert_eq!(receipt.status, StackStatus::SuspendedWaitingChild);
    assert!(persist(async || storage.heartbeat(worker, NOW, 60_000).await).await);
    assert_sound(&storage).await;
}

#[tokio::test]
async fn a_commit_whose_backend_is_killed_in_the_midst_is_unavailable_and_sent_again() {
    let schema = TestSchema::new();
    let storage = schema.named_storage().await;
    let worker = worker(&storage).await;
    let held = begin(&storage, worker).await;
    let mut other = schema.client().await;
    let lock = other.transaction().await.unwrap();
    lock_row(&lock, "stack_runs", held.frame.as_uuid()).await;
    let first = turn(held, vec![call(true)]);
    let committing = {
        let (storage, first) = (storage.clone(), first.clone());
        tokio::spawn(async move { commit_one(&storage, first).await })
    };
    let client = connect(&schema.url).await;
    until_blocked(&client, &schema.name, 1).await;
    let waiting = processes(&client, &schema, "wait_event_type = 'Lock'").await;
    assert_eq!(waiting.len(), 1);
    kill(&client, &waiting).await;
    let error = committing.await.unwrap().unwrap_err();
    assert!(
        matches!(error, StorageError::Unavailable { .. }),
        "{error:?}"
    );
    lock.commit().await.unwrap();
    let receipt = persist(async || commit_one(&storage, first.clone()).await)
        .await
        .unwrap();
    assert!(!receipt.already_applied);
    assert_sound(&storage).await;
}

/// As a failover leaves it behind: the server answers as before, and takes no writes any more.
#[tokio::test]
async fn a_connection_to_a_server_that_became_read_only_is_given_up() {
    let server = Served::start("serve").await;
    let schema = TestSchema::at(server.url.clone());
    let storage = schema.named_storage().await;
    let worker = worker(&storage).await;
    let held = begin(&storage, worker).await;
    let client = connect(&schema.url).await;
    let before = processes(&client, &schema, "true").await;
    become_read_only(&client, "on").await;
    let first = turn(held, vec![call(true)]);
    let error = commit_one(&storage, first.clone()).await.unwrap_err();
    assert!(matches!(error, StorageError::ReadOnly { .. }), "{error:?}");
    let error = storage.heartbeat(worker, NOW, 60_000).await.unwrap_err();
    assert!(matches!(error, StorageError::ReadOnly { .. }), "{error:?}");
    until("the connections of both are closed", async || {
        let now = processes(&client, &schema, "true").await;
        before.iter().filter(|pid| !now.contains(pid)).count() >= 2
    })
    .await;
    assert!(storage.run(held.run).await.unwrap().is_some());
    become_read_only(&client, "off").await;
    let receipt = commit_one(&storage, first).await.unwrap().unwrap();
    assert!(!receipt.already_applied);
    assert!(storage.heartbeat(worker, NOW, 60_000).await.unwrap());
    assert_sound(&storage).await;
    drop(schema);
    server.stop().await;
}

async fn become_read_only(client: &Client, value: &str) {
    for sql in [
        &*format!("ALTER SYSTEM SET default_transaction_read_only = {value}"),
        "SELECT pg_reload_conf()",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    until("the server has read its settings", async || {
        let row = client.query_one("SHOW default_transaction_read_only", &[]);
        row.await.unwrap().get::<_, &str>(0) == value
    })
    .await;
}

#[tokio::test]
async fn a_future_that_is_dropped_leaves_no_transaction_behind() {
    let schema = TestSchema::new();
    let storage = schema.options().pool_size(2).connect().await.unwrap();
    let worker = worker(&storage).await;
    let held = begin(&storage, worker).await;
    let mut other = schema.client().await;
    let lock = other.transaction().await.unwrap();
    lock_row(&lock, "stack_runs", held.frame.as_uuid()).await;
    let first = turn(held, vec![call(true)]);
    for _ in 0..4 {
        let given_up = tokio::time::timeout(
            Duration::from_millis(50),
            commit_one(&storage, first.clone()),
        )
        .await;
        assert!(given_up.is_err(), "the frame is locked");
    }
    lock.commit().await.unwrap();
    // Two connections are all there are: none of them may be stuck in a transaction, or hold a lock.
    let receipt = tokio::time::timeout(PATIENCE, commit_one(&storage, first))
        .await
        .unwrap();
    assert_eq!(
        receipt.unwrap().unwrap().status,
        StackStatus::SuspendedWaitingChild
    );
    assert_sound(&storage).await;
}

#[tokio::test]
async fn a_statement_timeout_of_the_server_is_an_error_that_may_be_tried_again() {
    let schema = TestSchema::new();
    let url = schema.url_with("statement_timeout%3D200");
    // What is made ready has all the time that a busy server takes.
    let patient = schema.storage().await;
    let worker = worker(&patient).await;
    let held = begin(&patient, worker).await;
    let storage = persist(async || schema.options_at(&url).connect().await).await;
    let mut other = schema.client().await;
    let lock = other.transaction().await.unwrap();
    lock_row(&lock, "stack_runs", held.frame.as_uuid()).await;
    let first = turn(held, vec![call(true)]);
    let error = commit_one(&storage, first.clone()).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    lock.commit().await.unwrap();
    let receipt = persist(async || commit_one(&storage, first.clone()).await).await;
    assert!(!receipt.unwrap().already_applied);
}

/// As an engine does: the identical request until there is an answer.
async fn persist<T, F>(mut request: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, StorageError>>,
{
    let trying = async {
        loop {
            match request().await {
                Ok(answer) => return answer,
                Err(error) if error.is_retryable() => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE * 2, trying)
        .await
        .expect("the server comes back")
}

/// One run of three calls by one worker; every request is repeated until it is answered.
async fn run_to_the_end(storage: &PostgresStorage) -> tasker_adaptor::TaskRunId {
    let worker = tasker_adaptor::WorkerId::from_uuid(crate::kit::id());
    let new = tasker_adaptor::NewWorker {
        id: worker,
        name: String::new(),
        now: NOW,
        lease_ms: 600_000,
    };
    persist(async || storage.register(new.clone()).await).await;
    let run = new_run();
    persist(async || storage.submit(vec![run.clone()], NOW).await).await[0]
        .as_ref()
        .unwrap();
    let only = tasker_adaptor::Claim {
        only: Some(run.root),
        ..claim(worker, 1)
    };
    let mut claimed = persist(async || storage.claim_frames(only).await)
        .await
        .pop();
    while claimed.is_none() {
        claimed = persist(async || storage.reload_frame(run.root, worker, NOW).await).await;
    }
    let row = claimed.unwrap().row;
    let mut held = Held {
        run: run.id,
        frame: run.root,
        lease: Lease {
            worker,
            epoch: row.epoch,
        },
        turn: row.turn,
    };
    let mut delivered = Vec::new();
    for number in 1..=3 {
        let made = call(true);
        let mut next = turn(held, vec![made.clone()]);
        next.delivered = std::mem::replace(&mut delivered, vec![local(made.id, number)]);
        persist(async || commit_one(storage, next.clone()).await)
            .await
            .unwrap();
        held.turn = held.turn.next();
    }
    let mut last = turn(held, vec![]);
    last.delivered = delivered;
    last.next = FrameNext::Completed(Some(json("3")));
    persist(async || commit_one(storage, last.clone()).await)
        .await
        .unwrap();
    run.id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_crashes_under_load_loses_and_repeats_nothing() {
    let mut server = Served::start("serve").await;
    let schema = TestSchema::at(server.url.clone());
    let storage = schema.storage().await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (ended, mut endings) = tokio::sync::watch::channel(0);
    let load: Vec<_> = (0..6)
        .map(|_| {
            let (storage, stop, ended) = (storage.clone(), Arc::clone(&stop), ended.clone());
            tokio::spawn(async move {
                let mut runs = Vec::new();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    runs.push(run_to_the_end(&storage).await);
                    ended.send_modify(|count| *count += 1);
                }
                runs
            })
        })
        .collect();
    for _ in 0..3 {
        let enough = *endings.borrow() + 20;
        let waited = tokio::time::timeout(PATIENCE, endings.wait_for(|count| *count >= enough));
        waited.await.expect("runs end").unwrap();
        server.restart().await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut runs = Vec::new();
    for worker in load {
        runs.extend(worker.await.unwrap());
    }
    assert!(runs.len() >= 60);
    for run in &runs {
        assert_eq!(
            storage.run(*run).await.unwrap().unwrap().status,
            RunStatus::Completed
        );
        let rows = storage.stack_runs(*run).await.unwrap();
        assert_eq!(rows.len(), 4);
        assert!(
            rows.iter()
                .all(|row| row.status == StackStatus::Completed && row.attempt <= 1)
        );
    }
    assert_sound(&storage).await;
    drop(schema);
    server.stop().await;
}

/// Two ways to one schema: one by a proxy, and one that stays as it is.
async fn two_ways(
    reply_timeout: Duration,
) -> (TestSchema, Proxy, PostgresStorage, PostgresStorage) {
    let schema = TestSchema::new();
    let direct = schema.storage().await;
    let proxy = Proxy::start(&schema.url).await;
    let options = || {
        let options = schema.options_at(&proxy.url).listen(false);
        options.reply_timeout(reply_timeout)
    };
    let cut = persist(async || options().connect().await).await;
    (schema, proxy, cut, direct)
}

#[tokio::test]
async fn a_commit_whose_network_falls_silent_keeps_its_locks_no_longer_than_a_lease() {
    // Its half is how long a transaction may be silent: a busy machine gets from trip to trip in that.
    let lease_ms = 10_000;
    let (_schema, proxy, cut, direct) = two_ways(Duration::from_secs(5)).await;
    let (victim, reaper) = (new_worker(lease_ms), new_worker(600_000));
    persist(async || cut.register(victim.clone()).await).await;
    direct.register(reaper.clone()).await.unwrap();
    let held = begin(&direct, victim.id).await;
    // Locks of the run, the worker and the frame are held when the last trip is lost.
    proxy.arm(Cut::Silence(b"COMMIT\0"));
    let first = turn(held, vec![call(true)]);
    let error = commit_one(&cut, first.clone()).await.unwrap_err();
    assert!(proxy.has_cut());
    assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");

    let later = NOW.plus_millis(lease_ms + 1);
    let reaping = {
        let direct = direct.clone();
        tokio::spawn(async move { direct.reap(reaper.id, later, 100).await.unwrap() })
    };
    // Meanwhile the reaper lives on.
    assert!(direct.heartbeat(reaper.id, later, 600_000).await.unwrap());
    let reaped = tokio::time::timeout(PATIENCE, reaping).await;
    let reaped = reaped
        .expect("the server ends the silent transaction")
        .unwrap();
    assert!(reaped.workers.contains(&victim.id), "{reaped:?}");
    assert_eq!(reaped.frames, 1);
    proxy.heal();
    let late = persist(async || commit_one(&cut, first.clone()).await).await;
    assert_eq!(late, Err(tasker_adaptor::CommitRefused::LeaseLost));
    assert_sound(&direct).await;
}

#[tokio::test]
async fn a_heartbeat_does_not_wait_for_a_network_that_is_silent_for_ever() {
    let (_schema, proxy, cut, _direct) = two_ways(Duration::from_secs(3)).await;
    let worker = new_worker(1_000);
    persist(async || cut.register(worker.clone()).await).await;
    let worker = worker.id;
    proxy.silence();
    let error = cut.heartbeat(worker, NOW, 1_000).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");
    let error = cut.server_time(NOW).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");
    let error = cut.run(new_run().id).await.unwrap_err();
    assert!(error.to_string().contains("reply_timeout"), "{error}");
    // The connections of before stay dead without a word; new ones work.
    proxy.heal_for_new_connections();
    assert!(persist(async || cut.heartbeat(worker, NOW, 1_000).await).await);
    assert!(
        persist(async || cut.run(new_run().id).await)
            .await
            .is_none()
    );
}

fn new_worker(lease_ms: i64) -> tasker_adaptor::NewWorker {
    tasker_adaptor::NewWorker {
        id: tasker_adaptor::WorkerId::from_uuid(crate::kit::id()),
        name: String::new(),
        now: NOW,
        lease_ms,
    }
}
