//! Runs that commit together with the caller's own rows.

use futures::StreamExt as _;
use tasker_adaptor::{Hint, RunStore as _, StorageError, Watch as _};

use crate::kit::{NOW, PATIENCE, TestSchema, new_run};

#[tokio::test]
async fn a_run_exists_when_the_callers_transaction_commits_and_not_before() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let mut client = schema.client().await;
    client
        .batch_execute("CREATE TABLE orders (id int PRIMARY KEY)")
        .await
        .unwrap();
    let mut hints = schema.storage().await.watch();

    let run = new_run();
    let transaction = client.transaction().await.unwrap();
    transaction
        .execute("INSERT INTO orders VALUES (1)", &[])
        .await
        .unwrap();
    let answers = storage
        .submit_in(&transaction, vec![run.clone()], NOW)
        .await
        .unwrap();
    assert!(answers[0].as_ref().unwrap().created);
    assert!(storage.run(run.id).await.unwrap().is_none());
    transaction.commit().await.unwrap();
    assert!(storage.run(run.id).await.unwrap().is_some());
    let heard = async { while hints.next().await.is_some_and(|hint| hint == Hint::Any) {} };
    tokio::time::timeout(PATIENCE, heard)
        .await
        .expect("workers are told at the commit");

    let lost = new_run();
    let transaction = client.transaction().await.unwrap();
    transaction
        .execute("INSERT INTO orders VALUES (2)", &[])
        .await
        .unwrap();
    storage
        .submit_in(&transaction, vec![lost.clone()], NOW)
        .await
        .unwrap();
    transaction.rollback().await.unwrap();
    assert!(storage.run(lost.id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_known_key_is_found_inside_the_transaction() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let mut client = schema.client().await;
    let mut known = new_run();
    known.idempotency_key = Some("order-17".to_owned());
    storage.submit(vec![known.clone()], NOW).await.unwrap();
    let (mut same, mut other) = (new_run(), new_run());
    same.idempotency_key.clone_from(&known.idempotency_key);
    other.idempotency_key.clone_from(&known.idempotency_key);
    other.request_hash = "another".to_owned();
    let transaction = client.transaction().await.unwrap();
    let answers = storage
        .submit_in(&transaction, vec![same, other, new_run()], NOW)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let found = answers[0].as_ref().unwrap();
    assert!(found.id == known.id && !found.created);
    assert!(
        matches!(answers[1], Err(StorageError::IdempotencyConflict { existing }) if existing == known.id)
    );
    assert!(answers[2].as_ref().unwrap().created);
}
