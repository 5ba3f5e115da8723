//! Who waits for the end of which run, how storage is doing, and what was done so far.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tasker_adaptor::{BlockedReason, Outcome, StorageError, TaskRunId};
use tokio::sync::watch;

use super::stats::{Counted, Counts};

/// How a run stands, as far as somebody who waits cares.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// Completed or failed.
    Outcome(Outcome),
    /// Cancelled.
    Cancelled,
    /// Needs a person.
    Blocked(BlockedReason),
}

/// What this engine has heard of a run since it was submitted here: as long as that is nothing, or says it all, its handle need not read
/// the row.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// How it ended, if that happened here and is small.
    end: OnceLock<End>,
    /// The row says more.
    look: AtomicBool,
}

impl Ending {
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.get()
    }

    /// Whether the row says no more than that the run was submitted, for all that is known here.
    pub(crate) fn is_unheard_of(&self) -> bool {
        self.end.get().is_none() && !self.look.load(Ordering::Acquire)
    }
}

/// Longer results are left in their rows, in bytes: handles may be kept for long.
const SMALL: usize = 1 << 10;

impl End {
    fn is_small(&self) -> bool {
        match self {
            Self::Outcome(Outcome::Completed(value)) => value
                .as_ref()
                .is_none_or(|value| value.text().len() <= SMALL),
            Self::Cancelled => true,
            // A blocked run may go on.
            Self::Outcome(Outcome::Failed(_)) | Self::Blocked(_) => false,
        }
    }
}

/// What a waiting handle sees.
#[derive(Clone, Debug, Default)]
pub(crate) enum News {
    /// Nothing new.
    #[default]
    None,
    /// Look at the row.
    Look,
    /// This is how it ended.
    End(End),
    /// The engine is gone.
    Closed,
}

/// Handles that look at their rows at one time when nobody knows which run ended.
const LOOKS: usize = 64;

/// The waiting handles of an engine.
#[derive(Clone, Default)]
pub(crate) struct Hub {
    inner: Arc<Mutex<Inner>>,
    pub(crate) counts: Arc<Counts>,
}

#[derive(Default)]
struct Inner {
    waiting: Swept<watch::Sender<News>>,
    /// Of runs that were submitted here.
    endings: Swept<Weak<Ending>>,
    /// Where the next round of looking begins.
    looked: usize,
    closed: bool,
    storage: Option<String>,
}

/// Handles before which nothing is swept.
const FEW: usize = 1_024;

/// What handles wait with. Those that gave up tell nobody: they are swept out now and then.
struct Swept<V> {
    by_run: HashMap<TaskRunId, V>,
    /// When there are so many.
    at: usize,
}

impl<V> Default for Swept<V> {
    fn default() -> Self {
        Self {
            by_run: HashMap::new(),
            at: FEW,
        }
    }
}

impl<V> Swept<V> {
    /// Before one is added.
    fn sweep(&mut self, is_wanted: impl Fn(&V) -> bool) {
        if self.by_run.len() >= self.at {
            self.by_run.retain(|_, value| is_wanted(value));
            self.at = (self.by_run.len() * 2).max(FEW);
        }
    }
}

impl Inner {
    /// The row of this run says more than its handle was told.
    fn must_look(&self, run: TaskRunId) {
        if let Some(ending) = self.endings.by_run.get(&run).and_then(Weak::upgrade) {
            ending.look.store(true, Ordering::Release);
        }
    }

    fn tell(&mut self, run: TaskRunId, news: News) {
        if let Some(waiting) = self.waiting.by_run.remove(&run) {
            let _ = waiting.send(news);
        }
    }
}

impl Hub {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for news of a run. Look at the row once after this, unless its [`Ending`] says that nothing can have been missed.
    pub(crate) fn wait_for(&self, run: TaskRunId) -> watch::Receiver<News> {
        let mut inner = self.inner();
        if inner.closed {
            return watch::channel(News::Closed).1;
        }
        inner.waiting.sweep(|news| !news.is_closed());
        inner
            .waiting
            .by_run
            .entry(run)
            .or_insert_with(|| watch::channel(News::None).0)
            .subscribe()
    }

    /// The ending of a run that is about to be submitted.
    pub(crate) fn ending_of(&self, run: TaskRunId) -> Arc<Ending> {
        let mut inner = self.inner();
        inner.endings.sweep(|ending| ending.strong_count() > 0);
        let ending = Arc::<Ending>::default();
        inner.endings.by_run.insert(run, Arc::downgrade(&ending));
        ending
    }

    /// A run ended here.
    pub(crate) fn ended(&self, run: TaskRunId, outcome: Result<Outcome, ()>) {
        self.counts.count(match &outcome {
            Ok(Outcome::Completed(_)) => Counted::RunCompleted,
            Ok(Outcome::Failed(_)) => Counted::RunFailed,
            Err(()) => Counted::RunCancelled,
        });
        let end = match outcome {
            Ok(outcome) => End::Outcome(outcome),
            Err(()) => End::Cancelled,
        };
        let mut inner = self.inner();
        if end.is_small() {
            if let Some(ending) = inner
                .endings
                .by_run
                .remove(&run)
                .and_then(|it| it.upgrade())
            {
                // A run ends once.
                let _ = ending.end.set(end.clone());
            }
        } else {
            inner.must_look(run);
            inner.endings.by_run.remove(&run);
        }
        inner.tell(run, News::End(end));
    }

    /// A run was blocked here.
    pub(crate) fn blocked(&self, run: TaskRunId, reason: BlockedReason) {
        self.counts.count(Counted::RunBlocked);
        let mut inner = self.inner();
        inner.must_look(run);
        inner.tell(run, News::End(End::Blocked(reason)));
    }

    /// A run may have ended elsewhere.
    pub(crate) fn look_at(&self, run: TaskRunId) {
        let inner = self.inner();
        inner.must_look(run);
        if let Some(waiting) = inner.waiting.by_run.get(&run) {
            waiting.send_replace(News::Look);
        }
    }

    /// Any run may have ended elsewhere: a few of those that wait look, in turn, so that many waiting runs are not many reads.
    pub(crate) fn look_at_all(&self) {
        let mut inner = self.inner();
        let count = inner.waiting.by_run.len();
        let first = inner.looked % count.max(1);
        inner.looked = first + LOOKS;
        let waiting = inner.waiting.by_run.values().cycle().skip(first);
        for waiting in waiting.take(LOOKS.min(count)) {
            waiting.send_replace(News::Look);
        }
    }

    /// The engine is gone: nobody will tell anything any more.
    pub(crate) fn close(&self) {
        let mut inner = self.inner();
        inner.closed = true;
        for (_, waiting) in inner.waiting.by_run.drain() {
            let _ = waiting.send(News::Closed);
        }
    }

    pub(crate) fn storage_failed(&self, error: &StorageError) {
        self.inner().storage = Some(error.to_string());
    }

    pub(crate) fn storage_recovered(&self) {
        self.inner().storage = None;
    }

    /// What storage last complained of, until it works again.
    pub(crate) fn storage_problem(&self) -> Option<String> {
        self.inner().storage.clone()
    }
}
