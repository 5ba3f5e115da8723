//! What happens to which call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;

use crate::{CallFinish, CommitRefused, StorageError, Timestamp, TurnCommit, TurnReceipt};

/// A call that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallInfo {
    /// How many calls came before it, over all methods.
    pub index: usize,
    /// How many calls of this method came before it.
    pub nth: usize,
    /// The method's name: `commit`, `claim_frames` …
    pub method: &'static str,
}

/// What happens to a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultAction {
    /// Nothing is injected.
    #[default]
    Pass,
    /// It answers `Unavailable` and nothing happened.
    FailBefore,
    /// It is applied, the reply is lost: `Unavailable`.
    FailAfter,
    /// It waits, unapplied, until [`FaultControl::release`]; then it is made (or fails, if the store is dead by then).
    Delay,
    /// It is made twice; the second answer is given.
    Repeat,
    /// The crash comes before it: this call and all later ones answer `Unavailable` and change nothing.
    Die,
    /// The crash comes after it: it is applied, its reply and everything later is lost.
    DieAfter,
}

type Hook = Arc<dyn Fn(CallInfo) -> FaultAction + Send + Sync>;

/// What the wrapped store answered to a write, whether or not its caller ever hears of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Written<'a> {
    /// A turn.
    Turn(&'a TurnCommit, &'a Result<TurnReceipt, CommitRefused>),
    /// A finished attempt at a call.
    Call(&'a CallFinish, &'a Result<bool, CommitRefused>),
}

type ServerClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
type Observer = Arc<dyn Fn(Written<'_>) + Send + Sync>;

/// The test's side of a [`FaultStorage`](super::FaultStorage). Clones share one state.
#[derive(Clone, Default)]
pub struct FaultControl {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    methods: Vec<&'static str>,
    counts: BTreeMap<&'static str, usize>,
    hook: Option<Hook>,
    observer: Option<Observer>,
    server_clock: Option<ServerClock>,
    under_way: usize,
    next: Vec<(&'static str, FaultAction)>,
    at: BTreeMap<usize, FaultAction>,
    dead: bool,
    delayed: Vec<oneshot::Sender<()>>,
}

impl FaultControl {
    /// Asks this hook about every call that [`FaultControl::at`] and [`FaultControl::on_next`] say nothing about.
    pub fn on_call(&self, hook: impl Fn(CallInfo) -> FaultAction + Send + Sync + 'static) {
        self.lock().hook = Some(Arc::new(hook));
    }

    /// Tells this observer what the wrapped store answered to every turn and every finished call, lost replies among them.
    pub fn on_written(&self, observer: impl Fn(Written<'_>) + Send + Sync + 'static) {
        self.lock().observer = Some(Arc::new(observer));
    }

    /// Gives the store a clock of its own, as a database server has: what `server_time` answers from now on.
    pub fn server_clock(&self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) {
        self.lock().server_clock = Some(Arc::new(clock));
    }

    /// What the store's own clock shows, if it has one.
    pub(super) fn server_now(&self) -> Option<Timestamp> {
        let clock = self.lock().server_clock.clone();
        clock.map(|clock| clock())
    }

    /// How many calls have been made and not answered, delayed ones among them: 0 means that the store is at rest.
    pub fn under_way(&self) -> usize {
        self.lock().under_way
    }

    /// What happens to the call of this index, counted over all methods from 0.
    pub fn at(&self, index: usize, action: FaultAction) {
        self.lock().at.insert(index, action);
    }

    /// What happens to the next call of this method; given again, to the one after it.
    pub fn on_next(&self, method: &'static str, action: FaultAction) {
        self.lock().next.push((method, action));
    }

    /// How many calls were made, dead ones among them.
    pub fn calls(&self) -> usize {
        self.lock().methods.len()
    }

    /// The methods that were called, in order.
    pub fn methods(&self) -> Vec<&'static str> {
        self.lock().methods.clone()
    }

    /// From now on every call answers `Unavailable` and changes nothing: a crash that forgets.
    pub fn kill(&self) {
        self.lock().dead = true;
    }

    /// A dead store answers again: a zombie wakes.
    pub fn revive(&self) {
        self.lock().dead = false;
    }

    /// Whether it is dead.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// How many calls are delayed now.
    pub fn delayed(&self) -> usize {
        let mut shared = self.lock();
        shared.delayed.retain(|waiting| !waiting.is_canceled());
        shared.delayed.len()
    }

    /// Lets all delayed calls go; answers how many.
    pub fn release(&self) -> usize {
        let delayed = std::mem::take(&mut self.lock().delayed);
        let released = delayed.into_iter().map(|waiting| waiting.send(()));
        released.flatten().count()
    }

    /// Counts the call and says what happens to it.
    pub(super) fn decide(&self, method: &'static str) -> FaultAction {
        let mut shared = self.lock();
        let index = shared.methods.len();
        shared.methods.push(method);
        let count = shared.counts.entry(method).or_default();
        let nth = *count;
        *count += 1;
        if shared.dead {
            return FaultAction::FailBefore;
        }
        if let Some(action) = shared.at.remove(&index) {
            return action;
        }
        let planned = shared.next.iter().position(|(name, _)| *name == method);
        if let Some(planned) = planned {
            return shared.next.remove(planned).1;
        }
        let hook = shared.hook.clone();
        drop(shared);
        hook.map_or(FaultAction::Pass, |hook| {
            hook(CallInfo { index, nth, method })
        })
    }

    /// Passes an answer of the wrapped store on to the observer.
    pub(super) fn written(&self, written: &[Written<'_>]) {
        let observer = self.lock().observer.clone();
        if let Some(observer) = observer {
            for one in written {
                observer(*one);
            }
        }
    }

    /// Counts a call as under way until the value is dropped.
    pub(super) fn begin(&self) -> UnderWay {
        self.lock().under_way += 1;
        UnderWay(self.clone())
    }

    /// Resolves when the test releases delayed calls.
    pub(super) fn wait(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.lock().delayed.push(sender);
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way.
pub(super) struct UnderWay(FaultControl);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
    }
}

impl std::fmt::Debug for FaultControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultControl")
            .field("calls", &self.calls())
            .field("dead", &self.is_dead())
            .finish_non_exhaustive()
    }
}

/// What a lost reply looks like.
pub(super) fn lost(method: &'static str) -> StorageError {
    StorageError::Unavailable {
        backend: "fault",
        message: format!("a test cut the connection at `{method}`"),
    }
}
