//! What the engine's tests share.

#![allow(dead_code, reason = "each test program uses its part")]

use tasker_core::testing::TestEngine;

/// Waits until the condition holds, letting others run.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..1_000_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the condition never held");
}

/// When nothing moves any more no row breaks an invariant.
pub(crate) async fn sound(test: &TestEngine) {
    test.engine().quiet().await;
    let violations = test.audit().await;
    assert!(violations.is_empty(), "{violations:?}");
}
