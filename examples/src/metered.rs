//! An adaptor that counts what passes through it.
//!
//! What it is: a whole implementation of the storage contract outside the workspace's own adaptors, by delegation, with a meter of its
//! own: how often each operation was asked, and how many turns shared a commit. What it is not: a cache; it changes no answer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tasker_adaptor::{
    Backlog, CallFinish, Cancelled, Claim, ClaimedCall, ClaimedFrame, CommitRefused, FrameJournal,
    Hints, Journal, KeyStore, Lease, LogCursor, LogLine, LogPage, Logs, Maintenance, NewSignal,
    NewTask, NewTaskRun, NewWorker, OwnedRow, Published, Queue, Reaped, ReleasedCall, Retention,
    RunFilter, RunPage, RunStore, SealedValue, Signals, StackRun, StackRunId, Storage,
    StorageError, Submitted, TaskFunction, TaskName, TaskPage, TaskRun, TaskRunId, TaskStore,
    TaskVersion, Timestamp, TurnCommit, TurnReceipt, Unblock, Violation, Watch, WorkerId, Workers,
};

/// A storage with a meter. The meter is shared: keep a clone of it and give the storage away.
#[derive(Clone)]
pub struct Metered<S> {
    inner: S,
    meter: Arc<Meter>,
}

/// What was counted.
#[derive(Default)]
pub struct Meter {
    operations: Mutex<BTreeMap<&'static str, u64>>,
    commits: AtomicU64,
    turns: AtomicU64,
}

impl<S: Storage> Metered<S> {
    /// Counts what passes to `inner`.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            meter: Arc::default(),
        }
    }

    /// The counts.
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }
}

impl Meter {
    /// How often each operation was asked, by its name.
    pub fn operations(&self) -> BTreeMap<&'static str, u64> {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Commits, and the turns in them.
    pub fn commits(&self) -> (u64, u64) {
        (
            self.commits.load(Ordering::Relaxed),
            self.turns.load(Ordering::Relaxed),
        )
    }

    /// Mean number of turns that shared a commit; 0 when there was none.
    pub fn mean_batch(&self) -> f64 {
        let (commits, turns) = self.commits();
        if commits == 0 {
            return 0.0;
        }
        turns as f64 / commits as f64
    }

    fn count(&self, operation: &'static str) {
        *self
            .operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(operation)
            .or_default() += 1;
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (operation, times) in self.operations() {
            writeln!(f, "{operation:20} {times:6}")?;
        }
        writeln!(f, "turns a commit       {:6.1}", self.mean_batch())
    }
}

/// Implements one trait of the contract: each method is counted and passed on.
macro_rules! count_and_pass {
    ($trait:ident { $(fn $method:ident(&self $(, $argument:ident: $type:ty)*) -> $answer:ty;)* }) => {
        #[async_trait]
        impl<S: Storage> $trait for Metered<S> {
            $(async fn $method(&self $(, $argument: $type)*) -> Result<$answer, StorageError> {
                self.meter.count(stringify!($method));
                self.inner.$method($($argument),*).await
            })*
        }
    };
}

count_and_pass!(TaskStore {
    fn publish(&self, task: NewTask, now: Timestamp) -> Published;
    fn task(&self, name: &TaskName, version: Option<&TaskVersion>) -> Option<TaskFunction>;
    fn tasks(&self, after: Option<&TaskName>, max: usize) -> TaskPage;
});

count_and_pass!(RunStore {
    fn submit(&self, runs: Vec<NewTaskRun>, now: Timestamp) -> Vec<Result<Submitted, StorageError>>;
    fn run(&self, id: TaskRunId) -> Option<TaskRun>;
    fn runs(&self, filter: &RunFilter, max: usize) -> RunPage;
    fn cancel(&self, run: TaskRunId, now: Timestamp) -> Cancelled;
    fn request_cancel(&self, run: TaskRunId, cancel_by: Timestamp, now: Timestamp) -> Cancelled;
    fn overdue_cancels(&self, now: Timestamp, max: usize) -> Vec<TaskRunId>;
    fn unblock(&self, unblock: Unblock) -> u32;
});

/// Not by the macro: the commit is what is measured.
#[async_trait]
impl<S: Storage> Queue for Metered<S> {
    async fn commit(
        &self,
        turns: Arc<[TurnCommit]>,
    ) -> Result<Vec<Result<TurnReceipt, CommitRefused>>, StorageError> {
        self.meter.count("commit");
        self.meter.commits.fetch_add(1, Ordering::Relaxed);
        self.meter
            .turns
            .fetch_add(turns.len() as u64, Ordering::Relaxed);
        self.inner.commit(turns).await
    }

    fn has_one_writer(&self) -> bool {
        self.inner.has_one_writer()
    }

    async fn claim_frames(&self, claim: Claim) -> Result<Vec<ClaimedFrame>, StorageError> {
        self.meter.count("claim_frames");
        self.inner.claim_frames(claim).await
    }

    async fn claim_calls(&self, claim: Claim) -> Result<Vec<ClaimedCall>, StorageError> {
        self.meter.count("claim_calls");
        self.inner.claim_calls(claim).await
    }

    async fn finish_calls(
        &self,
        finishes: Arc<[CallFinish]>,
        now: Timestamp,
    ) -> Result<Vec<Result<bool, CommitRefused>>, StorageError> {
        self.meter.count("finish_calls");
        self.inner.finish_calls(finishes, now).await
    }

    async fn release_frames(
        &self,
        frames: &[(StackRunId, Lease)],
        now: Timestamp,
    ) -> Result<Vec<Result<(), CommitRefused>>, StorageError> {
        self.meter.count("release_frames");
        self.inner.release_frames(frames, now).await
    }

    async fn release_calls(
        &self,
        calls: &[ReleasedCall],
        now: Timestamp,
    ) -> Result<Vec<Result<(), CommitRefused>>, StorageError> {
        self.meter.count("release_calls");
        self.inner.release_calls(calls, now).await
    }

    async fn reload_frame(
        &self,
        frame: StackRunId,
        worker: WorkerId,
        now: Timestamp,
    ) -> Result<Option<ClaimedFrame>, StorageError> {
        self.meter.count("reload_frame");
        self.inner.reload_frame(frame, worker, now).await
    }

    async fn fire_timers(
        &self,
        now: Timestamp,
        grace_ms: i64,
        max: usize,
    ) -> Result<usize, StorageError> {
        self.meter.count("fire_timers");
        self.inner.fire_timers(now, grace_ms, max).await
    }

    async fn owned(
        &self,
        worker: WorkerId,
        woken_only: bool,
    ) -> Result<Vec<OwnedRow>, StorageError> {
        self.meter.count("owned");
        self.inner.owned(worker, woken_only).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        self.meter.count("next_due");
        self.inner.next_due().await
    }
}

count_and_pass!(Journal {
    fn load(&self, frame: StackRunId) -> Option<FrameJournal>;
    fn unread(&self, frame: StackRunId) -> Vec<StackRun>;
    fn stack_run(&self, id: StackRunId) -> Option<StackRun>;
    fn stack_runs(&self, run: TaskRunId) -> Vec<StackRun>;
});

count_and_pass!(Workers {
    fn server_time(&self, host_now: Timestamp) -> Timestamp;
    fn register(&self, worker: NewWorker) -> ();
    fn heartbeat(&self, worker: WorkerId, now: Timestamp, lease_ms: i64) -> bool;
    fn retire(&self, worker: WorkerId, now: Timestamp) -> ();
    fn reap(&self, by: WorkerId, now: Timestamp, max: usize) -> Reaped;
});

count_and_pass!(Signals {
    fn send_signal(&self, signal: NewSignal, now: Timestamp) -> bool;
});

count_and_pass!(Logs {
    fn append_logs(&self, run: TaskRunId, frame: Option<StackRunId>, lines: Vec<LogLine>, now: Timestamp) -> ();
    fn logs(&self, run: TaskRunId, after: LogCursor, max: usize) -> LogPage;
});

count_and_pass!(KeyStore {
    fn put_sealed(&self, namespace: &str, key: &str, value: SealedValue) -> ();
    fn replace_sealed(&self, namespace: &str, key: &str, expected: &[u8], value: SealedValue) -> bool;
    fn sealed(&self, namespace: &str, key: &str) -> Option<SealedValue>;
    fn delete_sealed(&self, namespace: &str, key: &str) -> bool;
    fn sealed_keys(&self, namespace: &str) -> Vec<String>;
    fn sealed_namespaces(&self) -> Vec<String>;
});

count_and_pass!(Maintenance {
    fn foldable(&self, ended_before: Timestamp, max: usize) -> Vec<TaskRunId>;
    fn fold(&self, run: TaskRunId, record: Vec<u8>, now: Timestamp) -> bool;
    fn delete_folded_rows(&self, max: usize) -> usize;
    fn delete_runs(&self, retention: &Retention) -> usize;
    fn compact(&self, keep_free: u64) -> bool;
    fn backlog(&self, now: Timestamp, max: usize) -> Backlog;
    fn audit(&self) -> Vec<Violation>;
});

impl<S: Storage> Watch for Metered<S> {
    fn watch(&self) -> Hints {
        self.inner.watch()
    }
}
