//! The engine on real SQLite files with the host's clock: several engines on one file, storage that fails and comes back.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use serde_json::{Value, json};
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::adaptor::Maintenance;
use tasker_core::testing::{Stub, test_wall};
use tasker_core::{Engine, Json, RunError, RunFilter, RunHandle, RunStatus, ServiceError};
use tokio::sync::watch;

const SUM: &str = r"module.exports = async (input, { tools }) => {
    let n = input.from;
    for (let i = 0; i < 5; i++) n = await tools.svc.step(n + 1);
    return n;
}";

/// No test waits longer than this for anything: only what never comes meets it, on however slow a disk.
const PATIENCE: Duration = Duration::from_mins(10);

async fn storage(path: &Path) -> SqliteStorage {
    SqliteStorage::open(path).await.unwrap()
}

async fn engine(path: &Path, stub: &Stub) -> Engine {
    Engine::builder()
        .storage(storage(path).await)
        .service(stub.clone())
        .wall(test_wall())
        .park_always(std::env::var("TASKER_TEST_MODE").is_ok_and(|mode| mode == "park"))
        // Nobody dies in these tests: a machine that is busy must not look like death.
        .lease_ms(30_000)
        .poll_ms(100)
        .window(8)
        .calls_in_flight(8)
        .start()
        .await
        .unwrap()
}

async fn result(handle: &RunHandle) -> Result<Value, RunError> {
    tokio::time::timeout(PATIENCE, handle.result())
        .await
        .expect("the run never ended")
}

async fn sound(path: &Path) {
    let violations: Vec<String> = storage(path)
        .await
        .audit()
        .await
        .unwrap()
        .into_iter()
        .map(|violation| violation.to_string())
        .collect();
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_engines_share_the_runs_of_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasker.db");
    // Whoever is ahead waits at its 150th call until the other has made as many: work that does not spread would hang here.
    let counts = [watch::Sender::new(0_u32), watch::Sender::new(0_u32)];
    let stub = |own: usize| {
        let (own, other) = (counts[own].clone(), counts[1 - own].clone());
        Stub::new("svc").answer_later("step", move |call| {
            let (own, mut other) = (own.clone(), other.subscribe());
            async move {
                own.send_modify(|count| *count += 1);
                if *own.borrow() >= 150 {
                    let _ = other.wait_for(|count| *count >= 150).await;
                }
                call.arg::<Json>(0)
            }
            .boxed()
        })
    };
    let stubs = [stub(0), stub(1)];
    let first = engine(&path, &stubs[0]).await;
    first.publish(SUM).name("sum").await.unwrap();
    let second = engine(&path, &stubs[1]).await;
    let mut handles = Vec::new();
    for from in 0..300 {
        handles.push(first.submit("sum", &json!({ "from": from })).await.unwrap());
    }
    for (from, handle) in handles.iter().enumerate() {
        assert_eq!(result(handle).await.unwrap(), json!(from + 5));
    }
    let performed = [stubs[0].performed("step"), stubs[1].performed("step")];
    assert_eq!(performed[0] + performed[1], 1_500, "{performed:?}");
    assert!(
        performed.iter().all(|n| *n >= 150),
        "the work did not spread: {performed:?}"
    );
    first.shutdown().await.unwrap();
    second.shutdown().await.unwrap();
    sound(&path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_waits_out_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasker.db");
    let file = storage(&path).await;
    let stub = Stub::new("svc");
    let engine = Engine::builder()
        .shared_storage(Arc::new(file.clone()))
        .service(stub.clone())
        .poll_ms(100)
        .start()
        .await
        .unwrap();
    engine
        .publish("module.exports = async (n, { tools }) => { let all = ''; for (let i = 0; i < 40; i++) all = await tools.svc.step('x'.repeat(20_000)); return all.length }")
        .name("grows")
        .await
        .unwrap();
    file.limit_pages(Some(40)).await.unwrap();
    let handle = engine.submit("grows", &()).await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while engine.health().storage.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the full disk was never reported");
    assert!(engine.health().storage.unwrap().contains("space"));
    assert!(!handle.status().await.unwrap().is_terminal());
    file.limit_pages(None).await.unwrap();
    assert_eq!(result(&handle).await.unwrap(), json!(20_000));
    assert_eq!(stub.performed("step"), 40, "nothing was repeated");
    engine.shutdown().await.unwrap();
    sound(&path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_submits_and_reads_what_another_engine_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasker.db");
    let client = Engine::builder()
        .storage(storage(&path).await)
        .poll_ms(50)
        .client()
        .await
        .unwrap();
    client.publish(SUM).name("sum").await.unwrap();
    let handle = client.submit("sum", &json!({"from": 1})).await.unwrap();
    assert_eq!(handle.status().await.unwrap(), RunStatus::Queued);
    let stub = Stub::new("svc");
    let engine = engine(&path, &stub).await;
    assert_eq!(result(&handle).await.unwrap(), json!(6));
    engine.shutdown().await.unwrap();
    sound(&path).await;
}

/// The file of a past rush is small again: rows, then runs go by their age and status, then the space itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_small_again_after_a_rush() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasker.db");
    let stub = Stub::new("svc").answer("fails", |_| Err(ServiceError::external("no")));
    let engine = Engine::builder()
        .storage(storage(&path).await)
        .service(stub)
        .keep_rows_ms(3_600_000)
        .start()
        .await
        .unwrap();
    engine
        .publish(
            "module.exports = async (n, { tools }) => { let last; for (let i = 0; i < 30; i++) last = await tools.svc.step(`${i}${'x'.repeat(20_000)}`); if (n % 10 === 0) await tools.svc.fails(); return n }",
        )
        .name("writes")
        .await
        .unwrap();
    let mut handles = Vec::new();
    for n in 0..40 {
        handles.push(engine.submit("writes", &n).await.unwrap());
    }
    for (n, handle) in handles.iter().enumerate() {
        assert_eq!(result(handle).await.is_ok(), n % 10 != 0);
    }
    engine.shutdown().await.unwrap();
    let size = || std::fs::metadata(&path).unwrap().len();
    let rush = size();
    assert!(rush > 30 << 20, "the rush left {rush} bytes");

    // The same file under an engine that keeps no rows, and completed runs not at all.
    let engine = Engine::builder()
        .storage(storage(&path).await)
        .service(Stub::new("svc"))
        .clean_every_ms(500)
        .keep_runs_ms(RunStatus::Completed, 0)
        .start()
        .await
        .unwrap();
    let all = RunFilter::default();
    tokio::time::timeout(PATIENCE, async {
        while engine.runs(&all, 100).await.unwrap().runs.len() > 4 || size() > 20 << 20 {
            // A file's size gives no signal.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{} bytes of {rush} are left", size()));
    let kept = engine.runs(&all, 100).await.unwrap().runs;
    assert!(kept.iter().all(|run| run.status == RunStatus::Failed));
    let failed = engine.run(handles[0].id()).await.unwrap();
    let trace = failed.trace().await.unwrap();
    assert!(trace.to_string().contains("fails"), "{trace}");
    engine.shutdown().await.unwrap();
    sound(&path).await;
}
