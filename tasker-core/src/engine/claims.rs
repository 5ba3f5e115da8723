//! Claiming: filling the window, finding woken frames, repairing lost replies, firing timers of parked frames.

use std::collections::HashSet;
use std::sync::Arc;

use tasker_adaptor::{
    Claim, ClaimedCall, ClaimedFrame, Lease, OwnedRow, ReleasedCall, StackKind, StackRun,
    StackRunId, StorageError,
};

use super::core::{Core, Message, Shared};
use crate::run::Effect;

/// Rows in one claim.
const CLAIM: usize = 256;
/// How long a timer of a frame that is hot somewhere may be late before anybody fires it, in milliseconds.
const TIMER_GRACE_MS: i64 = 10_000;
/// How often calls are claimed while one is asked alone, in milliseconds.
const ALONE_PAUSE_MS: i64 = 1_000;
/// How soon after one look the next one for due timers may come, in milliseconds.
const DUE_PAUSE_MS: i64 = 50;

impl Core {
    /// Claims what there is room for and reason to look for.
    pub(crate) fn claim(&mut self) {
        // While the lease is unsure nothing would be asked: what is claimed would only be given back, again and again.
        if self.draining.is_some() || self.heartbeat.is_none() || !self.lease.is_held() {
            return;
        }
        self.fire_timers();
        self.look_for_owned();
        if self.want_repair {
            // Until the repair has said what is owned, a claim would confuse it.
            return;
        }
        let room = self.room().min(CLAIM);
        // While a frame that ended its worker before is resumed alone, the others like it would come and be given back again and again.
        if self.want_frames && !self.claiming_frames && self.suspect.is_none() && room > 0 {
            self.claim_frames(room, None);
        }
        let room = self
            .shared
            .options
            .calls_in_flight
            .saturating_sub(self.calls.len())
            .min(CLAIM);
        if self.want_calls && !self.claiming_calls && room > 0 && !self.rests_from_calls() {
            self.claim_calls(room, None);
        }
    }

    /// A call in its last try is under way, or a frame that ended its worker before: beside it no other last try begins.
    fn asks_alone(&self) -> bool {
        self.suspect.is_some() || self.calls.values().any(|asked| asked.alone)
    }

    /// Meanwhile calls are claimed now and then only, for those in their last try come each time and are given back.
    fn rests_from_calls(&self) -> bool {
        self.asks_alone() && self.shared.clock.monotonic_ms() < self.next_alone_ms
    }

    pub(crate) fn claim_frames(&mut self, asked: usize, only: Option<StackRunId>) {
        self.want_frames = false;
        self.claiming_frames = true;
        let (shared, claim) = (Arc::clone(&self.shared), self.a_claim(asked, only));
        self.spawn(async move {
            let claimed = shared.storage.claim_frames(claim).await;
            let mut claimed = known(&shared, "frames", claimed);
            let more = claimed.as_ref().is_some_and(|rows| rows.len() == asked);
            if let Some(rows) = &mut claimed {
                one_suspect(&shared, rows).await;
            }
            Some(Message::FramesClaimed { more, claimed })
        });
    }

    pub(crate) fn claim_calls(&mut self, asked: usize, only: Option<StackRunId>) {
        self.want_calls = false;
        self.claiming_calls = true;
        let alone = self.asks_alone();
        if alone {
            let pause = self.shared.clock.monotonic_ms() + ALONE_PAUSE_MS;
            self.next_alone_ms = pause;
        }
        let (shared, claim) = (Arc::clone(&self.shared), self.a_claim(asked, only));
        self.spawn(async move {
            let claimed = shared.storage.claim_calls(claim).await;
            let mut claimed = known(&shared, "calls", claimed);
            let more = claimed.as_ref().is_some_and(|rows| rows.len() == asked);
            if let Some(rows) = &mut claimed {
                one_last_try(&shared, rows, alone).await;
            }
            Some(Message::CallsClaimed { more, claimed })
        });
    }

    fn a_claim(&self, max: usize, only: Option<StackRunId>) -> Claim {
        Claim {
            worker: self.worker,
            now: self.shared.clock.now(),
            max,
            only,
        }
    }

    pub(crate) fn frames_claimed(&mut self, more: bool, claimed: Option<Vec<ClaimedFrame>>) {
        self.claiming_frames = false;
        let Some(claimed) = claimed else {
            self.want_repair = true;
            self.manual_claimed(0);
            return;
        };
        self.shared.hub.storage_recovered();
        self.want_frames |= more;
        self.manual_claimed(claimed.len());
        for frame in claimed {
            if frame.row.owner == Some(self.worker) {
                self.begin_claimed(frame);
            }
        }
    }

    pub(crate) fn calls_claimed(&mut self, more: bool, claimed: Option<Vec<ClaimedCall>>) {
        self.claiming_calls = false;
        let Some(claimed) = claimed else {
            self.want_repair = true;
            self.manual_claimed(0);
            return;
        };
        self.shared.hub.storage_recovered();
        self.want_calls |= more;
        self.manual_claimed(claimed.len());
        for call in claimed {
            if call.row.owner == Some(self.worker) {
                self.ask_claimed(call);
            }
        }
    }

    /// Timers of parked frames.
    pub(crate) fn fire_timers(&mut self) {
        let now = self.shared.clock.now();
        let due = self.next_due.is_some_and(|due| due <= now);
        if self.firing || !(due || self.want_due) {
            return;
        }
        self.firing = true;
        self.want_due = false;
        let shared = Arc::clone(&self.shared);
        self.spawn(async move {
            let next_due = match shared.storage.fire_timers(now, TIMER_GRACE_MS, 1_000).await {
                Ok(1_000) => {
                    let next_due = Some(now);
                    return Some(Message::TimersFired { next_due });
                }
                Ok(_) => {
                    let next_due = shared.storage.next_due().await;
                    next_due.unwrap_or(Some(now.plus_millis(1_000)))
                }
                Err(error) => {
                    tracing::warn!(%error, "due timers could not be fired; it is tried again");
                    Some(now.plus_millis(200))
                }
            };
            // A retry or a delayed start that is due was not fired but can be claimed, when there is room; do not spin on it.
            let later = |due| {
                if due <= now {
                    now.plus_millis(DUE_PAUSE_MS)
                } else {
                    due
                }
            };
            let next_due = next_due.map(later);
            Some(Message::TimersFired { next_due })
        });
        self.want_frames = true;
        self.want_calls |= due;
    }

    /// Frames of this worker that others woke; and after a lost reply, all rows that this worker owns and does not hold.
    fn look_for_owned(&mut self) {
        if self.listing {
            return;
        }
        let woken_only = if self.want_repair {
            if self.claiming_frames || self.claiming_calls {
                return;
            }
            false
        } else if self.want_woken {
            if self.hot.is_empty() {
                self.want_woken = false;
                return;
            }
            true
        } else {
            return;
        };
        self.want_woken = false;
        self.listing = true;
        let shared = Arc::clone(&self.shared);
        let worker = self.worker;
        self.spawn(async move {
            let rows = shared
                .insist("list what this worker owns", || {
                    shared.storage.owned(worker, woken_only)
                })
                .await
                .unwrap_or_default();
            Some(Message::Owned { rows, woken_only })
        });
    }

    pub(crate) fn owned(&mut self, rows: Vec<OwnedRow>, woken_only: bool) {
        self.listing = false;
        if woken_only {
            for row in rows {
                let reads = self
                    .hot
                    .get(&row.id)
                    .is_some_and(|hot| hot.machine.is_idle());
                if reads {
                    self.carry_out(row.id, Effect::ReadUnread);
                }
            }
            return;
        }
        self.want_repair = false;
        self.want_everything();
        // Children of a turn under way are asked when its receipt comes; answers that wait for theirs must not be asked for again.
        let held: HashSet<StackRunId> = self
            .hot
            .values()
            .flat_map(|hot| hot.machine.held())
            .collect();
        for row in rows {
            let known = self.hot.contains_key(&row.id)
                || self.preparing.contains_key(&row.id)
                || self.calls.contains_key(&row.id)
                || self.suspects.iter().any(|claimed| claimed.row.id == row.id)
                || held.contains(&row.id)
                || self.finishes.iter().any(|finish| finish.call == row.id);
            if known || self.finishing {
                self.want_repair |= self.finishing && !known;
                continue;
            }
            tracing::info!(row = %row.id, kind = %row.kind, "a row was owned and not held: a reply was lost");
            match row.kind {
                StackKind::Frame => self.reload(row.id),
                StackKind::Call => {
                    let lease = Lease {
                        worker: self.worker,
                        epoch: row.epoch,
                    };
                    // Nobody knows whether it was asked.
                    self.release_call(row.id, lease, true);
                }
                StackKind::Timer | StackKind::Signal => {}
            }
        }
    }
}

/// A frame that is resumed alone, because it ended its worker before: it, or another one beside which it ran.
pub(crate) fn is_suspect(frame: &ClaimedFrame) -> bool {
    frame.row.attempt > 1
}

/// Of frames that ended their worker before one is resumed at a time, so that the guilty one is known. The others go back before it
/// begins: what this worker held when it died would count as guilty too.
async fn one_suspect(shared: &Shared, claimed: &mut Vec<ClaimedFrame>) {
    let mut is_first = true;
    let others: Vec<(StackRunId, Lease)> = claimed
        .extract_if(.., |frame| {
            let is_tried = frame.row.attempt <= shared.options.poison_limit;
            is_suspect(frame) && is_tried && !std::mem::take(&mut is_first)
        })
        .filter_map(|frame| Some((frame.row.id, lease_of(&frame.row)?)))
        .collect();
    if !others.is_empty() {
        shared
            .insist("give frames back", || {
                shared.storage.release_frames(&others, shared.clock.now())
            })
            .await;
    }
}

/// The same for calls in their last try: one at a time, and none while there is one.
async fn one_last_try(shared: &Shared, claimed: &mut Vec<ClaimedCall>, alone: bool) {
    let mut is_first = !alone;
    let others: Vec<ReleasedCall> = claimed
        .extract_if(.., |call| {
            let is_last = call.row.take_overs == shared.options.poison_limit;
            is_last && !std::mem::take(&mut is_first)
        })
        .filter_map(|call| {
            Some(ReleasedCall {
                call: call.row.id,
                lease: lease_of(&call.row)?,
                asked: false,
            })
        })
        .collect();
    if !others.is_empty() {
        shared
            .insist("give calls back", || {
                shared.storage.release_calls(&others, shared.clock.now())
            })
            .await;
    }
}

fn lease_of(row: &StackRun) -> Option<Lease> {
    row.owner.map(|worker| Lease {
        worker,
        epoch: row.epoch,
    })
}

/// What was claimed; `None`: nobody knows.
fn known<T>(shared: &Shared, what: &str, claimed: Result<Vec<T>, StorageError>) -> Option<Vec<T>> {
    claimed
        .inspect_err(|error| {
            tracing::warn!(%error, "{what} could not be claimed; it is tried again");
            shared.hub.storage_failed(error);
        })
        .ok()
}
