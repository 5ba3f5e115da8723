//! The figures, one function each.

mod bench;
mod call;
pub mod postgres;
mod process_wall;
mod storage;
mod waiting;

pub use call::{BareLoop, HotVm, call};
pub use postgres::{chain_postgres, chain_postgres_two};
pub use process_wall::process_wall;
pub use storage::{chain_long_sqlite, chain_sqlite, fan_out_1k, latency_sqlite, nested};
pub use waiting::waiting;

/// Anything that stops a figure.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;

/// How much of the full size a figure is taken at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As the goals are written.
    Full,
    /// A twentieth: shows that the figure works.
    Quick,
}

impl Size {
    /// This full number at this size; at least 1.
    pub fn of(self, full: u32) -> u32 {
        match self {
            Self::Full => full,
            Self::Quick => (full / 20).max(1),
        }
    }
}
