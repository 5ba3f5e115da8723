//! Signals: consumed once, first come first served, never left beside an open wait.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::kit::{CaseResult, Child, Kit, json, recorded};
use crate::{NewSignal, Outcome, StackStatus, StorageError, TaskRunId, TurnCommit};

fn signal(kit: &Kit, run: TaskRunId, name: &str, payload: &str) -> NewSignal {
    NewSignal {
        id: kit.signal_id(),
        run,
        name: name.to_owned(),
        payload: json(payload),
    }
}

async fn payload(kit: &Kit, wait: Child) -> Result<Option<String>, StorageError> {
    Ok(match kit.row(wait.id).await?.outcome {
        Some(Outcome::Completed(Some(json))) => Some(json.text().to_owned()),
        _ => None,
    })
}

/// Signals that come before a wait are kept and met in order; sent again with the same id they change nothing.
pub async fn signal_before_wait(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let parent = kit.begin(worker).await?;
    let first = signal(&kit, parent.run, "go", r#"{"n":1.0}"#);
    for new in [
        first.clone(),
        first.clone(),
        signal(&kit, parent.run, "go", "2"),
        signal(&kit, parent.run, "other", "3"),
    ] {
        assert!(kit.storage().send_signal(new, kit.now()).await?);
        kit.advance(1);
    }
    let waits = vec![kit.wait("go"), kit.wait("go"), kit.wait("go")];
    let (parent, waits) = kit.make(parent, waits).await?;
    assert_eq!(
        kit.status(parent.frame).await?,
        StackStatus::PendingResume,
        "met in the same commit"
    );
    assert_eq!(
        payload(&kit, waits[0]).await?.as_deref(),
        Some(r#"{"n":1.0}"#)
    );
    assert_eq!(payload(&kit, waits[1]).await?.as_deref(), Some("2"));
    assert_eq!(kit.status(waits[2].id).await?, StackStatus::Pending);
    assert!(kit.storage().send_signal(first, kit.now()).await?);
    assert_eq!(
        kit.status(waits[2].id).await?,
        StackStatus::Pending,
        "the id is used up"
    );
    kit.applied(TurnCommit {
        delivered: vec![recorded(waits[1]), recorded(waits[0])],
        ..kit.turn(parent)
    })
    .await?;
    Ok(())
}

/// The oldest open wait of the name takes the signal and its frame wakes; an ended run keeps none.
pub async fn wait_before_signal(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    let (parent, older) = kit.waiting(worker, vec![kit.wait("go")]).await?;
    kit.advance(5);
    let (parent, newer) = kit
        .make(parent, vec![kit.wait("go"), kit.wait("no")])
        .await?;
    kit.parked(parent).await?;
    assert!(
        kit.storage()
            .send_signal(signal(&kit, parent.run, "go", "1"), kit.now())
            .await?
    );
    assert_eq!(payload(&kit, older[0]).await?.as_deref(), Some("1"));
    assert_eq!(kit.status(newer[0].id).await?, StackStatus::Pending);
    assert_eq!(kit.status(newer[1].id).await?, StackStatus::Pending);
    assert_eq!(kit.status(parent.frame).await?, StackStatus::PendingResume);
    let parent = kit.take(worker, parent.frame).await?;
    kit.applied(kit.last_turn(parent)).await?;
    let late = signal(&kit, parent.run, "go", "2");
    assert!(
        !kit.storage().send_signal(late, kit.now()).await?,
        "the run has ended"
    );
    let nowhere = signal(&kit, kit.run_id(), "go", "2");
    let answer = kit.storage().send_signal(nowhere, kit.now()).await;
    assert!(
        matches!(answer, Err(StorageError::NotFound { .. })),
        "{answer:?}"
    );
    Ok(())
}

/// A signal and the turn that waits for it at the same time: they always meet.
pub async fn signal_races_wait(kit: Arc<Kit>) -> CaseResult {
    let worker = kit.worker().await?;
    for round in 0..kit.rounds(1_000) {
        let parent = kit.begin(worker).await?;
        let wait = kit.wait("go");
        let id = wait.id;
        let turn = TurnCommit {
            made: vec![wait],
            ..kit.turn(parent)
        };
        let new = signal(&kit, parent.run, "go", "1");
        let (waits, sends) = (Arc::clone(&kit), Arc::clone(&kit));
        let mut both: Vec<BoxFuture<'static, CaseResult>> = vec![
            Box::pin(async move { waits.applied(turn).await.map(drop) }),
            Box::pin(async move {
                let sent = sends.storage().send_signal(new, sends.now()).await?;
                assert!(sent, "the run is open");
                Ok(())
            }),
        ];
        if round % 2 == 1 {
            both.reverse();
        }
        for answer in kit.at_once(both).await {
            answer?;
        }
        assert_eq!(
            kit.status(id).await?,
            StackStatus::Completed,
            "round {round}"
        );
        assert_eq!(kit.status(parent.frame).await?, StackStatus::PendingResume);
    }
    Ok(())
}
