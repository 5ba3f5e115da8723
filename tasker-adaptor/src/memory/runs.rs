//! Task runs and their call trees: submit, list, cancel, unblock, load.

use async_trait::async_trait;

use super::MemoryStorage;
use super::settle::FrameEnd;
use super::state::{RunEntry, State, is_unread};
use crate::{
    CallSeq, Cancelled, Epoch, Failure, FrameJournal, Hint, Journal, NewTaskRun, Outcome,
    RunFilter, RunPage, RunStatus, RunStore, StackKind, StackRun, StackRunId, StackStatus,
    StorageError, Submitted, TaskRun, TaskRunId, Timestamp, TurnNo, Unblock, UnblockDecision,
};

#[async_trait]
impl RunStore for MemoryStorage {
    async fn submit(
        &self,
        runs: Vec<NewTaskRun>,
        now: Timestamp,
    ) -> Result<Vec<Result<Submitted, StorageError>>, StorageError> {
        Ok(self.step(|state| runs.into_iter().map(|new| state.submit(new, now)).collect()))
    }

    async fn run(&self, id: TaskRunId) -> Result<Option<TaskRun>, StorageError> {
        Ok(self.step(|state| state.runs.get(&id).map(|entry| entry.run.clone())))
    }

    async fn runs(&self, filter: &RunFilter, max: usize) -> Result<RunPage, StorageError> {
        Ok(self.step(|state| state.list_runs(filter, max)))
    }

    async fn cancel(&self, run: TaskRunId, now: Timestamp) -> Result<Cancelled, StorageError> {
        self.step(|state| {
            let status = state.known_status(run)?;
            if status.is_terminal() {
                return Ok(Cancelled::AlreadyEnded(status));
            }
            state.cancel_run(run, now);
            Ok(Cancelled::Done)
        })
    }

    async fn request_cancel(
        &self,
        run: TaskRunId,
        cancel_by: Timestamp,
        now: Timestamp,
    ) -> Result<Cancelled, StorageError> {
        self.step(|state| state.request_cancel(run, cancel_by, now))
    }

    async fn overdue_cancels(
        &self,
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<TaskRunId>, StorageError> {
        Ok(self.step(|state| {
            let asked = state.cancel_by.iter();
            let overdue = asked.take_while(|(cancel_by, _)| *cancel_by <= now);
            overdue.map(|(_, run)| *run).take(max).collect()
        }))
    }

    async fn unblock(&self, unblock: Unblock) -> Result<u32, StorageError> {
        self.step(|state| state.unblock(&unblock))
    }
}

#[async_trait]
impl Journal for MemoryStorage {
    async fn load(&self, frame: StackRunId) -> Result<Option<FrameJournal>, StorageError> {
        Ok(self.step(|state| {
            Some(FrameJournal {
                frame: state.row(frame)?.clone(),
                children: state.children(frame).cloned().collect(),
            })
        }))
    }

    async fn unread(&self, frame: StackRunId) -> Result<Vec<StackRun>, StorageError> {
        Ok(self.step(|state| {
            let children = state.children(frame);
            children.filter(|row| is_unread(row)).cloned().collect()
        }))
    }

    async fn stack_run(&self, id: StackRunId) -> Result<Option<StackRun>, StorageError> {
        Ok(self.step(|state| state.row(id).cloned()))
    }

    async fn stack_runs(&self, run: TaskRunId) -> Result<Vec<StackRun>, StorageError> {
        Ok(self.step(|state| state.call_tree(run)))
    }
}

impl State {
    fn submit(&mut self, new: NewTaskRun, now: Timestamp) -> Result<Submitted, StorageError> {
        let key = new.idempotency_key.as_ref();
        let known = self
            .runs
            .get(&new.id)
            .or_else(|| self.runs.get(self.keys.get(key?)?));
        if let Some(known) = known {
            let existing = known.run.id;
            if known.request_hash != new.request_hash {
                return Err(StorageError::IdempotencyConflict { existing });
            }
            return Ok(Submitted {
                id: existing,
                created: false,
            });
        }
        if self.stack.contains_key(&new.root) {
            return Err(StorageError::Misuse {
                what: format!("root frame {} belongs to another run", new.root),
            });
        }
        let (id, priority) = (new.id, new.priority);
        if let Some(key) = &new.idempotency_key {
            self.keys.insert(key.clone(), id);
        }
        let root = root_row(&new, now);
        self.runs.insert(id, run_entry(new, now));
        self.insert(root, priority, now);
        Ok(Submitted { id, created: true })
    }

    fn list_runs(&self, filter: &RunFilter, max: usize) -> RunPage {
        let fits = |run: &TaskRun| {
            (filter.statuses.is_empty() || filter.statuses.contains(&run.status))
                && filter.task.as_ref().is_none_or(|task| *task == run.task)
                && filter
                    .labels
                    .iter()
                    .all(|(name, value)| run.labels.get(name) == Some(value))
        };
        let older = match filter.before {
            Some(before) => self.runs.range(..before),
            None => self.runs.range(..),
        };
        let mut found = older
            .rev()
            .map(|(_, entry)| &entry.run)
            .filter(|run| fits(run));
        let runs: Vec<_> = found.by_ref().take(max).map(without_record).collect();
        let more = found.next().is_some();
        RunPage {
            next: runs.last().map(|run| run.id).filter(|_| more),
            runs,
        }
    }

    fn known_status(&self, run: TaskRunId) -> Result<RunStatus, StorageError> {
        self.run_status(run).ok_or_else(|| StorageError::NotFound {
            what: format!("task run {run}"),
        })
    }

    fn request_cancel(
        &mut self,
        run: TaskRunId,
        cancel_by: Timestamp,
        now: Timestamp,
    ) -> Result<Cancelled, StorageError> {
        let status = self.known_status(run)?;
        if status.is_terminal() {
            return Ok(Cancelled::AlreadyEnded(status));
        }
        let begun = self
            .runs
            .get(&run)
            .and_then(|entry| self.row(entry.root))
            .is_some_and(|root| root.turn.0 > 0);
        if !begun || status == RunStatus::Blocked {
            self.cancel_run(run, now);
            return Ok(Cancelled::Done);
        }
        let asked = self.runs.get(&run).and_then(|entry| entry.run.cancel_by);
        if let Some(asked) = asked {
            self.cancel_by.remove(&(asked, run));
        }
        let cancel_by = asked.map_or(cancel_by, |asked| asked.min(cancel_by));
        self.cancel_by.insert((cancel_by, run));
        self.edit_run(run, |run| run.cancel_by = Some(cancel_by));
        if asked.is_none() {
            self.fail_open_rows(run, now);
        }
        self.hint(Hint::Cancel(run));
        Ok(Cancelled::Asked)
    }

    /// Every await of the run fails with `CancelledError`; what nobody awaits is cancelled.
    fn fail_open_rows(&mut self, run: TaskRunId, now: Timestamp) {
        let open = self.open_rows(run);
        let (detached, awaited): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|id| self.is_detached(*id));
        for id in detached {
            self.cancel_row(id, now);
        }
        for id in awaited {
            let settles = self.row(id).is_some_and(|row| {
                row.parent.is_some() && (row.kind != StackKind::Frame || row.turn.0 == 0)
            });
            if settles {
                self.settle(id, Outcome::Failed(Failure::cancelled()), now);
                self.change(id, now, |row| row.epoch = row.epoch.next());
            }
        }
    }

    fn unblock(&mut self, unblock: &Unblock) -> Result<u32, StorageError> {
        self.known_status(unblock.run)?;
        let blocked: Vec<_> = self
            .runs
            .get(&unblock.run)
            .into_iter()
            .flat_map(|entry| entry.blocked.iter().copied())
            .filter(|id| unblock.row.is_none_or(|only| only == *id))
            .collect();
        for id in &blocked {
            self.unblock_row(*id, &unblock.decision, unblock.now);
        }
        self.refresh_blocked(unblock.run);
        Ok(blocked.len() as u32)
    }

    fn unblock_row(&mut self, id: StackRunId, decision: &UnblockDecision, now: Timestamp) {
        let Some(entry) = self.stack.get(&id) else {
            return;
        };
        let is_frame = entry.row.kind == StackKind::Frame;
        let rest = entry.status_from_children();
        match decision {
            UnblockDecision::Settle(outcome) if is_frame => {
                self.end_frame(id, FrameEnd::With(outcome.clone()), now);
            }
            UnblockDecision::Settle(outcome) => self.settle(id, outcome.clone(), now),
            UnblockDecision::Retry => self.change(id, now, |row| {
                row.blocked = None;
                if is_frame {
                    row.status = rest;
                    row.attempt = 0;
                } else {
                    row.status = StackStatus::Pending;
                    row.in_doubt = false;
                    row.take_overs = 0;
                }
            }),
        }
    }

    /// Parents before children, then by `seq`.
    fn call_tree(&self, run: TaskRunId) -> Vec<StackRun> {
        let mut tree = Vec::new();
        let mut next: Vec<_> = self
            .runs
            .get(&run)
            .map(|entry| entry.root)
            .into_iter()
            .collect();
        while !next.is_empty() {
            let mut below = Vec::new();
            for id in next {
                if let Some(entry) = self.stack.get(&id) {
                    tree.push(entry.row.clone());
                    below.extend(&entry.children);
                }
            }
            next = below;
        }
        tree
    }
}

fn without_record(run: &TaskRun) -> TaskRun {
    TaskRun {
        record: None,
        ..run.clone()
    }
}

fn root_row(new: &NewTaskRun, now: Timestamp) -> StackRun {
    StackRun {
        id: new.root,
        task_run: new.id,
        parent: None,
        kind: StackKind::Frame,
        seq: CallSeq(0),
        depth: 0,
        status: StackStatus::Pending,
        owner: None,
        epoch: Epoch(0),
        turn: TurnNo(0),
        made_count: 0,
        delivered_count: 0,
        delivered_order: None,
        delivered_turn: None,
        delivered_at: None,
        attempt: 0,
        in_doubt: false,
        take_overs: 0,
        due_at: Some(new.run_at),
        service: "task".to_owned(),
        path: new.task.as_str().to_owned(),
        args: None,
        policy: None,
        version: None,
        outcome: None,
        blocked: None,
        created_at: now,
        started_at: None,
        settled_at: None,
    }
}

fn run_entry(new: NewTaskRun, now: Timestamp) -> RunEntry {
    RunEntry {
        root: new.root,
        request_hash: new.request_hash,
        rows: std::collections::BTreeSet::new(),
        open: 0,
        blocked: std::collections::BTreeSet::new(),
        waits: std::collections::BTreeMap::new(),
        signals: Vec::new(),
        logs: Vec::new(),
        run: TaskRun {
            id: new.id,
            task: new.task,
            version: new.version,
            status: RunStatus::Queued,
            input: new.input,
            outcome: None,
            blocked: None,
            idempotency_key: new.idempotency_key,
            priority: new.priority,
            run_at: new.run_at,
            deadline: new.deadline,
            labels: new.labels,
            correlation_id: new.correlation_id,
            traceparent: new.traceparent,
            created_at: now,
            started_at: None,
            ended_at: None,
            cancel_by: None,
            folded_at: None,
            record: None,
        },
    }
}
