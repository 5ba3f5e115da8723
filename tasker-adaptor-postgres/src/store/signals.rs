//! Signals: values sent to a run from outside.

use async_trait::async_trait;
use tasker_adaptor::{Hint, NewSignal, Signals, StorageError, Timestamp};
use uuid::Uuid;

use super::cancel::{lock_whole, not_found};
use super::locks::ROWS;
use super::status::{SETTLE, WAKE};
use crate::PostgresStorage;
use crate::row::get;
use crate::session::{Session, long, longs, text, texts, uuid, uuids};
use crate::text as plain;

const KNOWN: &str = "SELECT 1 FROM tasker.signals WHERE id = $1";
const WAIT: &str = "SELECT id, parent_id FROM tasker.stack_runs WHERE task_run_id = $1 AND kind = 'signal' AND mark = 'asleep' AND path = $2 ORDER BY created_at, id LIMIT 1";
const KEEP: &str = "INSERT INTO tasker.signals (id, task_run_id, name, payload, consumed_by, created_at) VALUES ($1, $2, $3, $4, $5, $6)";

#[async_trait]
impl Signals for PostgresStorage {
    async fn send_signal(&self, signal: NewSignal, now: Timestamp) -> Result<bool, StorageError> {
        self.retrying(|| send(self, &signal, now.as_millis())).await
    }
}

async fn send(
    storage: &PostgresStorage,
    signal: &NewSignal,
    now: i64,
) -> Result<bool, StorageError> {
    let mut session = storage.session().await?;
    let Some(status) = lock_whole(&mut session, signal.run).await? else {
        session.rollback().await?;
        return Err(not_found(signal.run));
    };
    let name = plain::to_column(&signal.name);
    let run = signal.run.as_uuid();
    let known = session.step(KNOWN, vec![uuid(&signal.id)]);
    let wait = session.step(WAIT, vec![uuid(&run), text(&name)]);
    let answers = session.pipeline(vec![known, wait]).await?;
    if !answers[0].is_empty() || status.is_terminal() {
        session.rollback().await?;
        return Ok(!answers[0].is_empty());
    }
    let wait: Option<Uuid> = answers[1].first().map(|row| get(row, 0)).transpose()?;
    let parent: Option<Uuid> = answers[1]
        .first()
        .map(|row| get(row, 1))
        .transpose()?
        .flatten();
    let payload = signal.payload.text();
    let keep = session.step(
        KEEP,
        vec![
            uuid(&signal.id),
            uuid(&run),
            text(&name),
            text(&payload),
            uuid(&wait),
            long(&now),
        ],
    );
    let Some(wait) = wait else {
        session.commit(vec![keep]).await?;
        return Ok(true);
    };
    session.pipeline(vec![keep]).await?;
    let woken = settle(&mut session, wait, parent, payload, now).await?;
    if woken {
        storage.hint([Hint::Work]);
    }
    Ok(true)
}

/// The run is locked whole, so the wait is still open; its frame is locked with it for the wake.
async fn settle(
    session: &mut Session,
    wait: Uuid,
    parent: Option<Uuid>,
    payload: &str,
    now: i64,
) -> Result<bool, StorageError> {
    let (ids, none) = (vec![wait], Vec::<Uuid>::new());
    let (statuses, outcomes, times) = (vec!["completed"], vec![payload], vec![now]);
    let parents: Vec<Uuid> = parent.into_iter().collect();
    let parent_times = vec![now; parents.len()];
    let steps = vec![
        session.step(ROWS, vec![uuids(&ids), uuids(&ids), uuids(&none)]),
        session.step(
            SETTLE,
            vec![
                uuids(&ids),
                texts(&statuses),
                texts(&outcomes),
                longs(&times),
            ],
        ),
        session.step(WAKE, vec![uuids(&parents), longs(&parent_times)]),
    ];
    let answers = session.commit(steps).await?;
    Ok(!answers[2].is_empty())
}
