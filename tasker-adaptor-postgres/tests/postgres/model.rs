//! The same random operations on PostgreSQL and on the memory reference give the same answers and the same rows.

use tasker_adaptor::conformance::model::run_model;

use crate::kit::TestSchema;

#[tokio::test]
async fn random_operations_agree_with_the_memory_reference() {
    let named = std::env::var("TASKER_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = named.map_or_else(|| (2..=4).collect(), |seed: u64| vec![seed]);
    for seed in seeds {
        let schema = TestSchema::new();
        let storage = schema.storage().await;
        run_model(&storage, seed, 1_000)
            .await
            .unwrap_or_else(|error| panic!("TASKER_SEED={seed}: {error:?}"));
    }
}
