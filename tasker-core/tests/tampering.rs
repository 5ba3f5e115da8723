//! Rows that somebody changed in the database: each blocks its own run, naming what is wrong, and disturbs no other.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::path::Path;
use std::time::Duration;

use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::testing::test_wall;
use tasker_core::{BlockedReason, Engine, RunError, RunHandle, service_fn};

const TASK: &str = "module.exports = async function steps({ n }, { tools, signal }) {
    const first = await tools.echo.m({ n });
    const second = await tools.echo.m([first.n, 'x']);
    const word = await signal('go');
    return [first, second, word];
};";

/// A change of the rows of one run, and the words by which the reason must name it.
const DAMAGES: [(&str, &str, &[&str]); 11] = [
    ("nothing", "SELECT 1", &[]),
    (
        "arguments that are no JSON",
        "UPDATE stack_runs SET args = '[{\"n\"' WHERE RUN AND kind = 'call' AND seq = 1",
        &["args"],
    ),
    (
        "arguments of another call",
        "UPDATE stack_runs SET args = '[{\"n\":1000}]' WHERE RUN AND kind = 'call' AND seq = 1",
        &["call 1"],
    ),
    (
        "an answer that is no JSON",
        "UPDATE stack_runs SET outcome = '{\"completed\":' WHERE RUN AND kind = 'call' AND seq = 2",
        &["outcome"],
    ),
    (
        "an answer that was another",
        "UPDATE stack_runs SET outcome = replace(outcome, '\"n\":', '\"n\":9') WHERE RUN AND kind = 'call' AND seq = 1",
        &["call 2"],
    ),
    (
        "another service",
        "UPDATE stack_runs SET service = 'bank' WHERE RUN AND kind = 'call' AND seq = 2",
        &["bank"],
    ),
    (
        "a call that is gone",
        "DELETE FROM stack_runs WHERE RUN AND kind = 'call' AND seq = 1",
        &["child 1"],
    ),
    (
        "a number of delivery that is not",
        "UPDATE stack_runs SET delivered_order = 7 WHERE RUN AND kind = 'call' AND seq = 2",
        &["deliver"],
    ),
    (
        "a status that nobody knows",
        "UPDATE stack_runs SET status = 'perhaps' WHERE RUN AND kind = 'call' AND seq = 2",
        &["status"],
    ),
    (
        "an input of another run",
        "UPDATE task_runs SET input = '{\"n\":77}' WHERE id = THIS",
        &["call 1"],
    ),
    (
        "an input that is no JSON",
        "UPDATE task_runs SET input = '{' WHERE id = THIS",
        &["input"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_row_blocks_its_run_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasker.db");
    let first = engine(&path).await;
    first.publish(TASK).name("steps").await.unwrap();
    let mut runs = Vec::new();
    for n in 0..DAMAGES.len() {
        let run = first
            .submit("steps", &serde_json::json!({ "n": n }))
            .await
            .unwrap();
        waits(&run).await;
        runs.push(run.id());
    }
    first.shutdown().await.unwrap();

    let rows = rusqlite::Connection::open(&path).unwrap();
    rows.execute_batch("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF;")
        .unwrap();
    for (run, (what, change, _)) in runs.iter().zip(&DAMAGES).skip(1) {
        let this = format!("'{run}'");
        let change = change
            .replace("RUN", &format!("task_run_id = {this}"))
            .replace("THIS", &this);
        let changed = rows.execute(&change, []).unwrap();
        assert_eq!(changed, 1, "{what}: {change}");
    }
    drop(rows);

    let second = engine(&path).await;
    for (n, (id, (what, _, words))) in runs.iter().zip(&DAMAGES).enumerate() {
        let run = second.run(*id).await;
        let told = match run {
            // The run's own row cannot be read: asking for it says so.
            Err(error) => error.to_string(),
            Ok(run) => {
                if let Err(error) = run.signal("go", &"on").await {
                    error.to_string()
                } else {
                    let ended = tokio::time::timeout(Duration::from_mins(10), run.outcome());
                    match ended
                        .await
                        .unwrap_or_else(|_| panic!("{what}: nothing within a minute"))
                    {
                        Ok(value) => {
                            let expected = format!("[{{\"n\":{n}}},[{n},\"x\"],\"on\"]");
                            assert_eq!(value.unwrap().text(), expected, "{what}");
                            assert!(words.is_empty(), "{what}: it was not noticed");
                            continue;
                        }
                        Err(RunError::Blocked(
                            reason @ (BlockedReason::Corrupt { .. }
                            | BlockedReason::Diverged { .. }),
                        )) => reason.to_string(),
                        Err(RunError::Engine(error)) => error.to_string(),
                        Err(other) => panic!("{what}: {other:?}"),
                    }
                }
            }
        };
        assert!(
            words.iter().all(|word| told.contains(word)) && !words.is_empty(),
            "{what}: {told}"
        );
    }
    // All that is left of the engine works.
    let run = second
        .submit("steps", &serde_json::json!({ "n": 5 }))
        .await
        .unwrap();
    waits(&run).await;
    run.signal("go", &"on").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_mins(10), run.outcome()).await;
    assert!(matches!(ended, Ok(Ok(Some(_)))), "{ended:?}");
    second.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_task_blocks_its_runs_and_is_named() {
    for (what, change) in [
        (
            "other code",
            "source = replace(source, '[first, second, word]', '[first, second, word, 1]')",
        ),
        ("a grant", "options = '{\"grants\":[\"keystore\"]}'"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasker.db");
        let first = engine(&path).await;
        first.publish(TASK).name("steps").await.unwrap();
        let input = serde_json::json!({ "n": 1 });
        let run = first.submit("steps", &input).await.unwrap();
        waits(&run).await;
        first.shutdown().await.unwrap();

        let rows = rusqlite::Connection::open(&path).unwrap();
        let change = format!("UPDATE task_functions SET {change}");
        assert_eq!(rows.execute(&change, []).unwrap(), 1, "{what}");
        drop(rows);

        let second = engine(&path).await;
        let run = second.run(run.id()).await.unwrap();
        run.signal("go", &"on").await.unwrap();
        let ended = tokio::time::timeout(Duration::from_mins(10), run.outcome()).await;
        match ended.expect("the run is blocked") {
            Err(RunError::Blocked(BlockedReason::Corrupt { what: told })) => {
                assert!(told.contains("steps") && told.contains("hash"), "{told}");
            }
            other => panic!("{what}: {other:?}"),
        }
        second.shutdown().await.unwrap();
    }
}

async fn engine(path: &Path) -> Engine {
    Engine::builder()
        .storage(SqliteStorage::open(path).await.unwrap())
        .service(service_fn("echo", |call| async move {
            Ok(call.args().first().cloned().unwrap_or_default())
        }))
        .wall(test_wall())
        .threads(1)
        .poll_ms(50)
        .lease_ms(1_000)
        .start()
        .await
        .unwrap()
}

/// Until it waits for its signal.
async fn waits(run: &RunHandle) {
    let waiting = async {
        while !run.trace().await.unwrap().to_string().contains("go") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(10), waiting)
        .await
        .expect("the run comes to its signal");
}
