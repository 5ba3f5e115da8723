//! What the tests of this crate share: a store in a folder of its own, ids, and the shortest way through a run.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tasker_adaptor::*;
use tasker_adaptor_sqlite::SqliteStorage;

/// A folder that goes with the value.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("tasker.db")
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);

fn random() -> u128 {
    let number = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    number | (u128::from(std::process::id()) << 40)
}

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

pub(crate) fn row_id() -> StackRunId {
    StackRunId::from_parts(at(0), random())
}

pub(crate) fn run_id() -> TaskRunId {
    TaskRunId::from_parts(at(0), random())
}

pub(crate) fn worker_id() -> WorkerId {
    WorkerId::from_parts(at(0), random())
}

pub(crate) fn new_run() -> NewTaskRun {
    NewTaskRun {
        id: run_id(),
        root: row_id(),
        task: "hello".into(),
        version: "a".repeat(64).as_str().into(),
        input: Json::parse(r#"{"name":"world"}"#).unwrap(),
        idempotency_key: None,
        request_hash: "b".repeat(64),
        priority: 0,
        run_at: at(0),
        deadline: None,
        labels: BTreeMap::new(),
        correlation_id: None,
        traceparent: None,
    }
}

pub(crate) async fn live_worker(storage: &SqliteStorage) -> WorkerId {
    let id = worker_id();
    storage
        .register(NewWorker {
            id,
            name: "test".to_owned(),
            now: at(0),
            lease_ms: 30_000,
        })
        .await
        .unwrap();
    id
}

pub(crate) fn claim(worker: WorkerId, max: usize) -> Claim {
    Claim {
        worker,
        now: at(10),
        max,
        only: None,
    }
}

pub(crate) fn call(claimed: bool) -> NewStackRun {
    NewStackRun {
        id: row_id(),
        kind: MadeKind::Call {
            service: "greeter".to_owned(),
            path: "greet".to_owned(),
            args: Json::parse(r#"[{"name":"world"}]"#).unwrap(),
            policy: None,
        },
        claimed,
    }
}

pub(crate) fn turn(frame: &StackRun, worker: WorkerId, number: u32, next: FrameNext) -> TurnCommit {
    TurnCommit {
        frame: frame.id,
        task_run: frame.task_run,
        turn: TurnNo(number),
        lease: Lease {
            worker,
            epoch: frame.epoch,
        },
        time: at(20),
        delivered: Vec::new(),
        made: Vec::new(),
        dropped: Vec::new(),
        logs: Vec::new(),
        next,
    }
}

pub(crate) fn local(child: StackRunId, seq: u32, text: &str) -> Delivery {
    Delivery {
        child,
        seq: CallSeq(seq),
        source: DeliverySource::Local {
            epoch: Epoch(1),
            outcome: Outcome::Completed(Some(Json::parse(text).unwrap())),
        },
    }
}

pub(crate) async fn commit_one(
    storage: &SqliteStorage,
    turn: TurnCommit,
) -> Result<TurnReceipt, CommitRefused> {
    storage
        .commit(Arc::from(vec![turn]))
        .await
        .unwrap()
        .remove(0)
}

/// A run whose root was claimed and made one call of its own, which it waits for.
pub(crate) async fn waiting_run(
    storage: &SqliteStorage,
    worker: WorkerId,
) -> (ClaimedFrame, StackRunId) {
    let new = new_run();
    let root = new.root;
    storage.submit(vec![new], at(0)).await.unwrap()[0]
        .as_ref()
        .unwrap();
    let frame = storage
        .claim_frames(Claim {
            only: Some(root),
            ..claim(worker, 1)
        })
        .await
        .unwrap()
        .remove(0);
    let made = call(true);
    let id = made.id;
    let mut first = turn(&frame.row, worker, 0, FrameNext::Suspended);
    first.made.push(made);
    commit_one(storage, first).await.unwrap();
    (frame, id)
}

pub(crate) async fn assert_sound(storage: &SqliteStorage) {
    assert_eq!(storage.audit().await.unwrap(), []);
}
