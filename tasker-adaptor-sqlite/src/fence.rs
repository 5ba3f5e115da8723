//! The fence of a turn: whether it may be committed, read before anything is written.
//!
//! A row that the writer's [mirror](crate::mirror) has is not read. Else a frame is read with the first call that its turn delivers, by
//! the numbers that the writer remembers or by ids; further ones by their places in the frame, all at once where these lie close together.

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
use crate::mirror::FrameRow;
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
#[derive(Debug, PartialEq, Eq)]
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
    let Some((row, first)) = find(tx, statements, turn, worker)? else {
        return Ok(Pass::Refused(CommitRefused::Gone));
    };
    let same_epoch = row.epoch == turn.lease.epoch.0;
    let applied = if matches!(turn.next, FrameNext::Blocked(_)) {
        row.turn == turn.turn.0 && (row.status == StackStatus::Blocked || row.status.is_terminal())
    } else {
        row.turn == turn.turn.0 + 1
    };
    if same_epoch && applied {
        return Ok(Pass::Already(row.status));
    }
    if row.status.is_terminal() {
        return Ok(Pass::Refused(CommitRefused::Ended));
    }
    if row.turn != turn.turn.0 || !same_epoch || row.owner != Some(worker) {
        return Ok(Pass::Refused(CommitRefused::Superseded));
    }
    let mut frame = Frame::of(row, turn, worker);
    match fence_deliveries(tx, statements, turn, first, &frame)? {
        Ok(deliveries) => frame.deliveries = deliveries,
        Err(refused) => return Ok(Pass::Refused(refused)),
    }
    if matches!(turn.next, FrameNext::Suspended) && !leaves_something(tx, turn, &frame)? {
        return Ok(Pass::Refused(CommitRefused::SuspendedOnNothing));
    }
    Ok(Pass::Apply(frame))
}

impl Frame {
    /// A frame before its turn.
    fn of(row: FrameRow, turn: &TurnCommit, worker: i64) -> Self {
        Self {
            no: row.no,
            worker,
            key: turn.frame.key(),
            run: turn.task_run.key(),
            parent: row.parent,
            depth: row.depth,
            priority: row.priority,
            made: row.made,
            delivered: row.delivered,
            dropped: row.dropped,
            status: row.status,
            deliveries: Vec::new(),
            made_open: 0,
            run_cancelled: false,
        }
    }

    /// Some child may be neither delivered nor given up.
    pub(crate) const fn has_outstanding(&self) -> bool {
        self.made > self.delivered + self.dropped
    }

    /// Its row after its turn.
    pub(crate) fn row(&self, turn: &TurnCommit) -> FrameRow {
        FrameRow {
            no: self.no,
            run: turn.task_run,
            status: self.status,
            owner: Some(self.worker),
            epoch: turn.lease.epoch.0,
            turn: turn.turn.0 + 1,
            made: self.made,
            delivered: self.delivered,
            dropped: self.dropped,
            parent: self.parent,
            depth: self.depth,
            priority: self.priority,
        }
    }
}

/// The frame as it stands in its row, and the first delivered child if that was read with it and is as the turn says.
fn find(
    tx: &mut Tx<'_>,
    statements: &mut Statements<'_>,
    turn: &TurnCommit,
    worker: i64,
) -> Outcome<Option<(FrameRow, Option<Child>)>> {
    if let Some(row) = tx.mirror.frame(turn.frame, turn.task_run)
        && row.owner == Some(worker)
        && (row.epoch, row.turn) == (turn.lease.epoch.0, turn.turn.0)
    {
        debug_assert_eq!(
            read(tx, statements, turn, worker)?.map(|(row, _)| row),
            Some(row),
            "a row is not as the mirror has it"
        );
        return Ok(Some((row, None)));
    }
    read(tx, statements, turn, worker)
}

/// By the numbers that this writer remembers, or else by ids.
fn read(
    tx: &mut Tx<'_>,
    statements: &mut Statements<'_>,
    turn: &TurnCommit,
    worker: i64,
) -> Outcome<Option<(FrameRow, Option<Child>)>> {
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
            return frame_and_child(row, turn, worker).map(Some);
        }
    }
    let mut rows = statements
        .hot(Hot::Frame)?
        .query((frame, run, seq, child))?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let found = frame_and_child(row, turn, worker)?;
    tx.numbers.note(turn.frame, found.0.no);
    Ok(Some(found))
}

/// A row of [`Hot::Frame`] or [`Hot::FrameAt`].
fn frame_and_child(
    row: &Row<'_>,
    turn: &TurnCommit,
    worker: i64,
) -> Outcome<(FrameRow, Option<Child>)> {
    let status: StackStatus = row
        .get_ref(1)?
        .as_str()
        .map_err(rusqlite::Error::from)?
        .parse()?;
    let frame = FrameRow {
        no: row.get(0)?,
        run: turn.task_run,
        status,
        owner: row.get(2)?,
        epoch: row.get(3)?,
        turn: row.get(4)?,
        made: row.get(5)?,
        delivered: row.get(6)?,
        dropped: row.get(7)?,
        parent: row.get(8)?,
        depth: row.get(9)?,
        priority: row.get(10)?,
    };
    let first = match turn.delivered.first() {
        Some(delivery) => delivered_child(row, CHILD_OF_FRAME, delivery, worker)?,
        None => None,
    };
    Ok((frame, first))
}

/// The delivered children; `first` is the first of them, if it was read with the frame.
fn fence_deliveries(
    tx: &Tx<'_>,
    statements: &mut Statements<'_>,
    turn: &TurnCommit,
    first: Option<Child>,
    frame: &Frame,
) -> Outcome<Result<Vec<Child>, CommitRefused>> {
    if first.is_none()
        && let Some(known) = known_calls(tx, turn, frame)
    {
        debug_assert_eq!(
            read_deliveries(statements, turn, None, frame)?.as_ref(),
            Ok(&known),
            "a call is not as the mirror has it"
        );
        return Ok(Ok(known));
    }
    read_deliveries(statements, turn, first, frame)
}

fn read_deliveries(
    statements: &mut Statements<'_>,
    turn: &TurnCommit,
    mut first: Option<Child>,
    frame: &Frame,
) -> Outcome<Result<Vec<Child>, CommitRefused>> {
    if let Some(range) = Range::of(&turn.delivered) {
        return read_range(statements, turn, range, frame);
    }
    let mut children = Vec::with_capacity(turn.delivered.len());
    let mut seen = HashSet::new();
    for delivery in &turn.delivered {
        let stale = CommitRefused::Stale { seq: delivery.seq };
        if turn.delivered.len() > 1 && !seen.insert(delivery.child) {
            return Ok(Err(stale));
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
            Some(child) => children.push(child),
            None => return Ok(Err(stale)),
        }
    }
    Ok(Ok(children))
}

/// The delivered children, if all are calls that are known to be under way.
fn known_calls(tx: &Tx<'_>, turn: &TurnCommit, frame: &Frame) -> Option<Vec<Child>> {
    let mut seen = HashSet::new();
    turn.delivered
        .iter()
        .map(|delivery| {
            let call = tx.mirror.call(delivery.child)?;
            let is_new = turn.delivered.len() == 1 || seen.insert(call.no);
            (is_new && call.is(delivery, frame.no, frame.worker)).then_some(Child {
                no: call.no,
                settles: true,
            })
        })
        .collect()
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

/// As [`read_deliveries`], for those in a range.
fn read_range(
    statements: &mut Statements<'_>,
    turn: &TurnCommit,
    range: Range,
    frame: &Frame,
) -> Outcome<Result<Vec<Child>, CommitRefused>> {
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
    // Taken: of two at one place the second is stale, whichever of them was read.
    let children = turn.delivered.iter().map(|delivery| {
        let child = read[range.place(delivery.seq.0)].take();
        child.ok_or(CommitRefused::Stale { seq: delivery.seq })
    });
    Ok(children.collect())
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
