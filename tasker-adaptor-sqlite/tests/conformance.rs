//! Every promise of the storage contract, on a file of its own.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

use tasker_adaptor::conformance::Harness;
use tasker_adaptor_sqlite::SqliteStorage;

/// Pages that no test reaches.
const ROOMY: Option<u32> = None;

/// A limit below any file: it keeps the size it has.
const NOT_A_PAGE_MORE: Option<u32> = Some(1);

async fn fresh() -> Harness {
    let folder = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(folder.path().join("tasker.db"))
        .await
        .unwrap();
    let filled = storage.clone();
    Harness::new(storage)
        .spawn_with(|future| {
            tokio::spawn(future);
        })
        .fill_with(move |full| {
            let storage = filled.clone();
            async move {
                let pages = if full { NOT_A_PAGE_MORE } else { ROOMY };
                storage.limit_pages(pages).await
            }
        })
        .keep(folder)
}

tasker_adaptor::conformance_tests!(
    #[tokio::test(flavor = "multi_thread")]
    crate::fresh
);
