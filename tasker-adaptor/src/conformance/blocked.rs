//! What needs a person: it stays where it is, loses nothing, and goes on when told.

use std::sync::Arc;

use super::kit::{CaseResult, Kit, born, unknown_outcome, value};
use crate::{
    BlockedReason, CallEnd, CommitRefused, Failure, FrameNext, Outcome, RunStatus, StackRunId,
    StackStatus, StorageError, TaskRunId, TurnCommit, Unblock, UnblockDecision,
};

fn blocking(turn: TurnCommit) -> TurnCommit {
    TurnCommit {
        next: FrameNext::Blocked(BlockedReason::Poisoned { take_overs: 3 }),
        ..turn
    }
}

async fn unblock(
    kit: &Kit,
    run: TaskRunId,
    row: Option<StackRunId>,
    decision: UnblockDecision,
) -> Result<u32, StorageError> {
    let now = kit.now();
    let unblock = Unblock {
        run,
        row,
        decision,
        now,
    };
    kit.storage().unblock(unblock).await
}

/// A blocked frame: its turn does not count, sent again it is known; the reaper, claims and timers leave it; a retry makes it claimable.
pub async fn blocked_row_stays(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let other = kit.worker().await?;
    let made = vec![kit.timer(1_000), kit.call(true), kit.call(true)];
    let (parent, children) = kit.waiting(worker, made).await?;
    kit.settled(children[1]).await?;
    let turn = TurnCommit {
        logs: vec![super::kit::log_line("why")],
        ..blocking(kit.turn(parent))
    };
    let receipt = kit.applied(turn.clone()).await?;
    assert_eq!(receipt.status, StackStatus::Blocked);
    let row = kit.row(parent.frame).await?;
    assert_eq!((row.status, row.owner), (StackStatus::Blocked, None));
    assert_eq!(
        (row.epoch, row.turn),
        (parent.lease.epoch, parent.turn),
        "the turn does not count"
    );
    let run = kit.run(parent.run).await?;
    assert_eq!(run.status, RunStatus::Blocked);
    assert_eq!(run.blocked, Some(BlockedReason::Poisoned { take_overs: 3 }));
    let again = kit.commit(turn).await?.expect("it is known");
    assert!(again.already_applied);
    let logs = kit
        .storage()
        .logs(parent.run, crate::LogCursor::default(), 10)
        .await?;
    assert_eq!(logs.lines.len(), 1, "its log lines are there, once");
    let mut misuse = blocking(kit.turn(parent));
    misuse.dropped = vec![children[0].id];
    let answer = kit.commit(misuse).await;
    assert!(
        matches!(answer, Err(StorageError::Misuse { .. })),
        "{answer:?}"
    );

    kit.settled(children[2]).await?;
    kit.take_over(&[other]).await?;
    assert_eq!(
        kit.storage().fire_timers(kit.now(), 0, 10).await?,
        1,
        "its timer goes on"
    );
    assert!(kit.try_take(other, parent.frame).await?.is_none());
    let row = kit.row(parent.frame).await?;
    assert_eq!((row.status, row.attempt), (StackStatus::Blocked, 0));
    assert_eq!(kit.run(parent.run).await?.status, RunStatus::Blocked);

    assert_eq!(
        unblock(&kit, parent.run, None, UnblockDecision::Retry).await?,
        1
    );
    let row = kit.row(parent.frame).await?;
    assert_eq!(
        (row.status, row.blocked),
        (StackStatus::PendingResume, None)
    );
    let run = kit.run(parent.run).await?;
    assert_eq!((run.status, run.blocked), (RunStatus::Suspended, None));
    assert_eq!(
        unblock(&kit, parent.run, None, UnblockDecision::Retry).await?,
        0
    );
    let resumed = kit.take(other, parent.frame).await?;
    assert_eq!(resumed.turn, parent.turn);

    let first_turn = kit.begin(other).await?;
    kit.applied(blocking(kit.turn(first_turn))).await?;
    assert_eq!(
        unblock(&kit, first_turn.run, None, UnblockDecision::Retry).await?,
        1
    );
    assert_eq!(kit.run(first_turn.run).await?.status, RunStatus::Queued);
    assert_eq!(kit.status(first_turn.frame).await?, StackStatus::Pending);
    let nowhere = unblock(&kit, kit.run_id(), None, UnblockDecision::Retry).await;
    assert!(
        matches!(nowhere, Err(StorageError::NotFound { .. })),
        "{nowhere:?}"
    );
    Ok(())
}

/// A blocked call is settled by a person, or tried again without doubt; the run is blocked as long as one row is.
pub async fn unblock_settles(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (parent, calls) = kit.waiting(worker, kit.calls(3, true)).await?;
    kit.parked(parent).await?;
    for call in &calls {
        let end = CallEnd::Blocked(unknown_outcome());
        assert_eq!(kit.end_call(*call, end).await?, Ok(true));
    }
    assert_eq!(
        kit.status(parent.frame).await?,
        StackStatus::SuspendedWaitingChild
    );
    assert_eq!(kit.run(parent.run).await?.status, RunStatus::Blocked);
    let supplied = UnblockDecision::supply(super::kit::json("[1.0]"));
    assert_eq!(
        unblock(&kit, parent.run, Some(calls[0].id), supplied.clone()).await?,
        1
    );
    let row = kit.row(calls[0].id).await?;
    assert_eq!(
        row.outcome,
        Some(Outcome::Completed(Some(super::kit::json("[1.0]"))))
    );
    assert_eq!((row.status, row.blocked), (StackStatus::Completed, None));
    assert_eq!(kit.status(parent.frame).await?, StackStatus::PendingResume);
    assert_eq!(
        kit.run(parent.run).await?.status,
        RunStatus::Blocked,
        "others are still blocked"
    );
    assert_eq!(
        unblock(&kit, parent.run, Some(calls[0].id), supplied).await?,
        0
    );
    assert_eq!(
        unblock(&kit, parent.run, Some(calls[1].id), UnblockDecision::Retry).await?,
        1
    );
    let again = kit.take_call(worker, calls[1].id).await?;
    assert!(!kit.row(again.id).await?.in_doubt, "a person has decided");
    let failed = UnblockDecision::fail(Failure::new("Error", "by hand"));
    assert_eq!(unblock(&kit, parent.run, None, failed).await?, 1);
    assert_eq!(kit.status(calls[2].id).await?, StackStatus::Failed);
    assert_eq!(kit.run(parent.run).await?.status, RunStatus::Suspended);
    Ok(())
}

/// A blocked frame ends with what a person supplies: the root with its run, a nested one by waking its parent.
pub async fn unblock_ends_frames(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (parent, children) = kit
        .waiting(worker, vec![kit.nested(true), kit.call(true)])
        .await?;
    kit.applied(blocking(kit.turn(born(children[0], parent))))
        .await?;
    assert_eq!(kit.run(parent.run).await?.status, RunStatus::Blocked);
    assert_eq!(
        kit.status(parent.frame).await?,
        StackStatus::SuspendedWaitingChild
    );
    let decision = UnblockDecision::Settle(value(5));
    assert_eq!(unblock(&kit, parent.run, None, decision.clone()).await?, 1);
    let nested = kit.row(children[0].id).await?;
    assert_eq!(
        (nested.status, nested.outcome),
        (StackStatus::Completed, Some(value(5)))
    );
    assert_eq!(kit.status(parent.frame).await?, StackStatus::PendingResume);
    let root = kit.begin(worker).await?;
    kit.applied(blocking(kit.turn(root))).await?;
    assert_eq!(
        unblock(&kit, root.run, Some(root.frame), decision).await?,
        1
    );
    let run = kit.run(root.run).await?;
    assert_eq!(
        (run.status, run.outcome),
        (RunStatus::Completed, Some(value(5)))
    );
    assert_eq!(run.blocked, None);
    Ok(())
}

/// What nobody waits for is not blocked: a detached call or frame fails instead, and a blocked one fails when its frame ends, so that the fold comes.
pub async fn detached_rows_fail_instead(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let made = vec![kit.call(true), kit.nested(true), kit.call(true)];
    let (parent, children) = kit.waiting(worker, made).await?;
    let block = CallEnd::Blocked(unknown_outcome());
    assert_eq!(kit.end_call(children[2], block.clone()).await?, Ok(true));
    assert_eq!(kit.run(parent.run).await?.status, RunStatus::Blocked);
    kit.applied(kit.last_turn(parent)).await?;
    let run = kit.run(parent.run).await?;
    assert_eq!((run.status, run.blocked), (RunStatus::Completed, None));
    assert_eq!(kit.end_call(children[0], block.clone()).await?, Ok(true));
    assert_eq!(
        kit.end_call(children[0], block).await?,
        Ok(false),
        "sent again it is known"
    );
    let turn = blocking(kit.turn(born(children[1], parent)));
    kit.applied(turn.clone()).await?;
    let again = kit.commit(turn).await?.expect("it is known");
    assert!(again.already_applied);
    for child in &children {
        assert_eq!(kit.status(child.id).await?, StackStatus::Failed);
    }
    assert_eq!(
        kit.refused(kit.turn(parent.next())).await?,
        CommitRefused::Ended
    );
    assert!(kit.storage().fold(parent.run, vec![], kit.now()).await?);
    Ok(())
}
