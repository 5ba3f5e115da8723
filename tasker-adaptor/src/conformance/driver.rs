//! Operations as data, and what a store answers to them in a form that two stores can be compared by.
//!
//! What an answer leaves out is what the contract leaves open: the number of an epoch (each store's leases are read from its own
//! rows), the order of what a claim takes, whether an open run is queued, processing or suspended, and texts of errors.

use std::fmt::Debug;
use std::sync::Arc;

use crate::{
    CallEnd, CallFinish, CallSeq, Claim, Delivery, DeliverySource, Epoch, FrameNext, Lease,
    LogCursor, NewSignal, NewStackRun, NewTaskRun, NewWorker, Outcome, ReleasedCall, RunFilter,
    RunStatus, StackRun, StackRunId, Storage, StorageError, TaskRun, TaskRunId, Timestamp,
    TurnCommit, TurnNo, Unblock, UnblockDecision, WorkerId,
};

/// A fence that is resolved against the store's own row: the row's epoch there, plus this.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fence {
    pub(super) row: StackRunId,
    pub(super) worker: WorkerId,
    pub(super) offset: i32,
}

/// Where the outcome of a delivered child is said to be.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Local(i32, Outcome),
    Recorded,
    Timer,
}

/// A turn whose fences are still to be resolved.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) fence: Fence,
    pub(super) run: TaskRunId,
    pub(super) number: TurnNo,
    pub(super) delivered: Vec<(StackRunId, CallSeq, Source)>,
    pub(super) made: Vec<NewStackRun>,
    pub(super) dropped: Vec<StackRunId>,
    pub(super) next: FrameNext,
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Submit(Vec<NewTaskRun>),
    ClaimFrames(WorkerId, Option<StackRunId>),
    ClaimCalls(WorkerId, Option<StackRunId>),
    Commit(Vec<Turn>),
    Finish(Fence, CallEnd),
    ReleaseFrame(Fence),
    ReleaseCall(Fence, bool),
    Reload(StackRunId, WorkerId),
    FireTimers(i64),
    Register(WorkerId),
    Heartbeat(WorkerId),
    Reap(WorkerId),
    Retire(WorkerId),
    Cancel(TaskRunId),
    RequestCancel(TaskRunId),
    OverdueCancels,
    Unblock(TaskRunId, Option<StackRunId>, UnblockDecision),
    Signal(NewSignal),
    Fold(TaskRunId),
    DeleteFolded,
    List(RunFilter),
    Owned(WorkerId, bool),
    Load(StackRunId),
    NextDue,
}

/// Lease of the model's workers.
const LEASE_MS: i64 = 500;

/// Does the operation; the answer as text, an error by its name.
pub(super) async fn apply(
    op: &Op,
    storage: &dyn Storage,
    now: Timestamp,
) -> Result<String, StorageError> {
    match answer(op, storage, now).await {
        Err(error @ StorageError::Unsupported { .. }) => Err(error),
        Err(error) if error.is_retryable() => Err(error),
        Err(error) => Ok(error_name(&error)),
        Ok(text) => Ok(text),
    }
}

async fn answer(op: &Op, storage: &dyn Storage, now: Timestamp) -> Result<String, StorageError> {
    Ok(match op {
        Op::Submit(runs) => {
            let answers = storage.submit(runs.clone(), now).await?;
            let answers = answers.into_iter();
            let answers = answers.map(|answer| answer.map_err(|error| error_name(&error)));
            text(answers.collect::<Vec<_>>())
        }
        Op::ClaimFrames(worker, only) => {
            let mut claimed = storage.claim_frames(claim(*worker, *only, now)).await?;
            for one in &mut claimed {
                plain_row(&mut one.row);
            }
            claimed.sort_by_key(|one| one.row.id);
            text(claimed)
        }
        Op::ClaimCalls(worker, only) => {
            let mut claimed = storage.claim_calls(claim(*worker, *only, now)).await?;
            for one in &mut claimed {
                plain_row(&mut one.row);
            }
            claimed.sort_by_key(|one| one.row.id);
            text(claimed)
        }
        Op::Commit(turns) => {
            let mut batch = Vec::new();
            for turn in turns {
                batch.push(resolve_turn(turn, storage, now).await?);
            }
            text(storage.commit(Arc::from(batch)).await?)
        }
        Op::Finish(fence, end) => {
            let finish = CallFinish {
                call: fence.row,
                lease: resolve(*fence, storage).await?,
                end: end.clone(),
            };
            text(storage.finish_calls(Arc::from([finish]), now).await?)
        }
        Op::ReleaseFrame(fence) => {
            let lease = resolve(*fence, storage).await?;
            text(storage.release_frames(&[(fence.row, lease)], now).await?)
        }
        Op::ReleaseCall(fence, asked) => {
            let call = ReleasedCall {
                call: fence.row,
                lease: resolve(*fence, storage).await?,
                asked: *asked,
            };
            text(storage.release_calls(&[call], now).await?)
        }
        Op::Reload(frame, worker) => {
            let mut reloaded = storage.reload_frame(*frame, *worker, now).await?;
            if let Some(one) = &mut reloaded {
                plain_row(&mut one.row);
            }
            text(reloaded)
        }
        Op::FireTimers(grace) => text(storage.fire_timers(now, *grace, 10_000).await?),
        Op::Register(id) => {
            let worker = NewWorker {
                id: *id,
                name: "model".to_owned(),
                now,
                lease_ms: LEASE_MS,
            };
            text(storage.register(worker).await?)
        }
        Op::Heartbeat(worker) => text(storage.heartbeat(*worker, now, LEASE_MS).await?),
        Op::Reap(worker) => {
            let mut reaped = storage.reap(*worker, now, 10_000).await?;
            reaped.workers.sort();
            text(reaped)
        }
        Op::Retire(worker) => text(storage.retire(*worker, now).await?),
        Op::Cancel(run) => text(storage.cancel(*run, now).await?),
        Op::RequestCancel(run) => {
            let by = now.plus_millis(50);
            text(storage.request_cancel(*run, by, now).await?)
        }
        Op::OverdueCancels => {
            let mut runs = storage.overdue_cancels(now, 10_000).await?;
            runs.sort();
            text(runs)
        }
        Op::Unblock(run, row, decision) => {
            let unblock = Unblock {
                run: *run,
                row: *row,
                decision: decision.clone(),
                now,
            };
            text(storage.unblock(unblock).await?)
        }
        Op::Signal(signal) => text(storage.send_signal(signal.clone(), now).await?),
        Op::Fold(run) => {
            let mut foldable = storage.foldable(now, 10_000).await?;
            foldable.sort();
            let folded = storage
                .fold(*run, run.to_string().into_bytes(), now)
                .await?;
            text((foldable, folded))
        }
        Op::DeleteFolded => {
            while storage.delete_folded_rows(7).await? > 0 {}
            String::new()
        }
        Op::List(filter) => {
            let mut page = storage.runs(filter, 5).await?;
            page.runs.iter_mut().for_each(plain_run);
            text(page)
        }
        Op::Owned(worker, woken_only) => {
            let mut owned = storage.owned(*worker, *woken_only).await?;
            for row in &mut owned {
                row.epoch = Epoch(0);
            }
            owned.sort_by_key(|row| row.id);
            text(owned)
        }
        Op::Load(frame) => {
            let mut journal = storage.load(*frame).await?;
            if let Some(journal) = &mut journal {
                plain_row(&mut journal.frame);
                journal.children.iter_mut().for_each(plain_row);
            }
            let mut unread = storage.unread(*frame).await?;
            unread.iter_mut().for_each(plain_row);
            text((journal, unread))
        }
        Op::NextDue => {
            // A hint: what is due already may be told or not.
            storage.next_due().await?;
            String::new()
        }
    })
}

/// A run with its rows and log lines, as two stores are compared by.
pub(super) async fn picture(run: TaskRunId, storage: &dyn Storage) -> Result<String, StorageError> {
    let mut row = storage.run(run).await?;
    row.iter_mut().for_each(plain_run);
    let mut rows = storage.stack_runs(run).await?;
    rows.iter_mut().for_each(plain_row);
    rows.sort_by_key(|row| row.id);
    let logs = storage.logs(run, LogCursor::default(), 10_000).await?;
    let lines: Vec<_> = logs
        .lines
        .into_iter()
        .map(|line| (line.frame, line.time, line.line))
        .collect();
    Ok(format!("{row:#?}\n{rows:#?}\n{lines:#?}"))
}

async fn resolve(fence: Fence, storage: &dyn Storage) -> Result<Lease, StorageError> {
    let row = storage.stack_run(fence.row).await?;
    let epoch = row.map_or(0, |row| row.epoch.0);
    let epoch = epoch.saturating_add_signed(fence.offset);
    Ok(Lease {
        worker: fence.worker,
        epoch: Epoch(epoch),
    })
}

async fn resolve_turn(
    turn: &Turn,
    storage: &dyn Storage,
    now: Timestamp,
) -> Result<TurnCommit, StorageError> {
    let mut delivered = Vec::new();
    for (child, seq, source) in &turn.delivered {
        let source = match source {
            Source::Local(offset, outcome) => {
                let fence = Fence {
                    row: *child,
                    worker: turn.fence.worker,
                    offset: *offset,
                };
                DeliverySource::Local {
                    epoch: resolve(fence, storage).await?.epoch,
                    outcome: outcome.clone(),
                }
            }
            Source::Recorded => DeliverySource::Recorded,
            Source::Timer => DeliverySource::Timer,
        };
        delivered.push(Delivery {
            child: *child,
            seq: *seq,
            source,
        });
    }
    Ok(TurnCommit {
        frame: turn.fence.row,
        task_run: turn.run,
        turn: turn.number,
        lease: resolve(turn.fence, storage).await?,
        time: now,
        delivered,
        made: turn.made.clone(),
        dropped: turn.dropped.clone(),
        logs: vec![super::kit::log_line("a turn")],
        next: turn.next.clone(),
    })
}

fn claim(worker: WorkerId, only: Option<StackRunId>, now: Timestamp) -> Claim {
    Claim {
        worker,
        now,
        max: 10_000,
        only,
    }
}

fn plain_row(row: &mut StackRun) {
    row.epoch = Epoch(0);
}

fn plain_run(run: &mut TaskRun) {
    if matches!(run.status, RunStatus::Processing | RunStatus::Suspended) {
        run.status = RunStatus::Queued;
    }
}

fn error_name(error: &StorageError) -> String {
    let text = format!("{error:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    format!("error {}", &text[..end.unwrap_or(text.len())])
}

fn text(answer: impl Debug) -> String {
    format!("{answer:#?}")
}
