//! Folding ended runs and deleting what retention allows.

use std::sync::Arc;

use super::kit::{CaseResult, Kit, held as held_row, local, log_line};
use crate::{
    CommitRefused, LogCursor, NewSignal, NewTaskRun, Retention, RunStatus, StorageError, TaskRunId,
    Timestamp, TurnCommit,
};

/// A run with an open row, or that has not ended, is not folded; folded ones are not folded again.
pub async fn fold_never_open(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (open, calls) = kit.waiting(worker, kit.calls(1, true)).await?;
    assert!(
        !kit.storage().fold(open.run, vec![], kit.now()).await?,
        "it has not ended"
    );
    kit.applied(kit.last_turn(open)).await?;
    let later = kit.advance(10);
    assert!(kit.storage().foldable(later, 10).await?.is_empty());
    assert!(
        !kit.storage().fold(open.run, vec![], later).await?,
        "a call is open"
    );
    let run = kit.run(open.run).await?;
    assert_eq!((run.folded_at, run.record), (None, None));
    kit.settled(calls[0]).await?;
    let ended = kit.begin(worker).await?;
    kit.applied(kit.last_turn(ended)).await?;
    let later = kit.advance(10);
    assert_eq!(
        kit.storage().foldable(later, 10).await?,
        [open.run, ended.run],
        "oldest end first"
    );
    assert_eq!(kit.storage().foldable(later, 1).await?, [open.run]);
    assert_eq!(
        kit.storage()
            .foldable(run.ended_at.expect("ended").plus_millis(1), 10)
            .await?,
        [open.run]
    );
    assert!(kit.storage().fold(open.run, vec![1], later).await?);
    assert!(
        !kit.storage().fold(open.run, vec![2], later).await?,
        "it is folded"
    );
    let run = kit.run(open.run).await?;
    assert_eq!((run.folded_at, run.record), (Some(later), Some(vec![1])));
    assert_eq!(kit.storage().foldable(later, 10).await?, [ended.run]);
    assert!(!kit.storage().fold(kit.run_id(), vec![], later).await?);
    Ok(())
}

/// The cleaner dies between record and deletion, and in the midst of it: another goes on, the record stays.
pub async fn fold_crash_between(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let held = kit.begin(worker).await?;
    let (parent, calls) = kit.make(held, kit.calls(8, true)).await?;
    kit.applied(TurnCommit {
        delivered: [5, 2, 7, 0]
            .map(|index: usize| local(calls[index]))
            .to_vec(),
        made: vec![kit.nested(false)],
        ..kit.turn(parent)
    })
    .await?;
    let parent = parent.next();
    for index in [1, 3, 4, 6] {
        kit.settled(calls[index]).await?;
    }
    let inner = kit.storage().claim_frames(kit.claim(worker, 1)).await?;
    kit.applied(kit.last_turn(held_row(&inner[0].row, worker)))
        .await?;
    let signal = NewSignal {
        id: kit.signal_id(),
        run: parent.run,
        name: "x".to_owned(),
        payload: super::kit::json("1"),
    };
    match kit.storage().send_signal(signal, kit.now()).await {
        Ok(_) | Err(StorageError::Unsupported { .. }) => {}
        Err(error) => return Err(error),
    }
    kit.applied(kit.last_turn(parent)).await?;
    assert!(
        kit.storage()
            .fold(parent.run, vec![9; 100], kit.now())
            .await?
    );
    assert!(
        !kit.storage().fold(parent.run, vec![1], kit.now()).await?,
        "again after the crash"
    );
    loop {
        let gone = kit.storage().delete_folded_rows(3).await?;
        assert!(gone <= 3, "at most so many: {gone}");
        let broken = kit.storage().audit().await?;
        assert!(broken.is_empty(), "half deleted is sound: {broken:?}");
        if gone == 0 {
            break;
        }
    }
    assert!(kit.storage().stack_runs(parent.run).await?.is_empty());
    let run = kit.run(parent.run).await?;
    assert_eq!(run.record, Some(vec![9; 100]));
    assert_eq!(run.status, RunStatus::Completed);
    Ok(())
}

/// A turn that comes after the rows were cleaned away is told so; nothing is inserted.
pub async fn fold_then_late_commit(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let held = kit.begin(worker).await?;
    kit.applied(kit.last_turn(held)).await?;
    assert!(kit.storage().fold(held.run, vec![], kit.now()).await?);
    while kit.storage().delete_folded_rows(100).await? > 0 {}
    let late = TurnCommit {
        made: kit.calls(2, true),
        ..kit.turn(held.next())
    };
    assert_eq!(kit.refused(late).await?, CommitRefused::Gone);
    assert!(kit.storage().stack_runs(held.run).await?.is_empty());
    assert!(kit.try_take(worker, held.frame).await?.is_none());
    Ok(())
}

/// Folded runs go with their log lines, by age of their end and by status; a freed key may be used again.
pub async fn retention_deletes_by_age_and_status(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let end = async |cancel: bool, key: &str| -> Result<TaskRunId, StorageError> {
        let new = NewTaskRun {
            idempotency_key: Some(key.to_owned()),
            ..kit.new_run()
        };
        let (id, root) = (new.id, new.root);
        kit.submit_new(new).await?;
        kit.storage()
            .append_logs(id, None, vec![log_line("x")], kit.now())
            .await?;
        let held = kit.take(worker, root).await?;
        if cancel {
            kit.storage().cancel(id, kit.now()).await?;
        } else {
            kit.applied(kit.last_turn(held)).await?;
        }
        kit.advance(100);
        Ok(id)
    };
    let old = end(false, "a").await?;
    let old_cancelled = end(true, "b").await?;
    let unfolded = end(false, "c").await?;
    let limit: Timestamp = kit.now();
    let young = end(false, "d").await?;
    for run in [old, old_cancelled, young] {
        assert!(kit.storage().fold(run, vec![1], kit.now()).await?);
    }
    while kit.storage().delete_folded_rows(100).await? > 0 {}
    let retention = Retention {
        statuses: vec![RunStatus::Completed, RunStatus::Failed],
        ended_before: limit,
        max: 10,
    };
    assert_eq!(kit.storage().delete_runs(&retention).await?, 1);
    assert!(kit.storage().run(old).await?.is_none());
    assert!(
        kit.storage()
            .logs(old, LogCursor::default(), 10)
            .await?
            .lines
            .is_empty()
    );
    for kept in [old_cancelled, unfolded, young] {
        assert!(kit.storage().run(kept).await?.is_some());
        assert_eq!(
            kit.storage()
                .logs(kept, LogCursor::default(), 10)
                .await?
                .lines
                .len(),
            1
        );
    }
    assert_eq!(kit.storage().delete_runs(&retention).await?, 0);
    end(false, "a").await?;
    Ok(())
}
