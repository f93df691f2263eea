//! The truth: every live block, kept by the allocator that memtrace wraps.
//!
//! The table is cut into shards, each under a mutex, in memory of the system's allocator. A block is in it
//! from after the system handed it out until before the system gets it back. What a request was for (its
//! call site, whether the thread is in an untraced section) the requester has left in thread-local cells.
//!
//! # Which blocks are traced
//!
//! Toggles are counted by a clock that is odd while one is going on. A block is stamped with the clock
//! before its request began, and after it ended. So one whose request began after the last toggle must have
//! a trace if tracing is on; one whose request ended before the last toggle must have none; and of one
//! whose request overlapped a toggle both answers are right.

use crate::report::{FIGURES, count, ensure};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

const N_SHARDS: usize = 256;
const FIRST_LEN: usize = 256;
/// New sizes from here on are refused now and then.
const REFUSED_SIZE: usize = 64 << 10;

/// The tag of requests that the standard library makes.
pub(crate) const NO_TAG: u32 = u32::MAX;
/// The time of a request that has not ended, as far as is known.
const UNKNOWN_END: u32 = u32::MAX;
const NO_TIME: u32 = u32::MAX;

/// How many toggles have begun and ended: odd while one is going on.
pub(crate) static CLOCK: AtomicU32 = AtomicU32::new(2);
/// Whether this process is a forked child, of which no truth is kept: another thread may have held the lock
/// of a shard.
pub(crate) static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// What is known of a live block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Zero in an empty slot.
    pub(crate) addr: usize,
    pub(crate) size: usize,
    /// The clock when the request began that allocated or last resized it.
    pub(crate) begun: u32,
    /// The clock when that had ended.
    ended: u32,
    /// Which function asked for it.
    pub(crate) tag: u32,
    /// The system's number of the thread that did; 0 if the recorder need not know it.
    pub(crate) os_id: u32,
    /// Whether it was not in an untraced section.
    pub(crate) is_traced: bool,
}

/// Whether a block has a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Trace,
    None,
    Either,
}

impl Block {
    const EMPTY: Self =
        Self { addr: 0, size: 0, begun: 0, ended: 0, tag: 0, os_id: 0, is_traced: false };

    /// What is to be expected at a quiet time. `is_steady` if there was no toggle since all threads were
    /// quiet before.
    pub(crate) fn expected(&self, is_on: bool, is_steady: bool) -> Expected {
        let last = CLOCK.load(SeqCst);
        match self.begun == last {
            _ if !self.is_traced || !is_on => Expected::None,
            true => Expected::Trace,
            false if is_steady || self.ended < last - 1 => Expected::None,
            false => Expected::Either,
        }
    }
}

/// What a thread says of the request that it is about to make.
struct Request {
    tag: Cell<u32>,
    begun: Cell<u32>,
    n_untraced: Cell<u32>,
    os_id: Cell<u32>,
}

thread_local! {
    static REQUEST: Request = const {
        Request {
            tag: Cell::new(NO_TAG),
            begun: Cell::new(NO_TIME),
            n_untraced: Cell::new(0),
            os_id: Cell::new(0),
        }
    };
}

/// Makes a request in the name of a tag, which says which block there is then.
pub(crate) fn request(tag: u32, make: impl FnOnce() -> *mut u8) -> *mut u8 {
    REQUEST.with(|request| {
        request.tag.set(tag);
        request.begun.set(CLOCK.load(SeqCst));
    });
    let block = make();
    REQUEST.with(|request| {
        request.tag.set(NO_TAG);
        request.begun.set(NO_TIME);
    });
    if !block.is_null() {
        crate::ALLOC.inner().end_request(block);
    }
    block
}

/// Runs `f` in an untraced section.
pub(crate) fn untraced<R>(f: impl FnOnce() -> R) -> R {
    memtrace_alloc::untraced(|| {
        REQUEST.with(|request| request.n_untraced.set(request.n_untraced.get() + 1));
        let result = f();
        REQUEST.with(|request| request.n_untraced.set(request.n_untraced.get() - 1));
        result
    })
}

fn os_id() -> u32 {
    REQUEST.with(|request| {
        if request.os_id.get() == 0 {
            // SAFETY: a system call without arguments.
            request.os_id.set(unsafe { libc::gettid() } as u32);
        }
        request.os_id.get()
    })
}

/// Linear probing, at most half full.
struct Table {
    slots: *mut Block,
    /// A power of two, or zero.
    n_slots: usize,
    n_used: usize,
}

// SAFETY: the slots belong to the table alone.
unsafe impl Send for Table {}

impl Table {
    const fn new() -> Self {
        Self { slots: ptr::null_mut(), n_slots: 0, n_used: 0 }
    }

    fn slots(&mut self) -> &mut [Block] {
        if self.slots.is_null() {
            return &mut [];
        }
        // SAFETY: allocated with this length and filled.
        unsafe { std::slice::from_raw_parts_mut(self.slots, self.n_slots) }
    }

    /// The slot that holds an address, or the empty one that ends its probe.
    fn find(&mut self, addr: usize) -> usize {
        let mask = self.n_slots - 1;
        let mut i = hash(addr) & mask;
        while !matches!(self.slots()[i].addr, held if held == addr || held == 0) {
            i = (i + 1) & mask;
        }
        i
    }

    fn grow(&mut self) {
        let n_slots = (self.n_slots * 2).max(FIRST_LEN);
        let layout = Layout::array::<Block>(n_slots).expect("a table is small");
        // SAFETY: the size is not zero.
        let slots = unsafe { System.alloc(layout) }.cast::<Block>();
        ensure!(!slots.is_null(), "there is no memory for the truth");
        for i in 0..n_slots {
            // SAFETY: within what was allocated.
            unsafe { slots.add(i).write(Block::EMPTY) };
        }
        let mut old = std::mem::replace(self, Self { slots, n_slots, n_used: 0 });
        for &mut block in old.slots() {
            if block.addr != 0 {
                self.insert(block);
            }
        }
        if !old.slots.is_null() {
            let layout = Layout::array::<Block>(old.n_slots).expect("it was smaller");
            // SAFETY: allocated with this layout.
            unsafe { System.dealloc(old.slots.cast(), layout) };
        }
    }

    /// Returns what was there already.
    fn insert(&mut self, block: Block) -> Option<Block> {
        if self.n_used >= self.n_slots / 2 {
            self.grow();
        }
        let i = self.find(block.addr);
        let old = std::mem::replace(&mut self.slots()[i], block);
        self.n_used += usize::from(old.addr == 0);
        (old.addr != 0).then_some(old)
    }

    fn get(&mut self, addr: usize) -> Option<&mut Block> {
        if self.n_slots == 0 {
            return None;
        }
        let i = self.find(addr);
        self.slots().get_mut(i).filter(|block| block.addr != 0)
    }

    fn remove(&mut self, addr: usize) -> Option<Block> {
        let removed = *self.get(addr)?;
        let mask = self.n_slots - 1;
        let mut hole = self.find(addr);
        // Whatever could not be found behind a hole moves into it.
        let mut i = hole;
        loop {
            i = (i + 1) & mask;
            let moving = self.slots()[i];
            if moving.addr == 0 {
                break;
            }
            if i.wrapping_sub(hash(moving.addr)) & mask >= i.wrapping_sub(hole) & mask {
                self.slots()[hole] = moving;
                hole = i;
            }
        }
        self.slots()[hole] = Block::EMPTY;
        self.n_used -= 1;
        Some(removed)
    }
}

fn mixed(addr: usize) -> usize {
    (addr >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Other bits than those that choose the shard.
fn hash(addr: usize) -> usize {
    mixed(addr) >> 20
}

#[repr(align(128))]
struct Shard {
    table: Mutex<Table>,
    /// All `Relaxed`: counts.
    n_allocations: AtomicU64,
    n_releases: AtomicU64,
    n_resizes: AtomicU64,
}

impl Shard {
    const fn new() -> Self {
        Self {
            table: Mutex::new(Table::new()),
            n_allocations: AtomicU64::new(0),
            n_releases: AtomicU64::new(0),
            n_resizes: AtomicU64::new(0),
        }
    }
}

/// Calls that reached the allocator.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) n_allocations: u64,
    pub(crate) n_releases: u64,
    pub(crate) n_resizes: u64,
}

/// The system's allocator, which refuses some requests, and the truth about its blocks.
pub(crate) struct Truth {
    shards: [Shard; N_SHARDS],
    /// Of so many large resizes one is refused; 0 for none.
    refuse_every: AtomicU64,
    n_large_resizes: AtomicU64,
    /// Of so many releases the truth misses one; 0 for none.
    miss_every: AtomicU64,
    n_missable: AtomicU64,
}

impl Truth {
    pub(crate) const fn new() -> Self {
        Self {
            shards: [const { Shard::new() }; N_SHARDS],
            refuse_every: AtomicU64::new(0),
            n_large_resizes: AtomicU64::new(0),
            miss_every: AtomicU64::new(0),
            n_missable: AtomicU64::new(0),
        }
    }

    /// Lets of so many large resizes one fail, and the truth miss one of so many releases; 0 for none.
    pub(crate) fn disturb(&self, refuse_every: u64, miss_every: u64) {
        self.refuse_every.store(refuse_every, Relaxed);
        self.miss_every.store(miss_every, Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shards.iter().fold(Counts::default(), |sum, shard| Counts {
            n_allocations: sum.n_allocations + shard.n_allocations.load(Relaxed),
            n_releases: sum.n_releases + shard.n_releases.load(Relaxed),
            n_resizes: sum.n_resizes + shard.n_resizes.load(Relaxed),
        })
    }

    /// Returns how many live blocks there are.
    pub(crate) fn n_blocks(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).n_used).sum()
    }

    /// Visits every live block. `visit` must not allocate.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(Block)) {
        for shard in &self.shards {
            lock(shard)
                .slots()
                .iter()
                .filter(|block| block.addr != 0)
                .for_each(|&block| visit(block));
        }
    }

    fn shard(&self, addr: usize) -> &Shard {
        &self.shards[mixed(addr) >> 12 & (N_SHARDS - 1)]
    }

    /// Stamps a block whose request has ended: of its present owner.
    pub(crate) fn end_request(&self, block: *mut u8) {
        let now = CLOCK.load(SeqCst);
        if let Some(block) = lock(self.shard(block.addr())).get(block.addr()) {
            block.ended = now;
        }
    }

    fn insert(&self, block: Block) {
        let old = lock(self.shard(block.addr)).insert(block);
        ensure!(
            old.is_none() || self.miss_every.load(Relaxed) != 0,
            "a live block was handed out again: {block:x?}, and before {old:x?}"
        );
    }

    fn remove(&self, addr: usize) -> Block {
        let removed = lock(self.shard(addr)).remove(addr);
        removed.unwrap_or_else(|| {
            crate::report::differs(format_args!("{addr:#x} was given back and was not live"))
        })
    }

    fn allocated(&self, block: *mut u8, size: usize) -> *mut u8 {
        if block.is_null() || IS_CHILD.load(Relaxed) {
            return block;
        }
        let os_id = os_id();
        let block_of = |request: &Request| Block {
            addr: block.addr(),
            size,
            begun: match request.begun.get() {
                NO_TIME => CLOCK.load(SeqCst),
                time => time,
            },
            ended: UNKNOWN_END,
            tag: request.tag.get(),
            os_id,
            is_traced: request.n_untraced.get() == 0,
        };
        self.insert(REQUEST.with(block_of));
        count(&self.shard(block.addr()).n_allocations);
        block
    }

    /// The block that a resized one is now.
    fn resized(&self, old: Block, addr: usize, size: usize) -> Block {
        REQUEST.with(|request| {
            if request.n_untraced.get() != 0 {
                // It was traced or not, and stays so, with its stack; born anew, if it was.
                return Block { addr, size, ended: UNKNOWN_END, os_id: 0, ..old };
            }
            Block {
                addr,
                size,
                // Whether tracing is on is looked at before the resize: the time of one that has not been
                // told is not known.
                begun: match request.begun.get() {
                    NO_TIME if crate::rounds::is_steady() => CLOCK.load(SeqCst),
                    NO_TIME => 0,
                    time => time,
                },
                ended: UNKNOWN_END,
                tag: request.tag.get(),
                os_id: os_id(),
                is_traced: true,
            }
        })
    }

    fn is_refused(&self, new_size: usize) -> bool {
        let every = self.refuse_every.load(Relaxed);
        // The standard library's must not fail.
        let may_fail = REQUEST.with(|request| request.tag.get() != NO_TAG);
        every != 0
            && may_fail
            && new_size >= REFUSED_SIZE
            && self.n_large_resizes.fetch_add(1, Relaxed) % every == every - 1
    }

    fn is_missed(&self) -> bool {
        let every = self.miss_every.load(Relaxed);
        every != 0 && self.n_missable.fetch_add(1, Relaxed) % every == every - 1
    }
}

fn lock(shard: &Shard) -> MutexGuard<'_, Table> {
    // A mutex of std does not allocate.
    shard.table.lock().unwrap_or_else(PoisonError::into_inner)
}

// SAFETY: everything goes to the system's allocator unchanged; a resize that is refused leaves its block
// alone, as the contract allows.
unsafe impl GlobalAlloc for Truth {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        self.allocated(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        self.allocated(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !IS_CHILD.load(Relaxed) {
            count(&self.shard(block.addr()).n_releases);
            if self.is_missed() {
                count(&FIGURES.n_spoilt);
            } else {
                let removed = self.remove(block.addr());
                ensure!(
                    removed.size == layout.size(),
                    "a block was given back with {} bytes: {removed:x?}",
                    layout.size()
                );
            }
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if IS_CHILD.load(Relaxed) {
            // SAFETY: the caller's promise.
            return unsafe { System.realloc(block, layout, new_size) };
        }
        count(&self.shard(block.addr()).n_resizes);
        // Another thread may get the address before the system's allocator returns.
        let old = self.remove(block.addr());
        let resized = if self.is_refused(new_size) {
            ptr::null_mut()
        } else {
            // SAFETY: the caller's promise.
            unsafe { System.realloc(block, layout, new_size) }
        };
        if resized.is_null() {
            count(&FIGURES.n_failed_resizes);
            self.insert(Block { ended: UNKNOWN_END, ..old });
        } else {
            if resized != block {
                count(&FIGURES.n_moved);
            }
            self.insert(self.resized(old, resized.addr(), new_size));
        }
        resized
    }
}
