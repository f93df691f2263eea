//! The heap: what stands behind `GlobalAlloc`.
//!
//! # Mechanism
//! A [`Heap`] is a page source and a pointer to a control block, which is mapped at the first
//! allocation and holds the lock and all state; so a heap is a `const`, can be moved, and its lock
//! still has an address that the fork handlers may keep. Each operation takes the lock once (twice
//! or three times for a `realloc` that copies), does bounded work, and touches blocks, copies,
//! zeroes and talks to the page source about blocks outside of it; metadata, which is rare, and
//! remapping, which must be one with its record, are mapped inside.
//!
//! # Invariants
//! - **H1** `control` is null, or points to a [`Control`] mapped by `pages`, initialised and
//!   registered with the fork handlers, that stays where it is until the heap is dropped.
//! - **H2** `pages` is the only page source that the state meets.
//! - **H3** A block handed out is `layout.size()` bytes or more inside one pool or mapping, and no
//!   other block in use overlaps it; the caller owns it until it gives it back (the contract of
//!   `GlobalAlloc`).
//! - **H4** Memory that the state no longer records is used by nobody: its blocks were given back.
//!
//! # Atomics
//! | variable | written by | read by | publishes |
//! |---|---|---|---|
//! | `control` | first user (compare-exchange AcqRel) | all (Acquire) | the initialised control block |
//!
//! # Cost
//! A small block taken and given back: two uncontended locks, a hash look-up and a division; 50 to
//! 90 ns for blocks of 32 bytes in the cache, up to 270 ns for larger ones or where a million are live:
//! two to four times glibc's. A large one: two system calls, more where it is aligned
//! above a page, and its page faults; about 7 µs for 40 KB of which one page is touched. Both on a
//! 2-core x86_64 Linux machine with other work running.
#![expect(unsafe_code, reason = "implements GlobalAlloc")]

use core::alloc::{GlobalAlloc, Layout};
use core::mem;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::arenas::EmptyArena;
use crate::class::SizeClass;
use crate::fork;
use crate::lock::SpinLock;
use crate::mapped::{Region, Source};
use crate::pages::{PAGE_SIZE, PageSource, SystemPages};
use crate::state::State;
use crate::stats::HeapStats;
use crate::violation::Violation;

/// A heap of small blocks in pools in arenas and of large blocks mapped directly, with exact
/// accounting.
///
/// It works as the global allocator, also before `main`, in dying threads, and in the child of a
/// fork. Out of memory is a null pointer, never a panic. Freeing what is not a block in use is
/// counted ([`HeapStats::invalid_frees`]) and otherwise ignored.
///
/// Dropping a heap (a static never is) unmaps all its blocks: pointers to them dangle then, as for
/// any allocator that ends.
///
/// ```
/// #[global_allocator]
/// static HEAP: memtrace_heap::Heap = memtrace_heap::Heap::new();
///
/// let before = HEAP.stats().requested_bytes();
/// let kept = vec![0u8; 1000];
/// assert_eq!(HEAP.stats().requested_bytes(), before + 1000);
/// drop(kept);
/// assert_eq!(HEAP.stats().requested_bytes(), before);
/// assert_eq!(HEAP.verify(), Ok(()));
/// ```
#[derive(Debug)]
pub struct Heap<P: PageSource = SystemPages> {
    control: AtomicPtr<Control>,
    pages: P,
}

/// The part of a heap that must not move.
#[derive(Debug)]
struct Control {
    state: SpinLock<State>,
    /// Written by [`Heap::create_control`], then by the fork handlers' list alone.
    fork_node: fork::Node,
}

/// How an attempt to resize without copying ended.
enum Resized {
    /// Done; the block lies here now.
    At(*mut u8),
    /// The block is in use, but what it lies in cannot take the new size.
    MustCopy,
    /// There is no such block in use, or no heap yet.
    Refused,
}

impl Heap {
    /// A heap over the system's pages. Nothing is mapped before the first allocation.
    #[must_use]
    pub const fn new() -> Heap {
        Heap::with_pages(SystemPages)
    }
}

impl Default for Heap {
    fn default() -> Heap {
        Heap::new()
    }
}

impl<P: PageSource> Heap<P> {
    /// A heap over `pages`. Nothing is mapped before the first allocation.
    #[must_use]
    pub const fn with_pages(pages: P) -> Heap<P> {
        Heap { control: AtomicPtr::new(ptr::null_mut()), pages }
    }

    /// All figures at this moment, copied under the lock; all zero before the first allocation.
    ///
    /// **Cost**: linear in the number of arenas; a microsecond or two for a small heap. It does not
    /// allocate, so it can be called from anywhere that may.
    #[must_use]
    pub fn stats(&self) -> HeapStats {
        let Some(control) = self.existing_control() else { return HeapStats::default() };
        let own_bytes = size_of::<Control>().next_multiple_of(PAGE_SIZE);
        control.state.lock().stats(own_bytes)
    }

    /// Recounts every pool and mapping from its bitmap or record and compares with the counters
    /// and lists.
    ///
    /// **Cost**: some microseconds for each arena, under the lock.
    ///
    /// **Errors**: the first invariant found not to hold.
    pub fn verify(&self) -> Result<(), Violation> {
        match self.existing_control() {
            Some(control) => control.state.lock().verify(),
            None => Ok(()),
        }
    }

    /// Whether [`verify`](Self::verify) finds nothing wrong.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.verify().is_ok()
    }

    /// The page source.
    #[must_use]
    pub fn pages(&self) -> &P {
        &self.pages
    }

    fn source(&self) -> Source<'_, P> {
        // SAFETY: H2.
        unsafe { Source::new(&self.pages) }
    }

    fn existing_control(&self) -> Option<&Control> {
        // Acquire pairs with the compare-exchange of `create_control`.
        let control = self.control.load(Ordering::Acquire);
        // SAFETY: H1, and dropping the heap needs it exclusively.
        unsafe { control.as_ref() }
    }

    fn control(&self) -> Option<&Control> {
        self.existing_control().or_else(|| self.create_control())
    }

    /// Maps and publishes the control block, or uses the one of a thread that was faster.
    #[cold]
    fn create_control(&self) -> Option<&Control> {
        let region = Region::map(self.source(), size_of::<Control>(), align_of::<Control>())?;
        let control = region.base().cast::<Control>();
        // SAFETY: only computes the address of a field in the memory just mapped.
        let lock = unsafe { &raw mut (*control).state.raw };
        let value = Control {
            state: SpinLock::new(State::default()),
            fork_node: fork::Node::new(NonNull::new(lock)?),
        };
        // SAFETY: mapped above, large enough and aligned, and still nobody else's.
        unsafe { control.write(value) };
        // SAFETY: only computes the address of a field.
        let fork_node = NonNull::new(unsafe { &raw mut (*control).fork_node })?;
        // Registered before it is published, so that no use of the heap precedes fork safety.
        // SAFETY: node and lock are initialised, stay where they are, and the node is reached
        // through the list alone until it is unregistered.
        unsafe { fork::register(fork_node) };
        let published = self.control.compare_exchange(
            ptr::null_mut(),
            control,
            // Release publishes the control block to the Acquire loads; Acquire, here and on
            // failure, for the one another thread published.
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        match published {
            // SAFETY: H1 from now on.
            Ok(_) => unsafe { control.as_ref() },
            Err(faster) => {
                // SAFETY: registered above.
                unsafe { fork::unregister(fork_node) };
                // SAFETY: never published, and in no list any more.
                unsafe { region.unmap(self.source()) };
                // SAFETY: H1, published by the other thread.
                unsafe { faster.as_ref() }
            }
        }
    }

    /// Takes a block; with `must_be_zero`, its first `layout.size()` bytes are zero.
    fn take(&self, layout: Layout, must_be_zero: bool) -> *mut u8 {
        let Some(control) = self.control() else { return ptr::null_mut() };
        let Some(class) = SizeClass::of(layout) else { return self.map_block(control, layout) };
        let taken = control.state.lock().small.take(self.source(), class, layout.size());
        let Some(block) = taken else { return ptr::null_mut() };
        if must_be_zero && !block.is_zero {
            // SAFETY: H3, the block has at least this size and is not handed out yet.
            unsafe { block.ptr.write_bytes(0, layout.size()) };
        }
        block.ptr
    }

    /// Maps a large block, which is zero by the page source's promise.
    fn map_block(&self, control: &Control, layout: Layout) -> *mut u8 {
        let Some(region) = Region::map(self.source(), layout.size().max(1), layout.align()) else {
            return ptr::null_mut();
        };
        let recorded = control.state.lock().large.insert(self.source(), region, layout.size());
        match recorded {
            Ok(ptr) => ptr,
            Err(region) => {
                // SAFETY: never handed out.
                unsafe { region.unmap(self.source()) };
                ptr::null_mut()
            }
        }
    }

    /// Gives a block back, or counts why it is none.
    fn give_back(&self, addr: usize, layout: Layout) {
        // Without a control block nothing was ever handed out, and the free counts all the same.
        let Some(control) = self.control() else { return };
        let mut state = control.state.lock();
        let (arena, region) = match SizeClass::of(layout) {
            Some(class) => match state.small.give_back(addr, class, layout.size()) {
                Ok(arena) => (arena, None),
                Err(reason) => return state.invalid_frees.count(reason),
            },
            None => match state.large.remove(addr, layout.size()) {
                Ok(region) => (None, Some(region)),
                Err(reason) => return state.invalid_frees.count(reason),
            },
        };
        drop(state);
        if let Some(EmptyArena { memory, pools }) = arena {
            pools.unmap(self.source());
            // SAFETY: H4, no block of the arena is in use.
            unsafe { memory.unmap(self.source()) };
        }
        if let Some(region) = region {
            // SAFETY: H4, the caller has just given the block back.
            unsafe { region.unmap(self.source()) };
        }
    }

    /// Resizes the block at `ptr` without copying it, or says that it must be copied, or counts why
    /// it is none.
    fn resize(&self, ptr: *mut u8, old: Layout, new: Layout) -> Resized {
        let Some(control) = self.control() else { return Resized::Refused };
        let mut state = control.state.lock();
        let addr = ptr.addr();
        let outcome = match (SizeClass::of(old), SizeClass::of(new)) {
            (Some(class), Some(new_class)) if class == new_class => {
                state.small.resize(addr, class, old.size(), new.size()).map(|()| Some(ptr))
            }
            (Some(class), _) => state.small.check(addr, class).map(|()| None),
            (None, Some(_)) => state.large.check(addr, old.size()).map(|()| None),
            (None, None) => {
                let must_stay = old.align() > PAGE_SIZE;
                let remap = |region: &mut Region, size: usize| {
                    // SAFETY: the block is the caller's, who gives up the old address by the
                    // contract of `realloc`.
                    unsafe { region.remap(self.source(), size) }
                };
                state.large.resize(addr, old.size(), new.size(), must_stay, remap)
            }
        };
        match outcome {
            Ok(None) => Resized::MustCopy,
            Ok(Some(now_at)) => Resized::At(now_at),
            Err(reason) => {
                state.invalid_frees.count(reason);
                Resized::Refused
            }
        }
    }
}

// SAFETY: blocks satisfy their layouts (C2, H3) and stay until given back (H4); nothing here
// unwinds, because nothing panics.
unsafe impl<P: PageSource> GlobalAlloc for Heap<P> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout, false)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.take(layout, true)
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        self.give_back(ptr.addr(), layout);
    }

    /// Resizes in place within a size class, by remapping between large sizes, and else by copying.
    /// A pointer that is not a block in use is counted, and the result is null.
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new_layout) = Layout::from_size_align(new_size, layout.align()) else {
            return ptr::null_mut();
        };
        match self.resize(ptr, layout, new_layout) {
            Resized::Refused => ptr::null_mut(),
            Resized::At(now_at) => now_at,
            Resized::MustCopy => {
                let copy = self.take(new_layout, false);
                if !copy.is_null() {
                    // SAFETY: both blocks have at least this size (H3), and do not overlap, being
                    // in use at once.
                    unsafe { copy.copy_from_nonoverlapping(ptr, layout.size().min(new_size)) };
                    self.give_back(ptr.addr(), layout);
                }
                copy
            }
        }
    }
}

impl<P: PageSource> Drop for Heap<P> {
    fn drop(&mut self) {
        let Some(control) = NonNull::new(*self.control.get_mut()) else { return };
        // SAFETY: only computes the address of a field.
        let fork_node = unsafe { &raw mut (*control.as_ptr()).fork_node };
        if let Some(fork_node) = NonNull::new(fork_node) {
            // SAFETY: registered when the control block was made; nobody holds the lock, for the
            // heap is borrowed exclusively.
            unsafe { fork::unregister(fork_node) };
        }
        // SAFETY: H1, and the control block is not used after this.
        let mut control_value = unsafe { control.as_ptr().read() };
        let state = mem::take(control_value.state.get_mut());
        // SAFETY: blocks end with their heap, which is documented.
        state.unmap(self.source(), |region| unsafe { region.unmap(self.source()) });
        let size = size_of::<Control>().next_multiple_of(PAGE_SIZE);
        // SAFETY: mapped with this size, and nothing refers to it any more.
        unsafe { self.pages.unmap(control.as_ptr().cast(), size) };
    }
}
