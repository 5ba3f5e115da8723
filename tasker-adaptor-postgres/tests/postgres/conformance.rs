//! The suite that every adaptor passes, concurrent parts on several connections.

use tasker_adaptor::conformance::Harness;

use crate::kit::{TestSchema, harness};

async fn fresh() -> Harness {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    harness(schema, storage)
}

tasker_adaptor::conformance_tests!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    crate::conformance::fresh
);
