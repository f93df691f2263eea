//! Signal handlers: raised in the middle of a path, on the normal stack and on one of their own, or
//! by a timer at any instruction.

use super::Next;
use crate::comparison::{Comparer, check};
use crate::kind::Kind;
use libc::c_int;
use std::cell::Cell;
use std::ptr;

/// Bytes of an alternate stack: the rest of a path must fit.
const STACK_SIZE: usize = 1 << 20;
/// Time between two interruptions, in microseconds.
const INTERVAL_US: libc::suseconds_t = 250;

thread_local! {
    /// What the next handler is to call: points to a `Next`.
    static PENDING: Cell<*mut libc::c_void> = const { Cell::new(ptr::null_mut()) };
    static IS_ON_ALTERNATE_STACK: Cell<bool> = const { Cell::new(false) };
    /// The comparer of the handler of interruptions.
    static INTERRUPTED: Cell<*mut Comparer> = const { Cell::new(ptr::null_mut()) };
    static N_INTERRUPTIONS: Cell<u64> = const { Cell::new(0) };
}

/// Sets the handlers of the process.
pub(crate) fn install_handlers() {
    // The rest of a path may raise the same signal.
    install(libc::SIGUSR1, on_raised, libc::SA_NODEFER);
    install(libc::SIGUSR2, on_raised, libc::SA_NODEFER | libc::SA_ONSTACK);
    install(libc::SIGALRM, on_interrupted, libc::SA_RESTART);
}

fn install(signal: c_int, handler: extern "C" fn(c_int), flags: c_int) {
    // SAFETY: all-zero bytes are a valid value of this type.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = flags;
    // SAFETY: the handler has the signature of a handler without SA_SIGINFO.
    assert_eq!(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) }, 0);
}

extern "C" fn on_raised(_: c_int) {
    let pending = PENDING.replace(ptr::null_mut()).cast::<Next<'_>>();
    // SAFETY: `raise_signal` set it to a live exclusive reference, and raised the signal.
    let next = unsafe { pending.as_mut() }.expect("someone raised the signal");
    next();
}

extern "C" fn on_interrupted(_: c_int) {
    let comparer = INTERRUPTED.get();
    if !comparer.is_null() {
        Comparer::with(comparer, || check(Kind::Interrupted));
        N_INTERRUPTIONS.set(N_INTERRUPTIONS.get() + 1);
    }
}

#[inline(never)]
pub(crate) fn raise(next: Next<'_>) {
    raise_signal(libc::SIGUSR1, next);
}

#[inline(never)]
pub(crate) fn raise_on_alternate_stack(next: Next<'_>) {
    // A path that is there may have gone on to a coroutine's stack, where the kernel would not see
    // that the alternate one is in use.
    if IS_ON_ALTERNATE_STACK.replace(true) {
        return raise_signal(libc::SIGUSR1, next);
    }
    raise_signal(libc::SIGUSR2, next);
    IS_ON_ALTERNATE_STACK.set(false);
}

fn raise_signal(signal: c_int, mut next: Next<'_>) {
    PENDING.set((&raw mut next).cast());
    // SAFETY: there is a handler.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

/// The alternate stack of the current thread, in place until it is dropped.
pub(crate) struct AlternateStack {
    _memory: Vec<u8>,
}

impl AlternateStack {
    pub(crate) fn new() -> Self {
        let mut memory = vec![0; STACK_SIZE];
        set_alternate_stack(memory.as_mut_ptr().cast(), 0);
        Self { _memory: memory }
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        set_alternate_stack(ptr::null_mut(), libc::SS_DISABLE);
    }
}

fn set_alternate_stack(start: *mut libc::c_void, flags: c_int) {
    let stack = libc::stack_t { ss_sp: start, ss_flags: flags, ss_size: STACK_SIZE };
    // SAFETY: the memory is that of an `AlternateStack`, which takes it out of use when it ends.
    assert_eq!(unsafe { libc::sigaltstack(&stack, ptr::null_mut()) }, 0);
}

/// Interrupts the current thread again and again until it is dropped.
pub(crate) struct Timer {
    _private: (),
}

impl Timer {
    /// Starts it; the handler compares by `comparer`, which must outlive the timer.
    pub(crate) fn start(comparer: &mut Comparer) -> Self {
        INTERRUPTED.set(comparer);
        set_interval(INTERVAL_US);
        Self { _private: () }
    }

    /// Interruptions of the current thread so far.
    pub(crate) fn n_interruptions(&self) -> u64 {
        N_INTERRUPTIONS.get()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        set_interval(0);
        INTERRUPTED.set(ptr::null_mut());
    }
}

fn set_interval(tv_usec: libc::suseconds_t) {
    let interval = libc::timeval { tv_sec: 0, tv_usec };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the timer is a valid value; SIGALRM has a handler.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) }, 0);
}
