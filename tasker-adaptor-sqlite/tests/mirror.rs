//! The next turn of a frame is committed without reading what the last one left: as long as nobody else has changed it.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

mod support;

use support::*;
use tasker_adaptor::*;
use tasker_adaptor_sqlite::SqliteStorage;

/// A store with a frame that waits for its call, which turn 1 would answer.
struct Waiting {
    folder: Folder,
    storage: SqliteStorage,
    worker: WorkerId,
    frame: StackRun,
    call: StackRunId,
}

impl Waiting {
    async fn new() -> Self {
        let folder = Folder::new();
        let storage = SqliteStorage::open(folder.file()).await.unwrap();
        let worker = live_worker(&storage).await;
        let (frame, call) = waiting_run(&storage, worker).await;
        Self {
            folder,
            storage,
            worker,
            frame: frame.row,
            call,
        }
    }

    /// The turn that delivers the answer and makes another call.
    fn answer(&self) -> TurnCommit {
        let mut answer = turn(&self.frame, self.worker, 1, FrameNext::Suspended);
        answer.delivered = vec![local(self.call, 1, "1")];
        answer.made = vec![call(true)];
        answer
    }

    async fn commit(&self) -> Result<StackStatus, CommitRefused> {
        let receipt = commit_one(&self.storage, self.answer()).await;
        assert_sound(&self.storage).await;
        receipt.map(|receipt| receipt.status)
    }

    /// Another connection changes a row; neither worker nor engine knows.
    fn change(&self, row: StackRunId, sql: &str) {
        let other = rusqlite::Connection::open(self.folder.file()).unwrap();
        let changed = other
            .execute(
                &format!("UPDATE stack_runs SET {sql} WHERE id = ?1"),
                [row.to_string()],
            )
            .unwrap();
        assert_eq!(changed, 1);
    }
}

const WAITS: Result<StackStatus, CommitRefused> = Ok(StackStatus::SuspendedWaitingChild);
const STALE: Result<StackStatus, CommitRefused> = Err(CommitRefused::Stale { seq: CallSeq(1) });

#[tokio::test]
async fn what_another_connection_changed_is_seen_by_the_next_turn() {
    let waiting = Waiting::new().await;
    waiting.change(waiting.call, "epoch = 2");
    assert_eq!(waiting.commit().await, STALE);
    waiting.change(waiting.call, "epoch = 1");
    waiting.change(waiting.frame.id, "epoch = 7");
    assert_eq!(waiting.commit().await, Err(CommitRefused::Superseded));
    waiting.change(waiting.frame.id, "epoch = 1");
    assert_eq!(waiting.commit().await, WAITS);
}

#[tokio::test]
async fn what_another_process_did_is_seen_by_the_next_turn() {
    let waiting = Waiting::new().await;
    let other = SqliteStorage::open(waiting.folder.file()).await.unwrap();
    let run = waiting.frame.task_run;
    assert_eq!(other.cancel(run, at(20)).await.unwrap(), Cancelled::Done);
    assert_eq!(waiting.commit().await, Err(CommitRefused::Ended));

    let waiting = Waiting::new().await;
    let other = SqliteStorage::open(waiting.folder.file()).await.unwrap();
    let thief = live_worker(&other).await;
    // The lease is over: its frame is freed, claimed, and answered by the other one.
    let reaped = other.reap(thief, at(40_000), 100).await.unwrap();
    assert_eq!((reaped.frames, reaped.calls), (1, 1));
    assert_eq!(waiting.commit().await, Err(CommitRefused::LeaseLost));
}

#[tokio::test]
async fn what_this_process_did_to_its_rows_is_seen_by_the_next_turn() {
    let waiting = Waiting::new().await;
    let (storage, worker) = (&waiting.storage, waiting.worker);
    let lease = Lease {
        worker,
        epoch: Epoch(1),
    };
    // Given back and claimed by another worker: at another epoch.
    let released = ReleasedCall {
        call: waiting.call,
        lease,
        asked: true,
    };
    storage
        .release_calls(&[released], at(20))
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    assert_eq!(waiting.commit().await, STALE);
    let second = live_worker(storage).await;
    let claimed = Claim {
        now: at(20),
        ..claim(second, 10)
    };
    assert_eq!(storage.claim_calls(claimed).await.unwrap().len(), 1);
    assert_eq!(waiting.commit().await, STALE);

    let waiting = Waiting::new().await;
    let end = CallFinish {
        call: waiting.call,
        lease: Lease {
            worker: waiting.worker,
            epoch: Epoch(1),
        },
        end: CallEnd::Settled(Outcome::Completed(None)),
    };
    let finished = waiting.storage.finish_calls([end].into(), at(20)).await;
    assert_eq!(finished.unwrap(), [Ok(true)]);
    // The turn brings the same answer: that of the row counts, which woke the frame.
    assert_eq!(waiting.commit().await, WAITS);
    let rows = waiting.storage.stack_runs(waiting.frame.task_run).await;
    let call = rows.unwrap().into_iter().find(|row| row.id == waiting.call);
    assert_eq!(call.unwrap().outcome, Some(Outcome::Completed(None)));

    let waiting = Waiting::new().await;
    let frame = (
        waiting.frame.id,
        Lease {
            worker: waiting.worker,
            epoch: waiting.frame.epoch,
        },
    );
    let released = waiting.storage.release_frames(&[frame], at(20)).await;
    released.unwrap().remove(0).unwrap();
    assert_eq!(waiting.commit().await, Err(CommitRefused::Superseded));
}

#[tokio::test]
async fn a_batch_that_was_undone_has_left_nothing_behind() {
    let waiting = Waiting::new().await;
    let (frame, call) = waiting_run(&waiting.storage, waiting.worker).await;
    // The second turn makes a row with the id of another: both are undone.
    let mut wrong = turn(&frame.row, waiting.worker, 1, FrameNext::Suspended);
    wrong.delivered = vec![local(call, 1, "1")];
    wrong.made = vec![support::call(true)];
    wrong.made[0].id = waiting.call;
    let undone = waiting.storage.commit([waiting.answer(), wrong].into());
    assert!(matches!(undone.await, Err(StorageError::Misuse { .. })));
    assert_sound(&waiting.storage).await;
    assert_eq!(waiting.commit().await, WAITS);
    let mut right = turn(&frame.row, waiting.worker, 1, FrameNext::Completed(None));
    right.delivered = vec![local(call, 1, "1")];
    commit_one(&waiting.storage, right).await.unwrap();
    assert_sound(&waiting.storage).await;
}

#[tokio::test]
async fn turns_of_one_batch_see_what_those_before_them_did() {
    let waiting = Waiting::new().await;
    let (storage, worker) = (&waiting.storage, waiting.worker);
    // A child frame of the frame, claimed at birth, which ends in the batch in which its parent has a turn.
    let mut makes = waiting.answer();
    makes.made.push(NewStackRun {
        id: row_id(),
        kind: MadeKind::Frame {
            task: "hello".into(),
            version: "a".repeat(64).as_str().into(),
            input: Json::null(),
            depth: 1,
        },
        claimed: true,
    });
    let (next, child) = (makes.made[0].id, makes.made[1].id);
    commit_one(storage, makes).await.unwrap();
    let rows = storage.stack_runs(waiting.frame.task_run).await.unwrap();
    let child = rows.into_iter().find(|row| row.id == child).unwrap();
    let mut parent = turn(&waiting.frame, worker, 2, FrameNext::Suspended);
    parent.delivered = vec![local(next, 2, "2")];
    let ends = turn(&child, worker, 0, FrameNext::Completed(None));
    let replies = storage.commit([parent, ends].into()).await.unwrap();
    let statuses: Vec<_> = replies
        .into_iter()
        .map(|reply| reply.unwrap().status)
        .collect();
    assert_eq!(
        statuses,
        [StackStatus::PendingResume, StackStatus::Completed]
    );
    let mut last = turn(&waiting.frame, worker, 3, FrameNext::Completed(None));
    last.delivered = vec![Delivery {
        child: child.id,
        seq: CallSeq(3),
        source: DeliverySource::Recorded,
    }];
    let ended = commit_one(storage, last).await.unwrap();
    assert_eq!(ended.status, StackStatus::Completed);
    assert_sound(storage).await;
}
