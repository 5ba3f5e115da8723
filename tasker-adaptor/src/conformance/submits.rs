//! Task runs: submitted once, found, listed.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::kit::{CaseResult, Kit, json};
use crate::{
    NewTaskRun, RunFilter, RunStatus, StackStatus, StorageError, Submitted, TaskName, TaskRunId,
};

/// The same id again finds the run, within a batch too.
pub async fn submit_same_id(kit: Arc<Kit>) -> CaseResult {
    let new = kit.new_run();
    let batch = vec![new.clone(), new.clone()];
    let answers = kit.storage().submit(batch, kit.now()).await?;
    let created: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.expect("no conflict"))
        .collect();
    let once = |created| Submitted {
        id: new.id,
        created,
    };
    assert_eq!(created, [once(true), once(false)]);
    kit.advance(10);
    let answers = kit.storage().submit(vec![new.clone()], kit.now()).await?;
    assert_eq!(
        answers.into_iter().next().expect("one answer")?,
        once(false)
    );
    assert_eq!(kit.storage().stack_runs(new.id).await?.len(), 1);
    let row = kit.row(new.root).await?;
    assert_eq!(
        (row.status, row.due_at),
        (StackStatus::Pending, Some(new.run_at))
    );
    assert_eq!((row.epoch.0, row.turn.0, row.attempt), (0, 0, 0));
    let run = kit.run(new.id).await?;
    assert_eq!((run.status, run.input), (RunStatus::Queued, new.input));
    assert_eq!(run.created_at, kit.now().plus_millis(-10));
    assert!(kit.storage().run(kit.run_id()).await?.is_none());
    Ok(())
}

/// The same key with another id finds the first run.
pub async fn submit_same_key(kit: Arc<Kit>) -> CaseResult {
    let keyed = |new: NewTaskRun| NewTaskRun {
        idempotency_key: Some("order-17".to_owned()),
        ..new
    };
    let first = keyed(kit.new_run());
    let second = keyed(kit.new_run());
    kit.submit_new(first.clone()).await?;
    let answers = kit
        .storage()
        .submit(vec![second.clone()], kit.now())
        .await?;
    let answer = answers.into_iter().next().expect("one answer")?;
    assert_eq!((answer.id, answer.created), (first.id, false));
    assert!(kit.storage().run(second.id).await?.is_none());
    assert!(kit.storage().stack_run(second.root).await?.is_none());
    Ok(())
}

/// The same key or id with another request is a conflict that names the run; the rest of the batch is submitted.
pub async fn submit_key_conflict(kit: Arc<Kit>) -> CaseResult {
    let first = NewTaskRun {
        idempotency_key: Some("order-17".to_owned()),
        ..kit.new_run()
    };
    kit.submit_new(first.clone()).await?;
    let other_key_use = NewTaskRun {
        request_hash: "other".to_owned(),
        idempotency_key: first.idempotency_key.clone(),
        ..kit.new_run()
    };
    let other_id_use = NewTaskRun {
        request_hash: "other".to_owned(),
        ..first.clone()
    };
    let good = kit.new_run();
    let batch = vec![other_key_use, other_id_use, good.clone()];
    let answers = kit.storage().submit(batch, kit.now()).await?;
    for answer in &answers[..2] {
        match answer {
            Err(StorageError::IdempotencyConflict { existing }) => assert_eq!(*existing, first.id),
            other => panic!("a conflict is expected: {other:?}"),
        }
    }
    assert!(answers[2].as_ref().is_ok_and(|submitted| submitted.created));
    assert_eq!(kit.run(good.id).await?.status, RunStatus::Queued);
    Ok(())
}

/// A hundred submits with one key at the same time: one run, told to all.
pub async fn submit_100_at_once(kit: Arc<Kit>) -> CaseResult {
    let submits = (0..100).map(|_| {
        let kit = Arc::clone(&kit);
        let submit: BoxFuture<'static, Result<Submitted, StorageError>> = Box::pin(async move {
            let new = NewTaskRun {
                idempotency_key: Some("one".to_owned()),
                ..kit.new_run()
            };
            let mut answers = kit.storage().submit(vec![new], kit.now()).await?;
            answers.remove(0)
        });
        submit
    });
    let mut ids = BTreeSet::new();
    let mut created = 0;
    for answer in kit.at_once(submits.collect()).await {
        let answer = answer?;
        ids.insert(answer.id);
        created += usize::from(answer.created);
    }
    assert_eq!((ids.len(), created), (1, 1));
    let all = kit.storage().runs(&RunFilter::default(), 10).await?;
    assert_eq!(all.runs.len(), 1);
    Ok(())
}

/// Runs are listed newest first, in pages, by status, task and labels.
pub async fn runs_are_listed_in_pages(kit: Arc<Kit>) -> CaseResult {
    let mut ids = Vec::new();
    for index in 0..7_u32 {
        let mut new = kit.new_run();
        if index % 2 == 0 {
            new.labels.insert("even".to_owned(), "yes".to_owned());
            new.labels.insert("n".to_owned(), index.to_string());
        }
        if index == 3 {
            new.task = TaskName::new("other");
        }
        new.input = json(&index.to_string());
        ids.push(new.id);
        kit.submit_new(new).await?;
        kit.advance(1);
    }
    kit.storage().cancel(ids[5], kit.now()).await?;
    let newest_first: Vec<_> = ids.iter().rev().copied().collect();
    let mut filter = RunFilter::default();
    let mut listed = Vec::new();
    let mut pages = 0;
    loop {
        let page = kit.storage().runs(&filter, 3).await?;
        listed.extend(page.runs.iter().map(|run| run.id));
        pages += 1;
        filter.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!((listed, pages), (newest_first, 3));
    let only = async |filter: RunFilter| -> Result<Vec<TaskRunId>, StorageError> {
        let page = kit.storage().runs(&filter, 10).await?;
        Ok(page.runs.iter().map(|run| run.id).collect())
    };
    let even = RunFilter {
        labels: [("even".to_owned(), "yes".to_owned())].into(),
        ..RunFilter::default()
    };
    assert_eq!(only(even.clone()).await?, [ids[6], ids[4], ids[2], ids[0]]);
    let mut both = even;
    both.labels.insert("n".to_owned(), "4".to_owned());
    assert_eq!(only(both).await?, [ids[4]]);
    let cancelled = RunFilter {
        statuses: vec![RunStatus::Cancelled],
        ..RunFilter::default()
    };
    assert_eq!(only(cancelled).await?, [ids[5]]);
    let other = RunFilter {
        task: Some(TaskName::new("other")),
        ..RunFilter::default()
    };
    assert_eq!(only(other).await?, [ids[3]]);
    Ok(())
}
