//! Hints between processes: two storages stand for two processes.

use std::time::Duration;

use futures::StreamExt as _;
use tasker_adaptor::{Hint, Hints, RunStore as _, Watch as _};
use tasker_adaptor_postgres::{Pooler, PostgresStorage};

use crate::kit::{NOW, PATIENCE, TestSchema, connect, new_run, until};

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

/// Submits until a hint at work comes: what is said before a listener listens is not heard by it.
pub(crate) async fn hears_of_work(from: &PostgresStorage, hints: &mut Hints) {
    let hearing = async {
        loop {
            from.submit(vec![new_run()], NOW).await.unwrap();
            let moment = tokio::time::sleep(Duration::from_millis(300));
            tokio::pin!(moment);
            loop {
                tokio::select! {
                    hint = hints.next() => if hint == Some(Hint::Work) { return },
                    () = &mut moment => break,
                }
            }
        }
    };
    let heard = tokio::time::timeout(PATIENCE, hearing).await;
    assert!(heard.is_ok(), "no work was hinted at");
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
    let here = listening(&schema).listen(false).connect().await.unwrap();
    let there = listening(&schema).connect().await.unwrap();
    let mut hints = there.watch();
    hears(&mut hints, |hint| hint == Hint::Any).await;
    let client = connect(&schema.url).await;
    let channel = format!("LISTEN \"tasker:{}\"", schema.name);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = $1";
    until("the listener is found", async || {
        let ended = client.query(end, &[&channel]).await.unwrap();
        !ended.is_empty()
    })
    .await;
    // `Any` when the connection was lost, and when it is there again: what was said between was not heard.
    hears(&mut hints, |hint| hint == Hint::Any).await;
    hears(&mut hints, |hint| hint == Hint::Any).await;
    hears_of_work(&here, &mut hints).await;
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

/// Connects over a way without a pooler, and finds that out. Where a notification takes longer than a second, on a busy machine, it may
/// be wrong, now and then.
pub(crate) async fn not_behind_pooler(
    options: impl Fn() -> tasker_adaptor_postgres::PostgresOptions,
) -> PostgresStorage {
    for _ in 0..10 {
        let storage = options().connect().await.unwrap();
        if !storage.is_behind_pooler() {
            return storage;
        }
    }
    panic!("a pooler was seen where there is none");
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
    let hearing = not_behind_pooler(|| {
        let way = PostgresStorage::with_pool(pool.clone(), Some(config.clone()));
        way.schema(&schema.name)
            .pooler(Pooler::Auto)
            .poll_interval(Duration::from_hours(1))
    })
    .await;
    let mut hints = hearing.watch();
    hears(&mut hints, |hint| hint == Hint::Any).await;
    hears_of_work(&deaf, &mut hints).await;
}
