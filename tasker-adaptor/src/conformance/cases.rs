//! The list of all cases, and the macros that make tests of it.

use super::Case;

/// Hands the list of cases to another macro of this crate.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ($callback:ident $args:tt) => {
        $crate::$callback! { $args
            (commits commit_twice_same_turn)
            (commits commit_twice_final)
            (commits commit_old_turn_late)
            (commits commit_after_reload)
            (commits commit_cancelled)
            (commits final_writes_run)
            (commits final_with_open_calls)
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
