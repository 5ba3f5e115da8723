//! Why a child died, in words, and whether the frame that was under way is to blame.

use std::collections::HashMap;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tasker_adaptor::Failure;

use super::child::OUT_OF_MEMORY;
use super::home::READY_MS;
use super::wire::Garbled;
use super::worker::VmKey;
use crate::limits::{Limit, Limits};

/// How often a frame may be under way when its child dies for a reason outside of it (killed by somebody, out of processor time).
pub(super) const SUSPICIONS: u32 = 3;

/// Why a child is no more.
#[derive(Debug)]
pub(super) enum End {
    /// Its pipe was closed.
    Closed,
    /// What it said is not believed.
    Garbled(Garbled),
    /// It said itself what went wrong.
    Fault(String),
}

/// Why the watch has killed a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sentence {
    /// It did not become ready.
    NotReady,
    /// The turn of this VM did not end.
    Turn(VmKey),
}

/// Frames that were under way when their child died for a reason that may lie outside of it, and how often.
#[derive(Default)]
pub(super) struct Suspects {
    any: AtomicBool,
    frames: Mutex<HashMap<[u8; 32], u32>>,
}

impl Suspects {
    pub(super) fn accuse(&self, frame: [u8; 32]) -> u32 {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() >= 1_024 {
            frames.clear();
        }
        self.any.store(true, Ordering::Release);
        let times = frames.entry(frame).or_default();
        *times += 1;
        *times
    }

    pub(super) fn acquit(&self, frame: &[u8; 32]) {
        if self.any.load(Ordering::Acquire) {
            let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
            frames.remove(frame);
            self.any.store(!frames.is_empty(), Ordering::Release);
        }
    }
}

/// What happened, in words.
pub(super) fn describe(
    end: &End,
    sentence: Option<Sentence>,
    status: Option<ExitStatus>,
) -> String {
    match (end, sentence) {
        (_, Some(Sentence::Turn(_))) => "it did not end its turn in time and was killed".to_owned(),
        (_, Some(Sentence::NotReady)) => format!("it was not ready after {READY_MS} ms and was killed"),
        (End::Garbled(Garbled(what)), None) => format!("it said what cannot be: {what}"),
        (End::Fault(what), None) => what.clone(),
        (End::Closed, None) => match status {
            Some(status) if status.code() == Some(OUT_OF_MEMORY) => {
                "it had no more memory; it is set by Wall::memory_bytes, for all frames of a sandbox together".to_owned()
            }
            Some(status) => format!("it ended: {status}"),
            None => "it ended, nobody knows how".to_owned(),
        },
    }
}

/// Whether a process ended by its own doing, and not because somebody wanted it to or because all its frames together are too large.
pub(super) fn is_crash(status: Option<ExitStatus>) -> bool {
    if status.is_some_and(|status| status.code() == Some(OUT_OF_MEMORY)) {
        return false;
    }
    #[cfg(unix)]
    {
        use rustix::process::Signal;
        use std::os::unix::process::ExitStatusExt;

        let outside = [
            Signal::KILL,
            Signal::TERM,
            Signal::INT,
            Signal::HUP,
            Signal::QUIT,
            Signal::XCPU,
        ];
        status.is_some_and(|status| match status.signal() {
            Some(signal) => outside.iter().all(|other| other.as_raw() != signal),
            None => !status.success(),
        })
    }
    #[cfg(not(unix))]
    status.is_some_and(|status| !status.success())
}

/// The failure of the frame whose turn ended its child.
pub(super) fn failure(what: &str, hung: bool, limits: Option<&Limits>) -> Failure {
    if hung && let Some(limits) = limits {
        return Limit::WallClock.failure(limits);
    }
    Failure {
        code: Some("sandbox_died".to_owned()),
        ..Failure::new(
            "SandboxError",
            format!(
                "the sandbox process did not survive this turn: {what}; look for what the task does that is out of the ordinary, \
                 and report it if it is not the task's intent"
            ),
        )
    }
}
