//! Timers: never early, delivered once, gone when cleared.

use std::sync::Arc;

use super::kit::{CaseResult, Kit, fired, recorded};
use crate::{Outcome, StackStatus, TurnCommit};

/// A timer that is cleared in the turn, or in the turn that made it, is cancelled, and the scan leaves it.
pub async fn dropped_timer_never_fires(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let made = vec![kit.timer(100), kit.timer(100), kit.call(true)];
    let (parent, children) = kit.waiting(worker, made).await?;
    let born_and_cleared = kit.timer(100);
    kit.applied(TurnCommit {
        dropped: vec![children[0].id, born_and_cleared.id],
        made: vec![born_and_cleared.clone()],
        ..kit.turn(parent)
    })
    .await?;
    kit.parked(parent.next()).await?;
    kit.advance(1_000);
    assert_eq!(kit.storage().fire_timers(kit.now(), 0, 100).await?, 1);
    for cleared in [children[0].id, born_and_cleared.id] {
        assert_eq!(kit.status(cleared).await?, StackStatus::Cancelled);
    }
    assert_eq!(kit.status(children[1].id).await?, StackStatus::Completed);
    assert_eq!(kit.storage().fire_timers(kit.now(), 0, 100).await?, 0);
    let late_drop = TurnCommit {
        delivered: vec![recorded(children[1])],
        dropped: vec![children[1].id],
        ..kit.turn(kit.take(worker, parent.frame).await?)
    };
    kit.applied(late_drop).await?;
    assert_eq!(
        kit.status(children[1].id).await?,
        StackStatus::Completed,
        "settled ones stay"
    );
    Ok(())
}

/// The scan and the owner fire the same timer, in both orders: it is delivered once.
pub async fn timer_both_fire(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (parent, timers) = kit
        .waiting(worker, vec![kit.timer(10), kit.timer(10)])
        .await?;
    kit.advance(1_000);
    assert_eq!(
        kit.storage().fire_timers(kit.now(), 5_000, 1).await?,
        0,
        "hot, and not overdue"
    );
    let first = TurnCommit {
        delivered: vec![fired(timers[0])],
        ..kit.turn(parent)
    };
    kit.applied(first).await?;
    let row = kit.row(timers[0].id).await?;
    assert_eq!(
        row.outcome,
        Some(Outcome::Completed(None)),
        "a timer gives undefined"
    );
    assert_eq!(row.delivered_order, Some(1));
    kit.advance(10_000);
    assert_eq!(
        kit.storage().fire_timers(kit.now(), 5_000, 10).await?,
        1,
        "overdue by the grace"
    );
    assert_eq!(kit.status(parent.frame).await?, StackStatus::PendingResume);
    let parent = parent.next();
    kit.applied(TurnCommit {
        delivered: vec![fired(timers[1])],
        ..kit.last_turn(parent)
    })
    .await?;
    assert_eq!(kit.row(timers[1].id).await?.delivered_order, Some(2));
    assert_eq!(kit.storage().fire_timers(kit.now(), 0, 10).await?, 0);
    Ok(())
}

/// A timer does not fire before the given time, which is the database's and not a worker's.
pub async fn timer_not_early(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (parent, timers) = kit
        .waiting(worker, vec![kit.timer(1_000), kit.timer(2_000)])
        .await?;
    kit.parked(parent).await?;
    let host_ahead = kit.now().plus_millis(3_600_000);
    kit.storage().server_time(host_ahead).await?;
    let due = kit.now().plus_millis(1_000);
    assert_eq!(
        kit.storage()
            .fire_timers(due.plus_millis(-1), 0, 10)
            .await?,
        0
    );
    assert_eq!(kit.status(timers[0].id).await?, StackStatus::Pending);
    assert_eq!(kit.storage().fire_timers(due, 0, 10).await?, 1);
    assert_eq!(kit.status(timers[0].id).await?, StackStatus::Completed);
    assert_eq!(kit.row(timers[0].id).await?.settled_at, Some(due));
    assert_eq!(kit.status(timers[1].id).await?, StackStatus::Pending);
    assert_eq!(kit.status(parent.frame).await?, StackStatus::PendingResume);
    Ok(())
}
