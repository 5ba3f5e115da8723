//! An answer to a call that comes from outside: whoever drives runs by hand, or a person, knows it.
//!
//! The call is claimed as a worker would claim it and settled under that lease, so that it is never settled twice and never
//! while somebody is asking the service.

use std::sync::Arc;

use tasker_adaptor::{
    CallEnd, CallFinish, Claim, Hint, Lease, NewWorker, Outcome, StackKind, StackRun, StackRunId,
    StackStatus, TaskRunId, Unblock, UnblockDecision, WorkerId,
};

use super::Engine;
use super::core::{Message, Shared};
use super::error::EngineError;

/// How long the worker that settles one call may be silent, in milliseconds.
const LEASE_MS: i64 = 30_000;

/// A call that was settled from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledCall {
    /// The call.
    pub call: StackRunId,
    /// The frame that waits for it, awake now.
    pub frame: StackRunId,
    /// Its run.
    pub run: TaskRunId,
}

impl Engine {
    /// The row of a frame, call, timer or signal wait, while its run is open.
    ///
    /// # Errors
    /// `UnknownStackRun`; `Storage`.
    pub async fn stack_run(&self, id: StackRunId) -> Result<StackRun, EngineError> {
        let row = self.shared().storage.stack_run(id).await?;
        row.ok_or(EngineError::UnknownStackRun { id })
    }

    /// Settles a call that nobody is asking (pending or blocked) with an outcome known from elsewhere, and wakes its frame.
    /// `id` is the call, or a frame: then its first such call.
    ///
    /// # Errors
    /// `UnknownStackRun`; `NotWaiting` when there is no such call, or somebody took it first; `Storage`.
    pub async fn settle_call(
        &self,
        id: StackRunId,
        outcome: Outcome,
    ) -> Result<SettledCall, EngineError> {
        let row = self.stack_run(id).await?;
        let call = match row.kind {
            StackKind::Frame => self.first_open_call(&row).await?,
            _ => row,
        };
        let settled = match (call.kind, call.status, call.parent) {
            (StackKind::Call, StackStatus::Pending | StackStatus::Blocked, Some(frame)) => {
                SettledCall {
                    call: call.id,
                    frame,
                    run: call.task_run,
                }
            }
            (StackKind::Call, status, _) => {
                return Err(not_waiting(call.id, &format!("it is {}", status.as_str())));
            }
            (kind, ..) => {
                return Err(not_waiting(
                    call.id,
                    &format!("it is no call but a {}", kind.as_str()),
                ));
            }
        };
        let shared = self.shared();
        if call.status == StackStatus::Blocked {
            let unblock = Unblock {
                run: call.task_run,
                row: Some(call.id),
                decision: UnblockDecision::Settle(outcome),
                now: shared.clock.now(),
            };
            if shared.storage.unblock(unblock).await? == 0 {
                return Err(not_waiting(call.id, "somebody decided about it meanwhile"));
            }
        } else {
            let worker = begin(shared).await?;
            let finished = finish(shared, worker, call.id, outcome).await;
            shared.storage.retire(worker, shared.clock.now()).await?;
            finished?;
        }
        let _ = self.inner.core.send(Message::Hint(Hint::Work));
        Ok(settled)
    }

    async fn first_open_call(&self, frame: &StackRun) -> Result<StackRun, EngineError> {
        let rows = self.shared().storage.stack_runs(frame.task_run).await?;
        rows.into_iter()
            .filter(|row| row.parent == Some(frame.id) && row.kind == StackKind::Call)
            .filter(|row| matches!(row.status, StackStatus::Pending | StackStatus::Blocked))
            .min_by_key(|row| row.seq)
            .ok_or_else(|| not_waiting(frame.id, "none of its calls is open and unasked"))
    }
}

/// A worker of its own, for one call: it needs no VM and no heartbeat.
async fn begin(shared: &Arc<Shared>) -> Result<WorkerId, EngineError> {
    let id = shared.ids.worker(shared.clock.host_now());
    let worker = NewWorker {
        id,
        name: format!("{} (settles one call)", shared.options.worker_name),
        now: shared.clock.now(),
        lease_ms: LEASE_MS,
    };
    shared.storage.register(worker).await?;
    Ok(id)
}

async fn finish(
    shared: &Arc<Shared>,
    worker: WorkerId,
    call: StackRunId,
    outcome: Outcome,
) -> Result<(), EngineError> {
    let now = shared.clock.now();
    let claim = Claim {
        worker,
        now,
        max: 1,
        only: Some(call),
    };
    let claimed = shared.storage.claim_calls(claim).await?;
    let Some(claimed) = claimed.first() else {
        return Err(not_waiting(
            call,
            "another worker asks it, or its retry is not due",
        ));
    };
    let lease = Lease {
        worker,
        epoch: claimed.row.epoch,
    };
    let end = CallEnd::Settled(outcome);
    let finishes: Arc<[CallFinish]> = [CallFinish { call, lease, end }].into();
    let replies = shared.storage.finish_calls(finishes, now).await?;
    match replies.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(refused)) => Err(not_waiting(call, &refused.to_string())),
        None => Err(not_waiting(call, "storage gave no answer about it")),
    }
}

fn not_waiting(id: StackRunId, problem: &str) -> EngineError {
    EngineError::NotWaiting {
        id,
        problem: problem.to_owned(),
    }
}
