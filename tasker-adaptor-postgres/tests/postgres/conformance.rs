//! The suite that every adaptor passes, concurrent parts on several connections.

use tasker_adaptor::conformance::Harness;

use crate::kit::TestSchema;

async fn fresh() -> Harness {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    Harness::new(storage)
        .spawn_with(|future| drop(tokio::spawn(future)))
        .keep(schema)
}

tasker_adaptor::conformance_tests!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    crate::conformance::fresh
);
