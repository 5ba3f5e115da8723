//! The engine's one clock. The only file that reads the host's clock.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the clock file that the lint points to"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
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

/// The clock as the engine uses it: kept to the database's time, so that skew between machines cannot expire leases early.
#[derive(Clone)]
pub(crate) struct EngineClock {
    host: Arc<dyn Clock>,
    /// Database time minus host time, in milliseconds.
    offset: Arc<AtomicI64>,
}

impl EngineClock {
    pub(crate) fn new(host: Arc<dyn Clock>) -> Self {
        Self {
            host,
            offset: Arc::new(AtomicI64::new(0)),
        }
    }

    /// Now, by the database's clock as last heard.
    pub(crate) fn now(&self) -> Timestamp {
        self.host
            .now()
            .plus_millis(self.offset.load(Ordering::Relaxed))
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

    /// Follows the database: `server` was its time when the host's clock showed `host`.
    pub(crate) fn follow(&self, server: Timestamp, host: Timestamp) {
        self.offset
            .store(server.millis_since(host), Ordering::Relaxed);
    }
}
