//! Submits that come at one time are written together, and each gets its own answer.

use std::sync::Arc;

use tasker_adaptor::{NewTaskRun, RunStore as _, StorageError, Submitted};
use tasker_adaptor_postgres::PostgresStorage;

use crate::kit::{NOW, TestSchema, assert_sound, new_run};

type Answers = Result<Vec<Result<Submitted, StorageError>>, StorageError>;

/// All at one time, each by a call of its own.
async fn submit_each(storage: &PostgresStorage, requests: Vec<Vec<NewTaskRun>>) -> Vec<Answers> {
    let tasks = requests.into_iter().enumerate().map(|(n, runs)| {
        let storage = storage.clone();
        let now = NOW.plus_millis(n as i64);
        tokio::spawn(async move { storage.submit(runs, now).await })
    });
    let answers = futures::future::join_all(tasks).await;
    answers.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once_take_far_fewer_transactions() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let client = schema.client().await;
    let requests: Vec<_> = (0..200).map(|_| vec![new_run(), new_run()]).collect();
    let answers = submit_each(&storage, requests.clone()).await;
    for (n, (answer, request)) in answers.into_iter().zip(requests).enumerate() {
        let answer = answer.unwrap();
        assert_eq!(answer.len(), 2);
        for (submitted, run) in answer.into_iter().zip(request) {
            let submitted = submitted.unwrap();
            assert_eq!((submitted.id, submitted.created), (run.id, true));
            let row = storage.run(run.id).await.unwrap().unwrap();
            assert_eq!(
                row.created_at,
                NOW.plus_millis(n as i64),
                "each has its own time"
            );
        }
    }
    // Rows of one transaction have one `xmin`.
    let sql = "SELECT count(DISTINCT xmin::text) FROM task_runs";
    let transactions: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert!(transactions < 100, "{transactions} transactions");
    assert_sound(&storage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_request_spoils_no_other() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let known = new_run();
    storage.submit(vec![known.clone()], NOW).await.unwrap();
    let keyed = |key: &str, hash: &str| NewTaskRun {
        idempotency_key: Some(key.to_owned()),
        request_hash: hash.to_owned(),
        ..new_run()
    };
    let bad = NewTaskRun {
        root: known.root,
        ..new_run()
    };
    let mut requests: Vec<_> = (0..40).map(|_| vec![new_run()]).collect();
    requests.push(vec![bad.clone()]);
    requests.push(vec![known.clone()]);
    requests.push(vec![keyed("k", "one")]);
    requests.push(vec![keyed("k", "one")]);
    requests.push(vec![keyed("k", "other")]);
    let mut answers = submit_each(&storage, requests).await;

    let keyed: Vec<_> = answers.split_off(42).into_iter().map(one).collect();
    assert!(!one(answers.pop().unwrap()).unwrap().created);
    let refused = answers.pop().unwrap();
    assert!(
        matches!(refused, Err(StorageError::Misuse { .. })),
        "{refused:?}"
    );
    assert!(storage.run(bad.id).await.unwrap().is_none());
    for answer in answers {
        assert!(one(answer).unwrap().created);
    }
    let created = keyed.iter().flatten().filter(|answer| answer.created);
    assert_eq!(created.count(), 1, "one key, one run: {keyed:?}");
    assert!(
        keyed
            .iter()
            .any(|answer| matches!(answer, Err(StorageError::IdempotencyConflict { .. }))),
        "{keyed:?}"
    );
    assert_sound(&storage).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_holds_nobody_up() {
    let schema = TestSchema::new();
    let storage = Arc::new(schema.storage().await);
    let runs: Vec<_> = (0..20).map(|_| new_run()).collect();
    for run in &runs {
        let submitting = storage.submit(vec![run.clone()], NOW);
        futures::pin_mut!(submitting);
        assert!(futures::poll!(submitting).is_pending());
    }
    let last = one(storage.submit(vec![new_run()], NOW).await).unwrap();
    assert!(last.created);
}

fn one(answer: Answers) -> Result<Submitted, StorageError> {
    answer?.pop().expect("one run, one answer")
}
