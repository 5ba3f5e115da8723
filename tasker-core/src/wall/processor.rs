//! Time that a thread or a process has had on a processor since it began, in milliseconds; `None` where the system does not tell.

pub(crate) use imp::*;

#[cfg(target_os = "linux")]
mod imp {
    use rustix::time::{ClockId, clock_gettime};

    /// The thread that asks: a system call.
    pub(crate) fn own_thread() -> Option<u64> {
        millis(ClockId::ThreadCPUTime)
    }

    /// The process that asks, all its threads.
    #[cfg(feature = "process-wall")]
    pub(crate) fn own_process() -> Option<u64> {
        millis(ClockId::ProcessCPUTime)
    }

    fn millis(clock: ClockId) -> Option<u64> {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).ok()?;
        let nanos = u64::try_from(time.tv_nsec).ok()?;
        Some(seconds * 1_000 + nanos / 1_000_000)
    }

    /// A thread of this process; in steps of ten milliseconds on most systems.
    pub(crate) fn of_thread(id: rustix::process::Pid) -> Option<u64> {
        ticks(&format!("/proc/self/task/{}/stat", id.as_raw_nonzero()))
    }

    /// A child process, all its threads; in steps of ten milliseconds on most systems.
    #[cfg(feature = "process-wall")]
    pub(crate) fn of_process(id: u32) -> Option<u64> {
        ticks(&format!("/proc/{id}/stat"))
    }

    /// User and system time are fields 14 and 15 of `stat`, in ticks (proc_pid_stat(5)). The second field, the name, may hold anything.
    fn ticks(path: &str) -> Option<u64> {
        let stat = std::fs::read_to_string(path).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut times = rest.split(' ').skip(11);
        let user: u64 = times.next()?.parse().ok()?;
        let system: u64 = times.next()?.parse().ok()?;
        Some((user + system) * 1_000 / rustix::param::clock_ticks_per_second())
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    pub(crate) fn own_thread() -> Option<u64> {
        None
    }

    #[cfg(feature = "process-wall")]
    pub(crate) fn own_process() -> Option<u64> {
        None
    }

    #[cfg(feature = "process-wall")]
    pub(crate) fn of_process(_id: u32) -> Option<u64> {
        None
    }
}

#[cfg(all(test, target_os = "linux", feature = "process-wall"))]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_alike_by_all_who_tell() {
        let thread = rustix::thread::gettid();
        let before = own_thread().unwrap();
        let mut sum = 0_u64;
        while own_thread().unwrap() < before + 60 {
            sum = std::hint::black_box(sum + 1);
        }
        // In steps of ten milliseconds, rounded down.
        assert!(of_thread(thread).unwrap() + 20 >= before + 60);
        assert!(own_process().unwrap() >= before + 60);
        assert!(of_process(std::process::id()).unwrap() + 20 >= before + 60);
        assert_eq!(of_process(u32::MAX), None);
    }
}
