//! The figures, one function each.

mod bare_start;
mod bench;
mod call;
mod hot_memory;
mod parked;
pub mod postgres;
mod process_wall;
pub mod recover;
mod storage;
mod vm;
mod waiting;

pub use call::{BareLoop, HotVm, call};
pub use hot_memory::{frames, hot_memory};
pub use parked::{parked_disk, parked_memory, parked_speed};
pub use postgres::{chain_postgres, chain_postgres_two};
pub use process_wall::process_wall;
pub use recover::recover_5k;
pub use storage::{
    chain_long_sqlite, chain_sqlite, chain_sqlite_10k, fan_out_1k, fan_out_10k, latency_sqlite,
    nested,
};
pub use vm::{cold_start, idle_cpu, replay_per_call};
pub use waiting::waiting;

/// Anything that stops a figure.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;

/// How much of the full size a figure is taken at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As the goals are written.
    Full,
    /// A twentieth, once: shows that the figure works.
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

    /// How often a figure and its floor are taken in turn; the median of each counts.
    pub fn rounds(self) -> u32 {
        match self {
            Self::Full => 3,
            Self::Quick => 1,
        }
    }

    /// As [`Size::rounds`], for figures that take less than a second: what a neighbour on the machine does to them passes with more rounds.
    pub fn short_rounds(self) -> u32 {
        match self {
            Self::Full => 7,
            Self::Quick => 1,
        }
    }
}
