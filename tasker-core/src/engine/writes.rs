//! Writing: batches of turns, of finished calls, of frames given back. What is not answered is sent again as it is.

use std::sync::Arc;

use tasker_adaptor::{
    CallEnd, CallFinish, CommitRefused, Lease, ReleasedCall, StackRunId, TurnCommit, TurnReceipt,
};

use super::core::{Core, Message, Shared};
use crate::run::Event;

/// Turns in one batch.
const BATCH: usize = 1_024;
/// Batches of turns under way at one time: while one is being written the next one is formed.
const COMMITS: usize = 2;

/// Whether a batch of the turns that wait goes now. `last`: turns in the one before, where one writer does all; the second batch under
/// way is then as large as that at least. So the writer has its next work when it is done with one, and neither is small in a rush.
fn goes_now(waiting: usize, under_way: usize, last: Option<usize>) -> bool {
    let enough = match (under_way, last) {
        (0, _) | (_, None) => 1,
        (_, Some(last)) => last,
    };
    waiting > 0 && waiting >= enough && under_way < COMMITS
}

impl Core {
    /// Sends what is waiting to be written.
    pub(crate) fn write(&mut self) {
        let one_writer = self.shared.storage.has_one_writer();
        while goes_now(
            self.commits.len(),
            self.commits_under_way,
            one_writer.then_some(self.last_commit),
        ) {
            self.last_commit = self.commits.len().min(BATCH);
            let rest = self.commits.split_off(self.last_commit);
            let turns: Arc<[TurnCommit]> = std::mem::replace(&mut self.commits, rest).into();
            self.commits_under_way += 1;
            let shared = Arc::clone(&self.shared);
            self.spawn(async move {
                let replies = commit(&shared, &turns).await?;
                Some(Message::Committed { turns, replies })
            });
        }
        if !self.finishes.is_empty() && !self.finishing {
            self.finishing = true;
            let finishes: Arc<[CallFinish]> = std::mem::take(&mut self.finishes).into();
            let shared = Arc::clone(&self.shared);
            self.spawn(async move {
                let replies = finish(&shared, &finishes).await?;
                Some(Message::Finished { finishes, replies })
            });
        }
        if !self.releases.is_empty() && !self.releasing {
            self.releasing = true;
            let frames = std::mem::take(&mut self.releases);
            let shared = Arc::clone(&self.shared);
            self.spawn(async move {
                let replies = match shared
                    .insist("give frames back", || {
                        shared.storage.release_frames(&frames, shared.clock.now())
                    })
                    .await
                {
                    Some(replies) => replies,
                    None if shared.stop.is_cancelled() => return None,
                    None => vec![Err(CommitRefused::Superseded); frames.len()],
                };
                Some(Message::Released { frames, replies })
            });
        }
    }

    pub(crate) fn finish(&mut self, finish: CallFinish) {
        self.finishes.push(finish);
    }

    /// A batch of turns was answered.
    pub(crate) fn turns_answered(
        &mut self,
        mut turns: Arc<[TurnCommit]>,
        replies: Vec<Result<TurnReceipt, CommitRefused>>,
    ) {
        self.commits_under_way -= 1;
        self.shared.hub.counts.turns(&replies);
        // Storage has let go of them, mostly.
        let made: Vec<_> = match Arc::get_mut(&mut turns) {
            Some(own) => own
                .iter_mut()
                .map(|turn| std::mem::take(&mut turn.made))
                .collect(),
            None => turns.iter().map(|turn| turn.made.clone()).collect(),
        };
        for ((turn, made), reply) in turns.iter().zip(made).zip(replies) {
            let is_current = self
                .hot
                .get(&turn.frame)
                .is_some_and(|frame| frame.machine.facts.lease == turn.lease);
            if (reply.is_err() || !is_current) && self.ending.remove(&turn.task_run) {
                self.shared.hub.look_at(turn.task_run);
            }
            if !is_current {
                continue;
            }
            let event = match reply {
                Ok(receipt) => Event::Committed {
                    status: receipt.status,
                    made,
                },
                Err(refused) => {
                    tracing::debug!(frame = %turn.frame, turn = %turn.turn, %refused, "a turn was refused");
                    if refused == CommitRefused::LeaseLost {
                        let _ = self.me.send(Message::LeaseLost {
                            worker: turn.lease.worker,
                        });
                    }
                    Event::Refused(refused)
                }
            };
            self.events.push_back((turn.frame, event));
        }
    }

    /// A batch of finished calls was answered.
    pub(crate) fn finishes_answered(
        &mut self,
        finishes: &[CallFinish],
        replies: Vec<Result<bool, CommitRefused>>,
    ) {
        self.finishing = false;
        for (finish, reply) in finishes.iter().zip(replies) {
            match reply {
                Ok(_) => {
                    self.manual_call_over(finish);
                    match &finish.end {
                        CallEnd::Settled(_) => self.call_recorded(finish),
                        CallEnd::RetryAt { .. } => self.want_calls = true,
                        CallEnd::Blocked(_) => {}
                    }
                    self.want_frames = true;
                }
                Err(refused) => {
                    self.manual_call_over(finish);
                    tracing::info!(call = %finish.call, %refused, "a call was performed and its result is not wanted any more");
                }
            }
        }
    }

    /// A batch of frames given back was answered.
    pub(crate) fn releases_answered(
        &mut self,
        frames: Vec<(StackRunId, Lease)>,
        replies: Vec<Result<(), CommitRefused>>,
    ) {
        self.releasing = false;
        for ((frame, lease), reply) in frames.into_iter().zip(replies) {
            let is_current = self
                .hot
                .get(&frame)
                .is_some_and(|hot| hot.machine.facts.lease == lease);
            if !is_current {
                continue;
            }
            match reply {
                Ok(()) => {
                    self.note_parked(frame);
                    self.events.push_back((frame, Event::Parked));
                    self.manual_frame_over(frame);
                    // A child that settled while the frame was given back makes it claimable at once.
                    self.want_frames = true;
                }
                Err(_) => self.not_mine(frame, lease),
            }
        }
    }

    /// The timers of a parked frame are fired by the scan.
    fn note_parked(&mut self, frame: StackRunId) {
        let Some(hot) = self.hot.get(&frame) else {
            return;
        };
        for (_, child) in hot.machine.open() {
            if let crate::run::ChildKind::Timer(due) = child.kind {
                self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
            }
        }
    }

    /// Gives a call back.
    pub(crate) fn release_call(&self, call: StackRunId, lease: Lease, asked: bool) {
        let shared = Arc::clone(&self.shared);
        self.spawn(async move {
            let calls = [ReleasedCall { call, lease, asked }];
            shared
                .insist("give a call back", || {
                    shared.storage.release_calls(&calls, shared.clock.now())
                })
                .await?;
            Some(Message::Hint(tasker_adaptor::Hint::Work))
        });
    }
}

/// Commits a batch: sends it until it is answered. A batch that storage refuses for good is tried turn by turn,
/// so that the one that is at fault does not hold up the others.
async fn commit(
    shared: &Shared,
    turns: &Arc<[TurnCommit]>,
) -> Option<Vec<Result<TurnReceipt, CommitRefused>>> {
    if let Some(replies) = shared
        .insist("commit turns", || shared.storage.commit(Arc::clone(turns)))
        .await
    {
        return Some(replies);
    }
    let mut replies = Vec::with_capacity(turns.len());
    for turn in turns.iter() {
        if shared.stop.is_cancelled() {
            return None;
        }
        let one: Arc<[TurnCommit]> = Arc::new([turn.clone()]);
        replies.push(
            match shared
                .insist("commit a turn", || shared.storage.commit(Arc::clone(&one)))
                .await
            {
                Some(mut reply) => reply.pop().unwrap_or(Err(CommitRefused::Superseded)),
                None if shared.stop.is_cancelled() => return None,
                None => {
                    // Storage will not have this turn. Its frame is loaded and tried again, but not in a tight loop.
                    shared.clock.sleep(1_000).await;
                    Err(CommitRefused::Superseded)
                }
            },
        );
    }
    Some(replies)
}

async fn finish(
    shared: &Shared,
    finishes: &Arc<[CallFinish]>,
) -> Option<Vec<Result<bool, CommitRefused>>> {
    if let Some(replies) = shared
        .insist("record calls", || {
            shared
                .storage
                .finish_calls(Arc::clone(finishes), shared.clock.now())
        })
        .await
    {
        return Some(replies);
    }
    let mut replies = Vec::with_capacity(finishes.len());
    for one in finishes.iter() {
        if shared.stop.is_cancelled() {
            return None;
        }
        let one: Arc<[CallFinish]> = Arc::new([one.clone()]);
        replies.push(
            match shared
                .insist("record a call", || {
                    shared
                        .storage
                        .finish_calls(Arc::clone(&one), shared.clock.now())
                })
                .await
            {
                Some(mut reply) => reply.pop().unwrap_or(Err(CommitRefused::Superseded)),
                None if shared.stop.is_cancelled() => return None,
                None => Err(CommitRefused::Superseded),
            },
        );
    }
    Some(replies)
}

#[cfg(test)]
mod tests {
    use super::goes_now;

    #[test]
    fn a_second_batch_goes_at_once_or_when_it_is_as_large_as_the_first_where_one_writer_does_all() {
        for last in [None, Some(0), Some(7)] {
            assert!(!goes_now(0, 0, last), "nothing waits");
            assert!(goes_now(1, 0, last), "nothing is under way");
            assert!(!goes_now(1_000, 2, last), "two are under way");
        }
        assert!(goes_now(1, 1, None));
        assert!(!goes_now(6, 1, Some(7)));
        assert!(goes_now(7, 1, Some(7)));
        assert!(!goes_now(0, 1, Some(0)));
    }
}
