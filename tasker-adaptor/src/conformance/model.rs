//! Random operations on a store and on [`MemoryStorage`]: the answers and the rows must agree.
//!
//! The choices follow the rows of the reference, so that most operations do something; every tenth is wrong on purpose. A failure
//! names the seed, the step and the operation; `TASKER_SEED` repeats it.

use std::sync::Arc;

use uuid::Uuid;

use super::driver::{Fence, Op, Source, Turn, apply, picture};
use super::kit::{CaseResult, Kit, json, unknown_outcome, value};
use crate::{
    CallEnd, Failure, FrameNext, Journal as _, Json, MadeKind, Maintenance as _, MemoryStorage,
    NewSignal, NewStackRun, NewTaskRun, RunFilter, RunStatus, RunStore as _, StackKind, StackRun,
    StackRunId, StackStatus, Storage, StorageError, TaskName, TaskRunId, TaskVersion, Timestamp,
    UnblockDecision, WorkerId,
};

/// The same random operations on the store and on the memory reference give the same answers and the same rows.
pub async fn model_matches_memory(kit: Arc<Kit>) -> CaseResult {
    let seed = std::env::var("TASKER_SEED");
    let seed = seed.ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    run_model(&**kit.storage(), seed, kit.rounds(20_000)).await
}

/// So many random operations of this seed on an empty store and on the memory reference. Panics where they differ.
pub async fn run_model(storage: &dyn Storage, seed: u64, steps: usize) -> CaseResult {
    let mut world = World::new(seed);
    for step in 0..steps {
        let op = world.choose().await?;
        world.check(storage, &op, step).await?;
    }
    for run in world.runs.clone() {
        world.compare(storage, run, "the end").await?;
    }
    world.audit(storage, "the end").await
}

struct World {
    seed: u64,
    random: u64,
    now: Timestamp,
    ids: u128,
    reference: MemoryStorage,
    workers: Vec<WorkerId>,
    runs: Vec<TaskRunId>,
    submitted: Vec<NewTaskRun>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: seed,
            now: Timestamp::from_millis(1_700_000_000_000),
            ids: 0,
            reference: MemoryStorage::new(),
            workers: Vec::new(),
            runs: Vec::new(),
            submitted: Vec::new(),
        }
    }

    async fn check(&mut self, storage: &dyn Storage, op: &Op, step: usize) -> CaseResult {
        let expected = apply(op, &self.reference, self.now).await?;
        let got = match apply(op, storage, self.now).await {
            Err(StorageError::Unsupported { what }) if matches!(op, Op::Signal(_)) => {
                return Err(StorageError::Unsupported { what });
            }
            got => got?,
        };
        let place = format!("TASKER_SEED={} step {step}: {op:#?}", self.seed);
        assert_same(&place, &expected, &got);
        for run in runs_of(op) {
            self.compare(storage, run, &place).await?;
        }
        if step % 100 == 99 {
            for run in self.runs.iter().rev().take(6) {
                self.compare(storage, *run, &place).await?;
            }
            self.audit(storage, &place).await?;
        }
        Ok(())
    }

    async fn compare(&self, storage: &dyn Storage, run: TaskRunId, place: &str) -> CaseResult {
        let expected = picture(run, &self.reference).await?;
        let got = picture(run, storage).await?;
        assert_same(place, &expected, &got);
        Ok(())
    }

    async fn audit(&self, storage: &dyn Storage, place: &str) -> CaseResult {
        for audit in [self.reference.audit().await?, storage.audit().await?] {
            let broken: Vec<_> = audit.iter().map(ToString::to_string).collect();
            assert!(broken.is_empty(), "{place}\nthe audit finds {broken:#?}");
        }
        Ok(())
    }

    // Choices.

    async fn choose(&mut self) -> Result<Op, StorageError> {
        self.now = self.now.plus_millis(1 + self.below(20) as i64);
        if self.workers.len() < 3 || self.one_in(60) {
            let worker = WorkerId::from_parts(self.now, self.id());
            self.workers.push(worker);
            if self.workers.len() > 5 {
                self.workers.remove(0);
            }
            return Ok(Op::Register(worker));
        }
        if self.runs.is_empty() || self.one_in(12) {
            return Ok(self.submit());
        }
        let worker = self.worker();
        let run = self.a_run();
        let rows = self.reference.stack_runs(run).await?;
        Ok(match self.below(100) {
            0..10 => Op::Heartbeat(worker),
            10..22 => Op::ClaimFrames(worker, self.maybe_row(&rows, StackKind::Frame)),
            22..30 => Op::ClaimCalls(worker, self.maybe_row(&rows, StackKind::Call)),
            30..60 => self.commit(run, &rows).await?,
            60..68 => self.finish(run, &rows).await?,
            68..71 => match self.row(&rows, StackKind::Frame) {
                Some(frame) => Op::ReleaseFrame(self.fence(&frame)),
                None => Op::NextDue,
            },
            71..73 => match self.row(&rows, StackKind::Call) {
                Some(call) => Op::ReleaseCall(self.fence(&call), self.one_in(2)),
                None => Op::NextDue,
            },
            73..75 => match self.row(&rows, StackKind::Frame) {
                Some(frame) => Op::Reload(frame.id, frame.owner.unwrap_or(worker)),
                None => Op::NextDue,
            },
            75..78 => Op::FireTimers(self.below(60) as i64),
            78..80 => Op::Reap(worker),
            80 if self.one_in(3) => Op::Retire(worker),
            81 => Op::Cancel(run),
            82 => self.request_cancel(run).await?,
            83 => Op::OverdueCancels,
            84..87 => self.unblock(run, &rows),
            87..91 => self.signal(run).await?,
            91..94 => Op::Fold(run),
            94 => Op::DeleteFolded,
            95 => Op::List(RunFilter {
                before: self.one_in(2).then_some(run),
                ..RunFilter::default()
            }),
            96 => Op::Owned(worker, self.one_in(2)),
            97 | 98 => match self.row(&rows, StackKind::Frame) {
                Some(frame) => Op::Load(frame.id),
                None => Op::NextDue,
            },
            _ => Op::NextDue,
        })
    }

    fn submit(&mut self) -> Op {
        if self.one_in(6)
            && let Some(known) = self.submitted.last()
        {
            let mut again = known.clone();
            if self.one_in(3) {
                "other".clone_into(&mut again.request_hash);
            }
            return Op::Submit(vec![again]);
        }
        let runs: Vec<_> = (0..=self.below(2)).map(|_| self.new_run()).collect();
        self.runs.extend(runs.iter().map(|run| run.id));
        self.submitted.clone_from(&runs);
        Op::Submit(runs)
    }

    fn new_run(&mut self) -> NewTaskRun {
        let key = self.one_in(3).then(|| format!("key {}", self.ids));
        NewTaskRun {
            id: TaskRunId::from_parts(self.now, self.id()),
            root: self.stack_id(),
            task: TaskName::new("model"),
            version: TaskVersion::new("v"),
            input: self.json(),
            idempotency_key: key,
            request_hash: "hash".to_owned(),
            priority: self.below(3) as i32,
            run_at: self.now.plus_millis(self.below(30) as i64),
            deadline: None,
            labels: std::collections::BTreeMap::default(),
            correlation_id: self.one_in(2).then(|| "c".to_owned()),
            traceparent: None,
        }
    }

    async fn commit(&mut self, run: TaskRunId, rows: &[StackRun]) -> Result<Op, StorageError> {
        let mut turns: Vec<Turn> = Vec::new();
        let held = rows
            .iter()
            .filter(|row| row.kind == StackKind::Frame && row.owner.is_some());
        for frame in held {
            if turns.len() < 2 && (turns.is_empty() || self.one_in(2)) {
                turns.push(self.turn(run, frame).await?);
            }
        }
        if turns.is_empty() || self.one_in(15) {
            let Some(frame) = self.row(rows, StackKind::Frame) else {
                return Ok(Op::NextDue);
            };
            turns = vec![self.turn(run, &frame).await?];
        }
        Ok(Op::Commit(turns))
    }

    async fn turn(&mut self, run: TaskRunId, frame: &StackRun) -> Result<Turn, StorageError> {
        let children = match self.reference.load(frame.id).await? {
            Some(journal) => journal.children,
            None => Vec::new(),
        };
        let is_blocked = self.status(run).await? == Some(RunStatus::Blocked);
        let mut delivered = Vec::new();
        let mut dropped = Vec::new();
        let mut left = 0;
        for child in &children {
            if let Some(source) = self.source(frame, child) {
                delivered.push((child.id, child.seq, source));
            } else if !child.status.is_terminal()
                && child.kind != StackKind::Frame
                && self.one_in(12)
            {
                dropped.push(child.id);
            } else if !child.status.is_terminal() || is_undelivered(child) {
                left += 1;
            }
        }
        let fence = self.fence(frame);
        let wants_end = left == 0 || self.one_in(6);
        let may_block = self.one_in(20) && !self.has_ended_frame(run).await?;
        let next = match (wants_end, may_block) {
            (_, true) => {
                delivered.clear();
                dropped.clear();
                FrameNext::Blocked(unknown_outcome())
            }
            (true, _) if !is_blocked && self.one_in(2) => match self.below(8) {
                0 => FrameNext::Cancelled,
                1 | 2 => FrameNext::Failed(Failure::new("Error", "of the model")),
                _ => FrameNext::Completed(self.one_in(2).then(|| self.json())),
            },
            _ => FrameNext::Suspended,
        };
        let made = match next {
            FrameNext::Blocked(_) => Vec::new(),
            _ => self.made(frame),
        };
        let number = if self.one_in(12) {
            frame.turn.next()
        } else {
            frame.turn
        };
        Ok(Turn {
            fence,
            run,
            number,
            delivered,
            made,
            dropped,
            next,
        })
    }

    /// How a child may be delivered now, or now and then how it may not.
    fn source(&mut self, frame: &StackRun, child: &StackRun) -> Option<Source> {
        if child.delivered_order.is_some() || child.status == StackStatus::Cancelled {
            return self.one_in(60).then_some(Source::Recorded);
        }
        if child.status.is_settled() {
            return (!self.one_in(4)).then_some(Source::Recorded);
        }
        let wrong = self.offset();
        match child.kind {
            StackKind::Call if child.owner.is_some() && child.owner == frame.owner => {
                self.one_in(2).then(|| Source::Local(wrong, self.outcome()))
            }
            StackKind::Call if self.one_in(40) => Some(Source::Local(wrong, self.outcome())),
            StackKind::Timer if child.due_at.is_some_and(|due| due <= self.now) => {
                self.one_in(2).then_some(Source::Timer)
            }
            _ => None,
        }
    }

    fn made(&mut self, frame: &StackRun) -> Vec<NewStackRun> {
        let count = self.below(4);
        let mut made: Vec<NewStackRun> = Vec::new();
        for _ in 0..count {
            let claimed = self.one_in(2);
            let kind = match self.below(10) {
                0..6 => MadeKind::Call {
                    service: "shop".to_owned(),
                    path: "find".to_owned(),
                    args: self.json(),
                    policy: self.one_in(3).then(|| self.json()),
                },
                6 | 7 if frame.depth < 3 => MadeKind::Frame {
                    task: TaskName::new("inner"),
                    version: TaskVersion::new("v"),
                    input: self.json(),
                    depth: frame.depth + 1,
                },
                8 if frame.parent.is_none() && made.is_empty() => MadeKind::Signal {
                    name: "go".to_owned(),
                },
                _ => MadeKind::Timer {
                    path: "sleep".to_owned(),
                    args: json("5"),
                    due_at: self.now.plus_millis(self.below(200) as i64),
                },
            };
            let id = self.stack_id();
            made.push(NewStackRun { id, kind, claimed });
        }
        made
    }

    async fn finish(&mut self, run: TaskRunId, rows: &[StackRun]) -> Result<Op, StorageError> {
        let Some(call) = self.row(rows, StackKind::Call) else {
            return Ok(Op::NextDue);
        };
        let fence = self.fence(&call);
        let may_block = !self.has_ended_frame(run).await?;
        let end = match self.below(8) {
            0 => CallEnd::RetryAt {
                not_before: self.now.plus_millis(self.below(50) as i64),
                failure: Failure::new("ServiceError", "busy"),
            },
            1 if may_block => CallEnd::Blocked(unknown_outcome()),
            _ => CallEnd::Settled(self.outcome()),
        };
        Ok(Op::Finish(fence, end))
    }

    async fn request_cancel(&mut self, run: TaskRunId) -> Result<Op, StorageError> {
        let known = self.reference.run(run).await?;
        let asked = known.is_some_and(|run| run.cancel_by.is_some());
        Ok(if asked || self.one_in(2) {
            Op::Cancel(run)
        } else {
            Op::RequestCancel(run)
        })
    }

    fn unblock(&mut self, run: TaskRunId, rows: &[StackRun]) -> Op {
        let blocked = rows.iter().filter(|row| row.status == StackStatus::Blocked);
        let ids: Vec<_> = blocked.map(|row| row.id).collect();
        let row = (ids.len() > 1).then(|| ids[self.below(ids.len() as u64) as usize]);
        let many = ids.len() > 1;
        let decision = match self.below(3) {
            0 if !many => UnblockDecision::Settle(self.outcome()),
            _ => UnblockDecision::Retry,
        };
        Op::Unblock(run, row, decision)
    }

    async fn signal(&mut self, run: TaskRunId) -> Result<Op, StorageError> {
        let open = self
            .status(run)
            .await?
            .is_some_and(|status| !status.is_terminal());
        if !open {
            return Ok(Op::Load(self.stack_id()));
        }
        Ok(Op::Signal(NewSignal {
            id: Uuid::from_u128(self.id()),
            run,
            name: "go".to_owned(),
            payload: self.json(),
        }))
    }

    // What is there.

    async fn status(&self, run: TaskRunId) -> Result<Option<RunStatus>, StorageError> {
        Ok(self.reference.run(run).await?.map(|run| run.status))
    }

    /// Rows below an ended frame fail instead of being blocked, with a text that the contract leaves open.
    async fn has_ended_frame(&self, run: TaskRunId) -> Result<bool, StorageError> {
        let rows = self.reference.stack_runs(run).await?;
        Ok(rows
            .iter()
            .any(|row| row.kind == StackKind::Frame && row.status.is_terminal()))
    }

    fn a_run(&mut self) -> TaskRunId {
        let young = self.runs.len().min(6) as u64;
        let back = if self.one_in(20) {
            self.below(self.runs.len() as u64)
        } else {
            self.below(young)
        };
        self.runs[self.runs.len() - 1 - back as usize]
    }

    fn worker(&mut self) -> WorkerId {
        let index = self.below(self.workers.len() as u64);
        self.workers[index as usize]
    }

    /// An open row of the kind if there is one, else any.
    fn row(&mut self, rows: &[StackRun], kind: StackKind) -> Option<StackRun> {
        let of_kind = || rows.iter().filter(move |row| row.kind == kind);
        let open: Vec<_> = of_kind().filter(|row| row.owner.is_some()).collect();
        let all: Vec<_> = of_kind().collect();
        let from = if open.is_empty() || self.one_in(8) {
            all
        } else {
            open
        };
        if from.is_empty() {
            return None;
        }
        let index = self.below(from.len() as u64) as usize;
        Some(from[index].clone())
    }

    fn maybe_row(&mut self, rows: &[StackRun], kind: StackKind) -> Option<StackRunId> {
        if self.one_in(3) {
            return None;
        }
        let of_kind: Vec<_> = rows.iter().filter(|row| row.kind == kind).collect();
        if of_kind.is_empty() {
            return None;
        }
        let index = self.below(of_kind.len() as u64) as usize;
        Some(of_kind[index].id)
    }

    fn fence(&mut self, row: &StackRun) -> Fence {
        let worker = match row.owner {
            Some(owner) if !self.one_in(20) => owner,
            _ => self.worker(),
        };
        Fence {
            row: row.id,
            worker,
            offset: self.offset(),
        }
    }

    /// Now and then an epoch that is not the row's.
    fn offset(&mut self) -> i32 {
        match self.below(30) {
            0 => 1,
            1 => -1,
            _ => 0,
        }
    }

    fn outcome(&mut self) -> crate::Outcome {
        match self.below(4) {
            0 => crate::Outcome::Completed(None),
            1 => crate::Outcome::Failed(Failure::new("ServiceError", "no")),
            _ => value(self.below(100) as u32),
        }
    }

    fn json(&mut self) -> Json {
        let texts = [
            "null",
            r#"{"b":1.0,"a":"\u0000"}"#,
            "[1e3, 2]",
            r#""\ud800""#,
        ];
        json(texts[self.below(texts.len() as u64) as usize])
    }

    fn id(&mut self) -> u128 {
        self.ids += 1;
        self.ids
    }

    fn stack_id(&mut self) -> StackRunId {
        StackRunId::from_parts(self.now, self.id())
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// A number below `end`, by splitmix64.
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

fn is_undelivered(row: &StackRun) -> bool {
    row.status.is_settled() && row.delivered_order.is_none()
}

/// The runs that an operation names.
fn runs_of(op: &Op) -> Vec<TaskRunId> {
    match op {
        Op::Submit(runs) => runs.iter().map(|run| run.id).collect(),
        Op::Commit(turns) => turns.iter().map(|turn| turn.run).take(1).collect(),
        Op::Cancel(run) | Op::RequestCancel(run) | Op::Fold(run) | Op::Unblock(run, _, _) => {
            vec![*run]
        }
        Op::Signal(signal) => vec![signal.run],
        _ => Vec::new(),
    }
}

/// Panics with the first line in which the texts differ, and what is around it.
fn assert_same(place: &str, expected: &str, got: &str) {
    if expected == got {
        return;
    }
    let differs = expected.lines().zip(got.lines()).position(|(a, b)| a != b);
    let at = differs.unwrap_or_else(|| expected.lines().count().min(got.lines().count()));
    let around = |text: &str| {
        let lines = text.lines().skip(at.saturating_sub(30)).take(40);
        lines.collect::<Vec<_>>().join("\n")
    };
    panic!(
        "{place}\nthe reference and the store differ at line {at} of the answer or rows\n--- reference\n{}\n--- store\n{}",
        around(expected),
        around(got)
    );
}
