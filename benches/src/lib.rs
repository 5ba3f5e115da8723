//! What Tasker costs, figure by figure, each beside its floor: the same work without an engine, measured in the same run.
//!
//! `cargo run --release -p tasker-benches --bin report` prints them. A ratio of two figures of one run says more than either:
//! the machines that this runs on are noisy.

#![allow(
    clippy::redundant_closure_for_method_calls,
    reason = "a method of a type with a lifetime is not general enough where the closure is"
)]

pub mod clock;
pub mod figure;
pub mod figures;
#[path = "../floor/sqlite.rs"]
pub mod floor;
#[path = "../floor/postgres.rs"]
pub mod floor_postgres;
