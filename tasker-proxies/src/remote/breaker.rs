//! A circuit breaker: a service that failed several times in a row is left alone for a while. Pure: time is an argument.

use tasker_core::Timestamp;

/// When to leave a service alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Failures in a row (no answer, a timeout, a 5xx). Default 5. 0: never leave it alone.
    pub failures: u32,
    /// How long, in milliseconds. Default 30 000. Then one call tries; the others wait for what it finds.
    pub open_ms: u64,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            failures: 5,
            open_ms: 30_000,
        }
    }
}

/// What is known of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breaker {
    /// It is asked; so many failures in a row.
    Closed { failures: u32 },
    /// It is left alone until then.
    Open { until: Timestamp },
    /// One call tries; if it is never heard of again, another may try then.
    Trying { until: Timestamp },
}

impl Breaker {
    pub(super) const fn new() -> Self {
        Self::Closed { failures: 0 }
    }

    /// Whether a call may go out now; else for how many milliseconds not.
    pub(super) fn admit(&mut self, now: Timestamp, options: BreakerOptions) -> Result<(), u64> {
        match *self {
            Self::Closed { .. } => Ok(()),
            Self::Open { until } | Self::Trying { until } if now < until => {
                Err(u64::try_from(until.millis_since(now)).unwrap_or(0))
            }
            Self::Open { .. } | Self::Trying { .. } => {
                *self = Self::Trying {
                    until: now.plus_millis(options.open_ms as i64),
                };
                Ok(())
            }
        }
    }

    /// What an admitted call found.
    pub(super) fn settle(&mut self, worked: bool, now: Timestamp, options: BreakerOptions) {
        let failures = match *self {
            _ if worked => {
                *self = Self::new();
                return;
            }
            Self::Closed { failures } => failures + 1,
            Self::Open { .. } | Self::Trying { .. } => options.failures,
        };
        *self = if options.failures > 0 && failures >= options.failures {
            Self::Open {
                until: now.plus_millis(options.open_ms as i64),
            }
        } else {
            Self::Closed { failures }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: BreakerOptions = BreakerOptions {
        failures: 2,
        open_ms: 100,
    };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_try_later() {
        let mut breaker = Breaker::new();
        breaker.settle(false, at(0), OPTIONS);
        breaker.settle(true, at(0), OPTIONS);
        breaker.settle(false, at(0), OPTIONS);
        assert_eq!(breaker.admit(at(0), OPTIONS), Ok(()));
        breaker.settle(false, at(0), OPTIONS);
        assert_eq!(breaker.admit(at(30), OPTIONS), Err(70));
        assert_eq!(breaker.admit(at(100), OPTIONS), Ok(()));
        // Only one tries.
        assert_eq!(breaker.admit(at(110), OPTIONS), Err(90));
        breaker.settle(false, at(120), OPTIONS);
        assert_eq!(breaker.admit(at(130), OPTIONS), Err(90));
        assert_eq!(breaker.admit(at(220), OPTIONS), Ok(()));
        breaker.settle(true, at(230), OPTIONS);
        assert_eq!(breaker.admit(at(230), OPTIONS), Ok(()));
        assert_eq!(breaker, Breaker::Closed { failures: 0 });
    }

    #[test]
    fn a_try_that_is_never_heard_of_again_does_not_close_the_door_for_ever() {
        let mut breaker = Breaker::Open { until: at(0) };
        assert_eq!(breaker.admit(at(0), OPTIONS), Ok(()));
        assert_eq!(breaker.admit(at(99), OPTIONS), Err(1));
        assert_eq!(breaker.admit(at(100), OPTIONS), Ok(()));
    }

    #[test]
    fn zero_failures_means_never() {
        let never = BreakerOptions {
            failures: 0,
            ..OPTIONS
        };
        let mut breaker = Breaker::new();
        for _ in 0..100 {
            breaker.settle(false, at(0), never);
            assert_eq!(breaker.admit(at(0), never), Ok(()));
        }
    }
}
