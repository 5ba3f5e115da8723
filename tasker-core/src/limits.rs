//! What a frame may use. Each limit has a default, a unit and a reason; passing one ends the frame with a typed failure.

use serde::{Deserialize, Serialize};
use tasker_adaptor::Failure;
#[cfg(feature = "quickjs")]
use tasker_adaptor::Json;

/// Limits of each frame. All can be set per engine ([`crate::EngineBuilder`]`::limits`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Heap of the VM, in bytes. Default 64 MiB: a payload of the largest size, parsed and copied a few times. Counted by QuickJS's
    /// allocator. All VMs of an engine together have a budget of their own, `EngineBuilder::hot_memory_mb`.
    pub memory_bytes: usize,
    /// JavaScript stack, in bytes. Default 512 KiB, some thousand calls deep; at most 16 MiB, and the VM thread's stack is made larger.
    pub stack_bytes: usize,
    /// Work of one turn, in interrupt ticks: QuickJS asks once in about 10,000 steps. Default 20,000 (a few seconds).
    /// Counted, not timed, so that it falls at the same place on replay.
    pub turn_ticks: u64,
    /// Guard of one turn, in milliseconds. Default 10,000. It catches what ticks do not count: operations inside QuickJS.
    ///
    /// On Linux it counts the time that the turn has really had on a processor, so that a machine which is busy or was stopped fails
    /// nobody's turn; twenty times as long by the clock is the last line. On other systems it counts by the clock. The check of a task
    /// that is published has the same guard.
    pub turn_wall_ms: u64,
    /// Calls, nested tasks, timers and signal waits of one frame in its life. Default 100,000: each is a row, and is replayed when
    /// the frame is taken up again, in about a second for all of them.
    pub calls: u32,
    /// Of these open at one time. Default 20,000: each is a promise with its arguments in the frame's memory.
    pub open_calls: u32,
    /// Calls, nested tasks, timers and signal waits of all frames of a run together. Default 1,000,000. Without it a task that runs
    /// itself would have no limit. Counted by each engine over the frames that it runs.
    pub run_calls: u32,
    /// Nested tasks of a run, in all. Default 10,000. Each is a VM and a journal; counted as [`Limits::run_calls`] is.
    pub run_frames: u32,
    /// Nesting of tasks. Default 32; the root is 0. It ends a task that runs itself before the totals of its run do.
    pub depth: u32,
    /// Text of one payload (input, arguments, result, service answer), in bytes. Default 4 MiB: it is copied into a row and into the VM
    /// whole. Larger things belong into a store that a service fills.
    pub payload_bytes: usize,
    /// Nesting of a payload. Default 100: whoever reads it recurses into it.
    pub json_depth: u32,
    /// Log lines of one frame in its life. Default 10,000, for they are rows; further lines are dropped with one line that says so.
    pub log_lines: u32,
    /// Text of one log line, in bytes. Default 16 KiB; longer lines are cut with a mark.
    pub log_line_bytes: usize,
    /// Text of all log lines of one frame in its life, in bytes. Default 8 MiB; further lines are dropped with one line that says so.
    pub log_bytes: usize,
    /// Log lines of all frames of a run together. Default 100,000; further lines are dropped with one line that says so.
    /// Counted as [`Limits::run_calls`] is.
    pub run_log_lines: u32,
    /// Whether task code may make code of text: `eval`, `Function` and its kin. Default true: it reaches no more than the frame that runs
    /// it. False makes what runs be what was published.
    pub eval: bool,
    /// Source text of a task with its modules, in bytes. Default 1 MiB: it is parsed when it is published and when it is loaded. Checked
    /// at publish.
    pub source_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            stack_bytes: 512 << 10,
            turn_ticks: 20_000,
            turn_wall_ms: 10_000,
            calls: 100_000,
            open_calls: 20_000,
            run_calls: 1_000_000,
            run_frames: 10_000,
            depth: 32,
            payload_bytes: 4 << 20,
            json_depth: 100,
            log_lines: 10_000,
            log_line_bytes: 16 << 10,
            log_bytes: 8 << 20,
            run_log_lines: 100_000,
            eval: true,
            source_bytes: 1 << 20,
        }
    }
}

/// The limit that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// [`Limits::memory_bytes`]
    Memory,
    /// [`Limits::stack_bytes`]: only when the error cannot be given to the task; a caught `RangeError` is the task's own affair.
    Stack,
    /// [`Limits::turn_ticks`]
    Cpu,
    /// [`Limits::turn_wall_ms`]
    WallClock,
    /// [`Limits::calls`]
    Calls,
    /// [`Limits::open_calls`]
    OpenCalls,
    /// [`Limits::run_calls`]
    RunCalls,
    /// [`Limits::run_frames`]
    RunFrames,
    /// [`Limits::depth`]
    Depth,
    /// [`Limits::payload_bytes`]
    Payload,
    /// [`Limits::json_depth`]
    JsonDepth,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Memory,
        Self::Stack,
        Self::Cpu,
        Self::WallClock,
        Self::Calls,
        Self::OpenCalls,
        Self::RunCalls,
        Self::RunFrames,
        Self::Depth,
        Self::Payload,
        Self::JsonDepth,
    ];

    /// The name in `Failure::code` and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::Cpu => "cpu",
            Self::WallClock => "wall_clock",
            Self::Calls => "calls",
            Self::OpenCalls => "open_calls",
            Self::RunCalls => "run_calls",
            Self::RunFrames => "run_frames",
            Self::Depth => "depth",
            Self::Payload => "payload",
            Self::JsonDepth => "json_depth",
        }
    }

    /// The failure of a frame that passed this limit: names limit, value and setting.
    pub fn failure(self, limits: &Limits) -> Failure {
        let (value, setting) = match self {
            Self::Memory => (
                format!("{} bytes of heap", limits.memory_bytes),
                "memory_bytes",
            ),
            Self::Stack => (
                format!("{} bytes of stack", limits.stack_bytes),
                "stack_bytes",
            ),
            Self::Cpu => (
                format!("{} interrupt ticks in one turn", limits.turn_ticks),
                "turn_ticks",
            ),
            Self::WallClock => (
                format!("{} ms in one turn", limits.turn_wall_ms),
                "turn_wall_ms",
            ),
            Self::Calls => (format!("{} calls in one frame", limits.calls), "calls"),
            Self::OpenCalls => (
                format!("{} open calls at one time", limits.open_calls),
                "open_calls",
            ),
            Self::RunCalls => (
                format!("{} calls in all frames of one run", limits.run_calls),
                "run_calls",
            ),
            Self::RunFrames => (
                format!("{} nested tasks in one run", limits.run_frames),
                "run_frames",
            ),
            Self::Depth => (format!("{} nested tasks", limits.depth), "depth"),
            Self::Payload => (
                format!("{} bytes in one payload", limits.payload_bytes),
                "payload_bytes",
            ),
            Self::JsonDepth => (
                format!("{} levels in one payload", limits.json_depth),
                "json_depth",
            ),
        };
        Failure {
            code: Some(self.as_str().to_owned()),
            ..Failure::new(
                "LimitExceeded",
                format!("the task passed the limit of {value}; it is set by Limits::{setting}"),
            )
        }
    }
}

/// Whether a signal may have this name: every database and every path can carry it.
pub(crate) fn is_signal_name(name: &str) -> bool {
    (1..=200).contains(&name.chars().count()) && !name.contains(char::is_control)
}

/// Whether a payload keeps within the limits of size and depth.
#[cfg(feature = "quickjs")]
pub(crate) fn check_payload(json: &Json, limits: &Limits) -> Result<(), Limit> {
    if json.text().len() > limits.payload_bytes {
        return Err(Limit::Payload);
    }
    let (mut depth, mut deepest) = (0_u32, 0_u32);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.text().bytes() {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth -= 1,
            _ => {}
        }
    }
    if deepest > limits.json_depth {
        Err(Limit::JsonDepth)
    } else {
        Ok(())
    }
}

#[cfg(all(test, feature = "quickjs"))]
mod tests {
    use super::*;

    #[test]
    fn the_failure_of_a_limit_names_it_with_its_value_and_its_setting() {
        // Every limit has a value of its own, so that the right one is seen.
        let limits = Limits {
            memory_bytes: 1_001,
            stack_bytes: 1_002,
            turn_ticks: 1_003,
            turn_wall_ms: 1_004,
            calls: 1_005,
            open_calls: 1_006,
            run_calls: 1_007,
            run_frames: 1_008,
            depth: 1_009,
            payload_bytes: 1_010,
            json_depth: 1_011,
            ..Limits::default()
        };
        let settings = serde_json::to_value(&limits).unwrap();
        for (n, limit) in Limit::ALL.into_iter().enumerate() {
            let failure = limit.failure(&limits);
            assert_eq!(failure.name, "LimitExceeded");
            assert_eq!(failure.code.as_deref(), Some(limit.as_str()));
            let (_, setting) = failure.message.split_once("Limits::").unwrap();
            let value = 1_001 + n;
            assert_eq!(settings[setting], value, "{}", failure.message);
            assert!(
                failure.message.contains(&value.to_string()),
                "{}",
                failure.message
            );
        }
    }

    #[test]
    fn a_payload_is_as_deep_as_its_brackets_outside_of_texts() {
        let limits = Limits {
            json_depth: 2,
            payload_bytes: 30,
            ..Limits::default()
        };
        let check = |text: &str| check_payload(&Json::parse(text).unwrap(), &limits);
        assert_eq!(check("[[1]]"), Ok(()));
        assert_eq!(check("[[[1]]]"), Err(Limit::JsonDepth));
        assert_eq!(check(r#"["[[[[\"[[[",{}]"#), Ok(()));
        assert_eq!(
            check(r#""01234567890123456789012345678""#),
            Err(Limit::Payload)
        );
    }
}
