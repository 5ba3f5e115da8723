//! The suite that every adaptor passes.
//!
//! What it is: one asynchronous function a promise of the contract, named as in the `Tested by` lines of the traits, each on a fresh
//! store and each followed by an audit. What it is not: it starts no runtime and no server; the caller brings both.
//!
//! An adaptor runs all of them with
//!
//! ```
//! # mod mine { pub use tasker_adaptor::MemoryStorage; }
//! async fn fresh() -> tasker_adaptor::conformance::Harness {
//!     tasker_adaptor::conformance::Harness::new(mine::MemoryStorage::new()).lacks(&["batch_over_full_store"])
//! }
//! tasker_adaptor::conformance_tests!(#[tokio::test(flavor = "multi_thread")] crate::fresh);
//! # fn main() {}
//! ```
//!
//! The [`Harness`] says how to run futures on several threads, how to make the store full, how long the long loops are, and which
//! cases the adaptor answers with `Unsupported`: any other that does so fails. `fresh` may also return the bare store, when it
//! lacks nothing and needs none of that.

#![allow(
    clippy::missing_panics_doc,
    reason = "every case panics when the promise it names is broken; that is its answer"
)]

pub mod batches;
pub mod blocked;
pub mod cancels;
mod cases;
pub mod claims;
pub mod commits;
pub mod deliveries;
mod driver;
pub mod finishes;
pub mod folds;
mod harness;
mod kit;
pub mod model;
pub mod signals;
pub mod submits;
pub mod tables;
pub mod timers;
pub mod wakes;
pub mod workers;

use std::sync::Arc;

use futures::future::BoxFuture;

pub use self::cases::CASES;
pub use self::harness::{Harness, IntoHarness};
pub use self::kit::{CaseResult, Kit};
use crate::StorageError;

/// One promise of the contract as a test.
#[derive(Clone, Copy)]
pub struct Case {
    /// Name, as in the docs of the traits.
    pub name: &'static str,
    /// The test.
    pub run: fn(Arc<Kit>) -> BoxFuture<'static, CaseResult>,
}

/// Runs one case on a fresh store, then the audit. Panics when the promise is broken, or unsupported and not named by
/// [`Harness::lacks`].
pub async fn run_case<F>(name: &str, fresh: impl IntoHarness, case: impl FnOnce(Arc<Kit>) -> F)
where
    F: Future<Output = CaseResult>,
{
    let harness = fresh.into_harness();
    let lacks = harness.lacks_case(name);
    let kit = Kit::new(harness);
    match case(Arc::clone(&kit)).await {
        Ok(()) => {
            assert!(
                !lacks,
                "{name} holds, and the harness says that it is unsupported: take it out of `Harness::lacks`"
            );
            let audit = kit.audit_is_clean().await;
            assert!(audit.is_ok(), "{name}: the audit cannot be read: {audit:?}");
        }
        Err(StorageError::Unsupported { what }) => assert!(
            lacks,
            "{name}: unsupported by this adaptor: {what}; a case that it cannot hold is named by `Harness::lacks`"
        ),
        Err(error) => panic!("{name}: the store answers with an error: {error:?}"),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::MemoryStorage;

    async fn passes(lacks: &'static [&'static str], answer: CaseResult) -> bool {
        let harness = Harness::new(MemoryStorage::new()).lacks(lacks);
        let run = run_case("a_case", harness, |_| std::future::ready(answer));
        std::panic::AssertUnwindSafe(run)
            .catch_unwind()
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn a_case_is_unsupported_where_the_harness_says_so_and_nowhere_else() {
        let unsupported = || Err(StorageError::Unsupported { what: "it" });
        assert!(passes(&["a_case"], unsupported()).await);
        assert!(!passes(&[], unsupported()).await);
        assert!(!passes(&["another"], unsupported()).await);
        assert!(passes(&[], Ok(())).await);
        assert!(!passes(&["a_case"], Ok(())).await);
    }
}
