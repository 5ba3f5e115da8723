//! Calls: which are asked now, and what their answers become.

use std::sync::Arc;

use tasker_adaptor::{
    BlockedReason, CallEnd, CallFinish, CallSeq, ClaimedCall, Epoch, Failure, Json, Lease, Outcome,
    StackRunId, TaskRunId,
};
use tokio_util::sync::CancellationToken;

use super::asking::{Answer, Answered, Asking};
use super::core::{Asked, Core, Shared};
use super::stats::Counted;
use crate::limits::{Limit, check_payload};
use crate::run::{Event, Ready, ReadySource};
use crate::service::{ResolvedPolicy, ServiceError, UnknownOutcome};

impl Core {
    /// Asks, with the others of this tick.
    pub(crate) fn ask(&mut self, mut asking: Asking) {
        asking.span = tracing::info_span!(
            parent: &asking.span,
            "tasker.call",
            service = %asking.service,
            method = %asking.path,
            attempt = asking.attempt,
            run_id = %asking.run,
        );
        let policy = &asking.policy;
        self.calls.insert(
            asking.id,
            Asked {
                frame: asking.frame,
                seq: asking.seq,
                lease: asking.lease,
                run: asking.run,
                attempt: asking.attempt,
                service: asking.service.clone(),
                path: asking.path.clone(),
                token: asking.token.clone(),
                record_at_once: policy.unknown_outcome == UnknownOutcome::Block,
                retry: policy.retry.clone(),
                detached: asking.context.ended,
                alone: asking.alone,
            },
        );
        self.asks.push(asking);
    }

    /// An attempt ended.
    pub(crate) fn answered(&mut self, answered: Answered) {
        let Answered {
            call,
            lease,
            answer,
            at_once,
        } = answered;
        if self
            .calls
            .get(&call)
            .is_none_or(|asked| asked.lease != lease)
        {
            // Given up, cancelled, or taken over: its row says what counts.
            return;
        }
        let Some(asked) = self.calls.remove(&call) else {
            return;
        };
        self.slow.note(&asked.service, &asked.path, at_once);
        let counted = match &answer {
            Answer::Service(Ok(_)) => Some(Counted::CallAnswered),
            Answer::Service(Err(_)) => Some(Counted::CallFailed),
            Answer::Unknown => Some(Counted::CallUnknown),
            Answer::NotReconciled(_) | Answer::NotAsked => None,
        };
        if let Some(counted) = counted {
            self.shared.hub.counts.count(counted);
        }
        // A claim is wanted when the last one was cut short; that of a free worker would find nothing. And when
        // others wait for their last try.
        self.want_calls |=
            self.calls.len() + 1 >= self.shared.options.calls_in_flight || asked.alone;
        let outcome = match answer {
            Answer::NotAsked => {
                // The lease is unsure: the row stays this worker's until the lease is held again or lost.
                self.release_call(call, lease, false);
                self.events.push_back((
                    asked.frame,
                    Event::CallReleased {
                        seq: asked.seq,
                        epoch: lease.epoch,
                    },
                ));
                return;
            }
            Answer::Service(Err(error)) | Answer::NotReconciled(error)
                if asked.is_tried_again(&error) =>
            {
                self.try_again(call, lease, &asked, &error);
                return;
            }
            // A failure of the question is none of the call: it may have happened.
            Answer::Unknown | Answer::NotReconciled(_) => {
                let reason = BlockedReason::OutcomeUnknown {
                    service: asked.service,
                    path: asked.path,
                };
                self.finish(CallFinish {
                    call,
                    lease,
                    end: CallEnd::Blocked(reason),
                });
                return;
            }
            Answer::Service(Ok(value)) => {
                match check_payload(&value, &self.shared.options.limits) {
                    Ok(()) => Outcome::Completed(Some(value)),
                    Err(limit) => Outcome::Failed(answer_too_large(&asked, limit, &self.shared)),
                }
            }
            Answer::Service(Err(error)) => Outcome::Failed(error.to_failure()),
        };
        if asked.detached
            && let Outcome::Failed(failure) = &outcome
        {
            self.log_unhandled(asked.run, asked.frame, &asked.service, &asked.path, failure);
        }
        if !asked.record_at_once && self.hot.contains_key(&asked.frame) {
            let event = Event::Answered {
                seq: asked.seq,
                id: call,
                epoch: lease.epoch,
                outcome,
            };
            self.events.push_back((asked.frame, event));
        } else {
            self.record(call, lease.epoch, outcome);
        }
    }

    /// The next attempt is a row with a time: any worker may make it.
    fn try_again(&mut self, call: StackRunId, lease: Lease, asked: &Asked, error: &ServiceError) {
        let delay = asked
            .retry
            .delay_ms(asked.attempt, seed_of(call), error.retry_after_ms);
        let not_before = self.shared.clock.now().plus_millis(delay as i64);
        self.next_due = Some(self.next_due.map_or(not_before, |due| due.min(not_before)));
        self.finish(CallFinish {
            call,
            lease,
            end: CallEnd::RetryAt {
                not_before,
                failure: error.to_failure(),
            },
        });
        self.events.push_back((
            asked.frame,
            Event::CallReleased {
                seq: asked.seq,
                epoch: lease.epoch,
            },
        ));
    }

    /// Records an outcome by itself.
    pub(crate) fn record(&mut self, call: StackRunId, epoch: Epoch, outcome: Outcome) {
        let lease = Lease {
            worker: self.worker,
            epoch,
        };
        self.finish(CallFinish {
            call,
            lease,
            end: CallEnd::Settled(outcome),
        });
    }

    /// Calls were claimed: ask them.
    pub(crate) fn ask_claimed(&mut self, claimed: ClaimedCall) {
        let ClaimedCall { row, context } = claimed;
        let lease = Lease {
            worker: self.worker,
            epoch: row.epoch,
        };
        let Some(frame) = row.parent else { return };
        if row.take_overs > self.shared.options.poison_limit {
            // Asked once more it would end this worker too.
            let reason = BlockedReason::PoisonedCall {
                service: row.service,
                path: row.path,
                take_overs: row.take_overs,
            };
            tracing::warn!(run = %row.task_run, call = %row.id, %reason, "a call is blocked");
            self.finish(CallFinish {
                call: row.id,
                lease,
                end: CallEnd::Blocked(reason),
            });
            return;
        }
        let call = (row.id, lease, row.task_run);
        let Some(policy) = self.policy_of(call, &row.service, &row.path, row.policy.as_ref())
        else {
            return;
        };
        if policy.unknown_outcome != UnknownOutcome::Block {
            self.events.push_back((
                frame,
                Event::CallClaimed {
                    seq: row.seq,
                    epoch: row.epoch,
                },
            ));
        }
        let loaded = self.hot.get(&frame).and_then(|hot| hot.loaded.clone());
        let span = tracing::info_span!(
            "tasker.run",
            run_id = %row.task_run,
            task = %context.task,
            version = %context.version,
        );
        self.ask(Asking {
            id: row.id,
            frame,
            seq: row.seq,
            run: row.task_run,
            lease,
            attempt: row.attempt,
            in_doubt: row.in_doubt,
            alone: row.take_overs == self.shared.options.poison_limit,
            service: row.service,
            path: row.path,
            args: row.args.unwrap_or_default(),
            policy,
            context: Arc::new(context),
            loaded,
            depth: row.depth,
            span,
            token: CancellationToken::new(),
        });
    }

    /// The policy of a call that this worker holds. One whose row cannot be read is blocked, and there is none.
    pub(crate) fn policy_of(
        &mut self,
        (call, lease, run): (StackRunId, Lease, TaskRunId),
        service: &str,
        path: &str,
        given: Option<&Json>,
    ) -> Option<ResolvedPolicy> {
        match self.shared.services.call_policy(service, path, given) {
            Ok(policy) => Some(policy),
            Err(why) => {
                let what = format!("stack run {call}, its policy: {why}");
                let reason = BlockedReason::Corrupt { what };
                tracing::warn!(%run, %call, %reason, "a call is blocked");
                self.finish(CallFinish {
                    call,
                    lease,
                    end: CallEnd::Blocked(reason),
                });
                None
            }
        }
    }

    /// A call recorded by itself was answered by storage: a hot frame gets the outcome as recorded.
    pub(crate) fn call_recorded(&mut self, finish: &CallFinish) {
        if let CallEnd::Settled(outcome) = &finish.end
            && let Some((frame, seq)) = self.waiting_for(finish.call)
        {
            let ready = Ready {
                seq,
                id: finish.call,
                source: ReadySource::Recorded,
                outcome: outcome.clone(),
            };
            self.events.push_back((frame, Event::Recorded(vec![ready])));
        }
    }

    /// The hot frame that has this child open.
    fn waiting_for(&self, call: StackRunId) -> Option<(StackRunId, CallSeq)> {
        self.hot.iter().find_map(|(id, frame)| {
            frame
                .machine
                .open()
                .find(|(_, child)| child.id == call)
                .map(|(seq, _)| (*id, seq))
        })
    }

    /// What nobody awaits and fails is reported as an unhandled rejection.
    fn log_unhandled(
        &self,
        run: TaskRunId,
        frame: StackRunId,
        service: &str,
        path: &str,
        failure: &Failure,
    ) {
        let line = tasker_adaptor::LogLine {
            level: tasker_adaptor::LogLevel::Error,
            message: format!("{service}.{path} was not awaited and failed: {failure}"),
            data: None,
        };
        let shared = Arc::clone(&self.shared);
        self.spawn(async move {
            let now = shared.clock.now();
            if let Err(error) = shared
                .storage
                .append_logs(run, Some(frame), vec![line], now)
                .await
            {
                tracing::warn!(%run, %error, "a log line was not written");
            }
            None
        });
    }
}

impl Asked {
    /// Whether the policy of the call has one more attempt for this error.
    fn is_tried_again(&self, error: &ServiceError) -> bool {
        !self.token.is_cancelled()
            && self.attempt < self.retry.attempts
            && self.retry.retries_error(error)
    }
}

fn answer_too_large(asked: &Asked, limit: Limit, shared: &Shared) -> Failure {
    let failure = limit.failure(&shared.options.limits);
    Failure {
        message: format!(
            "the answer of {}.{} was refused: {}; ask for less at a time",
            asked.service, asked.path, failure.message
        ),
        ..failure
    }
}

/// Jitter comes from the id of the call, which is recorded.
fn seed_of(call: StackRunId) -> u64 {
    call.as_uuid().as_u128() as u64
}
