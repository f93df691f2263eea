//! What lives in each pool, for who asks what keeps it from being given back.
//!
//! # Mechanism
//! A walk over all arenas looks at each pool's bitmaps once and hands on what they say. It takes no lock
//! while it does. For a pool of which another thread takes blocks at that moment the picture is blurred;
//! a block with a word is never taken for free.
//!
//! # Cost
//! Up to 64 words of bitmaps a pool, and, with words beside blocks, as many cache lines as these have.

use core::sync::atomic::Ordering::Acquire;

use crate::class::SizeClass;
use crate::heap::Heap;
use crate::pages::PageSource;
use crate::pool::{Kind, N_WORDS, Pool};
use crate::word_space::SpanWords;

const WORD_BITS: usize = u64::BITS as usize;

/// The blocks of one pool at a moment.
#[derive(Debug)]
pub struct PoolBlocks<'h> {
    pool: &'h Pool,
    class: SizeClass,
    /// Their words, if any was ever written.
    words: Option<SpanWords<'h>>,
    /// The blocks in use.
    used: [u64; N_WORDS],
}

impl<'h> PoolBlocks<'h> {
    fn new(pool: &'h Pool, class: SizeClass, words: Option<SpanWords<'h>>) -> PoolBlocks<'h> {
        let words = words.filter(|span| span.kind == Kind::Pool(class) && span.is_any_written());
        let mut blocks = PoolBlocks { pool, class, words, used: [0; N_WORDS] };
        for (used, bits) in blocks.used.iter_mut().zip(pool.used_bits()) {
            *used = bits;
        }
        // Bits that seemed to be free in a slot that has moved on meanwhile.
        let n_words = blocks.words.map_or(0, |span| span.words.len());
        for index in 0..n_words {
            if blocks.word(index) != 0
                && !pool.is_free_outside(index as u32)
                && let Some(used) = blocks.used.get_mut(index / WORD_BITS)
            {
                *used |= 1u64.wrapping_shl(index as u32);
            }
        }
        blocks
    }

    /// Where the pool's first block starts.
    #[must_use]
    pub fn pool_addr(&self) -> usize {
        self.pool.base().addr()
    }

    /// What each of its blocks could hold, in bytes.
    #[must_use]
    pub fn block_size(&self) -> usize {
        self.class.block_size()
    }

    /// How many blocks it has.
    #[must_use]
    pub fn n_blocks(&self) -> usize {
        self.class.blocks_per_pool()
    }

    /// How many of them are in use.
    #[must_use]
    pub fn n_used(&self) -> usize {
        self.used.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    /// What its free blocks could hold, in bytes.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.n_blocks().saturating_sub(self.n_used()).saturating_mul(self.block_size())
    }

    /// Calls `visit` with the word of each block in use, which is zero if it has none.
    pub fn for_each_word(&self, mut visit: impl FnMut(u64)) {
        for (at, &used) in self.used.iter().enumerate() {
            let mut rest = used;
            while rest != 0 {
                let index = at.wrapping_mul(WORD_BITS).wrapping_add(rest.trailing_zeros() as usize);
                rest &= rest.wrapping_sub(1);
                visit(self.word(index));
            }
        }
    }

    /// The word of a block; zero, too, if the pool has ended meanwhile.
    fn word(&self, index: usize) -> u64 {
        let Some(span) = &self.words else { return 0 };
        let word = span.words.get(index).map_or(0, |word| word.load(Acquire));
        if span.are_still() { word } else { 0 }
    }
}

impl<P: PageSource> Heap<P> {
    /// Visits every pool, while other threads take blocks and give them back.
    ///
    /// No lock is held while `visit` runs: it may take blocks from this heap and give them back.
    ///
    /// ```
    /// use memtrace_heap::{Config, Heap};
    ///
    /// #[global_allocator]
    /// static HEAP: Heap = Heap::new(Config::new());
    ///
    /// let kept = vec![0u8; 100];
    /// let mut free_bytes = 0;
    /// HEAP.for_each_pool(|pool| free_bytes += pool.free_bytes());
    /// println!("{free_bytes} bytes are free in pools");
    /// ```
    ///
    /// **Cost**: a microsecond a pool.
    pub fn for_each_pool(&self, mut visit: impl FnMut(&PoolBlocks<'_>)) {
        let Some(shared) = self.existing() else { return };
        // So that all arenas are seen that were made before this.
        drop(shared.lock());
        for arena in shared.control.arenas.mapped() {
            for (unit, pool) in arena.pools.iter().enumerate() {
                if let Kind::Pool(class) = pool.kind() {
                    visit(&PoolBlocks::new(pool, class, arena.words.of(unit as u8)));
                }
            }
        }
    }
}
