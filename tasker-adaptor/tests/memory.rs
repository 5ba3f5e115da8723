//! The memory reference passes the suite.
#![cfg(feature = "conformance")]

use tasker_adaptor::MemoryStorage;
use tasker_adaptor::conformance::Harness;

async fn fresh() -> Harness {
    Harness::new(MemoryStorage::new())
        .spawn_with(|future| drop(tokio::spawn(future)))
        .lacks(&["batch_over_full_store"])
        .effort(100)
}

tasker_adaptor::conformance_tests!(
    #[tokio::test(flavor = "multi_thread")]
    crate::fresh
);
