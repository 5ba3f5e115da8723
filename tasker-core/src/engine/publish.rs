//! Publishing tasks.

use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use tasker_adaptor::{Published, TaskName, TaskVersion};
use tokio::sync::oneshot;

use super::background::OsThread;
use super::programs::Current;
use super::{Engine, EngineError};
use crate::limits::{Limit, Limits};
use crate::task::{PreparedTask, TaskError, TaskOptions, TaskSource, prepare, read_dir};
use crate::vm::{Stopper, check_program_until};
use crate::wall::guard::Spent;
use crate::wall::worker::thread_stack;

/// What publishing a task did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTask {
    /// Its name.
    pub name: TaskName,
    /// Its version: the hash of what was published.
    pub version: TaskVersion,
    /// Whether it was there before.
    pub published: Published,
    /// What the publisher should look at; nothing that stops the task.
    pub warnings: Vec<String>,
}

/// A task that is being published. Await it after its options.
#[must_use = "nothing is published until this is awaited"]
pub struct Publish {
    engine: Engine,
    source: TaskSource,
    options: TaskOptions,
}

impl Engine {
    /// Publishes a task from its source: name from `@task`, else from its only function. Await after the options:
    /// `engine.publish(source).grant("keystore").await?`. Publishing the same source again changes nothing.
    ///
    /// # Errors
    /// `Task` (does not parse, has nothing to run, too large …) with file, line and column; `DoesNotCompile`; `Storage`.
    pub fn publish(&self, source: impl Into<String>) -> Publish {
        self.publish_source(TaskSource::text(source))
    }

    /// Publishes a task with a name, a file name or modules of its own.
    ///
    /// # Errors
    /// As [`Engine::publish`].
    pub fn publish_source(&self, source: TaskSource) -> Publish {
        Publish {
            engine: self.clone(),
            source,
            options: TaskOptions::default(),
        }
    }

    /// Publishes every task below a folder.
    ///
    /// # Errors
    /// As [`Engine::publish_dirs`].
    pub async fn publish_dir(
        &self,
        dir: impl AsRef<Path>,
    ) -> Result<Vec<PublishedTask>, EngineError> {
        self.publish_dirs(&[dir.as_ref().to_owned()]).await
    }

    /// Publishes every task below several folders; relative imports are packed. Nothing is published when one of them is wrong.
    ///
    /// # Errors
    /// As [`Engine::publish`]; two files with one task name are an error that names both.
    pub async fn publish_dirs(&self, dirs: &[PathBuf]) -> Result<Vec<PublishedTask>, EngineError> {
        let limits = &self.shared().options.limits;
        let mut ready = Vec::new();
        for source in read_dir(dirs, limits)? {
            ready.push(self.check(source, TaskOptions::default()).await?);
        }
        let mut published = Vec::with_capacity(ready.len());
        for prepared in ready {
            published.push(self.store(prepared).await?);
        }
        Ok(published)
    }

    /// Parses and compiles on a thread of its own: both are as slow as a hostile text can make them.
    async fn check(
        &self,
        source: TaskSource,
        options: TaskOptions,
    ) -> Result<PreparedTask, EngineError> {
        let shared = self.shared();
        let limits = Arc::clone(&shared.options.limits);
        let file = source.path.clone();
        let stopper = Stopper::default();
        let (done, answer) = oneshot::channel();
        let (detached, go) = std::sync::mpsc::channel::<()>();
        let (begins, begun) = oneshot::channel();
        let thread = OsThread::default();
        let checking = {
            let (limits, stopper, thread) = (Arc::clone(&limits), stopper.clone(), thread.clone());
            move || {
                // It must not end while it is being detached (see `VmThread`).
                let _ = go.recv();
                thread.is_here();
                let _ = begins.send(());
                // Nobody waits for it any more: the publisher was told that it took too long.
                let _ = done.send(check(source, &options, &limits, &stopper));
            }
        };
        std::thread::Builder::new()
            .name("tasker-check".to_owned())
            .stack_size(thread_stack(limits.stack_bytes))
            .spawn(checking)
            .map(drop)
            .map_err(|source| TaskError::Thread { file, source })?;
        drop(detached);
        let guard = async {
            let _ = begun.await;
            let begun_ms = shared.clock.monotonic_ms();
            // As for a turn: on a machine that is busy with something else its processor time counts.
            let has_had = async |guard_ms: u64| {
                loop {
                    let clock_ms = shared.clock.monotonic_ms().saturating_sub(begun_ms);
                    let clock_ms = clock_ms.max(0).unsigned_abs();
                    let spent = Spent::when_due(clock_ms, guard_ms, || thread.processor_ms());
                    let rest_ms = match spent {
                        Some(spent) if spent.is_over(guard_ms) => return,
                        Some(spent) => spent.rest_ms(guard_ms),
                        None => guard_ms - clock_ms,
                    };
                    shared.clock.sleep(rest_ms).await;
                }
            };
            has_had(limits.turn_wall_ms).await;
            stopper.stop();
            has_had(limits.turn_wall_ms.saturating_add(STOP_MS)).await;
        };
        let too_slow = || EngineError::DoesNotCompile {
            name: "the task".to_owned(),
            failure: Limit::WallClock.failure(&limits),
        };
        tokio::select! {
            biased;
            checked = answer => checked.unwrap_or_else(|_| Err(too_slow())),
            () = guard => Err(too_slow()),
        }
    }

    async fn store(&self, prepared: PreparedTask) -> Result<PublishedTask, EngineError> {
        let shared = Arc::clone(self.shared());
        let (name, version) = (
            prepared.new_task.name.clone(),
            prepared.new_task.version.clone(),
        );
        let published = shared
            .storage
            .publish(prepared.new_task, shared.clock.now())
            .await?;
        shared
            .programs
            .set_current(&name, Current::Version(version.clone()));
        Ok(PublishedTask {
            name,
            version,
            published,
            warnings: prepared.warnings,
        })
    }
}

/// How long after it should have stopped a check may go on before nobody waits for it, in milliseconds.
const STOP_MS: u64 = 1_000;

fn check(
    source: TaskSource,
    options: &TaskOptions,
    limits: &Limits,
    stopper: &Stopper,
) -> Result<PreparedTask, EngineError> {
    let prepared = prepare(source, options, limits)?;
    check_program_until(&prepared.program, limits, stopper).map_err(|failure| {
        EngineError::DoesNotCompile {
            name: prepared.new_task.name.to_string(),
            failure,
        }
    })?;
    Ok(prepared)
}

impl Publish {
    /// The task's name, whatever its source says.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.source.name = Some(name.into());
        self
    }

    /// Lets the task call a private service.
    pub fn grant(mut self, service: impl Into<String>) -> Self {
        self.options.grants.push(service.into());
        self
    }

    /// Lets the task call these methods of a service and no others of it; see [`TaskOptions::grant_methods`].
    pub fn grant_methods<M: Into<String>>(
        mut self,
        service: impl Into<String>,
        methods: impl IntoIterator<Item = M>,
    ) -> Self {
        self.options = self.options.grant_methods(service, methods);
        self
    }

    /// All options at once.
    pub fn options(mut self, options: TaskOptions) -> Self {
        self.options = options;
        self
    }
}

impl IntoFuture for Publish {
    type Output = Result<PublishedTask, EngineError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let prepared = self.engine.check(self.source, self.options).await?;
            self.engine.store(prepared).await
        })
    }
}
