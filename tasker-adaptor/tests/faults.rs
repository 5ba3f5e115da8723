//! `FaultStorage`: it passes the suite when it injects nothing, and does what it is told.
#![cfg(feature = "conformance")]

use std::sync::Arc;

use futures::FutureExt as _;
use tasker_adaptor::conformance::Harness;
use tasker_adaptor::{
    FaultAction, FaultStorage, Json, MemoryStorage, NewTaskRun, RunFilter, RunStore, StackRunId,
    Storage, StorageError, Submitted, TaskName, TaskRunId, TaskVersion, Timestamp,
};

async fn fresh() -> Harness {
    let storage = FaultStorage::new(MemoryStorage::new(), |_| FaultAction::Pass);
    Harness::new(storage)
        .spawn_with(|future| drop(tokio::spawn(future)))
        .lacks(&["batch_over_full_store"])
        .effort(5)
}

tasker_adaptor::conformance_tests!(
    #[tokio::test(flavor = "multi_thread")]
    crate::fresh
);

fn new_run(number: u128) -> NewTaskRun {
    let now = Timestamp::from_millis(1);
    NewTaskRun {
        id: TaskRunId::from_parts(now, number),
        root: StackRunId::from_parts(now, number),
        task: TaskName::new("t"),
        version: TaskVersion::new("v"),
        input: Json::null(),
        idempotency_key: None,
        request_hash: String::new(),
        priority: 0,
        run_at: now,
        deadline: None,
        labels: std::collections::BTreeMap::new(),
        correlation_id: None,
        traceparent: None,
    }
}

async fn submit(store: &impl RunStore, number: u128) -> Result<Submitted, StorageError> {
    let runs = vec![new_run(number)];
    store
        .submit(runs, Timestamp::from_millis(1))
        .await?
        .remove(0)
}

async fn count(storage: &dyn Storage) -> usize {
    let page = storage.runs(&RunFilter::default(), 100).await;
    let page = page.expect("the store itself has no faults");
    page.runs.len()
}

#[tokio::test]
async fn a_failed_call_happened_or_not_as_told() {
    let memory = MemoryStorage::new();
    let store = FaultStorage::new(memory.clone(), |call| match (call.method, call.nth) {
        ("submit", 0) => FaultAction::FailBefore,
        ("submit", 1) => FaultAction::FailAfter,
        ("submit", 2) => FaultAction::Repeat,
        _ => FaultAction::Pass,
    });
    let lost = submit(&store, 1).await.unwrap_err();
    assert!(lost.is_retryable(), "{lost}");
    assert_eq!(count(&memory).await, 0);
    assert!(submit(&store, 2).await.is_err());
    assert_eq!(count(&memory).await, 1);
    let repeated = submit(&store, 3).await.unwrap();
    assert!(!repeated.created, "the second answer is given");
    assert_eq!(count(&memory).await, 2);
    assert_eq!(store.control().methods(), ["submit"; 3]);
}

#[tokio::test]
async fn the_dead_change_nothing_until_they_wake_as_zombies() {
    let memory: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let crashing = FaultStorage::over(Arc::clone(&memory));
    let other = FaultStorage::over(Arc::clone(&memory));
    crashing.control().at(1, FaultAction::DieAfter);
    crashing.control().on_next("runs", FaultAction::Die);
    assert!(submit(&crashing, 1).await.is_ok());
    assert!(submit(&crashing, 2).await.is_err());
    assert_eq!(count(&*memory).await, 2, "applied, then dead");
    assert!(submit(&crashing, 3).await.is_err());
    assert!(crashing.control().is_dead());
    assert!(
        submit(&other, 4).await.is_ok(),
        "the other connection lives"
    );
    assert_eq!(count(&*memory).await, 3);
    crashing.control().revive();
    assert!(submit(&crashing, 5).await.is_ok());
    assert!(crashing.runs(&RunFilter::default(), 1).await.is_err());
    assert_eq!(crashing.control().calls(), 5);
}

#[tokio::test]
async fn a_delayed_call_arrives_when_it_is_let_go() {
    let memory = MemoryStorage::new();
    let store = FaultStorage::over(Arc::new(memory.clone()));
    store.control().on_next("submit", FaultAction::Delay);
    let mut late = submit(&store, 1).boxed();
    assert!((&mut late).now_or_never().is_none());
    assert_eq!((store.control().delayed(), count(&memory).await), (1, 0));
    assert!(
        submit(&store, 2).await.unwrap().created,
        "others overtake it"
    );
    assert_eq!(store.control().release(), 1);
    assert!(late.await.unwrap().created);
    assert_eq!(count(&memory).await, 2);
    store.control().on_next("submit", FaultAction::Delay);
    let mut late = submit(&store, 3).boxed();
    assert!((&mut late).now_or_never().is_none());
    store.control().kill();
    store.control().release();
    assert!(late.await.is_err());
    assert_eq!(
        count(&memory).await,
        2,
        "what was let go after the death did not arrive"
    );
}
