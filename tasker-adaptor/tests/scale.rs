//! The memory reference carries a hundred thousand runs: no operation walks over what is not its own.
use std::sync::Arc;

use tasker_adaptor::{
    Claim, FrameNext, Json, Lease, Maintenance as _, MemoryStorage, NewTaskRun, NewWorker,
    Queue as _, RunStore as _, StackRunId, TaskName, TaskRunId, TaskVersion, Timestamp, TurnCommit,
    WorkerId, Workers as _,
};

const RUNS: usize = 100_000;

#[tokio::test]
async fn a_hundred_thousand_runs_begin_and_end() {
    let store = MemoryStorage::new();
    let now = Timestamp::from_millis(1_000);
    let worker = WorkerId::from_parts(now, 1);
    let registered = store.register(NewWorker {
        id: worker,
        name: "w".to_owned(),
        now,
        lease_ms: 1_000,
    });
    registered.await.expect("a new worker");
    let runs = (0..RUNS as u128).map(|number| new_run(now, number));
    let submitted = store.submit(runs.collect(), now).await;
    assert_eq!(submitted.expect("memory answers").len(), RUNS);
    let mut ended = 0;
    loop {
        let claim = Claim {
            worker,
            now,
            max: 100,
            only: None,
        };
        let claimed = store.claim_frames(claim).await.expect("memory answers");
        if claimed.is_empty() {
            break;
        }
        let turns: Vec<_> = claimed
            .iter()
            .map(|claimed| TurnCommit {
                frame: claimed.row.id,
                task_run: claimed.row.task_run,
                turn: claimed.row.turn,
                lease: Lease {
                    worker,
                    epoch: claimed.row.epoch,
                },
                time: now,
                delivered: vec![],
                made: vec![],
                dropped: vec![],
                logs: vec![],
                next: FrameNext::Completed(None),
            })
            .collect();
        let answers = store
            .commit(Arc::from(turns))
            .await
            .expect("memory answers");
        ended += answers.iter().filter(|answer| answer.is_ok()).count();
    }
    assert_eq!(ended, RUNS);
    assert!(store.audit().await.expect("memory answers").is_empty());
}

fn new_run(now: Timestamp, number: u128) -> NewTaskRun {
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
