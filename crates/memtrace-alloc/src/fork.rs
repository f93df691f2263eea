//! Around a fork: all locks are taken before, in rank order, and released after, in both processes,
//! so that the child finds every table whole. Tracing goes on in the child.
//!
//! The threads that the child does not have may have been between the live table and the totals: the
//! child counts its totals anew. A block that one of them was resizing has no record in the child.
//!
//! The C library runs handlers before a fork in the reverse order of their registration. These here
//! are registered at the first allocation, so that they run after nearly all others: a handler that
//! ran after them, and waited for a thread that allocates, would wait for ever.

use crate::control;
use crate::recorder::RECORDER;
use crate::sampler;
use crate::state;
use crate::thread;
use crate::thread_slot::SLOTS;
use core::cell::Cell;

crate::platform::thread_local! {
    /// Whether this thread holds the locks for a fork that it is about to make.
    static HOLDS_LOCKS: Cell<bool> = const { Cell::new(false) };
}

/// Registers the handlers below with the C library.
///
/// Called once, at the first allocation of the process. A system without room for handlers leaves a
/// child whose parent forked while another thread met a new stack unable to record new stacks.
pub(crate) fn register() {
    #[expect(unsafe_code, reason = "the C library calls back around each fork")]
    // SAFETY: the handlers are functions of this program that may run in any thread.
    unsafe {
        libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child))
    };
}

extern "C" fn before() {
    RECORDER.generations.before_fork();
    // A signal handler that forks may have interrupted the holder of a lock, this very thread: then
    // waiting for it would never end.
    if thread::holds_lock() {
        return;
    }
    // Handlers of others, between ours and the fork, may allocate: the recorder must not wait then for
    // locks that this very thread holds.
    thread::begin_untraced();
    control::CONTROL.acquire();
    RECORDER.peak.acquire();
    RECORDER.sites.before_fork();
    RECORDER.tracked.acquire();
    RECORDER.live.before_fork();
    state::sampled_pages().before_fork();
    SLOTS.before_fork();
    let _ = HOLDS_LOCKS.try_with(|holds| holds.set(true));
}

extern "C" fn after_in_child() {
    if HOLDS_LOCKS.try_with(Cell::get).unwrap_or(false) {
        RECORDER.recount();
    }
    RECORDER.generations.after_fork_in_child();
    RECORDER.renew_thread();
    sampler::after_fork_in_child();
    after_in_parent();
}

extern "C" fn after_in_parent() {
    if HOLDS_LOCKS.try_with(|holds| holds.replace(false)).unwrap_or(false) {
        SLOTS.after_fork();
        state::sampled_pages().after_fork();
        RECORDER.live.after_fork();
        RECORDER.tracked.release();
        RECORDER.sites.after_fork();
        RECORDER.peak.release();
        control::CONTROL.release();
        thread::end_untraced();
    }
}
