//! The life of a run through the rows it leaves.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

mod support;

use support::*;
use tasker_adaptor::*;
use tasker_adaptor_sqlite::SqliteStorage;

#[tokio::test]
async fn a_run_goes_from_submit_to_the_end() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let worker = live_worker(&storage).await;
    let (frame, call_id) = waiting_run(&storage, worker).await;
    assert_sound(&storage).await;
    let run = storage.run(frame.row.task_run).await.unwrap().unwrap();
    assert_eq!(run.status, RunStatus::Processing);

    let mut last = turn(
        &frame.row,
        worker,
        1,
        FrameNext::Completed(Some(Json::parse("42").unwrap())),
    );
    last.delivered.push(local(call_id, 1, r#""hi""#));
    last.logs.push(LogLine {
        level: LogLevel::Info,
        message: "done".to_owned(),
        data: None,
    });
    let receipt = commit_one(&storage, last.clone()).await.unwrap();
    assert_eq!(receipt.status, StackStatus::Completed);
    assert!(commit_one(&storage, last).await.unwrap().already_applied);
    assert_sound(&storage).await;

    let run = storage.run(frame.row.task_run).await.unwrap().unwrap();
    assert_eq!(run.status, RunStatus::Completed);
    assert_eq!(
        run.outcome,
        Some(Outcome::Completed(Some(Json::parse("42").unwrap())))
    );
    let rows = storage.stack_runs(run.id).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1].delivered_order, Some(1));
    let logs = storage
        .logs(run.id, LogCursor::default(), 10)
        .await
        .unwrap();
    assert_eq!(logs.lines.len(), 1);
    assert_eq!(storage.foldable(at(1_000), 10).await.unwrap(), [run.id]);
    assert!(storage.fold(run.id, vec![1], at(30)).await.unwrap());
    assert_eq!(storage.delete_folded_rows(100).await.unwrap(), 2);
    assert!(storage.stack_runs(run.id).await.unwrap().is_empty());
    assert_sound(&storage).await;
}
