//! [`Journal`] on SQLite.

use std::collections::HashMap;
use std::sync::LazyLock;

use async_trait::async_trait;
use rusqlite::{Connection, Params};
use tasker_adaptor::{FrameJournal, Journal, StackRun, StackRunId, StorageError, TaskRunId};

use crate::SqliteStorage;
use crate::cached::Cached as _;
use crate::columns::{HasKey, PARENT, stack_run, stack_run_columns};
use crate::fault::Outcome;

/// Rows that memory is set aside for before they are read: the count of a damaged row may say anything.
const AT_ONCE: usize = 16_384;

/// The frame whose id is asked for, as a row's parent.
const ASKED: &str = "?1";

static ONE: LazyLock<String> =
    LazyLock::new(|| select(PARENT, "FROM stack_runs s WHERE s.id = ?1"));
static CHILDREN: LazyLock<String> = LazyLock::new(|| {
    select(
        ASKED,
        "FROM stack_runs s WHERE s.parent_no = (SELECT no FROM stack_runs WHERE id = ?1) ORDER BY s.seq",
    )
});
static UNREAD: LazyLock<String> = LazyLock::new(|| {
    select(
        ASKED,
        "FROM stack_runs s WHERE s.unread = (SELECT no FROM stack_runs WHERE id = ?1) ORDER BY s.seq",
    )
});
static FRAMES: LazyLock<String> = LazyLock::new(|| {
    select(
        PARENT,
        "FROM stack_runs s WHERE s.task_run_id = ?1 AND s.kind = 'frame'",
    )
});
static LEAVES: LazyLock<String> = LazyLock::new(|| {
    select(
        "f.id",
        "FROM stack_runs f CROSS JOIN stack_runs s ON s.parent_no = f.no \
         WHERE f.task_run_id = ?1 AND f.kind = 'frame' AND s.kind <> 'frame'",
    )
});

fn select(parent: &str, from: &str) -> String {
    format!("SELECT {} {from}", stack_run_columns(parent))
}

#[async_trait]
impl Journal for SqliteStorage {
    async fn load(&self, frame: StackRunId) -> Result<Option<FrameJournal>, StorageError> {
        self.read(move |conn| {
            let Some(row) = rows(conn, &ONE, [frame.key()], 1)?.pop() else {
                return Ok(None);
            };
            let children = rows(conn, &CHILDREN, [frame.key()], row.made_count as usize)?;
            Ok(Some(FrameJournal {
                frame: row,
                children,
            }))
        })
        .await
    }

    async fn unread(&self, frame: StackRunId) -> Result<Vec<StackRun>, StorageError> {
        self.read(move |conn| rows(conn, &UNREAD, [frame.key()], 0))
            .await
    }

    async fn stack_run(&self, id: StackRunId) -> Result<Option<StackRun>, StorageError> {
        self.read(move |conn| Ok(rows(conn, &ONE, [id.key()], 1)?.pop()))
            .await
    }

    async fn stack_runs(&self, run: TaskRunId) -> Result<Vec<StackRun>, StorageError> {
        self.read(move |conn| {
            let mut found = rows(conn, &FRAMES, [run.key()], 0)?;
            found.extend(rows(conn, &LEAVES, [run.key()], 0)?);
            Ok(as_tree(found))
        })
        .await
    }
}

/// Rows of which about so many are expected.
fn rows(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    expected: usize,
) -> Outcome<Vec<StackRun>> {
    let mut statement = conn.cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::with_capacity(expected.min(AT_ONCE));
    while let Some(row) = rows.next()? {
        found.push(stack_run(row)?);
    }
    Ok(found)
}

/// Level by level from the root, each frame's children by `seq`; rows whose parent is gone come last.
fn as_tree(mut rows: Vec<StackRun>) -> Vec<StackRun> {
    rows.sort_by_key(|row| (row.parent, row.seq));
    let mut below: HashMap<Option<StackRunId>, Vec<StackRun>> = HashMap::new();
    for row in rows {
        below.entry(row.parent).or_default().push(row);
    }
    let mut tree: Vec<StackRun> = below.remove(&None).unwrap_or_default();
    let mut next = 0;
    while let Some(row) = tree.get(next) {
        next += 1;
        if let Some(children) = below.remove(&Some(row.id)) {
            tree.extend(children);
        }
    }
    let mut orphans: Vec<StackRun> = below.into_values().flatten().collect();
    orphans.sort_by_key(|row| (row.parent, row.seq));
    tree.extend(orphans);
    tree
}
