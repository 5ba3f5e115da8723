//! The one helper of all cases: ids from a counter, a clock that is moved by hand, turns in few words.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use futures::future::BoxFuture;
use uuid::Uuid;

use super::harness::Harness;
use crate::{
    BlockedReason, CallEnd, CallFinish, CallSeq, Claim, CommitRefused, Delivery, DeliverySource,
    Epoch, FrameNext, Json, Lease, LogLevel, LogLine, MadeKind, NewStackRun, NewTaskRun, NewWorker,
    Outcome, Reaped, StackRun, StackRunId, StackStatus, Storage, StorageError, TaskName, TaskRun,
    TaskRunId, TaskVersion, Timestamp, TurnCommit, TurnNo, TurnReceipt, WorkerId,
};

/// Lease of the suite's workers.
pub(super) const LEASE_MS: i64 = 30_000;

/// How a case ends. `Unsupported` is reported, any other error fails the case.
pub type CaseResult = Result<(), StorageError>;

/// A store with a clock and a counter of ids.
pub struct Kit {
    harness: Harness,
    now: AtomicI64,
    ids: AtomicU64,
}

/// A frame in a worker's hands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) frame: StackRunId,
    pub(super) run: TaskRunId,
    pub(super) lease: Lease,
    pub(super) turn: TurnNo,
}

/// A child as its frame knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child {
    pub(super) id: StackRunId,
    pub(super) seq: CallSeq,
    pub(super) lease: Lease,
}

impl Kit {
    /// A kit over a fresh store.
    pub fn new(harness: Harness) -> Arc<Self> {
        Arc::new(Self {
            harness,
            now: AtomicI64::new(1_700_000_000_000),
            ids: AtomicU64::new(1),
        })
    }

    pub(super) fn harness(&self) -> &Harness {
        &self.harness
    }

    pub(super) fn storage(&self) -> &Arc<dyn Storage> {
        self.harness.storage()
    }

    pub(super) fn rounds(&self, full: usize) -> usize {
        self.harness.rounds(full)
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }

    /// Moves the clock; answers the new time.
    pub(super) fn advance(&self, millis: i64) -> Timestamp {
        self.now.fetch_add(millis, Ordering::SeqCst);
        self.now()
    }

    fn next_id(&self) -> u128 {
        u128::from(self.ids.fetch_add(1, Ordering::SeqCst))
    }

    pub(super) fn stack_id(&self) -> StackRunId {
        StackRunId::from_parts(self.now(), self.next_id())
    }

    pub(super) fn run_id(&self) -> TaskRunId {
        TaskRunId::from_parts(self.now(), self.next_id())
    }

    pub(super) fn signal_id(&self) -> Uuid {
        self.run_id().as_uuid()
    }

    /// Runs the futures at the same time.
    pub(super) async fn at_once<T: Send + 'static>(
        &self,
        futures: Vec<BoxFuture<'static, T>>,
    ) -> Vec<T> {
        self.harness.at_once(futures).await
    }

    // Workers.

    /// A live worker.
    pub(super) async fn worker(&self) -> Result<WorkerId, StorageError> {
        let id = WorkerId::from_parts(self.now(), self.next_id());
        self.storage()
            .register(NewWorker {
                id,
                name: "suite".to_owned(),
                now: self.now(),
                lease_ms: LEASE_MS,
            })
            .await?;
        Ok(id)
    }

    /// Time passes, the others beat, the silent one is taken over whole by the first of them.
    pub(super) async fn take_over(&self, living: &[WorkerId]) -> Result<Reaped, StorageError> {
        let now = self.advance(LEASE_MS + 1);
        for worker in living {
            assert!(self.storage().heartbeat(*worker, now, LEASE_MS).await?);
        }
        let mut all = Reaped::default();
        loop {
            let some = self.storage().reap(living[0], now, 1_000).await?;
            all.workers.extend(some.workers);
            all.frames += some.frames;
            all.calls += some.calls;
            if !some.more {
                return Ok(all);
            }
        }
    }

    // Runs.

    pub(super) fn new_run(&self) -> NewTaskRun {
        NewTaskRun {
            id: self.run_id(),
            root: self.stack_id(),
            task: TaskName::new("suite"),
            version: TaskVersion::new("v1"),
            input: json(r#"{"b":1.0,"a":[]}"#),
            idempotency_key: None,
            request_hash: "hash".to_owned(),
            priority: 0,
            run_at: self.now(),
            deadline: None,
            labels: std::collections::BTreeMap::default(),
            correlation_id: None,
            traceparent: None,
        }
    }

    /// Submits; the run and its root frame.
    pub(super) async fn submit(&self) -> Result<(TaskRunId, StackRunId), StorageError> {
        let new = self.new_run();
        let (id, root) = (new.id, new.root);
        self.submit_new(new).await?;
        Ok((id, root))
    }

    pub(super) async fn submit_new(&self, new: NewTaskRun) -> Result<(), StorageError> {
        let answers = self.storage().submit(vec![new], self.now()).await?;
        for answer in answers {
            assert!(answer?.created, "a new run is created");
        }
        Ok(())
    }

    pub(super) async fn run(&self, id: TaskRunId) -> Result<TaskRun, StorageError> {
        let run = self.storage().run(id).await?;
        Ok(run.expect("the case submitted this run"))
    }

    pub(super) async fn row(&self, id: StackRunId) -> Result<StackRun, StorageError> {
        let row = self.storage().stack_run(id).await?;
        Ok(row.expect("the case made this row"))
    }

    pub(super) async fn status(&self, id: StackRunId) -> Result<StackStatus, StorageError> {
        Ok(self.row(id).await?.status)
    }

    // Claims.

    pub(super) fn claim(&self, worker: WorkerId, max: usize) -> Claim {
        Claim {
            worker,
            now: self.now(),
            max,
            only: None,
        }
    }

    pub(super) fn claim_of(&self, worker: WorkerId, only: StackRunId) -> Claim {
        Claim {
            only: Some(only),
            ..self.claim(worker, 1)
        }
    }

    /// Takes this frame if it can be had.
    pub(super) async fn try_take(
        &self,
        worker: WorkerId,
        frame: StackRunId,
    ) -> Result<Option<Held>, StorageError> {
        let claim = self.claim_of(worker, frame);
        let claimed = self.storage().claim_frames(claim).await?;
        Ok(claimed.first().map(|claimed| held(&claimed.row, worker)))
    }

    /// Takes this frame.
    pub(super) async fn take(
        &self,
        worker: WorkerId,
        frame: StackRunId,
    ) -> Result<Held, StorageError> {
        let taken = self.try_take(worker, frame).await?;
        Ok(taken.expect("the frame is claimable"))
    }

    /// Takes this call if it can be had.
    pub(super) async fn try_take_call(
        &self,
        worker: WorkerId,
        call: StackRunId,
    ) -> Result<Option<Child>, StorageError> {
        let claim = self.claim_of(worker, call);
        let claimed = self.storage().claim_calls(claim).await?;
        Ok(claimed.first().map(|claimed| child(&claimed.row, worker)))
    }

    /// Takes this call.
    pub(super) async fn take_call(
        &self,
        worker: WorkerId,
        call: StackRunId,
    ) -> Result<Child, StorageError> {
        let taken = self.try_take_call(worker, call).await?;
        Ok(taken.expect("the call is claimable"))
    }

    /// A new run whose root frame the worker holds.
    pub(super) async fn begin(&self, worker: WorkerId) -> Result<Held, StorageError> {
        let (_, root) = self.submit().await?;
        self.take(worker, root).await
    }

    /// A new run whose root frame made these children in its first turn and waits for them, hot.
    pub(super) async fn waiting(
        &self,
        worker: WorkerId,
        made: Vec<NewStackRun>,
    ) -> Result<(Held, Vec<Child>), StorageError> {
        let held = self.begin(worker).await?;
        self.make(held, made).await
    }

    /// The frame's next turn makes these children and suspends.
    pub(super) async fn make(
        &self,
        held: Held,
        made: Vec<NewStackRun>,
    ) -> Result<(Held, Vec<Child>), StorageError> {
        let first = self.row(held.frame).await?.made_count + 1;
        let children = made
            .iter()
            .zip(first..)
            .map(|(new, seq)| Child {
                id: new.id,
                seq: CallSeq(seq),
                lease: Lease {
                    worker: held.lease.worker,
                    epoch: Epoch(1),
                },
            })
            .collect();
        let turn = TurnCommit {
            made,
            ..self.turn(held)
        };
        self.applied(turn).await?;
        Ok((held.next(), children))
    }

    // Turns.

    /// A turn that suspends and does nothing else.
    pub(super) fn turn(&self, held: Held) -> TurnCommit {
        TurnCommit {
            frame: held.frame,
            task_run: held.run,
            turn: held.turn,
            lease: held.lease,
            time: self.now(),
            delivered: Vec::new(),
            made: Vec::new(),
            dropped: Vec::new(),
            logs: Vec::new(),
            next: FrameNext::Suspended,
        }
    }

    /// A turn that ends the frame with a value.
    pub(super) fn last_turn(&self, held: Held) -> TurnCommit {
        TurnCommit {
            next: FrameNext::Completed(Some(json("42"))),
            ..self.turn(held)
        }
    }

    /// Commits one turn; an error of the batch is passed on.
    pub(super) async fn commit(
        &self,
        turn: TurnCommit,
    ) -> Result<Result<TurnReceipt, CommitRefused>, StorageError> {
        let mut answers = self.storage().commit(Arc::from([turn])).await?;
        assert_eq!(answers.len(), 1, "one answer a turn");
        Ok(answers.remove(0))
    }

    /// Commits one turn that must be applied now.
    pub(super) async fn applied(&self, turn: TurnCommit) -> Result<TurnReceipt, StorageError> {
        let receipt = self.commit(turn).await?;
        let receipt = receipt.expect("the turn is applied");
        assert!(!receipt.already_applied, "the turn is new");
        Ok(receipt)
    }

    /// Commits one turn that must be refused.
    pub(super) async fn refused(&self, turn: TurnCommit) -> Result<CommitRefused, StorageError> {
        let answer = self.commit(turn).await?;
        Ok(answer.expect_err("the turn is refused"))
    }

    /// Records the end of an attempt.
    pub(super) async fn end_call(
        &self,
        call: Child,
        end: CallEnd,
    ) -> Result<Result<bool, CommitRefused>, StorageError> {
        let finish = CallFinish {
            call: call.id,
            lease: call.lease,
            end,
        };
        let finishes = Arc::from([finish]);
        let mut answers = self.storage().finish_calls(finishes, self.now()).await?;
        assert_eq!(answers.len(), 1, "one answer a finish");
        Ok(answers.remove(0))
    }

    /// Settles a call with a value.
    pub(super) async fn settle(
        &self,
        call: Child,
    ) -> Result<Result<bool, CommitRefused>, StorageError> {
        self.end_call(call, CallEnd::Settled(value(1))).await
    }

    /// Settles a call that must take it now.
    pub(super) async fn settled(&self, call: Child) -> CaseResult {
        assert_eq!(self.settle(call).await?, Ok(true), "the call settles");
        Ok(())
    }

    /// Gives a frame back.
    pub(super) async fn park(&self, held: Held) -> Result<Result<(), CommitRefused>, StorageError> {
        let frames = [(held.frame, held.lease)];
        let mut answers = self.storage().release_frames(&frames, self.now()).await?;
        assert_eq!(answers.len(), 1, "one answer a release");
        Ok(answers.remove(0))
    }

    /// Gives a frame back that is the worker's.
    pub(super) async fn parked(&self, held: Held) -> CaseResult {
        assert_eq!(self.park(held).await?, Ok(()), "the frame is parked");
        Ok(())
    }

    // Children.

    /// A call; `claimed`: born as the committing worker's.
    pub(super) fn call(&self, claimed: bool) -> NewStackRun {
        NewStackRun {
            id: self.stack_id(),
            kind: MadeKind::Call {
                service: "shop".to_owned(),
                path: "orders.find".to_owned(),
                args: json(r#"[{"id":"ä","n":1.50}]"#),
                policy: None,
            },
            claimed,
        }
    }

    pub(super) fn calls(&self, count: usize, claimed: bool) -> Vec<NewStackRun> {
        (0..count).map(|_| self.call(claimed)).collect()
    }

    /// A nested task at depth 1.
    pub(super) fn nested(&self, claimed: bool) -> NewStackRun {
        self.nested_at(1, claimed)
    }

    pub(super) fn nested_at(&self, depth: u32, claimed: bool) -> NewStackRun {
        NewStackRun {
            id: self.stack_id(),
            kind: MadeKind::Frame {
                task: TaskName::new("inner"),
                version: TaskVersion::new("v7"),
                input: json("[1]"),
                depth,
            },
            claimed,
        }
    }

    /// A timer that fires so many milliseconds from now.
    pub(super) fn timer(&self, millis: i64) -> NewStackRun {
        NewStackRun {
            id: self.stack_id(),
            kind: MadeKind::Timer {
                path: "sleep".to_owned(),
                args: json("1000"),
                due_at: self.now().plus_millis(millis),
            },
            claimed: false,
        }
    }

    /// A wait for a signal.
    pub(super) fn wait(&self, name: &str) -> NewStackRun {
        NewStackRun {
            id: self.stack_id(),
            kind: MadeKind::Signal {
                name: name.to_owned(),
            },
            claimed: false,
        }
    }

    /// After a repair scan by a new worker the audit is clean.
    pub(super) async fn audit_is_clean(&self) -> CaseResult {
        let janitor = self.worker().await?;
        let mut more = true;
        while more {
            more = self.storage().reap(janitor, self.now(), 1_000).await?.more;
        }
        let broken = self.storage().audit().await?;
        let broken: Vec<_> = broken.iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "the audit finds:\n{}", broken.join("\n"));
        Ok(())
    }
}

impl Held {
    /// After its turn was committed.
    pub(super) const fn next(self) -> Self {
        Self {
            turn: self.turn.next(),
            ..self
        }
    }
}

/// The nested frame that was born as the worker's.
pub(super) fn born(child: Child, parent: Held) -> Held {
    Held {
        frame: child.id,
        run: parent.run,
        lease: child.lease,
        turn: TurnNo(0),
    }
}

/// The frame's row as its worker holds it.
pub(super) fn held(row: &StackRun, worker: WorkerId) -> Held {
    Held {
        frame: row.id,
        run: row.task_run,
        lease: Lease {
            worker,
            epoch: row.epoch,
        },
        turn: row.turn,
    }
}

/// The call's row as its worker holds it.
pub(super) fn child(row: &StackRun, worker: WorkerId) -> Child {
    Child {
        id: row.id,
        seq: row.seq,
        lease: Lease {
            worker,
            epoch: row.epoch,
        },
    }
}

/// A result that came here and is recorded with the turn.
pub(super) fn local(child: Child) -> Delivery {
    Delivery {
        child: child.id,
        seq: child.seq,
        source: DeliverySource::Local {
            epoch: child.lease.epoch,
            outcome: value(1),
        },
    }
}

/// A result that is in its row.
pub(super) fn recorded(child: Child) -> Delivery {
    Delivery {
        child: child.id,
        seq: child.seq,
        source: DeliverySource::Recorded,
    }
}

/// A timer that has come.
pub(super) fn fired(child: Child) -> Delivery {
    Delivery {
        child: child.id,
        seq: child.seq,
        source: DeliverySource::Timer,
    }
}

pub(super) fn json(text: &str) -> Json {
    Json::parse(text).expect("the suite writes valid JSON")
}

pub(super) fn value(number: u32) -> Outcome {
    Outcome::Completed(Some(json(&number.to_string())))
}

pub(super) fn log_line(message: &str) -> LogLine {
    LogLine {
        level: LogLevel::Info,
        message: message.to_owned(),
        data: Some(json("{\"a\":1.0}")),
    }
}

pub(super) fn unknown_outcome() -> BlockedReason {
    BlockedReason::OutcomeUnknown {
        service: "shop".to_owned(),
        path: "orders.find".to_owned(),
    }
}
