//! The fence of a turn: whether it may be committed, read before anything is written.
//!
//! A frame is read with the first call that its turn delivers, by the numbers that the writer remembers or else by ids; further ones by
//! their places in the frame, all at once where these lie close together.

use std::collections::HashSet;

use rusqlite::Row;
use tasker_adaptor::{
    CommitRefused, Delivery, DeliverySource, FrameNext, StackRunId, StackStatus, TurnCommit,
    WorkerId,
};

use crate::cached::Cached as _;
use crate::columns::{HasKey, Key};
use crate::fault::Outcome;
use crate::hot::{Hot, Statements};
use crate::tree::live;
use crate::writer::Tx;

/// What a fence says.
pub(crate) enum Pass {
    Refused(CommitRefused),
    Already(StackStatus),
    Apply(Frame),
}

/// A frame between its fence and its next status.
pub(crate) struct Frame {
    pub(crate) no: i64,
    /// Number of the worker whose turn this is.
    pub(crate) worker: i64,
    pub(crate) key: Key,
    pub(crate) run: Key,
    pub(crate) parent: Option<i64>,
    pub(crate) depth: u32,
    pub(crate) priority: i32,
    pub(crate) made: u32,
    pub(crate) delivered: u32,
    pub(crate) dropped: u32,
    /// The column as it is.
    pub(crate) status: StackStatus,
    pub(crate) deliveries: Vec<Child>,
    /// Children made by this turn that are open and cannot have settled.
    pub(crate) made_open: u32,
    /// The turn ended the run as cancelled: nothing may stay open in it.
    pub(crate) run_cancelled: bool,
}

/// A delivered child, as its fence read it.
pub(crate) struct Child {
    pub(crate) no: i64,
    pub(crate) settles: bool,
}

/// Where the columns of the child begin in [`Hot::Frame`].
const CHILD_OF_FRAME: usize = 11;

/// The numbers of live workers, read once a batch for each.
#[derive(Default)]
pub(crate) struct Workers(Vec<(WorkerId, Option<i64>)>);

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

/// Whether the turn may be committed.
pub(crate) fn fence(
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
    for delivery in &turn.delivered {
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
        // Taken: of two at one place the second is stale, whichever of them was read.
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
