//! Asking for a run.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tasker_adaptor::{InvalidJson, Json, NewTaskRun, StorageError, TaskName, TaskRunId, Timestamp};

use super::core::Shared;
use super::handle::RunHandle;
use super::programs::Current;
use super::{Engine, EngineError};
use crate::limits::check_payload;
use crate::task::Schema;

/// A run that is being asked for. Await it after its options.
#[must_use = "nothing is submitted until this is awaited"]
pub struct Submit {
    engine: Engine,
    task: TaskName,
    input: Result<Json, InvalidJson>,
    id: Option<TaskRunId>,
    idempotency_key: Option<String>,
    priority: i32,
    run_at: Option<Timestamp>,
    deadline: Option<Timestamp>,
    labels: BTreeMap<String, String>,
    correlation_id: Option<String>,
    traceparent: Option<String>,
    validate: bool,
}

impl Engine {
    /// Asks for a run of the task's current version with this input. Await the answer after its options:
    /// `engine.submit("hello", &input).idempotency_key("order-17").await?`.
    ///
    /// # Errors
    /// `UnknownTask`, `BadInput`, `InputTooLarge`, `InputDoesNotFit`, `Storage` (a key that was used for another request is
    /// `StorageError::IdempotencyConflict`).
    pub fn submit<I: Serialize + ?Sized>(&self, task: impl Into<TaskNameArg>, input: &I) -> Submit {
        Submit {
            engine: self.clone(),
            task: task.into().0,
            input: Json::from(input),
            id: None,
            idempotency_key: None,
            priority: 0,
            run_at: None,
            deadline: None,
            labels: BTreeMap::new(),
            correlation_id: None,
            traceparent: None,
            validate: false,
        }
    }

    /// The same with input as JSON text from outside.
    pub fn submit_text(&self, task: impl Into<TaskNameArg>, input: impl Into<String>) -> Submit {
        let mut submit = self.submit(task, &());
        submit.input = Json::parse(input.into());
        submit
    }

    pub(crate) async fn unknown_task(&self, name: &str) -> EngineError {
        let names: Vec<String> = match self.tasks().await {
            Ok(tasks) => tasks
                .into_iter()
                .map(|task| task.name.to_string())
                .collect(),
            Err(error) => return error,
        };
        EngineError::UnknownTask {
            name: name.to_owned(),
            nearest: crate::service::nearest_words(name, &names),
        }
    }
}

/// A task's name in any of its forms.
pub struct TaskNameArg(TaskName);

impl From<&str> for TaskNameArg {
    fn from(name: &str) -> Self {
        Self(TaskName::new(name))
    }
}

impl From<String> for TaskNameArg {
    fn from(name: String) -> Self {
        Self(TaskName::new(name))
    }
}

impl From<TaskName> for TaskNameArg {
    fn from(name: TaskName) -> Self {
        Self(name)
    }
}

impl From<&TaskName> for TaskNameArg {
    fn from(name: &TaskName) -> Self {
        Self(name.clone())
    }
}

impl Submit {
    /// The id of the run: submitted again with it and the same request, the same run is found. Default: a new one.
    pub fn id(mut self, id: TaskRunId) -> Self {
        self.id = Some(id);
        self
    }

    /// A key of the caller's: submitted again with it and the same request, the same run is found.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Higher first. Default 0.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Not before this time.
    pub fn run_at(mut self, time: Timestamp) -> Self {
        self.run_at = Some(time);
        self
    }

    /// After this time calls are not asked any more and fail with `TIMEOUT_ERROR`.
    pub fn deadline(mut self, time: Timestamp) -> Self {
        self.deadline = Some(time);
        self
    }

    /// A name and a value for people and filters.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Travels through every service call of the run.
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// W3C trace context of the caller.
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// Checks the input against the schema read from the task's JSDoc.
    pub fn validate_input(mut self) -> Self {
        self.validate = true;
        self
    }

    async fn send(self) -> Result<RunHandle, EngineError> {
        let shared: Arc<Shared> = Arc::clone(self.engine.shared());
        if shared.stop.is_cancelled() {
            return Err(EngineError::ShutDown);
        }
        let task = self.task.to_string();
        let input = self.input.map_err(|source| EngineError::BadInput {
            task: task.clone(),
            source,
        })?;
        let limits = &shared.options.limits;
        check_payload(&input, limits).map_err(|limit| EngineError::InputTooLarge {
            task: task.clone(),
            problem: limit.failure(limits).message,
        })?;
        let Current::Version(version) = shared.programs.current(&self.task).await? else {
            return Err(self.engine.unknown_task(&task).await);
        };
        if self.validate {
            let function = self.engine.task(&task).await?;
            Schema::from_json(&function.schema)
                .validate(&input)
                .map_err(|problems| EngineError::InputDoesNotFit {
                    task: task.clone(),
                    problems,
                })?;
        }
        let now = shared.clock.now();
        let id = self.id.unwrap_or_else(|| shared.ids.task_run(now));
        let request_hash = hash(&[
            self.task.as_str(),
            input.text(),
            &self.priority.to_string(),
            &self
                .run_at
                .map(|time| time.as_millis().to_string())
                .unwrap_or_default(),
            &self
                .deadline
                .map(|time| time.as_millis().to_string())
                .unwrap_or_default(),
        ]);
        let new = NewTaskRun {
            id,
            root: shared.ids.stack_run(now),
            task: self.task,
            version,
            input,
            idempotency_key: self.idempotency_key,
            request_hash,
            priority: self.priority,
            run_at: self.run_at.unwrap_or(now),
            deadline: self.deadline,
            labels: self.labels,
            correlation_id: self.correlation_id,
            traceparent: self.traceparent,
        };
        let ending = shared.hub.ending_of(id);
        let mut pause = 20;
        let submitted = loop {
            match shared.storage.submit(vec![new.clone()], now).await {
                Ok(mut submitted) => break submitted.pop(),
                // The ids make a repeated submit harmless; a busy or lost database is tried for about three seconds.
                Err(error) if error.is_retryable() && pause < 2_000 => {
                    shared.clock.sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => return Err(error.into()),
            }
        };
        match submitted {
            Some(Ok(submitted)) => {
                // One that was there before may have ended before.
                let ending = submitted.created.then_some(ending);
                Ok(RunHandle::new(shared, submitted.id, ending))
            }
            Some(Err(error)) => Err(error.into()),
            None => Err(EngineError::Storage(StorageError::Misuse {
                what: "submit answered nothing for one run".to_owned(),
            })),
        }
    }
}

impl IntoFuture for Submit {
    type Output = Result<RunHandle, EngineError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// SHA-256 of the parts, each with its length before it.
fn hash(parts: &[&str]) -> String {
    use std::fmt::Write as _;
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize()
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
