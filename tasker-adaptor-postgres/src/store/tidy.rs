//! After something in blocked runs changed: what is blocked and detached fails, and each run says whether a person is needed.
//!
//! Off the hot path: called only for runs that are blocked or become so, under the locks of the runs; for all of a batch at once.

use std::collections::HashMap;

use tasker_adaptor::{BlockedReason, Failure, Hint, Outcome, StackKind, StorageError, TaskRunId};
use uuid::Uuid;

use super::locks::{Locked, ROWS};
use super::status::{CANCEL_SLEEPERS, SETTLE, WAKE};
use crate::row::get;
use crate::session::{Session, longs, texts, uuids};

/// Blocked rows below an ended frame: no person can help what nobody waits for. Step by step (`OFFSET 0`): as a join a plan that was
/// made on small tables would read all rows.
const DETACHED: &str = "WITH RECURSIVE up AS (SELECT b.id, b.parent_id FROM tasker.stack_runs b WHERE b.task_run_id = ANY ($1) AND b.mark = 'blocked' UNION ALL SELECT up.id, p.parent_id FROM up CROSS JOIN LATERAL (SELECT f.parent_id, f.status FROM tasker.stack_runs f WHERE f.id = up.parent_id OFFSET 0) p WHERE p.status NOT IN ('completed', 'failed', 'cancelled')) SELECT DISTINCT s.id, s.kind, s.blocked_reason, s.parent_id, s.task_run_id FROM up CROSS JOIN LATERAL (SELECT f.status FROM tasker.stack_runs f WHERE f.id = up.parent_id OFFSET 0) p CROSS JOIN LATERAL (SELECT d.id, d.kind, d.blocked_reason, d.parent_id, d.task_run_id FROM tasker.stack_runs d WHERE d.id = up.id OFFSET 0) s WHERE p.status IN ('completed', 'failed', 'cancelled')";

const REASONS: &str = "SELECT task_run_id, blocked_reason FROM tasker.stack_runs WHERE task_run_id = ANY ($1) AND mark = 'blocked' ORDER BY task_run_id, id";
const RUNS: &str = "SELECT id, status, blocked_reason FROM tasker.task_runs WHERE id = ANY ($1) AND status IN ('queued', 'processing', 'suspended', 'blocked') ORDER BY id FOR NO KEY UPDATE";
const BLOCK_RUNS: &str = "UPDATE tasker.task_runs r SET status = 'blocked', blocked_reason = u.reason FROM unnest($1::uuid[], $2::text[]) AS u(id, reason) WHERE r.id = u.id";
const FREE_RUNS: &str = "UPDATE tasker.task_runs r SET blocked_reason = NULL, status = coalesce((SELECT CASE WHEN f.owner IS NOT NULL THEN 'processing' WHEN f.turn > 0 THEN 'suspended' END FROM tasker.stack_runs f WHERE f.task_run_id = r.id AND f.parent_id IS NULL), 'queued') WHERE r.id = ANY ($1) AND r.status = 'blocked'";

/// A frame below a frame below a frame …: deeper than any nesting limit.
const LEVELS: usize = 10_000;

/// What a row fails with that would be blocked if somebody waited for it.
pub(super) fn blocked_failure(reason: &BlockedReason) -> Failure {
    Failure::new("BlockedError", reason.to_string())
}

/// Brings rows and runs in step, each at its time; answers the hints of it.
pub(super) async fn tidy(
    session: &mut Session,
    runs: &HashMap<Uuid, i64>,
) -> Result<Vec<Hint>, StorageError> {
    let mut hints = Vec::new();
    for _ in 0..LEVELS {
        if !fail_detached(session, runs).await? {
            break;
        }
        hints.push(Hint::Work);
    }
    hints.extend(refresh(session, runs).await?);
    Ok(hints)
}

/// Fails the blocked rows that are detached; whether there were any. An ended frame may detach others.
async fn fail_detached(
    session: &mut Session,
    runs: &HashMap<Uuid, i64>,
) -> Result<bool, StorageError> {
    let run_ids: Vec<Uuid> = runs.keys().copied().collect();
    let found = session.query(DETACHED, &[uuids(&run_ids)]).await?;
    if found.is_empty() {
        return Ok(false);
    }
    let mut ids: Vec<Uuid> = Vec::new();
    let mut outcomes = Vec::new();
    let mut times: Vec<i64> = Vec::new();
    let (mut frames, mut frame_times) = (Vec::<Uuid>::new(), Vec::<i64>::new());
    let (mut parents, mut parent_times) = (Vec::<Uuid>::new(), Vec::<i64>::new());
    for row in &found {
        let id = get(row, 0)?;
        let reason = get::<Option<&str>>(row, 2)?
            .and_then(|reason| serde_json::from_str(reason).ok())
            .unwrap_or_else(|| BlockedReason::Corrupt {
                what: format!("stack_runs {id}, column blocked_reason"),
            });
        let time = runs.get(&get(row, 4)?).copied().unwrap_or_default();
        ids.push(id);
        times.push(time);
        outcomes.push(Outcome::Failed(blocked_failure(&reason)).to_column());
        if get::<&str>(row, 1)? == StackKind::Frame.as_str() {
            frames.push(id);
            frame_times.push(time);
        }
        if let Some(parent) = get(row, 3)? {
            parents.push(parent);
            parent_times.push(time);
        }
    }
    let failed = vec!["failed"; ids.len()];
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

/// Makes each run say whether one of its rows needs a person.
async fn refresh(
    session: &mut Session,
    runs: &HashMap<Uuid, i64>,
) -> Result<Vec<Hint>, StorageError> {
    let ids: Vec<Uuid> = runs.keys().copied().collect();
    let states = session.step(RUNS, vec![uuids(&ids)]);
    let rows = session.step(REASONS, vec![uuids(&ids)]);
    let found = session.pipeline(vec![states, rows]).await?;
    let mut reasons: HashMap<Uuid, Vec<Option<&str>>> = HashMap::new();
    for row in &found[1] {
        reasons.entry(get(row, 0)?).or_default().push(get(row, 1)?);
    }
    let (mut blocked, mut free) = (Vec::<Uuid>::new(), Vec::<Uuid>::new());
    let mut firsts: Vec<Option<&str>> = Vec::new();
    let mut hints = Vec::new();
    for row in &found[0] {
        let (id, status, known): (Uuid, &str, Option<&str>) =
            (get(row, 0)?, get(row, 1)?, get(row, 2)?);
        let Some(reasons) = reasons.get(&id) else {
            free.push(id);
            continue;
        };
        if status != "blocked" {
            hints.push(Hint::Ended(TaskRunId::from_uuid(id)));
        }
        if status != "blocked" || !reasons.contains(&known) {
            blocked.push(id);
            firsts.push(reasons[0]);
        }
    }
    let block = session.step(BLOCK_RUNS, vec![uuids(&blocked), texts(&firsts)]);
    let free = session.step(FREE_RUNS, vec![uuids(&free)]);
    session.pipeline(vec![block, free]).await?;
    Ok(hints)
}
