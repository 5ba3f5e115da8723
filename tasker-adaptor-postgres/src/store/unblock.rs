//! Taking blocked rows up again.

use std::collections::HashMap;

use tasker_adaptor::{Hint, Outcome, RunStatus, StackKind, StorageError, Unblock, UnblockDecision};
use uuid::Uuid;

use super::cancel::{lock_whole, not_found};
use super::locks::{Locked, ROWS};
use super::status::{CANCEL_SLEEPERS, END_RUNS, SETTLE, WAKE, status_from_children};
use super::tidy::tidy;
use crate::PostgresStorage;
use crate::row::get;
use crate::session::{Session, Step, long, longs, texts, uuid, uuids};

const BLOCKED: &str = "SELECT id FROM tasker.stack_runs WHERE task_run_id = $1 AND mark = 'blocked' AND ($2::uuid IS NULL OR id = $2) ORDER BY id";

const RETRY: &str = concat!(
    "UPDATE tasker.stack_runs s SET status = CASE WHEN s.kind = 'frame' THEN ",
    status_from_children!(),
    " ELSE 'pending' END, blocked_reason = NULL, attempt = CASE WHEN s.kind = 'frame' THEN 0 ELSE s.attempt END, in_doubt = s.kind = 'frame' AND s.in_doubt, take_overs = 0, ready_at = greatest($2, s.due_at) WHERE s.id = ANY ($1)"
);

pub(super) async fn unblock(
    storage: &PostgresStorage,
    unblock: &Unblock,
) -> Result<u32, StorageError> {
    let mut session = storage.session().await?;
    let Some(_) = lock_whole(&mut session, unblock.run).await? else {
        session.rollback().await?;
        return Err(not_found(unblock.run));
    };
    let only = unblock.row.map(|row| row.as_uuid());
    let found = session
        .query(BLOCKED, &[uuid(&unblock.run.as_uuid()), uuid(&only)])
        .await?;
    let ids: Vec<Uuid> = found
        .iter()
        .map(|row| get(row, 0))
        .collect::<Result<_, _>>()?;
    if ids.is_empty() {
        session.rollback().await?;
        return Ok(0);
    }
    let lock = session.step(ROWS, vec![uuids(&ids), uuids(&ids), uuids(&ids)]);
    let answers = session.pipeline(vec![lock]).await?;
    let mut locked = Locked::default();
    locked.add_rows(&answers[0])?;
    let now = unblock.now.as_millis();
    let mut hints = vec![Hint::Work];
    match &unblock.decision {
        UnblockDecision::Retry => {
            session.query(RETRY, &[uuids(&ids), long(&now)]).await?;
        }
        UnblockDecision::Settle(outcome) => {
            let plan = Settling::new(&locked, &ids, outcome, now);
            let steps = plan.steps(&session);
            session.pipeline(steps).await?;
            if !plan.runs.is_empty() {
                hints.push(Hint::Ended(unblock.run));
            }
        }
    }
    hints.extend(tidy(&mut session, &HashMap::from([(unblock.run.as_uuid(), now)])).await?);
    session.commit(Vec::new()).await?;
    storage.hint(hints);
    Ok(ids.len() as u32)
}

/// Rows that settle with an outcome known from elsewhere; a frame ends with it, and the run with its root.
struct Settling {
    ids: Vec<Uuid>,
    statuses: Vec<&'static str>,
    outcomes: Vec<String>,
    times: Vec<i64>,
    frames: Vec<Uuid>,
    frame_times: Vec<i64>,
    parents: Vec<Uuid>,
    parent_times: Vec<i64>,
    runs: Vec<Uuid>,
    run_statuses: Vec<&'static str>,
    run_outcomes: Vec<String>,
    run_times: Vec<i64>,
}

impl Settling {
    fn new(locked: &Locked, ids: &[Uuid], outcome: &Outcome, now: i64) -> Self {
        let rows: Vec<_> = ids.iter().filter_map(|id| locked.rows.get(id)).collect();
        let frames: Vec<Uuid> = rows
            .iter()
            .filter(|row| row.kind == StackKind::Frame)
            .map(|row| row.id)
            .collect();
        let parents: Vec<Uuid> = rows.iter().filter_map(|row| row.parent).collect();
        let runs: Vec<Uuid> = rows
            .iter()
            .filter(|row| row.parent.is_none())
            .map(|row| row.run)
            .collect();
        let run_status = match outcome {
            Outcome::Completed(_) => RunStatus::Completed,
            Outcome::Failed(_) => RunStatus::Failed,
        };
        Self {
            ids: ids.to_vec(),
            statuses: vec![outcome.status().as_str(); ids.len()],
            outcomes: vec![outcome.to_column(); ids.len()],
            times: vec![now; ids.len()],
            frame_times: vec![now; frames.len()],
            frames,
            parent_times: vec![now; parents.len()],
            parents,
            run_statuses: vec![run_status.as_str(); runs.len()],
            run_outcomes: vec![outcome.to_column(); runs.len()],
            run_times: vec![now; runs.len()],
            runs,
        }
    }

    fn steps(&self, session: &Session) -> Vec<Step<'_>> {
        vec![
            session.step(
                SETTLE,
                vec![
                    uuids(&self.ids),
                    texts(&self.statuses),
                    texts(&self.outcomes),
                    longs(&self.times),
                ],
            ),
            session.step(
                CANCEL_SLEEPERS,
                vec![uuids(&self.frames), longs(&self.frame_times)],
            ),
            session.step(
                END_RUNS,
                vec![
                    uuids(&self.runs),
                    texts(&self.run_statuses),
                    texts(&self.run_outcomes),
                    longs(&self.run_times),
                ],
            ),
            session.step(WAKE, vec![uuids(&self.parents), longs(&self.parent_times)]),
        ]
    }
}
