//! What models share: blocks, threads, and what is done and looked at.

use crate::array_memory::{self, Supply};
use crate::live::{LiveTable, LiveTrace, Quick};
use crate::mistakes::{self, Mistake};
use crate::operation::during;
use crate::page_shadow::{AtHome, PageShadow};
use crate::site::SiteId;
use crate::sync::atomic;
use crate::thread;
use crate::thread_slot::{SLOTS, Slot};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Blocks of one page: all but one of its lower half, where a page with one line of two words has no room for
/// more than two.
pub(crate) const A: u64 = 0;
pub(crate) const B: u64 = 64 * 16;
pub(crate) const C: u64 = 65 * 16;
/// Of the upper half.
pub(crate) const D: u64 = 128 * 16;
pub(crate) const E: u64 = 129 * 16;
pub(crate) const F: u64 = 200 * 16;
/// The other page.
pub(crate) const OTHER: u64 = 4096;
/// A page with the same lock as the first.
pub(crate) const SHARING: u64 = 16 * 4096;
/// A page with the same cell as the first, among sampled pages.
pub(crate) const FAR: u64 = 1 << 28;

/// No run accesses more.
const N_ATOMICS: usize = 56;
const MAX_THREADS: usize = 3;

/// Runs `model` in every order, with `mistake` made.
pub(crate) fn explore(max_preemptions: usize, supply: Supply, mistake: Mistake, model: fn()) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(max_preemptions);
    builder.max_branches = 100_000;
    builder.check(move || {
        mistakes::make(mistake);
        atomic::begin_run(N_ATOMICS);
        array_memory::begin_run(supply);
        SLOTS_TO_HOLD.set((0..MAX_THREADS).map(|_| SLOTS.claim().unwrap()).collect());
        thread::hold_slot(SLOTS_TO_HOLD.with_borrow_mut(Vec::pop));
        model();
    });
}

thread_local! {
    static SHADOW: &'static PageShadow = Box::leak(Box::new(PageShadow::new()));
    /// For threads to come.
    static SLOTS_TO_HOLD: RefCell<Vec<&'static Slot>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn shadow() -> &'static PageShadow {
    SHADOW.with(|shadow| *shadow)
}

pub(crate) fn spawn<R: 'static>(run: impl FnOnce() -> R + 'static) -> loom::thread::JoinHandle<R> {
    let slot = SLOTS_TO_HOLD.with_borrow_mut(Vec::pop);
    assert!(slot.is_some());
    loom::thread::spawn(move || {
        thread::hold_slot(slot);
        run()
    })
}

/// The trace of a block that shares its page; each has its own.
pub(crate) const fn trace(addr: u64) -> LiveTrace {
    LiveTrace { size: 16, site: SiteId(addr as u32) }
}

/// Of a block that is likely to be alone.
pub(crate) const fn alone(addr: u64) -> LiveTrace {
    LiveTrace { size: 1024, site: SiteId(addr as u32) }
}

/// What another block at an address has for a trace.
pub(crate) const fn new_trace(addr: u64) -> LiveTrace {
    LiveTrace { size: 32, site: SiteId(addr as u32 + 1) }
}

/// As the recorder inserts. No block was there before.
pub(crate) fn insert(addr: u64, trace: LiveTrace) {
    during(|| insert_in_operation(addr, trace));
}

pub(crate) fn insert_in_operation(addr: u64, trace: LiveTrace) {
    if !shadow().insert_quickly(addr, trace) {
        assert_eq!(shadow().insert(addr, trace), Ok(None), "given back unseen");
    }
}

pub(crate) fn insert_all(addrs: &[u64]) {
    addrs.iter().for_each(|&addr| insert(addr, trace(addr)));
}

/// As the recorder takes in a plain run, in an operation that begins where the trace is looked for at home.
pub(crate) fn take(addr: u64) -> Option<LiveTrace> {
    let slot = thread::slot().unwrap();
    let quick = match shadow().take_at_home(slot, addr) {
        AtHome::Done(trace) => Quick::Taken(trace),
        AtHome::Not(shape) => shadow().take_from_line(shape, addr),
        AtHome::Unknown => return shadow().take_alone(addr).or_else(|| take_at_length(addr)),
    };
    slot.end();
    match quick {
        Quick::Taken(trace) => Some(trace),
        Quick::Nothing => None,
        Quick::Unknown => take_at_length(addr),
    }
}

fn take_at_length(addr: u64) -> Option<LiveTrace> {
    during(|| shadow().take(addr))
}

pub(crate) fn release(addr: u64, trace: LiveTrace) {
    assert_eq!(take(addr), Some(trace), "lost");
    assert_eq!(shadow().get(addr), None, "still there");
}

/// What a scan sees, each block once.
pub(crate) fn scan() -> BTreeMap<u64, LiveTrace> {
    let mut seen = BTreeMap::new();
    shadow().for_each::<false>(|addr, trace, _| {
        assert_eq!(seen.insert(addr, trace), None, "visited twice");
    });
    seen
}

/// What there is when all threads have ended.
pub(crate) fn assert_holds(expected: &[(u64, LiveTrace)]) {
    let expected: BTreeMap<_, _> = expected.iter().copied().collect();
    assert_eq!(scan(), expected, "lost or left");
    for (addr, trace) in expected {
        assert_eq!(take(addr), Some(trace), "lost");
        assert_eq!(take(addr), None, "there twice");
    }
}

pub(crate) fn assert_holds_all(addrs: &[u64]) {
    assert_holds(&addrs.iter().map(|&addr| (addr, trace(addr))).collect::<Vec<_>>());
}

/// Forgets all, and returns what there was by site.
pub(crate) fn sweep() -> BTreeMap<u32, LiveTrace> {
    let mut forgotten = BTreeMap::new();
    shadow().clear(&mut |trace| {
        assert_eq!(forgotten.insert(trace.site.0, trace), None, "forgotten twice");
    });
    forgotten
}

/// A model as it should be.
macro_rules! holds {
    ($name:ident: $model:ident, $bound:expr) => {
        holds!($name: $model, $bound, Plenty);
    };
    ($name:ident: $model:ident, $bound:expr, $supply:ident) => {
        #[test]
        fn $name() {
            use crate::{array_memory::Supply, mistakes::Mistake, setting::explore};
            explore($bound, Supply::$supply, Mistake::None, $model);
        }
    };
}

/// Its twin.
macro_rules! fails {
    ($name:ident: $model:ident, $bound:expr, $mistake:ident, $message:literal) => {
        fails!($name: $model, $bound, $mistake, $message, Plenty);
    };
    ($name:ident: $model:ident, $bound:expr, $mistake:ident, $message:literal, $supply:ident) => {
        #[test]
        #[should_panic(expected = $message)]
        fn $name() {
            use crate::{array_memory::Supply, mistakes::Mistake, setting::explore};
            explore($bound, Supply::$supply, Mistake::$mistake, $model);
        }
    };
}

pub(crate) use {fails, holds};
