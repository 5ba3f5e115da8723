//! Ends of attempts that come by themselves, rows given back, and timers that fire.

use rusqlite::OptionalExtension;
use tasker_adaptor::{
    CallEnd, CallFinish, CommitRefused, Epoch, Lease, Outcome as Ending, ReleasedCall, StackRunId,
    StorageError, Timestamp,
};

use crate::cached::Cached as _;
use crate::columns::{HasKey, Key, turns};
use crate::fault::{Outcome, Refusable};
use crate::tree::{
    Answer, BlockedRow, block, each, follow_root, live, settle_row, status_from_children, wake,
};
use crate::writer::Tx;

/// A row as a fence reads it.
struct Fenced {
    no: i64,
    id: Key,
    run: String,
    parent: Option<i64>,
    kind: String,
    status: String,
    mine: bool,
    epoch: Epoch,
    turn: i64,
    has_outcome: bool,
}

fn read(tx: &Tx<'_>, id: StackRunId, lease: Lease) -> Outcome<Option<Fenced>> {
    let key = id.key();
    Ok(tx
        .conn
        .cached(
            concat!("SELECT no, task_run_id, parent_no, kind, status, owner = (SELECT no FROM workers WHERE id = ?2), epoch, ", turns!(), ", outcome IS NOT NULL FROM stack_runs WHERE id = ?1"),
        )?
        .query_row((key, lease.worker.key()), |row| {
            Ok(Fenced {
                no: row.get(0)?,
                id: key,
                run: row.get(1)?,
                parent: row.get(2)?,
                kind: row.get(3)?,
                status: row.get(4)?,
                mine: row.get::<_, Option<bool>>(5)?.unwrap_or(false),
                epoch: Epoch(row.get(6)?),
                turn: row.get(7)?,
                has_outcome: row.get(8)?,
            })
        })
        .optional()?)
}

impl Fenced {
    fn is_terminal(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled")
    }

    fn fence(&self, lease: Lease) -> Result<(), CommitRefused> {
        if self.is_terminal() {
            Err(CommitRefused::Ended)
        } else if self.mine && self.epoch == lease.epoch {
            Ok(())
        } else {
            Err(CommitRefused::Superseded)
        }
    }

    /// The row shows that this very end was recorded at its epoch.
    fn shows(&self, finish: &CallFinish) -> bool {
        self.epoch == finish.lease.epoch
            && match finish.end {
                CallEnd::Settled(_) => matches!(self.status.as_str(), "completed" | "failed"),
                CallEnd::RetryAt { .. } => self.status == "pending" && self.has_outcome,
                CallEnd::Blocked(_) => matches!(self.status.as_str(), "blocked" | "failed"),
            }
    }
}

/// Records ends of attempts.
pub(crate) fn finish_calls(
    tx: &mut Tx<'_>,
    finishes: &[CallFinish],
    now: Timestamp,
) -> Outcome<Refusable<bool>> {
    for finish in finishes {
        if read(tx, finish.call, finish.lease)?.is_some_and(|row| row.kind != "call") {
            return Err(StorageError::Misuse {
                what: format!(
                    "stack run {} is no call and cannot be finished as one",
                    finish.call
                ),
            }
            .into());
        }
    }
    each(finishes, |finish| finish_call(tx, finish, now))
}

fn finish_call(tx: &mut Tx<'_>, finish: &CallFinish, now: Timestamp) -> Outcome<Answer<bool>> {
    if live(tx, finish.lease.worker)?.is_none() {
        return Ok(Err(CommitRefused::LeaseLost));
    }
    let Some(row) = read(tx, finish.call, finish.lease)? else {
        return Ok(Err(CommitRefused::Gone));
    };
    if row.shows(finish) {
        return Ok(Ok(false));
    }
    if let Err(refused) = row.fence(finish.lease) {
        return Ok(Err(refused));
    }
    if row.status != "processing" {
        return Ok(Err(CommitRefused::Superseded));
    }
    match &finish.end {
        CallEnd::Settled(ending) => {
            settle_row(tx, row.no, ending, false, now)?;
            if let Some(parent) = row.parent {
                wake(tx, parent, now)?;
            }
        }
        CallEnd::RetryAt {
            not_before,
            failure,
        } => {
            tx.conn
                .cached(
                    "UPDATE stack_runs SET status = 'pending', owner = NULL, due_at = ?2, ready_at = MAX(?2, ?4), outcome = ?3, take_overs = 0 WHERE no = ?1",
                )?
                .execute((
                    row.no,
                    not_before.as_millis(),
                    Ending::Failed(failure.clone()).to_column(),
                    now.as_millis(),
                ))?;
            tx.hint_work();
        }
        CallEnd::Blocked(reason) => {
            let blocked = BlockedRow {
                no: row.no,
                id: row.id.as_str().to_owned(),
                parent: row.parent,
                is_frame: false,
                turn: 0,
                reason: None,
            };
            block(tx, &blocked, &row.run, reason, now)?;
        }
    }
    Ok(Ok(true))
}

/// Gives frames back.
pub(crate) fn release_frames(
    tx: &mut Tx<'_>,
    frames: &[(StackRunId, Lease)],
    now: Timestamp,
) -> Outcome<Refusable<()>> {
    each(frames, |(frame, lease)| {
        let row = match fenced(tx, *frame, *lease, "frame")? {
            Ok(row) => row,
            Err(refused) => return Ok(Err(refused)),
        };
        let status = if row.status == "processing" {
            status_from_children(tx, row.no, row.turn)?
        } else {
            row.status.as_str()
        };
        free_frame(tx, row.no, status, false, now)?;
        if row.parent.is_none() {
            follow_root(tx, &row.run, false, row.turn)?;
        }
        Ok(Ok(()))
    })
}

/// Gives calls back.
pub(crate) fn release_calls(
    tx: &mut Tx<'_>,
    calls: &[ReleasedCall],
    now: Timestamp,
) -> Outcome<Refusable<()>> {
    each(calls, |released| {
        match fenced(tx, released.call, released.lease, "call")? {
            Ok(row) => {
                let by = if released.asked {
                    Freed::Asked
                } else {
                    Freed::NotAsked
                };
                free_call(tx, row.no, by, now)?;
                Ok(Ok(()))
            }
            Err(refused) => Ok(Err(refused)),
        }
    })
}

fn fenced(
    tx: &Tx<'_>,
    id: StackRunId,
    lease: Lease,
    kind: &str,
) -> Outcome<Result<Fenced, CommitRefused>> {
    if live(tx, lease.worker)?.is_none() {
        return Ok(Err(CommitRefused::LeaseLost));
    }
    let Some(row) = read(tx, id, lease)? else {
        return Ok(Err(CommitRefused::Gone));
    };
    Ok(match row.fence(lease) {
        Err(refused) => Err(refused),
        Ok(()) if row.kind != kind => Err(CommitRefused::Superseded),
        Ok(()) => Ok(row),
    })
}

/// A frame that has no VM any more; `taken` from a worker that died.
pub(crate) fn free_frame(
    tx: &mut Tx<'_>,
    no: i64,
    status: &str,
    taken: bool,
    now: Timestamp,
) -> Outcome<()> {
    let ready = matches!(status, "pending" | "pending_resume");
    tx.conn
        .cached(
            "UPDATE stack_runs SET status = ?2, owner = NULL, epoch = epoch + 1, attempt = attempt + ?3, in_doubt = MAX(in_doubt, ?3), \
             ready_at = MAX(?4, COALESCE(due_at, ?4)) WHERE no = ?1",
        )?
        .execute((no, status, taken, ready.then_some(now.as_millis())))?;
    if ready {
        tx.hint_work();
    }
    Ok(())
}

/// How a call comes back to the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freed {
    /// Its worker gave it back and had not asked.
    NotAsked,
    /// Its worker gave it back, or retired, and may have asked.
    Asked,
    /// Its worker died with it in hand.
    Died,
}

/// A call that goes back to the queue.
pub(crate) fn free_call(tx: &mut Tx<'_>, no: i64, by: Freed, now: Timestamp) -> Outcome<()> {
    tx.conn
        .cached(
            "UPDATE stack_runs SET status = 'pending', owner = NULL, epoch = epoch + 1, in_doubt = MAX(in_doubt, ?2), \
             attempt = MAX(attempt - ?4, 0), take_overs = take_overs + ?5, ready_at = MAX(COALESCE(due_at, ?3), ?3) WHERE no = ?1",
        )?
        .execute((
            no,
            by != Freed::NotAsked,
            now.as_millis(),
            by == Freed::NotAsked,
            by == Freed::Died,
        ))?;
    tx.hint_work();
    Ok(())
}

/// Settles due timers of parked frames, and overdue ones of any.
pub(crate) fn fire_timers(
    tx: &mut Tx<'_>,
    now: Timestamp,
    grace_ms: i64,
    max: usize,
) -> Outcome<usize> {
    let late = now.plus_millis(-grace_ms);
    let due: Vec<(i64, i64)> = tx
        .conn
        .cached(
            "SELECT t.no, f.no FROM stack_runs t CROSS JOIN stack_runs f ON f.no = t.parent_no \
             WHERE t.kind = 'timer' AND t.waits IS NOT NULL AND t.due_at <= ?1 AND (f.owner IS NULL OR t.due_at <= ?2) \
             ORDER BY t.due_at LIMIT ?3",
        )?
        .query_map((now.as_millis(), late.as_millis(), max as i64), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<_, _>>()?;
    for (no, frame) in &due {
        settle_row(tx, *no, &Ending::Completed(None), false, now)?;
        wake(tx, *frame, now)?;
    }
    Ok(due.len())
}
