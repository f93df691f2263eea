//! The program's allocator: captures at every allocation and reallocation, by whom is said.
//!
//! A capture that allocates, as a peer's first one may, finds the guard taken and is not captured.
#![expect(unsafe_code, reason = "implements an allocator")]

use crate::check;
use crate::contender::{ALL, Site, n_all};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What is done at an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing.
    Off,
    /// It is counted.
    Count,
    /// All contenders capture, and are compared.
    Check,
    /// A contender captures, by its place.
    Capture(usize),
}

struct Hook;

#[global_allocator]
static HOOK: Hook = Hook;

// `Relaxed`: the mode changes when there are no other threads.
static MODE: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(25);
static N_ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

const N_OTHER: usize = 2;

/// By mode, which 0 is not in.
static SITES: [Site; N_OTHER + n_all()] = {
    let mut sites: [Site; N_OTHER + n_all()] = [count; N_OTHER + n_all()];
    sites[1] = check::check;
    let mut i = 0;
    while i < n_all() {
        sites[N_OTHER + i] = ALL[i].site;
        i += 1;
    }
    sites
};

thread_local! {
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Says what is to be done at allocations from now on.
pub(crate) fn set_mode(mode: Mode, limit: usize) {
    LIMIT.store(limit, Relaxed);
    let number = match mode {
        Mode::Off => 0,
        Mode::Count => 1,
        Mode::Check => 2,
        Mode::Capture(i) => 1 + N_OTHER + i,
    };
    MODE.store(number, Relaxed);
}

/// Has the C library keep what is freed: how often it goes to the kernel for memory, and back, is not
/// what is to be measured.
pub(crate) fn keep_memory() {
    for option in [libc::M_TRIM_THRESHOLD, libc::M_MMAP_THRESHOLD] {
        // SAFETY: sets a number.
        unsafe { libc::mallopt(option, 1 << 30) };
    }
}

/// Returns how many allocations were counted since the last call.
pub(crate) fn take_count() -> u64 {
    N_ALLOCATIONS.swap(0, Relaxed)
}

fn count(_: usize) -> Option<NonZeroU32> {
    N_ALLOCATIONS.fetch_add(1, Relaxed);
    None
}

#[inline(always)]
fn before_allocation() {
    let mode = MODE.load(Relaxed);
    if mode != 0 {
        capture(mode);
    }
}

#[inline(never)]
fn capture(mode: usize) {
    if IS_INSIDE.replace(true) {
        return;
    }
    if let Some(site) = SITES.get(mode - 1) {
        black_box(site(LIMIT.load(Relaxed)));
    }
    IS_INSIDE.set(false);
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Hook {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        before_allocation();
        // SAFETY: the caller's promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        before_allocation();
        // SAFETY: the caller's promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        before_allocation();
        // SAFETY: the caller's promises.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises.
        unsafe { System.dealloc(block, layout) }
    }
}
