//! The suite that every adaptor passes.
//!
//! What it is: one asynchronous function a promise of the contract, named as in the `Tested by` lines of the traits, each on a fresh
//! store and each followed by an audit. What it is not: it starts no runtime and no server; the caller brings both.
//!
//! An adaptor runs all of them with
//!
//! ```
//! # mod mine { pub use tasker_adaptor::MemoryStorage; }
//! async fn fresh() -> impl tasker_adaptor::Storage {
//!     mine::MemoryStorage::new()
//! }
//! tasker_adaptor::conformance_tests!(#[tokio::test(flavor = "multi_thread")] crate::fresh);
//! # fn main() {}
//! ```
//!
//! `fresh` may also return a [`Harness`], which says how to run futures on several threads, how to make the store full, and how long
//! the long loops are. What the adaptor answers with `Unsupported` is printed by name and does not fail.

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

/// Runs one case on a fresh store, then the audit. Panics when the promise is broken.
pub async fn run_case<F>(name: &str, fresh: impl IntoHarness, case: impl FnOnce(Arc<Kit>) -> F)
where
    F: Future<Output = CaseResult>,
{
    let kit = Kit::new(fresh.into_harness());
    match case(Arc::clone(&kit)).await {
        Ok(()) => {
            let audit = kit.audit_is_clean().await;
            assert!(audit.is_ok(), "{name}: the audit cannot be read: {audit:?}");
        }
        Err(StorageError::Unsupported { what }) => {
            eprintln!("{name}: unsupported by this adaptor: {what}");
        }
        Err(error) => panic!("{name}: the store answers with an error: {error:?}"),
    }
}
