//! Giving rows back: parked frames, calls that were not asked or not answered.

use tasker_adaptor::{
    CommitRefused, Hint, Lease, ReleasedCall, StackKind, StackRunId, StackStatus, StorageError,
    Timestamp,
};
use uuid::Uuid;

use super::locks::{self, Locked};
use super::status::{FOLLOW_ROOTS, LET_GO, status_from_children};
use crate::PostgresStorage;
use crate::row::get;
use crate::session::{Session, bools, long, uuids};

const PARK: &str = concat!(
    "UPDATE tasker.stack_runs s SET owner = NULL, epoch = s.epoch + 1, ready_at = CASE WHEN s.status = 'processing' THEN greatest($2, s.due_at) ELSE s.ready_at END, status = CASE WHEN s.status = 'processing' THEN ",
    status_from_children!(),
    " ELSE s.status END WHERE s.id = ANY ($1) RETURNING s.id, s.status"
);

const GIVE_BACK: &str = "UPDATE tasker.stack_runs s SET status = 'pending', owner = NULL, epoch = s.epoch + 1, in_doubt = s.in_doubt OR u.asked, attempt = CASE WHEN u.asked THEN s.attempt ELSE greatest(s.attempt - 1, 0) END, ready_at = greatest($3, s.due_at) FROM unnest($1::uuid[], $2::bool[]) AS u(id, asked) WHERE s.id = u.id";

type Answer = Result<(), CommitRefused>;

pub(super) async fn frames(
    storage: &PostgresStorage,
    frames: &[(StackRunId, Lease)],
    now: Timestamp,
) -> Result<Vec<Answer>, StorageError> {
    let mut session = storage.session().await?;
    let mut locked = lock(&mut session, locks::RUNS_OF_ROWS, frames).await?;
    let mut parked = Vec::new();
    let mut answers = Vec::new();
    for (frame, lease) in frames {
        let answer = take_back(&mut locked, *frame, *lease, StackKind::Frame);
        if answer.is_ok() {
            parked.push(frame.as_uuid());
        }
        answers.push(answer);
    }
    if parked.is_empty() {
        session.rollback().await?;
        return Ok(answers);
    }
    let now = now.as_millis();
    let steps = vec![
        session.step(PARK, vec![uuids(&parked), long(&now)]),
        session.step(LET_GO, vec![uuids(&parked)]),
        session.step(FOLLOW_ROOTS, vec![uuids(&parked)]),
    ];
    let moved = session.commit(steps).await?;
    let statuses = moved[0]
        .iter()
        .map(|row| get(row, 1))
        .collect::<Result<Vec<&str>, _>>()?;
    if statuses
        .iter()
        .any(|status| matches!(*status, "pending" | "pending_resume"))
    {
        storage.hint([Hint::Work]);
    }
    Ok(answers)
}

pub(super) async fn calls(
    storage: &PostgresStorage,
    calls: &[ReleasedCall],
    now: Timestamp,
) -> Result<Vec<Answer>, StorageError> {
    let mut session = storage.session().await?;
    let leases: Vec<_> = calls
        .iter()
        .map(|released| (released.call, released.lease))
        .collect();
    let mut locked = lock(&mut session, locks::RUNS_OF_ROWS_SHARED, &leases).await?;
    let mut ids = Vec::new();
    let mut asked = Vec::new();
    let mut answers = Vec::new();
    for released in calls {
        let answer = take_back(&mut locked, released.call, released.lease, StackKind::Call);
        if answer.is_ok() {
            ids.push(released.call.as_uuid());
            asked.push(released.asked);
        }
        answers.push(answer);
    }
    if ids.is_empty() {
        session.rollback().await?;
        return Ok(answers);
    }
    let now = now.as_millis();
    let step = session.step(GIVE_BACK, vec![uuids(&ids), bools(&asked), long(&now)]);
    session.commit(vec![step]).await?;
    storage.hint([Hint::Work]);
    Ok(answers)
}

/// Decides one release, and moves the locked row: a second release of it in the batch is refused.
fn take_back(locked: &mut Locked, id: StackRunId, lease: Lease, kind: StackKind) -> Answer {
    let row = locked.leased(id.as_uuid(), lease)?;
    if row.kind != kind || (kind == StackKind::Call && row.status != StackStatus::Processing) {
        return Err(CommitRefused::Superseded);
    }
    if let Some(row) = locked.rows.get_mut(&id.as_uuid()) {
        row.owner = None;
        row.epoch += 1;
    }
    Ok(())
}

async fn lock(
    session: &mut Session,
    runs: &'static str,
    rows: &[(StackRunId, Lease)],
) -> Result<Locked, StorageError> {
    let ids: Vec<Uuid> = rows.iter().map(|(id, _)| id.as_uuid()).collect();
    let workers: Vec<Uuid> = rows
        .iter()
        .map(|(_, lease)| lease.worker.as_uuid())
        .collect();
    let none: Vec<Uuid> = Vec::new();
    let steps = vec![
        session.step(runs, vec![uuids(&ids)]),
        session.step(locks::WORKERS, vec![uuids(&workers)]),
        session.step(locks::ROWS, vec![uuids(&ids), uuids(&none), uuids(&none)]),
    ];
    let answers = session.begin(steps).await?;
    let mut locked = Locked::default();
    locked.add_runs(&answers[0])?;
    locked.add_workers(&answers[1])?;
    locked.add_rows(&answers[2])?;
    Ok(locked)
}
