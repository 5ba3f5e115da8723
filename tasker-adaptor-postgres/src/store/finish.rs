//! The end of attempts whose frame is not hot here (PROTOCOL a2: *complete call*, *retry later*).
//!
//! The parent is locked with the call, in one ordered list, and woken by the last statement: whichever of two commits
//! comes first, the frame is told.

use std::collections::HashSet;

use tasker_adaptor::{
    CallEnd, CallFinish, CommitRefused, Hint, Outcome, StackKind, StackStatus, StorageError,
    Timestamp,
};
use uuid::Uuid;

use super::locks::{self, Locked, LockedRow};
use super::status::WAKE;
use super::tidy::tidy;
use crate::PostgresStorage;
use crate::row::get;
use crate::session::{Session, long, longs, texts, uuids};

const FINISH: &str = "UPDATE tasker.stack_runs s SET status = u.status, outcome = u.outcome, blocked_reason = u.reason, owner = NULL, take_overs = CASE WHEN u.status = 'pending' THEN 0 ELSE s.take_overs END, due_at = coalesce(u.due, s.due_at), ready_at = greatest(u.due, $6), settled_at = CASE WHEN u.status IN ('completed', 'failed') THEN $6 END FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::int8[]) AS u(id, status, outcome, reason, due) WHERE s.id = u.id";

type Answer = Result<bool, CommitRefused>;

#[derive(Default)]
struct Writes {
    ids: Vec<Uuid>,
    statuses: Vec<&'static str>,
    outcomes: Vec<Option<String>>,
    reasons: Vec<Option<String>>,
    dues: Vec<Option<i64>>,
    parents: Vec<Uuid>,
    untidy: HashSet<Uuid>,
    offers_work: bool,
}

pub(super) async fn finish(
    storage: &PostgresStorage,
    finishes: &[CallFinish],
    now: Timestamp,
) -> Result<Vec<Answer>, StorageError> {
    let mut session = storage.session().await?;
    let now = now.as_millis();
    let mut locked = lock(&mut session, finishes).await?;
    if let Some(other) = finishes.iter().find(|finish| {
        locked
            .rows
            .get(&finish.call.as_uuid())
            .is_some_and(|row| row.kind != StackKind::Call)
    }) {
        session.rollback().await?;
        return Err(StorageError::Misuse {
            what: format!(
                "stack run {} is no call and cannot be finished as one",
                other.call
            ),
        });
    }
    let mut writes = Writes::default();
    let answers: Vec<Answer> = finishes
        .iter()
        .map(|finish| apply(&mut locked, finish, &mut writes))
        .collect();
    if writes.ids.is_empty() {
        session.rollback().await?;
        return Ok(answers);
    }
    let hints = write(&mut session, &writes, now).await?;
    storage.hint(hints);
    Ok(answers)
}

async fn lock(session: &mut Session, finishes: &[CallFinish]) -> Result<Locked, StorageError> {
    let calls: Vec<Uuid> = finishes
        .iter()
        .map(|finish| finish.call.as_uuid())
        .collect();
    let workers: Vec<Uuid> = finishes
        .iter()
        .map(|finish| finish.lease.worker.as_uuid())
        .collect();
    let blocks = finishes
        .iter()
        .any(|finish| matches!(finish.end, CallEnd::Blocked(_)));
    let none: Vec<Uuid> = Vec::new();
    let runs = if blocks {
        locks::RUNS_OF_ROWS
    } else {
        locks::RUNS_OF_ROWS_SHARED
    };
    let steps = vec![
        session.step(runs, vec![uuids(&calls)]),
        session.step(locks::WORKERS, vec![uuids(&workers)]),
        session.step(
            locks::ROWS,
            vec![uuids(&calls), uuids(&calls), uuids(&none)],
        ),
    ];
    let answers = session.begin(steps).await?;
    let mut locked = Locked::default();
    locked.add_runs(&answers[0])?;
    locked.add_workers(&answers[1])?;
    locked.add_rows(&answers[2])?;
    Ok(locked)
}

/// Decides one end, notes its write, and moves the locked row: a second end of the same call in the batch sees it.
fn apply(locked: &mut Locked, finish: &CallFinish, writes: &mut Writes) -> Answer {
    if !locked.is_live(finish.lease.worker) {
        return Err(CommitRefused::LeaseLost);
    }
    let id = finish.call.as_uuid();
    let call = locked.rows.get(&id).ok_or(CommitRefused::Gone)?;
    if call.epoch == finish.lease.epoch.0 as i32 && is_applied(call, &finish.end) {
        return Ok(false);
    }
    let call = locked.leased(id, finish.lease)?;
    if call.status != StackStatus::Processing {
        return Err(CommitRefused::Superseded);
    }
    let (status, outcome, reason, due) = match &finish.end {
        CallEnd::Settled(outcome) => (outcome.status(), Some(outcome.to_column()), None, None),
        CallEnd::RetryAt {
            not_before,
            failure,
        } => {
            writes.offers_work = true;
            let outcome = Outcome::Failed(failure.clone()).to_column();
            (
                StackStatus::Pending,
                Some(outcome),
                None,
                Some(not_before.as_millis()),
            )
        }
        CallEnd::Blocked(reason) => {
            // A detached call fails instead: the tidying after the write sees to it.
            writes.untidy.insert(call.run);
            let reason = serde_json::to_string(reason).unwrap_or_default();
            (StackStatus::Blocked, None, Some(reason), None)
        }
    };
    writes.ids.push(id);
    writes.statuses.push(status.as_str());
    writes.outcomes.push(outcome);
    writes.reasons.push(reason);
    writes.dues.push(due);
    writes
        .parents
        .extend(call.parent.filter(|_| status.is_settled()));
    if let Some(call) = locked.rows.get_mut(&id) {
        call.status = status;
        call.owner = None;
        call.has_outcome = status != StackStatus::Blocked;
    }
    Ok(true)
}

/// The row shows that this very end was recorded at its epoch.
fn is_applied(call: &LockedRow, end: &CallEnd) -> bool {
    match end {
        CallEnd::Settled(_) => call.status.is_settled(),
        CallEnd::RetryAt { .. } => call.status == StackStatus::Pending && call.has_outcome,
        CallEnd::Blocked(_) => matches!(call.status, StackStatus::Blocked | StackStatus::Failed),
    }
}

async fn write(
    session: &mut Session,
    writes: &Writes,
    now: i64,
) -> Result<Vec<Hint>, StorageError> {
    let times = vec![now; writes.parents.len()];
    let mut steps = vec![session.step(
        FINISH,
        vec![
            uuids(&writes.ids),
            texts(&writes.statuses),
            texts(&writes.outcomes),
            texts(&writes.reasons),
            longs(&writes.dues),
            long(&now),
        ],
    )];
    if !writes.parents.is_empty() {
        steps.push(session.step(WAKE, vec![uuids(&writes.parents), longs(&times)]));
    }
    let mut hints = Vec::new();
    let answers = if writes.untidy.is_empty() {
        session.commit(steps).await?
    } else {
        let answers = session.pipeline(steps).await?;
        let runs = writes.untidy.iter().map(|run| (*run, now)).collect();
        hints.extend(tidy(session, &runs).await?);
        session.commit(Vec::new()).await?;
        answers
    };
    let woken = answers
        .get(1)
        .is_some_and(|rows| rows.iter().any(|row| get::<Uuid>(row, 0).is_ok()));
    if woken || writes.offers_work {
        hints.push(Hint::Work);
    }
    Ok(hints)
}
