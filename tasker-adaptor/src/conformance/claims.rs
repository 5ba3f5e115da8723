//! Claims: one winner, in order, nothing that may not be had.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::kit::{CaseResult, Kit, born, local, recorded, unknown_outcome};
use crate::{
    CallEnd, Claim, Failure, FrameNext, NewTaskRun, OwnedRow, ReleasedCall, StackRunId,
    StackStatus, StorageError, TurnCommit, WorkerId,
};

/// Sixteen claimers over many rows: each row has one winner, none is left.
pub async fn claim_one_winner(kit: Arc<Kit>) -> CaseResult {
    let count = kit.rounds(10_000);
    let runs: Vec<_> = (0..count).map(|_| kit.new_run()).collect();
    for chunk in runs.chunks(500) {
        for answer in kit.storage().submit(chunk.to_vec(), kit.now()).await? {
            assert!(answer?.created);
        }
    }
    let taken = claim_all(&kit, false).await?;
    assert_eq!(taken.len(), count, "every frame was claimed");
    let distinct: BTreeSet<_> = taken.iter().collect();
    assert_eq!(distinct.len(), count, "and by one worker only");

    let worker = kit.worker().await?;
    let (_, calls) = kit.waiting(worker, kit.calls(count, false)).await?;
    let taken = claim_all(&kit, true).await?;
    assert_eq!(taken.len(), calls.len(), "every call was claimed");
    let distinct: BTreeSet<_> = taken.iter().collect();
    assert_eq!(distinct.len(), calls.len());
    Ok(())
}

async fn claim_all(kit: &Arc<Kit>, calls: bool) -> Result<Vec<StackRunId>, StorageError> {
    let mut claimers: Vec<BoxFuture<'static, Result<Vec<StackRunId>, StorageError>>> = Vec::new();
    for _ in 0..16 {
        let (kit, worker) = (Arc::clone(kit), kit.worker().await?);
        claimers.push(Box::pin(async move {
            let mut mine = Vec::new();
            loop {
                let some = claim_some(&kit, kit.claim(worker, 50), calls).await?;
                if some.is_empty() {
                    return Ok(mine);
                }
                mine.extend(some);
            }
        }));
    }
    let mut all = Vec::new();
    for answer in kit.at_once(claimers).await {
        all.extend(answer?);
    }
    Ok(all)
}

async fn claim_some(kit: &Kit, claim: Claim, calls: bool) -> Result<Vec<StackRunId>, StorageError> {
    Ok(if calls {
        let claimed = kit.storage().claim_calls(claim).await?;
        claimed.into_iter().map(|claimed| claimed.row.id).collect()
    } else {
        let claimed = kit.storage().claim_frames(claim).await?;
        claimed.into_iter().map(|claimed| claimed.row.id).collect()
    })
}

/// Higher priority first, then who was ready first; at most as many as asked for.
pub async fn claim_order(kit: Arc<Kit>) -> CaseResult {
    let mut submitted = Vec::new();
    for priority in [0, 5, 0, 5] {
        let new = NewTaskRun {
            priority,
            ..kit.new_run()
        };
        submitted.push(new.root);
        kit.submit_new(new).await?;
        kit.advance(10);
    }
    let worker = kit.worker().await?;
    let mut order = Vec::new();
    for _ in 0..4 {
        let claimed = claim_some(&kit, kit.claim(worker, 1), false).await?;
        assert_eq!(claimed.len(), 1, "at most as many as asked for");
        order.extend(claimed);
    }
    assert_eq!(
        order,
        [submitted[1], submitted[3], submitted[0], submitted[2]]
    );
    assert!(
        claim_some(&kit, kit.claim(worker, 0), false)
            .await?
            .is_empty()
    );
    Ok(())
}

/// A claimed frame and call carry what their run and the task of the frame are.
pub async fn claim_tells_what_to_run(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let new = NewTaskRun {
        correlation_id: Some("c-1".to_owned()),
        traceparent: Some("00-aa-bb-01".to_owned()),
        deadline: Some(kit.now().plus_millis(9_000)),
        labels: [("tenant".to_owned(), "a".to_owned())].into(),
        priority: 3,
        ..kit.new_run()
    };
    kit.submit_new(new.clone()).await?;
    let claimed = kit.storage().claim_frames(kit.claim(worker, 5)).await?;
    let root = &claimed[0];
    assert_eq!(
        (&root.task, &root.version, &root.input),
        (&new.task, &new.version, &new.input)
    );
    assert_eq!(
        (root.row.status, root.row.owner),
        (StackStatus::Processing, Some(worker))
    );
    assert_eq!(root.row.epoch.0, 1, "the first incarnation");
    let context = &root.context;
    assert_eq!(context.correlation_id, new.correlation_id);
    assert_eq!(context.traceparent, new.traceparent);
    assert_eq!((context.deadline, context.priority), (new.deadline, 3));
    assert_eq!(context.labels, new.labels);
    assert!(!context.ended);
    let run = kit.run(new.id).await?;
    assert_eq!(run.status, crate::RunStatus::Processing);
    assert_eq!(run.started_at, Some(kit.now()));

    let held = super::kit::held(&root.row, worker);
    let made = vec![kit.nested(false), kit.call(false)];
    let (_, children) = kit.make(held, made).await?;
    let claimed = kit.storage().claim_frames(kit.claim(worker, 5)).await?;
    assert_eq!(claimed[0].row.id, children[0].id);
    assert_eq!(claimed[0].task.as_str(), "inner");
    assert_eq!(claimed[0].version.as_str(), "v7");
    assert_eq!(claimed[0].input.text(), "[1]");
    assert_eq!(
        claimed[0].context.task, new.task,
        "the context is the root's"
    );
    let claimed = kit.storage().claim_calls(kit.claim(worker, 5)).await?;
    let call = &claimed[0].row;
    assert_eq!((call.attempt, call.epoch.0, call.in_doubt), (1, 1, false));
    assert_eq!(call.started_at, Some(kit.now()));
    assert_eq!(claimed[0].context.correlation_id, new.correlation_id);
    Ok(())
}

/// The reply of a claim is lost: the listing of owned rows shows the row, reload or release makes it usable again.
pub async fn claim_reply_lost(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let other = kit.worker().await?;
    let lost = kit.begin(worker).await?;
    let owned = kit.storage().owned(worker, false).await?;
    let expected = OwnedRow {
        id: lost.frame,
        kind: crate::StackKind::Frame,
        status: StackStatus::Processing,
        epoch: lost.lease.epoch,
        task_run: lost.run,
    };
    assert_eq!(owned, [expected]);
    let reloaded = kit
        .storage()
        .reload_frame(lost.frame, worker, kit.now())
        .await?;
    let reloaded = reloaded.expect("it has its first turn to do");
    assert!(reloaded.row.epoch > lost.lease.epoch);
    assert_eq!(reloaded.input, kit.run(lost.run).await?.input);
    let stranger = kit
        .storage()
        .reload_frame(lost.frame, other, kit.now())
        .await?;
    assert!(stranger.is_none(), "it is another's");
    kit.parked(super::kit::held(&reloaded.row, worker)).await?;
    kit.take(other, lost.frame).await?;

    let (asleep, calls) = kit.waiting(worker, kit.calls(1, true)).await?;
    let reloaded = kit
        .storage()
        .reload_frame(asleep.frame, worker, kit.now())
        .await?;
    assert!(reloaded.is_none(), "nothing to do: released instead");
    let row = kit.row(asleep.frame).await?;
    assert_eq!(
        (row.status, row.owner),
        (StackStatus::SuspendedWaitingChild, None)
    );
    assert!(row.epoch > asleep.lease.epoch);
    kit.settled(calls[0]).await?;
    kit.take(other, asleep.frame).await?;
    Ok(())
}

/// Claims leave blocked, cancelled, owned and not yet due rows; a detached call of a completed run is still given out.
pub async fn claim_skips(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let other = kit.worker().await?;
    let later = NewTaskRun {
        run_at: kit.now().plus_millis(1_000),
        ..kit.new_run()
    };
    kit.submit_new(later.clone()).await?;
    let (cancelled, _) = kit.submit().await?;
    kit.storage().cancel(cancelled, kit.now()).await?;
    let blocked = kit.begin(worker).await?;
    kit.applied(TurnCommit {
        next: FrameNext::Blocked(unknown_outcome()),
        ..kit.turn(blocked)
    })
    .await?;
    kit.begin(worker).await?;
    let (detached, calls) = kit.waiting(worker, kit.calls(1, false)).await?;
    kit.applied(kit.last_turn(detached)).await?;
    let (_, retried) = kit.waiting(worker, kit.calls(1, true)).await?;
    let retry = CallEnd::RetryAt {
        not_before: kit.now().plus_millis(500),
        failure: Failure::new("ServiceError", "busy"),
    };
    assert_eq!(kit.end_call(retried[0], retry).await?, Ok(true));

    let claim = kit.claim(other, 100);
    assert!(kit.storage().claim_frames(claim).await?.is_empty());
    let claimed = kit.storage().claim_calls(claim).await?;
    assert_eq!(claimed.len(), 1, "the detached one only");
    assert_eq!(claimed[0].row.id, calls[0].id);
    assert!(claimed[0].context.ended, "it is told that nobody waits");
    assert_eq!(kit.run(later.id).await?.status, crate::RunStatus::Queued);

    kit.advance(500);
    let again = kit.take_call(other, retried[0].id).await?;
    assert_eq!(kit.row(again.id).await?.attempt, 2);
    kit.advance(500);
    kit.take(other, later.root).await?;
    Ok(())
}

/// Open runs by status, and what could be claimed now, but no more than asked for; of what has ended nothing.
pub async fn backlog_counts_what_waits(kit: Arc<Kit>) -> CaseResult {
    use crate::RunStatus::{Blocked, Processing, Queued, Suspended};
    let storage = Arc::clone(kit.storage());
    let counts = async |max: usize| {
        let backlog = storage.backlog(kit.now(), max).await?;
        let ready = (backlog.ready_frames, backlog.ready_calls);
        Ok::<_, StorageError>((backlog.runs, ready, backlog.oldest_ready))
    };
    let none = [Queued, Processing, Suspended, Blocked].map(|status| (status, 0));
    assert_eq!(counts(10).await?, (none.into(), (0, 0), None));
    let since = kit.now();
    for priority in [0, 5, 5] {
        kit.submit_new(NewTaskRun {
            priority,
            ..kit.new_run()
        })
        .await?;
        kit.advance(10);
    }
    kit.submit_new(NewTaskRun {
        run_at: kit.now().plus_millis(1_000),
        priority: 9,
        ..kit.new_run()
    })
    .await?;
    let worker = kit.worker().await?;
    let ended = kit.begin(worker).await?;
    kit.applied(kit.last_turn(ended)).await?;
    let (asleep, _) = kit.waiting(worker, kit.calls(2, false)).await?;
    kit.parked(asleep).await?;
    kit.begin(worker).await?;
    let blocked = kit.begin(worker).await?;
    kit.applied(TurnCommit {
        next: FrameNext::Blocked(unknown_outcome()),
        ..kit.turn(blocked)
    })
    .await?;
    let open = [(Queued, 4), (Processing, 1), (Suspended, 1), (Blocked, 1)];
    assert_eq!(counts(10).await?, (open.into(), (3, 2), Some(since)));
    // Of ready rows those of higher priority come first.
    let open = [(Queued, 2), (Processing, 1), (Suspended, 1), (Blocked, 1)];
    let oldest = Some(since.plus_millis(10));
    assert_eq!(counts(2).await?, (open.into(), (2, 2), oldest));
    kit.advance(1_000);
    assert_eq!(counts(10).await?.1, (4, 2), "the time of the last has come");
    Ok(())
}

/// Something that becomes due and that nobody owns: the earliest of them is told.
pub async fn next_due_is_the_earliest(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (hot, _) = kit.waiting(worker, vec![kit.timer(1_000)]).await?;
    assert_eq!(
        kit.storage().next_due().await?,
        None,
        "its owner has the timer of a hot frame"
    );
    kit.parked(hot).await?;
    assert_eq!(
        kit.storage().next_due().await?,
        Some(kit.now().plus_millis(1_000))
    );
    let (_, calls) = kit.waiting(worker, kit.calls(1, true)).await?;
    let retry = CallEnd::RetryAt {
        not_before: kit.now().plus_millis(700),
        failure: Failure::new("ServiceError", "busy"),
    };
    assert_eq!(kit.end_call(calls[0], retry).await?, Ok(true));
    assert_eq!(
        kit.storage().next_due().await?,
        Some(kit.now().plus_millis(700))
    );
    kit.submit_new(NewTaskRun {
        run_at: kit.now().plus_millis(300),
        ..kit.new_run()
    })
    .await?;
    assert_eq!(
        kit.storage().next_due().await?,
        Some(kit.now().plus_millis(300))
    );
    Ok(())
}

/// A call that is given back after it was asked is in doubt; one that was not is not.
pub async fn release_call_asked_is_in_doubt(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (_, calls) = kit.waiting(worker, kit.calls(2, true)).await?;
    let back = [(0, true), (1, false)].map(|(index, asked): (usize, bool)| ReleasedCall {
        call: calls[index].id,
        lease: calls[index].lease,
        asked,
    });
    let answers = kit.storage().release_calls(&back, kit.now()).await?;
    assert_eq!(answers, [Ok(()), Ok(())]);
    for (call, asked) in [(calls[0], true), (calls[1], false)] {
        let row = kit.row(call.id).await?;
        assert_eq!((row.status, row.owner), (StackStatus::Pending, None));
        assert_eq!(row.in_doubt, asked);
        assert!(row.epoch > call.lease.epoch);
        let again = kit.take_call(worker, call.id).await?;
        assert_eq!(
            kit.row(again.id).await?.in_doubt,
            asked,
            "the claimer is told"
        );
    }
    let answers = kit.storage().release_calls(&back, kit.now()).await?;
    assert_eq!(answers, [Err(crate::CommitRefused::Superseded); 2]);
    Ok(())
}

/// What was given back unasked has had no attempt, however often: a policy that bounds attempts does not count it.
pub async fn release_call_not_asked_is_no_attempt(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (_, calls) = kit.waiting(worker, kit.calls(1, true)).await?;
    let mut call = calls[0];
    for asked in [false, false, true] {
        assert_eq!(kit.row(call.id).await?.attempt, 1);
        let back = [ReleasedCall {
            call: call.id,
            lease: call.lease,
            asked,
        }];
        let answers = kit.storage().release_calls(&back, kit.now()).await?;
        assert_eq!(answers, [Ok(())]);
        let row = kit.row(call.id).await?;
        assert_eq!((row.attempt, row.take_overs), (u32::from(asked), 0));
        call = kit.take_call(worker, call.id).await?;
    }
    assert_eq!(kit.row(call.id).await?.attempt, 2);
    Ok(())
}

/// Frames and calls born claimed are the committing worker's at epoch 1, calls in their first attempt; the others are anyone's.
pub async fn made_rows_are_born_as_asked(kit: Arc<Kit>) -> CaseResult {
    let worker: WorkerId = kit.worker().await?;
    let made = vec![
        kit.call(true),
        kit.nested(true),
        kit.call(false),
        kit.nested(false),
    ];
    let (parent, children) = kit.waiting(worker, made).await?;
    // A frame's attempts are its take-overs: being made is none.
    for (child, attempt) in children[..2].iter().zip([1, 0]) {
        let row = kit.row(child.id).await?;
        assert_eq!(
            (row.status, row.owner),
            (StackStatus::Processing, Some(worker))
        );
        assert_eq!(
            (row.epoch.0, row.attempt, row.in_doubt),
            (1, attempt, false)
        );
    }
    for child in &children[2..] {
        let row = kit.row(child.id).await?;
        assert_eq!((row.status, row.owner), (StackStatus::Pending, None));
        assert_eq!((row.epoch.0, row.attempt, row.in_doubt), (0, 0, false));
    }
    kit.applied(kit.last_turn(born(children[1], parent)))
        .await?;
    kit.applied(TurnCommit {
        delivered: vec![recorded(children[1]), local(children[0])],
        ..kit.turn(parent)
    })
    .await?;
    Ok(())
}
