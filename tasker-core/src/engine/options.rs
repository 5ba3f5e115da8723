//! How an engine works.

use std::sync::Arc;

use tasker_adaptor::RunStatus;

use super::clock::{Clock, SystemClock};
use crate::limits::Limits;

/// Who drives the runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drive {
    /// The engine by itself.
    #[default]
    Automatic,
    /// The host, by [`crate::Engine::process_next`] and [`crate::Engine::process`]: nothing is claimed otherwise.
    Manual,
    /// Nobody here: this engine submits and reads only.
    Client,
}

/// All settings of an engine, set through its builder.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) drive: Drive,
    pub(crate) limits: Arc<Limits>,
    /// Threads that own VMs.
    pub(crate) threads: usize,
    /// Runnable frames that are worked on at one time.
    pub(crate) window: usize,
    /// Frames with a VM in memory at one time.
    pub(crate) hot_frames: usize,
    /// Memory of all VMs, in bytes.
    pub(crate) hot_bytes: usize,
    /// Calls asked at one time.
    pub(crate) calls_in_flight: usize,
    /// A frame that waits longer than this is parked, in milliseconds.
    pub(crate) park_delay_ms: u64,
    /// Every frame is parked as soon as it waits (a test mode).
    pub(crate) park_always: bool,
    /// How long a worker may be silent, in milliseconds.
    pub(crate) lease_ms: u64,
    /// How often storage is asked when no hint comes, in milliseconds.
    pub(crate) poll_ms: u64,
    /// How long a cancelled run may clean up, in milliseconds.
    pub(crate) cancel_grace_ms: u64,
    /// Take-overs in one turn after which a frame is blocked as poisoned; of one call likewise.
    pub(crate) poison_limit: u32,
    /// How long stack runs of ended runs are kept, in milliseconds.
    pub(crate) keep_rows_ms: u64,
    /// How long ended runs are kept, by status, in milliseconds; a status that is not named: for ever.
    pub(crate) keep_runs: Vec<(RunStatus, u64)>,
    /// How often the cleaner works, in milliseconds; 0: never.
    pub(crate) clean_every_ms: u64,
    /// How the worker is called in the table `workers`.
    pub(crate) worker_name: String,
    pub(crate) clock: Arc<dyn Clock>,
    /// Seed of ids; `None`: the operating system's randomness.
    pub(crate) id_seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            drive: Drive::Automatic,
            limits: Arc::new(Limits::default()),
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            window: 96,
            hot_frames: 1_024,
            hot_bytes: 1 << 30,
            calls_in_flight: 1_024,
            park_delay_ms: 5_000,
            park_always: false,
            lease_ms: 30_000,
            poll_ms: 1_000,
            cancel_grace_ms: 5_000,
            poison_limit: 3,
            keep_rows_ms: 0,
            keep_runs: Vec::new(),
            clean_every_ms: 1_000,
            worker_name: format!("tasker-{}", std::process::id()),
            clock: Arc::new(SystemClock::default()),
            id_seed: None,
        }
    }
}
