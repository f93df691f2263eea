//! What the recorder keeps for each thread: a guard against re-entry, and the bounds of its stack.
//!
//! # Invariants
//!
//! - **I1** The state is const-initialised and has no destructor: it can be used from the first to
//!   the last instruction of a thread, destructors of other thread-locals included.
//! - **I2** The guard's depth is back to what it was when a guarded section ends, also by a panic.
//! - **I3** The cache is used only in the recorder's guarded sections, and in the destructor, of which a
//!   thread is in one at a time.
//!
//! Memory of the cache is given back by a destructor of the C library's thread-specific data, which
//! needs no allocation and no support of the language; from then on the thread's captures remember
//! nothing.
//!
//! What a signal handler looks at is atomic, because it may do so between any two instructions; all
//! accesses are `Relaxed`, no other thread ever sees them. The stack's bounds and the cache are used in
//! guarded sections only (I3).

#![expect(unsafe_code, reason = "a cache in thread-local state, and the C library's thread data")]

use crate::platform::thread_local;
use crate::recorder::RECORDER;
use crate::thread_slot::{SLOTS, Slot};
use core::cell::{Cell, UnsafeCell};
use core::ffi::c_void;
use core::mem::ManuallyDrop;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed, compiler_fence};
use memtrace_unwind::{Registers, SiteCache, Sites, StackBounds};

pub(crate) struct ThreadState {
    /// How many guarded sections the thread is in, and [`RECORDING`] if one of them is the recorder's.
    depth: AtomicU32,
    /// How many leaf locks the thread holds or waits for.
    n_locks: AtomicU32,
    /// A [`Probe`].
    probe: AtomicU8,
    /// The number of the thread in the table of threads; 0 before it has one.
    number: AtomicU32,
    /// Null before the thread has one, and after.
    slot: Cell<*const Slot>,
    stack: Cell<StackBounds>,
    /// What the thread's captures remember (I3).
    cache: UnsafeCell<ManuallyDrop<SiteCache>>,
}

thread_local! {
    static STATE: ThreadState = const {
        ThreadState {
            depth: AtomicU32::new(0),
            n_locks: AtomicU32::new(0),
            probe: AtomicU8::new(Probe::None as u8),
            number: AtomicU32::new(0),
            slot: Cell::new(core::ptr::null()),
            stack: Cell::new(StackBounds::UNKNOWN),
            cache: UnsafeCell::new(ManuallyDrop::new(SiteCache::new())),
        }
    };
}

/// What the recorder's section adds to the depth, of which a thread is in one at most: one word says
/// both, so that no signal comes between them.
const RECORDING: u32 = 1 << 31;

/// A section in which the thread's own allocations are not recorded.
pub(crate) struct Guard<'a> {
    state: &'a ThreadState,
    /// The depth outside of it.
    depth: u32,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        compiler_fence(core::sync::atomic::Ordering::SeqCst);
        self.state.depth.store(self.depth, Relaxed);
    }
}

impl ThreadState {
    /// Opens a section at this depth, which is the thread's, and adds `weight` to it.
    fn enter(&self, depth: u32, weight: u32) -> Guard<'_> {
        self.depth.store(depth.wrapping_add(weight), Relaxed);
        compiler_fence(core::sync::atomic::Ordering::SeqCst);
        Guard { state: self, depth }
    }

    /// Returns the bounds of the thread's stack, asking the system the first time.
    fn stack(&self) -> StackBounds {
        let stack = self.stack.get();
        if !stack.is_unknown() {
            return stack;
        }
        self.find_stack()
    }

    /// Runs `f`, the recorder's work, inside a guarded section, unless the thread is in one already: then returns
    /// `None`.
    #[inline(always)]
    fn guarded<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        let _guard = self.guard()?;
        Some(f())
    }

    /// Returns the slot that the thread holds.
    #[inline(always)]
    pub(crate) fn slot(&self) -> Option<&'static Slot> {
        // SAFETY: null, or a slot that stays mapped.
        unsafe { self.slot.get().as_ref() }
    }

    /// Returns the number of the thread; 0 before it has one.
    pub(crate) fn number(&self) -> u32 {
        self.number.load(Relaxed)
    }

    /// Sets the number of the thread, and returns it.
    pub(crate) fn set_number(&self, number: u32) -> u32 {
        self.number.store(number, Relaxed);
        number
    }

    #[cold]
    #[inline(never)]
    fn find_stack(&self) -> StackBounds {
        let stack = StackBounds::current();
        self.stack.set(stack);
        self.ask_for_the_end();
        stack
    }

    /// Lets the C library call [`on_thread_end`] for this thread; where it does not, nothing is
    /// remembered that would have to be given back then.
    fn ask_for_the_end(&self) {
        let is_asked = END_KEY.load(Relaxed).checked_sub(1).is_some_and(|key| {
            let state = core::ptr::from_ref(self).cast();
            // SAFETY: a key that `prepare` made; the state is there when its destructor runs.
            unsafe { libc::pthread_setspecific(key as libc::pthread_key_t, state) == 0 }
        });
        if is_asked {
            self.slot.set(SLOTS.claim().map_or(core::ptr::null(), core::ptr::from_ref));
        } else {
            // SAFETY: called from a guarded section (I3).
            unsafe { &mut *self.cache.get() }.retire();
        }
    }

    /// Returns the site of the stack at `start`, at most `limit` of its frames. Called in the
    /// recorder's guarded section, of which `start` was read at the beginning.
    #[inline(always)]
    pub(crate) fn site_from(
        &self,
        start: Registers,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        let stack = self.stack();
        // SAFETY: `start` was read in a function of the recorder's that has called this one.
        self.with_cache(|cache| unsafe { cache.site_from(start, &stack, limit, sites) })
    }

    /// Returns the site of the stack at `start`, of a function that has not returned, if the thread's cache recalls it;
    /// see [`SiteCache::recall`].
    #[inline(always)]
    pub(crate) fn recall(&self, start: Registers) -> Option<NonZeroU32> {
        let _guard = self.guard()?;
        // SAFETY: a guarded section is the only user, as long as it lasts (I3). (Not by a closure, which would be a
        // function of its own where two call this.)
        let cache = unsafe { &mut *self.cache.get() };
        // SAFETY: the caller's promise.
        unsafe { cache.recall(start) }
    }

    /// The same by [`SiteCache::recall_one_frame`].
    #[inline(always)]
    pub(crate) fn recall_one_frame(&self, start: Registers) -> Option<NonZeroU32> {
        let _guard = self.guard()?;
        // SAFETY: as above.
        let cache = unsafe { &mut *self.cache.get() };
        // SAFETY: the caller's promise.
        unsafe { cache.recall_one_frame(start) }
    }

    /// The same by [`SiteCache::recall_further`].
    #[inline(always)]
    pub(crate) fn recall_further(&self, start: Registers) -> Option<NonZeroU32> {
        let _guard = self.guard()?;
        // SAFETY: as above.
        let cache = unsafe { &mut *self.cache.get() };
        // SAFETY: the caller's promise.
        unsafe { cache.recall_further(start) }
    }

    /// Opens the recorder's section, unless the thread is in one already.
    #[inline(always)]
    fn guard(&self) -> Option<Guard<'_>> {
        (self.depth.load(Relaxed) == 0).then(|| self.enter(0, RECORDING))
    }

    /// The same as [`Self::site_from`] if neither of these has told it.
    #[inline(always)]
    pub(crate) fn site_unrecalled(
        &self,
        start: Registers,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        let stack = self.stack();
        // SAFETY: `start` was read in a function that has called the recorder.
        self.with_cache(|cache| unsafe { cache.site_unrecalled(start, &stack, limit, sites) })
    }

    /// Forgets what the thread's captures remember. Called in the recorder's guarded section.
    pub(crate) fn forget(&self) {
        self.with_cache(SiteCache::forget);
    }

    /// Uses what the thread's captures remember. Called in the recorder's guarded section, not in `f`.
    #[inline(always)]
    fn with_cache<R>(&self, f: impl FnOnce(&mut SiteCache) -> R) -> R {
        // SAFETY: a guarded section is the only user, as long as it lasts (I3).
        f(unsafe { &mut *self.cache.get() })
    }
}

/// Returns where the state of the thread is, which is there as long as the thread is (I1).
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
#[inline(always)]
pub(crate) fn state() -> *const ThreadState {
    STATE.with(core::ptr::from_ref)
}

/// Runs `f`, the recorder's work, inside a guarded section, unless the thread is in one already, or has
/// lost its state: then returns `None`.
#[inline(always)]
pub(crate) fn guarded<R>(f: impl FnOnce(&ThreadState) -> R) -> Option<R> {
    STATE.try_with(|state| state.guarded(|| f(state))).ok().flatten()
}

/// Returns the slot that the thread holds.
#[inline(always)]
pub(crate) fn slot() -> Option<&'static Slot> {
    STATE.try_with(ThreadState::slot).unwrap_or(None)
}

/// Gives the thread a slot, as its first guarded section does.
#[cfg(test)]
pub(crate) fn claim_slot() {
    STATE
        .with(|state| state.slot.set(SLOTS.claim().map_or(core::ptr::null(), core::ptr::from_ref)));
}

/// Looks at the state of the thread; `None` if it has lost it.
#[inline(always)]
pub(crate) fn with_state<R>(f: impl FnOnce(&ThreadState) -> R) -> Option<R> {
    STATE.try_with(f).ok()
}

/// Whether the thread is inside the recorder: what it allocates is lost, not left out on purpose.
pub(crate) fn is_recording() -> bool {
    STATE.try_with(|state| state.depth.load(Relaxed) & RECORDING != 0).unwrap_or(true)
}

/// Notes that the thread is about to take a leaf lock.
pub(crate) fn lock_taken() {
    let _ = STATE.try_with(|state| {
        state.n_locks.store(state.n_locks.load(Relaxed).wrapping_add(1), Relaxed);
        compiler_fence(core::sync::atomic::Ordering::SeqCst);
    });
}

/// Notes that the thread has given a leaf lock back.
pub(crate) fn lock_given_back() {
    let _ = STATE.try_with(|state| {
        compiler_fence(core::sync::atomic::Ordering::SeqCst);
        state.n_locks.store(state.n_locks.load(Relaxed).wrapping_sub(1), Relaxed);
    });
}

/// Whether the thread holds a leaf lock, or waits for one.
pub(crate) fn holds_lock() -> bool {
    STATE.try_with(|state| state.n_locks.load(Relaxed) != 0).unwrap_or(true)
}

/// One more than the key of the data whose destructor tells of a thread's end; 0 without one.
static END_KEY: AtomicUsize = AtomicUsize::new(0);

/// Prepares for the ends of threads, once; where there is no key left, nothing is remembered by their
/// captures.
pub(crate) fn prepare() {
    if END_KEY.load(Relaxed) != 0 {
        return;
    }
    let mut key = 0;
    // SAFETY: `key` is a valid place for the result; the destructor is a function of this program.
    if unsafe { libc::pthread_key_create(&mut key, Some(on_thread_end)) } != 0 {
        return;
    }
    let number = (key as usize).saturating_add(1);
    // Relaxed: the key was there before its number; nothing else is published.
    if END_KEY.compare_exchange(0, number, Relaxed, Relaxed).is_err() {
        // SAFETY: the key made above, which no thread has used.
        unsafe { libc::pthread_key_delete(key) };
    }
}

/// Gives back what a thread's captures remember; those still to come remember nothing.
extern "C" fn on_thread_end(state: *mut c_void) {
    // SAFETY: what this thread gave to the C library: its own state, which is still there (I1).
    let Some(state) = (unsafe { state.cast::<ThreadState>().as_ref() }) else { return };
    // A thread that ends inside the recorder, by cancellation, is using what would be given back.
    let depth = state.depth.load(Relaxed);
    if depth & RECORDING != 0 {
        return;
    }
    // A signal handler that allocates meanwhile is not to use what is being given back.
    let _guard = state.enter(depth, RECORDING);
    // SAFETY: destructors run outside of the recorder, and the guard keeps it out (I3).
    unsafe { &mut *state.cache.get() }.retire();
    if let Some(slot) = state.slot() {
        // What a signal handler of this thread releases from here on is added to what all share.
        state.slot.set(core::ptr::null());
        compiler_fence(core::sync::atomic::Ordering::SeqCst);
        RECORDER.totals.flush(slot);
        SLOTS.release(slot);
    }
}

/// What the thread is finding out about the hook's own frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Probe {
    /// Nothing: it allocates like any thread.
    None,
    /// Which functions they belong to.
    Functions,
}

/// Returns what the thread is finding out.
pub(crate) fn probe() -> Probe {
    let probe = STATE.try_with(|state| state.probe.load(Relaxed)).unwrap_or(0);
    match probe {
        1 => Probe::Functions,
        _ => Probe::None,
    }
}

/// Runs `f` with the thread marked as probing; its guard is open meanwhile and back afterwards.
pub(crate) fn while_probing(probe: Probe, f: impl FnOnce()) {
    let _ = STATE.try_with(|state| {
        let depth = state.depth.swap(0, Relaxed);
        state.probe.store(probe as u8, Relaxed);
        f();
        state.probe.store(Probe::None as u8, Relaxed);
        state.depth.store(depth, Relaxed);
    });
}

/// Runs `f` without recording what this thread allocates meanwhile.
///
/// For a tool's own work: what `f` allocates is not part of any snapshot, though it may outlive the
/// call. Releases are recorded as always, and a traced block that `f` resizes stays traced, with its
/// old stack. Other threads are not affected.
///
/// **Cost**: a few instructions.
///
/// ```
/// let figures = memtrace_alloc::untraced(|| vec![1, 2, 3]);
/// assert_eq!(figures.len(), 3);
/// ```
pub fn untraced<R>(f: impl FnOnce() -> R) -> R {
    // A thread without state is not traced at all.
    let _section = Untraced::begin();
    f()
}

/// An open guarded section of the current thread.
struct Untraced;

impl Untraced {
    fn begin() -> Self {
        begin_untraced();
        Self
    }
}

impl Drop for Untraced {
    fn drop(&mut self) {
        end_untraced();
    }
}

/// Opens a guarded section that [`end_untraced`] ends.
pub(crate) fn begin_untraced() {
    let _ = STATE.try_with(|state| core::mem::forget(state.enter(state.depth.load(Relaxed), 1)));
}

/// Ends the section that the same thread opened with [`begin_untraced`].
pub(crate) fn end_untraced() {
    let _ = STATE.try_with(|state| {
        drop(Guard { state, depth: state.depth.load(Relaxed).wrapping_sub(1) });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    #[test]
    fn guarded_sections_nest_and_end_even_by_a_panic() {
        let is_guarded = || guarded(|_| ()).is_none();
        assert!(!is_guarded());
        assert_eq!(guarded(|_| guarded(|_| ())), Some(None));
        untraced(|| {
            untraced(|| assert!(is_guarded()));
            assert!(is_guarded());
        });
        let panicked = std::panic::catch_unwind(|| {
            untraced(|| std::panic::resume_unwind(std::boxed::Box::new(())))
        });
        assert!(panicked.is_err() && !is_guarded());
    }

    #[test]
    fn only_the_sections_of_the_recorder_lose_what_is_allocated_in_them() {
        assert!(!is_recording());
        assert_eq!(guarded(|_| is_recording()), Some(true));
        assert_eq!(guarded(|_| untraced(is_recording)), Some(true));
        untraced(|| assert!(!is_recording()));
        assert!(!is_recording());
    }
}
