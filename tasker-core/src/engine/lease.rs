//! The worker's lease: kept by heartbeat, judged by the worker's own monotonic clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tasker_adaptor::{NewWorker, Storage, WorkerId};
use tokio::sync::mpsc::UnboundedSender;

use super::clock::EngineClock;
use super::core::Message;

/// Until when this worker may act on what it owns, by its own monotonic clock.
#[derive(Clone)]
pub(crate) struct LeaseClock {
    valid_until_ms: Arc<AtomicI64>,
    /// When a heartbeat last came too late, by the same clock.
    late_ms: Arc<AtomicI64>,
    clock: EngineClock,
}

impl LeaseClock {
    pub(crate) fn new(clock: EngineClock) -> Self {
        Self {
            valid_until_ms: Arc::new(AtomicI64::new(i64::MIN)),
            late_ms: Arc::new(AtomicI64::new(i64::MIN)),
            clock,
        }
    }

    /// Whether the lease is surely held: asked right before a service is (E7).
    pub(crate) fn is_held(&self) -> bool {
        self.clock.monotonic_ms() < self.valid_until_ms.load(Ordering::Acquire)
    }

    /// Whether leases that look over by this time of [`EngineClock::now`] are. By a clock that was set those of the living would look so,
    /// and after a while in which this process stood still (stopped, a sleeping machine) others may have stood still beside it. For
    /// one lease after either, until the living have written theirs again, the answer is no.
    pub(crate) fn may_judge_others(&self, lease_ms: u64) -> bool {
        let lease_ms = lease_ms as i64;
        let is_held = self.is_held();
        let late_ms = self.late_ms.load(Ordering::Acquire);
        is_held
            && late_ms.saturating_add(lease_ms) <= self.clock.monotonic_ms()
            && !self.clock.was_set_within(lease_ms)
    }

    /// A heartbeat that comes now, after the lease was over by this worker's own clock, is late.
    fn note_lateness(&self) {
        if !self.is_held() {
            self.late_ms
                .store(self.clock.monotonic_ms(), Ordering::Release);
        }
    }

    /// A heartbeat that was sent at `sent_ms` was accepted.
    fn renewed(&self, sent_ms: i64, lease_ms: i64) {
        // A little less than what was written, so that this worker stops before others may take over.
        self.valid_until_ms
            .store(sent_ms + lease_ms * 9 / 10, Ordering::Release);
    }

    fn lost(&self) {
        self.valid_until_ms.store(i64::MIN, Ordering::Release);
    }
}

/// What the heartbeat needs.
pub(crate) struct Heartbeat {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: EngineClock,
    pub(crate) lease: LeaseClock,
    pub(crate) lease_ms: u64,
    pub(crate) worker: WorkerId,
    pub(crate) name: String,
}

impl Heartbeat {
    /// Makes the worker live. Tried once; the caller says what a failure means.
    pub(crate) async fn register(&self) -> Result<(), tasker_adaptor::StorageError> {
        let sent = self.clock.monotonic_ms();
        follow_server(&*self.storage, &self.clock).await?;
        self.storage
            .register(NewWorker {
                id: self.worker,
                name: self.name.clone(),
                now: self.clock.now(),
                lease_ms: self.written_ms(),
            })
            .await?;
        self.lease.renewed(sent, self.written_ms());
        Ok(())
    }

    /// How far ahead the end of the lease is written. Others look for the dead every sixth of a lease, so that what a worker had
    /// is taken over one lease after it fell silent, and not one and a half.
    fn written_ms(&self) -> i64 {
        (self.lease_ms * 5 / 6).max(1) as i64
    }

    /// Renews until the lease is lost (then says so and ends) or the task is dropped.
    pub(crate) async fn run(self, core: UnboundedSender<Message>) {
        let pause = (self.lease_ms / 4).max(1);
        loop {
            self.clock.sleep(pause).await;
            let sent = self.clock.monotonic_ms();
            let renewed = match follow_server(&*self.storage, &self.clock).await {
                Ok(()) => {
                    self.storage
                        .heartbeat(self.worker, self.clock.now(), self.written_ms())
                        .await
                }
                Err(error) => Err(error),
            };
            match renewed {
                Ok(true) => {
                    self.lease.note_lateness();
                    self.lease.renewed(sent, self.written_ms());
                    let _ = core.send(Message::LeaseRenewed);
                }
                Ok(false) => {
                    self.lease.lost();
                    let _ = core.send(Message::LeaseLost {
                        worker: self.worker,
                    });
                    return;
                }
                Err(error) => {
                    tracing::warn!(worker = %self.worker, %error, "the heartbeat did not get through; it is tried again");
                }
            }
        }
    }
}

/// Asks the database for its time, and follows it.
pub(crate) async fn follow_server(
    storage: &dyn Storage,
    clock: &EngineClock,
) -> Result<(), tasker_adaptor::StorageError> {
    let server = storage.server_time(clock.host_now()).await?;
    clock.follow(server);
    Ok(())
}
