//! Hints between processes: two storages stand for two processes.

use std::time::Duration;

use futures::StreamExt as _;
use tasker_adaptor::{Hint, Hints, RunStore as _, Watch as _};
use tasker_adaptor_postgres::{Pooler, PostgresStorage};

use crate::kit::{NOW, PATIENCE, TestSchema, connect, new_run};

/// Waits for a hint that is wanted.
async fn hears(hints: &mut Hints, wanted: impl Fn(Hint) -> bool) {
    let hearing = async {
        while let Some(hint) = hints.next().await {
            if wanted(hint) {
                return true;
            }
        }
        false
    };
    let heard = tokio::time::timeout(PATIENCE, hearing).await;
    assert!(matches!(heard, Ok(true)), "the hint did not come");
}

/// Options that hear, and poll so seldom that a test would not wait for it.
fn listening(schema: &TestSchema) -> tasker_adaptor_postgres::PostgresOptions {
    schema.options().poll_interval(Duration::from_hours(1))
}

#[tokio::test]
async fn another_process_hears_of_work_and_of_ends() {
    let schema = TestSchema::new();
    let here = listening(&schema).connect().await.unwrap();
    let there = listening(&schema).connect().await.unwrap();
    let mut hints = there.watch();
    hears(&mut hints, |hint| hint == Hint::Any).await;
    let run = new_run();
    here.submit(vec![run.clone()], NOW).await.unwrap();
    hears(&mut hints, |hint| hint == Hint::Work).await;
    here.cancel(run.id, NOW).await.unwrap();
    hears(&mut hints, |hint| hint == Hint::Ended(run.id)).await;
}

#[tokio::test]
async fn a_listener_that_loses_its_connection_listens_again() {
    let schema = TestSchema::new();
    let here = listening(&schema).connect().await.unwrap();
    let there = listening(&schema).connect().await.unwrap();
    let mut hints = there.watch();
    hears(&mut hints, |hint| hint == Hint::Any).await;
    let client = connect(&schema.url).await;
    let channel = format!("LISTEN \"tasker:{}\"", schema.name);
    let killed = client
        .query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = $1",
            &[&channel],
        )
        .await
        .unwrap();
    assert_eq!(killed.len(), 2, "both listeners were found");
    // `Any` when the connection was lost, and when it is there again: what was said between was not heard.
    hears(&mut hints, |hint| hint == Hint::Any).await;
    hears(&mut hints, |hint| hint == Hint::Any).await;
    here.submit(vec![new_run()], NOW).await.unwrap();
    hears(&mut hints, |hint| hint == Hint::Work).await;
}

#[tokio::test]
async fn without_a_listener_watchers_are_told_to_look() {
    let schema = TestSchema::new();
    let storage = schema
        .options()
        .listen(false)
        .poll_interval(Duration::from_millis(20))
        .connect()
        .await
        .unwrap();
    let mut hints = storage.watch();
    hears(&mut hints, |hint| hint == Hint::Any).await;
    hears(&mut hints, |hint| hint == Hint::Any).await;
}

#[tokio::test]
async fn a_watch_ends_with_its_storage() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let hints = storage.watch();
    drop(storage);
    tokio::time::timeout(PATIENCE, hints.collect::<Vec<_>>())
        .await
        .expect("the watch ends");
}

#[tokio::test]
async fn a_pool_of_the_callers_own_works_with_and_without_a_listener() {
    let schema = TestSchema::new();
    let config: tokio_postgres::Config = schema.url.parse().unwrap();
    let manager = deadpool_postgres::Manager::new(config.clone(), tokio_postgres::NoTls);
    let pool = deadpool_postgres::Pool::builder(manager)
        .max_size(2)
        .build()
        .unwrap();
    let deaf = PostgresStorage::with_pool(pool.clone(), None)
        .schema(&schema.name)
        .connect()
        .await
        .unwrap();
    assert!(
        deaf.is_behind_pooler(),
        "nothing is known, so statements have no names"
    );
    let hearing = PostgresStorage::with_pool(pool, Some(config))
        .schema(&schema.name)
        .pooler(Pooler::Auto)
        .poll_interval(Duration::from_hours(1))
        .connect()
        .await
        .unwrap();
    assert!(!hearing.is_behind_pooler());
    let mut hints = hearing.watch();
    hears(&mut hints, |hint| hint == Hint::Any).await;
    deaf.submit(vec![new_run()], NOW).await.unwrap();
    hears(&mut hints, |hint| hint == Hint::Work).await;
}
