//! Fork safety: every heap's lock is held across `fork`, so that the child finds whole heaps.
//!
//! # Mechanism
//! Heaps in use are in a list. Handlers installed once with `pthread_atfork`, when the first heap
//! is first used, take the list's lock and then every heap's before a fork, and release them after
//! it in the parent and in the child, whose only thread is the one that forked. Installing does not
//! allocate through any heap (a C library that runs out of room for handlers uses its own `malloc`).
//!
//! Threads that own pools take no lock, so a fork can find them amid an operation. In the child,
//! where they do not exist, the owners of those who were not are at everybody's disposal, and those
//! of the others are never touched again: what was free in their pools is lost to the child.
//!
//! Handlers of other libraries, older or younger, may allocate: see the `lock` module.
//!
//! `vfork`, `posix_spawn` and a bare `clone` run no handlers. The first two do not need them (the
//! parent's thread waits, and the child must not allocate); a child made by a bare `clone` of a
//! program with several threads must not allocate.
//!
//! # Invariants
//! - **F1** Each heap in the list exists, and takes itself out before it ends.
//! - **F2** Locks are taken in the order: list, then heaps in list order. A thread that holds a
//!   heap's lock never waits for the list's.
//!
//! # Cost
//! Nothing outside of `fork`; there one uncontended lock a heap.
#![expect(unsafe_code, reason = "installs the handlers with the C library")]

use core::sync::atomic::{AtomicBool, Ordering};

use crate::cells::Link;
use crate::control::Control;
use crate::lock::{self, SpinLock};
use crate::thread;

/// A heap's place in the list.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// The next heap, which only the holder of the list's lock looks at.
    next: Link<Control>,
}

#[derive(Debug)]
struct Registry {
    first: Link<Control>,
}

static REGISTRY: SpinLock<Registry> = SpinLock::new(Registry { first: Link::none() });
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

/// Puts a heap into the list and installs the handlers if that has not been done; `false` if this is
/// a signal handler that interrupts a change of the list.
///
/// The heap takes itself out with [`unregister`] before its records go (F1).
pub(crate) fn register(control: &Control) -> bool {
    install();
    let Some(registry) = REGISTRY.lock() else { return false };
    control.fork_node.next.set(registry.first.get());
    registry.first.set(Some(control));
    if registry.is_borrowed_from_fork() {
        // A fork handler made a heap: `release_all` will release its lock with the others.
        control.lock.raw.acquire();
    }
    true
}

/// Takes a heap out of the list.
pub(crate) fn unregister(control: &Control) {
    let Some(registry) = REGISTRY.lock() else { return };
    let mut link = &registry.first;
    while let Some(at) = link.get() {
        if core::ptr::eq(at, control) {
            return link.set(at.fork_node.next.get());
        }
        link = &at.fork_node.next;
    }
}

#[cfg(feature = "std")]
/// Calls `visit` with the heap of this id, if it exists, which does not end meanwhile.
pub(crate) fn with_registered(id: u64, visit: impl FnOnce(&Control)) {
    if let Some(registry) = REGISTRY.lock()
        && let Some(control) = registry.iter().find(|control| control.id.get() == id)
    {
        visit(control);
    }
}

#[cfg(feature = "std")]
/// Whether the heap of this id exists.
pub(crate) fn is_registered(id: u64) -> bool {
    let mut is_there = false;
    with_registered(id, |_| is_there = true);
    is_there
}

impl Registry {
    fn iter(&self) -> impl Iterator<Item = &Control> {
        core::iter::successors(self.first.get(), |control| control.fork_node.next.get())
    }
}

/// Whether forks are prepared for: `false` only if the system refused to install the handlers.
pub(crate) fn is_installed() -> bool {
    // Relaxed: a report, which publishes nothing.
    IS_INSTALLED.load(Ordering::Relaxed)
}

fn install() {
    // Relaxed: only decides which thread installs.
    if IS_INSTALLED.swap(true, Ordering::Relaxed) {
        return;
    }
    let (prepare, parent, child) = (before_fork, after_fork_in_parent, after_fork_in_child);
    // SAFETY: the handlers are functions of this library that take and release locks, and in the
    // child change who holds owners.
    let error = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    if error != 0 {
        // The next heap tries again.
        IS_INSTALLED.store(false, Ordering::Relaxed);
    }
}

extern "C" fn before_fork() {
    // A signal handler that forks amid a change of the list, or of a heap, gets a child that must not
    // allocate, as with any lock.
    let Some(registry) = REGISTRY.lock() else { return };
    for control in registry.iter() {
        control.lock.raw.acquire();
    }
    lock::begin_forking();
    // Held on until `release_all`.
    core::mem::forget(registry);
}

extern "C" fn after_fork_in_parent() {
    release_all(|_| {});
}

extern "C" fn after_fork_in_child() {
    release_all(|control| {
        control.owners.after_fork(thread::holds);
        for arenas in control.all_arenas() {
            arenas.recover();
        }
    });
}

fn release_all(before: impl Fn(&Control)) {
    if !lock::is_forking_thread() {
        return;
    }
    // Passes, because this thread holds the lock since `before_fork`.
    if let Some(registry) = REGISTRY.lock() {
        for control in registry.iter() {
            before(control);
            control.lock.raw.release();
        }
    }
    lock::end_forking();
    REGISTRY.raw.release();
}
