//! Claims: many rows, each with one winner, FIFO within priority.
//!
//! `SKIP LOCKED` on the row and on its run: a claim waits for nobody but its own worker's row, so it can be in no deadlock.
//! Priorities are walked one by one, so rows that are due much later than now cost a claim nothing.

use std::collections::HashMap;

use tasker_adaptor::{
    BlockedReason, Claim, ClaimedCall, ClaimedFrame, StackRun, StackRunId, StorageError, TaskName,
    TaskVersion, Timestamp, WorkerId,
};
use tokio_postgres::Row;
use uuid::Uuid;

use super::locks::{self, Locked};
use super::status::{FOLLOW_ROOTS, LET_GO, has_unread, status_from_children};
use super::tidy::tidy;
use crate::PostgresStorage;
use crate::row::{
    STACK_COLUMNS, context, context_columns, get, parse_json, stack_columns, stack_run,
};
use crate::session::{Session, long, text, uuid, uuids};

/// A frame that anybody may claim.
macro_rules! ready_frame {
    ($s:literal) => {
        concat!($s, ".kind = 'frame' AND ", $s, ".ready IS NOT NULL")
    };
}

pub(super) use ready_frame;

/// A call that anybody may claim.
macro_rules! ready_call {
    ($s:literal) => {
        concat!($s, ".kind = 'call' AND ", $s, ".ready IS NOT NULL")
    };
}

pub(super) use ready_call;

/// The worker $3 is live. Its row was locked by the statement before, so this stays true until the end.
macro_rules! live_worker {
    () => {
        "EXISTS (SELECT 1 FROM tasker.workers w WHERE w.id = $3 AND w.state = 'live')"
    };
}

/// The ready rows of `$ready`, highest priority first: at most $2 whose time has come at $1.
macro_rules! ready_rows {
    ($ready:ident, $lock:literal) => {
        concat!(
            "WITH RECURSIVE steps AS ((SELECT s.priority FROM tasker.stack_runs s WHERE ",
            $ready!("s"),
            " ORDER BY s.priority DESC LIMIT 1) UNION ALL SELECT (SELECT s.priority FROM tasker.stack_runs s WHERE ",
            $ready!("s"),
            " AND s.priority < steps.priority ORDER BY s.priority DESC LIMIT 1) FROM steps WHERE steps.priority IS NOT NULL), taken AS MATERIALIZED (SELECT t.id FROM (SELECT priority FROM steps WHERE priority IS NOT NULL) p CROSS JOIN LATERAL (SELECT s.id FROM tasker.stack_runs s JOIN tasker.task_runs r ON r.id = s.task_run_id WHERE ",
            $ready!("s"),
            " AND s.priority = p.priority AND s.ready <= $1 AND r.status <> 'cancelled' ORDER BY s.ready, s.id LIMIT $2 FOR UPDATE OF s SKIP LOCKED FOR ",
            $lock,
            " OF r SKIP LOCKED) t WHERE ",
            live_worker!(),
            " LIMIT $2) "
        )
    };
}

const TAKE_FRAMES: &str = concat!(
    ready_rows!(ready_frame, "NO KEY UPDATE"),
    "UPDATE tasker.stack_runs s SET status = 'processing', owner = $3, epoch = s.epoch + 1 FROM taken WHERE s.id = taken.id RETURNING s.id"
);

const TAKE_CALLS: &str = concat!(
    ready_rows!(ready_call, "KEY SHARE"),
    "UPDATE tasker.stack_runs s SET status = 'processing', owner = $3, with_frame = false, epoch = s.epoch + 1, attempt = s.attempt + 1, started_at = $1 FROM taken WHERE s.id = taken.id RETURNING s.id"
);

const TAKE_FRAME: &str = concat!(
    "WITH taken AS MATERIALIZED (SELECT s.id FROM tasker.stack_runs s JOIN tasker.task_runs r ON r.id = s.task_run_id WHERE s.id = $4 AND ",
    ready_frame!("s"),
    " AND (s.due_at IS NULL OR s.due_at <= $1) AND r.status <> 'cancelled' AND ",
    live_worker!(),
    " LIMIT $2 FOR UPDATE OF s SKIP LOCKED FOR NO KEY UPDATE OF r SKIP LOCKED) UPDATE tasker.stack_runs s SET status = 'processing', owner = $3, epoch = s.epoch + 1 FROM taken WHERE s.id = taken.id RETURNING s.id"
);

const TAKE_CALL: &str = concat!(
    "WITH taken AS MATERIALIZED (SELECT s.id FROM tasker.stack_runs s JOIN tasker.task_runs r ON r.id = s.task_run_id WHERE s.id = $4 AND ",
    ready_call!("s"),
    " AND (s.due_at IS NULL OR s.due_at <= $1) AND r.status <> 'cancelled' AND ",
    live_worker!(),
    " LIMIT $2 FOR UPDATE OF s SKIP LOCKED FOR KEY SHARE OF r SKIP LOCKED) UPDATE tasker.stack_runs s SET status = 'processing', owner = $3, with_frame = false, epoch = s.epoch + 1, attempt = s.attempt + 1, started_at = $1 FROM taken WHERE s.id = taken.id RETURNING s.id"
);

/// Runs of the root frames among $1 begin, at $2.
const BEGIN_RUNS: &str = "UPDATE tasker.task_runs r SET status = CASE WHEN r.status IN ('queued', 'suspended') THEN 'processing' ELSE r.status END, started_at = coalesce(r.started_at, $2) FROM tasker.stack_runs f WHERE f.id = ANY ($1) AND num_nulls(f.parent_id) = 1 AND r.id = f.task_run_id";

const READ: &str = concat!(
    "SELECT ",
    stack_columns!(),
    ", ",
    context_columns!(),
    ", CASE WHEN s.parent_id IS NULL THEN r.input END FROM tasker.stack_runs s JOIN tasker.task_runs r ON r.id = s.task_run_id WHERE s.id = ANY ($1) ORDER BY s.priority DESC, s.ready_at, s.id"
);

const BLOCK: &str = "UPDATE tasker.stack_runs s SET status = 'blocked', owner = NULL, outcome = NULL, blocked_reason = $2 WHERE s.id = $1 AND s.status = 'processing'";

/// A frame that is this worker's: taken again if its children or its first turn ask for it, else parked.
const RELOAD: &str = concat!(
    "UPDATE tasker.stack_runs s SET epoch = s.epoch + 1, status = CASE WHEN s.turn = 0 OR ",
    has_unread!(),
    " THEN 'processing' ELSE ",
    status_from_children!(),
    " END, owner = CASE WHEN s.turn = 0 OR ",
    has_unread!(),
    " THEN s.owner END WHERE s.id = $1 RETURNING s.owner IS NOT NULL"
);

pub(super) async fn claim_frames(
    storage: &PostgresStorage,
    claim: &Claim,
) -> Result<Vec<ClaimedFrame>, StorageError> {
    take(
        storage,
        claim,
        (TAKE_FRAMES, TAKE_FRAME),
        true,
        claimed_frame,
    )
    .await
}

pub(super) async fn claim_calls(
    storage: &PostgresStorage,
    claim: &Claim,
) -> Result<Vec<ClaimedCall>, StorageError> {
    let read = |row: &Row| {
        let call = stack_run(row)?;
        let context = context(row, STACK_COLUMNS).map_err(|error| error.in_run(call.task_run))?;
        Ok(ClaimedCall { row: call, context })
    };
    take(storage, claim, (TAKE_CALLS, TAKE_CALL), false, read).await
}

async fn take<T>(
    storage: &PostgresStorage,
    claim: &Claim,
    (many, one): (&'static str, &'static str),
    frames: bool,
    read: impl Fn(&Row) -> Result<T, StorageError> + Send,
) -> Result<Vec<T>, StorageError>
where
    T: Send,
{
    let (now, max, worker) = (
        claim.now.as_millis(),
        claim.max as i64,
        claim.worker.as_uuid(),
    );
    if max == 0 {
        return Ok(Vec::new());
    }
    let mut session = storage.session().await?;
    let workers = vec![worker];
    let only = claim.only.map(|id| id.as_uuid());
    let mut params = vec![long(&now), long(&max), uuid(&worker)];
    let sql = if let Some(only) = &only {
        params.push(uuid(only));
        one
    } else {
        many
    };
    let lock = session.step(locks::WORKERS, vec![uuids(&workers)]);
    let take = session.step(sql, params);
    let taken = session.begin(vec![lock, take]).await?.remove(1);
    if taken.is_empty() {
        session.rollback().await?;
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = taken
        .iter()
        .map(|row| get(row, 0))
        .collect::<Result<_, _>>()?;
    read_taken(storage, &mut session, &ids, now, frames, read).await
}

/// Reads what was taken, and commits. A row that cannot be read is blocked, so that only its run is affected.
async fn read_taken<T>(
    storage: &PostgresStorage,
    session: &mut Session,
    ids: &Vec<Uuid>,
    now: i64,
    frames: bool,
    read: impl Fn(&Row) -> Result<T, StorageError> + Send,
) -> Result<Vec<T>, StorageError> {
    let mut steps = Vec::new();
    if frames {
        steps.push(session.step(BEGIN_RUNS, vec![uuids(ids), long(&now)]));
    }
    steps.push(session.step(READ, vec![uuids(ids)]));
    let rows = session.commit(steps).await?.pop().unwrap_or_default();
    let mut claimed = Vec::with_capacity(rows.len());
    for row in &rows {
        match read(row) {
            Ok(taken) => claimed.push(taken),
            Err(error @ StorageError::Corrupt { .. }) => {
                let (id, run): (Uuid, Uuid) = (get(row, 0)?, get(row, 1)?);
                tracing::error!(%error, task_run = %run, "a row cannot be read; its run is blocked");
                if let Err(later) = block(storage, session, (id, run), &error, now).await {
                    // It stays with this worker, which finds it when it looks for rows that it owns and does not hold.
                    tracing::error!(error = %later, task_run = %run, "its run could not be blocked");
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(claimed)
}

async fn block(
    storage: &PostgresStorage,
    session: &mut Session,
    (id, run): (Uuid, Uuid),
    error: &StorageError,
    now: i64,
) -> Result<(), StorageError> {
    let reason = BlockedReason::Corrupt {
        what: error.to_string(),
    };
    let reason = serde_json::to_string(&reason).unwrap_or_default();
    let (runs, rows) = (vec![run], vec![id]);
    let none: Vec<Uuid> = Vec::new();
    let steps = vec![
        session.step(locks::RUNS, vec![uuids(&runs)]),
        session.step(locks::ROWS, vec![uuids(&rows), uuids(&none), uuids(&none)]),
        session.step(BLOCK, vec![uuid(&id), text(&reason)]),
    ];
    session.begin(steps).await?;
    let hints = tidy(session, &HashMap::from([(run, now)])).await?;
    session.commit(Vec::new()).await?;
    storage.hint(hints);
    Ok(())
}

fn claimed_frame(row: &Row) -> Result<ClaimedFrame, StorageError> {
    let frame = stack_run(row)?;
    let in_run = |error: StorageError| error.in_run(frame.task_run);
    let context = context(row, STACK_COLUMNS).map_err(in_run)?;
    let (task, version, input) = root_or_nested(&frame, row).map_err(in_run)?;
    Ok(ClaimedFrame {
        task: task.unwrap_or_else(|| context.task.clone()),
        version: version.unwrap_or_else(|| context.version.clone()),
        input,
        row: frame,
        context,
    })
}

/// Task and version where they are not the run's, and the input.
fn root_or_nested(
    frame: &StackRun,
    row: &Row,
) -> Result<(Option<TaskName>, Option<TaskVersion>, tasker_adaptor::Json), StorageError> {
    if frame.parent.is_none() {
        let input = parse_json(get(row, STACK_COLUMNS + 9)?, "task_runs.input")?;
        return Ok((None, None, input));
    }
    let missing = |what: &str| {
        StorageError::corrupt(
            format!("stack_runs {}, column {what}", frame.id),
            "a nested frame has none",
        )
    };
    let version = frame.version.clone().ok_or_else(|| missing("version"))?;
    let input = frame.args.clone().ok_or_else(|| missing("args"))?;
    Ok((
        Some(TaskName::new(frame.path.as_str())),
        Some(version),
        input,
    ))
}

pub(super) async fn reload(
    storage: &PostgresStorage,
    frame: StackRunId,
    worker: WorkerId,
    now: Timestamp,
) -> Result<Option<ClaimedFrame>, StorageError> {
    let mut session = storage.session().await?;
    let (id, now) = (frame.as_uuid(), now.as_millis());
    let (ids, workers, none) = (vec![id], vec![worker.as_uuid()], Vec::<Uuid>::new());
    let steps = vec![
        session.step(locks::RUNS_OF_ROWS, vec![uuids(&ids)]),
        session.step(locks::WORKERS, vec![uuids(&workers)]),
        session.step(locks::ROWS, vec![uuids(&ids), uuids(&none), uuids(&none)]),
    ];
    let answers = session.begin(steps).await?;
    let mut locked = Locked::default();
    locked.add_runs(&answers[0])?;
    locked.add_workers(&answers[1])?;
    locked.add_rows(&answers[2])?;
    let mine = locked.is_live(worker)
        && locked.rows.get(&id).is_some_and(|row| {
            row.owner == Some(worker.as_uuid()) && row.kind == tasker_adaptor::StackKind::Frame
        });
    if !mine {
        session.rollback().await?;
        return Ok(None);
    }
    let moved = session.query(RELOAD, &[uuid(&id)]).await?;
    let taken: bool = moved.first().is_some_and(|row| row.get(0));
    if !taken {
        let let_go = session.step(LET_GO, vec![uuids(&ids)]);
        let follow = session.step(FOLLOW_ROOTS, vec![uuids(&ids)]);
        session.commit(vec![let_go, follow]).await?;
        return Ok(None);
    }
    let mut claimed = read_taken(storage, &mut session, &ids, now, true, claimed_frame).await?;
    Ok(claimed.pop())
}
