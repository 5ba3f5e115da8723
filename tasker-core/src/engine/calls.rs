//! Asking services: what is asked, with what, for how long, and what its answer becomes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tasker_adaptor::{
    BlockedReason, CallEnd, CallFinish, CallSeq, ClaimedCall, Epoch, Failure, Json, Lease, Outcome,
    RunContext, StackRun, StackRunId, TaskName, TaskRunId,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::EngineError;
use super::call_logs::with_log;
use super::core::{Answer, Asked, Core, Message, Shared};
use super::lease::LeaseClock;
use super::programs::Loaded;
use super::stats::Counted;
use crate::limits::{Limit, check_payload};
use crate::run::{EXECUTE, Event, Ready, ReadySource, TASKS};
use crate::service::chain::{links, method};
use crate::service::{
    CallLog, Reconciled, ResolvedPolicy, ServiceCall, ServiceError, UnknownOutcome,
};
use crate::task::NotGranted;

/// A call that is about to be asked.
pub(crate) struct Asking {
    pub(crate) id: StackRunId,
    pub(crate) frame: StackRunId,
    pub(crate) seq: CallSeq,
    pub(crate) run: TaskRunId,
    pub(crate) lease: Lease,
    pub(crate) attempt: u32,
    pub(crate) in_doubt: bool,
    /// Its last try: no other such call is asked beside it.
    pub(crate) alone: bool,
    pub(crate) service: String,
    pub(crate) path: String,
    pub(crate) args: Json,
    /// With what its task gave.
    pub(crate) policy: ResolvedPolicy,
    pub(crate) context: Arc<RunContext>,
    /// Code of the frame that made it; `None` when the frame is not here and its row must be read for the grants.
    pub(crate) loaded: Option<Arc<Loaded>>,
    pub(crate) depth: u32,
    /// The turn that made it, or the run when the turn is not here.
    pub(crate) span: tracing::Span,
}

impl Core {
    /// Asks, in a task of its own.
    pub(crate) fn ask(&mut self, asking: Asking) {
        let policy = &asking.policy;
        let token = CancellationToken::new();
        self.calls.insert(
            asking.id,
            Asked {
                frame: asking.frame,
                seq: asking.seq,
                lease: asking.lease,
                run: asking.run,
                attempt: asking.attempt,
                service: asking.service.clone(),
                path: asking.path.clone(),
                token: token.clone(),
                record_at_once: policy.unknown_outcome == UnknownOutcome::Block,
                retry: policy.retry.clone(),
                detached: asking.context.ended,
                alone: asking.alone,
            },
        );
        let shared = Arc::clone(&self.shared);
        let held = self.lease.clone();
        let span = tracing::info_span!(
            parent: &asking.span,
            "tasker.call",
            service = %asking.service,
            method = %asking.path,
            attempt = asking.attempt,
            run_id = %asking.run,
        );
        self.spawn(
            async move {
                let (call, lease) = (asking.id, asking.lease);
                let permit =
                    shared
                        .permits
                        .of(&asking.service, &asking.path, asking.policy.concurrency);
                let _permit = tokio::select! {
                    permit = permit => permit,
                    () = token.cancelled() => None,
                };
                let under_way = shared.hub.counts.asking();
                let answer = perform(&shared, &held, asking, token).await;
                drop(under_way);
                Some(Message::Answered {
                    call,
                    lease,
                    answer,
                })
            }
            .instrument(span),
        );
    }

    /// An attempt ended.
    pub(crate) fn answered(&mut self, call: StackRunId, lease: Lease, answer: Answer) {
        if self
            .calls
            .get(&call)
            .is_none_or(|asked| asked.lease != lease)
        {
            // Given up, cancelled, or taken over: its row says what counts.
            return;
        }
        let Some(asked) = self.calls.remove(&call) else {
            return;
        };
        let counted = match &answer {
            Answer::Service(Ok(_)) => Some(Counted::CallAnswered),
            Answer::Service(Err(_)) => Some(Counted::CallFailed),
            Answer::Unknown => Some(Counted::CallUnknown),
            Answer::NotReconciled(_) | Answer::NotAsked => None,
        };
        if let Some(counted) = counted {
            self.shared.hub.counts.count(counted);
        }
        // A claim is wanted when the last one was cut short; that of a free worker would find nothing. And when
        // others wait for their last try.
        self.want_calls |=
            self.calls.len() + 1 >= self.shared.options.calls_in_flight || asked.alone;
        let outcome = match answer {
            Answer::NotAsked => {
                // The lease is unsure: the row stays this worker's until the lease is held again or lost.
                self.release_call(call, lease, false);
                self.events.push_back((
                    asked.frame,
                    Event::CallReleased {
                        seq: asked.seq,
                        epoch: lease.epoch,
                    },
                ));
                return;
            }
            Answer::Service(Err(error)) | Answer::NotReconciled(error)
                if asked.is_tried_again(&error) =>
            {
                self.try_again(call, lease, &asked, &error);
                return;
            }
            // A failure of the question is none of the call: it may have happened.
            Answer::Unknown | Answer::NotReconciled(_) => {
                let reason = BlockedReason::OutcomeUnknown {
                    service: asked.service,
                    path: asked.path,
                };
                self.finish(CallFinish {
                    call,
                    lease,
                    end: CallEnd::Blocked(reason),
                });
                return;
            }
            Answer::Service(Ok(value)) => {
                match check_payload(&value, &self.shared.options.limits) {
                    Ok(()) => Outcome::Completed(Some(value)),
                    Err(limit) => Outcome::Failed(answer_too_large(&asked, limit, &self.shared)),
                }
            }
            Answer::Service(Err(error)) => Outcome::Failed(error.to_failure()),
        };
        if asked.detached
            && let Outcome::Failed(failure) = &outcome
        {
            self.log_unhandled(asked.run, asked.frame, &asked.service, &asked.path, failure);
        }
        if !asked.record_at_once && self.hot.contains_key(&asked.frame) {
            let event = Event::Answered {
                seq: asked.seq,
                id: call,
                epoch: lease.epoch,
                outcome,
            };
            self.events.push_back((asked.frame, event));
        } else {
            self.record(call, lease.epoch, outcome);
        }
    }

    /// The next attempt is a row with a time: any worker may make it.
    fn try_again(&mut self, call: StackRunId, lease: Lease, asked: &Asked, error: &ServiceError) {
        let delay = asked
            .retry
            .delay_ms(asked.attempt, seed_of(call), error.retry_after_ms);
        let not_before = self.shared.clock.now().plus_millis(delay as i64);
        self.next_due = Some(self.next_due.map_or(not_before, |due| due.min(not_before)));
        self.finish(CallFinish {
            call,
            lease,
            end: CallEnd::RetryAt {
                not_before,
                failure: error.to_failure(),
            },
        });
        self.events.push_back((
            asked.frame,
            Event::CallReleased {
                seq: asked.seq,
                epoch: lease.epoch,
            },
        ));
    }

    /// Records an outcome by itself.
    pub(crate) fn record(&mut self, call: StackRunId, epoch: Epoch, outcome: Outcome) {
        let lease = Lease {
            worker: self.worker,
            epoch,
        };
        self.finish(CallFinish {
            call,
            lease,
            end: CallEnd::Settled(outcome),
        });
    }

    /// Calls were claimed: ask them.
    pub(crate) fn ask_claimed(&mut self, claimed: ClaimedCall) {
        let ClaimedCall { row, context } = claimed;
        let lease = Lease {
            worker: self.worker,
            epoch: row.epoch,
        };
        let Some(frame) = row.parent else { return };
        if row.take_overs > self.shared.options.poison_limit {
            // Asked once more it would end this worker too.
            let reason = BlockedReason::PoisonedCall {
                service: row.service,
                path: row.path,
                take_overs: row.take_overs,
            };
            tracing::warn!(run = %row.task_run, call = %row.id, %reason, "a call is blocked");
            self.finish(CallFinish {
                call: row.id,
                lease,
                end: CallEnd::Blocked(reason),
            });
            return;
        }
        let call = (row.id, lease, row.task_run);
        let Some(policy) = self.policy_of(call, &row.service, &row.path, row.policy.as_ref())
        else {
            return;
        };
        if policy.unknown_outcome != UnknownOutcome::Block {
            self.events.push_back((
                frame,
                Event::CallClaimed {
                    seq: row.seq,
                    epoch: row.epoch,
                },
            ));
        }
        let loaded = self.hot.get(&frame).and_then(|hot| hot.loaded.clone());
        let span = tracing::info_span!(
            "tasker.run",
            run_id = %row.task_run,
            task = %context.task,
            version = %context.version,
        );
        self.ask(Asking {
            id: row.id,
            frame,
            seq: row.seq,
            run: row.task_run,
            lease,
            attempt: row.attempt,
            in_doubt: row.in_doubt,
            alone: row.take_overs == self.shared.options.poison_limit,
            service: row.service,
            path: row.path,
            args: row.args.unwrap_or_default(),
            policy,
            context: Arc::new(context),
            loaded,
            depth: row.depth,
            span,
        });
    }

    /// The policy of a call that this worker holds. One whose row cannot be read is blocked, and there is none.
    pub(crate) fn policy_of(
        &mut self,
        (call, lease, run): (StackRunId, Lease, TaskRunId),
        service: &str,
        path: &str,
        given: Option<&Json>,
    ) -> Option<ResolvedPolicy> {
        match self.shared.services.call_policy(service, path, given) {
            Ok(policy) => Some(policy),
            Err(why) => {
                let what = format!("stack run {call}, its policy: {why}");
                let reason = BlockedReason::Corrupt { what };
                tracing::warn!(%run, %call, %reason, "a call is blocked");
                self.finish(CallFinish {
                    call,
                    lease,
                    end: CallEnd::Blocked(reason),
                });
                None
            }
        }
    }

    /// A call recorded by itself was answered by storage: a hot frame gets the outcome as recorded.
    pub(crate) fn call_recorded(&mut self, finish: &CallFinish) {
        if let CallEnd::Settled(outcome) = &finish.end
            && let Some((frame, seq)) = self.waiting_for(finish.call)
        {
            let ready = Ready {
                seq,
                id: finish.call,
                source: ReadySource::Recorded,
                outcome: outcome.clone(),
            };
            self.events.push_back((frame, Event::Recorded(vec![ready])));
        }
    }

    /// The hot frame that has this child open.
    fn waiting_for(&self, call: StackRunId) -> Option<(StackRunId, CallSeq)> {
        self.hot.iter().find_map(|(id, frame)| {
            frame
                .machine
                .open()
                .find(|(_, child)| child.id == call)
                .map(|(seq, _)| (*id, seq))
        })
    }

    /// What nobody awaits and fails is reported as an unhandled rejection.
    fn log_unhandled(
        &self,
        run: TaskRunId,
        frame: StackRunId,
        service: &str,
        path: &str,
        failure: &Failure,
    ) {
        let line = tasker_adaptor::LogLine {
            level: tasker_adaptor::LogLevel::Error,
            message: format!("{service}.{path} was not awaited and failed: {failure}"),
            data: None,
        };
        let shared = Arc::clone(&self.shared);
        self.spawn(async move {
            let now = shared.clock.now();
            if let Err(error) = shared
                .storage
                .append_logs(run, Some(frame), vec![line], now)
                .await
            {
                tracing::warn!(%run, %error, "a log line was not written");
            }
            None
        });
    }
}

impl Asked {
    /// Whether the policy of the call has one more attempt for this error.
    fn is_tried_again(&self, error: &ServiceError) -> bool {
        !self.token.is_cancelled()
            && self.attempt < self.retry.attempts
            && self.retry.retries_error(error)
    }
}

/// Bounds how many calls of a method are asked at one time in this engine.
#[derive(Default)]
pub(crate) struct Permits {
    methods: Mutex<HashMap<(String, String), Arc<Semaphore>>>,
}

impl Permits {
    /// Waits for its turn; at once when the method has no bound.
    fn of(
        &self,
        service: &str,
        path: &str,
        bound: Option<u32>,
    ) -> impl Future<Output = Option<OwnedSemaphorePermit>> + Send + use<> {
        let semaphore = bound.map(|bound| {
            let mut methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
            let method = (service.to_owned(), path.to_owned());
            let new = || Arc::new(Semaphore::new(bound.max(1) as usize));
            Arc::clone(methods.entry(method).or_insert_with(new))
        });
        async move {
            match semaphore {
                Some(semaphore) => semaphore.acquire_owned().await.ok(),
                None => None,
            }
        }
    }
}

/// One attempt, under its time limits.
async fn perform(
    shared: &Shared,
    held: &LeaseClock,
    asking: Asking,
    token: CancellationToken,
) -> Answer {
    if asking.service == TASKS && asking.path == EXECUTE {
        return Answer::Service(Err(no_such_task(shared, &asking)));
    }
    match granted(shared, &asking).await {
        Some(Ok(())) => {}
        Some(Err(error)) => return Answer::Service(Err(error)),
        None => return Answer::NotAsked,
    }
    let policy = &asking.policy;
    let now = shared.clock.now();
    let own = policy
        .timeout_ms
        .map(|ms| now.plus_millis(i64::try_from(ms).unwrap_or(i64::MAX)));
    let deadline = [own, asking.context.deadline].into_iter().flatten().min();
    if deadline.is_some_and(|deadline| deadline <= now) {
        return Answer::Service(Err(ServiceError::timeout(format!(
            "{}.{} was not asked: the deadline of the run has passed",
            asking.service, asking.path
        ))));
    }
    let chain = match links(&asking.path, &asking.args) {
        Ok(chain) => chain,
        Err(error) => return Answer::Service(Err(ServiceError::validation(error))),
    };
    let call = ServiceCall {
        service: asking.service.as_str().into(),
        chain: chain.into(),
        task: asking.context.task.clone(),
        task_run: Some(asking.run),
        stack_run: Some(asking.id),
        attempt: asking.attempt,
        idempotency_key: asking.id.to_string().into(),
        correlation_id: asking.context.correlation_id.as_deref().map(Arc::from),
        traceparent: asking.context.traceparent.as_deref().map(Arc::from),
        deadline,
        cancellation: token.clone(),
        log: CallLog::default(),
        services: shared.services.clone(),
        depth: 0,
    };
    let log = call.log.clone();
    // In a box: each of the futures around it would carry the room for it once more.
    let work = Box::pin(async {
        if asking.in_doubt {
            match policy.unknown_outcome {
                UnknownOutcome::Retry => {}
                UnknownOutcome::Block => return Answer::Unknown,
                UnknownOutcome::Reconcile => match Box::pin(shared.services.reconcile(&call)).await
                {
                    Ok(Reconciled::Happened(value)) => return Answer::Service(Ok(value)),
                    Ok(Reconciled::DidNotHappen) => {}
                    Ok(Reconciled::Unknown) => return Answer::Unknown,
                    Err(error) => return Answer::NotReconciled(error),
                },
            }
        }
        // E7: right before the question, after all that had to be waited for. A lease that is not surely held means: ask nothing.
        if !held.is_held() {
            return Answer::NotAsked;
        }
        Answer::Service(shared.services.invoke(call).await)
    });
    let too_late = async {
        match deadline {
            Some(deadline) => {
                shared
                    .clock
                    .sleep(deadline.millis_since(now).max(0) as u64)
                    .await;
            }
            None => std::future::pending().await,
        }
    };
    let asked = async {
        if token.is_cancelled() {
            return Answer::Service(Err(cancelled(&asking)));
        }
        tokio::select! {
            // A service that answers at once is what a busy engine sees most: the others are not even waited for.
            biased;
            answer = work => answer,
            () = token.cancelled() => Answer::Service(Err(cancelled(&asking))),
            () = too_late => {
                token.cancel();
                Answer::Service(Err(ServiceError::timeout(format!(
                    "{}.{} did not answer in time{}; whether it happened is not known",
                    asking.service,
                    asking.path,
                    policy.timeout_ms.map(|ms| format!(" ({ms} ms)")).unwrap_or_default(),
                ))))
            }
            () = shared.stop.cancelled() => {
                token.cancel();
                Answer::NotAsked
            }
        }
    };
    with_log(shared, (asking.run, asking.frame), &log, asked).await
}

fn cancelled(asking: &Asking) -> ServiceError {
    ServiceError::timeout(format!("{}.{} was cancelled", asking.service, asking.path))
        .with_code("CANCELLED")
}

/// Private services, and methods where a task has a list of them, are for tasks that were granted them. `None`: the engine stops.
async fn granted(shared: &Shared, asking: &Asking) -> Option<Result<(), ServiceError>> {
    let loaded = match &asking.loaded {
        Some(loaded) => Arc::clone(loaded),
        None => match Box::pin(code_of(shared, asking)).await? {
            Ok(loaded) => loaded,
            Err(why) => {
                return Some(Err(ServiceError::authorization(format!(
                    "{}.{} was not asked: what this task was granted cannot be read: {why}",
                    asking.service, asking.path
                ))));
            }
        },
    };
    let private = shared.services.is_private(&asking.service);
    let (service, method) = (&*asking.service, method(&asking.path));
    let allowed = loaded.options.allows(service, &method, private);
    Some(allowed.map_err(|why| {
        ServiceError::authorization(match why {
            NotGranted::Service => format!(
                "the service {service} is private and was not granted to this task: name it in the grants when the task is published"
            ),
            NotGranted::Method => format!(
                "this task was granted some methods of {service}, and {method} is none of them: add it with grant_methods when the task is published"
            ),
        })
    }))
}

/// The code of the frame that made the call, or why it cannot be had. `None`: the engine stops.
async fn code_of(shared: &Shared, asking: &Asking) -> Option<Result<Arc<Loaded>, String>> {
    loop {
        let error = match read_code_of(shared, asking).await {
            Ok(Some(loaded)) => return Some(Ok(loaded)),
            Ok(None) => return Some(Err("its code is gone".to_owned())),
            Err(EngineError::Storage(error)) if error.is_retryable() => error,
            Err(error) => return Some(Err(error.to_string())),
        };
        tracing::warn!(%error, "the grants of a task could not be read; it is tried again");
        tokio::select! {
            () = shared.clock.sleep(200) => {}
            () = shared.stop.cancelled() => return None,
        }
    }
}

async fn read_code_of(
    shared: &Shared,
    asking: &Asking,
) -> Result<Option<Arc<Loaded>>, EngineError> {
    let context = &asking.context;
    // The root frame runs what the run is pinned to; of a nested one its row says what.
    let frame = match asking.depth {
        0 => None,
        _ => shared.storage.stack_run(asking.frame).await?,
    };
    match frame {
        Some(StackRun {
            path,
            version: Some(version),
            ..
        }) => shared.programs.load(&TaskName::new(path), &version).await,
        _ => shared.programs.load(&context.task, &context.version).await,
    }
}

fn no_such_task(shared: &Shared, asking: &Asking) -> ServiceError {
    let name: String = asking
        .args
        .to::<Vec<Json>>()
        .ok()
        .and_then(|args| args.first().and_then(|name| name.to().ok()))
        .unwrap_or_default();
    let limits = &shared.options.limits;
    if asking.depth >= limits.depth {
        let failure = Limit::Depth.failure(limits);
        return ServiceError::validation(format!("task {name:?} was not run: {}", failure.message))
            .with_code(Limit::Depth.as_str());
    }
    ServiceError::not_found(format!(
        "task {name:?} is not published; publish it, then run the caller again"
    ))
    .with_code("TASK_NOT_FOUND")
}

fn answer_too_large(asked: &Asked, limit: Limit, shared: &Shared) -> Failure {
    let failure = limit.failure(&shared.options.limits);
    Failure {
        message: format!(
            "the answer of {}.{} was refused: {}; ask for less at a time",
            asked.service, asked.path, failure.message
        ),
        ..failure
    }
}

/// Jitter comes from the id of the call, which is recorded.
fn seed_of(call: StackRunId) -> u64 {
    call.as_uuid().as_u128() as u64
}
