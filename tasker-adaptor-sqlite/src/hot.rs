//! The statements of the commit of turns, kept while a batch runs.
//!
//! Each is taken from the connection's cache once a batch, and only when a turn needs it: to take one and to give it back
//! costs as much as reading a row, and a chain needs five of them.

use rusqlite::{CachedStatement, Connection};

use crate::cached::Cached as _;
use crate::fault::Outcome;

/// Rows of [`Hot::MakeCalls`] and of [`Hot::OfferCalls`]: a row costs 27,200 instructions alone and 19,300 in such company, which
/// turns of a rush have.
pub(crate) const CALLS_AT_ONCE: usize = 8;

/// The counters of a frame that has had no turn.
pub(crate) const NEW_COUNTERS: &str = "INSERT INTO frame_counters (no, turn, made_count, delivered_count, dropped_count) VALUES (?1, 0, 0, 0, 0)";

/// What the fence reads, in the order in which it takes it apart.
macro_rules! frame_and_child {
    () => {
        "SELECT f.no, f.status, f.owner, f.epoch, k.turn, k.made_count, k.delivered_count, k.dropped_count, f.parent_no, f.depth, \
         f.priority, c.no, c.kind, c.status, c.owner, c.epoch, c.delivered_order \
         FROM stack_runs f CROSS JOIN frame_counters k ON k.no = f.no LEFT JOIN stack_runs c ON "
    };
}

/// `FAIL` and not `ABORT`, which copies each page that a statement of several rows touches, to undo that statement alone: whoever makes
/// a row twice has the whole transaction undone.
macro_rules! insert_calls {
    ($owner:literal, $at:literal) => {
        concat!(
            "INSERT OR FAIL INTO stack_runs (id, task_run_id, parent_no, kind, seq, depth, priority, status, ",
            $owner,
            "epoch, attempt, in_doubt, service, path, args, created_at, ",
            $at,
            ", policy) VALUES "
        )
    };
}
macro_rules! claimed_calls {
    () => {
        insert_calls!("owner, ", "started_at")
    };
}
macro_rules! claimed_call {
    () => {
        "(?, ?, ?, 'call', ?, ?, ?, 'processing', ?, 1, 1, 0, ?, ?, ?, ?, ?, ?)"
    };
}
macro_rules! offered_calls {
    () => {
        insert_calls!("", "ready_at")
    };
}
macro_rules! offered_call {
    () => {
        "(?, ?, ?, 'call', ?, ?, ?, 'pending', 0, 0, 0, ?, ?, ?, ?, ?, ?)"
    };
}
macro_rules! eight {
    ($row:ident) => {
        concat!(
            $row!(),
            ",",
            $row!(),
            ",",
            $row!(),
            ",",
            $row!(),
            ",",
            $row!(),
            ",",
            $row!(),
            ",",
            $row!(),
            ",",
            $row!()
        )
    };
}

/// A statement of the hot path.
#[derive(Clone, Copy)]
pub(crate) enum Hot {
    /// A frame with the first child that its turn delivers, by their ids.
    Frame,
    /// The same by their numbers, as far as these are known.
    FrameAt,
    /// A further one, by the frame's number and the place in it: an index of numbers is walked faster than one of ids.
    Child,
    /// All in a range of places.
    Children,
    /// A call that the worker's own service answered.
    DeliverLocal,
    /// A child that was settled before.
    DeliverRecorded,
    /// A call that the worker asks itself.
    MakeCall,
    /// So many at once as [`CALLS_AT_ONCE`] says.
    MakeCalls,
    /// A call that anyone may claim.
    OfferCall,
    /// So many at once.
    OfferCalls,
    /// Any other child.
    Make,
    /// Counters for a frame that was made.
    NewCounters,
    /// What a frame's turn has counted.
    Count,
    /// The frame gets another status, unless a turn of the same batch has ended it.
    GoOnTo,
    /// It ends, likewise.
    End,
}

impl Hot {
    const ALL: usize = Self::End as usize + 1;

    const fn sql(self) -> &'static str {
        match self {
            Self::Frame => concat!(
                frame_and_child!(),
                "c.parent_no = f.no AND c.seq = ?3 AND +c.id = ?4 \
                 WHERE f.id = ?1 AND f.task_run_id = ?2 AND f.kind = 'frame'"
            ),
            Self::FrameAt => concat!(
                frame_and_child!(),
                "c.no = ?4 AND +c.parent_no = f.no AND +c.seq = ?5 AND +c.id = ?6 \
                 WHERE f.no = ?1 AND +f.id = ?2 AND +f.task_run_id = ?3 AND f.kind = 'frame'"
            ),
            Self::Child => {
                "SELECT no, kind, status, owner, epoch, delivered_order FROM stack_runs WHERE parent_no = ?1 AND seq = ?2 AND +id = ?3"
            }
            Self::Children => {
                "SELECT no, kind, status, owner, epoch, delivered_order, seq, id FROM stack_runs WHERE parent_no = ?1 AND seq BETWEEN ?2 AND ?3"
            }
            Self::DeliverLocal => {
                "UPDATE stack_runs SET status = ?2, outcome = ?3, owner = NULL, settled_at = ?4, \
                 delivered_order = ?5, delivered_turn = ?6, delivered_at = ?4 WHERE no = ?1"
            }
            Self::DeliverRecorded => {
                "UPDATE stack_runs SET delivered_order = ?2, delivered_turn = ?3, delivered_at = ?4, unread = NULL WHERE no = ?1"
            }
            Self::MakeCall => concat!(claimed_calls!(), claimed_call!()),
            Self::MakeCalls => concat!(claimed_calls!(), eight!(claimed_call)),
            Self::OfferCall => concat!(offered_calls!(), offered_call!()),
            Self::OfferCalls => concat!(offered_calls!(), eight!(offered_call)),
            Self::Make => {
                "INSERT INTO stack_runs (id, task_run_id, parent_no, kind, seq, depth, priority, status, owner, epoch, \
                 attempt, in_doubt, due_at, ready_at, waits, service, path, args, version, created_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, 0, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)"
            }
            Self::NewCounters => NEW_COUNTERS,
            Self::Count => {
                "UPDATE frame_counters SET turn = ?2, made_count = ?3, delivered_count = ?4, dropped_count = ?5 WHERE no = ?1"
            }
            Self::GoOnTo => {
                "UPDATE stack_runs SET attempt = 0, in_doubt = 0, started_at = COALESCE(started_at, ?2), \
                 status = IIF(settled_at IS NULL, ?3, status) WHERE no = ?1"
            }
            Self::End => {
                "UPDATE stack_runs SET attempt = 0, in_doubt = 0, \
                 started_at = COALESCE(started_at, ?2), status = IIF(settled_at IS NULL, ?3, status), \
                 outcome = IIF(settled_at IS NULL, ?4, outcome), owner = NULL, unread = IIF(settled_at IS NULL, parent_no, unread), \
                 settled_at = COALESCE(settled_at, ?2) WHERE no = ?1"
            }
        }
    }
}

/// Those that the batch has used so far.
pub(crate) struct Statements<'c> {
    conn: &'c Connection,
    taken: [Option<CachedStatement<'c>>; Hot::ALL],
}

impl<'c> Statements<'c> {
    pub(crate) fn of(conn: &'c Connection) -> Self {
        Self {
            conn,
            taken: Default::default(),
        }
    }

    /// The statement, ready to run.
    pub(crate) fn hot(&mut self, which: Hot) -> Outcome<&mut CachedStatement<'c>> {
        Ok(match &mut self.taken[which as usize] {
            Some(statement) => statement,
            none => none.insert(self.conn.cached(which.sql())?),
        })
    }
}
