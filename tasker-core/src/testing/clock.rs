//! A clock that stands still until a test moves it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tasker_adaptor::Timestamp;
use tokio::sync::oneshot;

use crate::engine::Clock;

/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600_000;

/// A clock that stands still until a test moves it. Clones show the same time.
#[derive(Clone)]
pub struct TestClock {
    inner: Arc<Mutex<Inner>>,
    /// How far this clone's wall clock is off, in milliseconds: a worker with a wrong clock.
    skew: i64,
}

struct Inner {
    millis: i64,
    sleepers: BTreeMap<(i64, u64), oneshot::Sender<()>>,
    count: u64,
}

impl Default for TestClock {
    fn default() -> Self {
        let inner = Inner {
            millis: START,
            sleepers: BTreeMap::new(),
            count: 0,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            skew: 0,
        }
    }
}

impl TestClock {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same time with a wall clock that is off by this many milliseconds.
    #[must_use]
    pub fn skewed(&self, millis: i64) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            skew: millis,
        }
    }

    /// Milliseconds since the epoch.
    pub fn millis(&self) -> i64 {
        self.inner().millis
    }

    /// Moves the clock, waking all whose time has come.
    pub fn advance(&self, millis: i64) {
        let mut inner = self.inner();
        inner.millis += millis;
        let now = inner.millis;
        let later = inner.sleepers.split_off(&(now + 1, 0));
        for (_, wake) in std::mem::replace(&mut inner.sleepers, later) {
            let _ = wake.send(());
        }
    }

    /// Moves the clock to the next moment at which somebody wakes.
    pub async fn advance_to_next(&self) {
        self.advance_to_next_before(i64::MAX).await;
    }

    /// Moves the clock to the next moment at which somebody wakes, but no further than `until`; whether there is more to come before it.
    pub async fn advance_to_next_before(&self, until: i64) -> bool {
        let (step, more) = {
            let mut inner = self.inner();
            while inner
                .sleepers
                .first_entry()
                .is_some_and(|entry| entry.get().is_closed())
            {
                inner.sleepers.pop_first();
            }
            match inner.sleepers.first_key_value() {
                Some(((at, _), _)) if *at < until => (*at - inner.millis, true),
                _ if until == i64::MAX => (0, false),
                _ => (until - inner.millis, false),
            }
        };
        self.advance(step.max(0));
        // Whoever was woken runs before the next step.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        more
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis() + self.skew)
    }

    fn monotonic_ms(&self) -> i64 {
        self.millis() - START
    }

    fn sleep(&self, millis: u64) -> BoxFuture<'static, ()> {
        let (wake, woken) = oneshot::channel();
        let mut inner = self.inner();
        let at = inner
            .millis
            .saturating_add(i64::try_from(millis).unwrap_or(i64::MAX));
        if at <= inner.millis {
            return Box::pin(tokio::task::yield_now());
        }
        inner.count += 1;
        let key = (at, inner.count);
        inner.sleepers.insert(key, wake);
        Box::pin(async move {
            // A clock that is gone wakes nobody.
            if woken.await.is_err() {
                futures::future::pending::<()>().await;
            }
        })
    }
}
