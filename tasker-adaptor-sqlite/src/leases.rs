//! Workers: leases, and what becomes of the rows of the dead.

use rusqlite::{Connection, OptionalExtension};
use tasker_adaptor::{LEASE_HORIZON_MS, NewWorker, Reaped, StorageError, Timestamp, WorkerId};

use crate::cached::Cached as _;
use crate::columns::{HasKey, turns};
use crate::fault::Outcome;
use crate::finish::{Freed, free_call, free_frame};
use crate::tree::{follow_root, live, status_from_children};
use crate::writer::Tx;

/// Adds a live worker, or renews it.
pub(crate) fn register(tx: &mut Tx<'_>, worker: &NewWorker) -> Outcome<()> {
    let expires_at = worker.now.plus_millis(worker.lease_ms).as_millis();
    let written = tx
        .conn
        .cached(
            "INSERT INTO workers (id, name, state, registered_at, expires_at) VALUES (?1, ?2, 'live', ?3, ?4) \
             ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at WHERE state = 'live'",
        )?
        .execute((
            worker.id.key(),
            &worker.name,
            worker.now.as_millis(),
            expires_at,
        ))?;
    if written == 0 {
        return Err(StorageError::Misuse {
            what: format!(
                "worker id {} is used up: it was declared dead; take a new one",
                worker.id
            ),
        }
        .into());
    }
    Ok(())
}

/// Moves the end of a lease; whether the worker is live.
pub(crate) fn heartbeat(
    tx: &mut Tx<'_>,
    worker: WorkerId,
    now: Timestamp,
    lease_ms: i64,
) -> Outcome<bool> {
    let renewed = tx
        .conn
        .cached("UPDATE workers SET expires_at = ?2 WHERE id = ?1 AND state = 'live'")?
        .execute((worker.key(), now.plus_millis(lease_ms).as_millis()))?;
    Ok(renewed > 0)
}

/// Declares a worker dead and frees what it owns.
pub(crate) fn retire(tx: &mut Tx<'_>, worker: WorkerId, now: Timestamp) -> Outcome<()> {
    tx.conn
        .cached("UPDATE workers SET state = 'dead' WHERE id = ?1")?
        .execute([worker.key()])?;
    let owner: Option<i64> = tx
        .conn
        .cached("SELECT no FROM workers WHERE id = ?1")?
        .query_row([worker.key()], |row| row.get(0))
        .optional()?;
    if let Some(owner) = owner {
        for row in rows_of(tx.conn, owner, usize::MAX)? {
            take(tx, &row, Freed::Asked, now)?;
        }
    }
    Ok(())
}

/// Declares silent workers dead and frees rows whose owner is not live, at most `max`.
pub(crate) fn reap(tx: &mut Tx<'_>, by: WorkerId, now: Timestamp, max: usize) -> Outcome<Reaped> {
    let mut reaped = Reaped::default();
    if live(tx, by)?.is_none() {
        return Ok(reaped);
    }
    {
        let mut statement = tx.conn.cached(
            "UPDATE workers SET state = 'dead' WHERE state = 'live' AND (expires_at < ?1 OR expires_at > ?1 + ?3) AND id <> ?2 RETURNING id",
        )?;
        // The second bound: written by a clock that was set back since (`lease_is_over`).
        let bounds = (now.as_millis(), by.key(), LEASE_HORIZON_MS);
        let dead = statement.query_map(bounds, |row| row.get::<_, String>(0))?;
        for id in dead {
            reaped.workers.extend(id?.parse::<WorkerId>().ok());
        }
    }
    let mut left = max;
    let mut after = 0;
    while let Some(owner) = next_owner(tx.conn, after)? {
        let live = tx
            .conn
            .cached("SELECT 1 FROM workers WHERE no = ?1 AND state = 'live'")?
            .exists([owner])?;
        if !live {
            let rows = rows_of(tx.conn, owner, left.saturating_add(1))?;
            for row in rows.iter().take(left) {
                take(tx, row, Freed::Died, now)?;
                if row.is_frame {
                    reaped.frames += 1;
                } else {
                    reaped.calls += 1;
                }
            }
            if rows.len() > left {
                reaped.more = true;
                return Ok(reaped);
            }
            left -= rows.len();
        }
        after = owner;
    }
    Ok(reaped)
}

struct Owned {
    no: i64,
    run: String,
    is_root: bool,
    is_frame: bool,
    turn: i64,
}

/// The next owner of any row: owners are few, so each is one seek.
fn next_owner(conn: &Connection, after: i64) -> Outcome<Option<i64>> {
    Ok(conn
        .cached("SELECT owner FROM stack_runs WHERE owner > ?1 ORDER BY owner LIMIT 1")?
        .query_row([after], |row| row.get(0))
        .optional()?)
}

fn rows_of(conn: &Connection, owner: i64, max: usize) -> Outcome<Vec<Owned>> {
    let rows = conn
        .cached(concat!(
            "SELECT no, task_run_id, parent_no IS NULL, kind = 'frame', ",
            turns!(),
            " FROM stack_runs WHERE owner = ?1 LIMIT ?2"
        ))?
        .query_map((owner, i64::try_from(max).unwrap_or(i64::MAX)), |row| {
            Ok(Owned {
                no: row.get(0)?,
                run: row.get(1)?,
                is_root: row.get(2)?,
                is_frame: row.get(3)?,
                turn: row.get(4)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(rows)
}

/// Frees a row whose owner is dead.
fn take(tx: &mut Tx<'_>, row: &Owned, by: Freed, now: Timestamp) -> Outcome<()> {
    if !row.is_frame {
        return free_call(tx, row.no, by, now);
    }
    let status = status_from_children(tx, row.no, row.turn)?;
    free_frame(tx, row.no, status, true, now)?;
    if row.is_root {
        follow_root(tx, &row.run, false, row.turn)?;
    }
    Ok(())
}
