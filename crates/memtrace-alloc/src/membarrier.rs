//! A fence that all threads of the process pass, called by one of them: the system's `membarrier`.
//!
//! Against it a compiler fence in the other threads is as good as a full one (Linux manual, membarrier(2)), so
//! they pay nothing. The only user is [`thread_slot`](crate::thread_slot).

#[cfg(target_os = "linux")]
mod system {
    #![expect(unsafe_code, reason = "a system call")]

    use crate::errno;

    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;

    fn membarrier(command: libc::c_int) -> bool {
        // SAFETY: takes numbers and touches no memory.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    pub(crate) fn prepare() {
        membarrier(REGISTER_PRIVATE_EXPEDITED);
    }

    pub(crate) fn fence_all_threads() -> bool {
        errno::kept(|| membarrier(PRIVATE_EXPEDITED))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(crate) fn prepare() {}

    pub(crate) fn fence_all_threads() -> bool {
        false
    }
}

/// Asks the system for it, once.
pub(crate) fn prepare() {
    system::prepare();
}

/// Makes every running thread of the process pass a full fence; `false` if the system does not.
pub(crate) fn fence_all_threads() -> bool {
    system::fence_all_threads()
}
