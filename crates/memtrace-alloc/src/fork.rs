//! Around a fork: all locks are taken before, in rank order, and released after, in both processes,
//! so that the child finds every table whole. Tracing goes on in the child.

use crate::control;
use crate::recorder::RECORDER;
use crate::thread;
use core::cell::Cell;

crate::platform::thread_local! {
    /// Whether this thread holds the locks for a fork that it is about to make.
    static HOLDS_LOCKS: Cell<bool> = const { Cell::new(false) };
}

/// Registers the handlers below with the C library.
///
/// Called once. A system without room for handlers leaves a child whose parent forked while another
/// thread met a new stack unable to record new stacks.
pub(crate) fn register() {
    #[expect(unsafe_code, reason = "the C library calls back around each fork")]
    // SAFETY: the handlers are functions of this program that may run in any thread.
    unsafe {
        libc::pthread_atfork(Some(before), Some(after), Some(after))
    };
}

extern "C" fn before() {
    // A signal handler that forks inside the hook may have interrupted the holder of a lock: then
    // waiting for it would never end.
    if thread::is_guarded() {
        return;
    }
    // Handlers of others, between ours and the fork, may allocate: the recorder must not wait then for
    // locks that this very thread holds.
    thread::begin_untraced();
    control::CONTROL.acquire();
    RECORDER.sites.before_fork();
    RECORDER.tracked.acquire();
    let _ = HOLDS_LOCKS.try_with(|holds| holds.set(true));
}

extern "C" fn after() {
    if HOLDS_LOCKS.try_with(|holds| holds.replace(false)).unwrap_or(false) {
        RECORDER.tracked.release();
        RECORDER.sites.after_fork();
        control::CONTROL.release();
        thread::end_untraced();
    }
}
