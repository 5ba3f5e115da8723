//! A look at the plan of every statement: none may walk a table that grows with history.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

use std::sync::Arc;

use tasker_adaptor::conformance::{CASES, Harness, run_case};
use tasker_adaptor::{
    Maintenance as _, Queue as _, Retention, RunFilter, RunStatus, RunStore as _, Signals as _,
    TaskStore as _, Timestamp, Workers as _,
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
    let worker = tasker_adaptor::WorkerId::from_parts(now, 1);
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
        run: tasker_adaptor::TaskRunId::from_parts(now, 2),
        name: "go".to_owned(),
        payload: tasker_adaptor::Json::null(),
    };
    assert!(storage.send_signal(signal, now).await.is_err());
    assert!(storage.commit(Arc::from(vec![])).await.unwrap().is_empty());
    (folder, storage)
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
