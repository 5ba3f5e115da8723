//! What a backend gives the suite: a fresh store, and the few hooks that only the backend can offer.

use std::any::Any;
use std::sync::Arc;

use futures::channel::oneshot;
use futures::future::{BoxFuture, join_all};

use crate::{Storage, StorageError};

type Spawn = Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;
type Fill = Arc<dyn Fn(bool) -> BoxFuture<'static, Result<(), StorageError>> + Send + Sync>;

/// A fresh, empty store with the hooks of its backend. A bare [`Storage`] is one without hooks.
///
/// ```
/// use tasker_adaptor::{MemoryStorage, conformance::Harness};
///
/// async fn fresh() -> Harness {
///     Harness::new(MemoryStorage::new())
///         .spawn_with(|future| drop(tokio::spawn(future)))
///         .lacks(&["batch_over_full_store"])
///         .effort(100)
/// }
/// ```
#[derive(Clone)]
pub struct Harness {
    storage: Arc<dyn Storage>,
    spawn: Option<Spawn>,
    fill: Option<Fill>,
    lacks: &'static [&'static str],
    percent: usize,
    kept: Arc<Vec<Box<dyn Any + Send + Sync>>>,
}

impl Harness {
    /// A store without hooks. Concurrent parts run as joined futures of one task; loops run at 5 % of their full length.
    pub fn new(storage: impl Storage) -> Self {
        Self::of(Arc::new(storage))
    }

    /// As [`Harness::new`], for a store that is shared already.
    pub fn of(storage: Arc<dyn Storage>) -> Self {
        Self {
            storage,
            spawn: None,
            fill: None,
            lacks: &[],
            percent: 5,
            kept: Arc::default(),
        }
    }

    /// How to run a future on its own, so that concurrent parts run on several threads:
    /// `|future| { tokio::spawn(future); }`.
    #[must_use]
    pub fn spawn_with(
        mut self,
        spawn: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static,
    ) -> Self {
        self.spawn = Some(Arc::new(spawn));
        self
    }

    /// How to make the store full (`true`: no page more than it has now) and roomy again (`false`). Who cannot offer it says so
    /// by [`lacks`](Self::lacks) of `batch_over_full_store`.
    #[must_use]
    pub fn fill_with<F>(mut self, fill: impl Fn(bool) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), StorageError>> + Send + 'static,
    {
        self.fill = Some(Arc::new(move |full| Box::pin(fill(full))));
        self
    }

    /// Names of the cases that this backend answers with `Unsupported`: each of them must, and no other may.
    #[must_use]
    pub fn lacks(mut self, cases: &'static [&'static str]) -> Self {
        self.lacks = cases;
        self
    }

    /// Length of the long loops in percent of their full length. Default 5.
    #[must_use]
    pub fn effort(mut self, percent: usize) -> Self {
        self.percent = percent;
        self
    }

    /// Keeps a value for as long as the store is used: a temporary directory, a server.
    ///
    /// # Panics
    /// When the harness was cloned before.
    #[must_use]
    pub fn keep(mut self, value: impl Any + Send + Sync) -> Self {
        Arc::get_mut(&mut self.kept)
            .expect("`keep` is called while the harness is built, before it is cloned")
            .push(Box::new(value));
        self
    }

    /// The same hooks over another store.
    #[must_use]
    pub fn over(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// The store.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Whether this case is to answer `Unsupported`.
    pub(super) fn lacks_case(&self, name: &str) -> bool {
        self.lacks.contains(&name)
    }

    /// Makes the store full or roomy.
    pub(super) async fn fill(&self, full: bool) -> Result<(), StorageError> {
        match &self.fill {
            Some(fill) => fill(full).await,
            None => Err(StorageError::Unsupported {
                what: "a store that can be made full (Harness::fill_with)",
            }),
        }
    }

    /// How often a loop of this full length is run here; at least once.
    pub(super) fn rounds(&self, full: usize) -> usize {
        (full * self.percent / 100).max(1)
    }

    /// Runs the futures at the same time and answers their outputs in order.
    pub(super) async fn at_once<T: Send + 'static>(
        &self,
        futures: Vec<BoxFuture<'static, T>>,
    ) -> Vec<T> {
        let Some(spawn) = &self.spawn else {
            return join_all(futures).await;
        };
        let answers: Vec<_> = futures
            .into_iter()
            .map(|future| {
                let (sender, receiver) = oneshot::channel();
                spawn(Box::pin(async move {
                    let _ = sender.send(future.await);
                }));
                receiver
            })
            .collect();
        let answers = join_all(answers).await.into_iter();
        answers
            .map(|answer| {
                answer.expect("a concurrent part of the case panicked; its message is above")
            })
            .collect()
    }
}

/// What a `fresh` function may return: a [`Harness`], or a bare [`Storage`].
pub trait IntoHarness {
    /// The harness.
    fn into_harness(self) -> Harness;
}

impl IntoHarness for Harness {
    fn into_harness(self) -> Harness {
        self
    }
}

impl<S: Storage> IntoHarness for S {
    fn into_harness(self) -> Harness {
        Harness::new(self)
    }
}
