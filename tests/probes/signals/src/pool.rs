//! The wrapped allocator: one that signal handlers may use, and that knows what is live.
//!
//! The system's allocator holds a lock while it works, so that a handler which interrupts it and
//! allocates waits for itself. This one has no locks: each size class is an array of slots in mapped
//! memory, and a list of those given back whose head carries a count of its changes, so that a head
//! that was read is not taken for the same head later.
//!
//! Beside each slot lies a word that is the truth about it: zero while it is free, else the size that
//! was asked for and two marks. Whoever finds a slot in another state than it must be in ends the
//! process.
//!
//! # Orderings
//!
//! `heads` are changed with `AcqRel`, so that who takes a slot sees what was written by who gave it
//! back, its link above all. Words are `Relaxed`: each belongs to the owner of the block, and others
//! read them when all threads have been joined.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
};

/// The smallest class, of 16 bytes, and the largest, of a megabyte, as powers of two.
const MIN_SHIFT: u32 = 4;
const MAX_SHIFT: u32 = 20;
const N_CLASSES: usize = (MAX_SHIFT - MIN_SHIFT) as usize + 1;
/// Address space of a class in bytes.
const CLASS_BYTES: usize = 256 << 20;

/// Marks of a live block: it was live when the truth began, or the recorder lost it.
const FROM_BEFORE: u64 = 1;
const LOST: u64 = 2;

pub(crate) struct Pool {
    classes: [Class; N_CLASSES],
    /// Where the slots of all classes lie.
    slots: AtomicPtr<u8>,
}

struct Class {
    /// The slot on top of those given back, plus one, below a count of changes.
    head: AtomicU64,
    n_used: AtomicU32,
    /// For each slot its word, and then for each the next one given back, plus one.
    words: AtomicPtr<AtomicU64>,
    links: AtomicPtr<AtomicU32>,
}

/// A live block, as the truth has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) addr: u64,
    pub(crate) size: u64,
    pub(crate) is_lost: bool,
}

impl Pool {
    pub(crate) const fn new() -> Self {
        Self {
            classes: [const { Class::new() }; N_CLASSES],
            slots: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Counts from now: what is live is none of the tracer's business until it is resized.
    ///
    /// The only thread calls this, without being interrupted.
    pub(crate) fn begin(&self) {
        for class in &self.classes {
            class.words().iter().for_each(|word| {
                if word.load(Relaxed) != 0 {
                    word.fetch_or(FROM_BEFORE, Relaxed);
                }
            });
        }
    }

    /// Notes that the recorder has no trace of a live block.
    pub(crate) fn mark_lost(&self, block: *mut u8) {
        match self.word_of(block) {
            Some(word) => _ = word.fetch_or(LOST, Relaxed),
            None => die("a block of nobody's is said to be lost\n"),
        }
    }

    /// Calls `visit` with all blocks that were handed out since [`Self::begin`] and are live.
    pub(crate) fn for_each_live(&self, mut visit: impl FnMut(Block)) {
        for (class, i) in self.classes.iter().zip(0..) {
            for (slot, word) in class.words().iter().enumerate() {
                let word = word.load(Relaxed);
                if word != 0 && word & FROM_BEFORE == 0 {
                    let addr = self.slot(i, slot).addr() as u64;
                    visit(Block { addr, size: word >> 2, is_lost: word & LOST != 0 });
                }
            }
        }
    }

    fn slot(&self, class: usize, slot: usize) -> *mut u8 {
        let offset = class * CLASS_BYTES + (slot << (MIN_SHIFT as usize + class));
        // Acquire pairs with `map`, which publishes the slots.
        self.slots.load(Acquire).wrapping_add(offset)
    }

    fn word_of(&self, block: *mut u8) -> Option<&AtomicU64> {
        let offset = block.addr().checked_sub(self.slots.load(Acquire).addr())?;
        let class = self.classes.get(offset / CLASS_BYTES)?;
        let slot = (offset % CLASS_BYTES) >> (MIN_SHIFT as usize + offset / CLASS_BYTES);
        class.words().get(slot)
    }

    /// Maps the memory of all classes, before there is a second thread or a handler.
    #[cold]
    fn map(&self) {
        for (i, class) in self.classes.iter().enumerate() {
            let n_slots = CLASS_BYTES >> (MIN_SHIFT as usize + i);
            class.words.store(mapped(n_slots * size_of::<u64>()).cast(), Relaxed);
            class.links.store(mapped(n_slots * size_of::<u32>()).cast(), Relaxed);
        }
        // Without a release, nobody else being there yet.
        self.slots.store(mapped(N_CLASSES * CLASS_BYTES), Relaxed);
    }
}

impl Class {
    const fn new() -> Self {
        Self {
            head: AtomicU64::new(0),
            n_used: AtomicU32::new(0),
            words: AtomicPtr::new(ptr::null_mut()),
            links: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The words of all slots that were ever used.
    fn words(&self) -> &[AtomicU64] {
        let words = self.words.load(Relaxed);
        if words.is_null() {
            return &[];
        }
        // SAFETY: mapped for all slots of the class, zeroed, for the life of the process.
        unsafe { std::slice::from_raw_parts(words, self.n_used.load(Relaxed) as usize) }
    }

    fn link(&self, slot: u32) -> &AtomicU32 {
        // SAFETY: mapped for all slots of the class, zeroed, for the life of the process.
        unsafe { &*self.links.load(Relaxed).add(slot as usize) }
    }

    fn take(&self, n_slots: usize) -> Option<u32> {
        let mut head = self.head.load(Acquire);
        while let Some(slot) = (head as u32).checked_sub(1) {
            let next = u64::from(self.link(slot).load(Relaxed)) | count_after(head);
            match self.head.compare_exchange_weak(head, next, AcqRel, Acquire) {
                Ok(_) => return Some(slot),
                Err(now) => head = now,
            }
        }
        let next = |n: u32| (n as usize != n_slots).then(|| n + 1);
        self.n_used.fetch_update(Relaxed, Relaxed, next).ok()
    }

    fn give_back(&self, slot: u32) {
        let mut head = self.head.load(Acquire);
        loop {
            self.link(slot).store(head as u32, Relaxed);
            let next = u64::from(slot + 1) | count_after(head);
            match self.head.compare_exchange_weak(head, next, AcqRel, Acquire) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }
}

/// The upper half of a head that takes the place of this one.
fn count_after(head: u64) -> u64 {
    (head >> 32).wrapping_add(1) << 32
}

fn mapped(n_bytes: usize) -> *mut u8 {
    // SAFETY: a new private mapping, at an address of the kernel's choice.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            n_bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        die("no address space for the pool\n");
    }
    start.cast()
}

/// Ends the process with a message, from anywhere.
pub(crate) fn die(message: &str) -> ! {
    // SAFETY: the bytes are readable.
    unsafe { libc::write(2, message.as_ptr().cast(), message.len()) };
    std::process::abort();
}

/// The class of a layout, and its shift.
fn class_of(layout: Layout) -> Option<usize> {
    let size = layout.size().max(layout.align()).max(1 << MIN_SHIFT);
    let shift = size.checked_next_power_of_two()?.trailing_zeros();
    (shift <= MAX_SHIFT).then_some((shift - MIN_SHIFT) as usize)
}

// SAFETY: a slot is as large as its class says and aligned to that, it belongs to one block from
// `take` to `give_back`, and nothing here unwinds.
unsafe impl GlobalAlloc for Pool {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.slots.load(Acquire).is_null() {
            self.map();
        }
        let Some(i) = class_of(layout) else { return ptr::null_mut() };
        let class = &self.classes[i];
        let Some(slot) = class.take(CLASS_BYTES >> (MIN_SHIFT as usize + i)) else {
            return ptr::null_mut();
        };
        if class.words()[slot as usize].swap((layout.size() as u64) << 2, Relaxed) != 0 {
            die("a live block was handed out again\n");
        }
        self.slot(i, slot as usize)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(i) = class_of(layout) else { die("a block too large was given back\n") };
        let offset = block.addr().wrapping_sub(self.slots.load(Acquire).addr());
        if offset / CLASS_BYTES != i {
            die("a block was given back with another layout\n");
        }
        let slot = (offset % CLASS_BYTES) >> (MIN_SHIFT as usize + i);
        if self.classes[i].words()[slot].swap(0, Relaxed) >> 2 != layout.size() as u64 {
            die("a block was given back that was not handed out so\n");
        }
        self.classes[i].give_back(slot as u32);
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else {
            return ptr::null_mut();
        };
        if class_of(layout) == class_of(new) {
            // In place, and from now on a block of the truth's.
            match self.word_of(block) {
                Some(word) => word.store((new_size as u64) << 2, Relaxed),
                None => die("a block of nobody's was resized\n"),
            }
            return block;
        }
        // SAFETY: the size is not zero.
        let resized = unsafe { self.alloc(new) };
        if !resized.is_null() {
            let n_bytes = layout.size().min(new_size);
            // SAFETY: both blocks are live, distinct, and at least so large.
            unsafe { ptr::copy_nonoverlapping(block, resized, n_bytes) };
            // SAFETY: the caller's promise: the block is live and has this layout.
            unsafe { self.dealloc(block, layout) };
        }
        resized
    }
}
