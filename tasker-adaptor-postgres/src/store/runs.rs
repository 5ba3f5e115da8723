//! Task runs: submit, find, list. Cancel and unblock have files of their own.

use async_trait::async_trait;
use tasker_adaptor::{
    Cancelled, NewTaskRun, RunFilter, RunPage, RunStatus, RunStore, StorageError, Submitted,
    TaskRun, TaskRunId, Timestamp, Unblock,
};
use uuid::Uuid;

use super::gather::gather;
use super::{cancel, submit, unblock};
use crate::PostgresStorage;
use crate::row::{get, run_columns, task_run};
use crate::session::{long, text, texts, uuid};

const RUN: &str = concat!(
    "SELECT ",
    run_columns!("r.record"),
    " FROM tasker.task_runs r WHERE r.id = $1"
);

const LIST: &str = concat!(
    "SELECT ",
    run_columns!("NULL::bytea"),
    " FROM tasker.task_runs r WHERE r.id < $1 ORDER BY r.id DESC LIMIT $2"
);

/// The newest runs of each status in $3. Each page is a range (`w.word` and an id before $1) in an order that one index alone has:
/// by `status = …` and the order of ids a planner that has seen one status only walks all runs from the newest on.
const LIST_STATUSES: &str = concat!(
    "SELECT ",
    run_columns!("NULL::bytea"),
    " FROM unnest($3::text[]) AS w(word) CROSS JOIN LATERAL (SELECT * FROM tasker.task_runs t WHERE t.status >= w.word AND (t.status, t.id) < (w.word, $1) ORDER BY t.status DESC, t.id DESC LIMIT $2) r ORDER BY r.id DESC LIMIT $2"
);

/// The same for one task ($4).
const LIST_STATUSES_TASK: &str = concat!(
    "SELECT ",
    run_columns!("NULL::bytea"),
    " FROM unnest($3::text[]) AS w(word) CROSS JOIN LATERAL (SELECT * FROM tasker.task_runs t WHERE (t.task, t.status) >= ($4, w.word) AND (t.task, t.status, t.id) < ($4, w.word, $1) ORDER BY t.task DESC, t.status DESC, t.id DESC LIMIT $2) r ORDER BY r.id DESC LIMIT $2"
);

/// Runs that bear these labels ($3): all of them are looked at, and no others.
const LIST_LABELS: &str = concat!(
    "WITH bearers AS MATERIALIZED (SELECT t.id, t.status, t.task FROM tasker.task_runs t WHERE t.labels <> '{}' AND t.labels @> $3::text::jsonb), page AS MATERIALIZED (SELECT id FROM bearers WHERE id < $1 AND (status = ANY ($4) OR $4 = '{}') AND (task = $5 OR $5 IS NULL) ORDER BY id DESC LIMIT $2) SELECT ",
    run_columns!("NULL::bytea"),
    " FROM page CROSS JOIN LATERAL (SELECT * FROM tasker.task_runs t WHERE t.id = page.id OFFSET 0) r ORDER BY r.id DESC"
);

const OVERDUE: &str = "SELECT id FROM tasker.task_runs WHERE cancel_by IS NOT NULL AND ended_at IS NULL AND cancel_by <= $1 ORDER BY cancel_by, id LIMIT $2";

#[async_trait]
impl RunStore for PostgresStorage {
    async fn submit(
        &self,
        runs: Vec<NewTaskRun>,
        now: Timestamp,
    ) -> Result<Vec<Result<Submitted, StorageError>>, StorageError> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        gather(self, runs, now).await
    }

    async fn run(&self, id: TaskRunId) -> Result<Option<TaskRun>, StorageError> {
        let rows = self
            .session()
            .await?
            .find(RUN, &[uuid(&id.as_uuid())])
            .await?;
        rows.first().map(task_run).transpose()
    }

    async fn runs(&self, filter: &RunFilter, max: usize) -> Result<RunPage, StorageError> {
        let before = filter.before.map_or(Uuid::max(), |run| run.as_uuid());
        let limit = (max as i64).saturating_add(1);
        let statuses: Vec<&str> = filter
            .statuses
            .iter()
            .map(|status| status.as_str())
            .collect();
        let task = filter.task.as_ref().map(tasker_adaptor::TaskName::as_str);
        let labels = submit::labels_column(&filter.labels);
        let mut session = self.session().await?;
        let (before, limit) = (uuid(&before), long(&limit));
        let rows = match (filter.labels.is_empty(), statuses.is_empty(), task) {
            (true, true, None) => session.query(LIST, &[before, limit]).await?,
            (true, false, None) => {
                session
                    .query(LIST_STATUSES, &[before, limit, texts(&statuses)])
                    .await?
            }
            (true, of_any, Some(_)) => {
                let all: Vec<&str> = RunStatus::ALL.iter().map(|one| one.as_str()).collect();
                let words = if of_any { &all } else { &statuses };
                session
                    .query(
                        LIST_STATUSES_TASK,
                        &[before, limit, texts(words), text(&task)],
                    )
                    .await?
            }
            (false, _, _) => {
                session
                    .query(
                        LIST_LABELS,
                        &[before, limit, text(&labels), texts(&statuses), text(&task)],
                    )
                    .await?
            }
        };
        let mut runs: Vec<TaskRun> = rows
            .iter()
            .take(max)
            .map(task_run)
            .collect::<Result<_, _>>()?;
        // A status named twice in the filter names its runs twice.
        runs.dedup_by_key(|run| run.id);
        let next = if rows.len() > max {
            runs.last().map(|run| run.id)
        } else {
            None
        };
        Ok(RunPage { runs, next })
    }

    async fn cancel(&self, run: TaskRunId, now: Timestamp) -> Result<Cancelled, StorageError> {
        self.retrying(|| cancel::cancel(self, run, now)).await
    }

    async fn request_cancel(
        &self,
        run: TaskRunId,
        cancel_by: Timestamp,
        now: Timestamp,
    ) -> Result<Cancelled, StorageError> {
        self.retrying(|| cancel::request(self, run, cancel_by, now))
            .await
    }

    async fn overdue_cancels(
        &self,
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<TaskRunId>, StorageError> {
        let rows = self
            .session()
            .await?
            .query(OVERDUE, &[long(&now.as_millis()), long(&(max as i64))])
            .await?;
        rows.iter()
            .map(|row| get(row, 0).map(TaskRunId::from_uuid))
            .collect()
    }

    async fn unblock(&self, unblock: Unblock) -> Result<u32, StorageError> {
        self.retrying(|| unblock::unblock(self, &unblock)).await
    }
}
