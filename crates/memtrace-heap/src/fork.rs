//! Fork safety: every heap's lock is held across `fork`, so that the child finds whole heaps.
//!
//! # Mechanism
//! Heaps in use are in a list. Handlers installed once with `pthread_atfork`, when the first heap
//! is first used, take the list's lock and then every heap's before a fork, and release them after
//! it in the parent and in the child, whose only thread is the one that forked. Installing does not
//! allocate through any heap (a C library that runs out of room for handlers uses its own `malloc`).
//!
//! Handlers of other libraries, older or younger, may allocate: see the `lock` module.
//!
//! `vfork`, `posix_spawn` and a bare `clone` run no handlers. The first two do not need them (the
//! parent's thread waits, and the child must not allocate); a child made by a bare `clone` of a
//! program with several threads must not allocate.
//!
//! # Invariants
//! - **F1** Each node in the list is a live [`Node`] that does not move until it is unregistered.
//! - **F2** Locks are taken in the order: list, then heaps in list order. A thread that holds a
//!   heap's lock never waits for the list's.
//!
//! # Cost
//! Nothing outside of `fork`; there one uncontended lock a heap.
#![expect(unsafe_code, reason = "links heaps into a list that the fork handlers walk")]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::lock::{self, RawLock, SpinLock};

/// A lock's place in the list.
#[derive(Debug)]
pub(crate) struct Node {
    lock: NonNull<RawLock>,
    next: Option<NonNull<Node>>,
}

impl Node {
    /// A node for `lock`, in no list.
    pub(crate) const fn new(lock: NonNull<RawLock>) -> Node {
        Node { lock, next: None }
    }
}

#[derive(Debug)]
struct Registry {
    first: Option<NonNull<Node>>,
}

// SAFETY: the nodes are reached only under the registry's lock, and their locks are Sync.
unsafe impl Send for Registry {}

static REGISTRY: SpinLock<Registry> = SpinLock::new(Registry { first: None });
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

/// Puts `node` into the list and installs the handlers if that has not been done.
///
/// # Safety
/// `node` and its lock are live, do not move, and are touched by nobody else until
/// [`unregister`] (the lock: by nobody who does not lock it); `node` is in the list no more than
/// once. The lock is not taken.
pub(crate) unsafe fn register(node: NonNull<Node>) {
    install();
    let mut registry = REGISTRY.lock();
    // SAFETY: live and ours by the caller's promise.
    let fields = unsafe { &mut *node.as_ptr() };
    fields.next = registry.first;
    registry.first = Some(node);
    if registry.is_borrowed_from_fork() {
        // A fork handler made a heap: `release_all` will release its lock with the others.
        // SAFETY: F1.
        unsafe { fields.lock.as_ref() }.acquire();
    }
}

/// Takes `node` out of the list.
///
/// # Safety
/// `node` was registered and its lock is not held, except by the fork handlers.
pub(crate) unsafe fn unregister(node: NonNull<Node>) {
    let mut registry = REGISTRY.lock();
    let mut link = &mut registry.first;
    while let Some(at) = *link {
        // SAFETY: F1, and the registry's lock is held.
        let fields = unsafe { &mut *at.as_ptr() };
        if at == node {
            *link = fields.next;
            return;
        }
        link = &mut fields.next;
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
    // SAFETY: the handlers are functions of this library that only take and release locks.
    let error =
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) };
    if error != 0 {
        // The next heap tries again.
        IS_INSTALLED.store(false, Ordering::Relaxed);
    }
}

/// Calls `visit` with each lock, the registry's being held.
fn for_each_lock(registry: &Registry, visit: impl Fn(&RawLock)) {
    let mut at = registry.first;
    while let Some(node) = at {
        // SAFETY: F1, and the registry's lock is held.
        let fields = unsafe { node.as_ref() };
        // SAFETY: F1.
        visit(unsafe { fields.lock.as_ref() });
        at = fields.next;
    }
}

extern "C" fn before_fork() {
    let registry = REGISTRY.lock();
    for_each_lock(&registry, |lock| {
        lock.acquire();
    });
    lock::begin_forking();
    // Held on until `after_fork`.
    core::mem::forget(registry);
}

extern "C" fn after_fork() {
    {
        // Passes, because this thread holds the lock since `before_fork`.
        let registry = REGISTRY.lock();
        for_each_lock(&registry, |lock| lock.release());
    }
    lock::end_forking();
    REGISTRY.raw.release();
}
