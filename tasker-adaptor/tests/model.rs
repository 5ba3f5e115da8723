//! The model test notices a store that differs from the reference.
#![cfg(feature = "conformance")]

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tasker_adaptor::conformance::model::run_model;
use tasker_adaptor::{MemoryStorage, Mutation};

#[tokio::test]
async fn random_operations_tell_a_store_without_a_guard_from_the_reference() {
    for mutation in Mutation::ALL {
        let store = MemoryStorage::with_mutation(*mutation);
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let run = AssertUnwindSafe(run_model(&store, 1, 5_000));
        let noticed = run.catch_unwind().await.is_err();
        std::panic::set_hook(loud);
        // One operation after the other shows no race.
        let is_a_race = *mutation == Mutation::NoWakeUnderLock;
        assert!(noticed || is_a_race, "{mutation:?} is not noticed");
    }
}

#[tokio::test]
async fn the_reference_agrees_with_itself() {
    for seed in 1..=3 {
        let run = run_model(&MemoryStorage::new(), seed, 2_000).await;
        run.expect("memory answers without errors");
    }
}
