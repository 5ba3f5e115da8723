//! Transactions that the server ends for the sake of another: each is tried again, and the caller sees its answer only.

use tasker_adaptor::{Reaped, StackStatus, WorkerId, Workers as _};
use tasker_adaptor_postgres::PostgresStorage;
use tokio_postgres::Client;

use crate::kit::{
    NOW, TestDatabase, TestSchema, assert_sound, begin, call, commit_one, lock_row, turn,
    until_blocked, worker,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_loses_a_deadlock_is_tried_again() {
    let database = TestDatabase::new().await;
    let schema = TestSchema::at(database.url.clone());
    let storage = schema.storage().await;
    let worker = worker(&storage).await;
    let held = begin(&storage, worker).await;
    let mut other = schema.client().await;
    // Who has waited longest looks for a deadlock first, and is ended; this one never looks.
    let never = "SET deadlock_timeout = '10min'";
    other.batch_execute(never).await.unwrap();
    let cycle = other.transaction().await.unwrap();
    lock_row(&cycle, "stack_runs", held.frame.as_uuid()).await;
    // The commit has its run, and waits for the frame.
    let committing = {
        let (storage, turn) = (storage.clone(), turn(held, vec![call(true)]));
        tokio::spawn(async move { commit_one(&storage, turn).await })
    };
    let client = schema.client().await;
    until_blocked(&client, &schema.name, 1).await;
    lock_row(&cycle, "task_runs", held.run.as_uuid()).await;
    cycle.commit().await.unwrap();
    let receipt = committing.await.unwrap().unwrap().unwrap();
    assert!(!receipt.already_applied);
    assert_eq!(receipt.status, StackStatus::SuspendedWaitingChild);
    assert_sound(&storage).await;
    drop((storage, client, other));
    assert_eq!(database.deadlocks().await, 1);
}

/// Two workers whose leases have ended: each keeps itself and wants to bury the other.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_reapers_that_bury_each_other_one_lives() {
    let database = TestDatabase::new().await;
    let schema = TestSchema::at(database.url.clone());
    let storage = schema.storage().await;
    // Ids ascend: both come to the first one after they have taken themselves, and before they come to each other.
    let gate = worker(&storage).await;
    let reapers = [worker(&storage).await, worker(&storage).await];
    let mut other = schema.client().await;
    let held = other.transaction().await.unwrap();
    lock_row(&held, "workers", gate.as_uuid()).await;
    let reap = |by: WorkerId| {
        let storage = storage.clone();
        let later = NOW.plus_millis(60_001);
        tokio::spawn(async move { storage.reap(by, later, 100).await.unwrap() })
    };
    let reaping = reapers.map(reap);
    let client = schema.client().await;
    until_blocked(&client, &schema.name, 2).await;
    held.commit().await.unwrap();
    let mut reaped = Vec::new();
    for one in reaping {
        let Reaped { workers, .. } = one.await.unwrap();
        reaped.push(workers);
    }
    let [first, second] = reapers;
    let won = usize::from(!reaped[1].is_empty());
    let (winner, loser) = [(first, second), (second, first)][won];
    assert_eq!(reaped[won], [gate, loser]);
    assert!(reaped[1 - won].is_empty());
    assert!(storage.heartbeat(winner, NOW, 60_000).await.unwrap());
    assert!(!storage.heartbeat(loser, NOW, 60_000).await.unwrap());
    drop((storage, client, other));
    assert_eq!(database.deadlocks().await, 1);
}

/// The first so many births of a call fail as the server's own serialization failures do. The sequence counts through rollbacks.
async fn failing_births(schema: &TestSchema, failures: i64) -> Client {
    let client = schema.client().await;
    let sql = format!(
        "CREATE SEQUENCE births; \
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF nextval('{0}.births') <= {failures} THEN RAISE 'could not serialize' USING ERRCODE = '40001'; END IF; RETURN new; END $$; \
         CREATE TRIGGER fail BEFORE INSERT ON stack_runs FOR EACH ROW WHEN (new.kind = 'call') EXECUTE FUNCTION fail()",
        schema.name
    );
    client.batch_execute(&sql).await.unwrap();
    client
}

async fn tries(client: &Client) -> i64 {
    let sql = "SELECT last_value FROM births";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_commit_that_fails_to_serialize_is_tried_again_but_not_for_ever() {
    let schema = TestSchema::new();
    let storage: PostgresStorage = schema.storage().await;
    let worker = worker(&storage).await;
    let held = begin(&storage, worker).await;
    // One try and twelve more all fail; the first of the next request too, and its second succeeds.
    let client = failing_births(&schema, 14).await;
    let first = turn(held, vec![call(true)]);
    let error = commit_one(&storage, first.clone()).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert_eq!(tries(&client).await, 13);
    let receipt = commit_one(&storage, first).await.unwrap().unwrap();
    assert!(!receipt.already_applied);
    assert_eq!(tries(&client).await, 15);
    assert_sound(&storage).await;
}
