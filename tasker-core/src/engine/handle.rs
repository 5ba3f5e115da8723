//! A run in the hands of whoever asked for it.

use std::sync::Arc;

use futures::Stream;
use futures::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tasker_adaptor::{
    Cancelled, Json, LogCursor, NewSignal, Outcome, RunStatus, StoredLogLine, TaskRun, TaskRunId,
};

use super::core::Shared;
use super::error::{EngineError, RunError};
use super::hub::{End, Ending, News, Wait};
use super::trace::{self, Trace};
use crate::limits::{check_payload, is_signal_name};

/// Log lines read at one time.
const LINES: usize = 200;

/// A run. Dropping the handle changes nothing; [`crate::Engine::run`] gives another one.
#[derive(Clone)]
pub struct RunHandle {
    shared: Arc<Shared>,
    id: TaskRunId,
    ending: Option<Ending>,
}

impl std::fmt::Debug for RunHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunHandle({})", self.id)
    }
}

impl RunHandle {
    pub(crate) fn new(shared: Arc<Shared>, id: TaskRunId, ending: Option<Ending>) -> Self {
        Self { shared, id, ending }
    }

    /// Its id: keep it, and ask `engine.run(id)` after a restart.
    pub fn id(&self) -> TaskRunId {
        self.id
    }

    /// The row of the run.
    ///
    /// # Errors
    /// `UnknownRun` when retention deleted it; `Storage`.
    pub async fn info(&self) -> Result<TaskRun, EngineError> {
        self.shared
            .storage
            .run(self.id)
            .await?
            .ok_or(EngineError::UnknownRun { id: self.id })
    }

    /// Where it is.
    pub async fn status(&self) -> Result<RunStatus, EngineError> {
        Ok(self.info().await?.status)
    }

    /// Waits for the end and reads the result as `T` (`()` or `Json` for anything; `undefined` reads as `null`).
    ///
    /// # Errors
    /// The run failed, is blocked, was cancelled; this engine shut down first; the result is no `T`.
    pub async fn result<T: DeserializeOwned>(&self) -> Result<T, RunError> {
        let value = self.outcome().await?.unwrap_or_default();
        value.to().map_err(RunError::BadResult)
    }

    /// Waits for the end and gives the result as it is; `None` is `undefined`.
    ///
    /// # Errors
    /// As [`RunHandle::result`].
    pub async fn outcome(&self) -> Result<Option<Json>, RunError> {
        if let Some(end) = self.ending() {
            return result_of(end);
        }
        let Wait {
            mut news,
            is_unheard_of,
        } = self.shared.hub.wait_for(self.id);
        if let Some(end) = self.ending() {
            return result_of(end);
        }
        // The row is read after the wait was announced, so that no end is missed.
        let mut looks = !(is_unheard_of && self.ending.is_some());
        loop {
            if looks && let Some(end) = self.end_of_row().await? {
                return result_of(end);
            }
            loop {
                if news.changed().await.is_err() {
                    // Told and forgotten: the row says it.
                    news = self.shared.hub.wait_for(self.id).news;
                    break;
                }
                let seen = news.borrow_and_update().clone();
                match seen {
                    News::None => {}
                    News::Look => break,
                    News::End(end) => return result_of(end),
                    News::Closed => return Err(RunError::Detached),
                }
            }
            if looks && matches!(&*news.borrow(), News::Closed) {
                return Err(RunError::Detached);
            }
            looks = true;
        }
    }

    fn ending(&self) -> Option<End> {
        self.ending.as_ref()?.get().cloned()
    }

    async fn end_of_row(&self) -> Result<Option<End>, RunError> {
        let run = self.info().await?;
        Ok(match (run.status, run.outcome, run.blocked) {
            (RunStatus::Cancelled, ..) => Some(End::Cancelled),
            (RunStatus::Completed | RunStatus::Failed, Some(outcome), _) => {
                Some(End::Outcome(outcome))
            }
            (RunStatus::Blocked, _, Some(reason)) => Some(End::Blocked(reason)),
            _ => None,
        })
    }

    /// Cancels: the task sees a `CancelledError` at its pending awaits, may clean up within the engine's grace, then is ended.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn cancel(&self) -> Result<Cancelled, EngineError> {
        let now = self.shared.clock.now();
        let grace = i64::try_from(self.shared.options.cancel_grace_ms).unwrap_or(i64::MAX);
        Ok(self
            .shared
            .storage
            .request_cancel(self.id, now.plus_millis(grace), now)
            .await?)
    }

    /// Sends a signal: the task's `await context.signal(name)` gives the payload; sent before that, it is kept for it.
    /// `false` when the run has ended. Names have 1 to 200 characters, none of them a control character.
    ///
    /// # Errors
    /// `BadSignalName`; a payload that JSON cannot hold is `BadInput`, one beyond [`Limits::payload_bytes`](crate::Limits::payload_bytes)
    /// or `json_depth` is `InputTooLarge`; `Storage`.
    pub async fn signal<T: Serialize + ?Sized>(
        &self,
        name: &str,
        payload: &T,
    ) -> Result<bool, EngineError> {
        if !is_signal_name(name) {
            let name = name.chars().take(200).collect();
            return Err(EngineError::BadSignalName { name });
        }
        let to = || format!("signal {name}");
        let payload =
            Json::from(payload).map_err(|source| EngineError::BadInput { task: to(), source })?;
        let limits = &self.shared.options.limits;
        check_payload(&payload, limits).map_err(|limit| EngineError::InputTooLarge {
            task: to(),
            problem: limit.failure(limits).message,
        })?;
        let now = self.shared.clock.now();
        let id = self.shared.ids.stack_run(now).as_uuid();
        let signal = NewSignal {
            id,
            run: self.id,
            name: name.to_owned(),
            payload,
        };
        Ok(self.shared.storage.send_signal(signal, now).await?)
    }

    /// The call tree with its times, while it runs and (as the cleaner kept it) after.
    ///
    /// # Errors
    /// `UnknownRun`; `Storage`; `Damaged`.
    pub async fn trace(&self) -> Result<Trace, EngineError> {
        trace::read(&self.shared, &self.info().await?).await
    }

    /// Log lines after the cursor that are there now.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn log_page(&self, after: LogCursor) -> Result<tasker_adaptor::LogPage, EngineError> {
        Ok(self.shared.storage.logs(self.id, after, LINES).await?)
    }

    /// All log lines, those that are there and those that come, until the run has ended.
    pub fn logs(&self) -> impl Stream<Item = Result<StoredLogLine, EngineError>> + Send + use<> {
        struct Follow {
            handle: RunHandle,
            cursor: LogCursor,
            lines: std::vec::IntoIter<StoredLogLine>,
            /// The run had ended before the last page was read.
            over: bool,
        }
        let start = Follow {
            handle: self.clone(),
            cursor: LogCursor::default(),
            lines: Vec::new().into_iter(),
            over: false,
        };
        stream::try_unfold(start, |mut follow| async move {
            loop {
                if let Some(line) = follow.lines.next() {
                    return Ok(Some((line, follow)));
                }
                if follow.over {
                    return Ok(None);
                }
                let status = follow.handle.status().await?;
                let page = follow.handle.log_page(follow.cursor).await?;
                follow.cursor = page.next;
                if page.lines.is_empty() {
                    if status.is_terminal() || status == RunStatus::Blocked {
                        return Ok(None);
                    }
                    let shared = &follow.handle.shared;
                    tokio::select! {
                        () = shared.clock.sleep(shared.options.poll_ms.min(200)) => {}
                        () = shared.stop.cancelled() => return Ok(None),
                    }
                }
                follow.lines = page.lines.into_iter();
            }
        })
    }
}

fn result_of(end: End) -> Result<Option<Json>, RunError> {
    match end {
        End::Outcome(Outcome::Completed(value)) => Ok(value),
        End::Outcome(Outcome::Failed(failure)) => Err(RunError::Failed(failure)),
        End::Cancelled => Err(RunError::Cancelled),
        End::Blocked(reason) => Err(RunError::Blocked(reason)),
    }
}
