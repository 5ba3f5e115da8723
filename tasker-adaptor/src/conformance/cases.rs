//! The list of all cases, and the macros that make tests of it.

use super::Case;

/// Hands the list of cases to another macro of this crate.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ($callback:ident $args:tt) => {
        $crate::$callback! { $args
            (batches batch_same_frame_twice)
            (batches batch_one_refused)
            (batches batch_root_cancelled_with_nested)
            (batches batch_error_all_unknown)
            (batches batch_over_full_store)
            (blocked blocked_row_stays)
            (blocked unblock_settles)
            (blocked unblock_ends_frames)
            (blocked detached_rows_fail_instead)
            (cancels cancel_races_final)
            (cancels cancel_races_made)
            (cancels cancel_is_total)
            (cancels cancel_with_grace_wakes_all_frames)
            (cancels cancel_with_grace_of_blocked_and_detached)
            (claims claim_one_winner)
            (claims claim_order)
            (claims claim_tells_what_to_run)
            (claims claim_reply_lost)
            (claims claim_skips)
            (claims backlog_counts_what_waits)
            (claims next_due_is_the_earliest)
            (claims release_call_asked_is_in_doubt)
            (claims release_call_not_asked_is_no_attempt)
            (claims made_rows_are_born_as_asked)
            (commits commit_twice_same_turn)
            (commits commit_twice_final)
            (commits commit_old_turn_late)
            (commits commit_after_reload)
            (commits final_writes_run)
            (commits final_with_open_calls)
            (commits commit_cancelled)
            (deliveries deliver_local_not_mine)
            (deliveries deliver_local_recorded_by_me)
            (deliveries deliver_recorded_twice)
            (deliveries deliver_of_another_frame)
            (deliveries delivery_order_gapless)
            (deliveries made_order_and_ids)
            (deliveries policy_of_a_call)
            (deliveries outcomes_round_trip)
            (finishes complete_twice)
            (finishes complete_stale_epoch)
            (finishes complete_ended)
            (finishes complete_gone)
            (finishes complete_retry_waits)
            (folds fold_never_open)
            (folds fold_crash_between)
            (folds fold_then_late_commit)
            (folds retention_deletes_by_age_and_status)
            (model model_matches_memory)
            (signals signal_before_wait)
            (signals wait_before_signal)
            (signals signal_races_wait)
            (submits submit_same_id)
            (submits submit_same_key)
            (submits submit_key_conflict)
            (submits submit_100_at_once)
            (submits runs_are_listed_in_pages)
            (tables publish_is_idempotent)
            (tables publish_moves_the_current_version)
            (tables tasks_are_listed_in_pages)
            (tables logs_read_in_order)
            (tables keystore_round_trip)
            (tables keystore_replace_is_compare_and_set)
            (tables keystore_lists)
            (tables watch_hints_at_work_and_ends)
            (timers dropped_timer_never_fires)
            (timers timer_both_fire)
            (timers timer_not_early)
            (wakes suspend_after_child_settled)
            (wakes settle_after_suspend)
            (wakes settle_while_suspending)
            (wakes settle_two_at_once)
            (wakes nested_child_other_worker)
            (wakes suspended_without_children)
            (wakes batch_child_ends_parent_suspends)
            (wakes park_keeps_wake)
            (wakes complete_after_park)
            (workers commit_worker_dead)
            (workers commit_between_death_and_take_over)
            (workers reap_races_commit)
            (workers reap_all_states)
            (workers reap_status_from_children)
            (workers reap_chunked)
            (workers reap_live_third)
            (workers reap_sets_in_doubt)
            (workers take_overs_of_a_call_are_counted)
            (workers heartbeat_after_reap)
            (workers reap_only_by_the_living)
            (workers reap_after_the_clock_was_set_back)
            (workers retire_frees_rows)
        }
    };
}

/// Makes one test function of every case of the suite: `conformance_tests!(#[tokio::test(flavor = "multi_thread")] crate::fresh);`
/// where `async fn fresh()` gives an empty store each time it is called: an `impl Storage`, or a
/// [`Harness`](crate::conformance::Harness).
#[macro_export]
macro_rules! conformance_tests {
    ($(#[$attribute:meta])* $fresh:path) => {
        $crate::__conformance_cases! { __conformance_test_each { [$(#[$attribute])*] $fresh } }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_test_each {
    ({ $attributes:tt $fresh:path } $(($module:ident $case:ident))*) => {
        $($crate::__conformance_test! { $attributes $fresh, $module, $case })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_test {
    ([$(#[$attribute:meta])*] $fresh:path, $module:ident, $case:ident) => {
        $(#[$attribute])*
        async fn $case() {
            let case = $crate::conformance::$module::$case;
            $crate::conformance::run_case(stringify!($case), $fresh().await, case).await;
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_table {
    ({} $(($module:ident $case:ident))*) => {
        /// All cases.
        pub const CASES: &[Case] = &[$(Case {
            name: stringify!($case),
            run: |kit| Box::pin(super::$module::$case(kit)),
        }),*];
    };
}

crate::__conformance_cases! { __conformance_table {} }
