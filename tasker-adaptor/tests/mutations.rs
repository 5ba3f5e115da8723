//! The suite notices when a guard of the contract is missing.
#![cfg(feature = "conformance")]

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tasker_adaptor::conformance::{CASES, Harness, run_case};
use tasker_adaptor::{MemoryStorage, Mutation};

/// Names of the cases that fail on this store.
async fn failing(fresh: impl Fn() -> MemoryStorage) -> Vec<&'static str> {
    let mut failing = Vec::new();
    for case in CASES {
        let harness = Harness::new(fresh())
            .lacks(&["batch_over_full_store"])
            .effort(1);
        let run = run_case(case.name, harness, |kit| (case.run)(kit));
        if AssertUnwindSafe(run).catch_unwind().await.is_err() {
            failing.push(case.name);
        }
    }
    failing
}

/// Each mutation with cases that must notice it, others may too.
fn watchmen(mutation: Mutation) -> &'static [&'static str] {
    match mutation {
        Mutation::NoTurnNumber => &[
            "commit_twice_same_turn",
            "commit_old_turn_late",
            "batch_error_all_unknown",
        ],
        Mutation::NoEpochOnLoad => &["commit_after_reload", "claim_reply_lost"],
        Mutation::NoWorkerGuardOnCommit => {
            &["commit_worker_dead", "commit_between_death_and_take_over"]
        }
        Mutation::NoWorkerGuardOnClaim => &["commit_worker_dead"],
        Mutation::NoWakeUnderLock => &["settle_while_suspending"],
        Mutation::NoUnreadCheck => &["suspend_after_child_settled", "signal_before_wait"],
        Mutation::NoDeliveryGuard => &["deliver_local_not_mine", "deliver_recorded_twice"],
        Mutation::NoFoldGuard => &["fold_never_open", "final_with_open_calls"],
        other => panic!("{other:?} has no case that notices it"),
    }
}

#[tokio::test]
async fn with_all_guards_no_case_fails() {
    assert_eq!(failing(MemoryStorage::new).await, [""; 0]);
}

#[tokio::test]
async fn without_any_one_guard_the_suite_fails() {
    for mutation in Mutation::ALL {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let failing = failing(|| MemoryStorage::with_mutation(*mutation)).await;
        std::panic::set_hook(loud);
        println!("{mutation:?}: {failing:?}");
        for watchman in watchmen(*mutation) {
            assert!(
                failing.contains(watchman),
                "{mutation:?} is not noticed by {watchman}, but by {failing:?}"
            );
        }
    }
}
