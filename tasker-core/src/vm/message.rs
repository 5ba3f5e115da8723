//! What the engine and its VMs say to each other: plain data, so that the same words can cross a process border.
//!
//! `VmStart` → first [`Turn`]; then `VmDeliver` → [`Turn`], as often as it takes. Nothing else goes in or out.

use std::collections::BTreeMap;
use std::sync::Arc;

use tasker_adaptor::{CallSeq, Failure, Json, LogLine, Outcome, Timestamp};

use crate::limits::Limits;
use crate::service::ServiceStyle;
use crate::task::Program;

/// A frame to run from its beginning.
#[derive(Clone, Debug)]
pub struct VmStart {
    /// What to run.
    pub program: Arc<Program>,
    /// Input.
    pub input: Json,
    /// Seed of `Math.random`, `crypto.randomUUID` and `crypto.getRandomValues`.
    pub seed: [u8; 32],
    /// Now, for the first turn.
    pub time: Timestamp,
    /// Services by the names that tasks may use.
    pub tools: Arc<ToolNames>,
    /// What `context.run` shows.
    pub run: RunInfo,
    /// Limits.
    pub limits: Arc<Limits>,
}

/// What `context.run` shows to the task: `{ id, task, version, depth, correlationId, labels }`.
#[derive(Clone, Debug, Default)]
pub struct RunInfo {
    /// Task run.
    pub id: String,
    /// Name of the frame's task.
    pub task: String,
    /// Version of the frame's task.
    pub version: String,
    /// 0 for the root.
    pub depth: u32,
    /// Given at submit.
    pub correlation_id: Option<String>,
    /// Given at submit.
    pub labels: BTreeMap<String, String>,
}

/// The names behind `tools`, and which of them are fluent. Other names are plain; whether they exist the engine says when they are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolNames {
    styles: BTreeMap<String, ServiceStyle>,
}

impl ToolNames {
    /// These services.
    pub fn new(services: impl IntoIterator<Item = (String, ServiceStyle)>) -> Self {
        Self {
            styles: services.into_iter().collect(),
        }
    }

    /// The name under which a service is recorded and asked: the name itself when it is registered,
    /// else without the prefix `wrapped`, and `supabase` for `database`.
    pub fn canonical<'a>(&self, name: &'a str) -> &'a str {
        if self.styles.contains_key(name) {
            return name;
        }
        match name.strip_prefix("wrapped").unwrap_or(name) {
            "" => name,
            "database" if !self.styles.contains_key("database") => "supabase",
            short => short,
        }
    }

    /// Style of a service, by any of its names.
    pub fn style(&self, name: &str) -> ServiceStyle {
        self.styles
            .get(self.canonical(name))
            .copied()
            .unwrap_or_default()
    }

    /// The registered names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.styles.keys().map(String::as_str)
    }
}

/// Settled children for a waiting frame, in delivery order. After each the job queue is run dry.
#[derive(Clone, Debug)]
pub struct VmDeliver {
    /// Now, for this turn.
    pub time: Timestamp,
    /// What settled.
    pub items: Vec<(CallSeq, Outcome)>,
}

/// What a turn did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Children made, in order. The first one of a frame has seq 1, and so on without gaps through all turns.
    pub made: Vec<Made>,
    /// Children given up: cleared timers, aborted calls.
    pub dropped: Vec<CallSeq>,
    /// Console and log lines, in order.
    pub logs: Vec<LogLine>,
    /// What the frame is now.
    pub end: TurnEnd,
}

/// A child that a turn made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A question to a service.
    Call {
        /// Canonical service name.
        service: String,
        /// Dotted names. In a chain with arguments on several links (or on one that is not the last), each called link carries `()`: `from().select().eq()`.
        path: String,
        /// Exact text. Plain: the array of positional arguments, `[{"customer":"x"}]`. Chain: an array with the argument array of each called link.
        args: Json,
        /// Exact text of what `withPolicy` was given; `None` without it.
        policy: Option<Json>,
    },
    /// `tools.tasks.execute(name, input)`.
    Task {
        /// Name of the task.
        name: String,
        /// Its input; `null` when none was given.
        input: Json,
    },
    /// `sleep`, `setTimeout`, one tick of `setInterval`.
    Timer {
        /// `sleep`, `setTimeout` or `setInterval`.
        path: &'static str,
        /// How long, in milliseconds from the turn's time; never negative.
        delay_ms: u64,
    },
    /// `context.signal(name)`.
    Signal {
        /// Name.
        name: String,
    },
}

/// What a frame is after a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    /// Waits for children.
    Waiting,
    /// Its promise is fulfilled; `None` is `undefined`.
    Completed(Option<Json>),
    /// Its promise is rejected, a limit was passed, or it waits for something that can never settle.
    Failed(Failure),
}
