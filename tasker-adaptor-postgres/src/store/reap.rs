//! Declaring workers dead, and freeing what they own.
//!
//! The death is one short transaction that takes the worker's row `FOR UPDATE`: it waits for the commits that hold the row
//! `FOR KEY SHARE`, so a row born claimed is either seen by the freeing after it, or its commit finds the worker dead.
//! Rows follow in chunks, by the row's own owner: a chunk that never came is found by the next reap of anybody.

use tasker_adaptor::{
    Hint, LEASE_HORIZON_MS, Reaped, StackKind, StorageError, Timestamp, WorkerId,
};
use uuid::Uuid;

use super::locks::{self, Locked, LockedRow};
use super::status::{FOLLOW_ROOTS, LET_GO, status_from_children};
use crate::PostgresStorage;
use crate::row::get;
use crate::session::{Session, long, uuid, uuids};

/// Rows of a retired worker that are freed in one transaction.
const CHUNK: usize = 500;

/// Workers whose lease has ended, or lies so far ahead that it was taken by a clock that has been set back since.
const EXPIRED: &str = "SELECT id FROM tasker.workers WHERE state = 'live' AND (expires_at < $2 OR expires_at > $2 + $3) AND id <> $1 LIMIT 1";
const LOCK: &str = "SELECT id FROM tasker.workers WHERE state = 'live' AND (expires_at < $2 OR expires_at > $2 + $3) AND id <> $1 ORDER BY id FOR UPDATE";
const LOCK_ONE: &str = "SELECT id FROM tasker.workers WHERE id = $1 FOR UPDATE";
const BURY: &str = "UPDATE tasker.workers SET state = 'dead' WHERE id = ANY ($1)";
const IS_LIVE: &str = "SELECT 1 FROM tasker.workers WHERE id = $1 AND state = 'live'";

/// The `rows` that a worker holds and the calls that are found through frames among them, at most $1. A call that is cut off here
/// is let go when its frame is freed, and found by itself the next time.
macro_rules! held_with_frames {
    () => {
        "(SELECT id FROM rows UNION ALL SELECT c.id FROM rows CROSS JOIN LATERAL (SELECT s.id FROM tasker.stack_runs s WHERE s.task_run_id = rows.task_run_id AND s.parent_id = rows.id AND s.with_frame AND s.owner IS NOT NULL OFFSET 0) c WHERE rows.kind = 'frame') LIMIT $1"
    };
}

/// Rows whose owner is not live: owners are found by skipping from one to the next, so the rows of the living cost nothing.
const ORPHANS: &str = concat!(
    "WITH RECURSIVE owners AS ((SELECT held FROM tasker.stack_runs WHERE held IS NOT NULL ORDER BY held LIMIT 1) UNION ALL SELECT (SELECT s.held FROM tasker.stack_runs s WHERE s.held > owners.held ORDER BY s.held LIMIT 1) FROM owners WHERE owners.held IS NOT NULL), rows AS MATERIALIZED (SELECT o.* FROM (SELECT held FROM owners WHERE held IS NOT NULL AND NOT EXISTS (SELECT 1 FROM tasker.workers w WHERE w.id = owners.held AND w.state = 'live')) d CROSS JOIN LATERAL (SELECT s.id, s.kind, s.task_run_id FROM tasker.stack_runs s WHERE s.held = d.held LIMIT $1) o LIMIT $1) ",
    held_with_frames!()
);
const ROWS_OF: &str = concat!(
    "WITH rows AS MATERIALIZED (SELECT id, kind, task_run_id FROM tasker.stack_runs WHERE held = $2 LIMIT $1) ",
    held_with_frames!()
);

const FREE_FRAMES: &str = concat!(
    "UPDATE tasker.stack_runs s SET owner = NULL, epoch = s.epoch + 1, attempt = s.attempt + 1, in_doubt = true, ready_at = CASE WHEN s.status = 'pending_resume' THEN s.ready_at ELSE greatest($2, s.due_at) END, status = CASE WHEN s.status = 'blocked' THEN s.status ELSE ",
    status_from_children!(),
    " END WHERE s.id = ANY ($1)"
);
const FREE_CALLS: &str = "UPDATE tasker.stack_runs s SET status = 'pending', owner = NULL, epoch = s.epoch + 1, in_doubt = true, take_overs = s.take_overs + $3, ready_at = greatest($2, s.due_at) WHERE s.id = ANY ($1)";

pub(super) async fn reap(
    storage: &PostgresStorage,
    by: WorkerId,
    now: Timestamp,
    max: usize,
) -> Result<Reaped, StorageError> {
    let mut reaped = Reaped::default();
    let time = now.as_millis();
    let mut session = storage.session().await?;
    let id = by.as_uuid();
    let live = session.step(IS_LIVE, vec![uuid(&id)]);
    let expired = session.step(
        EXPIRED,
        vec![uuid(&id), long(&time), long(&LEASE_HORIZON_MS)],
    );
    let answers = session.pipeline(vec![live, expired]).await?;
    drop(session);
    if answers[0].is_empty() {
        return Ok(reaped);
    }
    if !answers[1].is_empty() {
        let Some(dead) = storage.retrying(|| bury_expired(storage, id, time)).await? else {
            return Ok(reaped);
        };
        reaped.workers = dead.into_iter().map(WorkerId::from_uuid).collect();
    }
    let limit = (max as i64).saturating_add(1);
    let rows = storage
        .session()
        .await?
        .query(ORPHANS, &[long(&limit)])
        .await?;
    let mut orphans: Vec<Uuid> = rows
        .iter()
        .map(|row| get(row, 0))
        .collect::<Result<_, _>>()?;
    reaped.more = orphans.len() > max;
    orphans.truncate(max);
    let freed = storage
        .retrying(|| free(storage, &orphans, 1, time))
        .await?;
    (reaped.frames, reaped.calls) = freed;
    Ok(reaped)
}

/// The workers whose lease has ended die; `None` when the one who reaps is dead itself.
///
/// The one who reaps is only kept alive meanwhile: while it waits for a commit of an expired worker, its own heartbeat and
/// commits go on. Two that want to bury each other are a deadlock, which the server ends and `retrying` tries again.
async fn bury_expired(
    storage: &PostgresStorage,
    by: Uuid,
    now: i64,
) -> Result<Option<Vec<Uuid>>, StorageError> {
    let mut session = storage.session().await?;
    let own = vec![by];
    let keep = session.step(locks::WORKERS, vec![uuids(&own)]);
    let lock = session.step(LOCK, vec![uuid(&by), long(&now), long(&LEASE_HORIZON_MS)]);
    let found = session.begin(vec![keep, lock]).await?;
    let is_live = !found[0].is_empty();
    let dead: Vec<Uuid> = found[1]
        .iter()
        .map(|row| get(row, 0))
        .collect::<Result<_, _>>()?;
    if !is_live || dead.is_empty() {
        session.rollback().await?;
        return Ok(is_live.then(Vec::new));
    }
    let bury = session.step(BURY, vec![uuids(&dead)]);
    session.commit(vec![bury]).await?;
    Ok(Some(dead))
}

pub(super) async fn retire(
    storage: &PostgresStorage,
    worker: WorkerId,
    now: Timestamp,
) -> Result<(), StorageError> {
    let id = worker.as_uuid();
    storage.retrying(|| bury_one(storage, id)).await?;
    loop {
        let rows = storage
            .session()
            .await?
            .query(ROWS_OF, &[long(&(CHUNK as i64)), uuid(&id)])
            .await?;
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = rows
            .iter()
            .map(|row| get(row, 0))
            .collect::<Result<_, _>>()?;
        storage
            .retrying(|| free(storage, &ids, 0, now.as_millis()))
            .await?;
    }
}

async fn bury_one(storage: &PostgresStorage, worker: Uuid) -> Result<(), StorageError> {
    let mut session: Session = storage.session().await?;
    let ids = vec![worker];
    let lock = session.step(LOCK_ONE, vec![uuid(&worker)]);
    session.begin(vec![lock]).await?;
    let bury = session.step(BURY, vec![uuids(&ids)]);
    session.commit(vec![bury]).await?;
    Ok(())
}

/// Frees those of these rows whose owner is dead; how many frames and calls. A call counts so many `deaths` more: a worker that
/// retired did not die of it.
async fn free(
    storage: &PostgresStorage,
    orphans: &Vec<Uuid>,
    deaths: i64,
    now: i64,
) -> Result<(usize, usize), StorageError> {
    if orphans.is_empty() {
        return Ok((0, 0));
    }
    let mut session = storage.session().await?;
    let none: Vec<Uuid> = Vec::new();
    let steps = vec![
        session.step(locks::RUNS_OF_ROWS, vec![uuids(orphans)]),
        session.step(
            locks::ROWS,
            vec![uuids(orphans), uuids(&none), uuids(&none)],
        ),
    ];
    let answers = session.begin(steps).await?;
    let mut locked = Locked::default();
    locked.add_rows(&answers[1])?;
    // An owner that is live took the row between the look and the lock.
    let owners: Vec<Uuid> = locked.rows.values().filter_map(|row| row.owner).collect();
    let live = session.query(locks::WORKERS, &[uuids(&owners)]).await?;
    locked.add_workers(&live)?;
    let orphaned = |row: &&LockedRow| row.owner.is_some_and(|owner| !locked.live.contains(&owner));
    let (frames, calls): (Vec<&LockedRow>, Vec<&LockedRow>) = locked
        .rows
        .values()
        .filter(orphaned)
        .partition(|row| row.kind == StackKind::Frame);
    let frames: Vec<Uuid> = frames.into_iter().map(|row| row.id).collect();
    let calls: Vec<Uuid> = calls.into_iter().map(|row| row.id).collect();
    if frames.is_empty() && calls.is_empty() {
        session.rollback().await?;
        return Ok((0, 0));
    }
    let steps = vec![
        session.step(FREE_FRAMES, vec![uuids(&frames), long(&now)]),
        session.step(FREE_CALLS, vec![uuids(&calls), long(&now), long(&deaths)]),
        session.step(LET_GO, vec![uuids(&frames)]),
        session.step(FOLLOW_ROOTS, vec![uuids(&frames)]),
    ];
    session.commit(steps).await?;
    storage.hint([Hint::Work]);
    Ok((frames.len(), calls.len()))
}
