//! Random operations on SQLite and on the memory reference give the same answers and the same rows.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

use tasker_adaptor::conformance::model::run_model;
use tasker_adaptor_sqlite::{SqliteStorage, Synchronous};

#[tokio::test]
async fn random_operations_agree_with_the_reference() {
    for seed in 1..=6 {
        let folder = tempfile::tempdir().unwrap();
        let storage = SqliteStorage::options(folder.path().join("tasker.db"))
            .synchronous(Synchronous::Off)
            .open()
            .await
            .unwrap();
        let run = run_model(&storage, seed, 1_000).await;
        run.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}
