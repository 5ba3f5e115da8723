//! No lost wake-up: a child that settles and a parent that suspends, in every order and at the same time.

use std::sync::Arc;

use super::kit::{CaseResult, Kit, born, held, local, recorded};
use crate::{CommitRefused, StackStatus, TurnCommit};

/// A child settles during the turn: the suspending commit makes the frame `pending_resume`.
pub async fn suspend_after_child_settled(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (parent, calls) = kit.waiting(worker, kit.calls(3, true)).await?;
    kit.settled(calls[1]).await?;
    let receipt = kit
        .applied(TurnCommit {
            delivered: vec![local(calls[0])],
            ..kit.turn(parent)
        })
        .await?;
    assert_eq!(receipt.status, StackStatus::PendingResume);
    let unread = kit.storage().unread(parent.frame).await?;
    let ids: Vec<_> = unread.iter().map(|row| row.id).collect();
    assert_eq!(ids, [calls[1].id], "settled and not yet delivered");
    let row = kit.row(parent.frame).await?;
    assert_eq!(row.owner, Some(worker), "the owner stays");
    Ok(())
}

/// A child settles after the suspension: the frame becomes `pending_resume` and keeps its owner.
pub async fn settle_after_suspend(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let other = kit.worker().await?;
    let (parent, calls) = kit.waiting(worker, kit.calls(1, false)).await?;
    let call = kit.take_call(other, calls[0].id).await?;
    kit.settled(call).await?;
    let row = kit.row(parent.frame).await?;
    assert_eq!(row.status, StackStatus::PendingResume);
    assert_eq!(row.owner, Some(worker));
    assert_eq!(
        kit.try_take(other, parent.frame)
            .await?
            .map(|held| held.frame),
        None
    );
    let woken = kit.storage().owned(worker, true).await?;
    assert_eq!(woken.len(), 1);
    assert_eq!(woken[0].id, parent.frame);
    Ok(())
}

/// Settling and suspending at the same time, again and again: never suspended with an unread child.
pub async fn settle_while_suspending(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    for round in 0..kit.rounds(10_000) {
        let (parent, calls) = kit.waiting(worker, kit.calls(3, true)).await?;
        let turn = TurnCommit {
            delivered: vec![local(calls[0])],
            ..kit.turn(parent)
        };
        kit.settled(calls[0]).await?;
        let suspend = Arc::clone(&kit);
        let settle = Arc::clone(&kit);
        let call = calls[1];
        let mut both: Vec<futures::future::BoxFuture<'static, CaseResult>> = vec![
            Box::pin(async move { suspend.applied(turn).await.map(drop) }),
            Box::pin(async move { settle.settled(call).await }),
        ];
        if round % 2 == 1 {
            both.reverse();
        }
        for answer in kit.at_once(both).await {
            answer?;
        }
        let status = kit.status(parent.frame).await?;
        assert_eq!(
            status,
            StackStatus::PendingResume,
            "the wake-up of round {round} is lost"
        );
        let done = kit.last_turn(parent.next());
        kit.applied(done).await?;
        kit.settled(calls[2]).await?;
    }
    Ok(())
}

/// Two completions of one parent on two connections: both unread, the parent woken, no deadlock.
pub async fn settle_two_at_once(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    for _ in 0..kit.rounds(1_000) {
        let (parent, calls) = kit.waiting(worker, kit.calls(2, true)).await?;
        let settles = calls.iter().map(|call| {
            let (kit, call) = (Arc::clone(&kit), *call);
            let settle: futures::future::BoxFuture<'static, CaseResult> =
                Box::pin(async move { kit.settled(call).await });
            settle
        });
        for answer in kit.at_once(settles.collect()).await {
            answer?;
        }
        assert_eq!(kit.status(parent.frame).await?, StackStatus::PendingResume);
        assert_eq!(kit.storage().unread(parent.frame).await?.len(), 2);
        let turn = TurnCommit {
            delivered: vec![recorded(calls[1]), recorded(calls[0])],
            ..kit.last_turn(parent)
        };
        kit.applied(turn).await?;
    }
    Ok(())
}

/// A nested frame at another worker ends: the parent, owned elsewhere, becomes `pending_resume` and its owner finds it.
pub async fn nested_child_other_worker(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let other = kit.worker().await?;
    let (parent, children) = kit.waiting(worker, vec![kit.nested(false)]).await?;
    let nested = kit.take(other, children[0].id).await?;
    kit.applied(kit.last_turn(nested)).await?;
    let row = kit.row(parent.frame).await?;
    assert_eq!(row.status, StackStatus::PendingResume);
    assert_eq!(row.owner, Some(worker));
    let woken = kit.storage().owned(worker, true).await?;
    assert_eq!(
        woken.iter().map(|row| row.id).collect::<Vec<_>>(),
        [parent.frame]
    );
    kit.applied(TurnCommit {
        delivered: vec![recorded(children[0])],
        ..kit.last_turn(parent)
    })
    .await?;
    Ok(())
}

/// A turn that would wait for nothing is refused whole.
pub async fn suspended_without_children(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let fresh = kit.begin(worker).await?;
    assert_eq!(
        kit.refused(kit.turn(fresh)).await?,
        CommitRefused::SuspendedOnNothing
    );
    let (parent, calls) = kit.waiting(worker, kit.calls(1, true)).await?;
    let turn = TurnCommit {
        delivered: vec![local(calls[0])],
        ..kit.turn(parent)
    };
    assert_eq!(kit.refused(turn).await?, CommitRefused::SuspendedOnNothing);
    assert_eq!(
        kit.status(calls[0].id).await?,
        StackStatus::Processing,
        "nothing was written"
    );
    assert_eq!(kit.row(parent.frame).await?.turn, parent.turn);
    let timer = kit.timer(10);
    let only_dropped = TurnCommit {
        dropped: vec![timer.id],
        made: vec![timer],
        ..kit.turn(fresh)
    };
    assert_eq!(
        kit.refused(only_dropped).await?,
        CommitRefused::SuspendedOnNothing
    );
    Ok(())
}

/// A nested frame ends and its parent suspends in one batch, in both orders: the parent is `pending_resume`.
pub async fn batch_child_ends_parent_suspends(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    for child_first in [true, false] {
        let made = vec![kit.nested(true), kit.call(true), kit.call(true)];
        let (parent, children) = kit.waiting(worker, made).await?;
        kit.settled(children[1]).await?;
        let parent_turn = TurnCommit {
            delivered: vec![recorded(children[1])],
            ..kit.turn(parent)
        };
        let mut batch = vec![parent_turn, kit.last_turn(born(children[0], parent))];
        if child_first {
            batch.reverse();
        }
        let answers = kit.storage().commit(Arc::from(batch)).await?;
        let receipts: Vec<_> = answers
            .into_iter()
            .map(|answer| answer.expect("both apply"))
            .collect();
        let parent_receipt = receipts[usize::from(child_first)];
        assert_eq!(
            parent_receipt.status,
            StackStatus::PendingResume,
            "the receipt says so"
        );
        assert_eq!(kit.status(parent.frame).await?, StackStatus::PendingResume);
        assert_eq!(kit.status(children[0].id).await?, StackStatus::Completed);
    }
    Ok(())
}

/// Parking a woken frame keeps the wake: another worker claims it. A stale epoch parks nothing.
pub async fn park_keeps_wake(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let other = kit.worker().await?;
    let (parent, calls) = kit.waiting(worker, kit.calls(2, true)).await?;
    kit.settled(calls[0]).await?;
    kit.parked(parent).await?;
    let row = kit.row(parent.frame).await?;
    assert_eq!((row.status, row.owner), (StackStatus::PendingResume, None));
    assert!(row.epoch > parent.lease.epoch);
    assert_eq!(row.attempt, 0, "parking is no take-over");
    assert_eq!(
        kit.run(parent.run).await?.status,
        crate::RunStatus::Suspended
    );
    assert_eq!(kit.park(parent).await?, Err(CommitRefused::Superseded));
    let resumed = kit.take(other, parent.frame).await?;
    assert_eq!(
        kit.run(parent.run).await?.status,
        crate::RunStatus::Processing
    );
    assert_eq!(kit.park(parent).await?, Err(CommitRefused::Superseded));
    let row = kit.row(parent.frame).await?;
    assert_eq!(row.owner, Some(other), "the late release changed nothing");
    let turn = TurnCommit {
        delivered: vec![recorded(calls[0])],
        ..kit.turn(resumed)
    };
    kit.applied(turn).await?;
    assert_eq!(
        held(&kit.row(parent.frame).await?, other).turn,
        resumed.next().turn
    );

    let asleep = kit.waiting(worker, kit.calls(1, true)).await?.0;
    kit.parked(asleep).await?;
    assert_eq!(
        kit.status(asleep.frame).await?,
        StackStatus::SuspendedWaitingChild
    );
    let unstarted = kit.begin(worker).await?;
    kit.parked(unstarted).await?;
    assert_eq!(kit.status(unstarted.frame).await?, StackStatus::Pending);
    Ok(())
}

/// The frame is parked, the call still runs at the old owner: it settles and wakes.
pub async fn complete_after_park(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let other = kit.worker().await?;
    let (parent, calls) = kit.waiting(worker, kit.calls(1, true)).await?;
    kit.parked(parent).await?;
    assert_eq!(
        kit.try_take(other, parent.frame)
            .await?
            .map(|held| held.frame),
        None
    );
    kit.settled(calls[0]).await?;
    let resumed = kit.take(other, parent.frame).await?;
    kit.applied(TurnCommit {
        delivered: vec![recorded(calls[0])],
        ..kit.last_turn(resumed)
    })
    .await?;
    Ok(())
}
