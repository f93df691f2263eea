//! The time that this process has spent on CPUs.
#![expect(unsafe_code, reason = "calls the C library")]

/// Returns it in nanoseconds.
pub(crate) fn cpu_ns() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) } != 0;
    assert!(!failed, "the system does not tell the CPU time of a process");
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
