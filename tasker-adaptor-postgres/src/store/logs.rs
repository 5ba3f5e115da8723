//! Log lines. Their places count up within a run, under the lock of the run: one that is committed later lies behind.

use async_trait::async_trait;
use tasker_adaptor::{
    LogCursor, LogLine, LogPage, Logs, StackRunId, StorageError, StoredLogLine, TaskRunId,
    Timestamp,
};
use tokio_postgres::Row;
use uuid::Uuid;

use super::cancel::not_found;
use super::locks;
use super::write::Lines;
use crate::PostgresStorage;
use crate::row::{get, parse_json};
use crate::session::{long, uuid, uuids};
use crate::text;

const READ: &str = "SELECT cursor, frame_id, time, level, message, data FROM tasker.log_lines WHERE task_run_id = $1 AND cursor > $2 ORDER BY cursor LIMIT $3";

#[async_trait]
impl Logs for PostgresStorage {
    async fn append_logs(
        &self,
        run: TaskRunId,
        frame: Option<StackRunId>,
        lines: Vec<LogLine>,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        self.retrying(|| append(self, run, frame, &lines, now))
            .await
    }

    async fn logs(
        &self,
        run: TaskRunId,
        after: LogCursor,
        max: usize,
    ) -> Result<LogPage, StorageError> {
        let cursor = i64::try_from(after.0).unwrap_or(i64::MAX);
        let rows = self
            .session()
            .await?
            .query(
                READ,
                &[uuid(&run.as_uuid()), long(&cursor), long(&(max as i64))],
            )
            .await?;
        let lines: Vec<StoredLogLine> = rows
            .iter()
            .map(|row| line(row).map_err(|error| error.in_run(run)))
            .collect::<Result<_, _>>()?;
        Ok(LogPage {
            next: lines.last().map_or(after, |line| line.cursor),
            lines,
        })
    }
}

async fn append(
    storage: &PostgresStorage,
    run: TaskRunId,
    frame: Option<StackRunId>,
    lines: &[LogLine],
    now: Timestamp,
) -> Result<(), StorageError> {
    let mut session = storage.session().await?;
    let ids = vec![run.as_uuid()];
    let lock = session.step(locks::RUNS, vec![uuids(&ids)]);
    let found = session.begin(vec![lock]).await?;
    if found[0].is_empty() {
        session.rollback().await?;
        return Err(not_found(run));
    }
    let mut arrays = Lines::default();
    for line in lines {
        arrays.push(
            run.as_uuid(),
            frame.map(|frame| frame.as_uuid()),
            now.as_millis(),
            line,
        );
    }
    let step = arrays.step(&session);
    session.commit(vec![step]).await?;
    Ok(())
}

fn line(row: &Row) -> Result<StoredLogLine, StorageError> {
    Ok(StoredLogLine {
        cursor: LogCursor(get::<i64>(row, 0)? as u64),
        frame: get::<Option<Uuid>>(row, 1)?.map(StackRunId::from_uuid),
        time: Timestamp::from_millis(get(row, 2)?),
        line: LogLine {
            level: get::<&str>(row, 3)?.parse()?,
            message: text::from_column(get(row, 4)?),
            data: get::<Option<String>>(row, 5)?
                .map(|data| parse_json(data, "log_lines.data"))
                .transpose()?,
        },
    })
}
