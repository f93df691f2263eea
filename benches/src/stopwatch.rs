//! How long something takes, less the time in which its thread had to wait for a CPU.

use std::fs;
use std::time::{Duration, Instant};

/// Times one thread.
///
/// What the kernel made the thread wait for a CPU that others used is left out, so that figures
/// from a machine with other work on it are of some use. Waiting for anything else counts.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    began: Instant,
    waited_before: Duration,
    start: Instant,
}

/// A time that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lap {
    /// Time passed, less `waited`. If there was any waiting, it has in it what looking for that
    /// took: some ten microseconds.
    pub elapsed: Duration,
    /// Time in which the thread could have run but had no CPU.
    pub waited: Duration,
}

impl Stopwatch {
    /// Starts to time this thread.
    pub fn start() -> Self {
        let began = Instant::now();
        let waited_before = waited();
        Self { began, waited_before, start: Instant::now() }
    }

    /// Returns the time since the start. To be called by the same thread.
    pub fn lap(self) -> Lap {
        let passed = self.start.elapsed();
        let waited = waited().saturating_sub(self.waited_before);
        // The thread may have waited between two readings; then it did between the outer two.
        let passed = if waited.is_zero() { passed } else { self.began.elapsed() };
        Lap { elapsed: passed.saturating_sub(waited), waited }
    }
}

/// Returns for how long this thread has had to wait for a CPU since it began; 0 if the kernel does
/// not tell.
pub fn waited() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(waited_ns(&text).unwrap_or(0))
}

/// The second of three numbers: time on a CPU and time waiting for one, in nanoseconds; time
/// slices.
fn waited_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn the_time_of_waiting_is_the_second_number() {
        assert_eq!(waited_ns("1234 567 8\n"), Some(567));
        assert_eq!(waited_ns(""), None);
    }

    #[test]
    fn sleeping_counts_and_with_the_waiting_it_is_the_time_that_passed() {
        let start = Instant::now();
        let stopwatch = Stopwatch::start();
        thread::sleep(Duration::from_millis(20));
        let lap = stopwatch.lap();
        let passed = start.elapsed();
        assert!(lap.elapsed + lap.waited >= Duration::from_millis(20), "{lap:?}");
        assert!(lap.elapsed + lap.waited <= passed, "{lap:?} {passed:?}");
    }
}
