//! Values come back as they were given, and a damaged one affects its own run only.

use tasker_adaptor::{
    BlockedReason, LogCursor, LogLevel, LogLine, Logs as _, Queue as _, RunFilter, RunStatus,
    RunStore as _, StorageError,
};

use crate::kit::{NOW, TestSchema, begin, call, claim, commit_one, json, new_run, turn, worker};

const TEXTS: &[&str] = &[
    r#"{"b":1,"a":1.0,"a":2}"#,
    r#""\ud800\u0000\udfff""#,
    "1e400",
    "-0",
    "[ 1 ,\n 2 ]",
    "123456789012345678901234567890.10",
    "\"\u{e000}0 \u{e000}1\"",
];

#[tokio::test]
async fn payloads_are_kept_byte_for_byte_and_read_as_text_in_the_shell() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let client = schema.client().await;
    for text in TEXTS {
        let mut run = new_run();
        run.input = json(text);
        storage.submit(vec![run.clone()], NOW).await.unwrap()[0]
            .as_ref()
            .unwrap();
        assert_eq!(
            storage.run(run.id).await.unwrap().unwrap().input.text(),
            *text
        );
        let row = client
            .query_one(
                "SELECT input FROM task_runs WHERE id = $1",
                &[&run.id.as_uuid()],
            )
            .await
            .unwrap();
        assert_eq!(row.get::<_, &str>(0), *text);
    }
}

#[tokio::test]
async fn texts_with_nul_survive_in_every_column_that_takes_free_text() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let odd = "a\0b\u{e000}0\u{e000}";
    let mut run = new_run();
    run.idempotency_key = Some(odd.to_owned());
    run.request_hash = odd.to_owned();
    run.correlation_id = Some(odd.to_owned());
    run.labels.insert(odd.to_owned(), odd.to_owned());
    let again = run.clone();
    assert!(
        storage.submit(vec![run.clone()], NOW).await.unwrap()[0]
            .as_ref()
            .unwrap()
            .created
    );
    let mut twin = again;
    twin.id = new_run().id;
    twin.root = new_run().root;
    let found = storage.submit(vec![twin], NOW).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().id, run.id);
    let stored = storage.run(run.id).await.unwrap().unwrap();
    assert_eq!(stored.idempotency_key.as_deref(), Some(odd));
    assert_eq!(stored.correlation_id.as_deref(), Some(odd));
    assert_eq!(stored.labels, run.labels);
    let filter = RunFilter {
        labels: run.labels.clone(),
        ..RunFilter::default()
    };
    assert_eq!(storage.runs(&filter, 10).await.unwrap().runs.len(), 1);
    let line = LogLine {
        level: LogLevel::Info,
        message: odd.to_owned(),
        data: Some(json("\"\\u0000\"")),
    };
    storage
        .append_logs(run.id, None, vec![line.clone()], NOW)
        .await
        .unwrap();
    assert_eq!(
        storage
            .logs(run.id, LogCursor::default(), 10)
            .await
            .unwrap()
            .lines[0]
            .line,
        line
    );
}

#[tokio::test]
async fn a_damaged_row_blocks_its_own_run_and_no_other() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let worker = worker(&storage).await;
    let runs = [new_run(), new_run(), new_run()];
    storage.submit(runs.to_vec(), NOW).await.unwrap();
    let client = schema.client().await;
    let damaged = runs[1].id;
    client
        .execute(
            "UPDATE task_runs SET input = '{' WHERE id = $1",
            &[&damaged.as_uuid()],
        )
        .await
        .unwrap();

    let claimed = storage.claim_frames(claim(worker, 10)).await.unwrap();
    let mut names: Vec<_> = claimed.iter().map(|frame| frame.row.task_run).collect();
    names.sort();
    assert_eq!(names, [runs[0].id, runs[2].id]);

    let error = storage.run(damaged).await.unwrap_err();
    let StorageError::Corrupt { task_run, what, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*task_run, Some(damaged));
    assert!(
        what.contains("input") && what.contains(&damaged.to_string()),
        "{what}"
    );

    client
        .execute(
            "UPDATE task_runs SET input = '{}' WHERE id = $1",
            &[&damaged.as_uuid()],
        )
        .await
        .unwrap();
    let run = storage.run(damaged).await.unwrap().unwrap();
    assert_eq!(run.status, RunStatus::Blocked);
    assert!(
        matches!(run.blocked, Some(BlockedReason::Corrupt { .. })),
        "{:?}",
        run.blocked
    );
    crate::kit::assert_sound(&storage).await;
}

#[tokio::test]
async fn a_damaged_call_blocks_its_own_run_and_no_other() {
    let schema = TestSchema::new();
    let storage = schema.storage().await;
    let worker = worker(&storage).await;
    let (good, bad) = (begin(&storage, worker).await, begin(&storage, worker).await);
    let (good_call, bad_call) = (call(false), call(false));
    let damaged = bad_call.id;
    commit_one(&storage, turn(good, vec![good_call.clone()]))
        .await
        .unwrap()
        .unwrap();
    commit_one(&storage, turn(bad, vec![bad_call]))
        .await
        .unwrap()
        .unwrap();
    let client = schema.client().await;
    client
        .execute(
            "UPDATE stack_runs SET args = 'x' WHERE id = $1",
            &[&damaged.as_uuid()],
        )
        .await
        .unwrap();
    let claimed = storage.claim_calls(claim(worker, 10)).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].row.id, good_call.id);
    assert_eq!(
        storage.run(bad.run).await.unwrap().unwrap().status,
        RunStatus::Blocked
    );
    assert_eq!(
        storage.run(good.run).await.unwrap().unwrap().status,
        RunStatus::Processing
    );
    crate::kit::assert_sound(&storage).await;
}
