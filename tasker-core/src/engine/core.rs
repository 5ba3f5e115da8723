//! The heart of a running engine: one task that owns all hot frames, takes messages, steps the run machine and carries out its effects.
//!
//! It never waits for I/O: storage and services are asked by tasks beside it, and what they answer comes back as a message; what VMs did
//! lies in a box that it empties whenever it is awake.
//! Invariants: one commit, finish and release batch a slot is under way at a time · nothing is asked of a service before the receipt
//! of the turn that made the call · what is not known to have been written is sent again as it is.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tasker_adaptor::{
    CallFinish, CallSeq, ClaimedCall, ClaimedFrame, CommitRefused, Hint, Lease, OwnedRow, Reaped,
    StackRun, StackRunId, Storage, StorageError, TaskRunId, Timestamp, TurnCommit, TurnReceipt,
    WorkerId,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::asking::{Answered, Asker, Asking, Permits, Slow};
use super::clock::EngineClock;
use super::frames::HotFrame;
use super::hub::Hub;
use super::ids::Ids;
use super::lease::{Heartbeat, LeaseClock, follow_server};
use super::load::Prepared;
use super::manual::{ManualRequest, ManualStep};
use super::options::{Drive, Options};
use super::programs::Programs;
use super::threads::{VmKey, VmThreads};
use super::totals::RunTotals;
use crate::run::Event;
use crate::service::{RetryPolicy, Services};
use crate::vm::ToolNames;

/// What the core is told.
pub(crate) enum Message {
    /// VMs did something: their reports are there to be taken.
    VmsReported,
    /// A batch of turns was answered.
    Committed {
        turns: Arc<[TurnCommit]>,
        replies: Vec<Result<TurnReceipt, CommitRefused>>,
    },
    /// A batch of finished calls was answered.
    Finished {
        finishes: Arc<[CallFinish]>,
        replies: Vec<Result<bool, CommitRefused>>,
    },
    /// A batch of frames was given back.
    Released {
        frames: Vec<(StackRunId, Lease)>,
        replies: Vec<Result<(), CommitRefused>>,
    },
    /// A frame was ended or taken by somebody else.
    NotMine { frame: StackRunId, lease: Lease },
    /// Frames were claimed; `None`: nobody knows (the reply was lost). `more`: there may be more to claim.
    FramesClaimed {
        more: bool,
        claimed: Option<Vec<ClaimedFrame>>,
    },
    /// Calls were claimed; `None`: nobody knows.
    CallsClaimed {
        more: bool,
        claimed: Option<Vec<ClaimedCall>>,
    },
    /// Code and journal of a claimed frame were read.
    Prepared {
        frame: StackRunId,
        lease: Lease,
        prepared: Box<Prepared>,
    },
    /// The current versions of nested tasks were read.
    NamesResolved { frame: StackRunId, vm: VmKey },
    /// Settled, unread children of a frame were read.
    Unread {
        frame: StackRunId,
        children: Vec<StackRun>,
    },
    /// A frame was taken up again after its VM was dropped.
    Reloaded {
        frame: StackRunId,
        claimed: Option<Box<ClaimedFrame>>,
    },
    /// Attempts at calls ended.
    Answered(Vec<Answered>),
    /// Rows that this worker owns.
    Owned {
        rows: Vec<OwnedRow>,
        woken_only: bool,
    },
    /// Due timers of parked frames were fired, and when the next is due.
    TimersFired { next_due: Option<Timestamp> },
    /// Dead workers' rows were freed.
    Reaped(Reaped),
    /// From storage.
    Hint(Hint),
    /// The heartbeat got through.
    LeaseRenewed,
    /// Others may own what this worker owned.
    LeaseLost { worker: WorkerId },
    /// A new worker id is live.
    Registered {
        worker: WorkerId,
        heartbeat: JoinHandle<()>,
    },
    /// Drive by hand.
    Manual(ManualRequest),
    /// Say when nothing moves any more; `but_calls`: answers of services are not waited for.
    #[cfg(feature = "testing")]
    Quiet {
        but_calls: bool,
        done: oneshot::Sender<()>,
    },
    /// Drain, give back, stop.
    Shutdown {
        deadline_ms: u64,
        done: oneshot::Sender<()>,
    },
}

/// What all parts of an engine share.
pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) services: Services,
    pub(crate) clock: EngineClock,
    pub(crate) options: Options,
    pub(crate) programs: Programs,
    pub(crate) ids: Ids,
    pub(crate) hub: Hub,
    /// Calls at one time, for methods whose policy bounds them.
    pub(crate) permits: Permits,
    /// Fires when the engine is dropped or shut down.
    pub(crate) stop: CancellationToken,
}

impl Shared {
    /// Tries a storage operation until it is answered: an error means unknown, and the operation must be safe to send again.
    /// `None` when the engine stops, or when trying again is pointless.
    pub(crate) async fn insist<T, F>(
        &self,
        what: &str,
        mut operation: impl FnMut() -> F,
    ) -> Option<T>
    where
        F: Future<Output = Result<T, StorageError>>,
    {
        let mut pause = 20;
        loop {
            match operation().await {
                Ok(value) => {
                    if pause > 20 {
                        self.hub.storage_recovered();
                    }
                    return Some(value);
                }
                Err(error) if !error.is_retryable() => {
                    tracing::error!(what, %error, "storage refused");
                    self.hub.storage_failed(&error);
                    return None;
                }
                Err(error) => {
                    tracing::warn!(what, %error, "storage did not answer; it is tried again");
                    self.hub.storage_failed(&error);
                }
            }
            tokio::select! {
                () = self.clock.sleep(pause) => {}
                () = self.stop.cancelled() => return None,
            }
            pause = (pause * 2).min(2_000);
        }
    }
}

/// A call that this worker asks.
pub(crate) struct Asked {
    pub(crate) frame: StackRunId,
    pub(crate) seq: CallSeq,
    pub(crate) lease: Lease,
    pub(crate) run: TaskRunId,
    pub(crate) attempt: u32,
    pub(crate) service: String,
    pub(crate) path: String,
    pub(crate) token: CancellationToken,
    /// Its outcome is recorded by itself as soon as it is there.
    pub(crate) record_at_once: bool,
    pub(crate) retry: RetryPolicy,
    pub(crate) detached: bool,
    /// Its last try: no other such call is asked beside it.
    pub(crate) alone: bool,
}

/// The core.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a wish or a request under way, independent of the others"
)]
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) me: mpsc::UnboundedSender<Message>,
    pub(crate) tools: Arc<ToolNames>,
    pub(crate) threads: VmThreads,
    pub(crate) worker: WorkerId,
    pub(crate) lease: LeaseClock,
    pub(crate) heartbeat: Option<JoinHandle<()>>,

    pub(crate) hot: HashMap<StackRunId, HotFrame>,
    pub(crate) vms: HashMap<VmKey, StackRunId>,
    /// What the runs that are worked on here have made in all.
    pub(crate) totals: RunTotals,
    /// Frames that are claimed and not hot yet.
    pub(crate) preparing: HashMap<StackRunId, Lease>,
    pub(crate) calls: HashMap<StackRunId, Asked>,
    /// Those of them that are still to be asked.
    pub(crate) asks: Vec<Asking>,
    /// Methods that are asked apart from others.
    pub(crate) slow: Slow,
    pub(crate) asker: Asker,
    /// Hot frames that wait and have nothing ready, by the time since which they do.
    pub(crate) idle: BTreeSet<(i64, StackRunId)>,
    /// Timers of hot frames.
    pub(crate) timers: BTreeSet<(Timestamp, StackRunId, CallSeq)>,
    /// Events still to be stepped.
    pub(crate) events: VecDeque<(StackRunId, Event)>,
    /// Claimed frames that once ended their worker: resumed one at a time.
    pub(crate) suspects: VecDeque<ClaimedFrame>,
    pub(crate) suspect: Option<StackRunId>,

    pub(crate) commits: Vec<TurnCommit>,
    /// Runs that a turn ends which is being committed.
    pub(crate) ending: HashSet<TaskRunId>,
    pub(crate) commits_under_way: usize,
    /// Turns in the batch that was sent last.
    pub(crate) last_commit: usize,
    pub(crate) finishes: Vec<CallFinish>,
    pub(crate) finishing: bool,
    pub(crate) releases: Vec<(StackRunId, Lease)>,
    pub(crate) releasing: bool,

    pub(crate) want_frames: bool,
    pub(crate) claiming_frames: bool,
    pub(crate) want_calls: bool,
    pub(crate) claiming_calls: bool,
    /// While a call is asked alone: not before this are calls claimed.
    pub(crate) next_alone_ms: i64,
    pub(crate) want_woken: bool,
    /// When the next parked timer is due must be read.
    pub(crate) want_due: bool,
    pub(crate) want_repair: bool,
    pub(crate) listing: bool,
    pub(crate) firing: bool,
    pub(crate) next_due: Option<Timestamp>,
    pub(crate) next_poll_ms: i64,
    pub(crate) next_reap_ms: i64,
    pub(crate) reaping: bool,

    pub(crate) manual: Option<ManualStep>,
    pub(crate) draining: Option<Draining>,
    #[cfg(feature = "testing")]
    pub(crate) quiet: Vec<(bool, oneshot::Sender<()>)>,
}

/// A shutdown under way.
pub(crate) struct Draining {
    pub(crate) until_ms: i64,
    pub(crate) done: Vec<oneshot::Sender<()>>,
}

/// How long a report may lie unseen while its thread has a long turn. By tokio's clock: it has to do with threads, not with leases or
/// timers, whose clock a test may move.
const UNSEEN: Duration = Duration::from_millis(2);

/// Messages taken at one time.
const MESSAGES: usize = 1_024;

/// How often the core looks for a message before it sleeps, while one turn is all there is: some 100 µs. The first turn of a frame takes
/// about 60, with the making of its realm.
const LOOKS: u32 = 1_500;

/// Looking takes a processor from nobody who could use it for the turn.
static HAS_PROCESSORS: LazyLock<bool> =
    LazyLock::new(|| std::thread::available_parallelism().is_ok_and(|count| count.get() > 1));

impl Core {
    /// Takes messages until the engine stops.
    pub(crate) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        let mut messages = Vec::with_capacity(MESSAGES);
        let mut reports = Vec::new();
        let mut wake: (i64, BoxFuture<'static, ()>) =
            (i64::MAX, Box::pin(futures::future::pending()));
        let mut unseen = pin!(tokio::time::sleep(UNSEEN));
        let mut looks_again = true;
        self.tick();
        loop {
            if !looks_again && self.threads.may_have_reported() {
                unseen.as_mut().reset(tokio::time::Instant::now() + UNSEEN);
                looks_again = true;
            }
            let next = self.next_wake_ms();
            if next < wake.0 || wake.0 <= self.shared.clock.monotonic_ms() {
                let pause = next.saturating_sub(self.shared.clock.monotonic_ms()).max(0);
                wake = (next, self.shared.clock.sleep(pause as u64));
            }
            self.look_out(&inbox);
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => break,
                _ = inbox.recv_many(&mut messages, MESSAGES) => {}
                () = &mut wake.1 => wake = (i64::MAX, Box::pin(futures::future::pending())),
                () = &mut unseen, if looks_again => looks_again = false,
            }
            for message in messages.drain(..) {
                self.handle(message);
            }
            self.threads.take_reports(&mut reports);
            for report in reports.drain(..) {
                self.vm_reported(report);
            }
            self.step_events();
            self.tick();
            if self.is_drained() {
                break;
            }
        }
        self.close().await;
    }

    /// Looks for a message a little longer before this thread sleeps, when all that there is to wait for is one turn of one frame: most
    /// turns are shorter than it takes to put a thread to sleep and to wake it. It is bounded, so a long turn costs no more than that.
    fn look_out(&self, inbox: &mpsc::UnboundedReceiver<Message>) {
        let one_turn = self.active() == 1 && self.threads.turns_on_threads() == 1;
        if !one_turn || !*HAS_PROCESSORS {
            return;
        }
        let mut looks = 0;
        while looks < LOOKS && inbox.is_empty() {
            looks += 1;
            std::hint::spin_loop();
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            // They are taken after every message.
            Message::VmsReported => {}
            Message::Committed { turns, replies } => self.turns_answered(turns, replies),
            Message::Finished { finishes, replies } => self.finishes_answered(&finishes, replies),
            Message::Released { frames, replies } => self.releases_answered(frames, replies),
            Message::NotMine { frame, lease } => self.not_mine(frame, lease),
            Message::FramesClaimed { more, claimed } => self.frames_claimed(more, claimed),
            Message::CallsClaimed { more, claimed } => self.calls_claimed(more, claimed),
            Message::Prepared {
                frame,
                lease,
                prepared,
            } => self.prepared(frame, lease, *prepared),
            Message::NamesResolved { frame, vm } => self.names_resolved(frame, vm),
            Message::Unread { frame, children } => self.found_settled(frame, &children),
            Message::Reloaded { frame, claimed } => {
                self.reloaded(frame, claimed.map(|claimed| *claimed));
            }
            Message::Answered(answers) => {
                for answered in answers {
                    self.answered(answered);
                }
            }
            Message::Owned { rows, woken_only } => self.owned(rows, woken_only),
            Message::TimersFired { next_due } => {
                self.firing = false;
                self.next_due = next_due;
            }
            Message::Reaped(reaped) => {
                self.reaping = false;
                if reaped.more {
                    self.next_reap_ms = 0;
                }
                if reaped.frames + reaped.calls > 0 {
                    self.want_everything();
                }
            }
            Message::Hint(hint) => self.hinted(hint),
            // What could not be claimed or asked without a lease is in this tick.
            Message::LeaseRenewed => {}
            Message::LeaseLost { worker } => self.lease_lost(worker),
            Message::Registered { worker, heartbeat } => {
                self.worker = worker;
                self.heartbeat = Some(heartbeat);
                self.want_everything();
            }
            #[cfg(feature = "testing")]
            Message::Quiet { but_calls, done } => self.quiet.push((but_calls, done)),
            Message::Manual(request) => self.manual_requested(request),
            Message::Shutdown { deadline_ms, done } => {
                let until_ms = self.shared.clock.monotonic_ms() + deadline_ms as i64;
                self.draining
                    .get_or_insert_with(|| Draining {
                        until_ms,
                        done: Vec::new(),
                    })
                    .done
                    .push(done);
            }
        }
        self.step_events();
    }

    /// All that is not an answer to a message: due timers, parking, writing, claiming.
    fn tick(&mut self) {
        let now = self.shared.clock.now();
        while let Some(&(due, frame, seq)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            self.events.push_back((frame, Event::TimerDue { seq }));
        }
        self.step_events();
        self.park_idle();
        self.step_events();
        let (hot, active) = (self.vms.len(), self.active());
        self.shared.hub.counts.frames(hot, active);
        self.write();
        self.asker.ask(&mut self.asks, &self.slow);
        let mono = self.shared.clock.monotonic_ms();
        if self.shared.options.drive == Drive::Automatic {
            if mono >= self.next_poll_ms {
                self.next_poll_ms = mono + self.shared.options.poll_ms as i64;
                self.want_everything();
                self.want_due = true;
            }
            self.claim();
        }
        self.watch_turns();
        if mono >= self.next_reap_ms {
            self.next_reap_ms = mono + (self.shared.options.lease_ms / 6).max(1) as i64;
            self.reap();
        }
        self.manual_tick();
        #[cfg(feature = "testing")]
        if !self.quiet.is_empty() && self.is_still() {
            let no_calls = self.calls.is_empty();
            let now = |(but_calls, _): &mut (bool, _)| *but_calls || no_calls;
            for (_, done) in self.quiet.extract_if(.., now) {
                let _ = done.send(());
            }
        }
    }

    /// No turn, write or claim is under way.
    #[cfg(feature = "testing")]
    fn is_still(&self) -> bool {
        self.active() == 0
            && self.commits.is_empty()
            && self.commits_under_way == 0
            && self.finishes.is_empty()
            && !self.finishing
            && self.releases.is_empty()
            && !self.releasing
            && !self.claiming_frames
            && !self.claiming_calls
            && (self.shared.options.drive != Drive::Automatic
                || !self.lease.is_held()
                || !(self.want_frames || self.want_calls || self.want_woken))
            && !self.listing
            && !self.firing
            && !self.reaping
    }

    /// When the core must look again though nobody tells it anything.
    fn next_wake_ms(&self) -> i64 {
        let mono = self.shared.clock.monotonic_ms();
        let now = self.shared.clock.now();
        let in_mono = |due: Timestamp| mono + due.millis_since(now).max(0);
        let mut next = self.next_reap_ms;
        if self.shared.options.drive == Drive::Automatic {
            next = next.min(self.next_poll_ms);
            if let Some(due) = self.next_due
                && !self.firing
            {
                next = next.min(in_mono(due));
            }
        }
        if let Some((due, ..)) = self.timers.first() {
            next = next.min(in_mono(*due));
        }
        if let Some((since, _)) = self.idle.first() {
            next = next.min(since + self.shared.options.park_delay_ms as i64);
        }
        if let Some(draining) = &self.draining {
            next = next.min(draining.until_ms);
        }
        if self.active() > 0 {
            // A turn that begins after this is looked for once its guard could have passed.
            let wall_ms = self.shared.options.limits.turn_wall_ms;
            let guard = mono.saturating_add(i64::try_from(wall_ms).unwrap_or(i64::MAX));
            next = next.min(self.threads.next_watch_ms(wall_ms).unwrap_or(guard));
        }
        next
    }

    pub(crate) fn want_everything(&mut self) {
        self.want_frames = true;
        self.want_calls = true;
        self.want_woken = true;
    }

    fn hinted(&mut self, hint: Hint) {
        match hint {
            Hint::Work => self.want_everything(),
            Hint::Any => {
                self.want_everything();
                self.shared.hub.look_at_all();
            }
            // The answer to the commit that ends it says how it ended.
            Hint::Ended(run) if self.ending.contains(&run) => {}
            Hint::Ended(run) => self.shared.hub.look_at(run),
            Hint::Cancel(run) => self.run_touched(run),
        }
    }

    /// A run was cancelled or asked to: its calls in flight are told, its frames look at their rows.
    fn run_touched(&mut self, run: TaskRunId) {
        for asked in self.calls.values().filter(|asked| asked.run == run) {
            asked.token.cancel();
        }
        let frames: Vec<StackRunId> = self
            .hot
            .iter()
            .filter(|(_, frame)| frame.run() == run)
            .map(|(id, _)| *id)
            .collect();
        for frame in frames {
            self.check_still_mine(frame);
        }
    }

    /// Everything this worker held is others' now: drop it all, and begin again under a new id.
    fn lease_lost(&mut self, worker: WorkerId) {
        if worker != self.worker {
            return;
        }
        tracing::warn!(%worker, frames = self.hot.len(), "the lease was lost: all local work is dropped");
        for asked in self.calls.values() {
            asked.token.cancel();
        }
        self.calls.clear();
        let frames: Vec<StackRunId> = self.hot.keys().copied().collect();
        for frame in frames {
            self.events.push_back((frame, Event::LeaseLost));
        }
        self.preparing.clear();
        self.suspects.clear();
        self.suspect = None;
        self.register_again();
    }

    fn register_again(&mut self) {
        let worker = self.shared.ids.worker(self.shared.clock.now());
        // Until it is live nothing is claimed: a claim by an unknown worker gets nothing.
        self.worker = worker;
        let shared = Arc::clone(&self.shared);
        let lease = self.lease.clone();
        let me = self.me.clone();
        self.heartbeat = None;
        tokio::spawn(async move {
            let heartbeat = || Heartbeat {
                storage: Arc::clone(&shared.storage),
                clock: shared.clock.clone(),
                lease: lease.clone(),
                lease_ms: shared.options.lease_ms,
                worker,
                name: shared.options.worker_name.clone(),
            };
            if shared
                .insist("register", || {
                    let heartbeat = heartbeat();
                    async move { heartbeat.register().await }
                })
                .await
                .is_some()
            {
                let handle = tokio::spawn(heartbeat().run(me.clone()));
                let _ = me.send(Message::Registered {
                    worker,
                    heartbeat: handle,
                });
            }
        });
    }

    /// Runs a storage operation beside the core and sends what comes of it.
    pub(crate) fn spawn<F>(&self, work: F)
    where
        F: Future<Output = Option<Message>> + Send + 'static,
    {
        let me = self.me.clone();
        // An async block would hold the work twice: once as it came, once as it runs.
        tokio::spawn(work.map(move |message| {
            if let Some(message) = message {
                let _ = me.send(message);
            }
        }));
    }

    fn reap(&mut self) {
        if self.reaping || self.shared.options.drive == Drive::Client || self.draining.is_some() {
            return;
        }
        self.reaping = true;
        let shared = Arc::clone(&self.shared);
        let worker = self.worker;
        let lease = self.lease.clone();
        self.spawn(async move {
            if let Err(error) = follow_server(&*shared.storage, &shared.clock).await {
                tracing::warn!(%error, "the database did not say its time; dead workers are looked for later");
                return Some(Message::Reaped(Reaped::default()));
            }
            let now = shared.clock.now();
            if !lease.may_judge_others(shared.options.lease_ms) {
                return Some(Message::Reaped(Reaped::default()));
            }
            match shared.storage.overdue_cancels(now, 100).await {
                Ok(runs) => {
                    for run in runs {
                        if let Err(error) = shared.storage.cancel(run, now).await {
                            tracing::warn!(%run, %error, "a run whose grace is over could not be ended; it is tried again");
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "overdue cancels could not be read; it is tried again"),
            }
            Some(Message::Reaped(match shared.storage.reap(worker, now, 1_000).await {
                Ok(reaped) => reaped,
                Err(error) => {
                    tracing::warn!(%error, "dead workers could not be looked for; it is tried again");
                    Reaped::default()
                }
            }))
        });
    }

    fn is_drained(&mut self) -> bool {
        let Some(draining) = &self.draining else {
            return false;
        };
        let late = self.shared.clock.monotonic_ms() >= draining.until_ms;
        let quiet = self.hot.is_empty()
            && self.preparing.is_empty()
            && self.suspects.is_empty()
            && self.calls.is_empty()
            && self.commits.is_empty()
            && self.commits_under_way == 0
            && self.finishes.is_empty()
            && !self.finishing
            && self.releases.is_empty()
            && !self.releasing
            && !self.claiming_frames
            && !self.claiming_calls;
        late || quiet
    }

    /// Gives back what is left and ends.
    async fn close(mut self) {
        if let Some(heartbeat) = self.heartbeat.take() {
            heartbeat.abort();
        }
        for asked in self.calls.values() {
            asked.token.cancel();
        }
        if let Some(draining) = self.draining.take() {
            // A retired worker's rows are freed as a dead one's are: calls that were asked become in doubt.
            let now = self.shared.clock.now();
            if let Err(error) = self.shared.storage.retire(self.worker, now).await {
                tracing::warn!(%error, "the worker could not say goodbye; its lease runs out by itself");
            }
            self.shared.services.shutdown().await;
            let threads = self.threads;
            let _ = tokio::task::spawn_blocking(move || threads.join()).await;
            self.shared.stop.cancel();
            self.shared.hub.counts.frames(0, 0);
            self.shared.hub.close();
            for done in draining.done {
                let _ = done.send(());
            }
        } else {
            self.shared.hub.close();
        }
    }
}
