//! The hook: a `GlobalAlloc` around another.
//!
//! It decides before it allocates whether the recorder is told ([`crate::control`] says why it may). So all
//! that is not told ends in a jump to the wrapped allocator, and takes no frame. To tell is marked as the seldom
//! way, though it is not while all is traced: so what a sampled run passes over takes no branch, where it would be
//! felt.

#![expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]

use crate::entry;
use crate::flat_shadow::GRANULE;
use crate::platform::System;
use crate::pooled::Pooled;
use crate::recorder::{RECORDER, Recorder, Released};
use crate::state::State;
use crate::thread;
use core::alloc::{GlobalAlloc, Layout};
use core::hint::cold_path;
use memtrace_heap::Heap;

/// A global allocator that can be traced, around any other.
///
/// ```
/// use memtrace_alloc::Alloc;
///
/// #[global_allocator]
/// static ALLOC: Alloc = Alloc::system();
///
/// memtrace_alloc::start(25).unwrap();
/// let kept = vec![0u8; 1000];
/// assert!(memtrace_alloc::traced_memory().current >= 1000);
/// drop(kept);
/// ```
///
/// [`Alloc::system`] passes requests on as they came. With [`Alloc::new`] an alignment below 16 is
/// raised to 16, so that no two blocks start within the same 16 bytes: what `malloc` gives anyway,
/// but with an allocator that packs blocks of 8 bytes or less more tightly (mimalloc, jemalloc), such
/// a block takes up 16.
///
/// Requests of size zero, which `GlobalAlloc` forbids, are passed on and recorded like any other: they
/// are as good or bad as the wrapped allocator takes them. While tracing is sampled they are left out.
///
/// **Cost**: while tracing is off, one load and a branch that is never taken: six instructions for a pair of
/// allocation and release, beyond those that `std` has for its own.
#[derive(Debug)]
pub struct Alloc<A = System> {
    inner: A,
    /// What smaller alignments are raised to.
    min_align: usize,
}

impl Alloc<System> {
    /// Wraps the system's allocator.
    pub const fn system() -> Self {
        // The `malloc` of every 64-bit system starts blocks at multiples of 16, as the ABI wants it.
        // To ask for that would send small requests on a slower way.
        let min_align = if cfg!(target_pointer_width = "64") { 1 } else { GRANULE };
        Self { inner: System, min_align }
    }
}

impl Alloc<Pooled> {
    /// Wraps a pooled heap, in whose own records the traces are kept: 8 bytes a block, where any other
    /// allocator needs 8 for each 16 bytes of heap.
    ///
    /// That takes a heap with [`Config::block_words`](memtrace_heap::Config::block_words), whose words are
    /// the recorder's then and nobody else's. With any other heap this is [`Alloc::new`].
    ///
    /// ```
    /// use memtrace_alloc::{Alloc, Pooled};
    /// use memtrace_heap::{Config, Heap};
    ///
    /// static HEAP: Heap = Heap::new(Config::new().block_words(true));
    ///
    /// #[global_allocator]
    /// static ALLOC: Alloc<Pooled> = Alloc::pooled(&HEAP);
    ///
    /// memtrace_alloc::start(25).unwrap();
    /// let kept = vec![0u8; 1000];
    /// assert!(memtrace_alloc::trace_at(kept.as_ptr().addr() as u64).is_some());
    /// println!("{}", HEAP.stats());
    /// ```
    ///
    /// Threads, generations and lifetimes ([`Options`](crate::Options)) are kept by address as with any allocator, at
    /// the same cost.
    pub const fn pooled(heap: &'static Heap) -> Self {
        // All its blocks start at multiples of 16.
        Self { inner: Pooled::new(heap), min_align: 1 }
    }
}

impl Default for Alloc<System> {
    fn default() -> Self {
        Self::system()
    }
}

impl<A> Alloc<A> {
    /// Wraps an allocator.
    pub const fn new(inner: A) -> Self {
        Self { inner, min_align: GRANULE }
    }

    /// Returns the wrapped allocator, for what it has to tell beside allocating.
    pub const fn inner(&self) -> &A {
        &self.inner
    }

    /// The layout that is passed on: the same for a block's release as for its allocation.
    #[inline(always)]
    const fn widen(&self, layout: Layout) -> Layout {
        if layout.align() >= self.min_align {
            return layout;
        }
        match Layout::from_size_align(layout.size(), self.min_align) {
            Ok(wide) => wide,
            // A size within 16 bytes of isize::MAX: no allocator has so much.
            Err(_) => layout,
        }
    }
}

// SAFETY: every request goes to the wrapped allocator, with a layout that asks for no less, and its
// answer goes back unchanged. Nothing here unwinds or allocates (the laws of the hook).
unsafe impl<A: GlobalAlloc> GlobalAlloc for Alloc<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let layout = self.widen(layout);
        if State::now().passes_over(layout.size()) {
            // SAFETY: the caller's promise: the size is not zero.
            return unsafe { self.inner.alloc(layout) };
        }
        cold_path();
        // SAFETY: as above.
        unsafe { entry::alloc_and_tell::<_, false>(layout.size(), layout.align(), &self.inner) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let layout = self.widen(layout);
        if State::now().passes_over(layout.size()) {
            // SAFETY: the caller's promise: the size is not zero.
            return unsafe { self.inner.alloc_zeroed(layout) };
        }
        // Not marked: with the system's allocator all ways would save registers then, which one of them needs.
        // SAFETY: as above.
        unsafe { entry::alloc_and_tell::<_, true>(layout.size(), layout.align(), &self.inner) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let layout = self.widen(layout);
        let state = State::now();
        if state.lets_go(block, layout.size()) {
            // SAFETY: the caller's promise; the layout is the one it was allocated with.
            return unsafe { self.inner.dealloc(block, layout) };
        }
        cold_path();
        // SAFETY: as above.
        unsafe { tell_and_dealloc(block, layout.size(), layout.align(), state, &self.inner) };
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let layout = self.widen(layout);
        if self.min_align > 1 && Layout::from_size_align(new_size, layout.align()).is_err() {
            // Within the caller's alignment, but too large for the one that was passed on.
            return core::ptr::null_mut();
        }
        let state = State::now();
        if state.lets_go(block, layout.size()) && state.passes_over(new_size) {
            // SAFETY: the caller's promise; the layout is the one it was allocated with.
            return unsafe { self.inner.realloc(block, layout, new_size) };
        }
        cold_path();
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as above.
        unsafe { entry::realloc_and_tell(block, size, align, new_size, state, &self.inner) }
    }
}

// The first two are functions of their own, as those of [`entry`] are, so that all else needs no frame and ends in a jump to
// the wrapped allocator; with parameters in the order of those of `__rust_dealloc` and its like, which leaves
// them in their registers. Nor does the first one need a frame: it takes the trace of most blocks out itself, and jumps to
// the others where there is more to tell.

/// Tells the recorder before the block is given back: another thread may get its address at once.
///
/// # Safety
///
/// As for [`GlobalAlloc::dealloc`] with a layout of this size and alignment.
#[inline(never)]
unsafe fn tell_and_dealloc<A: GlobalAlloc>(
    block: *mut u8,
    size: usize,
    align: usize,
    state: State,
    inner: &A,
) {
    // Looked for here, where the program's own code is compiled: in a library it takes a call.
    let slot = if state.is_plain() { thread::slot() } else { None };
    let Some(slot) = slot else {
        let tell = move |addr| RECORDER.releasing(addr, state);
        // SAFETY: the caller's promise.
        return unsafe { tell_more_and_dealloc(block, size, align, inner, tell) };
    };
    match Recorder::releasing_from_home(slot, block.addr() as u64) {
        // SAFETY: as above.
        Released::Done => unsafe { dealloc(block, size, align, inner) },
        Released::Much => {
            let tell = move |_| RECORDER.totals.flush_if_much(slot);
            // SAFETY: as above.
            unsafe { tell_more_and_dealloc(block, size, align, inner, tell) }
        }
        Released::InLine(shape) => {
            let tell = move |addr| Recorder::releasing_from_line(slot, addr, shape);
            // SAFETY: as above.
            unsafe { tell_more_and_dealloc(block, size, align, inner, tell) }
        }
        Released::Unknown => {
            let tell = move |addr| Recorder::releasing_at_block(slot, addr);
            // SAFETY: as above.
            unsafe { tell_more_and_dealloc(block, size, align, inner, tell) }
        }
    }
}

/// The same where there is more to tell; `tell` is given the block's address.
///
/// # Safety
///
/// As above.
#[inline(never)]
unsafe fn tell_more_and_dealloc<A: GlobalAlloc>(
    block: *mut u8,
    size: usize,
    align: usize,
    inner: &A,
    tell: impl FnOnce(u64),
) {
    tell(block.addr() as u64);
    // SAFETY: the caller's promise.
    unsafe { dealloc(block, size, align, inner) };
}

/// Gives the block back.
///
/// # Safety
///
/// As above.
#[inline(always)]
unsafe fn dealloc<A: GlobalAlloc>(block: *mut u8, size: usize, align: usize, inner: &A) {
    // SAFETY: they are a layout's.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    // SAFETY: the caller's promise.
    unsafe { inner.dealloc(block, layout) };
}
