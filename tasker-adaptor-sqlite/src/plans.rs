//! A look at the plan of every statement: none may walk a table that grows with history.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

use std::sync::Arc;

use tasker_adaptor::conformance::{CASES, Harness, run_case};
use tasker_adaptor::{
    Claim, Delivery, DeliverySource, FrameNext, Json, Lease, MadeKind, Maintenance as _,
    NewStackRun, NewTaskRun, NewWorker, Outcome, Queue as _, Retention, RunFilter, RunStatus,
    RunStore as _, Signals as _, StackRunId, TaskRunId, TaskStore as _, Timestamp, TurnCommit,
    TurnNo, WorkerId, Workers as _,
};

use crate::SqliteStorage;
use crate::cached::noted;

/// Tables that stay small, or are asked for whole; by the names that the statements give them.
/// A subquery is as long as the walk that makes it, which has a step of its own; the rows of VALUES are in the statement.
const MAY_SCAN: &[&str] = &[
    "workers",
    "w",
    "keystore",
    "l",
    "CONSTANT ROW",
    "8-ROW VALUES CLAUSE",
    "(subquery",
];

async fn exercise_everything() -> (tempfile::TempDir, SqliteStorage) {
    for case in CASES {
        let folder = tempfile::tempdir().unwrap();
        let storage = SqliteStorage::open(folder.path().join("tasker.db"))
            .await
            .unwrap();
        let harness = Harness::new(storage)
            .lacks(&["batch_over_full_store"])
            .effort(1)
            .keep(folder);
        run_case(case.name, harness, case.run).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(folder.path().join("tasker.db"))
        .await
        .unwrap();
    let now = Timestamp::from_millis(1);
    let mut filter = RunFilter::default();
    for statuses in [vec![], vec![RunStatus::Blocked], vec![RunStatus::Completed]] {
        filter.statuses = statuses;
        for task in [None, Some("hello".into())] {
            filter.task = task;
            storage.runs(&filter, 10).await.unwrap();
        }
    }
    filter.labels.insert("a".to_owned(), "b".to_owned());
    storage.runs(&filter, 10).await.unwrap();
    let worker = WorkerId::from_parts(now, 1);
    storage.reap(worker, now, 10).await.unwrap();
    storage.retire(worker, now).await.unwrap();
    storage.fire_timers(now, 0, 10).await.unwrap();
    storage.next_due().await.unwrap();
    storage.overdue_cancels(now, 10).await.unwrap();
    storage.tasks(None, 10).await.unwrap();
    storage.foldable(now, 10).await.unwrap();
    storage.backlog(now, 10).await.unwrap();
    storage.delete_folded_rows(10).await.unwrap();
    let retention = Retention {
        statuses: vec![RunStatus::Completed, RunStatus::Failed],
        ended_before: now,
        max: 10,
    };
    storage.delete_runs(&retention).await.unwrap();
    let signal = tasker_adaptor::NewSignal {
        id: worker.as_uuid(),
        run: TaskRunId::from_parts(now, 2),
        name: "go".to_owned(),
        payload: tasker_adaptor::Json::null(),
    };
    assert!(storage.send_signal(signal, now).await.is_err());
    assert!(storage.commit(Arc::from(vec![])).await.unwrap().is_empty());
    calls_in_company(&storage, now).await;
    (folder, storage)
}

/// So many calls are offered, claimed and answered that each step is one statement.
async fn calls_in_company(storage: &SqliteStorage, now: Timestamp) {
    const COUNT: u32 = 8;
    let id = |number| StackRunId::from_parts(now, number);
    let worker = WorkerId::from_parts(now, 3);
    let lease_ms = 30_000;
    let name = "plans".to_owned();
    let new = NewWorker {
        id: worker,
        name,
        now,
        lease_ms,
    };
    storage.register(new).await.unwrap();
    let run = NewTaskRun {
        id: TaskRunId::from_parts(now, 4),
        root: id(5),
        task: "hello".into(),
        version: "a".repeat(64).as_str().into(),
        input: Json::null(),
        idempotency_key: None,
        request_hash: "b".repeat(64),
        priority: 0,
        run_at: now,
        deadline: None,
        labels: std::collections::BTreeMap::new(),
        correlation_id: None,
        traceparent: None,
    };
    storage.submit(vec![run], now).await.unwrap();
    let claim = Claim {
        worker,
        now,
        max: COUNT as usize,
        only: None,
    };
    let frames = storage.claim_frames(claim).await.unwrap();
    let turn = |number| TurnCommit {
        frame: frames[0].row.id,
        task_run: frames[0].row.task_run,
        turn: TurnNo(number),
        lease: Lease {
            worker,
            epoch: frames[0].row.epoch,
        },
        time: now,
        delivered: Vec::new(),
        made: Vec::new(),
        dropped: Vec::new(),
        logs: Vec::new(),
        next: FrameNext::Suspended,
    };
    let mut offers = turn(0);
    offers.made = (0..COUNT)
        .map(|call| NewStackRun {
            id: id(10 + u128::from(call)),
            kind: MadeKind::Call {
                service: "s".to_owned(),
                path: "m".to_owned(),
                args: Json::null(),
                policy: None,
            },
            claimed: false,
        })
        .collect();
    storage.commit(Arc::from(vec![offers])).await.unwrap()[0]
        .as_ref()
        .unwrap();
    let calls = storage.claim_calls(claim).await.unwrap();
    let mut answers = turn(1);
    answers.next = FrameNext::Completed(None);
    answers.delivered = calls
        .iter()
        .map(|call| Delivery {
            child: call.row.id,
            seq: call.row.seq,
            source: DeliverySource::Local {
                epoch: call.row.epoch,
                outcome: Outcome::Completed(None),
            },
        })
        .collect();
    assert_eq!(answers.delivered.len(), COUNT as usize);
    storage.commit(Arc::from(vec![answers])).await.unwrap()[0]
        .as_ref()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_of_the_engine_walks_history() {
    let (_folder, storage) = exercise_everything().await;
    let statements = noted::all();
    assert!(
        statements.len() > 60,
        "only {} statements were seen",
        statements.len()
    );
    for company in ["seq BETWEEN", "'pending', 0, 0, 0, ?", "BETWEEN ?1 AND ?2"] {
        assert!(
            statements.iter().any(|sql| sql.contains(company)),
            "no statement with {company} was seen"
        );
    }
    let conn = rusqlite::Connection::open(storage.path()).unwrap();
    crate::connection::stable_plans(&conn).unwrap();
    let mut walks = Vec::new();
    for sql in statements {
        let first = sql.split_whitespace().next().unwrap_or_default();
        if !matches!(first, "SELECT" | "UPDATE" | "DELETE" | "INSERT") {
            continue;
        }
        for step in plan(&conn, &sql) {
            let scans = step
                .strip_prefix("SCAN ")
                .is_some_and(|table| !MAY_SCAN.iter().any(|small| table.starts_with(small)));
            if scans || step.contains("AUTOMATIC") || step.contains("TEMP B-TREE FOR ORDER") {
                walks.push(format!("{step}\n    {sql}"));
            }
        }
    }
    assert!(walks.is_empty(), "{}", walks.join("\n"));
}

fn plan(conn: &rusqlite::Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let parameters = statement.parameter_count();
    let nothing = vec![rusqlite::types::Null; parameters];
    statement
        .query_map(rusqlite::params_from_iter(nothing), |row| row.get(3))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}
