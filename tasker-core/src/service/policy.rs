//! What happens around a call: retry, timeout, unknown outcome, concurrency.

use serde::{Deserialize, Serialize};

use super::ServiceErrorType;

/// Policy of a method. What is `None` comes from the layer below: description < engine configuration < [`MethodPolicy::defaults`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodPolicy {
    /// Retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Start to close of one attempt, in milliseconds. Default 120 000. 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What to do with a call whose worker died after asking. Default `Retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_outcome: Option<UnknownOutcome>,
    /// Calls at one time in one engine. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

/// When a failed attempt is made again, and how long after.
///
/// Delay before attempt n + 1: `min(initial_ms × factor^(n−1), max_ms)`, then up to ±10 % from the frame's recorded seed;
/// a longer `retry_after` of the service wins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all. 1: none is made again.
    pub attempts: u32,
    /// First delay, in milliseconds.
    pub initial_ms: u64,
    /// Growth.
    pub factor: f64,
    /// Longest delay, in milliseconds.
    pub max_ms: u64,
    /// Which error types are tried again; `None`: the transient ones (rate limit, external, timeout).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<ServiceErrorType>>,
}

impl Eq for RetryPolicy {}

impl RetryPolicy {
    /// One attempt.
    pub const fn none() -> Self {
        Self {
            attempts: 1,
            initial_ms: 0,
            factor: 1.0,
            max_ms: 0,
            types: None,
        }
    }

    /// This many attempts with 1 s, 2 s, 4 s … up to 30 s between them.
    pub const fn attempts(attempts: u32) -> Self {
        Self {
            attempts,
            initial_ms: 1_000,
            factor: 2.0,
            max_ms: 30_000,
            types: None,
        }
    }
}

/// What to do with a call that may or may not have happened: its worker died between asking and recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownOutcome {
    /// Ask again, with the same idempotency key.
    #[default]
    Retry,
    /// Ask the proxy what became of it ([`super::ServiceProxy::reconcile`]).
    Reconcile,
    /// Never ask again: the run is blocked for a person.
    Block,
}

/// A policy with nothing left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedPolicy {
    /// Retry.
    pub retry: RetryPolicy,
    /// Start to close, in milliseconds; `None`: none.
    pub timeout_ms: Option<u64>,
    /// Unknown outcome.
    pub unknown_outcome: UnknownOutcome,
    /// Calls at one time; `None`: no bound.
    pub concurrency: Option<u32>,
}

impl MethodPolicy {
    /// What holds where nobody says anything: one attempt, 120 s, ask again.
    pub const fn defaults() -> ResolvedPolicy {
        ResolvedPolicy {
            retry: RetryPolicy::none(),
            timeout_ms: Some(120_000),
            unknown_outcome: UnknownOutcome::Retry,
            concurrency: None,
        }
    }

    /// This policy where it says something, `below` where it does not.
    #[must_use]
    pub fn over(&self, below: &Self) -> Self {
        Self {
            retry: self.retry.clone().or_else(|| below.retry.clone()),
            timeout_ms: self.timeout_ms.or(below.timeout_ms),
            unknown_outcome: self.unknown_outcome.or(below.unknown_outcome),
            concurrency: self.concurrency.or(below.concurrency),
        }
    }

    /// With the defaults for what is left open.
    pub fn resolve(&self) -> ResolvedPolicy {
        let defaults = Self::defaults();
        ResolvedPolicy {
            retry: self.retry.clone().unwrap_or(defaults.retry),
            timeout_ms: self
                .timeout_ms
                .map_or(defaults.timeout_ms, |ms| (ms > 0).then_some(ms)),
            unknown_outcome: self.unknown_outcome.unwrap_or(defaults.unknown_outcome),
            concurrency: self.concurrency,
        }
    }
}
