//! Threads of an engine. The only test of its process, so that it can count them.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::time::Duration;

use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::testing::Stub;
use tasker_core::{Engine, MemoryStorage, service_fn};

/// Threads of this process that are ours, by name: those of VMs, and the writer and the readers of a file.
fn threads() -> Vec<String> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with("tasker-"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_dropped_or_shut_down_leaves_no_thread() {
    let start = || async {
        Engine::builder()
            .storage(MemoryStorage::new())
            .threads(3)
            .start()
            .await
            .unwrap()
    };
    let (dropped, shut_down) = (start().await, start().await);
    if cfg!(target_os = "linux") {
        until(|| threads().len() == 6).await;
    }
    drop(dropped);
    shut_down.shutdown().await.unwrap();
    until(|| threads().is_empty()).await;

    // In the midst of its work, on a file, whose threads go with it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasker.db");
    for is_dropped in [true, false] {
        let stub = Stub::new("svc");
        let engine = Engine::builder()
            .storage(SqliteStorage::open(&path).await.unwrap())
            .service(stub.clone())
            .service(service_fn("hangs", async |_| {
                futures::future::pending().await
            }))
            .start()
            .await
            .unwrap();
        engine
            .publish("module.exports = async (n, { tools }) => { await tools.svc.step(n); await tools.hangs.on() }")
            .name("hangs")
            .await
            .unwrap();
        let mut handles = Vec::new();
        for n in 0..50 {
            handles.push(engine.submit("hangs", &n).await.unwrap());
        }
        until(|| stub.performed("step") >= 50).await;
        if is_dropped {
            drop(engine);
        } else {
            engine.shutdown_within(100).await.unwrap();
            engine.shutdown().await.unwrap();
            drop(engine);
        }
        drop(handles);
        until(|| threads().is_empty()).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_mins(5), async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("the condition never held: {:?}", threads()));
}
