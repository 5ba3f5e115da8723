//! Time, processor time and memory of this process. The only file of the benches that reads a clock.
#![expect(
    clippy::disallowed_methods,
    reason = "benches measure the host's time; nothing durable depends on it"
)]

use std::fs;
use std::time::Instant;

/// Ticks of `/proc/self/stat` in a second: 100 on every Linux that Rust runs on.
const TICKS_A_SECOND: f64 = 100.0;

/// Measures from its making.
pub struct Stopwatch {
    start: Instant,
    cpu: f64,
}

impl Stopwatch {
    /// Starts.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            cpu: cpu_seconds(),
        }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Processor seconds of all threads since the start; 0 where there is no `/proc`.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds() - self.cpu
    }
}

fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in brackets, may hold spaces: fields are counted from its end (state is field 3).
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = |field: usize| {
        fields
            .split_whitespace()
            .nth(field - 3)
            .and_then(|text| text.parse::<f64>().ok())
            .unwrap_or_default()
    };
    (ticks(14) + ticks(15)) / TICKS_A_SECOND
}

/// Resident memory of this process in bytes; 0 where there is no `/proc`.
pub fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or_default()
        * 1_024
}
