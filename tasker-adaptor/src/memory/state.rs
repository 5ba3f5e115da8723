//! The tables, with the indexes and counts that keep every operation off ended history.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::mutation::Mutation;
use crate::{
    Hint, Json, RunContext, RunStatus, SealedValue, StackKind, StackRun, StackRunId, StackStatus,
    StoredLogLine, TaskFunction, TaskName, TaskRun, TaskRunId, TaskVersion, Timestamp, WorkerId,
};

/// A stack run with what is derived from it.
pub(super) struct Entry {
    pub(super) row: StackRun,
    /// By `seq`.
    pub(super) children: Vec<StackRunId>,
    /// Children that are not terminal.
    pub(super) open: usize,
    /// Children that are settled and undelivered.
    pub(super) unread: usize,
    /// Of its run.
    pub(super) priority: i32,
    /// Since when it is `pending` or `pending_resume`.
    ready_at: Timestamp,
    /// Its `due_at` was seen to have come.
    due_has_come: bool,
}

/// A task run with what hangs on it.
pub(super) struct RunEntry {
    pub(super) run: TaskRun,
    pub(super) root: StackRunId,
    pub(super) request_hash: String,
    pub(super) rows: BTreeSet<StackRunId>,
    /// Rows that are not terminal.
    pub(super) open: usize,
    pub(super) blocked: BTreeSet<StackRunId>,
    /// Open signal waits by name, oldest first.
    pub(super) waits: BTreeMap<String, BTreeSet<(Timestamp, StackRunId)>>,
    /// In the order in which they came.
    pub(super) signals: Vec<StoredSignal>,
    pub(super) logs: Vec<StoredLogLine>,
}

pub(super) struct StoredSignal {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) payload: Json,
    pub(super) consumed_by: Option<StackRunId>,
}

pub(super) struct WorkerRow {
    pub(super) live: bool,
    pub(super) expires_at: Timestamp,
}

type ReadyKey = (Reverse<i32>, Timestamp, StackRunId);

/// Everything that is stored.
#[derive(Default)]
pub(super) struct State {
    pub(super) tasks: BTreeMap<TaskName, BTreeMap<TaskVersion, TaskFunction>>,
    pub(super) runs: BTreeMap<TaskRunId, RunEntry>,
    pub(super) keys: HashMap<String, TaskRunId>,
    pub(super) stack: BTreeMap<StackRunId, Entry>,
    pub(super) workers: BTreeMap<WorkerId, WorkerRow>,
    pub(super) sealed: BTreeMap<String, BTreeMap<String, SealedValue>>,
    /// Claimable and due, by priority and time.
    pub(super) ready_frames: BTreeSet<ReadyKey>,
    pub(super) ready_calls: BTreeSet<ReadyKey>,
    /// Claimable once their time has come.
    pub(super) waiting: BTreeSet<(Timestamp, StackRunId)>,
    /// Open timers.
    pub(super) timers: BTreeSet<(Timestamp, StackRunId)>,
    pub(super) owned: BTreeMap<WorkerId, BTreeSet<StackRunId>>,
    /// Ended runs that are not folded.
    pub(super) ended: BTreeSet<(Timestamp, TaskRunId)>,
    /// Folded runs that still have rows or signals.
    pub(super) folded: BTreeSet<TaskRunId>,
    /// Open runs that were asked to end.
    pub(super) cancel_by: BTreeSet<(Timestamp, TaskRunId)>,
    hints: Vec<Hint>,
    mutation: Option<Mutation>,
}

impl State {
    #[cfg(feature = "conformance")]
    pub(super) fn without(mutation: Mutation) -> Self {
        Self {
            mutation: Some(mutation),
            ..Self::default()
        }
    }

    /// Whether a guard is in its place.
    pub(super) fn has_guard(&self, guard: Mutation) -> bool {
        self.mutation != Some(guard)
    }

    pub(super) fn hint(&mut self, hint: Hint) {
        if self.hints.last() != Some(&hint) {
            self.hints.push(hint);
        }
    }

    pub(super) fn take_hints(&mut self) -> Vec<Hint> {
        std::mem::take(&mut self.hints)
    }

    pub(super) fn is_live(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|row| row.live)
    }

    pub(super) fn row(&self, id: StackRunId) -> Option<&StackRun> {
        self.stack.get(&id).map(|entry| &entry.row)
    }

    pub(super) fn run_status(&self, id: TaskRunId) -> Option<RunStatus> {
        self.runs.get(&id).map(|entry| entry.run.status)
    }

    /// Rows of the children of a frame, by `seq`.
    pub(super) fn children(&self, frame: StackRunId) -> impl Iterator<Item = &StackRun> {
        let ids = self.stack.get(&frame).map(|entry| &entry.children);
        ids.into_iter().flatten().filter_map(|id| self.row(*id))
    }

    /// Whether a frame above this row has ended, so that nobody waits for it.
    pub(super) fn is_detached(&self, id: StackRunId) -> bool {
        let mut parent = self.row(id).and_then(|row| row.parent);
        while let Some(above) = parent.and_then(|parent| self.row(parent)) {
            if above.status.is_terminal() {
                return true;
            }
            parent = above.parent;
        }
        false
    }

    /// Adds a row under its parent.
    pub(super) fn insert(&mut self, row: StackRun, priority: i32, now: Timestamp) {
        let id = row.id;
        if let Some(run) = self.runs.get_mut(&row.task_run) {
            run.rows.insert(id);
        }
        if let Some(parent) = row.parent.and_then(|parent| self.stack.get_mut(&parent)) {
            parent.children.push(id);
        }
        let entry = Entry {
            row,
            children: Vec::new(),
            open: 0,
            unread: 0,
            priority,
            ready_at: now,
            due_has_come: false,
        };
        self.index(&entry);
        self.hint_at(&entry, None);
        self.stack.insert(id, entry);
    }

    /// Changes a row and all that is derived from it.
    pub(super) fn change(
        &mut self,
        id: StackRunId,
        now: Timestamp,
        edit: impl FnOnce(&mut StackRun),
    ) {
        let Some(mut entry) = self.stack.remove(&id) else {
            return;
        };
        self.unindex(&entry);
        let before = (entry.row.status, entry.row.due_at, is_claimable(&entry.row));
        edit(&mut entry.row);
        if entry.row.status != before.0 {
            entry.ready_at = now;
        }
        if entry.row.due_at != before.1 || !is_claimable(&entry.row) {
            entry.due_has_come = false;
        }
        self.index(&entry);
        self.hint_at(&entry, Some((before.0, before.2)));
        self.stack.insert(id, entry);
    }

    /// Takes a row away.
    pub(super) fn remove(&mut self, id: StackRunId) {
        if let Some(entry) = self.stack.remove(&id) {
            self.unindex(&entry);
            if let Some(run) = self.runs.get_mut(&entry.row.task_run) {
                run.rows.remove(&id);
            }
            if let Some(parent) = entry.row.parent.and_then(|id| self.stack.get_mut(&id)) {
                parent.children.retain(|child| *child != id);
            }
        }
    }

    /// Moves rows whose time has come to the ready ones.
    pub(super) fn promote(&mut self, now: Timestamp) {
        while let Some((due, id)) = self.waiting.first().copied().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&(due, id));
            if let Some(mut entry) = self.stack.remove(&id) {
                entry.due_has_come = true;
                if let Some(ready) = self.ready_of(&entry.row) {
                    ready.insert(entry.ready_key());
                }
                self.stack.insert(id, entry);
            }
        }
    }

    fn ready_of(&mut self, row: &StackRun) -> Option<&mut BTreeSet<ReadyKey>> {
        if !is_claimable(row) {
            return None;
        }
        Some(if row.kind == StackKind::Frame {
            &mut self.ready_frames
        } else {
            &mut self.ready_calls
        })
    }

    fn hint_at(&mut self, entry: &Entry, before: Option<(StackStatus, bool)>) {
        let woken = entry.row.status == StackStatus::PendingResume
            && before.is_none_or(|(status, _)| status != StackStatus::PendingResume);
        let ready = is_claimable(&entry.row) && before.is_none_or(|(_, claimable)| !claimable);
        if woken || ready {
            self.hint(Hint::Work);
        }
    }

    fn index(&mut self, entry: &Entry) {
        let row = &entry.row;
        if let Some(run) = self.runs.get_mut(&row.task_run) {
            run.open += usize::from(!row.status.is_terminal());
            if row.status == StackStatus::Blocked {
                run.blocked.insert(row.id);
            }
            if is_open_wait(row) {
                let waits = run.waits.entry(row.path.clone()).or_default();
                waits.insert((row.created_at, row.id));
            }
        }
        if let Some(parent) = row.parent.and_then(|parent| self.stack.get_mut(&parent)) {
            parent.open += usize::from(!row.status.is_terminal());
            parent.unread += usize::from(is_unread(row));
        }
        if let Some(due) = row.due_at.filter(|_| !entry.due_has_come)
            && is_claimable(row)
        {
            self.waiting.insert((due, row.id));
        } else if let Some(ready) = self.ready_of(row) {
            ready.insert(entry.ready_key());
        }
        if let Some(due) = row.due_at.filter(|_| is_open_timer(row)) {
            self.timers.insert((due, row.id));
        }
        if let Some(owner) = row.owner {
            self.owned.entry(owner).or_default().insert(row.id);
        }
    }

    fn unindex(&mut self, entry: &Entry) {
        let row = &entry.row;
        if let Some(run) = self.runs.get_mut(&row.task_run) {
            run.open -= usize::from(!row.status.is_terminal());
            run.blocked.remove(&row.id);
            if is_open_wait(row)
                && let Some(waits) = run.waits.get_mut(&row.path)
            {
                waits.remove(&(row.created_at, row.id));
                if waits.is_empty() {
                    run.waits.remove(&row.path);
                }
            }
        }
        if let Some(parent) = row.parent.and_then(|parent| self.stack.get_mut(&parent)) {
            parent.open -= usize::from(!row.status.is_terminal());
            parent.unread -= usize::from(is_unread(row));
        }
        if let Some(due) = row.due_at {
            self.waiting.remove(&(due, row.id));
            self.timers.remove(&(due, row.id));
        }
        if let Some(ready) = self.ready_of(row) {
            ready.remove(&entry.ready_key());
        }
        if let Some(owner) = row.owner
            && let Some(rows) = self.owned.get_mut(&owner)
        {
            rows.remove(&row.id);
            if rows.is_empty() {
                self.owned.remove(&owner);
            }
        }
    }
}

impl Entry {
    pub(super) fn ready_key(&self) -> ReadyKey {
        let ready_at = self
            .row
            .due_at
            .map_or(self.ready_at, |due| due.max(self.ready_at));
        (Reverse(self.priority), ready_at, self.row.id)
    }

    /// The status that a frame has when nobody holds its VM: what its children ask for.
    pub(super) fn status_from_children(&self) -> StackStatus {
        if self.row.turn.0 == 0 {
            StackStatus::Pending
        } else if self.unread > 0 {
            StackStatus::PendingResume
        } else {
            StackStatus::SuspendedWaitingChild
        }
    }
}

/// Settled, and its frame has not been told.
pub(super) fn is_unread(row: &StackRun) -> bool {
    row.status.is_settled() && row.delivered_order.is_none()
}

fn is_claimable(row: &StackRun) -> bool {
    match row.kind {
        StackKind::Frame => {
            row.owner.is_none()
                && matches!(
                    row.status,
                    StackStatus::Pending | StackStatus::PendingResume
                )
        }
        StackKind::Call => row.status == StackStatus::Pending,
        StackKind::Timer | StackKind::Signal => false,
    }
}

fn is_open_timer(row: &StackRun) -> bool {
    row.kind == StackKind::Timer && row.status == StackStatus::Pending
}

fn is_open_wait(row: &StackRun) -> bool {
    row.kind == StackKind::Signal && row.status == StackStatus::Pending
}

/// What the run carries through its frames and calls.
pub(super) fn context_of(run: &TaskRun) -> RunContext {
    RunContext {
        task: run.task.clone(),
        version: run.version.clone(),
        priority: run.priority,
        correlation_id: run.correlation_id.clone(),
        traceparent: run.traceparent.clone(),
        deadline: run.deadline,
        labels: run.labels.clone(),
        cancel_by: run.cancel_by,
        ended: run.status.is_terminal(),
    }
}
