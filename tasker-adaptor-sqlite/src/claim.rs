//! Claims: who gets which ready row, and taking a frame up again.

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, Row};
use tasker_adaptor::{
    BlockedReason, Claim, ClaimedCall, ClaimedFrame, RunContext, RunStatus, StackKind, StackRun,
    StackRunId, StackStatus, StorageError, TaskName, TaskVersion, Timestamp, WorkerId,
};

use crate::cached::Cached as _;
use crate::columns::{Cells, HasKey, PARENT, STACK_RUN_WIDTH, stack_run, stack_run_columns};
use crate::fault::{Fault, Outcome};
use crate::tree::{BlockedRow, block, follow_root, has_unread, live};
use crate::writer::Tx;

static WITH_RUN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, r.task, r.version, r.priority, r.correlation_id, r.traceparent, r.deadline, r.labels, r.cancel_by, r.status, r.input \
         FROM stack_runs s JOIN task_runs r ON r.id = s.task_run_id WHERE s.no = ?1",
        stack_run_columns(PARENT)
    )
});

/// Takes ready frames: priority first, then the time they became ready. `None` when the worker is not live.
pub(crate) fn claim_frames(tx: &mut Tx<'_>, claim: &Claim) -> Outcome<Option<Vec<ClaimedFrame>>> {
    let Some(owner) = live(tx, claim.worker)? else {
        return Ok(None);
    };
    let nos = ready(tx.conn, "frame", claim)?;
    let mut frames = Vec::with_capacity(nos.len());
    for no in nos {
        if let Some((row, run)) = read_or_block(tx, no, claim.now)? {
            frames.push(take_frame(
                tx,
                (no, owner),
                row,
                run,
                claim.worker,
                claim.now,
            )?);
        }
    }
    Ok(Some(frames))
}

/// Takes ready calls, in the same order. `None` when the worker is not live.
pub(crate) fn claim_calls(tx: &mut Tx<'_>, claim: &Claim) -> Outcome<Option<Vec<ClaimedCall>>> {
    let Some(owner) = live(tx, claim.worker)? else {
        return Ok(None);
    };
    let nos = ready(tx.conn, "call", claim)?;
    let mut calls = Vec::with_capacity(nos.len());
    for no in nos {
        let Some((mut row, run)) = read_or_block(tx, no, claim.now)? else {
            continue;
        };
        tx.conn
            .cached(
                "UPDATE stack_runs SET status = 'processing', owner = ?2, epoch = epoch + 1, attempt = attempt + 1, \
                 ready_at = NULL, started_at = ?3 WHERE no = ?1",
            )?
            .execute((no, owner, claim.now.as_millis()))?;
        row.status = StackStatus::Processing;
        row.owner = Some(claim.worker);
        row.epoch = row.epoch.next();
        row.attempt += 1;
        row.started_at = Some(claim.now);
        calls.push(ClaimedCall {
            row,
            context: run.context,
        });
    }
    Ok(Some(calls))
}

/// Takes up again a frame that the worker owns and has no VM for; gives it back when it has nothing to do.
pub(crate) fn reload_frame(
    tx: &mut Tx<'_>,
    frame: StackRunId,
    worker: WorkerId,
    now: Timestamp,
) -> Outcome<Option<ClaimedFrame>> {
    let Some(owner) = live(tx, worker)? else {
        return Ok(None);
    };
    let found: Option<(i64, i64, bool, String)> = tx
        .conn
        .cached(
            "SELECT no, turn, parent_no IS NULL, task_run_id FROM stack_runs WHERE id = ?1 AND owner = ?2 AND kind = 'frame'",
        )?
        .query_row((frame.key(), owner), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((no, turn, is_root, run)) = found else {
        return Ok(None);
    };
    if turn > 0 && !has_unread(tx, no)? {
        tx.conn
            .cached(
                "UPDATE stack_runs SET status = 'suspended_waiting_child', owner = NULL, epoch = epoch + 1 WHERE no = ?1",
            )?
            .execute([no])?;
        if is_root {
            follow_root(tx, &run, false, turn)?;
        }
        return Ok(None);
    }
    match read_or_block(tx, no, now)? {
        Some((row, run)) => take_frame(tx, (no, owner), row, run, worker, now).map(Some),
        None => Ok(None),
    }
}

/// What a claimed row needs of its run.
struct RunOf {
    context: RunContext,
    input: tasker_adaptor::Json,
}

/// Rows that a claim takes, in order.
fn ready(conn: &Connection, kind: &'static str, claim: &Claim) -> Outcome<Vec<i64>> {
    if claim.max == 0 {
        return Ok(Vec::new());
    }
    if let Some(only) = claim.only {
        let row = conn
            .cached("SELECT no FROM stack_runs WHERE id = ?1 AND kind = ?2 AND ready_at <= ?3")?
            .query_row((only.key(), kind, claim.now.as_millis()), |row| row.get(0))
            .optional()?;
        return Ok(row.into_iter().collect());
    }
    let mut rows = Vec::new();
    let mut below = None;
    while let Some(priority) = next_priority(conn, kind, below)? {
        let left = (claim.max - rows.len()) as i64;
        let mut statement = conn.cached(
            "SELECT no FROM stack_runs WHERE kind = ?1 AND priority = ?2 AND ready_at <= ?3 ORDER BY ready_at LIMIT ?4",
        )?;
        let found = statement.query_map((kind, priority, claim.now.as_millis(), left), |row| {
            row.get::<_, i64>(0)
        })?;
        for row in found {
            rows.push(row?);
        }
        if rows.len() >= claim.max {
            break;
        }
        below = Some(priority);
    }
    Ok(rows)
}

/// The highest priority of ready rows below another: priorities are few, so each is one seek.
pub(crate) fn next_priority(
    conn: &Connection,
    kind: &str,
    below: Option<i64>,
) -> Outcome<Option<i64>> {
    Ok(conn
        .cached(
            "SELECT priority FROM stack_runs WHERE kind = ?1 AND priority < ?2 AND ready_at IS NOT NULL ORDER BY priority DESC LIMIT 1",
        )?
        .query_row((kind, below.unwrap_or(i64::MAX)), |row| row.get(0))
        .optional()?)
}

/// Reads a row with its run. One that cannot be read is blocked, with its run, and left out: others are not affected.
fn read_or_block(tx: &mut Tx<'_>, no: i64, now: Timestamp) -> Outcome<Option<(StackRun, RunOf)>> {
    let read = {
        let mut statement = tx.conn.cached(&WITH_RUN)?;
        let mut rows = statement.query([no])?;
        match rows.next()? {
            Some(row) => read(row),
            None => return Ok(None),
        }
    };
    match read {
        Ok(row) => Ok(Some(row)),
        Err(Fault::Storage(StorageError::Corrupt { what, problem, .. })) => {
            tracing::error!(%what, %problem, "a stored value is damaged; its run is blocked");
            let (row, run) = tx
                .conn
                .cached(
                    "SELECT id, parent_no, kind = 'frame', turn, task_run_id FROM stack_runs WHERE no = ?1",
                )?
                .query_row([no], |row| {
                    Ok((
                        BlockedRow {
                            no,
                            id: row.get(0)?,
                            parent: row.get(1)?,
                            is_frame: row.get(2)?,
                            turn: row.get(3)?,
                            reason: None,
                        },
                        row.get::<_, String>(4)?,
                    ))
                })?;
            let reason = BlockedReason::Corrupt {
                what: format!("{what}: {problem}"),
            };
            block(tx, &row, &run, &reason, now)?;
            Ok(None)
        }
        Err(fault) => Err(fault),
    }
}

fn read(row: &Row<'_>) -> Outcome<(StackRun, RunOf)> {
    let stack = stack_run(row)?;
    let cells = Cells {
        row,
        table: "task_runs (with stack_runs)",
        run_column: Some(1),
    };
    let at = |offset| STACK_RUN_WIDTH + offset;
    let context = RunContext {
        task: TaskName::new(cells.get::<String>(at(0))?),
        version: TaskVersion::new(cells.get::<String>(at(1))?),
        priority: cells.get(at(2))?,
        correlation_id: cells.maybe(at(3))?,
        traceparent: cells.maybe(at(4))?,
        deadline: cells.time(at(5))?,
        labels: cells.labels(at(6))?,
        cancel_by: cells.time(at(7))?,
        ended: cells.word::<RunStatus>(at(8))?.is_terminal(),
    };
    let input = match (&stack.kind, &stack.parent, &stack.args) {
        (StackKind::Frame, Some(_), Some(args)) => args.clone(),
        (StackKind::Frame, None, _) => cells.required_json(at(9))?,
        _ => tasker_adaptor::Json::null(),
    };
    Ok((stack, RunOf { context, input }))
}

/// A VM will be built from the row: this worker's, at an epoch of its own. First the numbers of row and worker.
fn take_frame(
    tx: &mut Tx<'_>,
    (no, owner): (i64, i64),
    mut row: StackRun,
    run: RunOf,
    worker: WorkerId,
    now: Timestamp,
) -> Outcome<ClaimedFrame> {
    tx.conn
        .cached(
            "UPDATE stack_runs SET status = 'processing', owner = ?2, epoch = epoch + 1, ready_at = NULL WHERE no = ?1",
        )?
        .execute((no, owner))?;
    tx.numbers.note(row.id, no);
    row.status = StackStatus::Processing;
    row.owner = Some(worker);
    row.epoch = row.epoch.next();
    if row.parent.is_none() {
        tx.conn
            .cached(
                "UPDATE task_runs SET started_at = COALESCE(started_at, ?2), \
                 status = CASE WHEN status IN ('queued','suspended') THEN 'processing' ELSE status END \
                 WHERE id = ?1 AND (started_at IS NULL OR status IN ('queued','suspended'))",
            )?
            .execute((row.task_run.key(), now.as_millis()))?;
    }
    let (task, version) = match (&row.parent, &row.version) {
        (Some(_), Some(version)) => (TaskName::new(row.path.as_str()), version.clone()),
        _ => (run.context.task.clone(), run.context.version.clone()),
    };
    Ok(ClaimedFrame {
        row,
        task,
        version,
        input: run.input,
        context: run.context,
    })
}
