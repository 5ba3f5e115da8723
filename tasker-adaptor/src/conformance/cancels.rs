//! Cancel: one end, whole, from whichever side it comes.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::kit::{CaseResult, Kit, born, recorded};
use crate::{
    CallEnd, Cancelled, CommitRefused, Failure, Outcome, RunStatus, StackStatus, StorageError,
    TurnCommit,
};

/// A cancel and the last turn at the same time: one of them ends the run, the other gets that end back.
pub async fn cancel_races_final(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    for round in 0..kit.rounds(1_000) {
        let held = kit.begin(worker).await?;
        let turn = kit.last_turn(held);
        let (commits, cancels) = (Arc::clone(&kit), Arc::clone(&kit));
        let mut both: Vec<BoxFuture<'static, Result<bool, StorageError>>> = vec![
            Box::pin(async move {
                match commits.commit(turn).await? {
                    Ok(_) => Ok(true),
                    Err(CommitRefused::Ended) => Ok(false),
                    Err(other) => panic!("the last turn: {other}"),
                }
            }),
            Box::pin(async move {
                match cancels.storage().cancel(held.run, cancels.now()).await? {
                    Cancelled::Done => Ok(false),
                    Cancelled::AlreadyEnded(RunStatus::Completed) => Ok(true),
                    other => panic!("the cancel: {other:?}"),
                }
            }),
        ];
        if round % 2 == 1 {
            both.reverse();
        }
        let mut ends = Vec::new();
        for answer in kit.at_once(both).await {
            ends.push(answer?);
        }
        assert_eq!(ends[0], ends[1], "round {round}: both tell the same end");
        let expected = if ends[0] {
            RunStatus::Completed
        } else {
            RunStatus::Cancelled
        };
        assert_eq!(kit.run(held.run).await?.status, expected);
    }
    Ok(())
}

/// A cancel and commits that make rows, three frames deep, at the same time: no open row in the ended run.
pub async fn cancel_races_made(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    for round in 0..kit.rounds(500) {
        let (root, outer) = kit.waiting(worker, vec![kit.nested(true)]).await?;
        let middle = born(outer[0], root);
        let (_, inner) = kit.make(middle, vec![kit.nested_at(2, true)]).await?;
        let deepest = born(inner[0], root);
        let turn = TurnCommit {
            made: vec![
                kit.call(true),
                kit.nested_at(3, false),
                kit.timer(10),
                kit.wait("x"),
            ],
            ..kit.turn(deepest)
        };
        let (commits, cancels) = (Arc::clone(&kit), Arc::clone(&kit));
        let mut both: Vec<BoxFuture<'static, CaseResult>> = vec![
            Box::pin(async move {
                match commits.commit(turn).await? {
                    Ok(_) | Err(CommitRefused::Ended) => Ok(()),
                    Err(other) => panic!("the turn: {other}"),
                }
            }),
            Box::pin(async move {
                let done = cancels.storage().cancel(root.run, cancels.now()).await?;
                assert_eq!(done, Cancelled::Done);
                Ok(())
            }),
        ];
        if round % 2 == 1 {
            both.reverse();
        }
        for answer in kit.at_once(both).await {
            answer?;
        }
        let tree = kit.storage().stack_runs(root.run).await?;
        assert!(tree.len() == 3 || tree.len() == 7, "whole or not at all");
        for row in tree {
            assert_eq!(row.status, StackStatus::Cancelled, "round {round}: {row:?}");
        }
    }
    Ok(())
}

/// After a cancel: late completions and turns are refused as ended, claims find nothing, a second cancel tells the end.
pub async fn cancel_is_total(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let made = vec![
        kit.call(true),
        kit.call(false),
        kit.nested(false),
        kit.timer(10),
        kit.wait("x"),
    ];
    let (parent, children) = kit.waiting(worker, made).await?;
    let now = kit.advance(5);
    assert_eq!(
        kit.storage().cancel(parent.run, now).await?,
        Cancelled::Done
    );
    assert_eq!(kit.settle(children[0]).await?, Err(CommitRefused::Ended));
    assert_eq!(
        kit.refused(kit.last_turn(parent)).await?,
        CommitRefused::Ended
    );
    assert_eq!(kit.park(parent).await?, Err(CommitRefused::Ended));
    let claim = kit.claim(worker, 10);
    assert!(kit.storage().claim_frames(claim).await?.is_empty());
    assert!(kit.storage().claim_calls(claim).await?.is_empty());
    assert_eq!(kit.storage().fire_timers(kit.advance(100), 0, 10).await?, 0);
    assert!(kit.storage().owned(worker, false).await?.is_empty());
    let run = kit.run(parent.run).await?;
    assert_eq!((run.status, run.outcome), (RunStatus::Cancelled, None));
    assert_eq!(run.ended_at, Some(now));
    let again = kit.storage().cancel(parent.run, kit.now()).await?;
    assert_eq!(again, Cancelled::AlreadyEnded(RunStatus::Cancelled));
    for row in kit.storage().stack_runs(parent.run).await? {
        assert_eq!((row.status, row.owner), (StackStatus::Cancelled, None));
    }
    let row = kit.row(children[0].id).await?;
    assert!(
        row.epoch > children[0].lease.epoch,
        "late attempts are fenced off"
    );
    let nowhere = kit.storage().cancel(kit.run_id(), kit.now()).await;
    assert!(
        matches!(nowhere, Err(StorageError::NotFound { .. })),
        "{nowhere:?}"
    );
    Ok(())
}

/// A cancel with grace fails every await of the open frames, so that they can clean up; what has not begun fails too.
pub async fn cancel_with_grace_wakes_all_frames(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let made = vec![
        kit.nested(true),
        kit.nested(false),
        kit.call(true),
        kit.timer(10),
    ];
    let (root, children) = kit.waiting(worker, made).await?;
    let nested = born(children[0], root);
    let (nested, inner) = kit
        .make(nested, vec![kit.wait("x"), kit.call(false)])
        .await?;
    let by = kit.now().plus_millis(5_000);
    let asked = kit
        .storage()
        .request_cancel(root.run, by, kit.now())
        .await?;
    assert_eq!(asked, Cancelled::Asked);
    for failed in [children[1], children[2], children[3], inner[0], inner[1]] {
        let row = kit.row(failed.id).await?;
        assert_eq!(row.outcome, Some(Outcome::Failed(Failure::cancelled())));
        assert_eq!((row.status, row.owner), (StackStatus::Failed, None));
    }
    for frame in [root, nested] {
        let row = kit.row(frame.frame).await?;
        assert_eq!(
            (row.status, row.owner),
            (StackStatus::PendingResume, Some(worker))
        );
    }
    let late = kit.settle(children[2]).await?;
    assert_eq!(
        late,
        Err(CommitRefused::Ended),
        "the attempt was fenced off"
    );
    let sooner = by.plus_millis(-1_000);
    kit.storage()
        .request_cancel(root.run, sooner, kit.now())
        .await?;
    kit.storage()
        .request_cancel(root.run, by, kit.now())
        .await?;
    assert_eq!(
        kit.run(root.run).await?.cancel_by,
        Some(sooner),
        "the earlier stands"
    );
    assert!(
        kit.storage()
            .overdue_cancels(kit.now(), 10)
            .await?
            .is_empty()
    );
    let overdue = kit.storage().overdue_cancels(by, 10).await?;
    assert_eq!(overdue, [root.run]);
    let cleanup = TurnCommit {
        delivered: vec![recorded(children[2])],
        made: kit.calls(1, true),
        ..kit.turn(root)
    };
    kit.applied(cleanup).await?;
    kit.storage().cancel(root.run, by).await?;
    assert!(kit.storage().overdue_cancels(by, 10).await?.is_empty());

    let (unstarted, _) = kit.submit().await?;
    let done = kit
        .storage()
        .request_cancel(unstarted, by, kit.now())
        .await?;
    assert_eq!(done, Cancelled::Done, "nothing to clean up");
    assert_eq!(kit.run(unstarted).await?.status, RunStatus::Cancelled);
    let ended = kit
        .storage()
        .request_cancel(unstarted, by, kit.now())
        .await?;
    assert_eq!(ended, Cancelled::AlreadyEnded(RunStatus::Cancelled));
    Ok(())
}

/// A cancel with grace of a blocked run ends it at once; its detached rows are cancelled where a run goes on.
pub async fn cancel_with_grace_of_blocked_and_detached(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let by = kit.now().plus_millis(5_000);
    let (blocked, calls) = kit.waiting(worker, kit.calls(1, true)).await?;
    let block = CallEnd::Blocked(super::kit::unknown_outcome());
    assert_eq!(kit.end_call(calls[0], block).await?, Ok(true));
    let done = kit
        .storage()
        .request_cancel(blocked.run, by, kit.now())
        .await?;
    assert_eq!(done, Cancelled::Done);

    let (root, children) = kit
        .waiting(worker, vec![kit.nested(true), kit.call(true)])
        .await?;
    let (nested, detached) = kit
        .make(born(children[0], root), kit.calls(1, true))
        .await?;
    kit.applied(kit.last_turn(nested)).await?;
    let asked = kit
        .storage()
        .request_cancel(root.run, by, kit.now())
        .await?;
    assert_eq!(asked, Cancelled::Asked);
    assert_eq!(kit.status(detached[0].id).await?, StackStatus::Cancelled);
    assert_eq!(
        kit.status(children[0].id).await?,
        StackStatus::Completed,
        "it had ended"
    );
    assert_eq!(kit.status(children[1].id).await?, StackStatus::Failed);
    Ok(())
}
