//! The engine: claim → load → turn → step → commit → dispatch. The only layer that awaits.

mod asking;
mod background;
mod budget;
mod builder;
mod call_logs;
mod calls;
mod claims;
mod cleaner;
mod clock;
mod core;
mod error;
mod frames;
mod handle;
mod home_threads;
mod hub;
mod ids;
mod lease;
mod load;
mod manual;
mod options;
mod parking;
mod programs;
mod publish;
mod settle;
mod stats;
mod submit;
mod threads;
mod totals;
mod trace;
mod turns;
mod writes;

use std::sync::Arc;

use tasker_adaptor::{
    Backlog, Cancelled, RunFilter, RunPage, StackRunId, TaskFunction, TaskName, TaskRunId, Unblock,
    UnblockDecision, Violation,
};
use tokio::sync::{mpsc, oneshot};

pub use builder::EngineBuilder;
pub use clock::{Clock, SystemClock};
pub use error::{EngineError, RunError};
pub use handle::RunHandle;
pub use manual::Processed;
pub use options::Drive;
pub use publish::{Publish, PublishedTask};
pub use settle::SettledCall;
pub use stats::EngineStats;
pub use submit::Submit;
pub use trace::{Trace, TraceNode};

use self::core::{Message, Shared};
use self::manual::ManualRequest;
use crate::service::Services;

/// Most that [`Engine::backlog`] counts of one kind.
const BACKLOG: usize = 100_000;

/// How an engine is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineHealth {
    /// What storage last complained of; `None` while it works.
    pub storage: Option<String>,
}

/// Runs published tasks durably. Cheap to clone; the last clone that is dropped stops the work (nothing is lost:
/// another engine on the same storage takes it up when the lease has run out). Call [`Engine::shutdown`] to hand over at once.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<EngineInner>,
}

pub(crate) struct EngineInner {
    pub(crate) shared: Arc<Shared>,
    core: mpsc::UnboundedSender<Message>,
    /// To the core too, behind the hints that were given before. Nobody listens where nothing runs.
    #[cfg(feature = "testing")]
    questions: mpsc::UnboundedSender<Message>,
    /// One step by hand at a time.
    by_hand: tokio::sync::Mutex<()>,
}

impl Drop for EngineInner {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.hub.close();
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("worker", &self.shared().options.worker_name)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Begins the settings of an engine.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// The services, for calls of the host itself, for lists and health.
    pub fn services(&self) -> Services {
        self.shared().services.clone()
    }

    /// How the engine is doing.
    pub fn health(&self) -> EngineHealth {
        EngineHealth {
            storage: self.shared().hub.storage_problem(),
        }
    }

    /// What this engine did since it was started, and what it holds now.
    pub fn stats(&self) -> EngineStats {
        self.shared().hub.counts.stats()
    }

    /// What is open in storage and what waits for a worker, whoever's: each count stops at 100 000, so that asking costs
    /// milliseconds whatever has piled up.
    ///
    /// # Errors
    /// `Storage`: also where the adaptor does not count.
    pub async fn backlog(&self) -> Result<Backlog, EngineError> {
        let now = self.shared().clock.now();
        Ok(self.shared().storage.backlog(now, BACKLOG).await?)
    }

    /// The run of this id, submitted now or by another process months ago.
    ///
    /// # Errors
    /// `UnknownRun`; `Storage`.
    pub async fn run(&self, id: TaskRunId) -> Result<RunHandle, EngineError> {
        match self.shared().storage.run(id).await? {
            Some(_) => Ok(RunHandle::new(Arc::clone(self.shared()), id, None)),
            None => Err(EngineError::UnknownRun { id }),
        }
    }

    /// Runs that pass the filter, newest first, at most `max`.
    pub async fn runs(&self, filter: &RunFilter, max: usize) -> Result<RunPage, EngineError> {
        Ok(self.shared().storage.runs(filter, max).await?)
    }

    /// The current version of a task.
    ///
    /// # Errors
    /// `UnknownTask` naming similar ones; `Storage`.
    pub async fn task(&self, name: &str) -> Result<TaskFunction, EngineError> {
        match self
            .shared()
            .storage
            .task(&TaskName::new(name), None)
            .await?
        {
            Some(task) => Ok(task),
            None => Err(self.unknown_task(name).await),
        }
    }

    /// All tasks in their current versions, by name.
    pub async fn tasks(&self) -> Result<Vec<TaskFunction>, EngineError> {
        let mut tasks = Vec::new();
        let mut after = None;
        loop {
            let page = self.shared().storage.tasks(after.as_ref(), 100).await?;
            tasks.extend(page.tasks);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(tasks),
            }
        }
    }

    /// Cancels a run, as [`RunHandle::cancel`] does.
    ///
    /// # Errors
    /// `UnknownRun`; `Storage`.
    pub async fn cancel(&self, run: TaskRunId) -> Result<Cancelled, EngineError> {
        self.run(run).await?.cancel().await
    }

    /// Takes a blocked run up again: all its blocked rows, as `decision` says.
    /// To end it instead, cancel it. Answers how many rows changed; 0 when the run was not blocked.
    ///
    /// # Errors
    /// `UnknownRun`; `Storage`.
    pub async fn unblock(
        &self,
        run: TaskRunId,
        decision: UnblockDecision,
    ) -> Result<u32, EngineError> {
        self.run(run).await?;
        let now = self.shared().clock.now();
        let changed = self
            .shared()
            .storage
            .unblock(Unblock {
                run,
                row: None,
                decision,
                now,
            })
            .await?;
        let _ = self
            .inner
            .core
            .send(Message::Hint(tasker_adaptor::Hint::Work));
        Ok(changed)
    }

    /// Checks the database: every row that breaks an invariant of the protocol. Empty when all is well.
    pub async fn audit(&self) -> Result<Vec<Violation>, EngineError> {
        Ok(self.shared().storage.audit().await?)
    }

    /// Takes the next ready stack run through one turn or one call ([`Drive::Manual`] only).
    ///
    /// # Errors
    /// `WrongDrive`; `ShutDown`.
    pub async fn process_next(&self) -> Result<Processed, EngineError> {
        self.process_row(None).await
    }

    /// Takes this stack run, if it is ready, through one turn or one call ([`Drive::Manual`] only).
    ///
    /// # Errors
    /// `WrongDrive`; `ShutDown`.
    pub async fn process(&self, row: StackRunId) -> Result<Processed, EngineError> {
        self.process_row(Some(row)).await
    }

    async fn process_row(&self, only: Option<StackRunId>) -> Result<Processed, EngineError> {
        if self.shared().options.drive != Drive::Manual {
            return Err(EngineError::WrongDrive {
                what: "this engine drives runs by itself: build it with .drive(Drive::Manual) to drive by hand",
            });
        }
        let _one = self.inner.by_hand.lock().await;
        let (done, processed) = oneshot::channel();
        let request = Message::Manual(ManualRequest { only, done });
        self.inner
            .core
            .send(request)
            .map_err(|_| EngineError::ShutDown)?;
        processed.await.map_err(|_| EngineError::ShutDown)
    }

    /// Drains for at most 10 seconds, gives everything back, and stops. A second call is a no-op.
    pub async fn shutdown(&self) -> Result<(), EngineError> {
        self.shutdown_within(10_000).await
    }

    /// Drains for at most this many milliseconds: turns and calls under way are finished and recorded, the rest is given
    /// back for others to take at once. What is still being asked after that is in doubt, and its policy decides.
    pub async fn shutdown_within(&self, millis: u64) -> Result<(), EngineError> {
        let (done, finished) = oneshot::channel();
        if self
            .inner
            .core
            .send(Message::Shutdown {
                deadline_ms: millis,
                done,
            })
            .is_ok()
        {
            let _ = finished.await;
        }
        self.shared().stop.cancel();
        self.shared().hub.close();
        Ok(())
    }

    /// Waits until nothing moves any more: no turn, write, claim or call is under way, and what waits, waits for the clock or for others.
    #[cfg(feature = "testing")]
    pub async fn quiet(&self) {
        self.wait_for_quiet(false).await;
    }

    /// As [`Engine::quiet`], but services may be at work.
    #[cfg(feature = "testing")]
    pub async fn quiet_but_calls(&self) {
        self.wait_for_quiet(true).await;
    }

    #[cfg(feature = "testing")]
    async fn wait_for_quiet(&self, but_calls: bool) {
        let (done, quiet) = oneshot::channel();
        let asked = Message::Quiet { but_calls, done };
        if self.inner.questions.send(asked).is_ok() {
            let _ = quiet.await;
        }
    }

    /// Stops at once, as a crash would: nothing is drained, recorded or given back.
    pub fn abandon(&self) {
        self.shared().stop.cancel();
        self.shared().hub.close();
    }
}
