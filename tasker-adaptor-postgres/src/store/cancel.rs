//! Ending a run from outside: at once, or by asking.

use std::collections::{HashMap, HashSet};

use tasker_adaptor::{
    Cancelled, Failure, Hint, Outcome, RunStatus, StackStatus, StorageError, TaskRunId, Timestamp,
};
use uuid::Uuid;

use super::locks::{self, Locked};
use super::status::{CANCEL_ROWS, CANCEL_RUN_ROWS, END_RUNS, WAKE};
use crate::PostgresStorage;
use crate::row::get;
use crate::session::{Session, long, longs, text, texts, uuid, uuids};

/// The open rows of a run, locked; nobody can add one while its run is locked whole.
const OPEN_ROWS: &str = "SELECT id FROM tasker.stack_runs WHERE task_run_id = $1 AND status NOT IN ('completed', 'failed', 'cancelled') ORDER BY id FOR UPDATE";

/// All rows of a run, after the lock: who hangs on whom.
const TREE: &str =
    "SELECT id, parent_id, kind, status, turn FROM tasker.stack_runs WHERE task_run_id = $1";

const ASKED: &str = "SELECT cancel_by FROM tasker.task_runs WHERE id = $1";
const ASK: &str = "UPDATE tasker.task_runs SET cancel_by = $2 WHERE id = $1";

/// The awaits of $1 fail with $2 at $3.
const FAIL: &str = "UPDATE tasker.stack_runs s SET status = 'failed', outcome = $2, owner = NULL, blocked_reason = NULL, epoch = s.epoch + 1, settled_at = $3 WHERE s.id = ANY ($1)";

pub(super) fn not_found(run: TaskRunId) -> StorageError {
    StorageError::NotFound {
        what: format!("task run {run}"),
    }
}

/// Locks a run so that nobody changes anything in it; its status.
pub(super) async fn lock_whole(
    session: &mut Session,
    run: TaskRunId,
) -> Result<Option<RunStatus>, StorageError> {
    let ids = vec![run.as_uuid()];
    let step = session.step(locks::RUNS_WHOLE, vec![uuids(&ids)]);
    let answers = session.begin(vec![step]).await?;
    let mut locked = Locked::default();
    locked.add_runs(&answers[0])?;
    Ok(locked.runs.get(&run.as_uuid()).copied())
}

pub(super) async fn cancel(
    storage: &PostgresStorage,
    run: TaskRunId,
    now: Timestamp,
) -> Result<Cancelled, StorageError> {
    let mut session = storage.session().await?;
    match lock_whole(&mut session, run).await? {
        None => {
            session.rollback().await?;
            Err(not_found(run))
        }
        Some(status) if status.is_terminal() => {
            session.rollback().await?;
            Ok(Cancelled::AlreadyEnded(status))
        }
        Some(_) => {
            end_now(&mut session, run, now).await?;
            storage.hint([Hint::Ended(run), Hint::Cancel(run)]);
            Ok(Cancelled::Done)
        }
    }
}

async fn end_now(
    session: &mut Session,
    run: TaskRunId,
    now: Timestamp,
) -> Result<(), StorageError> {
    let id = run.as_uuid();
    let (ids, times) = (vec![id], vec![now.as_millis()]);
    let statuses = vec![RunStatus::Cancelled.as_str()];
    let outcomes: Vec<Option<String>> = vec![None];
    let lock = session.step(OPEN_ROWS, vec![uuid(&id)]);
    let rows = session.step(CANCEL_RUN_ROWS, vec![uuids(&ids), longs(&times)]);
    let end = session.step(
        END_RUNS,
        vec![
            uuids(&ids),
            texts(&statuses),
            texts(&outcomes),
            longs(&times),
        ],
    );
    session.commit(vec![lock, rows, end]).await?;
    Ok(())
}

pub(super) async fn request(
    storage: &PostgresStorage,
    run: TaskRunId,
    cancel_by: Timestamp,
    now: Timestamp,
) -> Result<Cancelled, StorageError> {
    let mut session = storage.session().await?;
    let Some(status) = lock_whole(&mut session, run).await? else {
        session.rollback().await?;
        return Err(not_found(run));
    };
    if status.is_terminal() {
        session.rollback().await?;
        return Ok(Cancelled::AlreadyEnded(status));
    }
    let id = run.as_uuid();
    let lock = session.step(OPEN_ROWS, vec![uuid(&id)]);
    let tree = session.step(TREE, vec![uuid(&id)]);
    let asked = session.step(ASKED, vec![uuid(&id)]);
    let answers = session.pipeline(vec![lock, tree, asked]).await?;
    let tree = Tree::read(&answers[1])?;
    if !tree.root_began || status == RunStatus::Blocked {
        end_now(&mut session, run, now).await?;
        storage.hint([Hint::Ended(run), Hint::Cancel(run)]);
        return Ok(Cancelled::Done);
    }
    let asked: Option<i64> = answers[2]
        .first()
        .map(|row| get(row, 0))
        .transpose()?
        .flatten();
    let by = asked.map_or(cancel_by.as_millis(), |asked| {
        asked.min(cancel_by.as_millis())
    });
    let failure = Outcome::Failed(Failure::cancelled()).to_column();
    let now = now.as_millis();
    let (mut detached, mut awaited) = tree.open_rows();
    if asked.is_some() {
        // What the task did after it was told, it did on purpose.
        detached.clear();
        awaited.clear();
    }
    let detached_times = vec![now; detached.len()];
    let parents = tree.parents_of(&awaited);
    let times = vec![now; parents.len()];
    let steps = vec![
        session.step(ASK, vec![uuid(&id), long(&by)]),
        session.step(CANCEL_ROWS, vec![uuids(&detached), longs(&detached_times)]),
        session.step(FAIL, vec![uuids(&awaited), text(&failure), long(&now)]),
        session.step(WAKE, vec![uuids(&parents), longs(&times)]),
    ];
    let woken = session.commit(steps).await?;
    let work = woken.get(3).is_some_and(|rows| !rows.is_empty());
    storage.hint(
        work.then_some(Hint::Work)
            .into_iter()
            .chain([Hint::Cancel(run)]),
    );
    Ok(Cancelled::Asked)
}

/// Who hangs on whom in a run.
struct Tree {
    nodes: HashMap<Uuid, Node>,
    root_began: bool,
}

struct Node {
    parent: Option<Uuid>,
    is_frame: bool,
    began: bool,
    ended: bool,
}

impl Tree {
    fn read(rows: &[tokio_postgres::Row]) -> Result<Self, StorageError> {
        let mut nodes = HashMap::new();
        let mut root_began = false;
        for row in rows {
            let status: StackStatus = get::<&str>(row, 3)?.parse()?;
            let node = Node {
                parent: get(row, 1)?,
                is_frame: get::<&str>(row, 2)? == "frame",
                began: get::<i32>(row, 4)? > 0,
                ended: status.is_terminal(),
            };
            root_began |= node.parent.is_none() && node.began;
            nodes.insert(get(row, 0)?, node);
        }
        Ok(Self { nodes, root_began })
    }

    /// Open rows that nobody waits for, and those whose await fails now: calls, timers, waits, frames without a turn.
    fn open_rows(&self) -> (Vec<Uuid>, Vec<Uuid>) {
        let (mut detached, mut awaited) = (Vec::new(), Vec::new());
        for (id, node) in self.nodes.iter().filter(|(_, node)| !node.ended) {
            if self.is_detached(node) {
                detached.push(*id);
            } else if node.parent.is_some() && (!node.is_frame || !node.began) {
                awaited.push(*id);
            }
        }
        (detached, awaited)
    }

    fn is_detached(&self, node: &Node) -> bool {
        let mut parent = node.parent;
        while let Some(above) = parent.and_then(|id| self.nodes.get(&id)) {
            if above.ended {
                return true;
            }
            parent = above.parent;
        }
        false
    }

    fn parents_of(&self, rows: &[Uuid]) -> Vec<Uuid> {
        let parents: HashSet<Uuid> = rows
            .iter()
            .filter_map(|id| self.nodes.get(id)?.parent)
            .collect();
        parents.into_iter().collect()
    }
}
