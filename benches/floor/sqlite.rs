//! The floor of the storage figures: the rows that an engine leaves, written against bare rusqlite.
//!
//! Same tables and indexes, same pragmas, statements prepared once a transaction, calls inserted eight at a time, the same rows in the
//! same order within each kind, so many turns a transaction as the engine's commits had in the mean. No engine, no fences, no reads, no
//! task: what remains is what SQLite and the disk cost.

use std::path::Path;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{
    CachedStatement, Connection, DropBehavior, Params, ToSql, TransactionBehavior, params,
};
use uuid::Builder;

const SCHEMA: &str = concat!(
    include_str!("../../tasker-adaptor-sqlite/migrations/0001_first.sql"),
    include_str!("../../tasker-adaptor-sqlite/migrations/0002_calls.sql"),
    include_str!("../../tasker-adaptor-sqlite/migrations/0003_lean.sql"),
    include_str!("../../tasker-adaptor-sqlite/migrations/0004_counters.sql")
);
const STATEMENTS: usize = 64;
/// As the adaptor's writer.
const PRAGMAS: &str = "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                       PRAGMA wal_autocheckpoint = 4096; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8192";

const ARGS: &str = r#"[{"n":7,"text":"a step of a chain"}]"#;
const OUTCOME: &str = r#"{"n":7,"text":"a step of a chain"}"#;
const INPUT: &str = r#"{"calls":10}"#;
const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const VERSION: &str = "0123456789abcdef0123456789abcdef";
/// Number of the worker.
const OWNER: i64 = 1;
const TIME: i64 = 1_700_000_000_000;

/// A database with the engine's tables.
pub struct Floor {
    connection: Connection,
    ids: Ids,
    /// Stack runs inserted so far: the number of the last one, as nothing is deleted.
    rows: i64,
}

/// A frame as its writer knows it.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Id of the run.
    run: Id,
    no: i64,
    /// The frame that made it.
    parent: Option<i64>,
    /// Its children are frames, which settle by themselves before they are delivered.
    nests: bool,
    /// Turns that it has had.
    turns: u32,
    made: u32,
    delivered: u32,
    /// Rows of children in the order made, the undelivered ones last.
    children: Vec<i64>,
}

/// What a turn writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// Calls whose answers it records.
    pub delivers: u32,
    /// Calls that it makes.
    pub makes: u32,
    /// Whether it is the last one.
    pub ends: bool,
}

impl Floor {
    /// A new file.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(PRAGMAS)?;
        connection.execute_batch(SCHEMA)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(Self {
            connection,
            ids: Ids::default(),
            rows: 0,
        })
    }

    /// One transaction.
    pub fn batch<T>(
        &mut self,
        work: impl FnOnce(&mut Batch<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.ids.millis += 1;
        let mut transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.set_drop_behavior(DropBehavior::Rollback);
        let mut batch = Batch {
            connection: &transaction,
            statements: Default::default(),
            ids: &mut self.ids,
            rows: &mut self.rows,
            calls: Vec::new(),
        };
        let value = work(&mut batch)?;
        batch.insert_calls()?;
        drop(batch);
        transaction.commit()?;
        Ok(value)
    }

    /// One run in a transaction of its own.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method alone is not general enough over the lifetime of its batch"
    )]
    pub fn submit(&mut self) -> rusqlite::Result<Frame> {
        self.batch(|rows| rows.submit())
    }

    /// Runs with as many calls one after the other: submitted in batches, then turn by turn, `batch` turns a transaction.
    pub fn chains(&mut self, runs: u32, calls: u32, batch: usize) -> rusqlite::Result<()> {
        let batch = batch.max(1);
        let mut left = runs as usize;
        let mut frames = Vec::with_capacity(runs as usize);
        while left > 0 {
            let now = left.min(batch);
            frames.extend(self.batch(|rows| {
                (0..now)
                    .map(|_| rows.submit())
                    .collect::<rusqlite::Result<Vec<_>>>()
            })?);
            left -= now;
        }
        // As an engine does: a window of runs from first turn to last, then the next window.
        for window in frames.chunks_mut(batch) {
            self.batch(|rows| window.iter().try_for_each(|frame| rows.claim(frame)))?;
            for turn in 0..=calls {
                let turn = Turn {
                    delivers: u32::from(turn > 0),
                    makes: u32::from(turn < calls),
                    ends: turn == calls,
                };
                self.batch(|rows| {
                    window
                        .iter_mut()
                        .try_for_each(|frame| rows.turn(frame, turn))
                })?;
            }
        }
        Ok(())
    }

    /// One run with as many calls at one time, whose answers come `batch` at a time.
    pub fn fan_out(&mut self, calls: u32, batch: u32) -> rusqlite::Result<()> {
        let mut frame = self.submit()?;
        self.batch(|rows| rows.claim(&frame))?;
        let first = Turn {
            makes: calls,
            ..Turn::default()
        };
        self.batch(|rows| rows.turn(&mut frame, first))?;
        let mut left = calls;
        while left > 0 {
            let delivers = left.min(batch.max(1));
            left -= delivers;
            let turn = Turn {
                delivers,
                makes: 0,
                ends: left == 0,
            };
            self.batch(|rows| rows.turn(&mut frame, turn))?;
        }
        Ok(())
    }

    /// Runs whose task calls a task which calls a task: `batch` of them at a time.
    pub fn nested(&mut self, runs: u32, batch: usize) -> rusqlite::Result<()> {
        let mut left = runs as usize;
        while left > 0 {
            let now = left.min(batch.max(1));
            left -= now;
            let mut frames: Vec<Frame> =
                self.batch(|rows| (0..now).map(|_| rows.submit()).collect())?;
            self.batch(|rows| frames.iter().try_for_each(|frame| rows.claim(frame)))?;
            let mut children: Vec<Frame> =
                self.batch(|rows| frames.iter_mut().map(|frame| rows.nest(frame)).collect())?;
            let mut grandchildren: Vec<Frame> =
                self.batch(|rows| children.iter_mut().map(|frame| rows.nest(frame)).collect())?;
            let alone = Turn {
                ends: true,
                ..Turn::default()
            };
            let after_child = Turn {
                delivers: 1,
                ..alone
            };
            for (level, turn) in [
                (&mut grandchildren, alone),
                (&mut children, after_child),
                (&mut frames, after_child),
            ] {
                self.batch(|rows| {
                    level
                        .iter_mut()
                        .try_for_each(|frame| rows.turn(frame, turn))
                })?;
            }
        }
        Ok(())
    }
}

/// An open transaction.
pub struct Batch<'c> {
    connection: &'c Connection,
    /// Those of [`SQL`] that it has used.
    statements: [Option<CachedStatement<'c>>; SQL.len()],
    ids: &'c mut Ids,
    rows: &'c mut i64,
    /// Calls that wait for others, as the adaptor's do.
    calls: Vec<Call>,
}

/// A call that is not inserted yet.
struct Call {
    no: i64,
    id: Id,
    run: Id,
    parent: i64,
    seq: u32,
}

/// Calls of one statement, as in the adaptor, which says why `FAIL`.
const CALLS_AT_ONCE: usize = 8;

macro_rules! calls {
    () => {
        "INSERT OR FAIL INTO stack_runs (id, task_run_id, parent_no, kind, seq, depth, priority, status, owner, epoch, \
         attempt, in_doubt, service, path, args, created_at, started_at) VALUES "
    };
}
macro_rules! call {
    () => {
        "(?, ?, ?, 'call', ?, 0, 0, 'processing', ?, 1, 1, 0, 'bench', 'step', ?, ?, ?)"
    };
}
macro_rules! four_calls {
    () => {
        concat!(call!(), ",", call!(), ",", call!(), ",", call!())
    };
}
/// Values of a row of these.
const CALL_VALUES: usize = 8;

/// What a transaction writes with; the constants below are its places.
const SQL: [&str; 15] = [
    "INSERT INTO task_runs (id, task, version, status, input, request_hash, priority, run_at, created_at) \
     VALUES (?1, 'chain', ?2, 'queued', ?3, ?4, 0, ?5, ?5)",
    "INSERT INTO stack_runs (id, task_run_id, kind, seq, depth, priority, status, epoch, attempt, in_doubt, \
     ready_at, service, path, version, created_at) VALUES (?1, ?2, 'frame', 0, 0, 0, 'pending', 0, 0, 0, ?3, 'task', 'chain', ?4, ?3)",
    "UPDATE stack_runs SET status = 'processing', owner = ?2, epoch = epoch + 1, ready_at = NULL WHERE no = ?1",
    "UPDATE task_runs SET status = 'processing', started_at = ?2 WHERE id = ?1",
    "UPDATE stack_runs SET status = 'completed', outcome = ?2, owner = NULL, settled_at = ?3, \
     delivered_order = ?4, delivered_turn = 1, delivered_at = ?3 WHERE no = ?1",
    "UPDATE stack_runs SET delivered_order = ?2, delivered_turn = 1, delivered_at = ?3, unread = NULL WHERE no = ?1",
    "INSERT INTO stack_runs (id, task_run_id, parent_no, kind, seq, depth, priority, status, owner, epoch, \
     attempt, in_doubt, service, path, args, created_at, started_at) \
     VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 'processing', ?6, 1, 1, 0, ?7, ?8, ?9, ?10, ?10)",
    "UPDATE frame_counters SET turn = ?2, made_count = ?3, delivered_count = ?4, dropped_count = 0 WHERE no = ?1",
    "UPDATE stack_runs SET started_at = COALESCE(started_at, ?2), status = 'suspended_waiting_child' WHERE no = ?1",
    "UPDATE stack_runs SET started_at = COALESCE(started_at, ?2), status = 'completed', outcome = ?3, owner = NULL, \
     unread = parent_no, settled_at = ?2 WHERE no = ?1",
    "UPDATE stack_runs SET status = 'pending_resume' WHERE no = ?1",
    "UPDATE task_runs SET status = 'completed', outcome = ?2, ended_at = ?3 WHERE id = ?1",
    concat!(calls!(), call!()),
    concat!(calls!(), four_calls!(), ",", four_calls!()),
    "INSERT INTO frame_counters (no, turn, made_count, delivered_count, dropped_count) VALUES (?1, 0, 0, 0, 0)",
];
const NEW_RUN: usize = 0;
const NEW_ROOT: usize = 1;
const CLAIM: usize = 2;
const BEGIN_RUN: usize = 3;
const DELIVER: usize = 4;
const DELIVER_RECORDED: usize = 5;
const MAKE: usize = 6;
const COUNT: usize = 7;
const SUSPEND: usize = 8;
const END: usize = 9;
const WAKE: usize = 10;
const END_RUN: usize = 11;
const MAKE_CALL: usize = 12;
const MAKE_CALLS: usize = 13;
const NEW_COUNTERS: usize = 14;

impl<'c> Batch<'c> {
    fn statement(&mut self, which: usize) -> rusqlite::Result<&mut CachedStatement<'c>> {
        Ok(match &mut self.statements[which] {
            Some(statement) => statement,
            unused => unused.insert(self.connection.prepare_cached(SQL[which])?),
        })
    }

    fn execute(&mut self, which: usize, values: impl Params) -> rusqlite::Result<()> {
        self.statement(which)?.execute(values).map(drop)
    }

    /// A call, in company.
    fn call(&mut self, frame: &mut Frame) -> rusqlite::Result<()> {
        frame.made += 1;
        *self.rows += 1;
        frame.children.push(*self.rows);
        self.calls.push(Call {
            no: *self.rows,
            id: self.ids.next(),
            run: frame.run,
            parent: frame.no,
            seq: frame.made,
        });
        if self.calls.len() == CALLS_AT_ONCE {
            self.insert_calls()?;
        }
        Ok(())
    }

    /// Inserts the calls that wait.
    fn insert_calls(&mut self) -> rusqlite::Result<()> {
        let calls = std::mem::take(&mut self.calls);
        let (which, at_once) = match calls.len() {
            CALLS_AT_ONCE => (MAKE_CALLS, CALLS_AT_ONCE),
            _ => (MAKE_CALL, 1),
        };
        for calls in calls.chunks(at_once) {
            let statement = self.statement(which)?;
            for (index, call) in calls.iter().enumerate() {
                let first = index * CALL_VALUES + 1;
                statement.raw_bind_parameter(first, call.id)?;
                statement.raw_bind_parameter(first + 1, call.run)?;
                statement.raw_bind_parameter(first + 2, call.parent)?;
                statement.raw_bind_parameter(first + 3, call.seq)?;
                statement.raw_bind_parameter(first + 4, OWNER)?;
                statement.raw_bind_parameter(first + 5, ARGS)?;
                statement.raw_bind_parameter(first + 6, TIME)?;
                statement.raw_bind_parameter(first + 7, TIME)?;
            }
            statement.raw_execute()?;
            let last = calls.last().map(|call| call.no);
            debug_assert_eq!(last, Some(self.connection.last_insert_rowid()));
        }
        Ok(())
    }

    /// A task run and its root frame.
    pub fn submit(&mut self) -> rusqlite::Result<Frame> {
        let (run, id) = (self.ids.next(), self.ids.next());
        self.execute(NEW_RUN, params![run, VERSION, INPUT, HASH, TIME])?;
        self.execute(NEW_ROOT, params![id, run, TIME, VERSION])?;
        *self.rows += 1;
        self.execute(NEW_COUNTERS, [*self.rows])?;
        Ok(Frame {
            run,
            no: *self.rows,
            parent: None,
            nests: false,
            turns: 0,
            made: 0,
            delivered: 0,
            children: Vec::new(),
        })
    }

    /// Frame and run become `processing`.
    pub fn claim(&mut self, frame: &Frame) -> rusqlite::Result<()> {
        self.execute(CLAIM, params![frame.no, OWNER])?;
        self.execute(BEGIN_RUN, params![frame.run, TIME])
    }

    /// A turn.
    pub fn turn(&mut self, frame: &mut Frame, turn: Turn) -> rusqlite::Result<()> {
        for _ in 0..turn.delivers {
            let child = frame.children[frame.delivered as usize];
            frame.delivered += 1;
            if frame.nests {
                self.execute(DELIVER_RECORDED, params![child, frame.delivered, TIME])?;
            } else {
                self.execute(DELIVER, params![child, OUTCOME, TIME, frame.delivered])?;
            }
        }
        for _ in 0..turn.makes {
            self.call(frame)?;
        }
        self.go_on(frame, turn.ends)
    }

    /// A turn that makes a nested frame, claimed at birth.
    pub fn nest(&mut self, frame: &mut Frame) -> rusqlite::Result<Frame> {
        frame.nests = true;
        let no = self.make(frame)?;
        self.go_on(frame, false)?;
        Ok(Frame {
            run: frame.run,
            no,
            parent: Some(frame.no),
            nests: false,
            turns: 0,
            made: 0,
            delivered: 0,
            children: Vec::new(),
        })
    }

    fn make(&mut self, frame: &mut Frame) -> rusqlite::Result<i64> {
        self.insert_calls()?;
        frame.made += 1;
        let id = self.ids.next();
        self.execute(
            MAKE,
            params![
                id, frame.run, frame.no, "frame", frame.made, OWNER, "tasks", "child", ARGS, TIME
            ],
        )?;
        *self.rows += 1;
        self.execute(NEW_COUNTERS, [*self.rows])?;
        frame.children.push(*self.rows);
        Ok(*self.rows)
    }

    fn go_on(&mut self, frame: &mut Frame, ends: bool) -> rusqlite::Result<()> {
        let no = frame.no;
        frame.turns += 1;
        let counted = params![no, frame.turns, frame.made, frame.delivered];
        self.execute(COUNT, counted)?;
        if !ends && frame.turns > 1 {
            return Ok(());
        }
        if !ends {
            return self.execute(SUSPEND, params![no, TIME]);
        }
        self.execute(END, params![no, TIME, OUTCOME])?;
        if let Some(parent) = frame.parent {
            self.execute(WAKE, [parent])
        } else {
            self.execute(END_RUN, params![frame.run, OUTCOME, TIME])
        }
    }
}

/// An id as the text of its column.
#[derive(Clone, Copy, Debug)]
struct Id([u8; 36]);

impl ToSql for Id {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

/// Makes ids as an engine does: its own time, and numbers from a generator without a system call.
#[derive(Default)]
struct Ids {
    /// Since [`TIME`]; one more with each transaction.
    millis: u64,
    /// Of splitmix64.
    state: u64,
}

impl Ids {
    fn next(&mut self) -> Id {
        let mut random = [0; 16];
        random[..8].copy_from_slice(&self.number().to_le_bytes());
        random[8..].copy_from_slice(&self.number().to_le_bytes());
        let [bytes @ .., _, _, _, _, _, _] = random;
        let uuid = Builder::from_unix_timestamp_millis(TIME.unsigned_abs() + self.millis, &bytes)
            .into_uuid();
        let mut text = [0; 36];
        uuid.as_hyphenated().encode_lower(&mut text);
        Id(text)
    }

    fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.state;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }
}
