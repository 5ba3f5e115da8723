//! Turns: idempotent, fenced, whole.

use std::sync::Arc;

use super::kit::{CaseResult, Kit, born, child, held as held_row, json, local, log_line, recorded};
use crate::{CommitRefused, FrameNext, LogCursor, RunStatus, StackStatus, TurnCommit};

/// The same turn twice: applied, then already applied; rows once.
pub async fn commit_twice_same_turn(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let held = kit.begin(worker).await?;
    let turn = TurnCommit {
        made: kit.calls(2, true),
        logs: vec![log_line("once")],
        ..kit.turn(held)
    };
    let first = kit.applied(turn.clone()).await?;
    assert_eq!(first.status, StackStatus::SuspendedWaitingChild);
    let again = kit.commit(turn).await?.expect("sent again it is no error");
    assert!(again.already_applied, "the second time nothing is written");
    assert_eq!(again.status, StackStatus::SuspendedWaitingChild);
    assert_eq!(kit.storage().stack_runs(held.run).await?.len(), 3);
    let logs = kit
        .storage()
        .logs(held.run, LogCursor::default(), 10)
        .await?;
    assert_eq!(logs.lines.len(), 1, "the line is there once");
    assert_eq!(kit.row(held.frame).await?.turn.0, 1);
    Ok(())
}

/// The same for the turn that ended the root; after the rows went, it is gone.
pub async fn commit_twice_final(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let held = kit.begin(worker).await?;
    let turn = kit.last_turn(held);
    kit.applied(turn.clone()).await?;
    let again = kit
        .commit(turn.clone())
        .await?
        .expect("sent again it is no error");
    assert!(again.already_applied);
    assert_eq!(again.status, StackStatus::Completed);
    assert!(kit.storage().fold(held.run, vec![1], kit.now()).await?);
    while kit.storage().delete_folded_rows(10).await? > 0 {}
    assert_eq!(kit.refused(turn).await?, CommitRefused::Gone);
    Ok(())
}

/// An old turn after a newer one: superseded, and nothing changes.
pub async fn commit_old_turn_late(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let held = kit.begin(worker).await?;
    let first = TurnCommit {
        made: kit.calls(2, true),
        ..kit.turn(held)
    };
    kit.applied(first.clone()).await?;
    let rows = kit.storage().stack_runs(held.run).await?;
    let calls: Vec<_> = rows[1..].iter().map(|row| child(row, worker)).collect();
    let second = TurnCommit {
        delivered: vec![local(calls[0])],
        ..kit.turn(held.next())
    };
    kit.applied(second).await?;
    let before = kit.storage().stack_runs(held.run).await?;
    assert_eq!(kit.refused(first).await?, CommitRefused::Superseded);
    assert_eq!(kit.storage().stack_runs(held.run).await?, before);
    Ok(())
}

/// The same worker loads the frame again: turns of the old VM are superseded.
pub async fn commit_after_reload(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (held, calls) = kit.waiting(worker, kit.calls(2, true)).await?;
    let late = TurnCommit {
        delivered: vec![local(calls[0])],
        ..kit.turn(held)
    };
    kit.settled(calls[1]).await?;
    let reloaded = kit
        .storage()
        .reload_frame(held.frame, worker, kit.now())
        .await?
        .expect("there is something to do");
    assert_eq!(reloaded.row.status, StackStatus::Processing);
    assert_eq!(reloaded.row.owner, Some(worker));
    assert!(
        reloaded.row.epoch > held.lease.epoch,
        "each load raises the epoch"
    );
    assert_eq!(kit.refused(late).await?, CommitRefused::Superseded);
    let now_held = held_row(&reloaded.row, worker);
    kit.applied(TurnCommit {
        delivered: vec![recorded(calls[1])],
        ..kit.turn(now_held)
    })
    .await?;
    Ok(())
}

/// The root's end and its run's are one write; the result is readable after the fold and the deletion of the rows.
pub async fn final_writes_run(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let held = kit.begin(worker).await?;
    let end = kit.advance(5);
    kit.applied(kit.last_turn(held)).await?;
    let run = kit.run(held.run).await?;
    assert_eq!(run.status, RunStatus::Completed);
    assert_eq!(
        run.outcome,
        Some(crate::Outcome::Completed(Some(json("42"))))
    );
    assert_eq!(run.ended_at, Some(end));
    assert!(run.started_at.is_some());
    let root = kit.row(held.frame).await?;
    assert_eq!(root.status, StackStatus::Completed);
    assert_eq!(root.owner, None);
    assert_eq!(root.settled_at, Some(end));
    assert!(kit.storage().fold(held.run, vec![7, 7], kit.now()).await?);
    while kit.storage().delete_folded_rows(10).await? > 0 {}
    assert!(kit.storage().stack_run(held.frame).await?.is_none());
    let run = kit.run(held.run).await?;
    assert_eq!(
        run.outcome,
        Some(crate::Outcome::Completed(Some(json("42"))))
    );
    assert_eq!(run.record, Some(vec![7, 7]));

    let failing = kit.begin(worker).await?;
    let failure = crate::Failure::new("TypeError", "x is not a function");
    kit.applied(TurnCommit {
        next: FrameNext::Failed(failure.clone()),
        ..kit.turn(failing)
    })
    .await?;
    let run = kit.run(failing.run).await?;
    assert_eq!(run.status, RunStatus::Failed);
    assert_eq!(run.outcome, Some(crate::Outcome::Failed(failure)));
    Ok(())
}

/// A root that ends with open children: timers and waits are cancelled, calls settle without waking anybody, and the fold waits for them.
pub async fn final_with_open_calls(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let made = vec![
        kit.timer(1_000),
        kit.wait("go"),
        kit.call(true),
        kit.nested(true),
    ];
    let (held, children) = kit.waiting(worker, made).await?;
    kit.applied(kit.last_turn(held)).await?;
    for slept in &children[..2] {
        assert_eq!(kit.status(slept.id).await?, StackStatus::Cancelled);
    }
    for detached in &children[2..] {
        assert_eq!(kit.status(detached.id).await?, StackStatus::Processing);
    }
    kit.audit_is_clean().await?;
    assert!(!kit.storage().fold(held.run, vec![], kit.now()).await?);
    kit.settled(children[2]).await?;
    let nested = born(children[3], held);
    kit.applied(kit.last_turn(nested)).await?;
    assert_eq!(kit.run(held.run).await?.status, RunStatus::Completed);
    assert_eq!(kit.status(held.frame).await?, StackStatus::Completed);
    assert!(kit.storage().fold(held.run, vec![], kit.now()).await?);
    Ok(())
}

/// A nested frame that is cancelled settles as failed with `CancelledError`; a cancelled root cancels its run.
pub async fn commit_cancelled(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (held, children) = kit
        .waiting(worker, vec![kit.nested(true), kit.call(true)])
        .await?;
    let nested = born(children[0], held);
    let cancelled = |turn: TurnCommit| TurnCommit {
        next: FrameNext::Cancelled,
        ..turn
    };
    kit.applied(cancelled(kit.turn(nested))).await?;
    let row = kit.row(nested.frame).await?;
    assert_eq!(
        row.outcome,
        Some(crate::Outcome::Failed(crate::Failure::cancelled()))
    );
    assert_eq!(kit.status(held.frame).await?, StackStatus::PendingResume);
    kit.applied(cancelled(kit.turn(held))).await?;
    let run = kit.run(held.run).await?;
    assert_eq!(run.status, RunStatus::Cancelled);
    assert_eq!(run.outcome, None);
    assert_eq!(kit.status(held.frame).await?, StackStatus::Cancelled);
    assert_eq!(kit.status(children[1].id).await?, StackStatus::Cancelled);
    Ok(())
}
