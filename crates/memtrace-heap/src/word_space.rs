//! The words of one arena, and who has which of them.
//!
//! # Mechanism
//! An arena has one mapping of words, for all that begins in it. A pool gets a word for each block that
//! it can have, and a run gets one: when it begins, at the lowest place where so many follow each other
//! unused (first fit), and until it ends. So the words of pools lie close together, whatever sizes of
//! blocks these serve, and no page of words is there for the few that a pool of large blocks needs.
//!
//! Beside the words stands which pages of them were ever written: what reads many words passes over the
//! others.
//!
//! # Invariants
//! - **B1** The words of an arena's records are mapped once and stay until the heap ends, while the
//!   records serve one arena after the other: who finds an arena may touch its words at any time.
//! - **B2** A word that is not zero lies on a page that is marked as written.
//! - **B3** A span belongs to the unit in which a pool or run begins, from before anybody can have a block
//!   there until nobody has one. Spans do not overlap; `order` names their units by ascending place. In a word
//!   that is in no span nobody stores anything but zero.
//! - **B4** There is always room. When a span is placed there are at most 63 others, of at most
//!   [`BLOCKS_PER_UNIT`] words each. If none of the gaps between and around them took it, each
//!   of the at most 64 gaps were shorter than that: together less than half of the mapping, which is all
//!   that the spans leave.
//!
//! # Atomics
//! | variable | written by | read by | publishes |
//! |---|---|---|---|
//! | word | exchanges (SeqCst) | exchanges, sweep (SeqCst), walk (Acquire) | what the embedder did before |
//! | `written` | exchanges (SeqCst, before the word), discarding (SeqCst, under B3) | exchanges, walk (Acquire), sweep (SeqCst) | itself |
//! | `spans[u]` | who makes or ends a span (Release, under the lock) | walk (Acquire; Relaxed again after a word) | nothing |
//!
//! Whoever walks may hold a span that has ended. Its end comes before the next owner's beginning, in
//! the order of the lock, and so before that one's words: who has read such a word (Acquire) sees
//! that the span has changed.
//!
//! # Cost
//! Making a span: a pass over those there are, 64 at most. Discarding: a pass over the words that may go. A mapping
//! of twice what the smallest blocks need, of which resident are the pages written.
#![expect(unsafe_code, reason = "words in a mapping that stays")]

use core::slice;
use core::sync::atomic::{
    AtomicU64,
    Ordering::{self, Acquire, Relaxed, Release, SeqCst},
};

use crate::arena::{BLOCKS_PER_UNIT, Scale, UNITS_PER_ARENA};
use crate::cells::Cell8;
use crate::mapped::{Region, RegionCell, Source};
use crate::pages::{PAGE_SIZE, PageSource};
use crate::pool::{Kind, bit};

const WORD_SIZE: usize = size_of::<u64>();
const WORDS_PER_PAGE: usize = PAGE_SIZE / WORD_SIZE;

/// How many words there are for an arena: twice what all units can have (B4).
const fn n_words(scale: Scale) -> usize {
    let most = match scale {
        Scale::Small => BLOCKS_PER_UNIT,
        // All blocks are runs.
        Scale::Big => 1,
    };
    most.wrapping_mul(UNITS_PER_ARENA).wrapping_mul(2)
}

const MOST_WORDS: usize = n_words(Scale::Small);
const N_PAGES: usize = MOST_WORDS / WORDS_PER_PAGE;
/// Words of the pages that go back to the system: where it may have larger ones than [`PAGE_SIZE`], of the largest.
const WORDS_DISCARDED: usize =
    if cfg!(target_arch = "x86_64") { WORDS_PER_PAGE } else { (64 << 10) / WORD_SIZE };
/// Pages for which there is one word of marks.
const PAGES_PER_MARKS: usize = u64::BITS as usize;

/// The words of the blocks of one arena.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Words {
    region: RegionCell,
    n_spans: Cell8,
    /// The units that have a span, by ascending place.
    order: [Cell8; UNITS_PER_ARENA],
    /// Which pages were ever written.
    written: [AtomicU64; N_PAGES / PAGES_PER_MARKS],
    /// The span of each unit, as [`Span::pack`] writes it, above a number that changes with it.
    spans: [AtomicU64; UNITS_PER_ARENA],
}

/// Words that follow each other, for what begins in one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: usize,
    /// 0 for a unit that has none.
    len: usize,
    /// What the unit serves, as [`Kind::code`] tells.
    code: u8,
}

const START_BITS: u32 = 20;
const LEN_BITS: u32 = 13;
const CODE_BITS: u32 = u8::BITS;
const SPAN_BITS: u32 = START_BITS + LEN_BITS + CODE_BITS;
const _: () = assert!(MOST_WORDS < 1 << START_BITS && BLOCKS_PER_UNIT < 1 << LEN_BITS);

impl Span {
    fn pack(self) -> u64 {
        let (start, len, code) = (self.start as u64, self.len as u64, u64::from(self.code));
        start | len.wrapping_shl(START_BITS) | code.wrapping_shl(START_BITS + LEN_BITS)
    }

    fn unpack(packed: u64) -> Span {
        let field = |shift: u32, bits: u32| packed.wrapping_shr(shift) & bit(bits).wrapping_sub(1);
        Span {
            start: field(0, START_BITS) as usize,
            len: field(START_BITS, LEN_BITS) as usize,
            code: field(START_BITS + LEN_BITS, CODE_BITS) as u8,
        }
    }

    fn end(self) -> usize {
        self.start.wrapping_add(self.len)
    }

    /// The pages between `from` and `to` that can go back to the system.
    fn pages_within(from: usize, to: usize) -> core::ops::Range<usize> {
        const N: usize = WORDS_DISCARDED / WORDS_PER_PAGE;
        let (first, end) = (from.div_ceil(WORDS_DISCARDED), to / WORDS_DISCARDED);
        first.wrapping_mul(N)..end.wrapping_mul(N)
    }
}

/// How many words what begins in a unit has.
fn n_words_for(kind: Kind) -> usize {
    match kind {
        Kind::Pool(class) => class.blocks_per_pool(),
        Kind::Run => 1,
        Kind::Unused | Kind::Inner(_) => 0,
    }
}

impl Words {
    /// Maps the words, unless they are there; `None` if that fails. Under the heap's lock.
    pub(crate) fn prepare<P: PageSource>(&self, source: Source<'_, P>, scale: Scale) -> Option<()> {
        if self.region.base().is_null() {
            let region = Region::map_records(source, n_words(scale).wrapping_mul(WORD_SIZE))?;
            #[cfg(target_os = "linux")]
            if P::IS_SYSTEM {
                // SAFETY: advice on a mapping of our own. Words are touched sparsely: with huge pages,
                // one would cost 2 MiB.
                unsafe {
                    libc::madvise(region.base().cast(), region.size(), libc::MADV_NOHUGEPAGE)
                };
            }
            self.region.put(region);
        }
        Some(())
    }

    /// Takes the mapping out, for a heap that ends.
    pub(crate) fn take(&self) -> Region {
        self.region.take()
    }

    /// The first byte; null if there are none.
    pub(crate) fn base(&self) -> *mut u8 {
        self.region.base()
    }

    /// The mapped size, in bytes; 0 if there are none.
    pub(crate) fn size(&self) -> usize {
        self.region.size()
    }

    /// All words; none if they are not kept.
    #[inline(always)]
    fn all(&self) -> &[AtomicU64] {
        let base = self.region.base();
        if base.is_null() {
            return &[];
        }
        let len = self.region.size() / WORD_SIZE;
        // SAFETY: B1: mapped for records with this size, zero at first, aligned to a page; only
        // reached as atomics; stays as long as the heap is borrowed.
        unsafe { slice::from_raw_parts(base.cast::<AtomicU64>(), len) }
    }

    /// The place of word `at`.
    #[inline(always)]
    pub(crate) fn place(&self, at: usize) -> Option<Place<'_>> {
        let word = self.all().get(at)?;
        let page = at / WORDS_PER_PAGE;
        let marks = self.written.get(page / PAGES_PER_MARKS)?;
        Some(Place { word, marks, page: bit(page as u32) })
    }

    fn span(&self, unit: u8) -> Span {
        // Relaxed: for who holds the lock, under which they are written.
        Span::unpack(self.spans.get(unit as usize).map_or(0, |span| span.load(Relaxed)))
    }

    /// The spans there are by ascending place, with their units; for who holds the lock.
    fn in_order(&self) -> impl Iterator<Item = (u8, Span)> {
        let units = self.order.iter().take(self.n_spans.get() as usize).map(Cell8::get);
        units.map(|unit| (unit, self.span(unit)))
    }

    fn set_span(&self, unit: u8, span: Span) {
        if let Some(packed) = self.spans.get(unit as usize) {
            let change = packed.load(Relaxed).wrapping_shr(SPAN_BITS).wrapping_add(1);
            packed.store(change.wrapping_shl(SPAN_BITS) | span.pack(), Release);
        }
    }

    /// Gives `unit`, which has none, words for what is about to begin there, and returns where these start; 0 if
    /// words are not kept. Under the heap's lock.
    pub(crate) fn begin(&self, unit: u8, kind: Kind) -> usize {
        let len = n_words_for(kind);
        if self.base().is_null() || len == 0 {
            return 0;
        }
        let (mut start, mut at) = (0usize, 0usize);
        for (_, span) in self.in_order() {
            if span.start.wrapping_sub(start) >= len {
                break;
            }
            start = span.end();
            at = at.wrapping_add(1);
        }
        self.n_spans.add(1);
        let mut moved = unit;
        for place in self.order.iter().take(self.n_spans.get() as usize).skip(at) {
            let here = place.get();
            place.set(moved);
            moved = here;
        }
        self.set_span(unit, Span { start, len, code: kind.code() });
        start
    }

    /// Takes the words of `unit` back, if it has any. Nobody has a block there. Under the heap's lock.
    pub(crate) fn end(&self, unit: u8) {
        if self.span(unit).len == 0 {
            return;
        }
        let mut n_kept = 0usize;
        for at in 0..self.n_spans.get() as usize {
            let here = self.order.get(at).map_or(unit, Cell8::get);
            if here != unit {
                if let Some(place) = self.order.get(n_kept) {
                    place.set(here);
                }
                n_kept = n_kept.wrapping_add(1);
            }
        }
        self.n_spans.set(n_kept as u8);
        self.set_span(unit, Span { start: 0, len: 0, code: 0 });
    }

    /// Gives back the pages that were written and of which no span has a word. Under the heap's lock, or where
    /// nobody can make a span.
    pub(crate) fn discard<P: PageSource>(&self, source: Source<'_, P>) {
        let mut from = 0usize;
        for (_, span) in self.in_order() {
            self.discard_pages(source, Span::pages_within(from, span.start));
            from = span.end();
        }
        self.discard_pages(source, Span::pages_within(from, self.size() / WORD_SIZE));
    }

    /// The same of some pages, of which no span has a word. Those stay that hold a word that was left behind: who
    /// sweeps, or records a block there, is to find it.
    fn discard_pages<P: PageSource>(&self, source: Source<'_, P>, pages: core::ops::Range<usize>) {
        const STEP: usize = WORDS_DISCARDED / WORDS_PER_PAGE;
        let mut first = pages.start;
        while first < pages.end {
            let is_given_back =
                |page| self.is_some_written(page, STEP) && !self.holds_any(page, STEP);
            let mut end = first;
            while end < pages.end && is_given_back(end) {
                end = end.wrapping_add(STEP);
            }
            if end != first {
                let base = self.base().wrapping_add(first.wrapping_mul(PAGE_SIZE));
                let size = end.wrapping_sub(first).wrapping_mul(PAGE_SIZE);
                // SAFETY: whole pages of one mapping for records, which hold nothing but zero (B3).
                if unsafe { source.discard_records(base, size) } {
                    for page in first..end {
                        if let Some(marks) = self.written.get(page / PAGES_PER_MARKS) {
                            marks.fetch_and(!bit(page as u32), SeqCst);
                        }
                    }
                }
            }
            first = end.wrapping_add(STEP);
        }
    }

    /// Whether any of `n` pages was ever written.
    fn is_some_written(&self, page: usize, n: usize) -> bool {
        // Acquire pairs with the store of the mark.
        let mut pages = page..page.wrapping_add(n);
        pages.any(|page| self.is_written(page.wrapping_mul(WORDS_PER_PAGE), Acquire))
    }

    /// Whether a word of `n` pages is not zero.
    fn holds_any(&self, page: usize, n: usize) -> bool {
        let first = page.wrapping_mul(WORDS_PER_PAGE);
        let end = first.wrapping_add(n.wrapping_mul(WORDS_PER_PAGE));
        let words = self.all().get(first..end).unwrap_or(&[]);
        // Relaxed: none becomes other than zero (B3).
        words.iter().any(|word| word.load(Relaxed) != 0)
    }

    /// Whether the page of word `at` was ever written.
    #[inline]
    fn is_written(&self, at: usize, ordering: Ordering) -> bool {
        let page = at / WORDS_PER_PAGE;
        let marks = self.written.get(page / PAGES_PER_MARKS);
        marks.is_some_and(|marks| marks.load(ordering) & bit(page as u32) != 0)
    }

    /// The words of the pages that were written, whether they are somebody's or not, for a sweep.
    pub(crate) fn written(&self) -> impl Iterator<Item = &AtomicU64> {
        let pages = self.all().chunks(WORDS_PER_PAGE).enumerate();
        let is_written = |page: usize| self.is_written(page.wrapping_mul(WORDS_PER_PAGE), SeqCst);
        pages.filter(move |(page, _)| is_written(*page)).flat_map(|(_, words)| words)
    }

    /// The words of what begins in `unit`, if it has any.
    pub(crate) fn of(&self, unit: u8) -> Option<SpanWords<'_>> {
        let place = self.spans.get(unit as usize)?;
        // Acquire pairs with the Release of `set_span`.
        let packed = place.load(Acquire);
        let span = Span::unpack(packed);
        let words = self.all().get(span.start..span.end()).filter(|words| !words.is_empty())?;
        let kind = Kind::of_code(span.code);
        Some(SpanWords { all: self, words, start: span.start, kind, place, packed })
    }

    /// How many pages were ever written.
    pub(crate) fn n_written_pages(&self) -> usize {
        // Relaxed: a figure.
        self.written.iter().map(|marks| marks.load(Relaxed).count_ones() as usize).sum()
    }

    /// Whether B3 holds, with `kind_of` telling what begins in a unit, and where its words do.
    pub(crate) fn is_consistent(&self, kind_of: impl Fn(u8) -> Option<(Kind, usize)>) -> bool {
        if self.base().is_null() {
            return self.n_spans.get() == 0;
        }
        let mut end = 0usize;
        let is_apart = self.in_order().all(|(_, span)| {
            let is_above = span.start >= end && span.len != 0;
            end = span.end();
            is_above && end <= self.all().len()
        });
        let mut n_spans = 0usize;
        let agree = (0..UNITS_PER_ARENA as u8).all(|unit| {
            let span = self.span(unit);
            n_spans = n_spans.wrapping_add(usize::from(span.len != 0));
            match kind_of(unit) {
                Some((kind, start)) => {
                    span == Span { start, len: n_words_for(kind), code: kind.code() }
                }
                None => span.len == 0,
            }
        });
        is_apart && agree && n_spans == self.n_spans.get() as usize
    }
}

/// The words of a pool or run, as they were found, for a walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpanWords<'h> {
    all: &'h Words,
    /// One for each block.
    pub(crate) words: &'h [AtomicU64],
    start: usize,
    /// What has them.
    pub(crate) kind: Kind,
    place: &'h AtomicU64,
    packed: u64,
}

impl SpanWords<'_> {
    /// Whether any may have been written.
    pub(crate) fn is_any_written(&self) -> bool {
        let n_left = |at: usize| self.words.len().wrapping_sub(at).min(WORDS_PER_PAGE);
        let mut parts = (0..self.words.len()).step_by(WORDS_PER_PAGE);
        parts.any(|at| self.is_written(at, n_left(at)))
    }

    /// Whether `n` words, no more than a page's, from `at` on may have been written.
    #[inline]
    pub(crate) fn is_written(&self, at: usize, n: usize) -> bool {
        // Acquire pairs with the store of the mark.
        let first = self.start.wrapping_add(at);
        self.all.is_written(first, Acquire)
            || self.all.is_written(first.wrapping_add(n.saturating_sub(1)), Acquire)
    }

    /// Whether a word that was read (Acquire) belonged to what had the words when they were found.
    #[inline]
    pub(crate) fn are_still(&self) -> bool {
        // Relaxed: see the module's description.
        self.place.load(Relaxed) == self.packed
    }
}

/// The word of one block.
pub(crate) struct Place<'h> {
    word: &'h AtomicU64,
    marks: &'h AtomicU64,
    /// The bit of `marks` that stands for the word's page.
    page: u64,
}

impl Place<'_> {
    #[inline]
    fn is_written(&self) -> bool {
        // Acquire puts the mark of another thread before this thread's word as well.
        self.marks.load(Acquire) & self.page != 0
    }

    #[inline]
    fn mark(&self) {
        if !self.is_written() {
            self.marks.fetch_or(self.page, SeqCst);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        if self.is_written() { self.word.load(SeqCst) } else { 0 }
    }

    #[inline]
    pub(crate) fn swap(&self, word: u64) -> u64 {
        if word != 0 {
            self.mark();
        // Blocks without a word are common: their pages stay untouched, and their words unwritten.
        // Relaxed: see `swap_block_word`.
        } else if !self.is_written() || self.word.load(Relaxed) == 0 {
            return 0;
        }
        self.word.swap(word, SeqCst)
    }

    pub(crate) fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        if new != 0 {
            self.mark();
        } else if !self.is_written() {
            return if current == 0 { Ok(0) } else { Err(0) };
        }
        self.word.compare_exchange(current, new, SeqCst, SeqCst)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::arena::Arena;
    use crate::class::{N_CLASSES, SizeClass};
    use crate::mapped::{map_record, unmap_record};
    use crate::pages::SystemPages;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec;
    use std::vec::Vec;

    /// The plain version: the lowest place where no word is taken, found word by word.
    fn first_fit(spans: &BTreeMap<u8, (usize, Kind)>, len: usize) -> usize {
        let mut is_taken = vec![false; MOST_WORDS];
        for &(start, kind) in spans.values() {
            is_taken[start..start + n_words_for(kind)].fill(true);
        }
        let mut n_free = 0;
        for (at, is_taken) in is_taken.into_iter().enumerate() {
            n_free = if is_taken { 0 } else { n_free + 1 };
            if n_free == len {
                return at + 1 - len;
            }
        }
        panic!("no room for {len} words");
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![
            1 => Just(Kind::Run),
            2 => Just(Kind::Pool(SizeClass::from_index(0).unwrap())),
            6 => (0..N_CLASSES).prop_map(|index| Kind::Pool(SizeClass::from_index(index).unwrap())),
        ]
    }

    #[derive(Debug, Clone)]
    enum Step {
        Begin(u8, Kind),
        End(u8),
        /// Writes a word of the unit, zero or not.
        Write(u8, usize, bool),
        Discard,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let unit = || 0..UNITS_PER_ARENA as u8;
        let step = prop_oneof![
            12 => (unit(), kinds()).prop_map(|(unit, kind)| Step::Begin(unit, kind)),
            6 => unit().prop_map(Step::End),
            6 => (unit(), any::<usize>(), any::<bool>())
                .prop_map(|(unit, at, is_zero)| Step::Write(unit, at, is_zero)),
            1 => Just(Step::Discard),
        ];
        proptest::collection::vec(step, 1..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn spans_are_the_lowest_that_fit_and_no_word_is_lost(steps in steps()) {
            // SAFETY: the only source in this test.
            let source = unsafe { Source::new(&SystemPages) };
            let arena: &Arena = map_record(source).unwrap();
            let words = &arena.words;
            words.prepare(source, Scale::Small).unwrap();
            let mut spans: BTreeMap<u8, (usize, Kind)> = BTreeMap::new();
            // Those that are not zero, whether of a span or left behind.
            let mut held: BTreeMap<usize, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Begin(unit, kind) if !spans.contains_key(&unit) => {
                        let expected = first_fit(&spans, n_words_for(kind));
                        prop_assert_eq!(words.begin(unit, kind), expected);
                        let span = words.of(unit).unwrap();
                        prop_assert_eq!(span.kind, kind);
                        spans.insert(unit, (expected, kind));
                    }
                    Step::Begin(..) => {}
                    Step::End(unit) => {
                        let before = words.of(unit);
                        words.end(unit);
                        prop_assert_eq!(before.is_some(), spans.remove(&unit).is_some());
                        prop_assert!(before.is_none_or(|span| !span.are_still()));
                    }
                    Step::Write(unit, at, is_zero) => {
                        if let Some(&(start, kind)) = spans.get(&unit) {
                            // In a page of many words now and then the same.
                            let at = start + at % n_words_for(kind).min(40);
                            let word = if is_zero { 0 } else { 1 + at as u64 };
                            let before = words.place(at).unwrap().swap(word);
                            prop_assert_eq!(before, held.remove(&at).unwrap_or(0));
                            if !is_zero {
                                held.insert(at, word);
                                prop_assert!(words.is_written(at, SeqCst));
                            }
                        }
                    }
                    Step::Discard => {
                        words.discard(source);
                        let pages = |&(start, kind): &(usize, Kind)| {
                            let last = start + n_words_for(kind) - 1;
                            start / WORDS_PER_PAGE..=last / WORDS_PER_PAGE
                        };
                        let left = held.keys().map(|at| at / WORDS_PER_PAGE);
                        let mut kept: Vec<usize> =
                            spans.values().flat_map(pages).chain(left).collect();
                        kept.sort_unstable();
                        for page in 0..N_PAGES {
                            let is_written = words.is_written(page * WORDS_PER_PAGE, SeqCst);
                            prop_assert!(!is_written || kept.binary_search(&page).is_ok());
                        }
                    }
                }
                let kind_of = |unit: u8| spans.get(&unit).map(|&(start, kind)| (kind, start));
                prop_assert!(words.is_consistent(kind_of));
            }
            let mut swept: Vec<u64> =
                words.written().map(|word| word.load(SeqCst)).filter(|word| *word != 0).collect();
            swept.sort_unstable();
            prop_assert_eq!(swept, held.into_values().collect::<Vec<_>>());
            words.take().abandon_records(source);
            // SAFETY: nobody uses it any more.
            unsafe { unmap_record(source, arena) };
        }
    }

    #[test]
    fn there_is_room_however_spans_come_and_go() {
        // SAFETY: the only source in this test.
        let source = unsafe { Source::new(&SystemPages) };
        let arena: &Arena = map_record(source).unwrap();
        let words = &arena.words;
        words.prepare(source, Scale::Small).unwrap();
        let kind = |index: usize| Kind::Pool(SizeClass::from_index(index).unwrap());
        // Pools of 4096 and of 2048 words by turns; of these every second goes, and leaves a gap that is too
        // short for the longer; and once more with the shortest between them.
        for (long, short) in
            [(kind(0), kind(1)), (kind(0), Kind::Run), (kind(0), kind(N_CLASSES - 1))]
        {
            for unit in 0..UNITS_PER_ARENA as u8 {
                words.begin(unit, if unit % 2 == 0 { long } else { short });
            }
            for unit in (0..UNITS_PER_ARENA as u8).filter(|unit| unit % 2 == 1) {
                words.end(unit);
                words.begin(unit, long);
                assert!(words.of(unit).is_some_and(|span| span.words.len() == BLOCKS_PER_UNIT));
            }
            assert_eq!(words.n_spans.get() as usize, UNITS_PER_ARENA);
            (0..UNITS_PER_ARENA as u8).for_each(|unit| words.end(unit));
            assert_eq!(words.n_spans.get(), 0);
        }
        words.take().abandon_records(source);
        // SAFETY: nobody uses it any more.
        unsafe { unmap_record(source, arena) };
    }
}
