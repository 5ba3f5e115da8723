//! A store whose calls fail, wait, happen twice or stop for ever, as a test says.
//!
//! What it is: a wrapper around any [`Storage`], and a [`FaultControl`] that outlives it and may be held by the test. What it is not:
//! random. Whoever wants seeded faults decides in the hook. It reads no clock: a delayed call waits until the test lets it go.
//!
//! Invariants: with nothing injected it answers as the wrapped store · every call has one index, counted from 0 over all methods ·
//! a dead store changes nothing.

mod control;
mod wrapped;

use std::sync::Arc;

pub use self::control::{CallInfo, FaultAction, FaultControl, Written};
use crate::Storage;

/// A store with faults. Clones share the store and the control.
#[derive(Clone)]
pub struct FaultStorage {
    inner: Arc<dyn Storage>,
    control: FaultControl,
}

impl FaultStorage {
    /// Wraps a store; `plan` says for each call what happens to it.
    ///
    /// ```
    /// use tasker_adaptor::{FaultAction, FaultStorage, MemoryStorage, RunStore, RunFilter};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let store = FaultStorage::new(MemoryStorage::new(), |call| match call.index {
    ///     1 => FaultAction::Die,
    ///     _ => FaultAction::Pass,
    /// });
    /// assert!(store.runs(&RunFilter::default(), 1).await.is_ok());
    /// assert!(store.runs(&RunFilter::default(), 1).await.is_err());
    /// assert!(store.runs(&RunFilter::default(), 1).await.is_err(), "dead from then on");
    /// store.control().revive();
    /// assert!(store.runs(&RunFilter::default(), 1).await.is_ok());
    /// assert_eq!(store.control().methods(), ["runs"; 4]);
    /// # }
    /// ```
    pub fn new(
        inner: impl Storage,
        plan: impl Fn(CallInfo) -> FaultAction + Send + Sync + 'static,
    ) -> Self {
        let wrapped = Self::over(Arc::new(inner));
        wrapped.control.on_call(plan);
        wrapped
    }

    /// Wraps a shared store and injects nothing until its control is told to. Several wrappers over one store are several
    /// connections to it: one may die while the others live.
    pub fn over(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            control: FaultControl::default(),
        }
    }

    /// What the test holds.
    pub fn control(&self) -> &FaultControl {
        &self.control
    }

    /// The store behind it, without faults.
    pub fn inner(&self) -> &Arc<dyn Storage> {
        &self.inner
    }
}

impl std::fmt::Debug for FaultStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultStorage")
            .field("calls", &self.control.calls())
            .field("dead", &self.control.is_dead())
            .finish_non_exhaustive()
    }
}
