//! The engine's one clock. The only file that reads the host's clock.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the clock file that the lint points to"
)]

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use tasker_adaptor::Timestamp;

/// Where an engine's time comes from. [`SystemClock`] unless a test moves time by hand.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time.
    fn now(&self) -> Timestamp;

    /// Milliseconds since some fixed moment; never goes back, and does not care about wall-clock jumps.
    fn monotonic_ms(&self) -> i64;

    /// Ends when this many milliseconds have passed on the monotonic clock.
    fn sleep(&self, millis: u64) -> BoxFuture<'static, ()>;
}

/// The host's clock and tokio's timers.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let millis = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    fn monotonic_ms(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn sleep(&self, millis: u64) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(Duration::from_millis(millis)))
    }
}

/// The clock as the engine uses it: the database's time as last heard, carried on by the monotonic clock. So neither skew between
/// machines nor a jump of this host's clock can make leases look expired; a jump is seen, and kept in mind, when the database is asked again.
#[derive(Clone)]
pub(crate) struct EngineClock {
    host: Arc<dyn Clock>,
    /// Database time minus monotonic time, in milliseconds.
    offset: Arc<AtomicI64>,
    heard: Arc<Mutex<Heard>>,
}

/// What the database's clock was seen to do.
#[derive(Default)]
struct Heard {
    /// Before it is first asked, the time is the host's and no jump can be seen.
    once: bool,
    /// When it was last seen to be set, by the monotonic clock.
    set_ms: Option<i64>,
}

/// Less than this is drift and the time that asking takes, in milliseconds.
const JUMP_MS: i64 = 1_000;

impl EngineClock {
    pub(crate) fn new(host: Arc<dyn Clock>) -> Self {
        let offset = host.now().as_millis() - host.monotonic_ms();
        Self {
            host,
            offset: Arc::new(AtomicI64::new(offset)),
            heard: Arc::default(),
        }
    }

    /// Now, by the database's clock as last heard.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.monotonic_ms() + self.offset.load(Ordering::Relaxed))
    }

    pub(crate) fn host_now(&self) -> Timestamp {
        self.host.now()
    }

    pub(crate) fn monotonic_ms(&self) -> i64 {
        self.host.monotonic_ms()
    }

    pub(crate) fn sleep(&self, millis: u64) -> BoxFuture<'static, ()> {
        self.host.sleep(millis)
    }

    /// Follows the database, whose time was `server` a moment ago. That the clock was set is kept before anybody reads the new time.
    pub(crate) fn follow(&self, server: Timestamp) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mono = self.monotonic_ms();
        let offset = server.as_millis() - mono;
        let by_ms = offset - self.offset.load(Ordering::Relaxed);
        if heard.once && by_ms.abs() >= JUMP_MS {
            heard.set_ms = Some(mono);
            tracing::warn!(
                by_ms,
                "the clock was set; nobody is taken over for one lease"
            );
        }
        heard.once = true;
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// Whether somebody in this process saw, no longer ago than this, that the clock which leases are written in was set. Asked after
    /// [`EngineClock::now`], it knows of every jump that is in the time.
    pub(crate) fn was_set_within(&self, millis: i64) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard
            .set_ms
            .is_some_and(|set| self.monotonic_ms() < set.saturating_add(millis))
    }
}
