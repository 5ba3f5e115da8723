//! Rows as this writer left them: what nobody has changed since need not be read again.
//!
//! Frames under way and calls that their own worker asks, from one turn to the next. A fence takes from here what it would read, which is
//! a sixth of what a step costs the writer; nothing is written from here, and nothing is refused: what is not here, or other than a turn
//! says, is read.
//!
//! It holds while the file has no other writer. Three things see to that: within the write lock each transaction asks SQLite whether
//! another connection has committed since the last one · an operation that does not say that it keeps these rows true
//! ([`crate::writer::Tx::keeps_mirror`]) empties this · so does a transaction that is rolled back. Debug builds compare each row with
//! the file before they believe it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use rusqlite::Connection;
use tasker_adaptor::{Delivery, DeliverySource, StackRunId, StackStatus, TaskRunId};

use crate::cached::Cached as _;

/// Frames and calls that are known at most, of each kind; then all are forgotten.
const MOST: usize = 16_384;

/// A frame, as a fence reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRow {
    pub(crate) no: i64,
    pub(crate) run: TaskRunId,
    pub(crate) status: StackStatus,
    /// Number of the worker.
    pub(crate) owner: Option<i64>,
    pub(crate) epoch: u32,
    pub(crate) turn: u32,
    pub(crate) made: u32,
    pub(crate) delivered: u32,
    pub(crate) dropped: u32,
    pub(crate) parent: Option<i64>,
    pub(crate) depth: u32,
    pub(crate) priority: i32,
}

/// A call that its worker asks: `processing`, and not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallRow {
    pub(crate) no: i64,
    /// Number of its frame.
    pub(crate) parent: i64,
    pub(crate) seq: u32,
    /// Number of the worker.
    pub(crate) owner: i64,
    pub(crate) epoch: u32,
}

impl CallRow {
    /// Whether it is what the worker of this frame delivers.
    pub(crate) fn is(&self, delivery: &Delivery, frame: i64, worker: i64) -> bool {
        let at_epoch = matches!(&delivery.source, DeliverySource::Local { epoch, .. } if epoch.0 == self.epoch);
        at_epoch && self.parent == frame && self.seq == delivery.seq.0 && self.owner == worker
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Mirror {
    /// `PRAGMA data_version` of the connection when the rows were noted: another one commits, and it is another.
    version: Option<i64>,
    frames: ById<FrameRow>,
    calls: ById<CallRow>,
}

type ById<T> = HashMap<StackRunId, T, BuildHasherDefault<IdHasher>>;

impl Mirror {
    /// Within a transaction that has begun: forgets everything if another connection has committed since the last one.
    pub(crate) fn follow(&mut self, connection: &Connection) {
        let version = data_version(connection).ok();
        if version.is_none() || self.version != version {
            self.forget_all();
            self.version = version;
        }
    }

    pub(crate) fn forget_all(&mut self) {
        self.frames.clear();
        self.calls.clear();
    }

    pub(crate) fn frame(&self, id: StackRunId, run: TaskRunId) -> Option<FrameRow> {
        self.frames.get(&id).filter(|row| row.run == run).copied()
    }

    pub(crate) fn call(&self, id: StackRunId) -> Option<CallRow> {
        self.calls.get(&id).copied()
    }

    pub(crate) fn note_frame(&mut self, id: StackRunId, row: FrameRow) {
        note(&mut self.frames, id, row);
    }

    pub(crate) fn note_call(&mut self, id: StackRunId, row: CallRow) {
        note(&mut self.calls, id, row);
    }

    pub(crate) fn forget_frame(&mut self, id: StackRunId) {
        self.frames.remove(&id);
    }

    pub(crate) fn forget_call(&mut self, id: StackRunId) {
        self.calls.remove(&id);
    }
}

fn note<T>(rows: &mut ById<T>, id: StackRunId, row: T) {
    if rows.len() == MOST {
        rows.clear();
    }
    rows.insert(id, row);
}

/// Changes with commits of other connections, not with those of this one.
pub(crate) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))
}

/// Ids are made by engines, and half of their bits are random; the table is bounded.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut eight = [0; 8];
            eight[..word.len()].copy_from_slice(word);
            let mixed = (self.0 ^ u64::from_le_bytes(eight)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.0 = mixed ^ mixed >> 32;
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
