//! Every method of the contract, passed through the control.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;

use super::FaultStorage;
use super::control::{FaultAction, Written, lost};
use crate::{
    Backlog, CallFinish, Cancelled, Claim, ClaimedCall, ClaimedFrame, CommitRefused, FrameJournal,
    Hint, Hints, Journal, KeyStore, Lease, LogCursor, LogLine, LogPage, Logs, Maintenance,
    NewSignal, NewTask, NewTaskRun, NewWorker, OwnedRow, Published, Queue, Reaped, ReleasedCall,
    Retention, RunFilter, RunPage, RunStore, SealedValue, Signals, StackRun, StackRunId,
    StorageError, Submitted, TaskFunction, TaskName, TaskPage, TaskRun, TaskRunId, TaskStore,
    TaskVersion, Timestamp, TurnCommit, TurnReceipt, Unblock, Violation, Watch, WorkerId, Workers,
};

impl FaultStorage {
    /// One call of the contract, with what the control says about it.
    async fn run<T, F>(
        &self,
        method: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, StorageError>> + Send,
        T: Send,
    {
        let _under_way = self.control.begin();
        match self.control.decide(method) {
            FaultAction::Pass => call().await,
            FaultAction::FailBefore => Err(lost(method)),
            FaultAction::FailAfter => {
                call().await?;
                Err(lost(method))
            }
            FaultAction::Delay => {
                let released = self.control.wait().await.is_ok();
                if !released || self.control.is_dead() {
                    return Err(lost(method));
                }
                call().await
            }
            FaultAction::Repeat => {
                call().await?;
                call().await
            }
            FaultAction::Die => {
                self.control.kill();
                Err(lost(method))
            }
            FaultAction::DieAfter => {
                let answer = call().await;
                self.control.kill();
                answer.and(Err(lost(method)))
            }
        }
    }
}

#[async_trait]
impl TaskStore for FaultStorage {
    async fn publish(&self, task: NewTask, now: Timestamp) -> Result<Published, StorageError> {
        self.run("publish", || self.inner.publish(task.clone(), now))
            .await
    }

    async fn task(
        &self,
        name: &TaskName,
        version: Option<&TaskVersion>,
    ) -> Result<Option<TaskFunction>, StorageError> {
        self.run("task", || self.inner.task(name, version)).await
    }

    async fn tasks(&self, after: Option<&TaskName>, max: usize) -> Result<TaskPage, StorageError> {
        self.run("tasks", || self.inner.tasks(after, max)).await
    }
}

#[async_trait]
impl RunStore for FaultStorage {
    async fn submit(
        &self,
        runs: Vec<NewTaskRun>,
        now: Timestamp,
    ) -> Result<Vec<Result<Submitted, StorageError>>, StorageError> {
        self.run("submit", || self.inner.submit(runs.clone(), now))
            .await
    }

    async fn run(&self, id: TaskRunId) -> Result<Option<TaskRun>, StorageError> {
        self.run("run", || self.inner.run(id)).await
    }

    async fn runs(&self, filter: &RunFilter, max: usize) -> Result<RunPage, StorageError> {
        self.run("runs", || self.inner.runs(filter, max)).await
    }

    async fn cancel(&self, run: TaskRunId, now: Timestamp) -> Result<Cancelled, StorageError> {
        self.run("cancel", || self.inner.cancel(run, now)).await
    }

    async fn request_cancel(
        &self,
        run: TaskRunId,
        cancel_by: Timestamp,
        now: Timestamp,
    ) -> Result<Cancelled, StorageError> {
        self.run("request_cancel", || {
            self.inner.request_cancel(run, cancel_by, now)
        })
        .await
    }

    async fn overdue_cancels(
        &self,
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<TaskRunId>, StorageError> {
        self.run("overdue_cancels", || self.inner.overdue_cancels(now, max))
            .await
    }

    async fn unblock(&self, unblock: Unblock) -> Result<u32, StorageError> {
        self.run("unblock", || self.inner.unblock(unblock.clone()))
            .await
    }
}

#[async_trait]
impl Queue for FaultStorage {
    async fn claim_frames(&self, claim: Claim) -> Result<Vec<ClaimedFrame>, StorageError> {
        self.run("claim_frames", || self.inner.claim_frames(claim))
            .await
    }

    async fn claim_calls(&self, claim: Claim) -> Result<Vec<ClaimedCall>, StorageError> {
        self.run("claim_calls", || self.inner.claim_calls(claim))
            .await
    }

    async fn commit(
        &self,
        turns: Arc<[TurnCommit]>,
    ) -> Result<Vec<Result<TurnReceipt, CommitRefused>>, StorageError> {
        self.run("commit", || async {
            let answers = self.inner.commit(Arc::clone(&turns)).await?;
            let written: Vec<Written<'_>> = turns
                .iter()
                .zip(&answers)
                .map(|(turn, answer)| Written::Turn(turn, answer))
                .collect();
            self.control.written(&written);
            Ok(answers)
        })
        .await
    }

    fn has_one_writer(&self) -> bool {
        self.inner.has_one_writer()
    }

    async fn finish_calls(
        &self,
        finishes: Arc<[CallFinish]>,
        now: Timestamp,
    ) -> Result<Vec<Result<bool, CommitRefused>>, StorageError> {
        self.run("finish_calls", || async {
            let answers = self.inner.finish_calls(Arc::clone(&finishes), now).await?;
            let written: Vec<Written<'_>> = finishes
                .iter()
                .zip(&answers)
                .map(|(finish, answer)| Written::Call(finish, answer))
                .collect();
            self.control.written(&written);
            Ok(answers)
        })
        .await
    }

    async fn release_frames(
        &self,
        frames: &[(StackRunId, Lease)],
        now: Timestamp,
    ) -> Result<Vec<Result<(), CommitRefused>>, StorageError> {
        self.run("release_frames", || self.inner.release_frames(frames, now))
            .await
    }

    async fn release_calls(
        &self,
        calls: &[ReleasedCall],
        now: Timestamp,
    ) -> Result<Vec<Result<(), CommitRefused>>, StorageError> {
        self.run("release_calls", || self.inner.release_calls(calls, now))
            .await
    }

    async fn reload_frame(
        &self,
        frame: StackRunId,
        worker: WorkerId,
        now: Timestamp,
    ) -> Result<Option<ClaimedFrame>, StorageError> {
        self.run("reload_frame", || {
            self.inner.reload_frame(frame, worker, now)
        })
        .await
    }

    async fn fire_timers(
        &self,
        now: Timestamp,
        grace_ms: i64,
        max: usize,
    ) -> Result<usize, StorageError> {
        self.run("fire_timers", || self.inner.fire_timers(now, grace_ms, max))
            .await
    }

    async fn owned(
        &self,
        worker: WorkerId,
        woken_only: bool,
    ) -> Result<Vec<OwnedRow>, StorageError> {
        self.run("owned", || self.inner.owned(worker, woken_only))
            .await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        self.run("next_due", || self.inner.next_due()).await
    }
}

#[async_trait]
impl Journal for FaultStorage {
    async fn load(&self, frame: StackRunId) -> Result<Option<FrameJournal>, StorageError> {
        self.run("load", || self.inner.load(frame)).await
    }

    async fn unread(&self, frame: StackRunId) -> Result<Vec<StackRun>, StorageError> {
        self.run("unread", || self.inner.unread(frame)).await
    }

    async fn stack_run(&self, id: StackRunId) -> Result<Option<StackRun>, StorageError> {
        self.run("stack_run", || self.inner.stack_run(id)).await
    }

    async fn stack_runs(&self, run: TaskRunId) -> Result<Vec<StackRun>, StorageError> {
        self.run("stack_runs", || self.inner.stack_runs(run)).await
    }
}

#[async_trait]
impl Workers for FaultStorage {
    async fn server_time(&self, host_now: Timestamp) -> Result<Timestamp, StorageError> {
        let now = self.control.server_now().unwrap_or(host_now);
        self.run("server_time", || self.inner.server_time(now))
            .await
    }

    async fn register(&self, worker: NewWorker) -> Result<(), StorageError> {
        self.run("register", || self.inner.register(worker.clone()))
            .await
    }

    async fn heartbeat(
        &self,
        worker: WorkerId,
        now: Timestamp,
        lease_ms: i64,
    ) -> Result<bool, StorageError> {
        self.run("heartbeat", || self.inner.heartbeat(worker, now, lease_ms))
            .await
    }

    async fn retire(&self, worker: WorkerId, now: Timestamp) -> Result<(), StorageError> {
        self.run("retire", || self.inner.retire(worker, now)).await
    }

    async fn reap(&self, by: WorkerId, now: Timestamp, max: usize) -> Result<Reaped, StorageError> {
        self.run("reap", || self.inner.reap(by, now, max)).await
    }
}

#[async_trait]
impl Signals for FaultStorage {
    async fn send_signal(&self, signal: NewSignal, now: Timestamp) -> Result<bool, StorageError> {
        self.run("send_signal", || {
            self.inner.send_signal(signal.clone(), now)
        })
        .await
    }
}

#[async_trait]
impl Logs for FaultStorage {
    async fn append_logs(
        &self,
        run: TaskRunId,
        frame: Option<StackRunId>,
        lines: Vec<LogLine>,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        self.run("append_logs", || {
            self.inner.append_logs(run, frame, lines.clone(), now)
        })
        .await
    }

    async fn logs(
        &self,
        run: TaskRunId,
        after: LogCursor,
        max: usize,
    ) -> Result<LogPage, StorageError> {
        self.run("logs", || self.inner.logs(run, after, max)).await
    }
}

#[async_trait]
impl KeyStore for FaultStorage {
    async fn put_sealed(
        &self,
        namespace: &str,
        key: &str,
        value: SealedValue,
    ) -> Result<(), StorageError> {
        self.run("put_sealed", || {
            self.inner.put_sealed(namespace, key, value.clone())
        })
        .await
    }

    async fn replace_sealed(
        &self,
        namespace: &str,
        key: &str,
        expected: &[u8],
        value: SealedValue,
    ) -> Result<bool, StorageError> {
        self.run("replace_sealed", || {
            self.inner
                .replace_sealed(namespace, key, expected, value.clone())
        })
        .await
    }

    async fn sealed(
        &self,
        namespace: &str,
        key: &str,
    ) -> Result<Option<SealedValue>, StorageError> {
        self.run("sealed", || self.inner.sealed(namespace, key))
            .await
    }

    async fn delete_sealed(&self, namespace: &str, key: &str) -> Result<bool, StorageError> {
        self.run("delete_sealed", || self.inner.delete_sealed(namespace, key))
            .await
    }

    async fn sealed_keys(&self, namespace: &str) -> Result<Vec<String>, StorageError> {
        self.run("sealed_keys", || self.inner.sealed_keys(namespace))
            .await
    }

    async fn sealed_namespaces(&self) -> Result<Vec<String>, StorageError> {
        self.run("sealed_namespaces", || self.inner.sealed_namespaces())
            .await
    }
}

#[async_trait]
impl Maintenance for FaultStorage {
    async fn foldable(
        &self,
        ended_before: Timestamp,
        max: usize,
    ) -> Result<Vec<TaskRunId>, StorageError> {
        self.run("foldable", || self.inner.foldable(ended_before, max))
            .await
    }

    async fn fold(
        &self,
        run: TaskRunId,
        record: Vec<u8>,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        self.run("fold", || self.inner.fold(run, record.clone(), now))
            .await
    }

    async fn delete_folded_rows(&self, max: usize) -> Result<usize, StorageError> {
        self.run("delete_folded_rows", || self.inner.delete_folded_rows(max))
            .await
    }

    async fn delete_runs(&self, retention: &Retention) -> Result<usize, StorageError> {
        self.run("delete_runs", || self.inner.delete_runs(retention))
            .await
    }

    async fn compact(&self, keep_free: u64) -> Result<bool, StorageError> {
        self.run("compact", || self.inner.compact(keep_free)).await
    }

    async fn backlog(&self, now: Timestamp, max: usize) -> Result<Backlog, StorageError> {
        self.run("backlog", || self.inner.backlog(now, max)).await
    }

    async fn audit(&self) -> Result<Vec<Violation>, StorageError> {
        self.run("audit", || self.inner.audit()).await
    }
}

impl Watch for FaultStorage {
    /// Hints of the wrapped store; a dead one gives none.
    fn watch(&self) -> Hints {
        let control = self.control.clone();
        let alive = move |_: &Hint| futures::future::ready(!control.is_dead());
        self.inner.watch().filter(alive).boxed()
    }
}
