//! Cancel, at once or with grace, and what a person does with blocked rows.

use std::collections::HashMap;

use rusqlite::OptionalExtension;
use tasker_adaptor::{
    Cancelled, Failure, Hint, Outcome as Ending, RunStatus, StorageError, TaskRunId, Timestamp,
    Unblock, UnblockDecision,
};

use crate::cached::Cached as _;
use crate::columns::HasKey;
use crate::fault::Outcome;
use crate::tree::{
    blocked_rows, cancel_run, end_row, refresh_run, settle_row, status_from_children, wake,
};
use crate::writer::Tx;

/// Ends the run with every open row.
pub(crate) fn cancel(tx: &mut Tx<'_>, run: TaskRunId, now: Timestamp) -> Outcome<Cancelled> {
    let status = known_status(tx, run)?;
    if status.is_terminal() {
        return Ok(Cancelled::AlreadyEnded(status));
    }
    cancel_run(tx, run, now)?;
    Ok(Cancelled::Done)
}

/// Asks the run to end by itself.
pub(crate) fn request_cancel(
    tx: &mut Tx<'_>,
    run: TaskRunId,
    cancel_by: Timestamp,
    now: Timestamp,
) -> Outcome<Cancelled> {
    let status = known_status(tx, run)?;
    if status.is_terminal() {
        return Ok(Cancelled::AlreadyEnded(status));
    }
    let begun = tx
        .conn
        .cached(
            "SELECT 1 FROM stack_runs f CROSS JOIN frame_counters k ON k.no = f.no \
             WHERE f.task_run_id = ?1 AND f.kind = 'frame' AND f.parent_no IS NULL AND k.turn > 0",
        )?
        .exists([run.key()])?;
    if !begun || status == RunStatus::Blocked {
        cancel_run(tx, run, now)?;
        return Ok(Cancelled::Done);
    }
    let asked: Option<i64> = tx
        .conn
        .cached("SELECT cancel_by FROM task_runs WHERE id = ?1")?
        .query_row([run.key()], |row| row.get(0))?;
    let cancel_by = asked.map_or(cancel_by.as_millis(), |asked| {
        asked.min(cancel_by.as_millis())
    });
    tx.conn
        .cached("UPDATE task_runs SET cancel_by = ?2 WHERE id = ?1")?
        .execute((run.key(), cancel_by))?;
    if asked.is_none() {
        fail_open_rows(tx, run, now)?;
    }
    tx.hint(Hint::Cancel(run));
    Ok(Cancelled::Asked)
}

/// Takes blocked rows up again, or settles them.
pub(crate) fn unblock(tx: &mut Tx<'_>, request: &Unblock) -> Outcome<u32> {
    known_status(tx, request.run)?;
    let key = request.run.key();
    let only = request.row.map(|row| row.key());
    let mut changed = 0;
    for row in blocked_rows(tx, key.as_str())? {
        if only.is_some_and(|only| only.as_str() != row.id) {
            continue;
        }
        changed += 1;
        match &request.decision {
            UnblockDecision::Settle(ending) => {
                end_row(tx, &row, key.as_str(), ending, request.now)?;
            }
            UnblockDecision::Retry => {
                let status = if row.is_frame {
                    status_from_children(tx, row.no, row.turn)?
                } else {
                    "pending"
                };
                let ready = matches!(status, "pending" | "pending_resume");
                tx.conn
                    .cached(
                        "UPDATE stack_runs SET status = ?2, blocked_reason = NULL, \
                         attempt = CASE kind WHEN 'frame' THEN 0 ELSE attempt END, \
                         in_doubt = CASE kind WHEN 'frame' THEN in_doubt ELSE 0 END, take_overs = 0, ready_at = MAX(?3, COALESCE(due_at, ?3)) WHERE no = ?1",
                    )?
                    .execute((
                        row.no,
                        status,
                        ready.then_some(request.now.as_millis()),
                    ))?;
                if ready {
                    tx.hint_work();
                }
            }
        }
    }
    refresh_run(tx, key.as_str())?;
    Ok(changed)
}

fn known_status(tx: &Tx<'_>, run: TaskRunId) -> Outcome<RunStatus> {
    let word: Option<String> = tx
        .conn
        .cached("SELECT status FROM task_runs WHERE id = ?1")?
        .query_row([run.key()], |row| row.get(0))
        .optional()?;
    match word {
        Some(word) => Ok(word.parse()?),
        None => Err(StorageError::NotFound {
            what: format!("task run {run}"),
        }
        .into()),
    }
}

struct FrameRow {
    no: i64,
    parent: Option<i64>,
    open: bool,
    turn: i64,
}

/// Every await of the run fails with `CancelledError`; what nobody awaits is cancelled.
fn fail_open_rows(tx: &mut Tx<'_>, run: TaskRunId, now: Timestamp) -> Outcome<()> {
    let frames: Vec<FrameRow> = tx
        .conn
        .cached(
            "SELECT f.no, f.parent_no, f.status NOT IN ('completed','failed','cancelled'), k.turn \
             FROM stack_runs f CROSS JOIN frame_counters k ON k.no = f.no WHERE f.task_run_id = ?1 AND f.kind = 'frame' ORDER BY f.no",
        )?
        .query_map([run.key()], |row| {
            Ok(FrameRow {
                no: row.get(0)?,
                parent: row.get(1)?,
                open: row.get(2)?,
                turn: row.get(3)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    let failure = Ending::Failed(Failure::cancelled());
    // Parents come first: whether somebody waits for a frame is known before its children are looked at.
    let mut awaited: HashMap<i64, bool> = HashMap::new();
    for frame in &frames {
        let has_waiter = frame
            .parent
            .is_none_or(|parent| awaited.get(&parent).copied().unwrap_or(false));
        awaited.insert(frame.no, has_waiter && frame.open);
        if frame.open && !has_waiter {
            cancel_row(tx, frame.no, now)?;
        } else if frame.open
            && frame.turn == 0
            && let Some(parent) = frame.parent
        {
            settle_row(tx, frame.no, &failure, true, now)?;
            wake(tx, parent, now)?;
        }
        let children: Vec<i64> = tx
            .conn
            .cached(
                "SELECT no FROM stack_runs WHERE parent_no = ?1 AND kind <> 'frame' AND status IN ('pending','processing','blocked')",
            )?
            .query_map([frame.no], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        if children.is_empty() {
            continue;
        }
        let settles = has_waiter && frame.open;
        for child in children {
            if settles {
                settle_row(tx, child, &failure, true, now)?;
            } else {
                cancel_row(tx, child, now)?;
            }
        }
        if settles {
            wake(tx, frame.no, now)?;
        }
    }
    Ok(())
}

fn cancel_row(tx: &Tx<'_>, no: i64, now: Timestamp) -> Outcome<()> {
    tx.conn
        .cached(
            "UPDATE stack_runs SET status = 'cancelled', owner = NULL, ready_at = NULL, epoch = epoch + 1, \
             blocked_reason = NULL, settled_at = ?2, waits = NULL WHERE no = ?1",
        )?
        .execute((no, now.as_millis()))?;
    Ok(())
}
