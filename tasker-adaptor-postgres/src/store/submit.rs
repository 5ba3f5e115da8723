//! Submitting runs: all of a batch by one statement, those that were known read by another.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tasker_adaptor::{NewTaskRun, StorageError, Submitted, TaskRunId, Timestamp};
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use crate::error::{BACKEND, from_driver, is_duplicate};
use crate::row::get;
use crate::schema::Schema;
use crate::session::{Param, Session, ints, longs, texts, uuids};
use crate::text;

const INSERT: &str = "WITH new AS (INSERT INTO tasker.task_runs (id, task, version, status, input, idempotency_key, request_hash, priority, run_at, deadline, labels, correlation_id, traceparent, created_at) SELECT u.id, u.task, u.version, 'queued', u.input, u.key, u.hash, u.priority, u.run_at, u.deadline, u.labels::jsonb, u.correlation, u.trace, u.now FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int4[], $8::int8[], $9::int8[], $10::text[], $11::text[], $12::text[], $13::int8[]) AS u(id, task, version, input, key, hash, priority, run_at, deadline, labels, correlation, trace, now) ORDER BY u.id ON CONFLICT DO NOTHING RETURNING id, task, priority, run_at, created_at), roots AS (INSERT INTO tasker.stack_runs (id, task_run_id, kind, seq, depth, status, due_at, ready_at, priority, service, path, created_at) SELECT u.root, new.id, 'frame', 0, 0, 'pending', new.run_at, greatest(new.run_at, new.created_at), new.priority, 'task', new.task, new.created_at FROM new JOIN unnest($1::uuid[], $14::uuid[]) AS u(id, root) ON u.id = new.id RETURNING task_run_id) SELECT id FROM new";

const KNOWN: &str = "SELECT id, idempotency_key, request_hash FROM tasker.task_runs WHERE id = ANY ($1) UNION ALL SELECT id, idempotency_key, request_hash FROM tasker.task_runs WHERE idempotency_key IS NOT NULL AND idempotency_key = ANY ($2)";

/// Rounds of insert and read: a second is needed only when a known run was deleted between the two.
const ROUNDS: usize = 4;

/// What the statements run on.
enum Link<'a, 'b> {
    Session(&'a mut Session),
    Transaction(&'a Transaction<'b>, &'a Arc<Schema>),
}

impl Link<'_, '_> {
    async fn query(
        &mut self,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StorageError> {
        match self {
            Self::Session(session) => session.query(sql, params).await,
            Self::Transaction(transaction, schema) => transaction
                .query_typed(&schema.sql(sql), params)
                .await
                .map_err(from_driver),
        }
    }
}

pub(super) type Answers = Vec<Result<Submitted, StorageError>>;

/// A run, and when it was asked for.
pub(super) type Asked<'a> = (&'a NewTaskRun, Timestamp);

pub(super) async fn submit(
    session: &mut Session,
    runs: &[Asked<'_>],
) -> Result<Answers, StorageError> {
    run(&mut Link::Session(session), runs).await
}

pub(crate) async fn submit_in(
    transaction: &Transaction<'_>,
    schema: &Arc<Schema>,
    runs: &[NewTaskRun],
    now: Timestamp,
) -> Result<Answers, StorageError> {
    let asked: Vec<Asked<'_>> = runs.iter().map(|run| (run, now)).collect();
    run(&mut Link::Transaction(transaction, schema), &asked).await
}

async fn run(link: &mut Link<'_, '_>, runs: &[Asked<'_>]) -> Result<Answers, StorageError> {
    let mut answers: Vec<Option<Result<Submitted, StorageError>>> =
        runs.iter().map(|_| None).collect();
    for _ in 0..ROUNDS {
        let open: Vec<usize> = (0..runs.len())
            .filter(|at| answers[*at].is_none())
            .collect();
        if open.is_empty() {
            break;
        }
        let mut seen = HashSet::new();
        let first: Vec<Asked<'_>> = open
            .iter()
            .map(|at| runs[*at])
            .filter(|(run, _)| seen.insert(run.id))
            .collect();
        let mut created = insert(link, &first).await?;
        for at in &open {
            let id = runs[*at].0.id;
            if created.remove(&id.as_uuid()) {
                answers[*at] = Some(Ok(Submitted { id, created: true }));
            }
        }
        let rest: Vec<usize> = open
            .into_iter()
            .filter(|at| answers[*at].is_none())
            .collect();
        if !rest.is_empty() {
            find(link, runs, &rest, &mut answers).await?;
        }
    }
    Ok(answers
        .into_iter()
        .map(|answer| {
            answer.unwrap_or_else(|| {
                Err(StorageError::Backend {
                    backend: BACKEND,
                    message: "a run with this id or key comes and goes; send the request again"
                        .to_owned(),
                    retryable: true,
                    source: None,
                })
            })
        })
        .collect())
}

async fn insert(
    link: &mut Link<'_, '_>,
    asked: &[Asked<'_>],
) -> Result<HashSet<Uuid>, StorageError> {
    let runs: Vec<&NewTaskRun> = asked.iter().map(|(run, _)| *run).collect();
    let ids: Vec<Uuid> = runs.iter().map(|run| run.id.as_uuid()).collect();
    let roots: Vec<Uuid> = runs.iter().map(|run| run.root.as_uuid()).collect();
    let tasks: Vec<&str> = runs.iter().map(|run| run.task.as_str()).collect();
    let versions: Vec<&str> = runs.iter().map(|run| run.version.as_str()).collect();
    let inputs: Vec<&str> = runs.iter().map(|run| run.input.text()).collect();
    let keys: Vec<_> = runs
        .iter()
        .map(|run| column(run.idempotency_key.as_ref()))
        .collect();
    let hashes: Vec<_> = runs
        .iter()
        .map(|run| text::to_column(&run.request_hash))
        .collect();
    let priorities: Vec<i32> = runs.iter().map(|run| run.priority).collect();
    let run_ats: Vec<i64> = runs.iter().map(|run| run.run_at.as_millis()).collect();
    let deadlines: Vec<Option<i64>> = runs
        .iter()
        .map(|run| run.deadline.map(Timestamp::as_millis))
        .collect();
    let labels: Vec<String> = runs.iter().map(|run| labels_column(&run.labels)).collect();
    let correlations: Vec<_> = runs
        .iter()
        .map(|run| column(run.correlation_id.as_ref()))
        .collect();
    let traces: Vec<_> = runs
        .iter()
        .map(|run| column(run.traceparent.as_ref()))
        .collect();
    let nows: Vec<i64> = asked.iter().map(|(_, now)| now.as_millis()).collect();
    let params = [
        uuids(&ids),
        texts(&tasks),
        texts(&versions),
        texts(&inputs),
        texts(&keys),
        texts(&hashes),
        ints(&priorities),
        longs(&run_ats),
        longs(&deadlines),
        texts(&labels),
        texts(&correlations),
        texts(&traces),
        longs(&nows),
        uuids(&roots),
    ];
    let rows = link.query(INSERT, &params).await.map_err(|error| {
        if is_duplicate(&error) {
            return StorageError::Misuse {
                what: "a root frame was submitted with the id of another row; every row needs an id of its own".to_owned(),
            };
        }
        error
    })?;
    rows.iter().map(|row| get(row, 0)).collect()
}

/// Answers requests whose id or key is known.
async fn find(
    link: &mut Link<'_, '_>,
    runs: &[Asked<'_>],
    rest: &[usize],
    answers: &mut [Option<Result<Submitted, StorageError>>],
) -> Result<(), StorageError> {
    let ids: Vec<Uuid> = rest.iter().map(|at| runs[*at].0.id.as_uuid()).collect();
    let keys: Vec<_> = rest
        .iter()
        .filter_map(|at| column(runs[*at].0.idempotency_key.as_ref()))
        .collect();
    let mut by_id: HashMap<Uuid, String> = HashMap::new();
    let mut by_key: HashMap<String, (Uuid, String)> = HashMap::new();
    for row in link.query(KNOWN, &[uuids(&ids), texts(&keys)]).await? {
        let (id, hash): (Uuid, String) = (get(&row, 0)?, get(&row, 2)?);
        if let Some(key) = get::<Option<String>>(&row, 1)? {
            by_key.insert(key, (id, hash.clone()));
        }
        by_id.insert(id, hash);
    }
    for at in rest {
        let run = runs[*at].0;
        let known = by_id
            .get(&run.id.as_uuid())
            .map(|hash| (run.id.as_uuid(), hash))
            .or_else(|| {
                let key = column(run.idempotency_key.as_ref())?;
                by_key.get(&*key).map(|(id, hash)| (*id, hash))
            });
        if let Some((id, hash)) = known {
            let id = TaskRunId::from_uuid(id);
            answers[*at] = Some(if *hash == text::to_column(&run.request_hash) {
                Ok(Submitted { id, created: false })
            } else {
                Err(StorageError::IdempotencyConflict { existing: id })
            });
        }
    }
    Ok(())
}

fn column(value: Option<&String>) -> Option<Cow<'_, str>> {
    value.map(|value| text::to_column(value))
}

/// Labels as a JSON object; NUL is escaped as in text columns, for `jsonb` refuses it too.
pub(super) fn labels_column(labels: &BTreeMap<String, String>) -> String {
    let escaped: BTreeMap<_, _> = labels
        .iter()
        .map(|(name, value)| (text::to_column(name), text::to_column(value)))
        .collect();
    serde_json::to_string(&escaped).expect("an object of texts is JSON")
}
