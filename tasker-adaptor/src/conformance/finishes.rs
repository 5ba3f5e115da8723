//! The end of an attempt whose frame is not hot here.

use std::sync::Arc;

use super::kit::{CaseResult, Kit, unknown_outcome, value};
use crate::{CallEnd, CommitRefused, Failure, Lease, Outcome, StackStatus};

/// The same end twice: applied, then known; a retry and a block too.
pub async fn complete_twice(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (_, calls) = kit.waiting(worker, kit.calls(3, true)).await?;
    let ends = [
        CallEnd::Settled(Outcome::Failed(Failure::new("ServiceError", "no"))),
        CallEnd::RetryAt {
            not_before: kit.now().plus_millis(100),
            failure: Failure::new("ServiceError", "busy"),
        },
        CallEnd::Blocked(unknown_outcome()),
    ];
    let statuses = [
        StackStatus::Failed,
        StackStatus::Pending,
        StackStatus::Blocked,
    ];
    for ((call, end), status) in calls.iter().zip(ends).zip(statuses) {
        assert_eq!(kit.end_call(*call, end.clone()).await?, Ok(true));
        let row = kit.row(call.id).await?;
        assert_eq!((row.status, row.owner), (status, None));
        assert_eq!(
            kit.end_call(*call, end).await?,
            Ok(false),
            "{status}: sent again it is known"
        );
        assert_eq!(kit.row(call.id).await?, row);
    }
    Ok(())
}

/// An attempt that is no longer the row's: superseded, nothing changes.
pub async fn complete_stale_epoch(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let other = kit.worker().await?;
    let (_, calls) = kit.waiting(worker, kit.calls(2, true)).await?;
    let later = Lease {
        epoch: calls[0].lease.epoch.next(),
        ..calls[0].lease
    };
    let early = super::kit::Child {
        lease: later,
        ..calls[0]
    };
    assert_eq!(kit.settle(early).await?, Err(CommitRefused::Superseded));
    let stranger = super::kit::Child {
        lease: Lease {
            worker: other,
            ..calls[0].lease
        },
        ..calls[0]
    };
    assert_eq!(kit.settle(stranger).await?, Err(CommitRefused::Superseded));
    let retry = CallEnd::RetryAt {
        not_before: kit.now(),
        failure: Failure::new("ServiceError", "busy"),
    };
    assert_eq!(kit.end_call(calls[0], retry).await?, Ok(true));
    assert_eq!(kit.settle(calls[0]).await?, Err(CommitRefused::Superseded));
    let again = kit.take_call(worker, calls[0].id).await?;
    assert_eq!(kit.settle(calls[0]).await?, Err(CommitRefused::Superseded));
    assert_eq!(kit.status(again.id).await?, StackStatus::Processing);
    kit.settled(again).await?;
    Ok(())
}

/// A call that has ended another way refuses.
pub async fn complete_ended(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (parent, calls) = kit.waiting(worker, kit.calls(2, true)).await?;
    let dropping = crate::TurnCommit {
        dropped: vec![calls[0].id],
        ..kit.turn(parent)
    };
    kit.applied(dropping).await?;
    assert_eq!(kit.status(calls[0].id).await?, StackStatus::Cancelled);
    assert_eq!(kit.settle(calls[0]).await?, Err(CommitRefused::Ended));
    kit.settled(calls[1]).await?;
    let other_attempt = super::kit::Child {
        lease: Lease {
            epoch: calls[1].lease.epoch.next(),
            ..calls[1].lease
        },
        ..calls[1]
    };
    assert_eq!(kit.settle(other_attempt).await?, Err(CommitRefused::Ended));
    Ok(())
}

/// A call whose rows were cleaned away is gone, and nothing is inserted.
pub async fn complete_gone(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (parent, calls) = kit.waiting(worker, kit.calls(1, true)).await?;
    kit.settled(calls[0]).await?;
    kit.applied(kit.last_turn(parent)).await?;
    assert!(kit.storage().fold(parent.run, vec![], kit.now()).await?);
    while kit.storage().delete_folded_rows(10).await? > 0 {}
    assert_eq!(kit.settle(calls[0]).await?, Err(CommitRefused::Gone));
    assert!(kit.storage().stack_run(calls[0].id).await?.is_none());
    assert_eq!(kit.park(parent).await?, Err(CommitRefused::Gone));
    Ok(())
}

/// Tried again later: pending, not before its time, and the failure of the attempt is kept.
pub async fn complete_retry_waits(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (parent, calls) = kit.waiting(worker, kit.calls(1, true)).await?;
    let failure = Failure::new("ServiceError", "busy");
    let retry = CallEnd::RetryAt {
        not_before: kit.now().plus_millis(1_000),
        failure: failure.clone(),
    };
    assert_eq!(kit.end_call(calls[0], retry).await?, Ok(true));
    let row = kit.row(calls[0].id).await?;
    assert_eq!(row.outcome, Some(Outcome::Failed(failure)));
    assert_eq!(row.due_at, Some(kit.now().plus_millis(1_000)));
    assert_eq!(
        kit.status(parent.frame).await?,
        StackStatus::SuspendedWaitingChild
    );
    kit.advance(999);
    assert!(
        kit.try_take_call(worker, calls[0].id).await?.is_none(),
        "not before its time"
    );
    kit.advance(1);
    let again = kit.take_call(worker, calls[0].id).await?;
    assert_eq!(kit.row(again.id).await?.attempt, 2);
    kit.settled(again).await?;
    let row = kit.row(again.id).await?;
    assert_eq!(
        row.outcome,
        Some(value(1)),
        "the failed attempt is forgotten"
    );
    assert_eq!(row.settled_at, Some(kit.now()));
    Ok(())
}
