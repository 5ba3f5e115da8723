//! Claims: who gets which ready row, and taking a frame up again.

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, Row};
use tasker_adaptor::{
    BlockedReason, Claim, ClaimedCall, ClaimedFrame, Json, RunContext, RunStatus, StackKind,
    StackRun, StackRunId, StackStatus, StorageError, TaskName, TaskRunId, TaskVersion, Timestamp,
    WorkerId,
};

use crate::cached::Cached as _;
use crate::columns::{Cells, HasKey, STACK_RUN_WIDTH, stack_run, stack_run_columns, turns};
use crate::fault::{Fault, Outcome};
use crate::mirror::CallRow;
use crate::tree::{BlockedRow, block, follow_root, has_unread, live};
use crate::writer::Tx;

/// A row without the id of its frame, its number and that of its frame, of a table that is called `s`. Rows that become ready together
/// are often of one frame, whose id is read once.
static ROW: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, s.no, s.parent_no FROM stack_runs s",
        stack_run_columns("NULL")
    )
});

static NUMBERED: LazyLock<String> = LazyLock::new(|| format!("{} WHERE s.no = ?1", *ROW));

static ONLY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} WHERE s.id = ?1 AND s.kind = ?2 AND s.ready_at <= ?3",
        *ROW
    )
});

static READY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} WHERE s.kind = ?1 AND s.priority = ?2 AND s.ready_at <= ?3 ORDER BY s.ready_at LIMIT ?4",
        *ROW
    )
});

/// Takes ready frames: priority first, then the time they became ready. `None` when the worker is not live.
pub(crate) fn claim_frames(tx: &mut Tx<'_>, claim: &Claim) -> Outcome<Option<Vec<ClaimedFrame>>> {
    let Some(owner) = live(tx, claim.worker)? else {
        return Ok(None);
    };
    tx.keeps_mirror();
    let ready = ready(tx.conn, "frame", claim)?;
    let mut last = Last::default();
    let mut frames = Vec::with_capacity(ready.len());
    for ready in ready {
        let no = ready.no;
        if let Some((row, run)) = with_run_or_block(tx, &mut last, ready, claim.now)? {
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
    tx.keeps_mirror();
    let ready = ready(tx.conn, "call", claim)?;
    let mut last = Last::default();
    let mut calls = Vec::with_capacity(ready.len());
    let mut nos = Vec::with_capacity(ready.len());
    for ready in ready {
        let (no, parent) = (ready.no, ready.parent);
        let Some((mut row, run)) = with_run_or_block(tx, &mut last, ready, claim.now)? else {
            continue;
        };
        nos.push(no);
        tx.numbers.note(row.id, no);
        row.status = StackStatus::Processing;
        row.owner = Some(claim.worker);
        row.epoch = row.epoch.next();
        row.attempt += 1;
        row.started_at = Some(claim.now);
        if let Some(parent) = parent {
            let known = CallRow {
                no,
                parent,
                seq: row.seq.0,
                owner,
                epoch: row.epoch.0,
            };
            tx.mirror.note_call(row.id, known);
        }
        calls.push(ClaimedCall {
            row,
            context: run.context,
        });
    }
    take_calls(tx, nos, owner, claim.now)?;
    Ok(Some(calls))
}

/// Writes that these calls are the worker's. Calls of one turn have numbers that follow each other, and one statement takes them all;
/// `FAIL` for the reason that [`crate::hot`] has.
fn take_calls(tx: &Tx<'_>, mut nos: Vec<i64>, owner: i64, now: Timestamp) -> Outcome<()> {
    nos.sort_unstable();
    let mut take = tx.conn.cached(
        "UPDATE OR FAIL stack_runs SET status = 'processing', owner = ?3, epoch = epoch + 1, attempt = attempt + 1, \
         ready_at = NULL, started_at = ?4 WHERE no BETWEEN ?1 AND ?2",
    )?;
    for together in nos.chunk_by(|one, next| one + 1 == *next) {
        if let (Some(first), Some(last)) = (together.first(), together.last()) {
            take.execute((first, last, owner, now.as_millis()))?;
        }
    }
    Ok(())
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
            "SELECT f.no, k.turn, f.parent_no IS NULL, f.task_run_id FROM stack_runs f CROSS JOIN frame_counters k ON k.no = f.no \
             WHERE f.id = ?1 AND f.owner = ?2 AND f.kind = 'frame'",
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
    let numbered = tx.conn.cached(&NUMBERED)?.query_row([no], read)?;
    match with_run_or_block(tx, &mut Last::default(), numbered, now)? {
        Some((row, run)) => take_frame(tx, (no, owner), row, run, worker, now).map(Some),
        None => Ok(None),
    }
}

/// A row that a claim takes, if it can be read, and the number of its frame.
struct Ready {
    no: i64,
    parent: Option<i64>,
    row: Outcome<StackRun>,
}

/// One row of [`ROW`].
fn read(row: &Row<'_>) -> rusqlite::Result<Ready> {
    Ok(Ready {
        no: row.get(STACK_RUN_WIDTH)?,
        parent: row.get(STACK_RUN_WIDTH + 1)?,
        row: stack_run(row),
    })
}

/// Rows that a claim takes, in order.
fn ready(conn: &Connection, kind: &'static str, claim: &Claim) -> Outcome<Vec<Ready>> {
    if claim.max == 0 {
        return Ok(Vec::new());
    }
    if let Some(only) = claim.only {
        let row = conn
            .cached(&ONLY)?
            .query_row((only.key(), kind, claim.now.as_millis()), read)
            .optional()?;
        return Ok(row.into_iter().collect());
    }
    let mut rows = Vec::new();
    let mut below = None;
    while let Some(priority) = next_priority(conn, kind, below)? {
        let left = (claim.max - rows.len()) as i64;
        let mut statement = conn.cached(&READY)?;
        for row in statement.query_map((kind, priority, claim.now.as_millis(), left), read)? {
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

/// What a claimed row needs of its run.
struct RunOf {
    context: RunContext,
    input: Json,
}

/// The run of the last row and its frame: rows that become ready together are often of one.
#[derive(Default)]
struct Last {
    run: Option<(TaskRunId, RunContext)>,
    frame: Option<(i64, StackRunId)>,
}

impl Last {
    /// The id of the frame that made the row.
    fn frame(&mut self, conn: &Connection, row: &StackRun, no: i64) -> Outcome<StackRunId> {
        if let Some((known, id)) = self.frame
            && known == no
        {
            return Ok(id);
        }
        let found: Option<String> = conn
            .cached("SELECT id FROM stack_runs WHERE no = ?1")?
            .query_row([no], |row| row.get(0))
            .optional()?;
        let damaged = |problem: &dyn std::fmt::Display| {
            let what = format!("stack_runs.parent_no of row {}", row.id);
            StorageError::corrupt(what, problem.to_string()).in_run(row.task_run)
        };
        let id = found.ok_or_else(|| damaged(&"names no row"))?;
        let id = id.parse().map_err(|error| damaged(&error))?;
        self.frame = Some((no, id));
        Ok(id)
    }

    /// The row's run; `None` when it is gone.
    fn run(&mut self, conn: &Connection, row: &StackRun) -> Outcome<Option<RunOf>> {
        // A nested frame has its input with it, and a call needs none.
        let input = match (&row.kind, &row.parent, &row.args) {
            (StackKind::Frame, Some(_), Some(args)) => Some(args.clone()),
            (StackKind::Frame, None, _) => None,
            _ => Some(Json::null()),
        };
        if let (Some((id, context)), Some(input)) = (&self.run, &input)
            && *id == row.task_run
        {
            return Ok(Some(RunOf {
                context: context.clone(),
                input: input.clone(),
            }));
        }
        let mut statement = conn.cached(
            "SELECT r.id, r.task, r.version, r.priority, r.correlation_id, r.traceparent, r.deadline, r.labels, r.cancel_by, r.status, \
             CASE WHEN ?2 THEN r.input END AS input FROM task_runs r WHERE r.id = ?1",
        )?;
        let mut rows = statement.query((row.task_run.key(), input.is_none()))?;
        let Some(run) = rows.next()? else {
            return Ok(None);
        };
        let cells = Cells {
            row: run,
            table: "task_runs",
            run_column: Some(0),
        };
        let context = RunContext {
            task: TaskName::new(cells.get::<String>(1)?),
            version: TaskVersion::new(cells.get::<String>(2)?),
            priority: cells.get(3)?,
            correlation_id: cells.maybe(4)?,
            traceparent: cells.maybe(5)?,
            deadline: cells.time(6)?,
            labels: cells.labels(7)?,
            cancel_by: cells.time(8)?,
            ended: cells.word::<RunStatus>(9)?.is_terminal(),
        };
        let input = match input {
            Some(input) => input,
            None => cells.required_json(10)?,
        };
        self.run = Some((row.task_run, context.clone()));
        Ok(Some(RunOf { context, input }))
    }
}

/// The row with its run. One that cannot be read is blocked, with its run, and left out: others are not affected.
fn with_run_or_block(
    tx: &mut Tx<'_>,
    last: &mut Last,
    Ready { no, parent, row }: Ready,
    now: Timestamp,
) -> Outcome<Option<(StackRun, RunOf)>> {
    let read = row.and_then(|mut row| {
        row.parent = parent
            .map(|parent| last.frame(tx.conn, &row, parent))
            .transpose()?;
        Ok(last.run(tx.conn, &row)?.map(|run| (row, run)))
    });
    match read {
        Ok(read) => Ok(read),
        Err(Fault::Storage(StorageError::Corrupt { what, problem, .. })) => {
            tracing::error!(%what, %problem, "a stored value is damaged; its run is blocked");
            let (row, run) = tx
                .conn
                .cached(concat!(
                    "SELECT id, parent_no, kind = 'frame', ",
                    turns!(),
                    ", task_run_id FROM stack_runs WHERE no = ?1"
                ))?
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
            tx.mirror.forget_all();
            block(tx, &row, &run, &reason, now)?;
            Ok(None)
        }
        Err(fault) => Err(fault),
    }
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
    tx.mirror.forget_frame(row.id);
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
