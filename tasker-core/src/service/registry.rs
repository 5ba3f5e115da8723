//! The services of an engine, by name.
//!
//! Who may call what is decided elsewhere (the engine, by a task's grants); here a call finds its proxy.
//! Invariants: names are checked when the registry is built · a proxy that panics gives `INTERNAL_ERROR` and nothing
//! of the panic's text · a fallback is one step, never a chain.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tasker_adaptor::{Json, TaskName, Timestamp};
use tokio_util::sync::CancellationToken;

use super::call::dotted;
use super::call_log::CallLog;
use super::chain;
use super::{
    Health, Link, MethodPolicy, Reconciled, ResolvedPolicy, ServiceCall, ServiceDescription,
    ServiceError, ServiceErrorType, ServiceProxy, ServiceStyle, ServicesBuilder,
};

/// Calls from service to service above one call, at most.
const MAX_DEPTH: u32 = 8;
/// How long an answer about health is given again without asking.
const HEALTH_CACHE_MS: i64 = 30_000;
/// How long a service may take to say how it is.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The services of an engine. Cheap to clone.
///
/// From the host ([`Services::call`] on the engine's services) a call belongs to no run. Within a proxy,
/// [`ServiceCall::services`] gives services that call on behalf of that call.
#[derive(Clone, Default)]
pub struct Services {
    registry: Arc<Registry>,
    /// The call on whose behalf others are called; `None` for the host itself.
    caller: Option<Arc<Caller>>,
}

#[derive(Default)]
struct Registry {
    services: BTreeMap<String, Registered>,
    clock: Option<Clock>,
}

/// A service with what the engine's configuration says of it.
pub(super) struct Registered {
    proxy: Arc<dyn ServiceProxy>,
    description: ServiceDescription,
    /// Only tasks that were granted it may call it.
    private: bool,
    /// Of the whole service.
    pub(super) policy: MethodPolicy,
    /// Of single methods.
    pub(super) method_policies: BTreeMap<String, MethodPolicy>,
    pub(super) fallback: Option<String>,
    /// The last answer about health. The async lock makes one question of many askers.
    asked: tokio::sync::Mutex<()>,
    health: Mutex<Option<(Timestamp, Health)>>,
}

struct Caller {
    call: ServiceCall,
    /// How often each question was asked through this, so that each has an idempotency key of its own.
    asked: Mutex<HashMap<[u8; 32], u32>>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.registry.services.keys())
            .finish()
    }
}

/// For hosts, and for proxies through [`ServiceCall::services`].
impl Services {
    /// A registry to fill.
    pub fn builder() -> ServicesBuilder {
        ServicesBuilder::default()
    }

    /// What the services say of themselves, by name.
    pub fn list(&self) -> Vec<ServiceDescription> {
        let services = self.registry.services.values();
        services
            .map(|registered| registered.description.clone())
            .collect()
    }

    /// Asks a service, host side: not in any task's journal, not subject to grants. The method is a dotted name.
    ///
    /// On behalf of another call it has that call's run, deadline, correlation id, trace and cancellation, and an
    /// idempotency key made from that call's key, the question, and how often the same question was asked through
    /// this value (keep one value of [`ServiceCall::services`] for all questions of a call).
    ///
    /// # Errors
    /// The service's; `TIMEOUT_ERROR` when the deadline or the method's timeout passes; `CONFIGURATION_ERROR` when
    /// services call each other deeper than 8; `EXTERNAL_SERVICE_ERROR` when the answer is no `T`.
    pub async fn call<T: DeserializeOwned>(
        &self,
        service: &str,
        method: &str,
        args: &[Json],
    ) -> Result<T, ServiceError> {
        let mut links: Vec<Link> = method.split('.').map(Link::through).collect();
        if let Some(last) = links.last_mut() {
            last.args = Some(args.to_vec());
        }
        let answer = self.call_chain(service, links).await?;
        answer.to().map_err(|error| {
            ServiceError::external(format!(
                "{service}.{method} answered a value of another form than its caller expects: {error}"
            ))
        })
    }

    /// [`Services::call`] with a chain, for fluent services.
    pub async fn call_chain(&self, service: &str, links: Vec<Link>) -> Result<Json, ServiceError> {
        let call = self.child(service, links)?;
        let method = call.method();
        let policy = self.policy(service, &method);
        let left = call
            .deadline
            .map(|deadline| deadline.millis_since(self.now()));
        let timeout = match (left, policy.timeout_ms) {
            (Some(left), timeout) => Some(timeout.unwrap_or(u64::MAX).min(left.max(0) as u64)),
            (None, timeout) => timeout,
        };
        let late = || {
            ServiceError::timeout(format!(
                "{service}.{method} did not answer before its deadline; raise the method's timeout or the run's deadline"
            ))
        };
        match timeout {
            None => self.invoke(call).await,
            Some(0) => Err(late()),
            Some(millis) => {
                match tokio::time::timeout(Duration::from_millis(millis), self.invoke(call)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(late()),
                }
            }
        }
    }

    /// Whether a service works; asked at most every 30 s. `None`: there is no such service.
    pub async fn health(&self, name: &str) -> Option<Health> {
        let registered = self.registry.services.get(name)?;
        let _one_at_a_time = registered.asked.lock().await;
        let now = self.now();
        if let Some(health) = registered.known_health(now) {
            return Some(health);
        }
        let asked = async {
            match self.without_caller().child(name, Vec::new()) {
                Ok(call) => registered.proxy.health_within(&call).await,
                Err(error) => Health::Unhealthy(error.message),
            }
        };
        let asked = AssertUnwindSafe(asked).catch_unwind();
        let health = match tokio::time::timeout(HEALTH_TIMEOUT, asked).await {
            Ok(Ok(health)) => health,
            Ok(Err(_panic)) => Health::Unhealthy("its health check panicked".to_owned()),
            Err(_) => Health::Unhealthy(format!(
                "its health check did not answer within {} s",
                HEALTH_TIMEOUT.as_secs()
            )),
        };
        *lock(&registered.health) = Some((now, health.clone()));
        Some(health)
    }

    /// Whether each service works, by name. All are asked at the same time.
    pub async fn health_all(&self) -> BTreeMap<String, Health> {
        let names = self.registry.services.keys();
        let asked = names.map(async |name| (name.clone(), self.health(name).await));
        let answers = futures::future::join_all(asked).await;
        answers
            .into_iter()
            .filter_map(|(name, health)| Some((name, health?)))
            .collect()
    }
}

/// For the engine.
impl Services {
    /// Names with the style that the sandbox needs to know.
    pub fn names_and_styles(&self) -> impl Iterator<Item = (String, ServiceStyle)> {
        let services = self.registry.services.iter();
        services.map(|(name, registered)| (name.clone(), registered.description.style))
    }

    /// Whether there is a service of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.registry.services.contains_key(name)
    }

    /// Whether only tasks that were granted it may call it. An unknown service is not private: asking it says so.
    pub fn is_private(&self, name: &str) -> bool {
        let registered = self.registry.services.get(name);
        registered.is_some_and(|registered| registered.private)
    }

    /// The service whose name is most like this one, if any is like it.
    pub fn nearest(&self, name: &str) -> Option<String> {
        nearest(name, self.registry.services.keys().map(String::as_str)).map(str::to_owned)
    }

    /// The policy of a method: description < engine configuration. `method` may be a recorded path.
    ///
    /// In a fluent service the first listed method that is the name of a link counts: of `from().insert().select()`
    /// it is `insert` when the service lists that before `select`.
    pub fn policy(&self, service: &str, method: &str) -> ResolvedPolicy {
        let Some(registered) = self.registry.services.get(service) else {
            return MethodPolicy::defaults();
        };
        let method = chain::method(method);
        let listed = registered.listed(&method);
        let name = listed.map_or(&*method, |listed| listed.name.as_str());
        let described = listed.map(|listed| &listed.policy);
        let configured = [&*method, name]
            .iter()
            .find_map(|name| registered.method_policies.get(*name));
        configured
            .unwrap_or(&MethodPolicy::default())
            .over(&registered.policy)
            .over(described.unwrap_or(&MethodPolicy::default()))
            .over(&registered.description.policy)
            .resolve()
    }

    /// The policy of one call: what its task gave with it over that of its method.
    ///
    /// # Errors
    /// What is wrong with what the task gave.
    #[cfg(feature = "quickjs")]
    pub(crate) fn call_policy(
        &self,
        service: &str,
        path: &str,
        given: Option<&Json>,
    ) -> Result<ResolvedPolicy, String> {
        let below = self.policy(service, path);
        match given {
            None => Ok(below),
            Some(given) => Ok(super::CallPolicy::parse(given)?.over(below)),
        }
    }

    /// Asks the service of a call. No timeout and no retry here: those are the engine's.
    ///
    /// # Errors
    /// The service's; `NOT_FOUND_ERROR` naming what is near when there is no such service or method;
    /// `INTERNAL_ERROR` when the proxy panics.
    pub async fn invoke(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        let registered = self.find(&call.service)?;
        let chain = Arc::clone(&call.chain);
        let method = dotted(&chain);
        registered.check_method(&call.service, &method)?;
        match self.fallback(registered, &method) {
            None => self.ask(registered, call, &method).await,
            // In a box: few services have a fallback, and every call would carry the room for it.
            Some(fallback) => Box::pin(self.ask_either(registered, fallback, call, &method)).await,
        }
    }

    /// Asks the service, or its fallback when the service is known to be unhealthy or fails by itself.
    async fn ask_either(
        &self,
        registered: &Registered,
        (fallback_name, fallback): (&str, &Registered),
        call: ServiceCall,
        method: &str,
    ) -> Result<Json, ServiceError> {
        let mut instead = call.clone();
        instead.service = fallback_name.into();
        let reason = match registered.known_health(self.now()) {
            Some(Health::Unhealthy(reason)) => {
                ServiceError::external(format!("service {} is unhealthy: {reason}", call.service))
            }
            _ => match self.ask(registered, call.clone(), method).await {
                Err(error)
                    if matches!(
                        error.kind,
                        ServiceErrorType::External | ServiceErrorType::Timeout
                    ) =>
                {
                    error
                }
                answer => return answer,
            },
        };
        tracing::warn!(
            service = &*call.service,
            fallback = fallback_name,
            method,
            error = %reason.kind,
            "the fallback service is asked instead"
        );
        self.ask(fallback, instead, method)
            .await
            .map_err(|second| ServiceError {
                message: format!(
                    "{}; its fallback {fallback_name} failed too: {}",
                    reason.message, second.message
                ),
                ..reason
            })
    }

    /// Asks the service what became of a call of unknown outcome.
    pub async fn reconcile(&self, call: &ServiceCall) -> Result<Reconciled, ServiceError> {
        let registered = self.find(&call.service)?;
        let mut call = call.clone();
        call.services = self.without_caller();
        match AssertUnwindSafe(registered.proxy.reconcile(&call))
            .catch_unwind()
            .await
        {
            Ok(answer) => answer,
            Err(_panic) => Err(panicked(&call.service, &call.method())),
        }
    }

    /// Tells every service to end what it holds open; all at the same time. A panic in one does not spare the others.
    pub async fn shutdown(&self) {
        let services = self.registry.services.iter();
        let ended = services.map(async |(name, registered)| {
            let ended = AssertUnwindSafe(registered.proxy.shutdown()).catch_unwind();
            if ended.await.is_err() {
                tracing::error!(service = name, "the service panicked while shutting down");
            }
        });
        futures::future::join_all(ended).await;
    }

    pub(crate) fn for_call(&self, call: &ServiceCall) -> Self {
        let mut call = call.clone();
        call.services = self.without_caller();
        Self {
            registry: Arc::clone(&self.registry),
            caller: Some(Arc::new(Caller {
                call,
                asked: Mutex::default(),
            })),
        }
    }
}

impl Services {
    pub(super) fn new(services: BTreeMap<String, Registered>, clock: Clock) -> Self {
        Self {
            registry: Arc::new(Registry {
                services,
                clock: Some(clock),
            }),
            caller: None,
        }
    }

    fn now(&self) -> Timestamp {
        match &self.registry.clock {
            Some(clock) => clock(),
            None => Timestamp::default(),
        }
    }

    fn without_caller(&self) -> Self {
        Self {
            registry: Arc::clone(&self.registry),
            caller: None,
        }
    }

    fn find(&self, name: &str) -> Result<&Registered, ServiceError> {
        self.registry.services.get(name).ok_or_else(|| {
            ServiceError::not_found(format!(
                "there is no service {name:?}{}",
                match self.nearest(name) {
                    Some(near) => format!("; did you mean {near:?}?"),
                    None => "; register it when the engine is built".to_owned(),
                }
            ))
            .with_code("UNKNOWN_SERVICE")
        })
    }

    fn fallback(&self, registered: &Registered, method: &str) -> Option<(&str, &Registered)> {
        let name = registered.fallback.as_deref()?;
        let (name, fallback) = self.registry.services.get_key_value(name)?;
        let takes = fallback.check_method(name, method).is_ok();
        takes.then_some((name.as_str(), fallback))
    }

    async fn ask(
        &self,
        registered: &Registered,
        mut call: ServiceCall,
        method: &str,
    ) -> Result<Json, ServiceError> {
        call.services = self.without_caller();
        let service = Arc::clone(&call.service);
        let proxy = &registered.proxy;
        let asked = AssertUnwindSafe(async { proxy.call(call).await }).catch_unwind();
        match asked.await {
            Ok(answer) => answer,
            Err(_panic) => Err(panicked(&service, method)),
        }
    }

    /// A call from the host, or on behalf of the calling call.
    fn child(&self, service: &str, links: Vec<Link>) -> Result<ServiceCall, ServiceError> {
        let mut call = match self.caller.as_deref() {
            None => ServiceCall {
                service: service.into(),
                chain: links.into(),
                task: TaskName::new(""),
                task_run: None,
                stack_run: None,
                attempt: 1,
                idempotency_key: "".into(),
                correlation_id: None,
                traceparent: None,
                deadline: None,
                cancellation: CancellationToken::new(),
                log: CallLog::default(),
                services: self.clone(),
                depth: 0,
            },
            Some(caller) => ServiceCall {
                service: service.into(),
                chain: links.into(),
                stack_run: None,
                depth: caller.call.depth + 1,
                ..caller.call.clone()
            },
        };
        if call.depth > MAX_DEPTH {
            return Err(ServiceError::configuration(format!(
                "services call each other {MAX_DEPTH} deep, the last one {service}.{}: they go round in a circle; break it in the services",
                call.method()
            )));
        }
        call.idempotency_key = match self.caller.as_deref() {
            Some(caller) => caller.idempotency_key(&call),
            None => format!("host-{}", uuid::Uuid::now_v7()).into(),
        };
        Ok(call)
    }
}

impl Caller {
    fn idempotency_key(&self, call: &ServiceCall) -> Arc<str> {
        let (path, args) = chain::recorded(&call.chain);
        let mut hash = Sha256::new();
        for part in [
            &*self.call.idempotency_key,
            &*call.service,
            &path,
            args.text(),
        ] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let question: [u8; 32] = hash.finalize().into();
        let mut asked = lock(&self.asked);
        let times = asked.entry(question).or_insert(0);
        *times += 1;
        let (short, _) = question.split_at(8);
        let short = short
            .iter()
            .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        format!("{}-{short:016x}-{times}", self.call.idempotency_key).into()
    }
}

impl Registered {
    pub(super) fn new(
        proxy: Arc<dyn ServiceProxy>,
        description: ServiceDescription,
        private: bool,
    ) -> Self {
        Self {
            proxy,
            description,
            private,
            policy: MethodPolicy::default(),
            method_policies: BTreeMap::new(),
            fallback: None,
            asked: tokio::sync::Mutex::default(),
            health: Mutex::default(),
        }
    }

    fn known_health(&self, now: Timestamp) -> Option<Health> {
        match &*lock(&self.health) {
            Some((asked, health)) if now.millis_since(*asked) < HEALTH_CACHE_MS => {
                Some(health.clone())
            }
            _ => None,
        }
    }

    fn listed(&self, method: &str) -> Option<&super::MethodDescription> {
        self.description.find(method).or_else(|| {
            let mut methods = self.description.methods.iter();
            methods
                .find(|listed| method.split('.').any(|name| name == listed.name))
                .filter(|_| self.description.style == ServiceStyle::Fluent)
        })
    }

    fn check_method(&self, service: &str, method: &str) -> Result<(), ServiceError> {
        if self.description.open || self.description.find(method).is_some() {
            return Ok(());
        }
        let methods = || self.description.methods.iter().map(|m| m.name.as_str());
        let hint = match nearest(method, methods()) {
            Some(near) => format!("; did you mean {near:?}?"),
            None => format!(
                "; it has {}",
                methods().take(20).collect::<Vec<_>>().join(", ")
            ),
        };
        Err(
            ServiceError::not_found(format!("service {service} has no method {method:?}{hint}"))
                .with_code("UNKNOWN_METHOD"),
        )
    }
}

fn panicked(service: &str, method: &str) -> ServiceError {
    tracing::error!(service, method, "the service panicked");
    ServiceError::internal(format!(
        "service {service} panicked in {method}; what it said is in the host's own output"
    ))
    .with_code("SERVICE_PANICKED")
}

/// The word most like `name`: at most a third of its letters differ, and the case does not count.
/// The few words that a mistyped name most likely means.
#[cfg(feature = "quickjs")]
pub(crate) fn nearest_words(name: &str, words: &[String]) -> Vec<String> {
    nearest(name, words.iter().map(String::as_str))
        .map(str::to_owned)
        .into_iter()
        .collect()
}

pub(super) fn nearest<'a>(name: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    words
        .map(|word| {
            let other = word.to_lowercase();
            let prefix =
                !lower.is_empty() && (other.starts_with(&lower) || lower.starts_with(&other));
            let distance = strsim::osa_distance(&lower, &other);
            (if prefix { distance.min(1) } else { distance }, word)
        })
        .filter(|(distance, word)| *distance <= word.chars().count().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The data is whole at every point where a holder could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
