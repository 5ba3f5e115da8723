//! Building an engine.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use tasker_adaptor::{Hint, MAX_LEASE_MS, RunStatus, Storage};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::asking::{Asker, Permits, Slow};
use super::cleaner;
use super::clock::{Clock, EngineClock};
use super::core::{Core, Message, Shared};
use super::error::EngineError;
use super::hub::Hub;
use super::ids::Ids;
use super::lease::{Heartbeat, LeaseClock, follow_server};
use super::options::{Drive, Options};
use super::programs::Programs;
use super::threads::VmThreads;
use super::totals::RunTotals;
use super::{Engine, EngineInner};
use crate::limits::Limits;
use crate::service::{MethodPolicy, ServiceProxy, Services, ServicesBuilder};
use crate::vm::ToolNames;
use crate::wall::Wall;

/// Settings of an engine. Begin with [`Engine::builder`]; end with [`EngineBuilder::start`] or [`EngineBuilder::client`].
#[derive(Default)]
#[must_use = "an engine runs after .start().await"]
pub struct EngineBuilder {
    storage: Option<Arc<dyn Storage>>,
    services: ServicesBuilder,
    options: Options,
    wall: Option<Wall>,
}

impl EngineBuilder {
    /// Where runs are kept. Required.
    pub fn storage(mut self, storage: impl Storage) -> Self {
        self.storage = Some(Arc::new(storage));
        self
    }

    /// Where runs are kept, shared with others.
    pub fn shared_storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = Some(storage);
        self
    }

    /// A service that every task may call.
    pub fn service(mut self, service: impl ServiceProxy) -> Self {
        self.services = self.services.add(service);
        self
    }

    /// A service that only tasks may call which were granted it when they were published.
    pub fn private_service(mut self, service: impl ServiceProxy) -> Self {
        self.services = self.services.add_private(service);
        self
    }

    /// Policy of a service (`method` = `None`) or of one of its methods, over what the service says of itself.
    pub fn policy(mut self, service: &str, method: Option<&str>, policy: MethodPolicy) -> Self {
        self.services = self.services.override_policy(service, method, policy);
        self
    }

    /// The service to ask when another one does not work.
    pub fn fallback(mut self, service: &str, other: &str) -> Self {
        self.services = self.services.fallback(service, other);
        self
    }

    /// Limits of each frame. Default [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options.limits = Arc::new(limits);
        self
    }

    /// Who drives the runs. Default [`Drive::Automatic`].
    pub fn drive(mut self, drive: Drive) -> Self {
        self.options.drive = drive;
        self
    }

    /// What stands between task code and this process. For code by strangers: [`Wall::process`].
    ///
    /// Default [`Wall::in_process`], and a warning in the log, for it is not to be chosen by forgetting: VMs on threads of this
    /// process hold mistakes of code that was reviewed, not attacks on QuickJS itself. For both: `Wall::in_process_for`.
    pub fn wall(mut self, wall: Wall) -> Self {
        self.wall = Some(wall);
        self
    }

    /// Threads that own VMs. Default: the number of cores.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = threads.max(1);
        self
    }

    /// Runnable frames worked on at one time. Default 96. More costs cache misses, fewer makes smaller commits.
    pub fn window(mut self, frames: usize) -> Self {
        self.options.window = frames.max(1);
        self
    }

    /// Frames with a VM in memory at one time, about 0.2 MB each. Default 1,024; the ones that wait longest are parked first.
    pub fn hot_frames(mut self, frames: usize) -> Self {
        self.options.hot_frames = frames.max(1);
        self
    }

    /// Memory of all VMs together, in MiB: their heaps as they count them themselves, and 32 KiB beside each. Default 1,024: four times what as many frames of usual tasks
    /// take, and far below what they might take, for each may have [`Limits::memory_bytes`].
    ///
    /// Above it frames that wait are parked, the ones that wait longest first; while those that do not wait take so much, no further
    /// ones are taken up and their turns wait for one another. What a turn takes is known when it is over: before that it counts for
    /// what turns came to lately. So tasks that took little and suddenly take much may pass the budget once, by what 16 frames a thread
    /// may have at most. One frame is always worked on, whatever it takes.
    pub fn hot_memory_mb(mut self, mib: usize) -> Self {
        self.options.hot_bytes = mib.max(1).saturating_mul(1 << 20);
        self
    }

    /// Calls asked at one time. Default 1,024. Others wait as rows, for this engine or another.
    pub fn calls_in_flight(mut self, calls: usize) -> Self {
        self.options.calls_in_flight = calls.max(1);
        self
    }

    /// A frame that waits longer than this is parked, in milliseconds. Default 5,000.
    pub fn park_delay_ms(mut self, millis: u64) -> Self {
        self.options.park_delay_ms = millis;
        self
    }

    /// Parks every frame as soon as it waits: a test mode that shows that parking changes nothing.
    pub fn park_always(mut self, always: bool) -> Self {
        self.options.park_always = always;
        self
    }

    /// How long this worker may be silent before others take its work over, in milliseconds. Default 30,000; at most ten minutes.
    /// Shorter recovers faster after a crash; a value below the slowest turn makes two workers do the same turn (one commit is refused).
    pub fn lease_ms(mut self, millis: u64) -> Self {
        self.options.lease_ms = millis.clamp(3, MAX_LEASE_MS as u64);
        self
    }

    /// How often storage is asked when no hint comes, in milliseconds. Default 1,000.
    pub fn poll_ms(mut self, millis: u64) -> Self {
        self.options.poll_ms = millis.max(1);
        self
    }

    /// How long a cancelled run may clean up, in milliseconds. Default 5,000.
    pub fn cancel_grace_ms(mut self, millis: u64) -> Self {
        self.options.cancel_grace_ms = millis;
        self
    }

    /// Take-overs in one and the same turn, or of one and the same call, after which it is blocked as poisoned. Default 3.
    pub fn poison_limit(mut self, take_overs: u32) -> Self {
        self.options.poison_limit = take_overs.max(1);
        self
    }

    /// How long the stack runs of ended runs are kept for debugging, in milliseconds. Default 0: only the folded call tree stays.
    pub fn keep_rows_ms(mut self, millis: u64) -> Self {
        self.options.keep_rows_ms = millis;
        self
    }

    /// How long ended runs of this status are kept after their end, in milliseconds: after that the cleaner deletes them with their
    /// record and log lines, and nobody can ask for their result any more. Default: for ever. Say it once a status.
    pub fn keep_runs_ms(mut self, status: RunStatus, millis: u64) -> Self {
        self.options.keep_runs.retain(|(known, _)| *known != status);
        self.options.keep_runs.push((status, millis));
        self
    }

    /// How often the cleaner works, in milliseconds. Default 1,000; 0: never. While runs are under way it leaves those alone that ended
    /// less than ten seconds ago: they are cleaned after the rush.
    pub fn clean_every_ms(mut self, millis: u64) -> Self {
        self.options.clean_every_ms = millis;
        self
    }

    /// How this worker is called in the table `workers`. Default `tasker-` and the process id.
    pub fn worker_name(mut self, name: impl Into<String>) -> Self {
        self.options.worker_name = name.into();
        self
    }

    /// The clock. Default: the host's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.options.clock = clock;
        self
    }

    /// Makes ids from a seed, so that a test repeats. Never in production: two engines with one seed make the same ids.
    pub fn id_seed(mut self, seed: u64) -> Self {
        self.options.id_seed = Some(seed);
        self
    }

    /// An engine that submits and reads and runs nothing.
    ///
    /// # Errors
    /// As [`EngineBuilder::start`].
    pub async fn client(self) -> Result<Engine, EngineError> {
        self.drive(Drive::Client).start().await
    }

    /// Starts the engine on the tokio runtime that this is called on.
    ///
    /// # Errors
    /// `NoStorage`; `Services` when two services have one name; `Wall` when the homes of the VMs cannot be started;
    /// `Storage` when the worker cannot be registered.
    pub async fn start(self) -> Result<Engine, EngineError> {
        let storage = self.storage.ok_or(EngineError::NoStorage)?;
        let clock = EngineClock::new(Arc::clone(&self.options.clock));
        let health_clock = clock.clone();
        let services: Services = self
            .services
            .with_clock(Arc::new(move || health_clock.now()))
            .build()?;
        let options = self.options;
        let wall = self.wall;
        let shared = Arc::new(Shared {
            programs: Programs::new(Arc::clone(&storage), clock.clone()),
            ids: Ids::new(options.id_seed),
            hub: Hub::default(),
            permits: Permits::default(),
            stop: CancellationToken::new(),
            storage,
            services,
            clock,
            options,
        });
        let (me, inbox) = mpsc::unbounded_channel();
        #[cfg(feature = "testing")]
        let (questions, asked) = mpsc::unbounded_channel();
        if shared.options.drive == Drive::Client {
            follow_server(&*shared.storage, &shared.clock).await?;
            keep_following(&shared);
            listen(&shared, hints(&shared), None);
        } else {
            let core = start_core(&shared, &me, wall).await?;
            tokio::spawn(core.run(inbox));
            let heard = hints(&shared);
            #[cfg(feature = "testing")]
            let heard = questions_behind(heard, asked);
            listen(&shared, heard, Some(me.clone()));
            cleaner::start(&shared);
        }
        Ok(Engine {
            inner: Arc::new(EngineInner {
                shared,
                core: me,
                #[cfg(feature = "testing")]
                questions,
                by_hand: tokio::sync::Mutex::default(),
            }),
        })
    }
}

async fn start_core(
    shared: &Arc<Shared>,
    me: &mpsc::UnboundedSender<Message>,
    wall: Option<Wall>,
) -> Result<Core, EngineError> {
    let wall = wall.unwrap_or_else(|| {
        tracing::warn!(
            "no wall was chosen: tasks run on threads of this process, which holds mistakes but not attacks on QuickJS itself, and \
             a native operation on a large value keeps its thread until it ends; for code by strangers call .wall(Wall::process()), \
             for code that you would review .wall(Wall::in_process())"
        );
        Wall::in_process()
    });
    let threads = VmThreads::start(wall, &shared.options, shared.clock.clone(), me).await?;
    let worker = shared.ids.worker(shared.clock.host_now());
    let lease = LeaseClock::new(shared.clock.clone());
    let heartbeat = Heartbeat {
        storage: Arc::clone(&shared.storage),
        clock: shared.clock.clone(),
        lease: lease.clone(),
        lease_ms: shared.options.lease_ms,
        worker,
        name: shared.options.worker_name.clone(),
    };
    heartbeat.register().await?;
    let asker = Asker {
        shared: Arc::clone(shared),
        held: lease.clone(),
        core: me.clone(),
    };
    let tools = Arc::new(ToolNames::new(shared.services.names_and_styles()));
    let now = shared.clock.monotonic_ms();
    Ok(Core {
        heartbeat: Some(tokio::spawn(heartbeat.run(me.clone()))),
        shared: Arc::clone(shared),
        me: me.clone(),
        tools,
        threads,
        worker,
        lease,
        hot: HashMap::new(),
        vms: HashMap::new(),
        totals: RunTotals::default(),
        preparing: HashMap::new(),
        calls: HashMap::new(),
        asks: Vec::new(),
        slow: Slow::default(),
        asker,
        idle: BTreeSet::new(),
        timers: BTreeSet::new(),
        events: VecDeque::new(),
        suspects: VecDeque::new(),
        suspect: None,
        next_alone_ms: 0,
        commits: Vec::new(),
        ending: HashSet::new(),
        commits_under_way: 0,
        last_commit: 0,
        finishes: Vec::new(),
        finishing: false,
        releases: Vec::new(),
        releasing: false,
        want_frames: true,
        claiming_frames: false,
        want_calls: true,
        claiming_calls: false,
        want_woken: false,
        want_due: true,
        want_repair: false,
        listing: false,
        firing: false,
        next_due: None,
        next_poll_ms: now,
        next_reap_ms: now,
        reaping: false,
        manual: None,
        draining: None,
        #[cfg(feature = "testing")]
        quiet: Vec::new(),
    })
}

/// Keeps a client's clock to the database's, as the heartbeat does for workers.
fn keep_following(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = shared.clock.sleep(shared.options.lease_ms / 3) => {}
            }
            if let Err(error) = follow_server(&*shared.storage, &shared.clock).await {
                tracing::warn!(%error, "the database did not say its time; it is asked again");
            }
        }
    });
}

/// What storage hints at.
fn hints(shared: &Shared) -> BoxStream<'static, Message> {
    shared.storage.watch().map(Message::Hint).boxed()
}

/// Whether anything moves is asked behind the hints that were given before: what was submitted moves.
#[cfg(feature = "testing")]
fn questions_behind(
    hints: BoxStream<'static, Message>,
    mut asked: mpsc::UnboundedReceiver<Message>,
) -> BoxStream<'static, Message> {
    use futures::stream::{PollNext, poll_fn, select_with_strategy};

    let asked = poll_fn(move |context| asked.poll_recv(context));
    select_with_strategy(hints, asked, |(): &mut ()| PollNext::Left).boxed()
}

/// Passes on what is heard, and looks at waiting runs once a poll in case a hint was lost.
fn listen(
    shared: &Arc<Shared>,
    mut heard: BoxStream<'static, Message>,
    core: Option<mpsc::UnboundedSender<Message>>,
) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                () = shared.stop.cancelled() => break,
                message = heard.next() => message,
                () = shared.clock.sleep(shared.options.poll_ms) => Some(Message::Hint(Hint::Any)),
            };
            let Some(message) = message else {
                // Storage gives no hints (any more): polling remains.
                heard = futures::stream::pending().boxed();
                continue;
            };
            match &core {
                Some(core) => {
                    if core.send(message).is_err() {
                        break;
                    }
                }
                None => match message {
                    Message::Hint(Hint::Ended(run)) => shared.hub.look_at(run),
                    _ => shared.hub.look_at_all(),
                },
            }
        }
    });
}
