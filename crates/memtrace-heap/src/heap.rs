//! The heap: what stands behind `GlobalAlloc`.
//!
//! # Mechanism
//! A [`Heap`] is a page source, options, and a pointer to a control block, which is mapped at the first
//! allocation; so a heap is a `const`, can be moved, and its records still have addresses that stay. A
//! thread takes small blocks from the pools of the owner it holds, without a lock and without an atomic
//! operation, and gives those back that lie there. Everything else goes the long way: a block of
//! another owner's pool, large blocks, and what is no block at all.
//!
//! # Invariants
//! - **H1** `control` is null, or points to a [`Control`] mapped by `pages`, registered with the fork
//!   handlers, that stays where it is until the heap is dropped. `id` is zero as long as it is null,
//!   and its id afterwards.
//! - **H2** `pages` is the only page source that the records meet.
//! - **H3** A block handed out is `layout.size()` bytes or more inside one pool, run or mapping, and no
//!   other block in use overlaps it; the caller owns it until it gives it back (the contract of
//!   `GlobalAlloc`).
//! - **H4** Memory that is no longer recorded is used by nobody: its blocks were given back.
//!
//! # Atomics
//! | variable | written by | read by | publishes |
//! |---|---|---|---|
//! | `control` | first user (compare-exchange, Release) | all (Acquire) | the control block |
//! | `id` | first user (Release), after `control` | all | nothing: who finds the id in its thread's state has been here before |
//!
//! # Cost
//! See the crate's documentation.
#![expect(unsafe_code, reason = "implements GlobalAlloc")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::arena::UNIT_SIZE;
use crate::cells::Link;
use crate::class::SizeClass;
use crate::config::Config;
use crate::control::Control;
use crate::map::HeapMap;
use crate::mapped::{Source, map_record, unmap_record};
use crate::owner::{Busy, Owner};
use crate::pages::{PageSource, SystemPages};
use crate::pool::{Kind, Pool};
use crate::runs::Extent;
use crate::shared::Shared;
use crate::stats::HeapStats;
use crate::svg::Svg;
use crate::violation::Violation;
use crate::{fork, remote, runs, thread};

/// A heap of small blocks in pools in arenas and of large blocks beside them, with exact accounting.
///
/// It works as the global allocator, also before `main`, in dying threads, and in the child of a
/// fork. Out of memory is a null pointer, never a panic. Freeing what is not a block in use is
/// counted ([`HeapStats::invalid_frees`]) and otherwise ignored.
///
/// Dropping a heap (a static never is) unmaps all its blocks: pointers to them dangle then, as for
/// any allocator that ends.
///
/// ```
/// use memtrace_heap::{Config, Heap};
///
/// #[global_allocator]
/// static HEAP: Heap = Heap::new(Config::new());
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
    id: AtomicU64,
    pub(crate) control: Link<Control>,
    config: Config,
    pages: P,
}

/// All blocks are aligned to this many bytes.
pub(crate) const MIN_ALIGN: usize = 16;

/// How an attempt to resize without copying ended.
enum Resized {
    /// Done; the block lies here now.
    At(*mut u8),
    /// The block is in use, but what it lies in cannot take the new size.
    MustCopy,
    /// There is no such block in use, or no heap yet.
    Refused,
}

/// What serves a layout.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Pool(SizeClass),
    Run(Extent),
    Mapping,
}

fn place_of(layout: Layout) -> Place {
    match (SizeClass::of(layout), runs::extent_for(layout)) {
        (Some(class), _) => Place::Pool(class),
        (None, Some(extent)) => Place::Run(extent),
        (None, None) => Place::Mapping,
    }
}

impl Heap {
    /// A heap over the system's pages. Nothing is mapped before the first allocation.
    #[must_use]
    pub const fn new(config: Config) -> Heap {
        Heap::with_pages(config, SystemPages)
    }
}

impl Default for Heap {
    fn default() -> Heap {
        Heap::new(Config::new())
    }
}

impl<P: PageSource> Heap<P> {
    /// A heap over `pages`. Nothing is mapped before the first allocation.
    #[must_use]
    pub const fn with_pages(config: Config, pages: P) -> Heap<P> {
        Heap { id: AtomicU64::new(0), control: Link::none(), config, pages }
    }

    /// All figures at this moment; all zero before the first allocation.
    ///
    /// While other threads are in the heap, each figure is one of a moment during the call, and the
    /// figures need not be of the same moment; when they are not, all is exact.
    ///
    /// **Cost**: the lock, to count the bits of every pool. It does not allocate, so it can be called
    /// from anywhere that may.
    #[must_use]
    pub fn stats(&self) -> HeapStats {
        self.existing().map_or_else(HeapStats::default, |shared| shared.stats())
    }

    /// Recounts every pool, run and mapping from its bitmap or record and compares with the counters
    /// and lists.
    ///
    /// **Cost**: as for [`stats`](Self::stats), several times over; a tenth of a second more where something is wrong.
    ///
    /// **Errors**: the first invariant found not to hold; [`Violation::Busy`] if all attempts to look
    /// met other threads at work in the heap.
    pub fn verify(&self) -> Result<(), Violation> {
        self.existing().map_or(Ok(()), |shared| shared.verify())
    }

    /// Whether [`verify`](Self::verify) finds nothing wrong.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.verify().is_ok()
    }

    /// Gives the pages of all units in no use back to the system, and lets go of what ended threads
    /// held; returns how many bytes were given back. For a moment at which the program knows that it
    /// will not need them soon, and for [`Purge::Never`](crate::Purge::Never).
    ///
    /// **Cost**: a system call for each run of unused units.
    pub fn purge(&self) -> usize {
        self.existing().map_or(0, |shared| shared.purge())
    }

    /// What each arena holds: see [`HeapMap`].
    #[must_use]
    pub fn map(&self) -> HeapMap<'_> {
        HeapMap::of_native(self.control.get_published())
    }

    /// A picture of that, which walks the heap when it is displayed: see [`Svg`].
    #[must_use]
    pub fn svg(&self) -> Svg<'_> {
        self.map().svg()
    }

    /// The page source.
    #[must_use]
    pub fn pages(&self) -> &P {
        &self.pages
    }

    /// The options.
    pub fn config(&self) -> Config {
        self.config
    }

    fn source(&self) -> Source<'_, P> {
        // SAFETY: H2.
        unsafe { Source::new(&self.pages) }
    }

    pub(crate) fn existing(&self) -> Option<Shared<'_, P>> {
        let control = self.control.get_published()?;
        Some(Shared { control, source: self.source(), config: self.config })
    }

    fn shared(&self) -> Option<Shared<'_, P>> {
        self.existing().or_else(|| self.create())
    }

    /// Maps and publishes the control block, or uses the one of a thread that was faster.
    #[cold]
    fn create(&self) -> Option<Shared<'_, P>> {
        static LATEST_ID: AtomicU64 = AtomicU64::new(0);
        let control: &Control = map_record(self.source())?;
        // Relaxed: only distinct numbers are needed.
        let id = LATEST_ID.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        control.id.set(id);
        control.big_arenas.make_big();
        control.config.set(self.config.to_byte());
        control.is_over_system.set(u8::from(P::IS_SYSTEM));
        // Registered before it is published, so that no use of the heap precedes fork safety.
        let is_registered = fork::register(control);
        match self.control.publish_first(control) {
            Ok(()) if is_registered => {
                self.id.store(id, Ordering::Release);
                self.existing()
            }
            Ok(()) => self.existing(),
            Err(faster) => {
                fork::unregister(control);
                // SAFETY: never published, and in no list any more.
                unsafe { unmap_record(self.source(), control) };
                let control = faster?;
                Some(Shared { control, source: self.source(), config: self.config })
            }
        }
    }

    /// Begins an operation of a thread that holds an owner of this heap, unless it is amid one.
    #[inline]
    fn enter(&self) -> Option<Busy<'_>> {
        // Relaxed: see the table above.
        thread::enter(self.id.load(Ordering::Relaxed))
    }

    /// Does `work` with the owner that this thread holds from now on, or with one that is held for
    /// it alone.
    #[cold]
    fn with_owner<'h, R>(
        shared: Shared<'h, P>,
        work: impl FnOnce(Busy<'h>) -> Option<R>,
    ) -> Option<R> {
        let id = shared.control.id.get();
        let held = thread::remember(id, || shared.hold_owner());
        if let Some(busy) = held.and_then(Owner::enter) {
            return work(busy);
        }
        let owner = shared.hold_owner()?;
        let result = owner.enter().and_then(work);
        shared.let_go(owner);
        result
    }

    /// Takes a block; with `must_be_zero`, its first `layout.size()` bytes are zero.
    #[inline(always)]
    pub(crate) fn take(&self, layout: Layout, must_be_zero: bool) -> *mut u8 {
        let Some(class) = SizeClass::of(layout) else {
            return self.take_large(layout, must_be_zero);
        };
        if let Some(busy) = self.enter()
            && let Some(slot) = busy.owner.slot(class)
        {
            if !must_be_zero && let Some(block) = slot.take(layout.size()) {
                return block;
            }
            let taken = self.take_from(busy, class, layout.size(), must_be_zero);
            return taken.unwrap_or(ptr::null_mut());
        }
        self.take_elsewhere(class, layout.size(), must_be_zero)
    }

    #[cold]
    #[inline(never)]
    fn take_elsewhere(&self, class: SizeClass, size: usize, must_be_zero: bool) -> *mut u8 {
        let taken = self.shared().and_then(|shared| {
            Self::with_owner(shared, |busy| self.take_from(busy, class, size, must_be_zero))
        });
        taken.unwrap_or(ptr::null_mut())
    }

    /// Takes a block of `class` through the owner of `busy`, which may have none at hand.
    #[inline(never)]
    fn take_from(
        &self,
        busy: Busy<'_>,
        class: SizeClass,
        size: usize,
        must_be_zero: bool,
    ) -> Option<*mut u8> {
        let slot = busy.owner.slot(class)?;
        if slot.available.get() == 0 && !slot.open_next() {
            self.existing()?.refill(busy.owner, class, slot)?;
        }
        let is_zero = slot.is_next_zero();
        let block = slot.take(size)?;
        drop(busy);
        if must_be_zero && !is_zero && P::HAS_MEMORY {
            // SAFETY: H3, the block has at least this size and is not handed out yet.
            unsafe { block.write_bytes(0, size) };
        }
        Some(block)
    }

    #[inline(never)]
    fn take_large(&self, layout: Layout, must_be_zero: bool) -> *mut u8 {
        let taken = self.shared().and_then(|shared| {
            let run =
                runs::extent_for(layout).and_then(|extent| shared.take_run(extent, layout.size()));
            // Also where address space is too scarce for an arena.
            run.or_else(|| shared.map_block(layout).map(|block| (block, true)))
        });
        let Some((block, is_zero)) = taken else { return ptr::null_mut() };
        if must_be_zero && !is_zero && P::HAS_MEMORY {
            // SAFETY: H3, the block has at least this size and is not handed out yet.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    /// Gives a block back, or counts why it is none.
    #[inline(always)]
    pub(crate) fn give_back(&self, addr: usize, layout: Layout) {
        if let Some(class) = SizeClass::of(layout)
            && let Some(busy) = self.enter()
            && let Some(slot) = busy.owner.slot(class)
            && slot.give_back(addr, layout.size())
        {
            return;
        }
        self.give_back_to_pool(addr, layout);
    }

    /// The same for a block that is not of an active word.
    #[inline(never)]
    fn give_back_to_pool(&self, addr: usize, layout: Layout) {
        if layout.align() <= MIN_ALIGN
            && let Some(control) = self.control.get()
            && let Some((arena, pool)) = control.directory.find(addr)
            && pool.is_for(layout.size())
            && let Some(index) = pool.index_at(addr % UNIT_SIZE)
            && let Some(busy) = self.enter()
            && let Some(slot) = pool.class().and_then(|class| busy.owner.slot(class))
        {
            if !pool.is_owned_by(busy.owner) {
                return self.give_back_remotely(busy, pool, index, layout.size());
            }
            if let Some(is_empty) = pool.give_back_quickly(arena, index, slot) {
                slot.count_given(layout.size());
                if is_empty {
                    self.end_empty(busy, pool);
                }
                return;
            }
        }
        self.give_back_elsewhere(addr, layout);
    }

    /// Gives back block `index` of `pool`, which another owner has.
    #[inline(never)]
    fn give_back_remotely(&self, busy: Busy<'_>, pool: &Pool, index: u32, size: usize) {
        let Some(shared) = self.existing() else { return };
        // Asked first: once the block is free, the pool may become another.
        let slot = pool.class().and_then(|class| busy.owner.slot(class));
        match remote::free(pool, index) {
            Ok(woken) => {
                if let Some(slot) = slot {
                    slot.count_given(size);
                }
                if let Some(woken) = woken {
                    shared.wake(woken);
                }
            }
            Err(reason) => shared.control.invalid.count(reason),
        }
    }

    /// Gives `pool` back, which has no block in use any more, unless it is active.
    #[cold]
    #[inline(never)]
    fn end_empty(&self, busy: Busy<'_>, pool: &Pool) {
        if let Some(shared) = self.existing()
            && let Kind::Pool(class) = pool.kind()
            && let Some(slot) = busy.owner.slot(class)
        {
            let n_before = pool.n_free().wrapping_sub(1);
            shared.apply(class, slot, pool, pool.change_from(n_before));
        }
        drop(busy);
    }

    #[inline(never)]
    fn give_back_elsewhere(&self, addr: usize, layout: Layout) {
        // Without a control block nothing was ever handed out, and the free counts all the same.
        let Some(shared) = self.shared() else { return };
        let done = match place_of(layout) {
            Place::Pool(class) => {
                let give_back = |busy: &Busy<'_>| {
                    shared.give_back_block(busy.owner, addr, class, layout.size())
                };
                match self.enter() {
                    Some(busy) => give_back(&busy),
                    None => Self::with_owner(shared, |busy| Some(give_back(&busy)))
                        .unwrap_or_else(|| shared.give_back_unowned(addr, class, layout.size())),
                }
            }
            Place::Run(_) if shared.is_in_arena(addr) => shared.give_back_run(addr, layout.size()),
            Place::Run(_) | Place::Mapping => shared
                .forget_mapping(addr, layout.size())
                // SAFETY: H4, the caller has just given the block back.
                .map(|region| unsafe { region.unmap(self.source()) }),
        };
        if let Err(reason) = done {
            shared.control.invalid.count(shared.refine(reason, addr));
        }
    }

    /// Resizes a block of this thread's own pools to `new_size` bytes, which a pool serves, too; `None`,
    /// with nothing done, if it is none, or this needs more than blocks at hand.
    #[inline]
    fn resize_quickly(&self, ptr: *mut u8, old: Layout, new_size: usize) -> Option<*mut u8> {
        // The sum of a valid size and an alignment this small does not overflow.
        let new = Layout::from_size_align(new_size, old.align()).ok()?;
        let class = SizeClass::of(old)?;
        let new_class = SizeClass::of(new)?;
        let (arena, pool) = self.control.get()?.directory.find(ptr.addr())?;
        let busy = self.enter()?;
        if !pool.is_owned_by(busy.owner) || !pool.is_of(class) {
            return None;
        }
        let index = pool.index_at(ptr.addr() % UNIT_SIZE)?;
        let (slot, new_slot) = (busy.owner.slot(class)?, busy.owner.slot(new_class)?);
        if class == new_class {
            if pool.is_free(index) {
                return None;
            }
            slot.requested_bytes.sub(old.size() as u64);
            slot.requested_bytes.add(new_size as u64);
            return Some(ptr);
        }
        let moved = new_slot.take(new_size)?;
        let Some(is_empty) = pool.give_back_quickly(arena, index, slot) else {
            drop(busy);
            self.give_back(moved.addr(), new);
            return None;
        };
        slot.count_given(old.size());
        if P::HAS_MEMORY {
            // SAFETY: H3: both are blocks of at least this size, the new one is nobody's yet. The old one
            // has been given back already, but only this thread can hand out a block of its pool, or give
            // the pool back, and does neither before this is done.
            unsafe { moved.copy_from_nonoverlapping(ptr, old.size().min(new_size)) };
        }
        if is_empty {
            self.end_empty(busy, pool);
        }
        Some(moved)
    }

    /// Resizes the block at `ptr` without copying it, or says that it must be copied, or counts why
    /// it is none.
    fn resize(&self, ptr: *mut u8, old: Layout, new: Layout) -> Resized {
        let Some(shared) = self.shared() else { return Resized::Refused };
        let (addr, old_size, new_size) = (ptr.addr(), old.size(), new.size());
        let resized = match (place_of(old), place_of(new)) {
            (Place::Pool(class), by_new) => {
                let is_same = by_new == Place::Pool(class);
                let new_size = is_same.then_some(new_size);
                let resize = |busy: &Busy<'_>| {
                    shared.resize_block(busy.owner, addr, class, old_size, new_size)
                };
                let resized = match self.enter() {
                    Some(busy) => resize(&busy),
                    None => Self::with_owner(shared, |busy| Some(resize(&busy)))
                        // Without memory for an owner nothing can be said of the block.
                        .unwrap_or(Ok(false)),
                };
                resized.map(|is_resized| is_resized.then_some(ptr))
            }
            (Place::Run(_), by_new) if shared.is_in_arena(addr) => match by_new {
                Place::Run(extent) => shared
                    .resize_run(addr, old_size, extent, new_size)
                    .map(|is_resized| is_resized.then_some(ptr)),
                _ => shared.check_run(addr, old_size).map(|()| None),
            },
            (Place::Run(_) | Place::Mapping, Place::Mapping) => {
                // What moves is aligned to a page and to no more.
                let must_stay = old.align() > crate::pages::PAGE_SIZE;
                // SAFETY: the old address is used no more: `realloc` ends it, or the block stays.
                shared.resize_mapping(addr, old_size, new_size, must_stay, |region, size| unsafe {
                    region.remap(self.source(), size)
                })
            }
            (Place::Run(_) | Place::Mapping, _) => {
                shared.check_mapping(addr, old_size).map(|()| None)
            }
        };
        match resized {
            Ok(Some(block)) => Resized::At(block),
            Ok(None) => Resized::MustCopy,
            Err(reason) => {
                shared.control.invalid.count(shared.refine(reason, addr));
                Resized::Refused
            }
        }
    }

    /// Resizes a block, moving it if it must; null, with the block as it was, if that cannot be.
    pub(crate) fn resize_or_move(&self, ptr: *mut u8, old: Layout, new_size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(new_size, old.align()) else {
            return ptr::null_mut();
        };
        match self.resize(ptr, old, new) {
            Resized::At(block) => block,
            Resized::Refused => ptr::null_mut(),
            Resized::MustCopy => {
                let moved = self.take(new, false);
                if moved.is_null() {
                    return moved;
                }
                if P::HAS_MEMORY {
                    // SAFETY: H3: both are blocks of at least this size, the old one is in use, by the
                    // caller alone, and the new one is nobody's yet, so they do not overlap.
                    unsafe { moved.copy_from_nonoverlapping(ptr, old.size().min(new_size)) };
                }
                self.give_back(ptr.addr(), old);
                moved
            }
        }
    }
}

// SAFETY: H3 for the blocks; nothing here unwinds, and nothing allocates through the global allocator
// (I4 of the page source, and records are mapped).
unsafe impl<P: PageSource> GlobalAlloc for Heap<P> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout, false)
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.take(layout, true)
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        self.give_back(ptr.addr(), layout);
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        match self.resize_quickly(ptr, layout, new_size) {
            Some(block) => block,
            None => self.resize_or_move(ptr, layout, new_size),
        }
    }
}

impl<P: PageSource> Drop for Heap<P> {
    fn drop(&mut self) {
        let Some(control) = self.control.get() else { return };
        fork::unregister(control);
        thread::forget(control.id.get());
        let source = self.source();
        for arenas in control.all_arenas() {
            let mut arena = arenas.latest();
            while let Some(at) = arena {
                arena = at.older.get();
                at.words.take().abandon_records(source);
                // SAFETY: blocks end with their heap, which is documented.
                unsafe { at.memory.take().unmap(source) };
                // SAFETY: nobody uses the heap any more, and the list is not followed again.
                unsafe { unmap_record(source, at) };
            }
        }
        let mut owner = control.owners.latest();
        while let Some(at) = owner {
            owner = at.older.get();
            // SAFETY: as above.
            unsafe { unmap_record(source, at) };
        }
        for leaf in control.directory.leaves() {
            // SAFETY: as above.
            unsafe { unmap_record(source, leaf) };
        }
        if let Some(mut guard) = control.lock.lock() {
            let mappings = core::mem::take(&mut guard.mappings);
            // SAFETY: blocks end with their heap.
            mappings.unmap(source, |mapping| unsafe { mapping.region.unmap(source) });
        }
        // SAFETY: the last of the records, out of the fork handlers' list.
        unsafe { unmap_record(source, control) };
    }
}
