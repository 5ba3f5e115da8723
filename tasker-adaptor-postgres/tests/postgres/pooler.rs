//! Behind a real PgBouncer in transaction mode: two transactions of a connection may reach two server processes.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tasker_adaptor::conformance::{CASES, run_case};
use tasker_adaptor::{Hint, RunStore as _, Watch as _};
use tasker_adaptor_postgres::{Pooler, PostgresStorage};

use crate::hints::{hears_of_work, not_behind_pooler};
use crate::kit::{NOW, PATIENCE, Served, TestSchema, harness, new_run};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_holds_behind_a_transaction_pooler() {
    let bouncer = Served::start("pgbouncer").await;
    for case in CASES {
        let schema = TestSchema::new();
        let options = schema
            .options_at(&bouncer.url)
            .pooler(Pooler::On)
            .poll_interval(Duration::from_millis(50));
        let storage = options.connect().await.unwrap();
        let harness = harness(schema, storage).effort(1);
        run_case(case.name, harness, |kit| (case.run)(kit)).await;
    }
    bouncer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_is_detected_and_a_direct_way_too() {
    let bouncer = Served::start("pgbouncer").await;
    let schema = TestSchema::new();
    let options = |url: &str| {
        PostgresStorage::options(url)
            .schema(&schema.name)
            .poll_interval(Duration::from_millis(50))
    };
    let direct = not_behind_pooler(|| options(&schema.url)).await;
    let pooled = options(&bouncer.url).connect().await.unwrap();
    assert!(pooled.is_behind_pooler());

    // Many at once on few server connections: a named statement would be missing on most of them.
    let mut hints = direct.watch();
    let pooled = Arc::new(pooled);
    let submits = (0..40).map(|_| {
        let pooled = Arc::clone(&pooled);
        tokio::spawn(async move {
            pooled.submit(vec![new_run()], NOW).await.unwrap()[0]
                .as_ref()
                .unwrap()
                .created
        })
    });
    for created in futures::future::join_all(submits).await {
        assert!(created.unwrap());
    }
    // Hints sent through the pooler reach those who can hear; behind it one is told to look.
    hears_of_work(&pooled, &mut hints).await;
    let mut told = pooled.watch();
    tokio::time::timeout(PATIENCE, async {
        while told.next().await != Some(Hint::Any) {}
    })
    .await
    .unwrap();
    drop(schema);
    bouncer.stop().await;
}
