//! What happens around a call: retry, timeout, unknown outcome, concurrency.

use serde::{Deserialize, Serialize};
use tasker_adaptor::Failure;

use super::{ServiceError, ServiceErrorType};

/// Policy of a method. What is `None` comes from the layer below:
/// [`MethodPolicy::defaults`] < description < engine configuration < what a task gives with the call (`context.withPolicy`).
///
/// A call's own policy sets timeout, retry and unknown outcome, member by member; [`UnknownOutcome::Block`] of the method stays whatever
/// the task asks for, and `concurrency` is for the host alone.
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

    /// Milliseconds from the end of failed attempt `attempt` (1 is the first) to the next one.
    ///
    /// The same attempt and seed give the same delay; a `retry_after_ms` of the service that is longer wins.
    pub fn delay_ms(&self, attempt: u32, seed: u64, retry_after_ms: Option<u64>) -> u64 {
        let factor = if self.factor.is_finite() {
            self.factor.max(0.0)
        } else {
            1.0
        };
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = (self.initial_ms as f64 * factor.powi(exponent)).min(self.max_ms as f64);
        // 53 random bits as a number in 0..1, then −0.1 ..= 0.1.
        let jitter = (mix(seed ^ mix(u64::from(attempt))) >> 11) as f64 / (1_u64 << 53) as f64;
        let delay = (grown * (0.9 + 0.2 * jitter)).round() as u64;
        delay.max(retry_after_ms.unwrap_or(0))
    }

    /// Whether an error of this type is one to try again.
    pub fn retries_type(&self, kind: ServiceErrorType) -> bool {
        match &self.types {
            Some(types) => types.contains(&kind),
            None => kind.is_transient(),
        }
    }

    /// Whether this failure is one to try again. Failures that are no service errors never are.
    pub fn retries(&self, failure: &Failure) -> bool {
        failure
            .kind
            .as_deref()
            .and_then(ServiceErrorType::from_word)
            .is_some_and(|kind| self.retries_type(kind))
    }

    /// Whether this error is one to try again.
    pub fn retries_error(&self, error: &ServiceError) -> bool {
        self.retries_type(error.kind)
    }
}

/// SplitMix64: every bit of the answer depends on every bit of `state`.
const fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_bound_and_stay_within_ten_percent() {
        let policy = RetryPolicy::attempts(10);
        for (attempt, middle) in [
            (1, 1_000),
            (2, 2_000),
            (3, 4_000),
            (5, 16_000),
            (6, 30_000),
            (9, 30_000),
            (u32::MAX, 30_000),
        ] {
            let mut different = std::collections::BTreeSet::new();
            for seed in 0..200 {
                let delay = policy.delay_ms(attempt, seed, None);
                assert!(
                    (middle * 9 / 10..=middle * 11 / 10).contains(&delay),
                    "attempt {attempt}: {delay}"
                );
                assert_eq!(delay, policy.delay_ms(attempt, seed, None));
                different.insert(delay);
            }
            assert!(different.len() > 50, "attempt {attempt} hardly varies");
        }
    }

    #[test]
    fn a_longer_retry_after_wins_and_a_shorter_one_does_not() {
        let policy = RetryPolicy::attempts(3);
        assert_eq!(policy.delay_ms(1, 7, Some(60_000)), 60_000);
        assert_eq!(policy.delay_ms(1, 7, Some(1)), policy.delay_ms(1, 7, None));
    }

    #[test]
    fn odd_policies_give_a_delay_all_the_same() {
        for factor in [f64::NAN, f64::INFINITY, -3.0, 0.0] {
            let policy = RetryPolicy {
                factor,
                ..RetryPolicy::attempts(5)
            };
            assert!(policy.delay_ms(4, 1, None) <= 33_000, "{factor}");
        }
        assert_eq!(RetryPolicy::none().delay_ms(1, 1, None), 0);
    }

    #[test]
    fn only_transient_errors_are_tried_again_unless_the_policy_names_types() {
        let default = RetryPolicy::attempts(2);
        let named = RetryPolicy {
            types: Some(vec![ServiceErrorType::Conflict]),
            ..RetryPolicy::attempts(2)
        };
        for kind in ServiceErrorType::ALL {
            let error = ServiceError::of(kind, "x");
            let failure = error.to_failure();
            assert_eq!(default.retries_error(&error), kind.is_transient());
            assert_eq!(default.retries(&failure), kind.is_transient());
            assert_eq!(named.retries(&failure), kind == ServiceErrorType::Conflict);
        }
        assert!(!default.retries(&Failure::new("TypeError", "x is not a function")));
    }

    #[test]
    fn the_nearer_layer_wins_member_by_member() {
        let description = MethodPolicy {
            timeout_ms: Some(5),
            concurrency: Some(2),
            ..MethodPolicy::default()
        };
        let engine = MethodPolicy {
            timeout_ms: Some(0),
            ..MethodPolicy::default()
        };
        let resolved = engine.over(&description).resolve();
        assert_eq!(resolved.timeout_ms, None);
        assert_eq!(resolved.concurrency, Some(2));
        assert_eq!(MethodPolicy::default().resolve(), MethodPolicy::defaults());
    }
}
