//! Leases, and what becomes of the rows of the dead.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::kit::{CaseResult, Held, Kit, LEASE_MS, held, recorded};
use crate::{
    BlockedReason, CallEnd, CommitRefused, Failure, FrameNext, NewWorker, Reaped, StackStatus,
    StorageError, TurnCommit, Unblock, UnblockDecision, WorkerId,
};

/// A reaped worker: every operation by it says `LeaseLost`, claims give nothing, no row has a dead owner.
pub async fn commit_worker_dead(kit: Arc<Kit>) -> CaseResult {
    let dead = kit.worker().await?;
    let living = kit.worker().await?;
    let (parent, calls) = kit.waiting(dead, kit.calls(2, true)).await?;
    let fresh = kit.begin(dead).await?;
    let (other_run, root) = kit.submit().await?;
    let reaped = kit.take_over(&[living]).await?;
    assert_eq!(reaped.workers, [dead]);
    assert_eq!((reaped.frames, reaped.calls), (2, 2));
    let made = TurnCommit {
        made: kit.calls(1, true),
        ..kit.turn(fresh)
    };
    assert_eq!(kit.refused(made).await?, CommitRefused::LeaseLost);
    assert_eq!(kit.settle(calls[0]).await?, Err(CommitRefused::LeaseLost));
    assert_eq!(kit.park(parent).await?, Err(CommitRefused::LeaseLost));
    assert!(
        kit.try_take(dead, root).await?.is_none(),
        "the dead claim nothing"
    );
    assert!(kit.try_take_call(dead, calls[0].id).await?.is_none());
    let reloaded = kit
        .storage()
        .reload_frame(fresh.frame, dead, kit.now())
        .await?;
    assert!(reloaded.is_none());
    assert!(kit.storage().owned(dead, false).await?.is_empty());
    assert_eq!(kit.run(other_run).await?.status, crate::RunStatus::Queued);
    kit.take(living, fresh.frame).await?;
    Ok(())
}

/// Only the live worker's commit counts even while its row looks untouched: dead, but not yet freed.
pub async fn commit_between_death_and_take_over(kit: Arc<Kit>) -> CaseResult {
    let dead = kit.worker().await?;
    let living = kit.worker().await?;
    let held = kit.begin(dead).await?;
    let now = kit.advance(LEASE_MS + 1);
    kit.storage().heartbeat(living, now, LEASE_MS).await?;
    let reaped = kit.storage().reap(living, now, 0).await?;
    assert_eq!(reaped.workers, [dead]);
    assert!(reaped.more, "its rows are still to be freed");
    assert_eq!(kit.row(held.frame).await?.owner, Some(dead));
    let turn = TurnCommit {
        made: kit.calls(1, true),
        ..kit.turn(held)
    };
    assert_eq!(kit.refused(turn).await?, CommitRefused::LeaseLost);
    assert_eq!(kit.storage().stack_runs(held.run).await?.len(), 1);
    Ok(())
}

/// Reap and commit in both orders and at the same time: no row that the commit bears is orphaned.
pub async fn reap_races_commit(kit: Arc<Kit>) -> CaseResult {
    for round in 0..kit.rounds(1_000) {
        let dying = kit.worker().await?;
        let living = kit.worker().await?;
        let held = kit.begin(dying).await?;
        let turn = TurnCommit {
            made: kit.calls(2, true),
            ..kit.turn(held)
        };
        let now = kit.advance(LEASE_MS + 1);
        kit.storage().heartbeat(living, now, LEASE_MS).await?;
        let (commits, reaps) = (Arc::clone(&kit), Arc::clone(&kit));
        let mut both: Vec<BoxFuture<'static, CaseResult>> = vec![
            Box::pin(async move {
                match commits.commit(turn).await? {
                    Ok(_) | Err(CommitRefused::LeaseLost) => Ok(()),
                    Err(other) => panic!("a commit of a dying worker: {other}"),
                }
            }),
            Box::pin(async move { reaps.storage().reap(living, now, 100).await.map(drop) }),
        ];
        if round % 2 == 1 {
            both.reverse();
        }
        for answer in kit.at_once(both).await {
            answer?;
        }
        for row in kit.storage().stack_runs(held.run).await? {
            assert_ne!(row.owner, Some(dying), "round {round}: {row:?}");
        }
    }
    Ok(())
}

/// Frames in every open state and calls of the dead are freed; parked ones and others' rows are left alone.
pub async fn reap_all_states(kit: Arc<Kit>) -> CaseResult {
    let dead = kit.worker().await?;
    let living = kit.worker().await?;
    let processing = kit.begin(dead).await?;
    let (asleep, _) = kit.waiting(dead, kit.calls(1, true)).await?;
    let (woken, calls) = kit.waiting(dead, kit.calls(2, true)).await?;
    kit.settled(calls[0]).await?;
    let (parked, _) = kit.waiting(dead, kit.calls(1, false)).await?;
    kit.parked(parked).await?;
    let (theirs, their_calls) = kit.waiting(living, kit.calls(1, true)).await?;
    let untouched = [parked.frame, theirs.frame, their_calls[0].id];
    let mut before = Vec::new();
    for id in untouched {
        before.push(kit.row(id).await?);
    }
    let reaped = kit.take_over(&[living]).await?;
    assert_eq!((reaped.frames, reaped.calls), (3, 2));
    for (freed, status) in [
        (processing, StackStatus::Pending),
        (asleep, StackStatus::SuspendedWaitingChild),
        (woken, StackStatus::PendingResume),
    ] {
        let row = kit.row(freed.frame).await?;
        assert_eq!((row.status, row.owner), (status, None));
        assert_eq!(row.epoch, freed.lease.epoch.next());
        assert_eq!((row.attempt, row.in_doubt), (1, true));
    }
    for (id, row) in untouched.into_iter().zip(before) {
        assert_eq!(kit.row(id).await?, row);
    }
    let resumed = kit.take(living, woken.frame).await?;
    kit.applied(TurnCommit {
        delivered: vec![recorded(calls[0])],
        ..kit.turn(resumed)
    })
    .await?;
    let row = kit.row(woken.frame).await?;
    assert_eq!(
        (row.attempt, row.in_doubt),
        (0, false),
        "a committed turn clears the doubt"
    );
    Ok(())
}

/// A frame that was being worked on gets the status that its children ask for.
pub async fn reap_status_from_children(kit: Arc<Kit>) -> CaseResult {
    let dead = kit.worker().await?;
    let living = kit.worker().await?;
    let first_turn = kit.begin(dead).await?;
    let (unread, calls) = kit.waiting(dead, kit.calls(2, false)).await?;
    let call = kit.take_call(living, calls[0].id).await?;
    kit.settled(call).await?;
    let reloaded = kit
        .storage()
        .reload_frame(unread.frame, dead, kit.now())
        .await?;
    assert_eq!(
        reloaded.expect("unread").row.status,
        StackStatus::Processing
    );
    let (asleep, _) = kit.waiting(dead, kit.calls(1, false)).await?;
    kit.take_over(&[living]).await?;
    assert_eq!(kit.status(first_turn.frame).await?, StackStatus::Pending);
    assert_eq!(kit.status(unread.frame).await?, StackStatus::PendingResume);
    assert_eq!(
        kit.status(asleep.frame).await?,
        StackStatus::SuspendedWaitingChild
    );
    Ok(())
}

/// Many rows in chunks, the reaper dies between two of them: the repair scan of another finishes.
pub async fn reap_chunked(kit: Arc<Kit>) -> CaseResult {
    let dead = kit.worker().await?;
    let (first, second) = (kit.worker().await?, kit.worker().await?);
    let count = kit.rounds(10_000).max(50);
    let (parent, calls) = kit.waiting(dead, kit.calls(count, true)).await?;
    let now = kit.advance(LEASE_MS + 1);
    for living in [first, second] {
        kit.storage().heartbeat(living, now, LEASE_MS).await?;
    }
    let reaped = kit.storage().reap(first, now, 20).await?;
    assert_eq!(reaped.workers, [dead]);
    assert_eq!(
        reaped.frames + reaped.calls,
        20,
        "at most so many rows a call"
    );
    assert!(reaped.more);
    let mut freed = 20;
    loop {
        let reaped = kit.storage().reap(second, now, 1_000).await?;
        assert!(reaped.workers.is_empty(), "it was declared dead once");
        freed += reaped.frames + reaped.calls;
        if !reaped.more {
            break;
        }
    }
    assert_eq!(freed, calls.len() + 1);
    assert!(kit.storage().owned(dead, false).await?.is_empty());
    let row = kit.row(parent.frame).await?;
    assert_eq!((row.owner, row.attempt), (None, 1), "freed once");
    Ok(())
}

/// A call of the dead worker's frame at a living worker stays there, completes and wakes.
pub async fn reap_live_third(kit: Arc<Kit>) -> CaseResult {
    let dead = kit.worker().await?;
    let living = kit.worker().await?;
    let (parent, calls) = kit.waiting(dead, kit.calls(1, false)).await?;
    let call = kit.take_call(living, calls[0].id).await?;
    kit.take_over(&[living]).await?;
    let row = kit.row(call.id).await?;
    assert_eq!(
        (row.status, row.owner),
        (StackStatus::Processing, Some(living))
    );
    kit.settled(call).await?;
    assert_eq!(kit.status(parent.frame).await?, StackStatus::PendingResume);
    Ok(())
}

/// A claimed call of the dead is pending, in doubt, and its attempts count up.
pub async fn reap_sets_in_doubt(kit: Arc<Kit>) -> CaseResult {
    let dead = kit.worker().await?;
    let living = kit.worker().await?;
    let (_, calls) = kit.waiting(dead, kit.calls(1, true)).await?;
    kit.take_over(&[living]).await?;
    let row = kit.row(calls[0].id).await?;
    assert_eq!(
        (row.status, row.owner, row.in_doubt),
        (StackStatus::Pending, None, true)
    );
    assert_eq!(row.epoch, calls[0].lease.epoch.next());
    let again = kit.take_call(living, calls[0].id).await?;
    let row = kit.row(again.id).await?;
    assert_eq!(
        (row.attempt, row.in_doubt),
        (2, true),
        "the claimer is told"
    );
    Ok(())
}

/// Deaths with a call in hand are counted until it is answered or a person decides; who leaves in good order did not die of it.
pub async fn take_overs_of_a_call_are_counted(kit: Arc<Kit>) -> CaseResult {
    let living = kit.worker().await?;
    let (_, calls) = kit.waiting(living, kit.calls(1, false)).await?;
    let id = calls[0].id;
    let die_with_it = async || {
        let dying = kit.worker().await?;
        kit.take_call(dying, id).await?;
        kit.take_over(&[living]).await?;
        Ok::<_, StorageError>(kit.row(id).await?.take_overs)
    };
    assert_eq!(die_with_it().await?, 1);
    assert_eq!(die_with_it().await?, 2);
    let leaving = kit.worker().await?;
    kit.take_call(leaving, id).await?;
    kit.storage().retire(leaving, kit.now()).await?;
    let row = kit.row(id).await?;
    assert_eq!((row.take_overs, row.in_doubt), (2, true));
    let call = kit.take_call(living, id).await?;
    let retry = CallEnd::RetryAt {
        not_before: kit.now(),
        failure: Failure::new("ServiceError", "busy"),
    };
    kit.end_call(call, retry).await?.expect("it is mine");
    assert_eq!(kit.row(id).await?.take_overs, 0, "it was answered");
    assert_eq!(die_with_it().await?, 1);
    let call = kit.take_call(living, id).await?;
    assert_eq!(kit.row(id).await?.take_overs, 1, "the claimer is told");
    let reason = BlockedReason::PoisonedCall {
        service: "svc".to_owned(),
        path: "step".to_owned(),
        take_overs: 1,
    };
    kit.end_call(call, CallEnd::Blocked(reason.clone()))
        .await?
        .expect("it is mine");
    let row = kit.row(id).await?;
    assert_eq!((row.take_overs, row.blocked), (1, Some(reason)));
    let unblock = Unblock {
        run: row.task_run,
        row: None,
        decision: UnblockDecision::Retry,
        now: kit.now(),
    };
    assert_eq!(kit.storage().unblock(unblock).await?, 1);
    let row = kit.row(id).await?;
    assert_eq!((row.take_overs, row.in_doubt), (0, false));
    Ok(())
}

/// A dead worker has no heartbeat and no second life; a living one renews by heartbeat or by registering again.
pub async fn heartbeat_after_reap(kit: Arc<Kit>) -> CaseResult {
    let dead = kit.worker().await?;
    let living = kit.worker().await?;
    kit.take_over(&[living]).await?;
    assert!(!kit.storage().heartbeat(dead, kit.now(), LEASE_MS).await?);
    let stranger = WorkerId::from_uuid(kit.signal_id());
    assert!(
        !kit.storage()
            .heartbeat(stranger, kit.now(), LEASE_MS)
            .await?
    );
    let register = |id| NewWorker {
        id,
        name: "again".to_owned(),
        now: kit.now(),
        lease_ms: LEASE_MS * 3,
    };
    let answer = kit.storage().register(register(dead)).await;
    assert!(
        matches!(answer, Err(StorageError::Misuse { .. })),
        "{answer:?}"
    );
    kit.storage().register(register(living)).await?;
    let other = kit.worker().await?;
    let now = kit.advance(LEASE_MS * 2);
    assert!(
        kit.storage().heartbeat(other, now, LEASE_MS).await?,
        "late, but nobody took over"
    );
    assert_eq!(kit.storage().reap(other, now, 10).await?, Reaped::default());
    Ok(())
}

/// Who is not live reaps nothing, and nobody reaps itself.
pub async fn reap_only_by_the_living(kit: Arc<Kit>) -> CaseResult {
    let first = kit.worker().await?;
    let second = kit.worker().await?;
    kit.begin(first).await?;
    let now = kit.advance(LEASE_MS + 1);
    let reaped = kit.storage().reap(second, now, 10).await?;
    assert_eq!(reaped.workers, [first], "and not itself, though as late");
    assert_eq!(kit.storage().reap(first, now, 10).await?, Reaped::default());
    assert!(kit.storage().heartbeat(second, now, LEASE_MS).await?);
    Ok(())
}

/// The clock was set back by an hour: a lease that the dead worker wrote before that does not hold for an hour more,
/// and a living worker that renewed since then lives.
pub async fn reap_after_the_clock_was_set_back(kit: Arc<Kit>) -> CaseResult {
    let dead = kit.worker().await?;
    let living = kit.worker().await?;
    let reaper = kit.worker().await?;
    kit.begin(dead).await?;
    let earlier = kit.now().plus_millis(-3_600_000);
    for worker in [living, reaper] {
        assert!(kit.storage().heartbeat(worker, earlier, LEASE_MS).await?);
    }
    let reaped = kit.storage().reap(reaper, earlier, 10).await?;
    assert_eq!((reaped.workers, reaped.frames), (vec![dead], 1));
    Ok(())
}

/// A worker that leaves frees what it has; leaving twice changes nothing.
pub async fn retire_frees_rows(kit: Arc<Kit>) -> CaseResult {
    let leaving = kit.worker().await?;
    let living = kit.worker().await?;
    let processing = kit.begin(leaving).await?;
    let (asleep, calls) = kit.waiting(leaving, kit.calls(1, true)).await?;
    let blocked = kit.begin(leaving).await?;
    kit.applied(TurnCommit {
        next: FrameNext::Blocked(super::kit::unknown_outcome()),
        ..kit.turn(blocked)
    })
    .await?;
    for _ in 0..2 {
        kit.storage().retire(leaving, kit.now()).await?;
        assert!(kit.storage().owned(leaving, false).await?.is_empty());
        assert_eq!(kit.status(processing.frame).await?, StackStatus::Pending);
        assert_eq!(
            kit.status(asleep.frame).await?,
            StackStatus::SuspendedWaitingChild
        );
        assert_eq!(kit.status(blocked.frame).await?, StackStatus::Blocked);
        assert_eq!(
            kit.row(calls[0].id).await?.epoch,
            calls[0].lease.epoch.next()
        );
    }
    assert!(
        !kit.storage()
            .heartbeat(leaving, kit.now(), LEASE_MS)
            .await?
    );
    let turn: Held = kit.take(living, processing.frame).await?;
    assert_eq!(held(&kit.row(turn.frame).await?, living).lease, turn.lease);
    Ok(())
}
