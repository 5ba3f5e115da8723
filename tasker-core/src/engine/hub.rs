//! Who waits for the end of which run, how storage is doing, and what was done so far.

use std::collections::HashMap;
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

/// How a run ended, if that happened in this engine after its handle was made, and is small: the handle need not read the row.
pub(crate) type Ending = Arc<OnceLock<End>>;

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

/// What [`Hub::wait_for`] gives.
pub(crate) struct Wait {
    pub(crate) news: watch::Receiver<News>,
    /// The run was submitted here, and nothing was heard of it since: its row need not be looked at. That of any other must, once after
    /// this.
    pub(crate) is_unheard_of: bool,
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
    endings: Swept<Submitted>,
    /// How often any run may have ended elsewhere.
    rumours: u64,
    /// Where the next round of looking begins.
    looked: usize,
    closed: bool,
    storage: Option<String>,
}

/// A run that was submitted here and has not ended here.
struct Submitted {
    ending: Weak<OnceLock<End>>,
    /// [`Inner::rumours`] at that time.
    rumours: u64,
    /// Something was heard of it since.
    heard_of: bool,
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
    fn heard_of(&mut self, run: TaskRunId) {
        if let Some(submitted) = self.endings.by_run.get_mut(&run) {
            submitted.heard_of = true;
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

    /// Waits for news of a run.
    pub(crate) fn wait_for(&self, run: TaskRunId) -> Wait {
        let mut inner = self.inner();
        if inner.closed {
            return Wait {
                news: watch::channel(News::Closed).1,
                is_unheard_of: false,
            };
        }
        inner.waiting.sweep(|news| !news.is_closed());
        let submitted = inner.endings.by_run.get(&run);
        let is_unheard_of =
            submitted.is_some_and(|here| !here.heard_of && here.rumours == inner.rumours);
        let waiting = inner.waiting.by_run.entry(run);
        Wait {
            news: waiting
                .or_insert_with(|| watch::channel(News::None).0)
                .subscribe(),
            is_unheard_of,
        }
    }

    /// The ending of a run that is about to be submitted.
    pub(crate) fn ending_of(&self, run: TaskRunId) -> Ending {
        let mut inner = self.inner();
        inner
            .endings
            .sweep(|submitted| submitted.ending.strong_count() > 0);
        let ending = Ending::default();
        let submitted = Submitted {
            ending: Arc::downgrade(&ending),
            rumours: inner.rumours,
            heard_of: false,
        };
        inner.endings.by_run.insert(run, submitted);
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
        if let Some(submitted) = inner.endings.by_run.remove(&run)
            && let Some(ending) = submitted.ending.upgrade()
            && end.is_small()
        {
            // A run ends once.
            let _ = ending.set(end.clone());
        }
        inner.tell(run, News::End(end));
    }

    /// A run was blocked here.
    pub(crate) fn blocked(&self, run: TaskRunId, reason: BlockedReason) {
        self.counts.count(Counted::RunBlocked);
        let mut inner = self.inner();
        inner.heard_of(run);
        inner.tell(run, News::End(End::Blocked(reason)));
    }

    /// A run may have ended elsewhere.
    pub(crate) fn look_at(&self, run: TaskRunId) {
        let mut inner = self.inner();
        inner.heard_of(run);
        if let Some(waiting) = inner.waiting.by_run.get(&run) {
            waiting.send_replace(News::Look);
        }
    }

    /// Any run may have ended elsewhere: a few of those that wait look, in turn, so that many waiting runs are not many reads.
    pub(crate) fn look_at_all(&self) {
        let mut inner = self.inner();
        inner.rumours += 1;
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

#[cfg(test)]
mod tests {
    use tasker_adaptor::{Json, Timestamp};

    use super::*;

    fn run(number: u128) -> TaskRunId {
        TaskRunId::from_parts(Timestamp::from_millis(7), number)
    }

    #[test]
    fn a_row_need_not_be_read_while_nothing_is_heard_of_its_run() {
        let hub = Hub::default();
        let is_unheard_of = |number| hub.wait_for(run(number)).is_unheard_of;
        let _endings: Vec<Ending> = (0..4).map(|number| hub.ending_of(run(number))).collect();
        assert!((0..4).all(is_unheard_of));
        assert!(!is_unheard_of(4), "of one that was submitted elsewhere");
        hub.look_at(run(0));
        assert!(!is_unheard_of(0));
        let reason = BlockedReason::OutcomeUnknown {
            service: "svc".to_owned(),
            path: "step".to_owned(),
        };
        hub.blocked(run(1), reason);
        assert!(!is_unheard_of(1));
        let large = Json::from(&"x".repeat(2 * SMALL)).unwrap();
        hub.ended(run(2), Ok(Outcome::Completed(Some(large))));
        assert!(!is_unheard_of(2), "its row says how it ended");
        assert!(is_unheard_of(3));
        // Any run may have ended elsewhere, but for those that come later.
        hub.look_at_all();
        let _later = hub.ending_of(run(5));
        assert!(!is_unheard_of(3) && is_unheard_of(5));
        hub.close();
        assert!(!is_unheard_of(5));
    }
}
