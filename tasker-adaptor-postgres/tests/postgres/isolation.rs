//! Whatever isolation level a role or a database has for its default: the protocol gets the one that it needs.

use tasker_adaptor::conformance::{CASES, run_case};
use tasker_adaptor::{RunStore as _, StorageError};
use tasker_adaptor_postgres::{Pooler, PostgresStorage};
use tokio_postgres::IsolationLevel;

use crate::kit::{NOW, TestSchema, harness, new_run, until_blocked};
use crate::locks::{signal_and_wait_meet, suspend_waits_for_completer};

/// Levels at which a transaction goes on seeing what it saw first, as an URL has them.
const STRICTER: [&str; 2] = ["repeatable%5C%20read", "serializable"];

/// Cases of the suite in which two transactions meet.
const RACES: [&str; 9] = [
    "cancel_races_final",
    "cancel_races_made",
    "claim_one_winner",
    "keystore_replace_is_compare_and_set",
    "reap_races_commit",
    "settle_two_at_once",
    "settle_while_suspending",
    "signal_races_wait",
    "submit_100_at_once",
];

/// A store whose sessions come with this level. `Pooler::On`: no session may be set up, each statement counts alone.
async fn storage_at(schema: &TestSchema, level: &str, pooler: Pooler) -> PostgresStorage {
    let url = schema.url_with(&format!("default_transaction_isolation%3D{level}"));
    let options = schema.options_at(&url).pooler(pooler);
    options.listen(false).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn races_end_well_under_any_default() {
    for level in STRICTER {
        for pooler in [Pooler::Off, Pooler::On] {
            let schema = TestSchema::new();
            let storage = storage_at(&schema, level, pooler).await;
            suspend_waits_for_completer(&schema, &storage).await;
            signal_and_wait_meet(&schema, &storage).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_races_of_the_suite_end_well_under_any_default() {
    for (level, pooler) in STRICTER.into_iter().zip([Pooler::On, Pooler::Off]) {
        for name in RACES {
            let case = CASES.iter().find(|case| case.name == name);
            let case = case.unwrap_or_else(|| panic!("the suite has no case {name}"));
            let schema = TestSchema::new();
            let storage = storage_at(&schema, level, pooler).await;
            let harness = harness(schema, storage).effort(1);
            run_case(case.name, harness, |kit| (case.run)(kit)).await;
        }
    }
}

/// A single statement that had to wait for another transaction: above `READ COMMITTED` the server refuses it, and it is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_submit_that_waited_for_another_of_its_key_finds_it_under_any_default() {
    for level in STRICTER {
        let schema = TestSchema::new();
        let storage = storage_at(&schema, level, Pooler::On).await;
        let mut known = new_run();
        known.idempotency_key = Some("order-17".to_owned());
        let mut again = new_run();
        again.idempotency_key.clone_from(&known.idempotency_key);
        let mut client = schema.client().await;
        let first = client.transaction().await.unwrap();
        storage
            .submit_in(&first, vec![known.clone()], NOW)
            .await
            .unwrap();
        let second = {
            let storage = storage.clone();
            tokio::spawn(async move { storage.submit(vec![again], NOW).await.unwrap() })
        };
        until_blocked(&schema.client().await, &schema.name, 1).await;
        first.commit().await.unwrap();
        let found = second.await.unwrap().remove(0).unwrap();
        assert!(found.id == known.id && !found.created);
    }
}

#[tokio::test]
async fn submit_in_finds_what_its_snapshot_shows_and_refuses_what_it_cannot_see() {
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let schema = TestSchema::new();
        let storage = schema.storage().await;
        let keyed = |key: &str| {
            let mut run = new_run();
            run.idempotency_key = Some(key.to_owned());
            run
        };
        let (seen, unseen) = (keyed("seen"), keyed("unseen"));
        storage.submit(vec![seen.clone()], NOW).await.unwrap();
        let mut client = schema.client().await;
        let begun = client.build_transaction().isolation_level(level).start();
        let transaction = begun.await.unwrap();
        let answers = storage
            .submit_in(&transaction, vec![keyed("seen"), new_run()], NOW)
            .await
            .unwrap();
        assert_eq!(answers[0].as_ref().unwrap().id, seen.id);
        assert!(answers[1].as_ref().unwrap().created);
        // Committed after the transaction's snapshot was taken.
        storage.submit(vec![unseen.clone()], NOW).await.unwrap();
        let refused = storage
            .submit_in(&transaction, vec![keyed("unseen")], NOW)
            .await
            .unwrap_err();
        assert!(refused.is_retryable(), "{refused:?}");
        assert!(
            matches!(&refused, StorageError::Backend { message, .. } if message.contains("40001")),
            "{refused:?}"
        );
        transaction.rollback().await.unwrap();
        let begun = client.build_transaction().isolation_level(level).start();
        let transaction = begun.await.unwrap();
        let answers = storage
            .submit_in(&transaction, vec![keyed("unseen")], NOW)
            .await
            .unwrap();
        assert_eq!(answers[0].as_ref().unwrap().id, unseen.id);
        transaction.commit().await.unwrap();
    }
}
