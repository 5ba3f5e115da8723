//! A machine: one engine with its services and its own connection to the database, and the moment at which it crashes.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tasker_core::adaptor::{FaultAction, FaultStorage};
use tasker_core::testing::TestClock;
use tasker_core::{
    Engine, EngineError, Json, MethodDescription, MethodPolicy, Reconciled, ServiceCall,
    ServiceDescription, ServiceError, ServiceProxy, Storage, UnknownOutcome,
};
use tokio::sync::Notify;

use super::book::{Book, Performed};
use super::plan::{Crash, Side};

/// How long a worker may be silent, in milliseconds.
pub(crate) const LEASE_MS: u64 = 3_000;
/// So long an engine pauses at most before it tries storage again.
pub(crate) const LONGEST_PAUSE_MS: i64 = 2_000;
/// Real time for what a machine does while something in it waits for the clock.
const MOMENT: Duration = Duration::from_millis(2);

/// Counts a machine's calls and ends it at the planned one.
pub(crate) struct Fate {
    machine: usize,
    crash: Option<Crash>,
    calls: AtomicUsize,
    dead: AtomicBool,
    /// What was called where, for the report of a failure.
    names: Mutex<Vec<&'static str>>,
    died: Notify,
    /// Replies that get lost though the machine lives, and whether one was since the clock last moved.
    hiccups: Option<Mutex<StdRng>>,
    hiccup: Notify,
    /// Until when something may wait for the clock to try again, in milliseconds of the clock.
    tries_until: AtomicI64,
    /// How often the engine made a worker live.
    registered: AtomicUsize,
}

impl Fate {
    fn new(machine: usize, crash: Option<Crash>, hiccups: Option<u64>) -> Arc<Self> {
        let hiccups = hiccups.map(|seed| seed.wrapping_mul(1_000).wrapping_add(machine as u64));
        Arc::new(Self {
            hiccups: hiccups.map(|seed| Mutex::new(StdRng::seed_from_u64(seed))),
            hiccup: Notify::new(),
            tries_until: AtomicI64::new(i64::MIN),
            machine,
            crash,
            calls: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            names: Mutex::default(),
            died: Notify::new(),
            registered: AtomicUsize::new(0),
        })
    }

    /// One more call; on which side of it the machine ends, if it does.
    fn call(&self, name: &'static str) -> Option<Side> {
        let at = self.calls.fetch_add(1, Ordering::SeqCst);
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(name);
        self.crash
            .filter(|crash| crash.at == at)
            .map(|crash| crash.side)
    }

    /// What happens to a call that the machine survives. The heartbeat is spared: a worker that cannot renew its lease loses it,
    /// and that is a crash.
    fn hiccup(&self, name: &str) -> FaultAction {
        if matches!(name, "server_time" | "register" | "heartbeat") {
            return FaultAction::Pass;
        }
        let Some(rng) = &self.hiccups else {
            return FaultAction::Pass;
        };
        let action = {
            let mut rng = rng.lock().unwrap_or_else(PoisonError::into_inner);
            match rng.random_range(0..40) {
                0 => FaultAction::FailBefore,
                1 => FaultAction::FailAfter,
                2 => FaultAction::Repeat,
                _ => return FaultAction::Pass,
            }
        };
        self.hiccup.notify_one();
        action
    }

    fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Calls made so far, while alive.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Names of the calls around the planned crash.
    pub(crate) fn around(&self) -> String {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(crash) = self.crash else {
            return format!(
                "machine {} lives through {} calls",
                self.machine,
                names.len()
            );
        };
        let from = crash.at.saturating_sub(3).min(names.len());
        let to = (crash.at + 1).min(names.len());
        format!(
            "machine {} dies {:?} call {} (… {})",
            self.machine,
            crash.side,
            crash.at,
            names[from..to].join(", ")
        )
    }
}

/// The service `lab` as one machine reaches it.
struct Lab {
    fate: Arc<Fate>,
    storage: FaultStorage,
    book: Book,
}

impl Lab {
    /// One service call with the machine's fate: a dead machine asks nobody and hears nothing.
    async fn with_fate<T>(&self, name: &'static str, act: impl FnOnce() -> T) -> T {
        if self.fate.is_dead() {
            return std::future::pending().await;
        }
        let side = self.fate.call(name);
        if side == Some(Side::Before) {
            self.end();
            return std::future::pending().await;
        }
        let answer = act();
        if side == Some(Side::After) {
            self.end();
            return std::future::pending().await;
        }
        answer
    }

    fn end(&self) {
        self.storage.control().kill();
        self.fate.die();
    }
}

fn method(name: &str, unknown_outcome: UnknownOutcome) -> MethodDescription {
    MethodDescription::new(name).policy(MethodPolicy {
        unknown_outcome: Some(unknown_outcome),
        ..MethodPolicy::default()
    })
}

fn id_of(call: &ServiceCall) -> Result<String, ServiceError> {
    let argument: serde_json::Value = call.arg(0)?;
    Ok(argument["id"].as_str().unwrap_or_default().to_owned())
}

/// What every call answers.
pub(crate) fn answer(id: &str) -> Json {
    Json::from(&format!("{id}!")).unwrap()
}

#[async_trait]
impl ServiceProxy for Lab {
    fn describe(&self) -> ServiceDescription {
        ServiceDescription::new("lab")
            .method(method("do", UnknownOutcome::Retry))
            .method(method("refuse", UnknownOutcome::Retry))
            .method(method("once", UnknownOutcome::Block))
            .method(method("sure", UnknownOutcome::Reconcile))
    }

    async fn call(&self, call: ServiceCall) -> Result<Json, ServiceError> {
        let id = id_of(&call)?;
        let performed = Performed {
            machine: self.fate.machine,
            id: id.clone(),
            args: call.args().iter().map(|arg| arg.text()).collect(),
            key: call.idempotency_key.to_string(),
        };
        self.with_fate("lab", || self.book.perform(performed)).await;
        if call.method() == "refuse" {
            return Err(ServiceError::validation("no").with_code("REFUSED"));
        }
        Ok(answer(&id))
    }

    async fn reconcile(&self, call: &ServiceCall) -> Result<Reconciled, ServiceError> {
        let id = id_of(call)?;
        let key = call.idempotency_key.to_string();
        let happened = self
            .with_fate("lab.reconcile", || self.book.happened(&key))
            .await;
        Ok(if happened {
            Reconciled::Happened(answer(&id))
        } else {
            Reconciled::DidNotHappen
        })
    }
}

/// What all machines of a history share.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: TestClock,
    pub(crate) book: Book,
    pub(crate) park: bool,
    pub(crate) hiccups: Option<u64>,
}

/// One engine and its fate.
pub(crate) struct Machine {
    pub(crate) number: usize,
    pub(crate) fate: Arc<Fate>,
    pub(crate) storage: FaultStorage,
    clock: TestClock,
    /// `None` when it crashed before it had started.
    pub(crate) engine: Option<Engine>,
}

impl Machine {
    /// Starts an engine on a connection of its own.
    pub(crate) async fn start(world: &World, number: usize, crash: Option<Crash>) -> Self {
        let fate = Fate::new(number, crash, world.hiccups);
        let storage = FaultStorage::over(Arc::clone(&world.storage));
        let hook = Arc::clone(&fate);
        storage.control().on_call(move |call| {
            if call.method == "register" {
                hook.registered.fetch_add(1, Ordering::SeqCst);
            }
            match hook.call(call.method) {
                None => hook.hiccup(call.method),
                Some(side) => {
                    hook.die();
                    match side {
                        Side::Before => FaultAction::Die,
                        Side::After => FaultAction::DieAfter,
                    }
                }
            }
        });
        let book = world.book.clone();
        storage
            .control()
            .on_written(move |written| book.written(number, written));
        let lab = Lab {
            fate: Arc::clone(&fate),
            storage: storage.clone(),
            book: world.book.clone(),
        };
        let engine = Engine::builder()
            .storage(storage.clone())
            .service(lab)
            .clock(Arc::new(world.clock.clone()))
            .threads(1)
            .lease_ms(LEASE_MS)
            .park_always(world.park)
            .worker_name(format!("machine-{number}"))
            .id_seed(number as u64 + 1)
            .start()
            .await;
        let engine = match engine {
            Ok(engine) => Some(engine),
            Err(EngineError::Storage(_)) if fate.is_dead() => None,
            Err(error) => panic!("machine {number} did not start: {error}"),
        };
        Self {
            number,
            fate,
            storage,
            clock: world.clock.clone(),
            engine,
        }
    }

    /// Waits until nothing moves in it, or something waits for the clock to try again (`true`), or it has died (`false`).
    pub(crate) async fn settle(&self) -> bool {
        let Some(engine) = &self.engine else {
            return false;
        };
        if self.fate.is_dead() {
            return false;
        }
        let tries = self.clock.millis() < self.fate.tries_until.load(Ordering::SeqCst);
        let quiet = async {
            if tries {
                // What waits for the clock is never quiet; what does not, gets a moment.
                let _ = tokio::time::timeout(MOMENT, engine.quiet()).await;
            } else {
                engine.quiet().await;
            }
        };
        tokio::select! {
            biased;
            () = self.fate.died.notified() => false,
            () = self.fate.hiccup.notified() => {
                let until = self.clock.millis() + LONGEST_PAUSE_MS;
                self.fate.tries_until.store(until, Ordering::SeqCst);
                true
            }
            () = quiet => !self.fate.is_dead(),
        }
    }

    /// Forgets it: nothing is drained, recorded or given back.
    pub(crate) fn bury(&self) {
        self.storage.control().kill();
        if let Some(engine) = &self.engine {
            engine.abandon();
        }
    }

    /// It wakes; its lease is long gone.
    pub(crate) fn wake(&self) {
        // The death is old news.
        let _ = self.fate.died.notified().now_or_never();
        self.fate.registered.store(0, Ordering::SeqCst);
        self.fate.dead.store(false, Ordering::SeqCst);
        self.storage.control().revive();
    }

    /// It has noticed that its lease is gone and has begun again under a new worker id.
    pub(crate) fn began_again(&self) -> bool {
        self.fate.registered.load(Ordering::SeqCst) > 0
    }
}
