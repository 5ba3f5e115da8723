//! What Tasker costs, figure by figure, each beside its floor: the same work without an engine, measured in the same run.
//!
//! `cargo run --release -p tasker-benches --bin report` prints them. A ratio of two figures of one run says more than either:
//! the machines that this runs on are noisy.

pub mod clock;
pub mod figure;
pub mod figures;
#[path = "../floor/sqlite.rs"]
pub mod floor;
