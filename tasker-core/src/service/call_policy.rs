//! What a task asks for with one call: the nearest layer of its policy.
//!
//! Its text comes from a task, crosses the wall, lies in a row for months: each time it is read by [`CallPolicy::parse`], which believes
//! nothing.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};
use tasker_adaptor::Json;

use super::{ResolvedPolicy, RetryPolicy, ServiceErrorType, UnknownOutcome};

/// Longest text, in bytes.
pub(crate) const MAX_BYTES: usize = 1_024;

const ATTEMPTS: RangeInclusive<u64> = 1..=100;
const FACTOR: RangeInclusive<f64> = 1.0..=10.0;
/// 30 days.
const MILLIS: RangeInclusive<u64> = 1..=2_592_000_000;

/// What is `None` comes from below: engine configuration, description, defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CallPolicy {
    timeout_ms: Option<u64>,
    attempts: Option<u32>,
    initial_ms: Option<u64>,
    factor: Option<f64>,
    max_ms: Option<u64>,
    types: Option<Vec<ServiceErrorType>>,
    unknown_outcome: Option<UnknownOutcome>,
}

impl CallPolicy {
    /// Reads what a task gave.
    ///
    /// # Errors
    /// The member that is wrong, and what is allowed there.
    pub(crate) fn parse(text: &Json) -> Result<Self, String> {
        if text.text().len() > MAX_BYTES {
            return Err(format!("it has at most {MAX_BYTES} bytes as JSON"));
        }
        let mut policy = Self::default();
        let members = object(
            text.to().map_err(|error| error.to_string())?,
            "it",
            "timeoutMs, retry and unknownOutcome",
        )?;
        for (name, value) in members {
            match name.as_str() {
                "timeoutMs" => policy.timeout_ms = Some(whole("timeoutMs", &value, MILLIS)?),
                "retry" => policy.read_retry(value)?,
                "unknownOutcome" => policy.unknown_outcome = Some(unknown_outcome(&value)?),
                _ => {
                    return Err(format!(
                        "{name} is no member of it; there are timeoutMs, retry and unknownOutcome"
                    ));
                }
            }
        }
        Ok(policy)
    }

    fn read_retry(&mut self, value: Value) -> Result<(), String> {
        const MEMBERS: &str = "attempts, initialMs, factor, maxMs and types";
        for (name, value) in object(value, "retry", MEMBERS)? {
            match name.as_str() {
                "attempts" => {
                    self.attempts = Some(whole("retry.attempts", &value, ATTEMPTS)? as u32);
                }
                "initialMs" => self.initial_ms = Some(whole("retry.initialMs", &value, MILLIS)?),
                "maxMs" => self.max_ms = Some(whole("retry.maxMs", &value, MILLIS)?),
                "factor" => {
                    let factor = value.as_f64().filter(|factor| FACTOR.contains(factor));
                    self.factor = Some(factor.ok_or_else(|| {
                        let (least, most) = (FACTOR.start(), FACTOR.end());
                        format!("retry.factor must be a number from {least} to {most}")
                    })?);
                }
                "types" => self.types = Some(types(value)?),
                _ => {
                    return Err(format!(
                        "{name} is no member of its retry; there are {MEMBERS}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// This policy where it says something, `below` where it does not. `Block` below stays: whether an outcome that nobody knows may be
    /// guessed is for the host to say.
    pub(crate) fn over(self, below: ResolvedPolicy) -> ResolvedPolicy {
        let unknown_outcome = match below.unknown_outcome {
            UnknownOutcome::Block => UnknownOutcome::Block,
            other => self.unknown_outcome.unwrap_or(other),
        };
        // Nobody chose waits for a method that is asked once; without any, attempts would follow each other at once.
        let retry = if below.retry == RetryPolicy::none() {
            RetryPolicy::attempts(1)
        } else {
            below.retry
        };
        ResolvedPolicy {
            retry: RetryPolicy {
                attempts: self.attempts.unwrap_or(retry.attempts),
                initial_ms: self.initial_ms.unwrap_or(retry.initial_ms),
                factor: self.factor.unwrap_or(retry.factor),
                max_ms: self.max_ms.unwrap_or(retry.max_ms),
                types: self.types.or(retry.types),
            },
            timeout_ms: self.timeout_ms.or(below.timeout_ms),
            unknown_outcome,
            concurrency: below.concurrency,
        }
    }
}

fn object(value: Value, what: &str, members: &str) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(format!("{what} must be an object with {members}")),
    }
}

fn whole(name: &str, value: &Value, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number = value.as_u64().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        format!("{name} must be a whole number from {least} to {most}")
    })
}

fn unknown_outcome(value: &Value) -> Result<UnknownOutcome, String> {
    match value.as_str() {
        Some("retry") => Ok(UnknownOutcome::Retry),
        Some("reconcile") => Ok(UnknownOutcome::Reconcile),
        Some("block") => Ok(UnknownOutcome::Block),
        _ => Err("unknownOutcome must be 'retry', 'reconcile' or 'block'".to_owned()),
    }
}

fn types(value: Value) -> Result<Vec<ServiceErrorType>, String> {
    let Value::Array(words) = value else {
        return Err(wrong_types());
    };
    let word = |word: &Value| word.as_str().and_then(ServiceErrorType::from_word);
    let types: Option<Vec<_>> = words.iter().map(word).collect();
    types.ok_or_else(wrong_types)
}

fn wrong_types() -> String {
    let words: Vec<&str> = ServiceErrorType::ALL
        .iter()
        .map(|kind| kind.as_str())
        .collect();
    format!(
        "retry.types must be an array of error types: {}",
        words.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::MethodPolicy;

    fn parse(text: &str) -> Result<CallPolicy, String> {
        CallPolicy::parse(&Json::parse(text).unwrap())
    }

    fn over(text: &str, below: ResolvedPolicy) -> ResolvedPolicy {
        parse(text).unwrap().over(below)
    }

    #[test]
    fn what_is_left_out_comes_from_below_member_by_member() {
        let below = ResolvedPolicy {
            retry: RetryPolicy {
                types: Some(vec![ServiceErrorType::Conflict]),
                max_ms: 7_000,
                ..RetryPolicy::attempts(4)
            },
            timeout_ms: Some(5),
            unknown_outcome: UnknownOutcome::Reconcile,
            concurrency: Some(2),
        };
        assert_eq!(over("{}", below.clone()), below);
        assert_eq!(over(r#"{"retry":{}}"#, below.clone()), below);
        let all = over(
            r#"{"timeoutMs":1,"retry":{"attempts":100,"initialMs":2592000000,"factor":1.5,"maxMs":3,"types":["TIMEOUT_ERROR"]},"unknownOutcome":"block"}"#,
            below.clone(),
        );
        let expected = ResolvedPolicy {
            retry: RetryPolicy {
                attempts: 100,
                initial_ms: 2_592_000_000,
                factor: 1.5,
                max_ms: 3,
                types: Some(vec![ServiceErrorType::Timeout]),
            },
            timeout_ms: Some(1),
            unknown_outcome: UnknownOutcome::Block,
            concurrency: Some(2),
        };
        assert_eq!(all, expected);
        let one = over(r#"{"retry":{"attempts":9}}"#, below.clone());
        let retry = RetryPolicy {
            attempts: 9,
            ..below.retry
        };
        assert_eq!(one.retry, retry);
    }

    #[test]
    fn attempts_for_a_method_that_is_asked_once_have_waits_between_them() {
        let policy = over(r#"{"retry":{"attempts":3}}"#, MethodPolicy::defaults());
        assert_eq!(policy.retry, RetryPolicy::attempts(3));
    }

    #[test]
    fn a_block_below_stays() {
        let blocked = ResolvedPolicy {
            unknown_outcome: UnknownOutcome::Block,
            ..MethodPolicy::defaults()
        };
        for word in ["retry", "reconcile", "block"] {
            let policy = over(
                &format!(r#"{{"unknownOutcome":"{word}"}}"#),
                blocked.clone(),
            );
            assert_eq!(policy.unknown_outcome, UnknownOutcome::Block);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        for (text, told) in [
            ("[]", "timeoutMs, retry and unknownOutcome"),
            (r#"{"timeout":1}"#, "timeout is no member"),
            (r#"{"concurrency":1}"#, "concurrency is no member"),
            (
                r#"{"timeoutMs":0}"#,
                "timeoutMs must be a whole number from 1 to 2592000000",
            ),
            (r#"{"timeoutMs":2592000001}"#, "timeoutMs must be"),
            (r#"{"timeoutMs":1.5}"#, "timeoutMs must be"),
            (r#"{"timeoutMs":"1"}"#, "timeoutMs must be"),
            (r#"{"timeoutMs":null}"#, "timeoutMs must be"),
            (r#"{"retry":3}"#, "retry must be an object with attempts"),
            (r#"{"retry":{"tries":3}}"#, "tries is no member"),
            (
                r#"{"retry":{"attempts":101}}"#,
                "retry.attempts must be a whole number from 1 to 100",
            ),
            (r#"{"retry":{"attempts":0}}"#, "retry.attempts must be"),
            (
                r#"{"retry":{"factor":0.9}}"#,
                "retry.factor must be a number from 1 to 10",
            ),
            (r#"{"retry":{"initialMs":-1}}"#, "retry.initialMs must be"),
            (r#"{"retry":{"maxMs":0}}"#, "retry.maxMs must be"),
            (r#"{"retry":{"types":["X"]}}"#, "TIMEOUT_ERROR"),
            (r#"{"retry":{"types":"X"}}"#, "retry.types must be"),
            (
                r#"{"unknownOutcome":"Retry"}"#,
                "unknownOutcome must be 'retry', 'reconcile' or 'block'",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        let long = format!(r#"{{"timeoutMs":1{}}}"#, " ".repeat(MAX_BYTES));
        assert!(parse(&long).unwrap_err().contains("1024 bytes"));
    }
}
