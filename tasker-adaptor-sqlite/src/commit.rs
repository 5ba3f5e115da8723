//! The commit of turns (PROTOCOL a3): all fences, then all settlements and inserts, then all next statuses with their wakes.
//!
//! The hot path: a step of a chain is one read (the frame with the call that it delivers, both by their numbers), one UPDATE of that call,
//! one INSERT of the made one, together with seven others where there are, and one UPDATE of the frame; the UPDATEs touch one index,
//! that by owner. Fences are read before anything is written, so that a refused turn leaves nothing to undo.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, Row};
use tasker_adaptor::{
    CommitRefused, Delivery, DeliverySource, Failure, FrameNext, LogLine, Outcome as Ending,
    StackRunId, StackStatus, StorageError, TurnCommit, TurnReceipt, WorkerId,
};

use crate::cached::Cached as _;
use crate::columns::{HasKey, Key, ending_columns};
use crate::fault::{Outcome, Refusable};
use crate::hot::{Hot, Statements};
use crate::make::{Calls, make};
use crate::tree::{
    BlockedRow, EndingFrame, FrameEnd, block, cancel_open_rows, frame_ended, leave_children, live,
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

/// What a fence says.
enum Pass {
    Refused(CommitRefused),
    Already(StackStatus),
    Apply(Frame),
}

/// A frame between its fence and its next status.
pub(crate) struct Frame {
    pub(crate) no: i64,
    /// Number of the worker whose turn this is.
    pub(crate) worker: i64,
    key: Key,
    pub(crate) run: Key,
    parent: Option<i64>,
    pub(crate) depth: u32,
    pub(crate) priority: i32,
    pub(crate) made: u32,
    delivered: u32,
    dropped: u32,
    /// The column as it is.
    status: StackStatus,
    deliveries: Vec<Child>,
    /// Children made by this turn that are open and cannot have settled.
    pub(crate) made_open: u32,
    /// The turn ended the run as cancelled: nothing may stay open in it.
    run_cancelled: bool,
}

/// A delivered child, as its fence read it.
struct Child {
    no: i64,
    settles: bool,
}

/// Where the columns of the child begin in [`Hot::Frame`].
const CHILD_OF_FRAME: usize = 11;

/// A timer that its own worker saw fire.
const DELIVER_TIMER: &str = "UPDATE stack_runs SET status = 'completed', outcome = '', settled_at = ?2, delivered_order = ?3, \
     delivered_turn = ?4, delivered_at = ?2, waits = NULL WHERE no = ?1";

/// The numbers of live workers, read once a batch for each.
#[derive(Default)]
struct Workers(Vec<(WorkerId, Option<i64>)>);

impl Workers {
    fn live(&mut self, tx: &Tx<'_>, worker: WorkerId) -> Outcome<Option<i64>> {
        if let Some((_, number)) = self.0.iter().find(|(known, _)| *known == worker) {
            return Ok(*number);
        }
        let number = live(tx, worker)?;
        self.0.push((worker, number));
        Ok(number)
    }
}

fn fence(
    tx: &mut Tx<'_>,
    statements: &mut Statements<'_>,
    workers: &mut Workers,
    turn: &TurnCommit,
) -> Outcome<Pass> {
    let Some(worker) = workers.live(tx, turn.lease.worker)? else {
        return Ok(Pass::Refused(CommitRefused::LeaseLost));
    };
    let Some(found) = find(tx, statements, turn, worker)? else {
        return Ok(Pass::Refused(CommitRefused::Gone));
    };
    let (mut frame, number) = (found.frame, found.turn);
    let same_epoch = found.epoch == turn.lease.epoch.0;
    let applied = if matches!(turn.next, FrameNext::Blocked(_)) {
        number == turn.turn.0
            && (frame.status == StackStatus::Blocked || frame.status.is_terminal())
    } else {
        number == turn.turn.0 + 1
    };
    if same_epoch && applied {
        return Ok(Pass::Already(frame.status));
    }
    if frame.status.is_terminal() {
        return Ok(Pass::Refused(CommitRefused::Ended));
    }
    if number != turn.turn.0 || !same_epoch || found.owner != Some(worker) {
        return Ok(Pass::Refused(CommitRefused::Superseded));
    }
    if let Some(refused) = fence_deliveries(statements, turn, found.first, &mut frame)? {
        return Ok(Pass::Refused(refused));
    }
    if matches!(turn.next, FrameNext::Suspended) && !leaves_something(tx, turn, &frame)? {
        return Ok(Pass::Refused(CommitRefused::SuspendedOnNothing));
    }
    Ok(Pass::Apply(frame))
}

/// The frame of a turn as it stands in its row.
struct Found {
    frame: Frame,
    owner: Option<i64>,
    epoch: u32,
    turn: u32,
    /// The first delivered child where it was read as well, and is as the turn says.
    first: Option<Child>,
}

/// By the numbers that this writer remembers, or else by ids.
fn find(
    tx: &mut Tx<'_>,
    statements: &mut Statements<'_>,
    turn: &TurnCommit,
    worker: i64,
) -> Outcome<Option<Found>> {
    let (frame, run) = (turn.frame.key(), turn.task_run.key());
    let first = turn.delivered.first();
    let (seq, child) = (
        first.map(|delivery| delivery.seq.0),
        first.map(|delivery| delivery.child.key()),
    );
    if let Some(no) = tx.numbers.of(turn.frame) {
        let child_no = first.and_then(|delivery| tx.numbers.of(delivery.child));
        let mut rows = statements
            .hot(Hot::FrameAt)?
            .query((no, frame, run, child_no, seq, child))?;
        if let Some(row) = rows.next()? {
            return found(row, turn, frame, run, worker).map(Some);
        }
    }
    let mut rows = statements
        .hot(Hot::Frame)?
        .query((frame, run, seq, child))?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let found = found(row, turn, frame, run, worker)?;
    tx.numbers.note(turn.frame, found.frame.no);
    Ok(Some(found))
}

/// A row of [`Hot::Frame`] or [`Hot::FrameAt`].
fn found(row: &Row<'_>, turn: &TurnCommit, key: Key, run: Key, worker: i64) -> Outcome<Found> {
    let status: StackStatus = row
        .get_ref(1)?
        .as_str()
        .map_err(rusqlite::Error::from)?
        .parse()?;
    Ok(Found {
        frame: Frame {
            no: row.get(0)?,
            worker,
            key,
            run,
            parent: row.get(8)?,
            depth: row.get(9)?,
            priority: row.get(10)?,
            made: row.get(5)?,
            delivered: row.get(6)?,
            dropped: row.get(7)?,
            status,
            deliveries: Vec::with_capacity(turn.delivered.len()),
            made_open: 0,
            run_cancelled: false,
        },
        owner: row.get(2)?,
        epoch: row.get(3)?,
        turn: row.get(4)?,
        first: match turn.delivered.first() {
            Some(delivery) => delivered_child(row, CHILD_OF_FRAME, delivery, worker)?,
            None => None,
        },
    })
}

/// `first` is the first delivered child, if it was read with the frame.
fn fence_deliveries(
    statements: &mut Statements<'_>,
    turn: &TurnCommit,
    mut first: Option<Child>,
    frame: &mut Frame,
) -> Outcome<Option<CommitRefused>> {
    if let Some(range) = Range::of(&turn.delivered) {
        return fence_range(statements, turn, range, frame);
    }
    let mut seen = HashSet::new();
    for delivery in &turn.delivered {
        let stale = Some(CommitRefused::Stale { seq: delivery.seq });
        if turn.delivered.len() > 1 && !seen.insert(delivery.child) {
            return Ok(stale);
        }
        let child = if let Some(first) = first.take() {
            Some(first)
        } else {
            let key = (frame.no, delivery.seq.0, delivery.child.key());
            let mut rows = statements.hot(Hot::Child)?.query(key)?;
            match rows.next()? {
                Some(row) => delivered_child(row, 0, delivery, frame.worker)?,
                None => None,
            }
        };
        match child {
            Some(child) => frame.deliveries.push(child),
            None => return Ok(stale),
        }
    }
    Ok(None)
}

/// Places of children in their frame that lie close together: one statement reads them all.
#[derive(Clone, Copy)]
struct Range {
    first: u32,
    last: u32,
}

/// Fewer deliveries are read one by one.
const MANY: usize = 8;

impl Range {
    /// That of many deliveries, if at least half of its places are among them.
    fn of(delivered: &[Delivery]) -> Option<Self> {
        if delivered.len() < MANY {
            return None;
        }
        let places = || delivered.iter().map(|delivery| delivery.seq.0);
        let range = Self {
            first: places().min()?,
            last: places().max()?,
        };
        ((range.last - range.first) as usize / 2 < delivered.len()).then_some(range)
    }

    fn place(self, seq: u32) -> usize {
        (seq - self.first) as usize
    }
}

/// As [`fence_deliveries`], for those in a range.
fn fence_range(
    statements: &mut Statements<'_>,
    turn: &TurnCommit,
    range: Range,
    frame: &mut Frame,
) -> Outcome<Option<CommitRefused>> {
    let mut wanted = vec![None; range.place(range.last) + 1];
    for delivery in turn.delivered.iter().rev() {
        wanted[range.place(delivery.seq.0)] = Some(delivery);
    }
    let mut read: Vec<Option<Child>> = Vec::new();
    read.resize_with(wanted.len(), || None);
    let mut rows = statements
        .hot(Hot::Children)?
        .query((frame.no, range.first, range.last))?;
    while let Some(row) = rows.next()? {
        let place = range.place(row.get(6)?);
        let Some(delivery) = wanted[place] else {
            continue;
        };
        let id = row.get_ref(7)?.as_str().map_err(rusqlite::Error::from)?;
        if id == delivery.child.key().as_str() {
            read[place] = delivered_child(row, 0, delivery, frame.worker)?;
        }
    }
    for delivery in &turn.delivered {
        // Taken: a place that is named twice is stale the second time.
        match read[range.place(delivery.seq.0)].take() {
            Some(child) => frame.deliveries.push(child),
            None => return Ok(Some(CommitRefused::Stale { seq: delivery.seq })),
        }
    }
    Ok(None)
}

/// The child as the turn says it is, or `None`; its columns begin at `at`.
fn delivered_child(
    row: &Row<'_>,
    at: usize,
    delivery: &Delivery,
    worker: i64,
) -> Outcome<Option<Child>> {
    let Some(no) = row.get::<_, Option<i64>>(at)? else {
        return Ok(None);
    };
    let word = |column| -> Outcome<&str> {
        Ok(row
            .get_ref(at + column)?
            .as_str()
            .map_err(rusqlite::Error::from)?)
    };
    let status = word(2)?;
    if row.get::<_, Option<u32>>(at + 5)?.is_some() {
        return Ok(None);
    }
    let settled = matches!(status, "completed" | "failed");
    let fits = match &delivery.source {
        DeliverySource::Local { epoch, .. } => {
            word(1)? == "call"
                && row.get::<_, u32>(at + 4)? == epoch.0
                && (settled
                    || (status == "processing"
                        && row.get::<_, Option<i64>>(at + 3)? == Some(worker)))
        }
        DeliverySource::Recorded => settled,
        DeliverySource::Timer => word(1)? == "timer" && (settled || status == "pending"),
    };
    Ok(fits.then_some(Child {
        no,
        settles: !settled,
    }))
}

/// Whether an open or unread child exists after the turn.
fn leaves_something(tx: &Tx<'_>, turn: &TurnCommit, frame: &Frame) -> Outcome<bool> {
    let mut left = i64::from(frame.made) + turn.made.len() as i64
        - i64::from(frame.delivered)
        - turn.delivered.len() as i64
        - i64::from(frame.dropped);
    for (index, id) in turn.dropped.iter().enumerate() {
        if turn.dropped[..index].contains(id) {
            continue;
        }
        let is_made = turn.made.iter().any(|made| made.id == *id);
        if is_made || is_open_child(tx, turn, frame, *id)? {
            left -= 1;
        }
    }
    Ok(left > 0)
}

fn is_open_child(tx: &Tx<'_>, turn: &TurnCommit, frame: &Frame, id: StackRunId) -> Outcome<bool> {
    if turn.delivered.iter().any(|delivery| delivery.child == id) {
        return Ok(false);
    }
    Ok(tx
        .conn
        .cached(
            "SELECT 1 FROM stack_runs WHERE id = ?1 AND parent_no = ?2 AND status NOT IN ('completed','failed','cancelled')",
        )?
        .exists((id.key(), frame.no))?)
}

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
    statements.hot(Hot::End)?.execute((
        frame.no,
        frame.made,
        frame.delivered,
        frame.dropped,
        turn.time.as_millis(),
        status,
        outcome,
    ))?;
    frame.status = status.parse()?;
    frame.run_cancelled = ending.is_none();
    let end = ending
        .as_ref()
        .map_or(FrameEnd::Cancelled, FrameEnd::Ending);
    let ended = EndingFrame {
        no: frame.no,
        parent: frame.parent,
        run: frame.run.as_str(),
        outstanding: frame.made > frame.delivered + frame.dropped,
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
    let (made, delivered, dropped) = (frame.made, frame.delivered, frame.dropped);
    let time = turn.time.as_millis();
    if next == frame.status {
        statements
            .hot(Hot::GoOn)?
            .execute((frame.no, made, delivered, dropped, time))?;
    } else {
        let row = (frame.no, made, delivered, dropped, time, next.as_str());
        statements.hot(Hot::GoOnTo)?.execute(row)?;
    }
    if next == StackStatus::PendingResume {
        tx.hint_work();
    }
    frame.status = next;
    Ok(())
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
