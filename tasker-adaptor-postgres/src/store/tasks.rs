//! Published tasks.

use async_trait::async_trait;
use tasker_adaptor::{
    NewTask, Published, StorageError, TaskFunction, TaskName, TaskPage, TaskStore, TaskVersion,
    Timestamp,
};

use crate::PostgresStorage;
use crate::row::{get, task_function};
use crate::session::{long, text};
use crate::text as plain;

macro_rules! task_columns {
    () => {
        "t.name, t.version, t.source, t.modules, t.schema, t.options, t.created_at, t.published_at"
    };
}

/// Publishing one name at a time: there is no row to lock before the first version.
const LOCK: &str = "SELECT 1 FROM pg_advisory_xact_lock(hashtext($1), hashtext($2))";
const CURRENT: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM tasker.task_functions t WHERE t.name = $1 ORDER BY t.published_at DESC LIMIT 1"
);
const VERSION: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM tasker.task_functions t WHERE t.name = $1 AND t.version = $2"
);
const INSERT: &str = "INSERT INTO tasker.task_functions (name, version, source, modules, schema, options, created_at, published_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const RESTORE: &str =
    "UPDATE tasker.task_functions SET published_at = $3 WHERE name = $1 AND version = $2";

/// The current version of each name, found by skipping from name to name: old versions cost nothing.
const LIST: &str = concat!(
    "WITH RECURSIVE names AS ((SELECT name FROM tasker.task_functions WHERE name > $1 ORDER BY name LIMIT 1) UNION ALL SELECT (SELECT f.name FROM tasker.task_functions f WHERE f.name > names.name ORDER BY f.name LIMIT 1) FROM names WHERE names.name IS NOT NULL) SELECT ",
    task_columns!(),
    " FROM (SELECT name FROM names WHERE name IS NOT NULL LIMIT $2) n CROSS JOIN LATERAL (SELECT * FROM tasker.task_functions f WHERE f.name = n.name ORDER BY f.published_at DESC LIMIT 1) t ORDER BY t.name"
);

#[async_trait]
impl TaskStore for PostgresStorage {
    async fn publish(&self, task: NewTask, now: Timestamp) -> Result<Published, StorageError> {
        self.retrying(|| publish(self, &task, now)).await
    }

    async fn task(
        &self,
        name: &TaskName,
        version: Option<&TaskVersion>,
    ) -> Result<Option<TaskFunction>, StorageError> {
        let mut session = self.session().await?;
        let name = name.as_str();
        let rows = match version {
            Some(version) => {
                session
                    .query(VERSION, &[text(&name), text(&version.as_str())])
                    .await?
            }
            None => session.query(CURRENT, &[text(&name)]).await?,
        };
        rows.first().map(task_function).transpose()
    }

    async fn tasks(&self, after: Option<&TaskName>, max: usize) -> Result<TaskPage, StorageError> {
        let after = after.map_or("", TaskName::as_str);
        let limit = (max as i64).saturating_add(1);
        let rows = self
            .session()
            .await?
            .query(LIST, &[text(&after), long(&limit)])
            .await?;
        let tasks: Vec<TaskFunction> = rows
            .iter()
            .take(max)
            .map(task_function)
            .collect::<Result<_, _>>()?;
        let next = if rows.len() > max {
            tasks.last().map(|task| task.name.clone())
        } else {
            None
        };
        Ok(TaskPage { tasks, next })
    }
}

async fn publish(
    storage: &PostgresStorage,
    task: &NewTask,
    now: Timestamp,
) -> Result<Published, StorageError> {
    let mut session = storage.session().await?;
    let (name, version) = (task.name.as_str(), task.version.as_str());
    let schema = storage.schema();
    let lock = session.step(LOCK, vec![text(&schema), text(&name)]);
    session.begin(vec![lock]).await?;
    let current = session.step(CURRENT, vec![text(&name)]);
    let same = session.step(VERSION, vec![text(&name), text(&version)]);
    let found = session.pipeline(vec![current, same]).await?;
    let current = found[0].first();
    let newest = current.map(|row| get::<i64>(row, 7)).transpose()?;
    let time = newest.map_or(now.as_millis(), |newest| {
        now.as_millis().max(newest.saturating_add(1))
    });
    let created = now.as_millis();
    let source = plain::to_column(&task.source);
    let modules = task.modules.as_ref().map(tasker_adaptor::Json::text);
    let (task_schema, options) = (task.schema.text(), task.options.text());
    let Some(same) = found[1].first() else {
        let insert = session.step(
            INSERT,
            vec![
                text(&name),
                text(&version),
                text(&source),
                text(&modules),
                text(&task_schema),
                text(&options),
                long(&created),
                long(&time),
            ],
        );
        session.commit(vec![insert]).await?;
        return Ok(Published::Created);
    };
    if get::<&str>(same, 2)? != source
        || get::<Option<&str>>(same, 3)? != modules
        || get::<&str>(same, 5)? != options
    {
        session.rollback().await?;
        return Err(StorageError::VersionConflict {
            version: task.version.clone(),
        });
    }
    if current.map(|row| get::<&str>(row, 1)).transpose()? == Some(version) {
        session.rollback().await?;
        return Ok(Published::Unchanged);
    }
    let restore = session.step(RESTORE, vec![text(&name), text(&version), long(&time)]);
    session.commit(vec![restore]).await?;
    Ok(Published::Restored)
}
