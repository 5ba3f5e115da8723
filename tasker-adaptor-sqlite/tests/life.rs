//! The life of a run through the rows it leaves.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

mod support;

use std::sync::Arc;

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

#[tokio::test]
async fn a_row_made_twice_is_named_and_undoes_its_batch_wherever_it_stands() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let worker = live_worker(&storage).await;
    let (first, known) = waiting_run(&storage, worker).await;
    let (second, _) = waiting_run(&storage, worker).await;
    // Calls are inserted several at a time: the guilty one is alone, and first, amid and last among others, over two turns.
    let places = [(0, 0), (0, 20), (3, 20), (7, 0), (8, 0), (17, 3)];
    for (claimed, (before, after)) in [true, false]
        .into_iter()
        .flat_map(|claimed| places.map(|place| (claimed, place)))
    {
        let mut calls: Vec<_> = (0..before + after).map(|_| call(claimed)).collect();
        calls.insert(
            before,
            NewStackRun {
                id: known,
                ..call(claimed)
            },
        );
        let mut one = turn(&first.row, worker, 1, FrameNext::Suspended);
        let mut other = turn(&second.row, worker, 1, FrameNext::Suspended);
        other.made = calls.split_off(calls.len() / 2);
        one.made = calls;
        let error = storage.commit(Arc::from(vec![one, other])).await;
        let Err(StorageError::Misuse { what }) = error else {
            panic!("{before} before, {after} after: {error:?}");
        };
        assert!(what.contains(&known.to_string()), "{what}");
        let left = storage.load(first.row.id).await.unwrap().unwrap();
        assert_eq!((left.frame.turn, left.children.len()), (TurnNo(1), 1));
        assert_sound(&storage).await;
    }
    let mut right = turn(&first.row, worker, 1, FrameNext::Suspended);
    right.made = (0..19).map(|_| call(true)).collect();
    commit_one(&storage, right).await.unwrap();
    assert_sound(&storage).await;
}

#[tokio::test]
async fn calls_made_and_dropped_in_one_turn_are_cancelled() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let worker = live_worker(&storage).await;
    let (frame, _) = waiting_run(&storage, worker).await;
    let mut both = turn(&frame.row, worker, 1, FrameNext::Suspended);
    both.made = (0..11).map(|_| call(true)).collect();
    both.dropped = both.made.iter().map(|made| made.id).collect();
    commit_one(&storage, both).await.unwrap();
    let left = storage.load(frame.row.id).await.unwrap().unwrap();
    let open = left.children.iter().filter(|row| row.settled_at.is_none());
    assert_eq!((left.children.len(), open.count()), (12, 1));
    assert_sound(&storage).await;
}

#[tokio::test]
async fn a_number_that_names_another_row_now_finds_nothing() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let worker = live_worker(&storage).await;
    let (old, old_call) = waiting_run(&storage, worker).await;
    let end = || {
        let value = Json::parse("1").unwrap();
        let mut end = turn(&old.row, worker, 1, FrameNext::Completed(Some(value)));
        end.delivered.push(local(old_call, 1, "1"));
        end
    };
    commit_one(&storage, end()).await.unwrap();
    assert!(
        storage
            .fold(old.row.task_run, vec![1], at(30))
            .await
            .unwrap()
    );
    assert_eq!(storage.delete_folded_rows(100).await.unwrap(), 2);

    // The table is empty, so that these rows get the numbers of those.
    let (new, new_call) = waiting_run(&storage, worker).await;
    assert_eq!(commit_one(&storage, end()).await, Err(CommitRefused::Gone));
    let mut next = turn(&new.row, worker, 1, FrameNext::Suspended);
    next.made.push(call(true));
    next.delivered.push(local(old_call, 1, "1"));
    assert_eq!(
        commit_one(&storage, next.clone()).await,
        Err(CommitRefused::Stale { seq: CallSeq(1) })
    );
    next.delivered = vec![local(new_call, 1, "1")];
    commit_one(&storage, next).await.unwrap();
    assert_sound(&storage).await;
}
