//! The engine on real SQLite files with the host's clock: several engines on one file, storage that fails and comes back.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::adaptor::Maintenance;
use tasker_core::testing::{Stub, test_wall};
use tasker_core::{Engine, RunError, RunHandle, RunStatus};

const SUM: &str = r"module.exports = async (input, { tools }) => {
    let n = input.from;
    for (let i = 0; i < 5; i++) n = await tools.svc.step(n + 1);
    return n;
}";

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_mins(1);

async fn storage(path: &Path) -> SqliteStorage {
    SqliteStorage::open(path).await.unwrap()
}

async fn engine(path: &Path, stub: &Stub) -> Engine {
    Engine::builder()
        .storage(storage(path).await)
        .service(stub.clone())
        .wall(test_wall())
        .park_always(std::env::var("TASKER_TEST_MODE").is_ok_and(|mode| mode == "park"))
        .lease_ms(2_000)
        .poll_ms(100)
        .window(8)
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
async fn two_engines_on_one_file_lose_and_repeat_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasker.db");
    let stubs = [Stub::new("svc"), Stub::new("svc")];
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
