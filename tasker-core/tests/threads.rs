//! Threads of an engine. The only test of its process, so that it can count them.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use std::time::Duration;

use tasker_core::{Engine, MemoryStorage};

fn vm_threads() -> usize {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with("tasker-vm"))
        .count()
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
        until(|| vm_threads() == 6).await;
    }
    drop(dropped);
    shut_down.shutdown().await.unwrap();
    until(|| vm_threads() == 0).await;
}

async fn until(condition: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(30), async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the condition never held");
}
