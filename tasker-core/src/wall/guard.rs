//! How the guard of a turn counts: by the time that its thread has had on a processor, where the system tells it. A machine that
//! is busy with something else, or that was stopped for a while, then fails nobody's turn.
//!
//! Nothing in a turn can wait for anything (there is no `Atomics.wait` and no I/O), so a turn that does not end uses a processor.
//! A clock remains as the last line, for what should not be possible: a child process that was taken over and only sleeps.
//! Where the system tells nothing (not Linux) the clock is the guard.

/// The guard by the clock is so many times the one by processor time.
const LAST_LINE: u64 = 20;
/// How soon after one look the next one may come, in milliseconds: the kernel tells processor time in steps of ten.
const LOOK_MS: u64 = 5;

/// What a turn has had so far, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// By the clock.
    pub(crate) clock_ms: u64,
    /// On a processor; `None`: the system does not tell.
    pub(crate) processor_ms: Option<u64>,
}

impl Spent {
    /// What was had; asks for processor time only when the clock says that a guard of `guard_ms` may be over.
    pub(crate) fn when_due(
        clock_ms: u64,
        guard_ms: u64,
        processor_ms: impl FnOnce() -> Option<u64>,
    ) -> Option<Self> {
        (clock_ms >= guard_ms).then(|| Self {
            clock_ms,
            processor_ms: processor_ms(),
        })
    }

    pub(crate) fn is_over(self, guard_ms: u64) -> bool {
        match self.processor_ms {
            Some(had) => had >= guard_ms || self.clock_ms >= guard_ms.saturating_mul(LAST_LINE),
            None => self.clock_ms >= guard_ms,
        }
    }

    /// What counts of it.
    pub(crate) fn counted_ms(self) -> u64 {
        self.processor_ms.unwrap_or(self.clock_ms)
    }

    /// In how many milliseconds the guard may be over, by the clock: a thread has no more than one processor.
    pub(crate) fn rest_ms(self, guard_ms: u64) -> u64 {
        guard_ms.saturating_sub(self.counted_ms()).max(LOOK_MS)
    }
}

/// What was had since `before`, both as [`super::processor`] tells it.
pub(crate) fn since(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    Some(now?.saturating_sub(before?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_counts_processor_time_and_the_clock_is_the_last_line() {
        let spent = |clock_ms, processor_ms| Spent {
            clock_ms,
            processor_ms,
        };
        for (spent, is_over) in [
            (spent(200, Some(199)), false),
            (spent(200, Some(200)), true),
            (spent(3_999, Some(10)), false),
            (spent(4_000, Some(10)), true),
            (spent(199, None), false),
            (spent(200, None), true),
        ] {
            assert_eq!(spent.is_over(200), is_over, "{spent:?}");
        }
        assert_eq!(spent(500, Some(150)).rest_ms(200), 50);
        assert_eq!(spent(500, Some(200)).rest_ms(200), LOOK_MS);
        assert!(Spent::when_due(199, 200, || panic!("it is not due")).is_none());
    }

    #[test]
    fn what_is_not_known_at_both_times_is_not_known() {
        assert_eq!(since(Some(5), Some(12)), Some(7));
        assert_eq!(since(None, Some(12)), None);
        assert_eq!(since(Some(5), None), None);
    }
}
