//! Timers that interrupt a thread a thousand times a second, and the handlers, which work.

use crate::hook;
use crate::work::Work;
use libc::c_int;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of an alternate stack.
const STACK_SIZE: usize = 512 << 10;
/// Time between two interruptions of a thread, in nanoseconds.
const INTERVAL_NS: libc::c_long = 1_000_000;
/// Calls that a handler goes down at most.
const MAX_DEPTH: usize = 12;

/// Signals whose handlers ended.
pub(crate) static N_SIGNALS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The work of the handler of this thread, which nothing else uses.
    static WORK: Cell<*mut Work> = const { Cell::new(ptr::null_mut()) };
}

/// Where handlers run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stack {
    /// That of the thread.
    Own,
    /// One of their own.
    Alternate,
}

impl Stack {
    fn signal(self) -> c_int {
        match self {
            Self::Own => libc::SIGRTMIN(),
            Self::Alternate => libc::SIGRTMIN() + 1,
        }
    }
}

/// Sets the handlers of the process.
pub(crate) fn install_handlers() {
    for (stack, flags) in [(Stack::Own, 0), (Stack::Alternate, libc::SA_ONSTACK)] {
        // SAFETY: all-zero bytes are a valid value of this type.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = flags | libc::SA_RESTART;
        // SAFETY: the handler has the signature of a handler without SA_SIGINFO.
        assert_eq!(unsafe { libc::sigaction(stack.signal(), &action, ptr::null_mut()) }, 0);
    }
}

extern "C" fn on_signal(_: c_int) {
    // SAFETY: `Timer::start` was given work that is there as long as the thread is, and the signal is
    // blocked while its handler runs.
    let Some(work) = (unsafe { WORK.get().as_mut() }) else { return };
    // SAFETY: the thread's own place.
    let errno = unsafe { &mut *libc::__errno_location() };
    let before = *errno;
    hook::in_handler(|| work.step(MAX_DEPTH));
    *errno = before;
    N_SIGNALS.fetch_add(1, Relaxed);
}

/// An alternate stack for the current thread, for as long as the process lives.
pub(crate) fn set_alternate_stack() {
    let memory = Box::leak(vec![0_u8; STACK_SIZE].into_boxed_slice());
    let stack =
        libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    // SAFETY: the memory is never given back.
    assert_eq!(unsafe { libc::sigaltstack(&stack, ptr::null_mut()) }, 0);
}

/// Interrupts a thread again and again until it is dropped, by any thread.
pub(crate) struct Timer(libc::timer_t);

// SAFETY: the number of a timer of the process.
unsafe impl Send for Timer {}

impl Timer {
    /// Starts it for the current thread.
    ///
    /// # Safety
    ///
    /// `work` is there until the thread has ended, and nothing else uses it until then, or until
    /// [`Self::stop`] has returned on this thread.
    pub(crate) unsafe fn start(stack: Stack, work: *mut Work) -> Self {
        WORK.set(work);
        // SAFETY: all-zero bytes are a valid value of this type.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = stack.signal();
        // SAFETY: a system call without arguments.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = ptr::null_mut();
        // SAFETY: both are valid places.
        let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) };
        assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
        let interval = libc::timespec { tv_sec: 0, tv_nsec: INTERVAL_NS };
        let interval = libc::itimerspec { it_interval: interval, it_value: interval };
        // SAFETY: the timer that was made, and a valid interval.
        assert_eq!(unsafe { libc::timer_settime(timer, 0, &interval, ptr::null_mut()) }, 0);
        Self(timer)
    }

    /// Stops it, on the thread that it interrupts.
    pub(crate) fn stop(self) {
        drop(self);
        // A signal may still be under way.
        WORK.set(ptr::null_mut());
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer that was made, and is not used again.
        unsafe { libc::timer_delete(self.0) };
    }
}
