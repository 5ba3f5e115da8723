//! Batches: each turn whole and fenced by itself, an error of the whole batch means unknown.

use std::sync::Arc;

use super::kit::{CaseResult, Kit, born, local};
use crate::fault::{FaultAction, FaultStorage};
use crate::{CommitRefused, FrameNext, MadeKind, StackStatus, StorageError, TurnCommit};

/// Two turns of one frame in a batch are misuse; nothing is written.
pub async fn batch_same_frame_twice(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let held = kit.begin(worker).await?;
    let first = TurnCommit {
        made: kit.calls(1, true),
        ..kit.turn(held)
    };
    let second = kit.last_turn(held.next());
    let answer = kit.storage().commit(Arc::from([first, second])).await;
    assert!(
        matches!(answer, Err(StorageError::Misuse { .. })),
        "{answer:?}"
    );
    assert_eq!(kit.row(held.frame).await?.turn, held.turn);
    Ok(())
}

/// One turn of a batch is refused: the others are applied.
pub async fn batch_one_refused(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let mut turns = Vec::new();
    for _ in 0..3 {
        turns.push(kit.last_turn(kit.begin(worker).await?));
    }
    turns[1].lease.epoch = turns[1].lease.epoch.next();
    let frames: Vec<_> = turns.iter().map(|turn| turn.frame).collect();
    let answers = kit.storage().commit(Arc::from(turns)).await?;
    assert!(answers[0].is_ok());
    assert_eq!(answers[1], Err(CommitRefused::Superseded));
    assert!(answers[2].is_ok());
    assert_eq!(kit.status(frames[0]).await?, StackStatus::Completed);
    assert_eq!(kit.status(frames[1]).await?, StackStatus::Processing);
    assert_eq!(kit.status(frames[2]).await?, StackStatus::Completed);
    Ok(())
}

/// The root ends its run by a cancel while a nested frame makes calls in the same batch: nothing stays open.
pub async fn batch_root_cancelled_with_nested(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    for nested_first in [true, false] {
        let (root, children) = kit.waiting(worker, vec![kit.nested(true)]).await?;
        let cancelled = TurnCommit {
            next: FrameNext::Cancelled,
            ..kit.turn(root)
        };
        let nested = TurnCommit {
            made: kit.calls(2, true),
            ..kit.turn(born(children[0], root))
        };
        let mut batch = vec![cancelled, nested];
        if nested_first {
            batch.reverse();
        }
        for answer in kit.storage().commit(Arc::from(batch)).await? {
            let receipt = answer.expect("both apply");
            assert_eq!(
                receipt.status,
                StackStatus::Cancelled,
                "the status of the row now"
            );
        }
        assert_eq!(kit.run(root.run).await?.status, crate::RunStatus::Cancelled);
        for row in kit.storage().stack_runs(root.run).await? {
            assert!(
                row.status.is_terminal(),
                "{row:?} is open in a cancelled run"
            );
        }
    }
    Ok(())
}

/// The reply of a commit is lost, the batch applied or not: sent again it has one outcome.
pub async fn batch_error_all_unknown(kit: Arc<Kit>) -> CaseResult {
    for action in [
        FaultAction::FailBefore,
        FaultAction::FailAfter,
        FaultAction::Repeat,
    ] {
        let worker = kit.worker().await?;
        let mut turns = Vec::new();
        for _ in 0..4 {
            turns.push(TurnCommit {
                made: kit.calls(3, true),
                ..kit.turn(kit.begin(worker).await?)
            });
        }
        let turns: Arc<[TurnCommit]> = Arc::from(turns);
        let faulty = FaultStorage::over(Arc::clone(kit.storage()));
        faulty.control().on_next("commit", action.clone());
        let storage: &dyn crate::Storage = &faulty;
        let first = storage.commit(Arc::clone(&turns)).await;
        if !matches!(action, FaultAction::Repeat) {
            let error = first.expect_err("the fault is seen");
            assert!(
                error.is_retryable(),
                "an unknown outcome may be asked again"
            );
        }
        for answer in storage.commit(Arc::clone(&turns)).await? {
            answer.expect("the resent turn has its receipt");
        }
        for turn in turns.iter() {
            let journal = storage.load(turn.frame).await?.expect("it is there");
            assert_eq!(journal.frame.turn, turn.turn.next());
            assert_eq!(journal.children.len(), 3, "the calls are there once");
        }
    }
    Ok(())
}

/// The store is full in the midst of a batch: nothing is half there, and small turns pass when there is room.
pub async fn batch_over_full_store(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let small = kit.begin(worker).await?;
    let (waiting, calls) = kit.waiting(worker, kit.calls(1, true)).await?;
    let big = format!("\"{}\"", "x".repeat(4 << 20));
    let mut made = kit.calls(2, true);
    for new in &mut made {
        if let MadeKind::Call { args, .. } = &mut new.kind {
            *args = super::kit::json(&big);
        }
    }
    let batch: Arc<[TurnCommit]> = Arc::from([
        TurnCommit {
            delivered: vec![local(calls[0])],
            made,
            ..kit.turn(waiting)
        },
        kit.last_turn(small),
    ]);
    kit.harness().fill(true).await?;
    let answer = kit.storage().commit(Arc::clone(&batch)).await;
    assert!(
        matches!(answer, Err(StorageError::Full { .. })),
        "{answer:?}"
    );
    assert_eq!(kit.row(waiting.frame).await?.turn, waiting.turn);
    assert_eq!(kit.row(small.frame).await?.turn, small.turn);
    assert_eq!(kit.storage().stack_runs(waiting.run).await?.len(), 2);
    kit.harness().fill(false).await?;
    for answer in kit.storage().commit(batch).await? {
        answer.expect("with room it is applied");
    }
    Ok(())
}
