//! Timers that nobody's own wheel fires, and what is due next.

use tasker_adaptor::{Hint, StorageError, Timestamp};
use uuid::Uuid;

use super::locks::{self, Locked};
use super::status::WAKE;
use crate::PostgresStorage;
use crate::row::get;
use crate::session::{Session, long, longs, uuids};

/// Due timers of parked frames, and those that are late by the grace whoever has the frame.
const DUE: &str = "SELECT t.id FROM tasker.stack_runs t JOIN tasker.stack_runs f ON f.id = t.parent_id WHERE t.kind = 'timer' AND t.due <= $1 AND (f.owner IS NULL OR t.due <= $2) ORDER BY t.due, t.id LIMIT $3";

const FIRE: &str = "UPDATE tasker.stack_runs s SET status = 'completed', outcome = '', settled_at = $2 WHERE s.id = ANY ($1)";

/// Something that nobody owns becomes due: a retry, a run, a timer of a parked frame.
const NEXT: &str = "SELECT s.due FROM tasker.stack_runs s LEFT JOIN tasker.stack_runs f ON f.id = s.parent_id WHERE s.due IS NOT NULL AND (s.kind <> 'timer' OR f.owner IS NULL) ORDER BY s.due, s.id LIMIT 1";

pub(super) async fn fire(
    storage: &PostgresStorage,
    now: Timestamp,
    grace_ms: i64,
    max: usize,
) -> Result<usize, StorageError> {
    let mut session = storage.session().await?;
    let (time, late) = (now.as_millis(), now.plus_millis(-grace_ms).as_millis());
    let found = session
        .find(DUE, &[long(&time), long(&late), long(&(max as i64))])
        .await?;
    if found.is_empty() {
        return Ok(0);
    }
    let due: Vec<Uuid> = found
        .iter()
        .map(|row| get(row, 0))
        .collect::<Result<_, _>>()?;
    let fired = fire_these(&mut session, &due, time, late).await?;
    if fired > 0 {
        storage.hint([Hint::Work]);
    }
    Ok(fired)
}

async fn fire_these(
    session: &mut Session,
    due: &Vec<Uuid>,
    now: i64,
    late: i64,
) -> Result<usize, StorageError> {
    let none: Vec<Uuid> = Vec::new();
    let steps = vec![
        session.step(locks::RUNS_OF_ROWS_SHARED, vec![uuids(due)]),
        session.step(locks::ROWS, vec![uuids(due), uuids(due), uuids(&none)]),
        session.step(DUE_TIMES, vec![uuids(due)]),
    ];
    let answers = session.begin(steps).await?;
    let mut locked = Locked::default();
    locked.add_runs(&answers[0])?;
    locked.add_rows(&answers[1])?;
    let mut ids = Vec::new();
    let mut parents = Vec::new();
    for row in &answers[2] {
        let (id, due_at): (Uuid, i64) = (get(row, 0)?, get(row, 1)?);
        let Some(timer) = locked.rows.get(&id) else {
            continue;
        };
        let is_hot = timer
            .parent
            .and_then(|parent| locked.rows.get(&parent))
            .is_some_and(|frame| frame.owner.is_some());
        if locked.refuse_ended(timer).is_ok() && (!is_hot || due_at <= late) {
            ids.push(id);
            parents.extend(timer.parent);
        }
    }
    if ids.is_empty() {
        session.rollback().await?;
        return Ok(0);
    }
    let times = vec![now; parents.len()];
    let steps = vec![
        session.step(FIRE, vec![uuids(&ids), long(&now)]),
        session.step(WAKE, vec![uuids(&parents), longs(&times)]),
    ];
    session.commit(steps).await?;
    Ok(ids.len())
}

const DUE_TIMES: &str = "SELECT id, due_at FROM tasker.stack_runs WHERE id = ANY ($1) AND status = 'pending' AND kind = 'timer' AND due_at IS NOT NULL";

pub(super) async fn next_due(storage: &PostgresStorage) -> Result<Option<Timestamp>, StorageError> {
    let rows = storage.session().await?.query(NEXT, &[]).await?;
    rows.first()
        .map(|row| get(row, 0).map(Timestamp::from_millis))
        .transpose()
}
