//! Asking services, beside the core: from a committed call to its answer.
//!
//! Calls that come together are begun by one task, for a task and a wake-up for each cost more than a service that answers at once. A
//! call that has to wait goes on in a task of its own. So do those that are left when one before them took long: what works without a wait
//! must not hold up the others. And a method whose answer was not there at once is asked alone, until it has answered
//! at once a hundred times.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use futures::future::BoxFuture;
use tasker_adaptor::{
    CallSeq, Json, Lease, RunContext, StackRun, StackRunId, TaskName, TaskRunId, Timestamp,
};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::EngineError;
use super::call_logs::with_log;
use super::core::{Message, Shared};
use super::lease::LeaseClock;
use super::programs::Loaded;
use super::stats::InFlight;
use crate::limits::Limit;
use crate::run::{EXECUTE, TASKS};
use crate::service::chain::{links, method};
use crate::service::{
    CallLog, Reconciled, ResolvedPolicy, ServiceCall, ServiceError, UnknownOutcome,
};
use crate::task::NotGranted;

/// Calls that one task begins, at most, and for how long, in milliseconds.
const TOGETHER: usize = 32;
const TOGETHER_MS: i64 = 4;
/// What takes longer is not at once, in milliseconds.
const LONG_MS: i64 = 1;
/// So many answers at once make a slow method a quick one.
const TRUST: u8 = 100;
/// Methods that are known to be slow, at most: tasks may make up names.
const METHODS: usize = 1_024;

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
    /// Of the call, within the turn that made it, or within the run when the turn is not here.
    pub(crate) span: tracing::Span,
    /// Ends the attempt.
    pub(crate) token: CancellationToken,
}

/// An attempt at a call ended.
pub(crate) struct Answered {
    pub(crate) call: StackRunId,
    pub(crate) lease: Lease,
    pub(crate) answer: Answer,
    /// The service took no time for it.
    pub(crate) at_once: bool,
}

/// What became of an attempt at a call.
pub(crate) enum Answer {
    /// The service answered.
    Service(Result<Json, ServiceError>),
    /// Nobody can say what became of an earlier attempt, and the policy is to ask nobody.
    Unknown,
    /// The service could not be asked what became of an earlier attempt.
    NotReconciled(ServiceError),
    /// It was not asked: the lease was gone.
    NotAsked,
}

/// Methods that have kept their callers waiting.
#[derive(Default)]
pub(crate) struct Slow {
    /// By service and path: how many answers at once it takes until a method is trusted again.
    methods: HashMap<String, HashMap<String, u8>>,
    count: usize,
}

impl Slow {
    fn has(&self, asking: &Asking) -> bool {
        let methods = self.methods.get(&asking.service);
        methods.is_some_and(|methods| methods.contains_key(&asking.path))
    }

    pub(crate) fn note(&mut self, service: &str, path: &str, at_once: bool) {
        let methods = self.methods.get_mut(service);
        match (methods, at_once) {
            (None, true) => {}
            (Some(methods), true) => {
                if let Some(left) = methods.get_mut(path) {
                    *left -= 1;
                    if *left == 0 {
                        methods.remove(path);
                        self.count -= 1;
                    }
                }
            }
            (_, false) => {
                if self.count >= METHODS {
                    *self = Self::default();
                }
                let methods = self.methods.entry(service.to_owned()).or_default();
                let known = methods.insert(path.to_owned(), TRUST).is_some();
                self.count += usize::from(!known);
            }
        }
    }
}

/// Asks on behalf of one core.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) held: LeaseClock,
    pub(crate) core: UnboundedSender<Message>,
}

impl Asker {
    /// Asks all of these.
    pub(crate) fn ask(&self, calls: &mut Vec<Asking>, slow: &Slow) {
        let mut together = Vec::new();
        for asking in calls.drain(..) {
            if asking.waits_first() || slow.has(&asking) {
                self.ask_alone(asking);
                continue;
            }
            together.push(asking);
            if together.len() == TOGETHER {
                tokio::spawn(self.clone().ask_together(std::mem::take(&mut together)));
            }
        }
        if !together.is_empty() {
            tokio::spawn(self.clone().ask_together(together));
        }
    }

    /// Asks one after the other, as far as that goes without a wait, and tells the core what was answered.
    async fn ask_together(self, calls: Vec<Asking>) {
        let began = self.shared.clock.monotonic_ms();
        let mut now = began;
        let mut answers = Vec::with_capacity(calls.len());
        let mut calls = calls.into_iter();
        for asking in calls.by_ref() {
            let (call, lease, span) = (asking.id, asking.lease, asking.span.clone());
            let answer = match span.in_scope(|| Attempt::at(&self, asking, None)) {
                Err(answer) => Some(answer),
                Ok(mut attempt) => {
                    let first = attempt.first(&self).instrument(span.clone()).await;
                    if first.is_none() {
                        self.go_on(call, lease, span, attempt);
                    }
                    first
                }
            };
            let since = std::mem::replace(&mut now, self.shared.clock.monotonic_ms());
            let at_once = now <= since + LONG_MS;
            answers.extend(answer.map(|answer| Answered {
                call,
                lease,
                answer,
                at_once,
            }));
            if !at_once || now > began + TOGETHER_MS {
                break;
            }
        }
        self.tell(answers);
        calls.for_each(|asking| self.ask_alone(asking));
    }

    /// Asks in a task of its own.
    fn ask_alone(&self, asking: Asking) {
        let asker = self.clone();
        let (call, lease, span) = (asking.id, asking.lease, asking.span.clone());
        let asked = async move {
            let (answer, at_once) = asker.whole(asking).await;
            asker.tell(vec![Answered {
                call,
                lease,
                answer,
                at_once,
            }]);
        };
        tokio::spawn(asked.instrument(span));
    }

    /// Waits for the answer in a task of its own.
    fn go_on(&self, call: StackRunId, lease: Lease, span: tracing::Span, attempt: Attempt) {
        let asker = self.clone();
        let answered = async move {
            let answer = attempt.wait(&asker.shared).await;
            asker.tell(vec![Answered {
                call,
                lease,
                answer,
                at_once: false,
            }]);
        };
        tokio::spawn(answered.instrument(span));
    }

    fn tell(&self, answers: Vec<Answered>) {
        if !answers.is_empty() {
            // Without a core there is nobody to tell.
            let _ = self.core.send(Message::Answered(answers));
        }
    }

    /// One attempt with all that it has to wait for, and whether the service answered at once.
    async fn whole(&self, mut asking: Asking) -> (Answer, bool) {
        let shared = &self.shared;
        let (service, path) = (&asking.service, &asking.path);
        let permit = shared.permits.of(service, path, asking.policy.concurrency);
        let permit = tokio::select! {
            permit = permit => permit,
            () = asking.token.cancelled() => None,
        };
        if asking.loaded.is_none() && !asking.is_no_task() {
            asking.loaded = match code_of(shared, &asking).await {
                None => return (Answer::NotAsked, false),
                Some(Ok(loaded)) => Some(loaded),
                Some(Err(why)) => {
                    let error = ServiceError::authorization(format!(
                        "{service}.{path} was not asked: what this task was granted cannot be read: {why}"
                    ));
                    return (Answer::Service(Err(error)), false);
                }
            };
        }
        let began = shared.clock.monotonic_ms();
        let mut attempt = match Attempt::at(self, asking, permit) {
            Ok(attempt) => attempt,
            // Nobody was asked.
            Err(answer) => return (answer, true),
        };
        match attempt.first(self).await {
            Some(answer) => (answer, shared.clock.monotonic_ms() <= began + LONG_MS),
            None => (attempt.wait(shared).await, false),
        }
    }
}

impl Asking {
    /// Whether there is something to wait for before it can be asked.
    fn waits_first(&self) -> bool {
        self.policy.concurrency.is_some() || (self.loaded.is_none() && !self.is_no_task())
    }

    /// A nested task that does not exist, or is too deep.
    fn is_no_task(&self) -> bool {
        self.service == TASKS && self.path == EXECUTE
    }

    fn cancelled(&self) -> Answer {
        let error = ServiceError::timeout(format!("{}.{} was cancelled", self.service, self.path));
        Answer::Service(Err(error.with_code("CANCELLED")))
    }

    /// Private services, and methods where a task has a list of them, are for tasks that were granted them.
    fn is_granted(&self, shared: &Shared) -> Result<(), ServiceError> {
        let (service, method) = (&*self.service, &*method(&self.path));
        let private = shared.services.is_private(service);
        let allowed = match &self.loaded {
            Some(loaded) => loaded.options.allows(service, method, private),
            // What it was granted is not known.
            None => Err(NotGranted::Service),
        };
        allowed.map_err(|why| {
            ServiceError::authorization(match why {
                NotGranted::Service => format!(
                    "the service {service} is private and was not granted to this task: name it in the grants when the task is published"
                ),
                NotGranted::Method => format!(
                    "this task was granted some methods of {service}, and {method} is none of them: add it with grant_methods when the task is published"
                ),
            })
        })
    }
}

/// One attempt at a call, under its time limits.
struct Attempt {
    asking: Asking,
    deadline: Option<Timestamp>,
    log: CallLog,
    work: BoxFuture<'static, Answer>,
    _in_flight: InFlight,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Attempt {
    /// The attempt, which asks nothing yet; or why nothing will be asked.
    fn at(
        asker: &Asker,
        mut asking: Asking,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, Answer> {
        let shared = &asker.shared;
        let refused = |error| Err(Answer::Service(Err(error)));
        if asking.is_no_task() {
            return refused(no_such_task(shared, &asking));
        }
        if let Err(error) = asking.is_granted(shared) {
            return refused(error);
        }
        let now = shared.clock.now();
        let own = asking
            .policy
            .timeout_ms
            .map(|ms| now.plus_millis(i64::try_from(ms).unwrap_or(i64::MAX)));
        let deadline = [own, asking.context.deadline].into_iter().flatten().min();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return refused(ServiceError::timeout(format!(
                "{}.{} was not asked: the deadline of the run has passed",
                asking.service, asking.path
            )));
        }
        let args = std::mem::take(&mut asking.args);
        let chain = match links(&asking.path, &args) {
            Ok(chain) => chain,
            Err(error) => return refused(ServiceError::validation(error)),
        };
        let log = CallLog::default();
        let (id, mut key) = (
            asking.id.as_uuid().hyphenated(),
            uuid::Uuid::encode_buffer(),
        );
        let call = ServiceCall {
            service: asking.service.as_str().into(),
            chain: chain.into(),
            task: asking.context.task.clone(),
            task_run: Some(asking.run),
            stack_run: Some(asking.id),
            attempt: asking.attempt,
            idempotency_key: Arc::from(&*id.encode_lower(&mut key)),
            correlation_id: asking.context.correlation_id.as_deref().map(Arc::from),
            traceparent: asking.context.traceparent.as_deref().map(Arc::from),
            deadline,
            cancellation: asking.token.clone(),
            log: log.clone(),
            services: shared.services.clone(),
            depth: 0,
        };
        let work = match (asking.in_doubt, asking.policy.unknown_outcome) {
            (true, UnknownOutcome::Block) => return Err(Answer::Unknown),
            (true, UnknownOutcome::Reconcile) => reconcile(asker, call),
            (false, _) | (true, UnknownOutcome::Retry) => invoke(call),
        };
        Ok(Self {
            asking,
            deadline,
            log,
            work,
            _in_flight: shared.hub.counts.asking(),
            _permit: permit,
        })
    }

    /// Asks, and takes the answer if it is there at once.
    async fn first(&mut self, asker: &Asker) -> Option<Answer> {
        if self.asking.token.is_cancelled() {
            return Some(self.asking.cancelled());
        }
        // E7: right before the question, after all that had to be waited for. A lease that is not surely held means: ask nothing.
        if !asker.held.is_held() {
            return Some(Answer::NotAsked);
        }
        let Poll::Ready(answer) = futures::poll!(self.work.as_mut()) else {
            return None;
        };
        if self.log.is_empty() {
            return Some(answer);
        }
        // What it said is written before anybody knows the answer.
        self.work = Box::pin(std::future::ready(answer));
        None
    }

    /// The answer of an attempt that was looked at, with what the service says written as it comes.
    async fn wait(self, shared: &Shared) -> Answer {
        let Self {
            asking,
            deadline,
            log,
            work,
            _in_flight,
            _permit,
        } = self;
        let too_late = async {
            match deadline {
                Some(deadline) => {
                    let left = deadline.millis_since(shared.clock.now()).max(0);
                    shared.clock.sleep(left as u64).await;
                }
                None => std::future::pending().await,
            }
        };
        let answer = async {
            tokio::select! {
                biased;
                answer = work => answer,
                () = asking.token.cancelled() => asking.cancelled(),
                () = too_late => {
                    asking.token.cancel();
                    Answer::Service(Err(ServiceError::timeout(format!(
                        "{}.{} did not answer in time{}; whether it happened is not known",
                        asking.service,
                        asking.path,
                        asking.policy.timeout_ms.map(|ms| format!(" ({ms} ms)")).unwrap_or_default(),
                    ))))
                }
                () = shared.stop.cancelled() => {
                    asking.token.cancel();
                    Answer::NotAsked
                }
            }
        };
        with_log(shared, (asking.run, asking.frame), &log, answer).await
    }
}

/// Asks the service.
fn invoke(call: ServiceCall) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        let services = call.services.clone();
        Answer::Service(services.invoke(call).await)
    })
}

/// Asks the service what became of an earlier attempt, and again only if nothing did.
fn reconcile(asker: &Asker, call: ServiceCall) -> BoxFuture<'static, Answer> {
    let held = asker.held.clone();
    Box::pin(async move {
        match call.services.reconcile(&call).await {
            Ok(Reconciled::Happened(value)) => Answer::Service(Ok(value)),
            // Time has passed since the lease was looked at (E7).
            Ok(Reconciled::DidNotHappen) if !held.is_held() => Answer::NotAsked,
            Ok(Reconciled::DidNotHappen) => invoke(call).await,
            Ok(Reconciled::Unknown) => Answer::Unknown,
            Err(error) => Answer::NotReconciled(error),
        }
    })
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
        .elements()
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
