//! Reading frames and call trees back.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use tasker_adaptor::{FrameJournal, Journal, StackRun, StackRunId, StorageError, TaskRunId};

use crate::PostgresStorage;
use crate::row::{stack_columns, stack_run};
use crate::session::uuid;

const LOAD: &str = concat!(
    "SELECT ",
    stack_columns!(),
    " FROM tasker.stack_runs s WHERE s.id = $1 UNION ALL (SELECT ",
    stack_columns!(),
    " FROM tasker.stack_runs s WHERE s.task_run_id = (SELECT f.task_run_id FROM tasker.stack_runs f WHERE f.id = $1) AND s.parent_id = $1 ORDER BY s.seq)"
);
const UNREAD: &str = concat!(
    "SELECT ",
    stack_columns!(),
    " FROM tasker.stack_runs s WHERE s.parent_id = $1 AND s.mark = 'unread' ORDER BY s.seq"
);
const ONE: &str = concat!(
    "SELECT ",
    stack_columns!(),
    " FROM tasker.stack_runs s WHERE s.id = $1"
);
const TREE: &str = concat!(
    "SELECT ",
    stack_columns!(),
    " FROM tasker.stack_runs s WHERE s.task_run_id = $1 ORDER BY s.seq, s.id"
);

#[async_trait]
impl Journal for PostgresStorage {
    async fn load(&self, frame: StackRunId) -> Result<Option<FrameJournal>, StorageError> {
        let rows = self
            .session()
            .await?
            .find(LOAD, &[uuid(&frame.as_uuid())])
            .await?;
        let mut found = None;
        let mut children = Vec::with_capacity(rows.len());
        for row in &rows {
            let row = stack_run(row)?;
            if row.id == frame {
                found = Some(row);
            } else {
                children.push(row);
            }
        }
        children.sort_by_key(|child| child.seq);
        Ok(found.map(|frame| FrameJournal { frame, children }))
    }

    async fn unread(&self, frame: StackRunId) -> Result<Vec<StackRun>, StorageError> {
        let rows = self
            .session()
            .await?
            .find(UNREAD, &[uuid(&frame.as_uuid())])
            .await?;
        rows.iter().map(stack_run).collect()
    }

    async fn stack_run(&self, id: StackRunId) -> Result<Option<StackRun>, StorageError> {
        let rows = self
            .session()
            .await?
            .query(ONE, &[uuid(&id.as_uuid())])
            .await?;
        rows.first().map(stack_run).transpose()
    }

    async fn stack_runs(&self, run: TaskRunId) -> Result<Vec<StackRun>, StorageError> {
        let rows = self
            .session()
            .await?
            .find(TREE, &[uuid(&run.as_uuid())])
            .await?;
        let rows = rows.iter().map(stack_run).collect::<Result<Vec<_>, _>>()?;
        Ok(parents_first(rows))
    }
}

/// Level by level from the root; below one frame by `seq`. Rows whose parent is gone come last.
fn parents_first(rows: Vec<StackRun>) -> Vec<StackRun> {
    let ids: HashSet<StackRunId> = rows.iter().map(|row| row.id).collect();
    let mut below: HashMap<Option<StackRunId>, Vec<StackRun>> = HashMap::new();
    let mut roots = Vec::new();
    for row in rows {
        match row.parent {
            Some(parent) if ids.contains(&parent) => below.entry(row.parent).or_default().push(row),
            _ => roots.push(row),
        }
    }
    roots.sort_by_key(|row| row.parent.is_some());
    let mut tree = roots;
    let mut at = 0;
    while at < tree.len() {
        if let Some(children) = below.remove(&Some(tree[at].id)) {
            tree.extend(children);
        }
        at += 1;
    }
    tree
}
