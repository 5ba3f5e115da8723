//! The rows that turns make: calls that their worker asks itself, calls that anyone may claim, and any other child.
//!
//! A call waits for others of its kind and transaction, so that one statement inserts several: to begin and end a statement
//! on a table with nine trees costs a third of an insert. Rows are in the order made, within each of the three.
//!
//! Invariant: whoever looks for a row that a turn has made calls [`Calls::insert`] first.

use rusqlite::{OptionalExtension, Statement};
use tasker_adaptor::{Json, MadeKind, NewStackRun, StackRunId, StorageError, TurnCommit};

use crate::cached::Cached as _;
use crate::columns::{HasKey, Key};
use crate::fault::{Fault, Outcome};
use crate::fence::Frame;
use crate::hot::{CALLS_AT_ONCE, Hot, Statements};
use crate::mirror::CallRow;
use crate::writer::Tx;

/// Makes one child; a call waits for others in `calls`.
pub(crate) fn make<'t>(
    tx: &mut Tx<'_>,
    statements: &mut Statements<'_>,
    calls: &mut Calls<'t>,
    turn: &'t TurnCommit,
    frame: &mut Frame,
    new: &'t NewStackRun,
) -> Outcome<()> {
    frame.made += 1;
    let other = match &new.kind {
        MadeKind::Call {
            service,
            path,
            args,
            policy,
        } => {
            frame.made_open += 1;
            let call = Call {
                id: new.id,
                run: frame.run,
                parent: frame.no,
                seq: frame.made,
                depth: frame.depth,
                priority: frame.priority,
                owner: new.claimed.then_some(frame.worker),
                service,
                path,
                args: args.text(),
                time: turn.time.as_millis(),
                policy: policy.as_ref().map(Json::text),
            };
            return calls.add(tx, statements, call);
        }
        MadeKind::Frame {
            task,
            version,
            input,
            depth,
        } => Other {
            kind: "frame",
            service: "tasks",
            path: task.as_str(),
            args: Some(input.text()),
            version: Some(version.as_str()),
            due_at: None,
            depth: *depth,
        },
        MadeKind::Timer { path, args, due_at } => Other {
            kind: "timer",
            service: "timer",
            path,
            args: Some(args.text()),
            version: None,
            due_at: Some(due_at.as_millis()),
            depth: frame.depth,
        },
        MadeKind::Signal { name } => Other {
            kind: "signal",
            service: "signal",
            path: name,
            args: None,
            version: None,
            due_at: None,
            depth: frame.depth,
        },
    };
    make_other(tx, statements, turn, frame, new, &other)
}

/// Calls that are not inserted yet, fewer than [`CALLS_AT_ONCE`] of each kind.
#[derive(Default)]
pub(crate) struct Calls<'t> {
    /// Their worker asks them itself.
    claimed: Vec<Call<'t>>,
    /// Anyone may claim them.
    offered: Vec<Call<'t>>,
}

struct Call<'t> {
    id: StackRunId,
    run: Key,
    parent: i64,
    seq: u32,
    depth: u32,
    priority: i32,
    /// The worker that asks it; the same for all of a statement, or none for all.
    owner: Option<i64>,
    service: &'t str,
    path: &'t str,
    args: &'t str,
    time: i64,
    policy: Option<&'t str>,
}

impl<'t> Calls<'t> {
    /// Inserts the call when there are enough for a statement.
    fn add(
        &mut self,
        tx: &mut Tx<'_>,
        statements: &mut Statements<'_>,
        call: Call<'t>,
    ) -> Outcome<()> {
        let company = if call.owner.is_some() {
            &mut self.claimed
        } else {
            tx.hint_work();
            &mut self.offered
        };
        company.push(call);
        if company.len() == CALLS_AT_ONCE {
            self.insert(tx, statements)?;
        }
        Ok(())
    }

    /// Inserts those that wait.
    pub(crate) fn insert(
        &mut self,
        tx: &mut Tx<'_>,
        statements: &mut Statements<'_>,
    ) -> Outcome<()> {
        for (calls, alone, together) in [
            (&mut self.claimed, Hot::MakeCall, Hot::MakeCalls),
            (&mut self.offered, Hot::OfferCall, Hot::OfferCalls),
        ] {
            if calls.len() == CALLS_AT_ONCE {
                insert(tx, statements.hot(together)?, calls)?;
            } else {
                for call in calls.chunks(1) {
                    insert(tx, statements.hot(alone)?, call)?;
                }
            }
            calls.clear();
        }
        Ok(())
    }
}

fn insert(tx: &mut Tx<'_>, statement: &mut Statement<'_>, calls: &[Call<'_>]) -> Outcome<()> {
    let mut at = 0;
    for call in calls {
        at = call.bind(statement, at)?;
    }
    if let Err(error) = statement.raw_execute() {
        // Those before it were inserted: they are the changes of the statement.
        let before = usize::try_from(tx.conn.changes()).unwrap_or(0);
        let guilty = &calls[before.min(calls.len() - 1)];
        return Err(made_twice(error, guilty.id));
    }
    // Numbers of one statement follow each other; one that does not is found out when it is used.
    let last = tx.conn.last_insert_rowid();
    for (no, call) in (1..=last).rev().zip(calls.iter().rev()) {
        // Whoever claims an offered one notes its number.
        if let Some(owner) = call.owner {
            let row = CallRow {
                no,
                parent: call.parent,
                seq: call.seq,
                owner,
                epoch: 1,
            };
            tx.numbers.note(call.id, no);
            tx.mirror.note_call(call.id, row);
        }
    }
    Ok(())
}

impl Call<'_> {
    /// As the next row of a statement that has `at` values. How many it has then.
    fn bind(&self, statement: &mut Statement<'_>, mut at: usize) -> rusqlite::Result<usize> {
        let mut next = || {
            at += 1;
            at
        };
        statement.raw_bind_parameter(next(), self.id.key())?;
        statement.raw_bind_parameter(next(), self.run)?;
        statement.raw_bind_parameter(next(), self.parent)?;
        statement.raw_bind_parameter(next(), self.seq)?;
        statement.raw_bind_parameter(next(), self.depth)?;
        statement.raw_bind_parameter(next(), self.priority)?;
        if let Some(owner) = self.owner {
            statement.raw_bind_parameter(next(), owner)?;
        }
        statement.raw_bind_parameter(next(), self.service)?;
        statement.raw_bind_parameter(next(), self.path)?;
        statement.raw_bind_parameter(next(), self.args)?;
        statement.raw_bind_parameter(next(), self.time)?;
        statement.raw_bind_parameter(next(), self.time)?;
        statement.raw_bind_parameter(next(), self.policy)?;
        Ok(at)
    }
}

/// Columns of a child that is no call.
struct Other<'t> {
    kind: &'static str,
    service: &'static str,
    path: &'t str,
    args: Option<&'t str>,
    version: Option<&'t str>,
    due_at: Option<i64>,
    depth: u32,
}

/// A child that is no call, counted already.
fn make_other(
    tx: &mut Tx<'_>,
    statements: &mut Statements<'_>,
    turn: &TurnCommit,
    frame: &mut Frame,
    new: &NewStackRun,
    other: &Other<'_>,
) -> Outcome<()> {
    let time = turn.time.as_millis();
    let is_claimable = other.kind == "frame";
    let claimed = new.claimed && is_claimable;
    let owner = claimed.then_some(frame.worker);
    let key = new.id.key();
    let row = rusqlite::params![
        key,
        frame.run,
        frame.no,
        other.kind,
        frame.made,
        other.depth,
        frame.priority,
        if claimed { "processing" } else { "pending" },
        owner,
        i64::from(claimed),
        other.due_at,
        (is_claimable && !claimed).then_some(time),
        (!is_claimable).then_some(1),
        other.service,
        other.path,
        other.args,
        other.version,
        time,
    ];
    if let Err(error) = statements.hot(Hot::Make)?.execute(row) {
        return Err(made_twice(error, new.id));
    }
    let no = tx.conn.last_insert_rowid();
    tx.numbers.note(new.id, no);
    if other.kind == "frame" {
        statements.hot(Hot::NewCounters)?.execute([no])?;
    }
    let met = other.kind == "signal"
        && !turn.dropped.contains(&new.id)
        && meet_stored_signal(tx, frame.run, key, other.path, time)?;
    if !met {
        frame.made_open += 1;
    }
    if is_claimable && !claimed {
        tx.hint_work();
    }
    Ok(())
}

/// Ids are used once: a second row under an id is the caller's bug, and the turns of its batch are undone.
fn made_twice(error: rusqlite::Error, id: StackRunId) -> Fault {
    if error.sqlite_error_code() != Some(rusqlite::ErrorCode::ConstraintViolation) {
        return Fault::Sql(error);
    }
    Fault::Undo(StorageError::Misuse {
        what: format!("stack run {id} was made twice; every row needs an id of its own"),
    })
}

/// A wait that begins takes the oldest stored signal of its name.
fn meet_stored_signal(tx: &Tx<'_>, run: Key, wait: Key, name: &str, time: i64) -> Outcome<bool> {
    let stored: Option<(i64, String)> = tx
        .conn
        .cached(
            "SELECT rowid, payload FROM signals WHERE task_run_id = ?1 AND name = ?2 AND consumed_by IS NULL ORDER BY rowid LIMIT 1",
        )?
        .query_row((run, name), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((signal, payload)) = stored else {
        return Ok(false);
    };
    tx.conn
        .cached("UPDATE signals SET consumed_by = ?2 WHERE rowid = ?1")?
        .execute((signal, wait))?;
    tx.conn
        .cached(
            "UPDATE stack_runs SET status = 'completed', outcome = ?2, settled_at = ?3, waits = NULL, unread = parent_no WHERE id = ?1",
        )?
        .execute((wait, payload, time))?;
    Ok(true)
}
