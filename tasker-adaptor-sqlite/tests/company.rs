//! Calls that are offered, claimed and answered in company: the same as one by one.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

mod support;

use support::*;
use tasker_adaptor::*;
use tasker_adaptor_sqlite::SqliteStorage;

/// A frame that waits for its first call and has offered so many more, at places 2 and on.
async fn offered(
    storage: &SqliteStorage,
    worker: WorkerId,
    count: usize,
) -> (StackRun, Vec<StackRunId>) {
    let (frame, _) = waiting_run(storage, worker).await;
    let mut offers = turn(&frame.row, worker, 1, FrameNext::Suspended);
    offers.made = (0..count).map(|_| call(false)).collect();
    let ids = offers.made.iter().map(|made| made.id).collect();
    commit_one(storage, offers).await.unwrap();
    (frame.row, ids)
}

fn ids(calls: &[ClaimedCall]) -> Vec<StackRunId> {
    calls.iter().map(|call| call.row.id).collect()
}

async fn child(storage: &SqliteStorage, frame: &StackRun, id: StackRunId) -> StackRun {
    let rows = storage.stack_runs(frame.task_run).await.unwrap();
    rows.into_iter().find(|row| row.id == id).unwrap()
}

#[tokio::test]
async fn offered_calls_are_claimed_in_their_order_whoever_took_some_before() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let (first, second) = (live_worker(&storage).await, live_worker(&storage).await);
    let (frame, calls) = offered(&storage, first, 30).await;
    assert_sound(&storage).await;

    // Two from amid the others, so that the numbers of what is left have gaps.
    for taken in [calls[4], calls[17]] {
        let only = Claim {
            only: Some(taken),
            ..claim(second, 1)
        };
        let only = storage
            .claim_calls(Claim {
                now: at(20),
                ..only
            })
            .await;
        assert_eq!(ids(&only.unwrap()), [taken]);
    }
    let claimed = |max| Claim {
        now: at(20),
        ..claim(first, max)
    };
    let (some, rest) = (
        storage.claim_calls(claimed(10)).await.unwrap(),
        storage.claim_calls(claimed(100)).await.unwrap(),
    );
    let order: Vec<_> = calls
        .iter()
        .copied()
        .filter(|id| *id != calls[4] && *id != calls[17])
        .collect();
    assert_eq!([ids(&some), ids(&rest)].concat(), order);
    for call in some.iter().chain(&rest) {
        assert_eq!(child(&storage, &frame, call.row.id).await, call.row);
        assert_eq!((call.row.epoch, call.row.attempt), (Epoch(1), 1));
        assert_eq!(call.row.owner, Some(first));
        assert_eq!(call.context.task, "hello".into());
    }
    for taken in [calls[4], calls[17]] {
        assert_eq!(child(&storage, &frame, taken).await.owner, Some(second));
    }
    assert_eq!(storage.claim_calls(claimed(100)).await.unwrap(), []);
    assert_sound(&storage).await;
}

#[tokio::test]
async fn calls_of_several_frames_are_claimed_each_with_its_own() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let worker = live_worker(&storage).await;
    let (one, _) = offered(&storage, worker, 3).await;
    let (two, _) = offered(&storage, worker, 2).await;
    let mut more = turn(&one, worker, 2, FrameNext::Suspended);
    more.made = vec![call(false)];
    commit_one(&storage, more).await.unwrap();
    let claimed = Claim {
        now: at(20),
        ..claim(worker, 100)
    };
    let claimed = storage.claim_calls(claimed).await.unwrap();
    assert_eq!(claimed.len(), 6);
    for call in claimed {
        let frame = if call.row.task_run == one.task_run {
            &one
        } else {
            &two
        };
        assert_eq!(call.row.parent, Some(frame.id));
        assert_eq!(child(&storage, frame, call.row.id).await, call.row);
    }
}

#[tokio::test]
async fn a_damaged_call_is_left_out_of_the_company_that_is_claimed() {
    // Its arguments are no JSON; its frame is gone.
    for damage in ["args = '{'", "parent_no = 1000000"] {
        damaged_call(damage).await;
    }
}

async fn damaged_call(damage: &str) {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let worker = live_worker(&storage).await;
    let (frame, calls) = offered(&storage, worker, 12).await;
    rusqlite::Connection::open(folder.file())
        .unwrap()
        .execute(
            &format!("UPDATE stack_runs SET {damage} WHERE id = ?1"),
            [calls[5].to_string()],
        )
        .unwrap();
    let claimed = storage
        .claim_calls(Claim {
            now: at(20),
            ..claim(worker, 100)
        })
        .await
        .unwrap();
    let sound: Vec<_> = calls.iter().copied().filter(|id| *id != calls[5]).collect();
    assert_eq!(ids(&claimed), sound);
    let run = storage.run(frame.task_run).await.unwrap().unwrap();
    assert_eq!(run.status, RunStatus::Blocked);
    assert!(matches!(run.blocked, Some(BlockedReason::Corrupt { .. })));
    let owner: Option<i64> = rusqlite::Connection::open(folder.file())
        .unwrap()
        .query_row(
            "SELECT owner FROM stack_runs WHERE id = ?1",
            [calls[5].to_string()],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(owner, None);
}

#[tokio::test]
async fn many_answers_are_delivered_in_the_order_of_their_turn() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let worker = live_worker(&storage).await;
    let (frame, calls) = offered(&storage, worker, 20).await;
    let claimed = Claim {
        now: at(20),
        ..claim(worker, 100)
    };
    assert_eq!(storage.claim_calls(claimed).await.unwrap().len(), 20);
    // Backwards, every third left out.
    let answered: Vec<u32> = (2..22).rev().filter(|seq| seq % 3 != 0).collect();
    let mut answers = turn(&frame, worker, 2, FrameNext::Suspended);
    answers.delivered = answered
        .iter()
        .map(|seq| local(calls[*seq as usize - 2], *seq, &seq.to_string()))
        .collect();
    commit_one(&storage, answers).await.unwrap();
    let mut rows = storage.stack_runs(frame.task_run).await.unwrap();
    rows.retain(|row| row.delivered_order.is_some());
    rows.sort_by_key(|row| row.delivered_order);
    let order: Vec<_> = rows.iter().map(|row| row.seq.0).collect();
    assert_eq!(order, answered);
    for row in rows {
        let text = Json::parse(row.seq.0.to_string()).unwrap();
        assert_eq!(row.outcome, Some(Outcome::Completed(Some(text))));
    }
    assert_sound(&storage).await;
}

#[tokio::test]
async fn one_stale_answer_among_many_refuses_its_turn() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let (worker, other) = (live_worker(&storage).await, live_worker(&storage).await);
    let (frame, calls) = offered(&storage, worker, 20).await;
    let claim_of = |worker, max| Claim {
        now: at(20),
        ..claim(worker, max)
    };
    // The last call is nobody's, the one before it another worker's.
    storage.claim_calls(claim_of(worker, 18)).await.unwrap();
    storage.claim_calls(claim_of(other, 1)).await.unwrap();
    let (_, stranger) = waiting_run(&storage, worker).await;
    let answer = |seq: u32| local(calls[seq as usize - 2], seq, "1");
    let old = |seq: u32| Delivery {
        source: DeliverySource::Local {
            epoch: Epoch(0),
            outcome: Outcome::Completed(None),
        },
        ..answer(seq)
    };
    let wrong = [
        (answer(21), "of nobody"),
        (answer(20), "of another worker"),
        (old(7), "of an earlier epoch"),
        (answer(9), "twice"),
        (local(stranger, 8, "1"), "of another frame"),
        (local(calls[0], 8, "1"), "of another place"),
        (
            local(stranger, 17, "1"),
            "of another frame, before the right one",
        ),
        (local(row_id(), 22, "1"), "of no call"),
    ];
    for (wrong, what) in wrong {
        let seq = wrong.seq;
        let mut answers = turn(&frame, worker, 2, FrameNext::Suspended);
        answers.delivered = (9..20).map(answer).collect();
        answers.delivered.insert(6, wrong);
        let refused = commit_one(&storage, answers).await;
        // The second of two with one place is the stale one.
        assert_eq!(refused, Err(CommitRefused::Stale { seq }), "{what}");
    }
    let mut answers = turn(&frame, worker, 2, FrameNext::Suspended);
    answers.delivered = (2..20).map(answer).collect();
    commit_one(&storage, answers).await.unwrap();
    let mut again = turn(&frame, worker, 3, FrameNext::Suspended);
    again.delivered = (2..20).map(answer).collect();
    let stale = CommitRefused::Stale { seq: CallSeq(2) };
    assert_eq!(commit_one(&storage, again).await, Err(stale));
    assert_sound(&storage).await;
}
