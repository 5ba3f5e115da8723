//! The commit of turns (PROTOCOL a3): all fences, then all settlements and inserts, then all next statuses with their wakes.
//!
//! The hot path: a step of a chain is one UPDATE of the call that it delivers, one INSERT of the made one, together with seven others where
//! there are, and one UPDATE of the frame's counters; the UPDATEs touch one index, that by owner. The frame's own row is written when its
//! status changes. Fences ([`crate::fence`]) come before anything is
//! written, so that a refused turn leaves nothing to undo; what they look at is in the writer's [mirror](crate::mirror), or read with one
//! statement, the frame with the call that it delivers.

use std::collections::HashSet;

use rusqlite::OptionalExtension;
use tasker_adaptor::{
    DeliverySource, Failure, FrameNext, LogLine, Outcome as Ending, StackRunId, StackStatus,
    StorageError, TurnCommit, TurnReceipt,
};

use crate::cached::Cached as _;
use crate::columns::{HasKey, Key, ending_columns};
use crate::fault::{Outcome, Refusable};
use crate::fence::{Frame, Pass, Workers, fence};
use crate::hot::{Hot, Statements};
use crate::make::{Calls, make};
use crate::tree::{
    BlockedRow, EndingFrame, FrameEnd, block, cancel_open_rows, frame_ended, leave_children,
    refresh_run,
};
use crate::writer::Tx;

/// Rules that only a caller with a bug breaks.
pub(crate) fn check_use(turns: &[TurnCommit]) -> Result<(), StorageError> {
    let mut frames = HashSet::with_capacity(turns.len());
    for turn in turns {
        if !frames.insert(turn.frame) {
            return Err(StorageError::Misuse {
                what: format!("frame {} has two turns in one batch", turn.frame),
            });
        }
        let writes =
            !turn.delivered.is_empty() || !turn.made.is_empty() || !turn.dropped.is_empty();
        if writes && matches!(turn.next, FrameNext::Blocked(_)) {
            return Err(StorageError::Misuse {
                what: format!(
                    "the blocked turn of frame {} delivers, makes or drops; only its log lines are written",
                    turn.frame
                ),
            });
        }
    }
    Ok(())
}

/// About how many rows the turns write.
pub(crate) fn weight(turns: &[TurnCommit]) -> usize {
    turns
        .iter()
        .map(|turn| 1 + turn.delivered.len() + turn.made.len() + turn.logs.len())
        .sum()
}

/// Commits the turns, which [`check_use`] has passed.
pub(crate) fn commit(tx: &mut Tx<'_>, turns: &[TurnCommit]) -> Outcome<Refusable<TurnReceipt>> {
    tx.keeps_mirror();
    let mut statements = Statements::of(tx.conn);
    let mut workers = Workers::default();
    let mut passes = Vec::with_capacity(turns.len());
    for turn in turns {
        passes.push(fence(tx, &mut statements, &mut workers, turn)?);
    }
    let mut calls = Calls::default();
    for (turn, pass) in turns.iter().zip(&mut passes) {
        if let Pass::Apply(frame) = pass {
            write(tx, &mut statements, &mut calls, turn, frame)?;
        }
    }
    calls.insert(tx, &mut statements)?;
    let mut woken = HashSet::new();
    for (turn, pass) in turns.iter().zip(&mut passes) {
        if let Pass::Apply(frame) = pass {
            move_frame(tx, &mut statements, turn, frame, &mut woken)?;
        }
    }
    drop(statements);
    note(tx, turns, &passes);
    let mut company_ends = false;
    for (turn, pass) in turns.iter().zip(&passes) {
        if let Pass::Apply(frame) = pass {
            company_ends |= frame.run_cancelled || !turn.dropped.is_empty();
            if frame.run_cancelled {
                cancel_open_rows(tx, turn.task_run.key(), turn.time)?;
            }
        }
    }
    if company_ends {
        // A turn of the same batch may have ended this one's frame.
        for pass in &mut passes {
            if let Pass::Apply(frame) = pass {
                frame.status = read_status(tx, frame)?;
            }
        }
    }
    Ok(passes
        .into_iter()
        .map(|pass| match pass {
            Pass::Refused(refused) => Err(refused),
            Pass::Already(status) => Ok(TurnReceipt {
                already_applied: true,
                status,
            }),
            Pass::Apply(frame) => Ok(TurnReceipt {
                already_applied: false,
                status: if woken.contains(&frame.no)
                    && frame.status == StackStatus::SuspendedWaitingChild
                {
                    StackStatus::PendingResume
                } else {
                    frame.status
                },
            }),
        })
        .collect())
}

/// Leaves the mirror as these turns have left the rows, which is simple for most: a turn that touches what is neither its frame nor a
/// call that it delivers or makes empties it.
fn note(tx: &mut Tx<'_>, turns: &[TurnCommit], passes: &[Pass]) {
    let mut is_simple = true;
    for (turn, pass) in turns.iter().zip(passes) {
        let Pass::Apply(frame) = pass else { continue };
        for delivery in &turn.delivered {
            tx.mirror.forget_call(delivery.child);
        }
        match turn.next {
            FrameNext::Suspended => tx.mirror.note_frame(turn.frame, frame.row(turn)),
            FrameNext::Completed(_) | FrameNext::Failed(_) => {
                tx.mirror.forget_frame(turn.frame);
                is_simple &= frame.parent.is_none() && !frame.has_outstanding();
            }
            FrameNext::Blocked(_) | FrameNext::Cancelled => is_simple = false,
        }
        is_simple &= turn.dropped.is_empty();
    }
    if !is_simple {
        tx.mirror.forget_all();
    }
}

/// A timer that its own worker saw fire.
const DELIVER_TIMER: &str = "UPDATE stack_runs SET status = 'completed', outcome = '', settled_at = ?2, delivered_order = ?3, \
     delivered_turn = ?4, delivered_at = ?2, waits = NULL WHERE no = ?1";

/// Settlements, inserts, drops and log lines.
fn write<'t>(
    tx: &mut Tx<'_>,
    statements: &mut Statements<'_>,
    calls: &mut Calls<'t>,
    turn: &'t TurnCommit,
    frame: &mut Frame,
) -> Outcome<()> {
    if !turn.logs.is_empty() {
        write_logs(tx, frame.run, Some(frame.key), &turn.logs, turn.time)?;
    }
    let time = turn.time.as_millis();
    for (delivery, child) in turn.delivered.iter().zip(&frame.deliveries) {
        frame.delivered += 1;
        if !child.settles {
            statements.hot(Hot::DeliverRecorded)?.execute((
                child.no,
                frame.delivered,
                turn.turn.0,
                time,
            ))?;
            continue;
        }
        let DeliverySource::Local { outcome, .. } = &delivery.source else {
            tx.conn.cached(DELIVER_TIMER)?.execute((
                child.no,
                time,
                frame.delivered,
                turn.turn.0,
            ))?;
            continue;
        };
        let (status, outcome) = ending_columns(outcome);
        statements.hot(Hot::DeliverLocal)?.execute((
            child.no,
            status,
            outcome,
            time,
            frame.delivered,
            turn.turn.0,
        ))?;
    }
    for new in &turn.made {
        make(tx, statements, calls, turn, frame, new)?;
    }
    if !turn.dropped.is_empty() {
        calls.insert(tx, statements)?;
    }
    for id in &turn.dropped {
        drop_child(tx, turn, frame, *id)?;
    }
    Ok(())
}

/// A cleared timer or an aborted call ends without a result.
fn drop_child(
    tx: &mut Tx<'_>,
    turn: &TurnCommit,
    frame: &mut Frame,
    id: StackRunId,
) -> Outcome<()> {
    let key = id.key();
    let found: Option<(i64, bool, bool)> = tx
        .conn
        .cached(
            "SELECT no, kind = 'frame', status = 'blocked' FROM stack_runs WHERE id = ?1 AND parent_no = ?2 \
             AND status IN ('pending','processing','suspended_waiting_child','pending_resume','blocked')",
        )?
        .query_row((key, frame.no), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((no, is_frame, was_blocked)) = found else {
        return Ok(());
    };
    frame.dropped += 1;
    if turn.made.iter().any(|made| made.id == id) {
        frame.made_open = frame.made_open.saturating_sub(1);
    }
    tx.conn
        .cached(
            "UPDATE stack_runs SET status = 'cancelled', owner = NULL, ready_at = NULL, epoch = epoch + 1, \
             blocked_reason = NULL, settled_at = ?2, waits = NULL WHERE no = ?1",
        )?
        .execute((no, turn.time.as_millis()))?;
    if is_frame {
        leave_children(tx, no, frame.run.as_str(), turn.time)?;
    }
    if was_blocked {
        refresh_run(tx, frame.run.as_str())?;
    }
    Ok(())
}

/// The frame's next status, and what follows from it.
fn move_frame(
    tx: &mut Tx<'_>,
    statements: &mut Statements<'_>,
    turn: &TurnCommit,
    frame: &mut Frame,
    woken: &mut HashSet<i64>,
) -> Outcome<()> {
    let ending = match &turn.next {
        FrameNext::Suspended => return suspend(tx, statements, turn, frame),
        FrameNext::Blocked(reason) => {
            let row = BlockedRow {
                no: frame.no,
                id: frame.key.as_str().to_owned(),
                parent: frame.parent,
                is_frame: true,
                turn: i64::from(turn.turn.0),
                reason: None,
            };
            block(tx, &row, frame.run.as_str(), reason, turn.time)?;
            frame.status = read_status(tx, frame)?;
            return Ok(());
        }
        FrameNext::Completed(value) => Some(Ending::Completed(value.clone())),
        FrameNext::Failed(failure) => Some(Ending::Failed(failure.clone())),
        FrameNext::Cancelled if frame.parent.is_some() => {
            Some(Ending::Failed(Failure::cancelled()))
        }
        FrameNext::Cancelled => None,
    };
    let (status, outcome) = match &ending {
        Some(ending) => {
            let (status, text) = ending_columns(ending);
            (status, Some(text))
        }
        None => ("cancelled", None),
    };
    count(statements, turn, frame)?;
    statements
        .hot(Hot::End)?
        .execute((frame.no, turn.time.as_millis(), status, outcome))?;
    frame.status = status.parse()?;
    frame.run_cancelled = ending.is_none();
    let end = ending
        .as_ref()
        .map_or(FrameEnd::Cancelled, FrameEnd::Ending);
    let ended = EndingFrame {
        no: frame.no,
        parent: frame.parent,
        run: frame.run.as_str(),
        outstanding: frame.has_outstanding(),
    };
    if frame_ended(tx, ended, end, turn.time)?
        && let Some(parent) = frame.parent
    {
        woken.insert(parent);
    }
    Ok(())
}

fn suspend(
    tx: &mut Tx<'_>,
    statements: &mut Statements<'_>,
    turn: &TurnCommit,
    frame: &mut Frame,
) -> Outcome<()> {
    // Only a child from before this turn, or a wait that met its signal, can be settled and unread.
    let others = frame.made > frame.delivered + frame.dropped + frame.made_open;
    let next = if others && crate::tree::has_unread(tx, frame.no)? {
        StackStatus::PendingResume
    } else {
        StackStatus::SuspendedWaitingChild
    };
    count(statements, turn, frame)?;
    if next == frame.status {
        debug_assert!(is_reset(tx, frame)?, "a turn has something to reset");
    } else {
        let row = (frame.no, turn.time.as_millis(), next.as_str());
        statements.hot(Hot::GoOnTo)?.execute(row)?;
    }
    if next == StackStatus::PendingResume {
        tx.hint_work();
    }
    frame.status = next;
    Ok(())
}

/// Writes what the turn has counted.
fn count(statements: &mut Statements<'_>, turn: &TurnCommit, frame: &Frame) -> Outcome<()> {
    let (made, delivered, dropped) = (frame.made, frame.delivered, frame.dropped);
    statements
        .hot(Hot::Count)?
        .execute((frame.no, turn.turn.0 + 1, made, delivered, dropped))?;
    Ok(())
}

/// Whether a turn of the frame has been committed since it was claimed: a claim leaves it `processing`, so one in any other status that
/// has an owner has begun, and was reset by that turn.
fn is_reset(tx: &Tx<'_>, frame: &Frame) -> Outcome<bool> {
    Ok(tx
        .conn
        .cached("SELECT attempt = 0 AND in_doubt = 0 AND started_at IS NOT NULL FROM stack_runs WHERE no = ?1")?
        .query_row([frame.no], |row| row.get(0))?)
}

fn read_status(tx: &Tx<'_>, frame: &Frame) -> Outcome<StackStatus> {
    let word: String = tx
        .conn
        .cached("SELECT status FROM stack_runs WHERE no = ?1")?
        .query_row([frame.no], |row| row.get(0))?;
    Ok(word.parse()?)
}

/// Log lines at the end of a run's log.
pub(crate) fn write_logs(
    tx: &Tx<'_>,
    run: Key,
    frame: Option<Key>,
    lines: &[LogLine],
    time: tasker_adaptor::Timestamp,
) -> Outcome<()> {
    let mut insert = tx.conn.cached(
        "INSERT INTO log_lines (task_run_id, frame_id, time, level, message, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for line in lines {
        insert.execute((
            run,
            frame,
            time.as_millis(),
            line.level.as_str(),
            &line.message,
            line.data.as_ref().map(tasker_adaptor::Json::text),
        ))?;
    }
    Ok(())
}
