//! One pool: a run of units cut into blocks of one size class, with all its records outside of it.
//!
//! # Mechanism
//! A pool's blocks stand at multiples of the block size from its start. Which of them are free is a
//! bitmap of at most 4096 bits in 64 words, and a summary says which words have a free block. One
//! word at a time is *active*: its free blocks were moved into a [`Slot`] of the pool's owner, which
//! hands them out without looking here. Blocks that the owner frees go back to the word they belong
//! to, those of the active word into the slot. Threads that are not the owner set bits in a second
//! bitmap, which the owner collects now and then (module [`remote`](crate::remote)).
//!
//! Nothing is ever written inside a free block, so a use after free corrupts no list, and a double
//! free is a bit that is set already. Blocks come from the word in which the owner freed last, else from
//! the lowest that has any, and in a word lowest first: so what is handed out is likely to be in the
//! processor's caches, and a pool's last pages stay untouched as long as others do.
//!
//! # Invariants
//! - **P1** A record with class `c` is the first unit of a pool of `c.units_per_pool()` units, and
//!   the records of the others are [`Kind::Inner`] with the distance to it. `owner` is not null.
//! - **P2** Each block `i < n_blocks` is exactly one of: in use; free here (`free[i / 64]`); free in
//!   the slot (only of the active word); freed by another thread and not collected.
//! - **P3** Bit `w` of `free_words` is set exactly if `free[w] != 0`; `n_free` is the number of set
//!   bits in `free`. The active word is 0 in `free`.
//! - **P4** A pool is active in at most one slot; otherwise it is in its class's list of partly used
//!   pools if it has free blocks, and in none if it is full; it is given back when it has no block in
//!   use, unless a signal handler that cannot have the heap's lock frees the last.
//! - **P5** Blocks from `untouched_from` on were never handed out since their pages were zero, and
//!   neither were those in `untouched` of the active word.
//!
//! # Cost
//! Constant for taking, giving back and activating; up to 64 words are written when a pool begins.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

use crate::arena::Arena;
use crate::cells::{Cell8, Cell16, Cell32, Cell64, CellPtr, CellSize, Link};
use crate::class::SizeClass;
use crate::invalid::InvalidFree;
use crate::owner::{Owner, Slot};

/// The most words a bitmap has.
pub(crate) const N_WORDS: usize = 64;
const WORD_BITS: u32 = 64;
/// The fixed point of reciprocals.
const RECIPROCAL_BITS: u32 = 40;

/// What a unit serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Unused,
    /// It is the first unit of a pool of this class.
    Pool(SizeClass),
    /// It is the first unit of a run that is one large block.
    Run,
    /// It belongs to what begins this many units before.
    Inner(u8),
}

/// What giving a block back did to its pool's place in the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// It was full and is not any more.
    Opened,
    /// It has no block in use any more; `was_full` if it was full before.
    Emptied { was_full: bool },
}

const RUN: u8 = 254;
const INNER: u8 = 255;

impl Kind {
    /// 0 for an unused unit, a class's index plus 1, [`RUN`], or [`INNER`].
    pub(crate) fn code(self) -> u8 {
        match self {
            Kind::Unused => 0,
            // Below N_CLASSES, so the sum is small.
            Kind::Pool(class) => (class.index() as u8).wrapping_add(1),
            Kind::Run => RUN,
            Kind::Inner(_) => INNER,
        }
    }

    /// The kind with this code; for [`INNER`], of the unit itself.
    #[inline]
    pub(crate) fn of_code(code: u8) -> Kind {
        match code {
            RUN => Kind::Run,
            INNER => Kind::Inner(0),
            code => match code.checked_sub(1).and_then(|at| SizeClass::from_index(at as usize)) {
                Some(class) => Kind::Pool(class),
                None => Kind::Unused,
            },
        }
    }
}

/// The records of one unit.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Pool {
    // What every free reads, in one cache line.
    owner: Link<Owner>,
    reciprocal: Cell64,
    block_size: Cell32,
    /// Where the words of the blocks begin, in those of the arena.
    pub(crate) first_word: Cell32,
    /// The smallest size that is served here for its own sake; more than any for what is no pool.
    min_size: Cell32,
    n_free: Cell32,
    /// See [`Kind::code`].
    kind: Cell8,
    n_units_before: Cell8,
    /// The active word's index plus 1; 0 if none is.
    active: Cell8,
    /// How many blocks the active word has.
    n_in_active: Cell8,
    /// The word in which the owner last freed a block.
    latest: Cell8,
    unit: Cell8,
    n_blocks: Cell16,
    /// Words of `remote` that may have bits.
    pub(crate) remote_words: AtomicU64,
    free_words: Cell64,
    untouched: Cell64,

    // What only changes of the pool's place read.
    base: CellPtr,
    arena: Link<Arena>,
    pub(crate) prev: Link<Pool>,
    pub(crate) next: Link<Pool>,
    pub(crate) next_queued: Link<Pool>,
    untouched_from: Cell32,
    /// Odd while the active word changes; another number after each change.
    activation: AtomicU32,
    pub(crate) is_queued: AtomicBool,
    /// How many units the run has, if this is the first of one.
    pub(crate) n_run_units: Cell8,
    /// What was asked for with the run's block, in bytes.
    pub(crate) run_bytes: CellSize,
}

impl Pool {
    /// Tells the record of a unit where it belongs; for every unit of an arena, before it is used.
    pub(crate) fn place(&self, arena: &Arena, unit: u8, base: *mut u8) {
        self.arena.set(Some(arena));
        self.unit.set(unit);
        self.base.set(base);
    }

    #[inline]
    pub(crate) fn arena(&self) -> Option<&Arena> {
        self.arena.get()
    }

    #[inline]
    pub(crate) fn unit(&self) -> u8 {
        self.unit.get()
    }

    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.get()
    }

    #[inline]
    fn free_word(&self, at: u32) -> Option<&Cell64> {
        self.arena.get()?.free_word(self.unit.get(), at)
    }

    /// Word `at` of the blocks that other threads have freed.
    #[inline]
    pub(crate) fn remote_word(&self, at: u32) -> Option<&AtomicU64> {
        self.arena.get()?.remote_word(self.unit.get(), at)
    }

    /// Both bitmaps, word for word.
    fn bitmaps(&self) -> impl Iterator<Item = (&Cell64, &AtomicU64)> {
        (0..N_WORDS as u32).filter_map(|at| Some((self.free_word(at)?, self.remote_word(at)?)))
    }

    /// Whether other threads have freed blocks that were not collected, as far as is known here.
    #[inline]
    pub(crate) fn has_remote(&self) -> bool {
        // Relaxed: a hint; what it misses is found later.
        self.remote_words.load(Ordering::Relaxed) != 0
    }

    /// What the unit serves.
    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        match Kind::of_code(self.kind.get()) {
            Kind::Inner(_) => Kind::Inner(self.n_units_before.get()),
            kind => kind,
        }
    }

    pub(crate) fn set_kind(&self, kind: Kind) {
        self.n_units_before.set(if let Kind::Inner(n_before) = kind { n_before } else { 0 });
        self.kind.set(kind.code());
        self.min_size.set(match kind {
            Kind::Pool(class) => class.min_size() as u32,
            _ => u32::MAX,
        });
    }

    /// Whether it is the first unit of a pool of `class`.
    #[inline]
    pub(crate) fn is_of(&self, class: SizeClass) -> bool {
        self.kind.get() == (class.index() as u8).wrapping_add(1)
    }

    /// Whether a block of `size` bytes, with an alignment that asks for nothing special, is served here
    /// and nowhere else.
    #[inline]
    pub(crate) fn is_for(&self, size: usize) -> bool {
        let (min, max) = (self.min_size.get() as usize, self.block_size.get() as usize);
        size.wrapping_sub(min) <= max.wrapping_sub(min)
    }

    /// The class, for the first unit of a pool.
    #[inline]
    pub(crate) fn class(&self) -> Option<SizeClass> {
        SizeClass::from_index(self.kind.get().wrapping_sub(1) as usize)
    }

    /// The owner, with what it wrote before it became that.
    #[inline]
    pub(crate) fn owner(&self) -> Option<&Owner> {
        self.owner.get_published()
    }

    #[inline]
    pub(crate) fn is_owned_by(&self, owner: &Owner) -> bool {
        self.owner.is(owner)
    }

    #[inline]
    pub(crate) fn n_blocks(&self) -> u32 {
        u32::from(self.n_blocks.get())
    }

    #[inline]
    pub(crate) fn block_size(&self) -> usize {
        self.block_size.get() as usize
    }

    #[inline]
    pub(crate) fn n_free(&self) -> u32 {
        self.n_free.get()
    }

    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.active.get() != 0
    }

    /// Makes an unused unit the first of a pool of `class` that belongs to `owner`; `is_zero` if its
    /// pages are.
    pub(crate) fn begin(&self, class: SizeClass, owner: &Owner, is_zero: bool) {
        let (block_size, n_blocks) = (class.block_size(), class.blocks_per_pool());
        self.block_size.set(block_size as u32);
        self.n_blocks.set(n_blocks as u16);
        self.reciprocal.set(reciprocal(block_size as u64));
        self.active.set(0);
        self.n_free.set(n_blocks as u32);
        self.untouched.set(0);
        self.untouched_from.set(if is_zero { 0 } else { n_blocks as u32 });
        let mut words = 0;
        for (at, (free, remote)) in self.bitmaps().enumerate() {
            let bits = valid_bits(n_blocks, at);
            if bits == 0 && free.get() == 0 {
                break;
            }
            free.set(bits);
            words |= u64::from(bits != 0).wrapping_shl(at as u32);
            // Relaxed: left over only by a block freed twice by two threads at once.
            remote.store(0, Ordering::Relaxed);
        }
        self.free_words.set(words);
        self.set_kind(Kind::Pool(class));
        // What another thread's free reads is there before the owner is.
        self.owner.publish(Some(owner));
    }

    /// Makes a pool without blocks in use an unused unit.
    pub(crate) fn end(&self) {
        self.owner.publish(None);
        self.set_kind(Kind::Unused);
    }

    /// The index of the block that starts `offset` bytes into the pool.
    #[inline]
    pub(crate) fn index_at(&self, offset: usize) -> Option<u32> {
        // Exact for offsets below 2^19 and block sizes up to 2^16, by the argument at `reciprocal`.
        let product = (offset as u64).wrapping_mul(self.reciprocal.get());
        let index = product.wrapping_shr(RECIPROCAL_BITS) as u32;
        let is_start = index.wrapping_mul(self.block_size.get()) == offset as u32;
        (is_start && index < self.n_blocks()).then_some(index)
    }

    /// Moves the free blocks of a word into `slot`; `false` if none has any.
    #[inline]
    pub(crate) fn activate(&self, slot: &Slot) -> bool {
        let words = self.free_words.get();
        // What was freed last is the likeliest to be in the processor's caches.
        let latest = u32::from(self.latest.get());
        let at = if words & bit(latest) != 0 { latest } else { words.trailing_zeros() };
        let Some(word) = self.free_word(at) else { return false };
        let change = self.begin_change();
        let bits = word.get();
        word.set(0);
        self.free_words.set(words & !bit(at));
        self.n_free.sub(bits.count_ones());
        self.active.set((at as u8).wrapping_add(1));
        // P5: both are multiples of a word, or the number of blocks.
        let first = at.wrapping_mul(WORD_BITS);
        self.n_in_active.set(self.n_blocks().wrapping_sub(first).min(WORD_BITS) as u8);
        let is_untouched = self.untouched_from.get() <= first;
        self.untouched.set(if is_untouched { bits } else { 0 });
        if is_untouched {
            self.untouched_from.set(first.wrapping_add(WORD_BITS));
        }
        // Inside the pool, hence below 2^19.
        let offset = first.wrapping_mul(self.block_size.get());
        let start = self.base.get().wrapping_add(offset as usize);
        slot.open(self, start, self.block_size.get(), bits);
        self.end_change(change);
        true
    }

    /// Says to other threads that the active word changes.
    #[inline]
    fn begin_change(&self) -> u32 {
        // Relaxed: only the owner writes it. The fence orders it before what changes; with `end_change`
        // this is the writer's side of a sequence lock (Boehm, "Can seqlocks get along with programming
        // language memory models?", 2012).
        let change = self.activation.load(Ordering::Relaxed).wrapping_add(1);
        self.activation.store(change, Ordering::Relaxed);
        fence(Ordering::Release);
        change
    }

    #[inline]
    fn end_change(&self, change: u32) {
        // Release pairs with the Acquire of `is_free_in_slot`.
        self.activation.store(change.wrapping_add(1), Ordering::Release);
    }

    /// Moves the blocks of the active word back out of `slot`.
    pub(crate) fn deactivate(&self, slot: &Slot) {
        let change = self.begin_change();
        let bits = slot.close();
        if let Some(word) = self.active_word() {
            word.set(bits);
            self.n_free.add(bits.count_ones());
            if bits != 0 {
                self.free_words.set(self.free_words.get() | bit(u32::from(self.active_index())));
            }
        }
        self.active.set(0);
        self.end_change(change);
    }

    #[inline]
    fn active_index(&self) -> u8 {
        self.active.get().wrapping_sub(1)
    }

    #[inline]
    fn active_word(&self) -> Option<&Cell64> {
        self.free_word(u32::from(self.active_index()))
    }

    /// Whether the block of the active word with this bit was never handed out.
    #[inline]
    pub(crate) fn is_untouched(&self, mask: u64) -> bool {
        self.untouched.get() & mask != 0
    }

    /// Notes that the block of the active word with this bit was handed out; `false`, with nothing done,
    /// if there is no such block, or other threads have freed blocks that were not collected.
    #[inline(always)]
    pub(crate) fn touch(&self, index_in_word: u32, mask: u64) -> bool {
        let n_left = u32::from(self.n_in_active.get());
        // Relaxed: a hint; what it misses is found when the bits are collected.
        if index_in_word >= n_left || self.remote_words.load(Ordering::Relaxed) != 0 {
            return false;
        }
        self.untouched.set(self.untouched.get() & !mask);
        true
    }

    /// Marks block `index` as free, for the pool's owner with its `slot` of this class and the
    /// pool's arena, and puts the pool into the slot's list if it was full; tells whether it is empty now.
    /// `None`, with nothing done, if the block may be free.
    #[inline(always)]
    pub(crate) fn give_back_quickly(&self, arena: &Arena, index: u32, slot: &Slot) -> Option<bool> {
        let (at, mask) = (index / WORD_BITS, bit(index % WORD_BITS));
        // Relaxed: a hint; what it misses is found when the bits are collected.
        if self.remote_words.load(Ordering::Relaxed) & bit(at) != 0 {
            return None;
        }
        if u32::from(self.active.get()) == at.wrapping_add(1) {
            let available = slot.available.get();
            if available & mask != 0 {
                return None;
            }
            slot.available.set(available | mask);
            self.untouched.set(self.untouched.get() & !mask);
            return Some(false);
        }
        let word = arena.free_word(self.unit.get(), at)?;
        let bits = word.get();
        if bits & mask != 0 {
            return None;
        }
        word.set(bits | mask);
        self.latest.set(at as u8);
        self.free_words.set(self.free_words.get() | bit(at));
        let n_free = self.n_free.get().wrapping_add(1);
        self.n_free.set(n_free);
        if n_free == 1 && !self.is_active() {
            slot.link(self);
        }
        Some(n_free == self.n_blocks())
    }

    /// Marks block `index` as free, for the pool's owner with its `slot` of this class.
    pub(crate) fn give_back(&self, index: u32, slot: &Slot) -> Result<Change, InvalidFree> {
        if self.is_free(index) {
            return Err(InvalidFree::Double);
        }
        let n_before = self.n_free.get();
        self.absorb(index / WORD_BITS, bit(index % WORD_BITS), slot);
        Ok(self.change_from(n_before))
    }

    /// What has changed since `n_free` was `n_before`.
    #[inline]
    pub(crate) fn change_from(&self, n_before: u32) -> Change {
        let n_free = self.n_free.get();
        if self.is_active() || n_free == n_before {
            Change::None
        } else if n_free == self.n_blocks() {
            Change::Emptied { was_full: n_before == 0 }
        } else if n_before == 0 {
            Change::Opened
        } else {
            Change::None
        }
    }

    /// Takes over blocks of word `at` that other threads have freed; returns those that were free
    /// already.
    #[inline]
    pub(crate) fn absorb(&self, at: u32, bits: u64, slot: &Slot) -> u64 {
        if u32::from(self.active.get()) == at.wrapping_add(1) {
            let available = slot.available.get();
            slot.available.set(available | bits);
            self.untouched.set(self.untouched.get() & !bits);
            return available & bits;
        }
        let Some(word) = self.free_word(at) else { return bits };
        let before = word.get();
        word.set(before | bits);
        self.n_free.add((bits & !before).count_ones());
        if bits != 0 {
            self.free_words.set(self.free_words.get() | bit(at));
        }
        before & bits
    }

    /// Whether block `index` is free, not looking at the slot: for threads other than the owner, to whom
    /// the active word and the blocks in the slot may seem to belong together when they do not.
    #[inline]
    pub(crate) fn is_free_outside(&self, index: u32) -> bool {
        self.free_bits_outside(index / WORD_BITS) & bit(index % WORD_BITS) != 0
    }

    /// Whether block `index` is free in the owner's slot, for other threads: `false` also if the active
    /// word changes while this looks, which it does not unless the owner is at work.
    pub(crate) fn is_free_in_slot(&self, index: u32) -> bool {
        let (at, mask) = (index / WORD_BITS, bit(index % WORD_BITS));
        if u32::from(self.active.get()) != at.wrapping_add(1) {
            return false;
        }
        // Acquire pairs with the Release of `end_change`; the fence with that of `begin_change`: if the
        // number is the same before and after, and even, what lies in between belongs together.
        let before = self.activation.load(Ordering::Acquire);
        let bits = self.bits_in_slot(at);
        fence(Ordering::Acquire);
        let after = self.activation.load(Ordering::Relaxed);
        before == after && before.is_multiple_of(2) && bits & mask != 0
    }

    /// The free blocks of word `at` that are seen so.
    #[inline]
    pub(crate) fn free_bits_outside(&self, at: u32) -> u64 {
        // Relaxed: the bit of a block in use is set in neither word at any time.
        let remote = self.remote_word(at).map_or(0, |bits| bits.load(Ordering::Relaxed));
        let here = self.free_word(at).map_or(0, Cell64::get);
        here | remote
    }

    /// Whether block `index` is free; for the owner.
    #[inline]
    pub(crate) fn is_free(&self, index: u32) -> bool {
        let (at, mask) = (index / WORD_BITS, bit(index % WORD_BITS));
        self.free_bits(at) & mask != 0
    }

    /// The free blocks of word `at`, wherever they are (P2).
    #[inline]
    pub(crate) fn free_bits(&self, at: u32) -> u64 {
        let here = self.free_word(at).map_or(0, Cell64::get);
        // Relaxed: exact if nobody changes them meanwhile, which is what is promised.
        let remote = self.remote_word(at).map_or(0, |bits| bits.load(Ordering::Relaxed));
        here | remote | self.bits_in_slot(at)
    }

    #[inline]
    fn bits_in_slot(&self, at: u32) -> u64 {
        if u32::from(self.active.get()) != at.wrapping_add(1) {
            return 0;
        }
        let Kind::Pool(class) = self.kind() else { return 0 };
        let slot = self.owner.get().and_then(|owner| owner.slot(class));
        slot.map_or(0, |slot| slot.available.get())
    }

    /// The blocks in use of each word, lowest first.
    pub(crate) fn used_bits(&self) -> impl Iterator<Item = u64> {
        let n_blocks = self.n_blocks() as usize;
        let n_words = n_blocks.div_ceil(WORD_BITS as usize) as u32;
        (0..n_words).map(move |at| valid_bits(n_blocks, at as usize) & !self.free_bits(at))
    }

    /// How many blocks are in use, counted.
    pub(crate) fn n_used(&self) -> u32 {
        self.used_bits().map(u64::count_ones).sum()
    }

    /// Whether P2 and P3 hold, and P4 as far as the record tells; exact while nobody changes it.
    pub(crate) fn is_consistent(&self, class: SizeClass) -> bool {
        let n_blocks = class.blocks_per_pool();
        let words = || self.bitmaps().map(|(free, _)| free).enumerate();
        let no_bits_beyond = words().all(|(at, word)| word.get() & !valid_bits(n_blocks, at) == 0);
        let summary_holds = words()
            .all(|(at, word)| (self.free_words.get() & bit(at as u32) != 0) == (word.get() != 0));
        let n_free: u32 = words().map(|(_, word)| word.get().count_ones()).sum();
        let is_nowhere_twice = words().all(|(at, word)| {
            // Relaxed: as in `free_bits`.
            let remote = self.remote_word(at as u32).map_or(0, |bits| bits.load(Ordering::Relaxed));
            let in_slot = self.bits_in_slot(at as u32);
            word.get() & remote == 0 && (word.get() | remote) & in_slot == 0
        });
        no_bits_beyond
            && summary_holds
            && is_nowhere_twice
            && self.n_blocks() as usize == n_blocks
            && self.block_size() == class.block_size()
            && self.n_free() == n_free
            && (!self.is_active() || self.active_word().is_some_and(|word| word.get() == 0))
    }
}

/// `2^40 / block_size`, rounded up.
///
/// With `r * block_size = 2^40 + e`, `0 <= e < block_size <= 2^16`, the quotient of an offset below
/// 2^19 is exact because `offset * e < 2^35` is less than `2^40 / block_size * block_size` can be off
/// by: the same argument as for compilers' divisions by constants (Granlund and Montgomery, 1994).
const fn reciprocal(block_size: u64) -> u64 {
    match 1u64.wrapping_shl(RECIPROCAL_BITS).checked_div(block_size) {
        Some(quotient) if quotient.wrapping_mul(block_size) == 1 << RECIPROCAL_BITS => quotient,
        Some(quotient) => quotient.wrapping_add(1),
        None => 0,
    }
}

/// The bit of block or word `index` within its word.
#[inline]
pub(crate) const fn bit(index: u32) -> u64 {
    1u64.wrapping_shl(index)
}

/// The bits of word `at` that stand for one of `n_blocks` blocks.
pub(crate) const fn valid_bits(n_blocks: usize, at: usize) -> u64 {
    let n_before = at.wrapping_mul(WORD_BITS as usize);
    let n_here = n_blocks.saturating_sub(n_before);
    if n_here >= WORD_BITS as usize { u64::MAX } else { bit(n_here as u32).wrapping_sub(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::UNIT_SIZE;
    use crate::class::N_CLASSES;

    #[test]
    fn multiplying_by_the_reciprocal_divides_every_offset_of_every_class() {
        for class in (0..N_CLASSES).filter_map(SizeClass::from_index) {
            let size = class.block_size() as u64;
            for offset in 0..(class.units_per_pool() * UNIT_SIZE) as u64 {
                assert_eq!((offset * reciprocal(size)) >> RECIPROCAL_BITS, offset / size);
            }
        }
    }
}
