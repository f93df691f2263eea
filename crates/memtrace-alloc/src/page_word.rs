//! The words of a page shadow: what stands in a page's entry, and what in an array of traces.
//!
//! A trace is size, site, and *tag*: which of the page's 256 places of 16 bytes its block starts at.
//!
//! | bits | of a trace | of an array |
//! | --- | --- | --- |
//! | 0–4 | tag, 0–7 | by how much a tag is shifted to be an index |
//! | 5 | | whether traces are being moved into it |
//! | 8–9 | kind | whether none are, 9 |
//! | 10–63 | site, 10–39; size, 40–63 | its address, of which the lower 6 bits are zero |
//!
//! So that few instructions lead from an entry to a word: one bit tells an array where nothing is being moved
//! from everything else, and a processor shifts by the lower 5 bits of whatever it is given.

use crate::live::LiveTrace;
use crate::site::SiteId;

/// Sizes below this fit a word; the greatest that there is room for is [`SEALED`]'s.
pub(crate) const SIZE_LIMIT: u64 = (1 << SIZE_BITS) - 1;
const SIZE_BITS: u32 = 24;
const SITE_BITS: u32 = 30;
const TAG_BITS: u32 = 8;
const GRANULE_BITS: u32 = 4;
const KIND_SHIFT: u32 = TAG_BITS;
const SITE_SHIFT: u32 = 10;
const SIZE_SHIFT: u32 = SITE_SHIFT + SITE_BITS;
const _: () = assert!(SIZE_SHIFT + SIZE_BITS == u64::BITS);

/// Kind and tag.
pub(crate) const KEY_MASK: u64 = (1 << SITE_SHIFT) - 1;
const TAG_MASK: u64 = KEY_MASK & !KIND_MASK;
const KIND_MASK: u64 = 3 << KIND_SHIFT;
const LIVE: u64 = 1 << KIND_SHIFT;
/// In an array that traces are moved from: this one has been.
const GONE: u64 = 2 << KIND_SHIFT;
/// In an array that traces are moved into: the trace is here once it is gone there.
const COPY: u64 = 3 << KIND_SHIFT;
/// In a page's entry: the traces are in an array, and stay where they are.
const ARRAY: u64 = 2 << KIND_SHIFT;
/// Of the two kinds above, not of live traces.
pub(crate) const MOVING_BIT: u64 = 2 << KIND_SHIFT;
/// In an array that traces are moved from: a place that was empty.
pub(crate) const SEALED: u64 = SIZE_LIMIT << SIZE_SHIFT | GONE;

const TAG_LIMIT: u32 = (1 << TAG_BITS) - 1;

/// Which of its page's places of 16 bytes a block starts at: 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u32);

impl Tag {
    #[inline(always)]
    pub(crate) const fn of(block_addr: u64) -> Self {
        Self((block_addr >> GRANULE_BITS) as u32 & TAG_LIMIT)
    }

    /// How many bytes into the page that is.
    #[inline(always)]
    pub(crate) const fn offset(self) -> u64 {
        (self.0 as u64) << GRANULE_BITS
    }

    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    #[inline(always)]
    const fn key(self) -> u64 {
        self.0 as u64
    }
}

/// The number of the 16 bytes at whose beginning a block starts. Where a block starts elsewhere, which none
/// does, it is greater than any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granule(u64);

impl Granule {
    #[inline(always)]
    pub(crate) const fn of(block_addr: u64) -> Self {
        Self(block_addr.rotate_right(GRANULE_BITS))
    }

    #[inline(always)]
    pub(crate) const fn tag(self) -> Tag {
        Tag(self.0 as u32 & TAG_LIMIT)
    }

    /// The number of the page.
    #[inline(always)]
    pub(crate) const fn page(self) -> u64 {
        self.0 >> TAG_BITS
    }
}

/// What a word of an array is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Vacant,
    Live,
    Gone,
    Copy,
    Sealed,
}

#[inline(always)]
pub(crate) const fn kind(word: u64) -> Kind {
    match word & KIND_MASK {
        _ if word == SEALED => Kind::Sealed,
        LIVE => Kind::Live,
        GONE => Kind::Gone,
        COPY => Kind::Copy,
        _ => Kind::Vacant,
    }
}

/// The word of a live trace; its size is below [`SIZE_LIMIT`].
#[inline(always)]
pub(crate) const fn live(tag: Tag, trace: LiveTrace) -> u64 {
    // None of the sums has a carry; the processor adds three numbers at once.
    let (size, site) = (trace.size << SIZE_SHIFT, (trace.site.0 as u64) << SITE_SHIFT);
    size.wrapping_add(site).wrapping_add(tag.key()).wrapping_add(LIVE)
}

/// The word of the live trace of a block, if it fits one.
#[inline(always)]
pub(crate) const fn small_live(block_addr: u64, trace: LiveTrace) -> Option<u64> {
    let tag = Granule::of(block_addr).tag();
    if trace.size < SIZE_LIMIT { Some(live(tag, trace)) } else { None }
}

/// The same trace, gone.
#[inline(always)]
pub(crate) const fn gone(live: u64) -> u64 {
    live & !KIND_MASK | GONE
}

/// The same trace, a copy.
#[inline(always)]
pub(crate) const fn copy(live: u64) -> u64 {
    live & !KIND_MASK | COPY
}

/// The lowest bits, [`KEY_MASK`], of the live trace of a tag.
#[inline(always)]
pub(crate) const fn live_key(tag: Tag) -> u64 {
    tag.key() | LIVE
}

/// Whether a word is the live trace of a tag.
#[inline(always)]
pub(crate) const fn is_live_of(word: u64, tag: Tag) -> bool {
    (word ^ live_key(tag)) & KEY_MASK == 0
}

/// Whether a word is a trace of this tag, of whatever kind.
#[inline(always)]
pub(crate) const fn has_tag(word: u64, tag: Tag) -> bool {
    (word ^ tag.key()) & TAG_MASK == 0 && word & KIND_MASK != 0 && word != SEALED
}

#[inline(always)]
pub(crate) const fn tag_of(word: u64) -> Tag {
    Tag(word as u32 & TAG_LIMIT)
}

#[inline(always)]
pub(crate) const fn trace_of(word: u64) -> LiveTrace {
    let site = (word >> SITE_SHIFT) as u32 & ((1 << SITE_BITS) - 1);
    LiveTrace { size: word >> SIZE_SHIFT, site: SiteId(site) }
}

impl Shape {
    /// The array of a page with this entry, if it has one whose traces stay where they are.
    #[inline(always)]
    pub(crate) const fn of_entry(entry: u64) -> Option<Self> {
        if entry & ARRAY != 0 { Some(Self(entry)) } else { None }
    }
}

/// What a page's entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// No block starts in the page.
    None,
    /// One block does, and this is its trace's word.
    One(u64),
    /// The traces are in an array.
    Array(Shape),
    /// They are being moved there from another.
    Growing(Shape),
}

/// Where an array is and how long: the entry of a page whose traces are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape(u64);

/// Words of the shortest array, and of a line. Fewer in models, which fill a line in few steps.
pub(crate) const LINE_WORDS: usize = if cfg!(loom) { 2 } else { 8 };
/// The longest array has a word for each place of the page: 32 lines, each for 128 bytes.
pub(crate) const MAX_LEVEL: u32 = (TAG_LIMIT + 1).ilog2() - LINE_WORDS.ilog2();
/// What is stored is how far a tag is shifted to be an index: the level from above.
const SHIFT_MASK: u64 = 31;
const GROWING: u64 = 1 << 5;
const ALIGN_MASK: u64 = 63;
/// Addresses have 54 bits at most: no system gives memory beyond 52 of its own accord.
const ADDR_SHIFT: u32 = 10;

impl Shape {
    /// An array of `LINE_WORDS << level` words at an address that is a multiple of 64.
    pub(crate) const fn new(addr: u64, level: u32) -> Self {
        let shift = MAX_LEVEL.wrapping_sub(level) as u64 & SHIFT_MASK;
        Self((addr & !ALIGN_MASK) << ADDR_SHIFT | shift | ARRAY)
    }

    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub(crate) const fn addr(self) -> u64 {
        // The bits in between are zero.
        self.0 >> ADDR_SHIFT
    }

    /// The binary logarithm of the number of lines, at most [`MAX_LEVEL`].
    #[inline(always)]
    pub(crate) const fn level(self) -> u32 {
        MAX_LEVEL.wrapping_sub(self.shift())
    }

    #[inline(always)]
    const fn shift(self) -> u32 {
        (self.0 & SHIFT_MASK) as u32
    }

    /// Whether blocks of a C library, which start 32 bytes apart at least, may have one home, but not in an array
    /// twice as long.
    #[inline(always)]
    pub(crate) const fn is_just_too_short(self) -> bool {
        self.shift() == 2
    }

    pub(crate) const fn n_words(self) -> usize {
        LINE_WORDS << self.level()
    }

    /// The entry of a page whose traces are there.
    pub(crate) const fn to_entry(self) -> u64 {
        self.0
    }

    /// The entry of a page whose traces are being moved there.
    pub(crate) const fn to_growing_entry(self) -> u64 {
        self.0 ^ (ARRAY | GROWING)
    }

    /// The word where a trace with a tag is most likely to be: words are in the order of tags.
    #[inline(always)]
    pub(crate) const fn home_index(self, tag: Tag) -> usize {
        // With the greatest level there is a word for each tag. Only the lower 5 bits are shifted by.
        tag.0.wrapping_shr(self.0 as u32) as usize
    }

    /// The line of the traces with a tag.
    #[inline(always)]
    pub(crate) const fn line_index(self, tag: Tag) -> usize {
        self.home_index(tag) / LINE_WORDS
    }
}

impl Entry {
    #[inline(always)]
    pub(crate) const fn of(word: u64) -> Self {
        match word & KIND_MASK {
            _ if word == 0 => Self::None,
            LIVE => Self::One(word),
            ARRAY => Self::Array(Shape(word)),
            _ => Self::Growing(Shape(word ^ (ARRAY | GROWING))),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    extern crate std;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_word_gives_back_what_it_was_made_of(
            addr: u64, size in 0..SIZE_LIMIT, site in 0..1u32 << SITE_BITS, other: u64,
        ) {
            let trace = LiveTrace { size, site: SiteId(site) };
            let (tag, other) = (Tag::of(addr), Tag::of(other));
            let word = live(tag, trace);
            for (word, expected) in
                [(word, Kind::Live), (gone(word), Kind::Gone), (copy(word), Kind::Copy)]
            {
                prop_assert_eq!((kind(word), tag_of(word), trace_of(word)), (expected, tag, trace));
                prop_assert!(has_tag(word, tag));
                prop_assert_eq!(has_tag(word, other), tag == other);
            }
            prop_assert_eq!(is_live_of(word, other), tag == other);
            prop_assert!(!is_live_of(gone(word), tag) && !is_live_of(copy(word), tag));
            prop_assert_eq!(tag.offset(), addr % 4096 / 16 * 16);
            prop_assert_eq!(Entry::of(word), Entry::One(word));
            let granule = Granule::of(addr & !15);
            prop_assert_eq!((granule.tag(), granule.page()), (tag, addr / 4096));
            prop_assert!(addr % 16 == 0 || Granule::of(addr).page() >= 1 << 48);
        }

        #[test]
        fn a_shape_gives_back_where_and_how_long(addr in 1..1u64 << 48, level in 0..=MAX_LEVEL) {
            let addr = addr * 64;
            let shape = Shape::new(addr, level);
            prop_assert_eq!((shape.addr(), shape.level()), (addr, level));
            prop_assert_eq!(Entry::of(shape.to_entry()), Entry::Array(shape));
            prop_assert_eq!(Entry::of(shape.to_growing_entry()), Entry::Growing(shape));
        }
    }

    #[test]
    fn lines_are_in_the_order_of_tags_and_equally_long() {
        for level in 0..=MAX_LEVEL {
            let shape = Shape::new(64, level);
            for tag in 0..=TAG_LIMIT {
                let expected = tag as usize * (1 << level) / 256;
                assert_eq!(shape.line_index(Tag(tag)), expected);
                assert_eq!(shape.home_index(Tag(tag)), tag as usize * (8 << level) / 256);
            }
        }
    }

    #[test]
    fn what_is_sealed_is_no_trace_of_any_tag() {
        for tag in (0..=TAG_LIMIT).map(Tag) {
            assert!(!has_tag(SEALED, tag) && !has_tag(0, tag) && !is_live_of(SEALED, tag));
        }
        assert_eq!((kind(SEALED), kind(0)), (Kind::Sealed, Kind::Vacant));
        let moving = [SEALED, GONE, COPY].map(|word| word & MOVING_BIT);
        assert_eq!((moving, LIVE & MOVING_BIT), ([MOVING_BIT; 3], 0));
    }
}
