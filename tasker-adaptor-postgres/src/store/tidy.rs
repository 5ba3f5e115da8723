//! After something in a blocked run changed: what is blocked and detached fails, and the run says whether a person is needed.
//!
//! Off the hot path: called only for runs that are blocked or become so, under the lock of the run.

use tasker_adaptor::{BlockedReason, Failure, Hint, Outcome, StackKind, StorageError, TaskRunId};
use uuid::Uuid;

use super::locks::{Locked, ROWS};
use super::status::{CANCEL_SLEEPERS, SETTLE, WAKE};
use crate::row::get;
use crate::session::{Session, longs, text, texts, uuid, uuids};

/// Blocked rows below an ended frame: no person can help what nobody waits for. Step by step (`OFFSET 0`): as a join a plan that was
/// made on small tables would read all rows.
const DETACHED: &str = "WITH RECURSIVE up AS (SELECT b.id, b.parent_id FROM tasker.stack_runs b WHERE b.task_run_id = $1 AND b.mark = 'blocked' UNION ALL SELECT up.id, p.parent_id FROM up CROSS JOIN LATERAL (SELECT f.parent_id, f.status FROM tasker.stack_runs f WHERE f.id = up.parent_id OFFSET 0) p WHERE p.status NOT IN ('completed', 'failed', 'cancelled')) SELECT DISTINCT s.id, s.kind, s.blocked_reason, s.parent_id FROM up CROSS JOIN LATERAL (SELECT f.status FROM tasker.stack_runs f WHERE f.id = up.parent_id OFFSET 0) p CROSS JOIN LATERAL (SELECT d.id, d.kind, d.blocked_reason, d.parent_id FROM tasker.stack_runs d WHERE d.id = up.id OFFSET 0) s WHERE p.status IN ('completed', 'failed', 'cancelled')";

const REASONS: &str = "SELECT blocked_reason FROM tasker.stack_runs WHERE task_run_id = $1 AND mark = 'blocked' ORDER BY id";
const RUN: &str =
    "SELECT status, blocked_reason FROM tasker.task_runs WHERE id = $1 FOR NO KEY UPDATE";
const BLOCK_RUN: &str =
    "UPDATE tasker.task_runs SET status = 'blocked', blocked_reason = $2 WHERE id = $1";
const FREE_RUN: &str = "UPDATE tasker.task_runs r SET blocked_reason = NULL, status = coalesce((SELECT CASE WHEN f.owner IS NOT NULL THEN 'processing' WHEN f.turn > 0 THEN 'suspended' END FROM tasker.stack_runs f WHERE f.task_run_id = r.id AND f.parent_id IS NULL), 'queued') WHERE r.id = $1 AND r.status = 'blocked'";

/// A frame below a frame below a frame …: deeper than any nesting limit.
const LEVELS: usize = 10_000;

/// What a row fails with that would be blocked if somebody waited for it.
pub(super) fn blocked_failure(reason: &BlockedReason) -> Failure {
    Failure::new("BlockedError", reason.to_string())
}

/// Brings rows and run in step; answers the hints of it.
pub(super) async fn tidy(
    session: &mut Session,
    run: Uuid,
    now: i64,
) -> Result<Vec<Hint>, StorageError> {
    let mut hints = Vec::new();
    for _ in 0..LEVELS {
        if !fail_detached(session, run, now).await? {
            break;
        }
        hints.push(Hint::Work);
    }
    hints.extend(refresh(session, run).await?);
    Ok(hints)
}

/// Fails the blocked rows that are detached; whether there were any. An ended frame may detach others.
async fn fail_detached(session: &mut Session, run: Uuid, now: i64) -> Result<bool, StorageError> {
    let found = session.query(DETACHED, &[uuid(&run)]).await?;
    if found.is_empty() {
        return Ok(false);
    }
    let mut ids: Vec<Uuid> = Vec::new();
    let mut outcomes = Vec::new();
    let mut frames: Vec<Uuid> = Vec::new();
    let mut parents: Vec<Uuid> = Vec::new();
    for row in &found {
        let id = get(row, 0)?;
        let reason = get::<Option<&str>>(row, 2)?
            .and_then(|reason| serde_json::from_str(reason).ok())
            .unwrap_or_else(|| BlockedReason::Corrupt {
                what: format!("stack_runs {id}, column blocked_reason"),
            });
        ids.push(id);
        outcomes.push(Outcome::Failed(blocked_failure(&reason)).to_column());
        if get::<&str>(row, 1)? == StackKind::Frame.as_str() {
            frames.push(id);
        }
        parents.extend(get::<Option<Uuid>>(row, 3)?);
    }
    let failed = vec!["failed"; ids.len()];
    let (times, frame_times, parent_times) = (
        vec![now; ids.len()],
        vec![now; frames.len()],
        vec![now; parents.len()],
    );
    let lock = session.step(ROWS, vec![uuids(&ids), uuids(&ids), uuids(&frames)]);
    let locked = session.pipeline(vec![lock]).await?;
    let mut rows = Locked::default();
    rows.add_rows(&locked[0])?;
    let settle = session.step(
        SETTLE,
        vec![uuids(&ids), texts(&failed), texts(&outcomes), longs(&times)],
    );
    let sleepers = session.step(CANCEL_SLEEPERS, vec![uuids(&frames), longs(&frame_times)]);
    let wake = session.step(WAKE, vec![uuids(&parents), longs(&parent_times)]);
    session.pipeline(vec![settle, sleepers, wake]).await?;
    Ok(true)
}

/// Makes the run say whether one of its rows needs a person.
async fn refresh(session: &mut Session, run: Uuid) -> Result<Option<Hint>, StorageError> {
    let state = session.step(RUN, vec![uuid(&run)]);
    let rows = session.step(REASONS, vec![uuid(&run)]);
    let found = session.pipeline(vec![state, rows]).await?;
    let Some(state) = found[0].first() else {
        return Ok(None);
    };
    let status: &str = get(state, 0)?;
    if !matches!(status, "queued" | "processing" | "suspended" | "blocked") {
        return Ok(None);
    }
    let reasons = found[1]
        .iter()
        .map(|row| get(row, 0))
        .collect::<Result<Vec<Option<&str>>, _>>()?;
    let Some(first) = reasons.first() else {
        session.query(FREE_RUN, &[uuid(&run)]).await?;
        return Ok(None);
    };
    let known: Option<&str> = get(state, 1)?;
    if status != "blocked" || !reasons.contains(&known) {
        session.query(BLOCK_RUN, &[uuid(&run), text(first)]).await?;
    }
    Ok((status != "blocked").then(|| Hint::Ended(TaskRunId::from_uuid(run))))
}
