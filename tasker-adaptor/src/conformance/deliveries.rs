//! What a turn consumes: only what is there, once, in order.

use std::sync::Arc;

use super::kit::{CaseResult, Child, Kit, json, local, recorded, value};
use crate::{
    CallSeq, CommitRefused, Delivery, DeliverySource, Lease, MadeKind, Outcome, ReleasedCall,
    StackKind, StackStatus, TurnCommit,
};

/// A local result whose row is another's by now (given back, taken by another, another epoch, dropped): stale, the whole turn is refused.
pub async fn deliver_local_not_mine(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let other = kit.worker().await?;
    let (parent, calls) = kit.waiting(worker, kit.calls(6, true)).await?;
    let back = [calls[1], calls[2]].map(|call| ReleasedCall {
        call: call.id,
        lease: call.lease,
        asked: true,
    });
    for answer in kit.storage().release_calls(&back, kit.now()).await? {
        answer.expect("the calls are given back");
    }
    let taken = kit.take_call(other, calls[2].id).await?;
    let drop = TurnCommit {
        dropped: vec![calls[3].id],
        ..kit.turn(parent)
    };
    kit.applied(drop).await?;
    let parent = parent.next();
    let other_epoch = Child {
        lease: Lease {
            epoch: calls[4].lease.epoch.next(),
            ..calls[4].lease
        },
        ..calls[4]
    };
    let other_seq = Child {
        seq: CallSeq(9),
        ..calls[4]
    };
    for wrong in [calls[1], calls[2], taken, calls[3], other_epoch, other_seq] {
        let turn = TurnCommit {
            delivered: vec![local(calls[0]), local(wrong)],
            made: kit.calls(1, true),
            ..kit.turn(parent)
        };
        let seq = wrong.seq;
        assert_eq!(kit.refused(turn).await?, CommitRefused::Stale { seq });
        assert_eq!(
            kit.status(calls[0].id).await?,
            StackStatus::Processing,
            "refused whole"
        );
        assert_eq!(kit.row(parent.frame).await?.made_count, 6);
    }
    kit.settled(taken).await?;
    kit.applied(TurnCommit {
        delivered: vec![local(calls[0]), recorded(taken)],
        ..kit.turn(parent)
    })
    .await?;
    Ok(())
}

/// A result that this worker recorded itself meanwhile, at the same attempt: accepted, and the recorded one stands.
pub async fn deliver_local_recorded_by_me(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (parent, calls) = kit.waiting(worker, kit.calls(2, true)).await?;
    kit.settled(calls[0]).await?;
    kit.applied(TurnCommit {
        delivered: vec![local(calls[0])],
        ..kit.turn(parent)
    })
    .await?;
    let row = kit.row(calls[0].id).await?;
    assert_eq!(
        (row.delivered_order, row.outcome),
        (Some(1), Some(value(1)))
    );
    Ok(())
}

/// A result that was delivered before, or twice in one turn, or is not settled: stale.
pub async fn deliver_recorded_twice(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (parent, calls) = kit.waiting(worker, kit.calls(3, true)).await?;
    kit.settled(calls[0]).await?;
    let seq = calls[0].seq;
    let twice = TurnCommit {
        delivered: vec![recorded(calls[0]), recorded(calls[0])],
        ..kit.turn(parent)
    };
    assert_eq!(kit.refused(twice).await?, CommitRefused::Stale { seq });
    kit.applied(TurnCommit {
        delivered: vec![recorded(calls[0])],
        ..kit.turn(parent)
    })
    .await?;
    let parent = parent.next();
    for again in [recorded(calls[0]), local(calls[0])] {
        let turn = TurnCommit {
            delivered: vec![again],
            ..kit.turn(parent)
        };
        assert_eq!(kit.refused(turn).await?, CommitRefused::Stale { seq });
    }
    let open = TurnCommit {
        delivered: vec![recorded(calls[1])],
        ..kit.turn(parent)
    };
    let seq = calls[1].seq;
    assert_eq!(kit.refused(open).await?, CommitRefused::Stale { seq });
    Ok(())
}

/// A child of another frame is nothing that a turn may consume.
pub async fn deliver_of_another_frame(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (_, theirs) = kit.waiting(worker, kit.calls(1, true)).await?;
    let (parent, _) = kit.waiting(worker, kit.calls(1, true)).await?;
    let turn = TurnCommit {
        delivered: vec![local(theirs[0])],
        ..kit.turn(parent)
    };
    let seq = theirs[0].seq;
    assert_eq!(kit.refused(turn).await?, CommitRefused::Stale { seq });
    Ok(())
}

/// Orders count from 1 over all turns without gaps; load gives them back with turn and time.
pub async fn delivery_order_gapless(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (mut parent, calls) = kit.waiting(worker, kit.calls(6, true)).await?;
    let turns = [vec![3, 1], vec![0], vec![4, 2]];
    let mut expected = [None; 6];
    let mut order = 0;
    for indexes in turns {
        let time = kit.advance(10);
        for index in &indexes {
            order += 1;
            expected[*index] = Some((order, parent.turn, time));
        }
        kit.applied(TurnCommit {
            delivered: indexes.iter().map(|index| local(calls[*index])).collect(),
            ..kit.turn(parent)
        })
        .await?;
        parent = parent.next();
    }
    let journal = kit
        .storage()
        .load(parent.frame)
        .await?
        .expect("it is there");
    assert_eq!(journal.frame.delivered_count, 5);
    assert_eq!(journal.frame.turn, parent.turn);
    let found: Vec<_> = journal
        .children
        .iter()
        .map(|row| Some((row.delivered_order?, row.delivered_turn?, row.delivered_at?)))
        .collect();
    assert_eq!(found, expected);
    assert!(kit.storage().load(kit.stack_id()).await?.is_none());
    Ok(())
}

/// What a task asked for with a call is read back as the exact text, by whoever claims it and in every reading of its row; other
/// calls of the turn have none.
pub async fn policy_of_a_call(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let text = r#"{ "timeoutMs":2000,"retry":{"factor":1.50,"types":[]}, "ü":"\ud800" }"#;
    let with_policy = |claimed| {
        let mut call = kit.call(claimed);
        if let MadeKind::Call { policy, .. } = &mut call.kind {
            *policy = Some(json(text));
        }
        call
    };
    let made = vec![with_policy(true), kit.call(true), with_policy(false)];
    let (parent, calls) = kit.waiting(worker, made).await?;
    let expected = [Some(text), None, Some(text)];
    for (call, expected) in calls.iter().zip(expected) {
        let row = kit.row(call.id).await?;
        assert_eq!(row.policy.as_ref().map(crate::Json::text), expected);
    }
    let next = kit.worker().await?;
    let claimed = kit.storage().claim_calls(kit.claim(next, 9)).await?;
    let policies: Vec<_> = claimed
        .iter()
        .map(|call| call.row.policy.as_ref().map(crate::Json::text))
        .collect();
    assert_eq!(policies, [Some(text)]);
    let journal = kit.storage().load(parent.frame).await?;
    let children = journal.expect("it is there").children;
    let policies: Vec<_> = children
        .iter()
        .map(|row| row.policy.as_ref().map(crate::Json::text))
        .collect();
    assert_eq!(policies, expected);
    Ok(())
}

/// Children are numbered from 1 without gaps, in the order made, with the exact text of what was asked.
pub async fn made_order_and_ids(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let texts = [
        r#"{"b":1,"a":1.0,"a":2}"#,
        r#"["\ud800\u0000"]"#,
        "[1e400,-0,0.1,12345678901234567890]",
        "[ 1 ]",
        r#""ü\u00fc💥""#,
    ];
    let call_with = |text: &str| {
        let mut call = kit.call(true);
        if let MadeKind::Call { args, .. } = &mut call.kind {
            *args = json(text);
        }
        call
    };
    let time = kit.now();
    let mut made: Vec<_> = texts.iter().map(|text| call_with(text)).collect();
    made.extend([kit.nested(true), kit.timer(5_000), kit.wait("go")]);
    let (parent, first) = kit.waiting(worker, made.clone()).await?;
    kit.advance(3);
    let (_, second) = kit.make(parent, kit.calls(2, false)).await?;
    let journal = kit
        .storage()
        .load(parent.frame)
        .await?
        .expect("it is there");
    let ids: Vec<_> = journal.children.iter().map(|row| row.id).collect();
    let expected: Vec<_> = first.iter().chain(&second).map(|child| child.id).collect();
    assert_eq!(ids, expected);
    let seqs: Vec<_> = journal.children.iter().map(|row| row.seq.0).collect();
    assert_eq!(seqs, (1..=10).collect::<Vec<_>>());
    assert_eq!(journal.frame.made_count, 10);
    for (row, text) in journal.children.iter().zip(texts) {
        assert_eq!(row.args.as_ref().map(crate::Json::text), Some(text));
        assert_eq!(
            (row.service.as_str(), row.path.as_str()),
            ("shop", "orders.find")
        );
        assert_eq!(
            (row.created_at, row.depth, row.kind),
            (time, 0, StackKind::Call)
        );
    }
    let nested = &journal.children[5];
    assert_eq!((nested.kind, nested.depth), (StackKind::Frame, 1));
    assert_eq!(
        (nested.service.as_str(), nested.path.as_str()),
        ("tasks", "inner")
    );
    assert_eq!(
        nested.version.as_ref().map(crate::TaskVersion::as_str),
        Some("v7")
    );
    let timer = &journal.children[6];
    assert_eq!(
        (timer.service.as_str(), timer.path.as_str()),
        ("timer", "sleep")
    );
    assert_eq!(timer.due_at, Some(time.plus_millis(5_000)));
    let wait = &journal.children[7];
    assert_eq!(
        (wait.service.as_str(), wait.path.as_str()),
        ("signal", "go")
    );
    assert_eq!(wait.status, StackStatus::Pending);
    let tree = kit.storage().stack_runs(parent.run).await?;
    assert_eq!(tree[0].id, parent.frame, "parents before children");
    assert_eq!(tree.len(), 11);
    assert_eq!(tree[0].service, "task");
    assert_eq!(tree[0].path, "suite");
    Ok(())
}

/// Outcomes come back as they were written: exact text, `undefined` apart from `null`, every member of a failure.
pub async fn outcomes_round_trip(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let failure = crate::Failure {
        name: "ServiceError".to_owned(),
        message: "nothing \u{0}here".to_owned(),
        kind: Some("NOT_FOUND_ERROR".to_owned()),
        code: Some("E1".to_owned()),
        status: Some(404),
        details: Some(json(r#"{"z":1.0,"a":"\ud800"}"#)),
        retry_after_ms: Some(7),
        stack: Some("at task.js:1".to_owned()),
        cause: Some(Box::new(crate::Failure::new("Error", "inner"))),
    };
    let outcomes = [
        Outcome::Completed(None),
        Outcome::Completed(Some(json("null"))),
        Outcome::Completed(Some(json(r#"{"b":1.10,"a":"\u0000"}"#))),
        Outcome::Completed(Some(json("\"\""))),
        Outcome::Failed(failure),
    ];
    let (parent, calls) = kit
        .waiting(worker, kit.calls(outcomes.len() * 2, true))
        .await?;
    let (here, apart) = calls.split_at(outcomes.len());
    let delivered = here.iter().zip(&outcomes).map(|(call, outcome)| Delivery {
        child: call.id,
        seq: call.seq,
        source: DeliverySource::Local {
            epoch: call.lease.epoch,
            outcome: outcome.clone(),
        },
    });
    kit.applied(TurnCommit {
        delivered: delivered.collect(),
        ..kit.turn(parent)
    })
    .await?;
    for (call, outcome) in apart.iter().zip(&outcomes) {
        let end = crate::CallEnd::Settled(outcome.clone());
        assert_eq!(kit.end_call(*call, end).await?, Ok(true));
    }
    for (call, outcome) in calls.iter().zip(outcomes.iter().chain(&outcomes)) {
        let row = kit.row(call.id).await?;
        assert_eq!(row.outcome.as_ref(), Some(outcome));
        assert_eq!((row.status, row.owner), (outcome.status(), None));
    }
    Ok(())
}
