//! The C library's number of the last error, which giving a block back must not change.
//!
//! Programs release blocks between a call that failed and the look why; glibc's own `free` keeps it since 2.33.

/// Calls `f`, and leaves `errno` as it was.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the C library's variable, which is a thread's own")]
pub(crate) fn kept<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: asks for the address only.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the variable of this thread, which lives as long as it.
    let before = unsafe { errno.read() };
    let result = f();
    // SAFETY: as above.
    unsafe { errno.write(before) };
    result
}

/// Calls `f`. Nothing here is known to change `errno` for a release.
#[cfg(not(target_os = "linux"))]
pub(crate) fn kept<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    extern crate std;

    #[test]
    fn what_fails_meanwhile_is_not_seen_afterwards() {
        let close = |fd| {
            #[expect(unsafe_code, reason = "a call that fails")]
            // SAFETY: no file has this number.
            unsafe {
                libc::close(fd)
            }
        };
        assert_eq!(close(-1), -1);
        let before = std::io::Error::last_os_error().raw_os_error();
        assert_eq!(before, Some(libc::EBADF));
        #[expect(unsafe_code, reason = "a call that fails")]
        // SAFETY: a null path is an error, and nothing is read.
        let result = super::kept(|| unsafe { libc::access(core::ptr::null(), 0) });
        assert_eq!((result, std::io::Error::last_os_error().raw_os_error()), (-1, before));
    }
}
