//! What several operations do to the call tree: wake a frame, end one, block one, cancel what is below.
//!
//! Invariants: `ready_at` is set exactly while anyone may claim a row, so that the claim's index holds those rows only · likewise `waits`
//! while a timer or a wait for a signal is pending, and `unread` while a row is settled and not delivered.

use rusqlite::OptionalExtension;
use tasker_adaptor::{BlockedReason, Failure, Hint, Outcome as Ending, TaskRunId, Timestamp};

use crate::cached::Cached as _;
use crate::columns::{HasKey, Key, blocked_column, ending_columns, turns};
use crate::fault::{Outcome, Refusable};
use crate::writer::Tx;

/// One refusable answer.
pub(crate) type Answer<T> = Result<T, tasker_adaptor::CommitRefused>;

/// Answers of a batch, made by running `one` for each item.
pub(crate) fn each<I, T>(
    items: &[I],
    mut one: impl FnMut(&I) -> Outcome<Answer<T>>,
) -> Outcome<Refusable<T>> {
    let mut answers = Vec::with_capacity(items.len());
    for item in items {
        answers.push(one(item)?);
    }
    Ok(answers)
}

/// The number of a worker that may write; `None` when it is not live.
pub(crate) fn live(tx: &Tx<'_>, worker: tasker_adaptor::WorkerId) -> Outcome<Option<i64>> {
    Ok(tx
        .conn
        .cached("SELECT no FROM workers WHERE id = ?1 AND state = 'live'")?
        .query_row([worker.key()], |row| row.get(0))
        .optional()?)
}

/// Wakes a frame after one of its children settled. Whether it was waiting.
pub(crate) fn wake(tx: &mut Tx<'_>, frame: i64, now: Timestamp) -> Outcome<bool> {
    let woken = tx
        .conn
        .cached(
            "UPDATE stack_runs SET status = 'pending_resume', ready_at = CASE WHEN owner IS NULL THEN ?2 END \
             WHERE no = ?1 AND status = 'suspended_waiting_child'",
        )?
        .execute((frame, now.as_millis()))?;
    if woken > 0 {
        tx.hint_work();
    }
    Ok(woken > 0)
}

/// The status that a frame without a VM gets from its children.
pub(crate) fn status_from_children(tx: &Tx<'_>, frame: i64, turn: i64) -> Outcome<&'static str> {
    Ok(if turn == 0 {
        "pending"
    } else if has_unread(tx, frame)? {
        "pending_resume"
    } else {
        "suspended_waiting_child"
    })
}

/// Whether a child is settled and not delivered.
pub(crate) fn has_unread(tx: &Tx<'_>, frame: i64) -> Outcome<bool> {
    Ok(tx
        .conn
        .cached("SELECT 1 FROM stack_runs WHERE unread = ?1 LIMIT 1")?
        .exists([frame])?)
}

/// Settles a row that is not settled, without looking at its frame.
pub(crate) fn settle_row(
    tx: &Tx<'_>,
    no: i64,
    ending: &Ending,
    raise_epoch: bool,
    now: Timestamp,
) -> Outcome<()> {
    let (status, outcome) = ending_columns(ending);
    tx.conn
        .cached(
            "UPDATE stack_runs SET status = ?2, outcome = ?3, owner = NULL, ready_at = NULL, blocked_reason = NULL, \
             epoch = epoch + ?4, settled_at = ?5, waits = NULL, unread = parent_no WHERE no = ?1",
        )?
        .execute((no, status, outcome, raise_epoch, now.as_millis()))?;
    Ok(())
}

/// How a frame ends.
#[derive(Clone, Copy)]
pub(crate) enum FrameEnd<'e> {
    /// With a value or an error.
    Ending(&'e Ending),
    /// By a cancel: the run is cancelled with its root.
    Cancelled,
}

/// A frame that ends, as the caller read it.
#[derive(Clone, Copy)]
pub(crate) struct EndingFrame<'f> {
    pub(crate) no: i64,
    pub(crate) parent: Option<i64>,
    pub(crate) run: &'f str,
    /// Some child may be neither delivered nor given up. `false` saves the look at the children.
    pub(crate) outstanding: bool,
}

/// What follows when a frame's row has ended: the run ends with its root, the parent of a nested frame is woken, waits are cancelled,
/// calls go on detached, and what is blocked below fails (no person can help what nobody waits for). Whether the parent was woken.
pub(crate) fn frame_ended(
    tx: &mut Tx<'_>,
    frame: EndingFrame<'_>,
    end: FrameEnd<'_>,
    now: Timestamp,
) -> Outcome<bool> {
    let mut woke = false;
    if let Some(parent) = frame.parent {
        woke = wake(tx, parent, now)?;
    } else {
        let (status, outcome) = match end {
            FrameEnd::Ending(ending) => {
                let (status, text) = ending_columns(ending);
                (status, Some(text))
            }
            FrameEnd::Cancelled => ("cancelled", None),
        };
        tx.conn
            .cached(
                "UPDATE task_runs SET status = ?2, outcome = ?3, ended_at = ?4, blocked_reason = NULL WHERE id = ?1",
            )?
            .execute((frame.run, status, outcome, now.as_millis()))?;
        hint_ended(tx, frame.run);
    }
    if frame.outstanding {
        leave_children(tx, frame.no, frame.run, now)?;
    }
    Ok(woke)
}

/// What becomes of the children of a frame that has ended.
pub(crate) fn leave_children(
    tx: &mut Tx<'_>,
    frame: i64,
    run: &str,
    now: Timestamp,
) -> Outcome<()> {
    tx.conn
        .cached(
            "UPDATE stack_runs SET status = 'cancelled', owner = NULL, ready_at = NULL, epoch = epoch + 1, settled_at = ?2, waits = NULL \
             WHERE parent_no = ?1 AND kind IN ('timer','signal') AND status = 'pending'",
        )?
        .execute((frame, now.as_millis()))?;
    if fail_detached_blocks(tx, run, now)? {
        refresh_run(tx, run)?;
    }
    Ok(())
}

/// Ends a frame that has no VM: by a person, or because it is blocked where nobody waits.
pub(crate) fn end_frame(
    tx: &mut Tx<'_>,
    frame: EndingFrame<'_>,
    ending: &Ending,
    now: Timestamp,
) -> Outcome<()> {
    settle_row(tx, frame.no, ending, false, now)?;
    frame_ended(tx, frame, FrameEnd::Ending(ending), now)?;
    Ok(())
}

/// Tells watchers that a run ended or was blocked.
pub(crate) fn hint_ended(tx: &mut Tx<'_>, run: &str) {
    if let Ok(run) = run.parse::<TaskRunId>() {
        tx.hint(Hint::Ended(run));
    }
}

/// A row, as blocking and unblocking need it.
pub(crate) struct BlockedRow {
    pub(crate) no: i64,
    pub(crate) id: String,
    pub(crate) parent: Option<i64>,
    pub(crate) is_frame: bool,
    pub(crate) turn: i64,
    pub(crate) reason: Option<String>,
}

/// The blocked rows of a run, by id.
pub(crate) fn blocked_rows(tx: &Tx<'_>, run: &str) -> Outcome<Vec<BlockedRow>> {
    let rows = tx
        .conn
        .cached(concat!(
            "SELECT no, id, parent_no, kind = 'frame', ",
            turns!(),
            ", blocked_reason FROM stack_runs \
             WHERE task_run_id = ?1 AND blocked_reason IS NOT NULL ORDER BY id"
        ))?
        .query_map([run], |row| {
            Ok(BlockedRow {
                no: row.get(0)?,
                id: row.get(1)?,
                parent: row.get(2)?,
                is_frame: row.get(3)?,
                turn: row.get(4)?,
                reason: row.get(5)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(rows)
}

/// Whether a frame above this child has ended, so that nobody waits for it.
pub(crate) fn is_detached(tx: &Tx<'_>, parent: Option<i64>) -> Outcome<bool> {
    let mut above = parent;
    while let Some(frame) = above {
        let row: Option<(bool, Option<i64>)> = tx
            .conn
            .cached(
                "SELECT status IN ('completed','failed','cancelled'), parent_no FROM stack_runs WHERE no = ?1",
            )?
            .query_row([frame], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match row {
            Some((true, _)) => return Ok(true),
            Some((false, parent)) => above = parent,
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// Blocked rows that nobody waits for any more fail. Whether there were any.
fn fail_detached_blocks(tx: &mut Tx<'_>, run: &str, now: Timestamp) -> Outcome<bool> {
    let mut any = false;
    for row in blocked_rows(tx, run)? {
        if !is_detached(tx, row.parent)? {
            continue;
        }
        any = true;
        let reason = row
            .reason
            .as_deref()
            .and_then(|text| serde_json::from_str::<BlockedReason>(text).ok());
        let message = reason.map_or_else(
            || "blocked when its frame ended".to_owned(),
            |reason| reason.to_string(),
        );
        let ending = Ending::Failed(Failure::new(BLOCKED_ERROR, message));
        end_row(tx, &row, run, &ending, now)?;
    }
    Ok(any)
}

/// Ends a blocked row, frame or call, and tells its frame.
pub(crate) fn end_row(
    tx: &mut Tx<'_>,
    row: &BlockedRow,
    run: &str,
    ending: &Ending,
    now: Timestamp,
) -> Outcome<()> {
    if row.is_frame {
        let frame = EndingFrame {
            no: row.no,
            parent: row.parent,
            run,
            outstanding: true,
        };
        return end_frame(tx, frame, ending, now);
    }
    settle_row(tx, row.no, ending, false, now)?;
    if let Some(parent) = row.parent {
        wake(tx, parent, now)?;
    }
    Ok(())
}

/// The name of the failure that stands for a block where nobody could lift it: below a frame that has ended.
const BLOCKED_ERROR: &str = "BlockedError";

/// A row needs a person, and so does its run. A detached one fails instead: nobody waits for it.
pub(crate) fn block(
    tx: &mut Tx<'_>,
    row: &BlockedRow,
    run: &str,
    reason: &BlockedReason,
    now: Timestamp,
) -> Outcome<()> {
    if is_detached(tx, row.parent)? {
        let ending = Ending::Failed(Failure::new(BLOCKED_ERROR, reason.to_string()));
        return end_row(tx, row, run, &ending, now);
    }
    let reason = blocked_column(reason);
    tx.conn
        .cached(
            "UPDATE stack_runs SET status = 'blocked', owner = NULL, ready_at = NULL, blocked_reason = ?2 WHERE no = ?1",
        )?
        .execute((row.no, &reason))?;
    let first = tx
        .conn
        .cached(
            "UPDATE task_runs SET status = 'blocked', blocked_reason = ?2 WHERE id = ?1 AND ended_at IS NULL AND status <> 'blocked'",
        )?
        .execute((run, &reason))?;
    if first > 0 {
        hint_ended(tx, run);
    }
    Ok(())
}

/// The run's status after a blocked row was taken up, settled or given up: still blocked when another row is.
pub(crate) fn refresh_run(tx: &Tx<'_>, run: &str) -> Outcome<()> {
    let rows = blocked_rows(tx, run)?;
    if let Some(first) = rows.first() {
        let shown: Option<Option<String>> = tx
            .conn
            .cached("SELECT blocked_reason FROM task_runs WHERE id = ?1")?
            .query_row([run], |row| row.get(0))
            .optional()?;
        let shown = shown.flatten();
        if !rows.iter().any(|row| row.reason == shown) {
            tx.conn
                .cached(
                    "UPDATE task_runs SET status = 'blocked', blocked_reason = ?2 WHERE id = ?1 AND ended_at IS NULL",
                )?
                .execute((run, &first.reason))?;
        }
        return Ok(());
    }
    tx.conn
        .cached(
            "UPDATE task_runs SET blocked_reason = NULL, status = ( \
               SELECT CASE WHEN f.owner IS NOT NULL THEN 'processing' WHEN k.turn = 0 THEN 'queued' ELSE 'suspended' END \
               FROM stack_runs f CROSS JOIN frame_counters k ON k.no = f.no WHERE f.task_run_id = ?1 AND f.kind = 'frame' AND f.parent_no IS NULL) \
             WHERE id = ?1 AND ended_at IS NULL AND status = 'blocked'",
        )?
        .execute([run])?;
    Ok(())
}

/// After a root frame was claimed, parked or taken over: the run says so, unless it is blocked or ended.
pub(crate) fn follow_root(tx: &Tx<'_>, run: &str, hot: bool, turn: i64) -> Outcome<()> {
    let status = match (hot, turn) {
        (true, _) => "processing",
        (false, 0) => "queued",
        (false, _) => "suspended",
    };
    tx.conn
        .cached(
            "UPDATE task_runs SET status = ?2 WHERE id = ?1 AND status IN ('queued','processing','suspended') AND status <> ?2",
        )?
        .execute((run, status))?;
    Ok(())
}

/// Ends the run as cancelled with every open row. The caller has seen that it is open.
pub(crate) fn cancel_run(tx: &mut Tx<'_>, run: TaskRunId, now: Timestamp) -> Outcome<()> {
    let key = run.key();
    tx.conn
        .cached(
            "UPDATE task_runs SET status = 'cancelled', ended_at = ?2, blocked_reason = NULL WHERE id = ?1",
        )?
        .execute((key, now.as_millis()))?;
    cancel_open_rows(tx, key, now)?;
    tx.hint(Hint::Cancel(run));
    tx.hint(Hint::Ended(run));
    Ok(())
}

/// Cancels every open row of a run: calls by their frames, then the frames.
pub(crate) fn cancel_open_rows(tx: &Tx<'_>, run: Key, now: Timestamp) -> Outcome<()> {
    tx.conn
        .cached(
            "UPDATE stack_runs SET status = 'cancelled', owner = NULL, ready_at = NULL, epoch = epoch + 1, \
             blocked_reason = NULL, settled_at = ?2, waits = NULL \
             WHERE parent_no IN (SELECT no FROM stack_runs WHERE task_run_id = ?1 AND kind = 'frame') AND kind <> 'frame' \
             AND status IN ('pending','processing','suspended_waiting_child','pending_resume','blocked')",
        )?
        .execute((run, now.as_millis()))?;
    tx.conn
        .cached(
            "UPDATE stack_runs SET status = 'cancelled', owner = NULL, ready_at = NULL, epoch = epoch + 1, \
             blocked_reason = NULL, settled_at = ?2 \
             WHERE task_run_id = ?1 AND kind = 'frame' \
             AND status IN ('pending','processing','suspended_waiting_child','pending_resume','blocked')",
        )?
        .execute((run, now.as_millis()))?;
    Ok(())
}
