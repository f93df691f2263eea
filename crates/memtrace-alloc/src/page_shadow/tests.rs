use super::*;
use crate::mapped;
use crate::page_directory::{ADDRESS_BITS, CHUNK_BITS, Chunk, Group};
use crate::page_word::LINE_WORDS;
use crate::site::SiteId;
use core::sync::atomic::{AtomicBool, AtomicU64};
use proptest::prelude::*;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

extern crate std;

pub(super) fn shadow() -> &'static PageShadow {
    let shadow: &'static PageShadow = Box::leak(Box::new(PageShadow::new()));
    assert!(shadow.prepare());
    thread::claim_slot();
    crate::membarrier::prepare();
    shadow
}

/// As the recorder inserts.
pub(super) fn insert(
    shadow: &PageShadow,
    addr: u64,
    trace: LiveTrace,
) -> Result<Option<LiveTrace>, NoRoom> {
    during(
        || {
            if shadow.insert_quickly(addr, trace) { Ok(None) } else { shadow.insert(addr, trace) }
        },
    )
}

/// As the recorder takes.
pub(super) fn take(shadow: &PageShadow, addr: u64) -> Option<LiveTrace> {
    during(|| match shadow.take_quickly(addr) {
        Quick::Taken(trace) => Some(trace),
        Quick::Nothing => None,
        Quick::Unknown => shadow.take(addr),
    })
}

pub(super) fn trace(size: u64) -> LiveTrace {
    LiveTrace { size, site: SiteId(7) }
}

pub(super) fn all(shadow: &PageShadow) -> BTreeMap<u64, LiveTrace> {
    let mut seen = BTreeMap::new();
    shadow.for_each::<false>(|addr, trace, _| assert!(seen.insert(addr, trace).is_none()));
    seen
}

#[derive(Clone, Debug)]
enum Op {
    /// Whether a release is missed before it, if there was a block.
    Insert(u64, LiveTrace, bool),
    /// Blocks at so many bytes from each other.
    Fill(u64, u64, u8),
    Take(u64),
    Clear,
    /// Gives memory back that is not needed.
    Tend,
}

fn ops() -> impl Strategy<Value = Op> {
    // Three pages, around the seam of two chunks.
    let addr = (0..768u64).prop_map(|i| (3 << CHUNK_BITS) - 8192 + i * 16);
    let size = prop_oneof![
        4 => 0..100u64,
        2 => ALONE_SIZE - 2..10_000,
        1 => SIZE_LIMIT - 2..SIZE_LIMIT + 2,
        1 => 1u64 << 32..1u64 << 46,
    ];
    let trace =
        (size, 0..1u32 << 30).prop_map(|(size, site)| LiveTrace { size, site: SiteId(site) });
    prop_oneof![
        6 => (addr.clone(), trace, any::<bool>())
            .prop_map(|(addr, trace, is_missed)| Op::Insert(addr, trace, is_missed)),
        2 => (addr.clone(), 1..20u64, any::<u8>()).prop_map(|(addr, by, n)| Op::Fill(addr, by * 16, n)),
        6 => addr.prop_map(Op::Take),
        1 => Just(Op::Clear),
        3 => Just(Op::Tend),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn the_shadow_holds_what_a_map_would(ops in prop::collection::vec(ops(), 1..200)) {
        let shadow = shadow();
        let mut oracle = BTreeMap::new();
        for op in ops {
            match op {
                Op::Insert(addr, trace, is_missed) => {
                    // A block of 4 GiB owns the addresses behind it.
                    let addr = if trace.size >= 1 << 32 { addr / 32 * 32 } else { addr };
                    oracle.remove(&(addr ^ 16)).is_some().then(|| take(shadow, addr ^ 16));
                    // The hook never finds a trace where it inserts one; if a release was missed it does,
                    // and the old one makes way, but a small one not for a large one's sake.
                    let held = oracle.insert(addr, trace);
                    if held.is_some_and(|held| held.size >= SIZE_LIMIT) || !is_missed {
                        prop_assert_eq!(take(shadow, addr), held);
                        prop_assert_eq!(insert(shadow, addr, trace), Ok(None));
                    } else {
                        prop_assert_eq!(shadow.insert(addr, trace), Ok(held));
                    }
                }
                Op::Fill(addr, by, n) => {
                    for addr in (0..u64::from(n)).map(|i| addr + i * by) {
                        // What a release would have done.
                        prop_assert_eq!(take(shadow, addr), oracle.remove(&addr));
                        prop_assert_eq!(take(shadow, addr ^ 16), oracle.remove(&(addr ^ 16)));
                        insert(shadow, addr, trace(by)).unwrap();
                        oracle.insert(addr, trace(by));
                    }
                }
                Op::Take(addr) => prop_assert_eq!(take(shadow, addr), oracle.remove(&addr)),
                Op::Tend => shadow.tend_at_length(),
                Op::Clear => {
                    let mut forgotten = Vec::new();
                    shadow.clear(&mut |trace| forgotten.push(trace.size));
                    let mut expected: Vec<_> = oracle.values().map(|trace| trace.size).collect();
                    forgotten.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(forgotten, expected);
                    oracle.clear();
                }
            }
        }
        prop_assert_eq!(violated_invariant(shadow), None);
        prop_assert_eq!(&all(shadow), &oracle);
        for (addr, trace) in oracle {
            prop_assert_eq!(shadow.get(addr), Some(trace));
        }
    }
}

#[test]
fn every_place_of_a_page_can_be_taken_at_once() {
    let shadow = shadow();
    for i in 0..256 {
        assert_eq!(insert(shadow, i * 16, trace(i)), Ok(None));
    }
    assert_eq!(all(shadow).len(), 256);
    for i in 0..256 {
        assert_eq!(insert(shadow, i * 16, trace(i + 1)), Ok(Some(trace(i))));
    }
    assert_eq!(violated_invariant(shadow), None);
    for i in 0..256 {
        assert_eq!(take(shadow, i * 16), Some(trace(i + 1)));
        assert_eq!(take(shadow, i * 16), None);
    }
    assert!(all(shadow).is_empty());
}

#[test]
fn a_block_that_is_alone_in_its_page_goes_the_quick_ways() {
    let shadow = shadow();
    let (addr, beside) = (0x7000, 0x7800);
    let alone = trace(ALONE_SIZE);
    // The first of so many pages marks that they are in use.
    assert!(!shadow.insert_quickly(addr, alone));
    assert_eq!(shadow.insert(addr, alone), Ok(None));
    for _ in 0..2 {
        assert_eq!(shadow.take_alone(beside), None);
        assert_eq!(shadow.take_alone(addr), Some(alone));
        assert!(all(shadow).is_empty());
        // One that is likely to get neighbours makes room for them.
        assert!(!shadow.insert_quickly(addr, trace(ALONE_SIZE - 1)));
        assert!(shadow.insert_quickly(addr, alone));
        assert_eq!(shadow.get(addr), Some(alone));
    }
    // With a second one both go into an array.
    assert!(!shadow.insert_quickly(beside, alone));
    assert_eq!(shadow.insert(beside, alone), Ok(None));
    assert_eq!(shadow.take_alone(addr), None);
    assert_eq!(all(shadow).len(), 2);
    assert_eq!([addr, beside].map(|addr| take(shadow, addr)), [Some(alone); 2]);
    assert_eq!(violated_invariant(shadow), None);
}

#[test]
fn addresses_that_have_no_word_are_refused_and_nothing_is_found_there() {
    let shadow = shadow();
    for addr in [8, 0x1001, 1 << ADDRESS_BITS, u64::MAX - 15, u64::MAX] {
        assert_eq!(insert(shadow, addr, trace(1)), Err(NoRoom), "{addr:#x}");
        assert_eq!(take(shadow, addr), None);
        assert_eq!(shadow.get(addr), None);
    }
    assert_eq!(insert(shadow, (1 << ADDRESS_BITS) - 16, trace(1)), Ok(None));
}

/// Threads fill pages and empty them, each its own places of all pages, so that pages grow under releases
/// all the time, from nothing each round; traces that stay are in all scans.
#[test]
fn nothing_is_lost_or_found_twice_while_pages_grow_under_releases_and_scans() {
    const N_PAGES: u64 = 6;
    let shadow = shadow();
    let is_done = AtomicBool::new(false);
    let n_live = AtomicU64::new(0);
    let addr_of = |page: u64, place: u64| page * 4096 + place * 16;
    // Places 0, 32, … stay.
    let stays = |place: u64| place.is_multiple_of(32);
    for page in 0..N_PAGES {
        for place in (0..256).filter(|&place| stays(place)) {
            insert(shadow, addr_of(page, place), trace(place)).unwrap();
        }
    }
    let n_stay = N_PAGES as usize * 8;
    std::thread::scope(|scope| {
        for t in 1..4u64 {
            let (is_done, n_live) = (&is_done, &n_live);
            scope.spawn(move || {
                // One goes without.
                if t != 2 {
                    thread::claim_slot();
                }
                let mut random = t;
                let mut live = BTreeMap::new();
                while !is_done.load(Relaxed) {
                    for _ in 0..300 {
                        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                        let place = (random >> 33) % 64 * 4 + t;
                        let addr = addr_of((random >> 40) % N_PAGES, place);
                        if let Some(size) = live.remove(&addr) {
                            assert_eq!(take(shadow, addr), Some(trace(size)), "{addr:#x}");
                        } else {
                            assert_eq!(shadow.get(addr), None);
                            let size = random >> 44;
                            assert_eq!(insert(shadow, addr, trace(size)), Ok(None));
                            assert_eq!(shadow.get(addr), Some(trace(size)));
                            live.insert(addr, size);
                        }
                    }
                    // All gone, so that arrays are given back by the sweep below.
                    while let Some((addr, size)) = live.pop_first() {
                        assert_eq!(take(shadow, addr), Some(trace(size)));
                    }
                }
                n_live.fetch_add(live.len() as u64, Relaxed);
            });
        }
        let mut wrong = None;
        for _ in 0..400 {
            let mut seen = BTreeMap::new();
            shadow.for_each::<false>(|addr, trace, _| {
                if seen.insert(addr, trace).is_some() {
                    wrong = Some("twice");
                }
            });
            let n_seen = seen.keys().filter(|addr| stays(*addr % 4096 / 16)).count();
            if n_seen != n_stay {
                wrong = Some("one that stayed");
            }
            shadow.directory.for_each_page(|addr, entry| {
                during(|| {
                    let growth = shadow.growth(addr >> PAGE_BITS).unwrap();
                    let lock = growth.lock.lock();
                    if let Entry::Array(shape) = Entry::of(entry.load(SeqCst))
                        && vacate(entry, shape)
                    {
                        drop(lock);
                        shadow.arrays.retire(shape);
                    }
                });
            });
        }
        is_done.store(true, Relaxed);
        assert_eq!(wrong, None);
    });
    assert_eq!(n_live.load(Relaxed), 0);
    assert_eq!(all(shadow).len(), n_stay);
    assert_eq!(violated_invariant(shadow), None);
}

#[test]
fn sweeps_and_releases_take_each_trace_once() {
    let shadow = shadow();
    let is_done = AtomicBool::new(false);
    let (n_inserted, n_taken) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for t in 0..3u64 {
            let (is_done, n_inserted, n_taken) = (&is_done, &n_inserted, &n_taken);
            scope.spawn(move || {
                // One goes without.
                if t != 2 {
                    thread::claim_slot();
                }
                while !is_done.load(Relaxed) {
                    for i in 0..200 {
                        insert(shadow, i * 64 + t * 16, trace(i)).unwrap();
                    }
                    let taken = (0..200).filter(|i| take(shadow, i * 64 + t * 16).is_some());
                    n_taken.fetch_add(taken.count() as u64, Relaxed);
                    n_inserted.fetch_add(200, Relaxed);
                }
            });
        }
        let mut n_forgotten = 0;
        for _ in 0..300 {
            shadow.clear(&mut |_| n_forgotten += 1);
            shadow.tend_at_length();
        }
        is_done.store(true, Relaxed);
        n_taken.fetch_add(n_forgotten, Relaxed);
    });
    assert!(all(shadow).is_empty());
    assert_eq!(n_inserted.load(Relaxed), n_taken.load(Relaxed));
    assert_eq!(violated_invariant(shadow), None);
}

#[test]
fn a_scan_never_sees_the_detail_of_one_block_with_the_trace_of_another() {
    let shadow = shadow();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for t in 0..3u64 {
            let is_done = &is_done;
            scope.spawn(move || {
                // One goes without.
                if t != 2 {
                    thread::claim_slot();
                }
                let mut n = 0u32;
                while !is_done.load(Relaxed) {
                    for addr in (0..64).map(|i| (i * 3 + t) * 16) {
                        n = n.wrapping_add(1) % (1 << 24);
                        let _ = take(shadow, addr);
                        shadow.set_detail(addr, Detail { thread: t as u32, birth: n }).unwrap();
                        let trace = LiveTrace { size: n.into(), site: SiteId(t as u32) };
                        insert(shadow, addr, trace).unwrap();
                    }
                }
            });
        }
        let (mut n_seen, mut wrong) = (0, None);
        while n_seen < 20_000 {
            shadow.for_each::<true>(|_, trace, detail| {
                let expected = Detail { thread: trace.site.0, birth: trace.size as u32 };
                if detail != expected {
                    wrong = Some((trace, detail));
                }
                n_seen += 1;
            });
        }
        is_done.store(true, Relaxed);
        assert_eq!(wrong, None);
    });
}

#[test]
fn memory_of_blocks_of_every_size_is_in_proportion_to_their_number() {
    // As a C library's heap lays them out: 16 bytes more than asked for, rounded up.
    for size in [24u64, 32, 64, 100, 256, 1000, 4096, 20_000] {
        let shadow = shadow();
        let n_blocks = (200 << 20) / (size + 16);
        let n_blocks = n_blocks.min(100_000);
        for i in 0..n_blocks {
            let addr = 0x1_0000_0000 + i * (size + 16).next_multiple_of(16);
            insert(shadow, addr, trace(size)).unwrap();
        }
        let bytes = entry_bytes(shadow);
        let per_block = bytes as f64 / n_blocks as f64;
        assert!(per_block <= 20.0 + size as f64 / 400.0, "{size}: {per_block}");
    }
}

/// Each mapping that a load asks for is refused in turn.
#[test]
fn a_mapping_that_is_refused_costs_some_traces_their_place_and_no_more() {
    let mut n_before = 0;
    loop {
        let shadow: &'static PageShadow = Box::leak(Box::new(PageShadow::new()));
        thread::claim_slot();
        crate::membarrier::prepare();
        let mut expected = BTreeMap::new();
        let (mut n_lost, mut n_unknown) = (0u64, 0u64);
        let is_refused = mapped::refusal::during(n_before, || {
            // As `start`, which says that it has failed; and is tried again.
            let is_prepared = shadow.prepare() || shadow.prepare();
            assert!(is_prepared);
            for i in 0..24_000u64 {
                let addr = ((i % 3) << 40) + (i / 3) * 48;
                let size = if i % 12_000 < 3 { 1 << 30 } else { i % 2000 };
                let detail = Detail { thread: 1, birth: i as u32 };
                let has_detail = i.is_multiple_of(5000);
                let is_known = !has_detail || shadow.set_detail(addr, detail).is_ok();
                n_unknown += u64::from(!is_known);
                match insert(shadow, addr, trace(size)) {
                    Ok(None) => drop(expected.insert(addr, (trace(size), has_detail && is_known))),
                    Ok(Some(_)) => panic!("given back unseen"),
                    Err(NoRoom) => n_lost += 1,
                }
                if i.is_multiple_of(8000) {
                    shadow.tend_at_length();
                }
            }
        });
        assert_eq!(violated_invariant(shadow), None);
        let mut seen = BTreeMap::new();
        shadow.for_each::<true>(|addr, trace, detail| {
            assert!(seen.insert(addr, (trace, detail != Detail::UNKNOWN)).is_none());
        });
        assert!(seen == expected, "of {} mappings", n_before + 1);
        for (addr, (trace, _)) in expected {
            assert_eq!(take(shadow, addr), Some(trace));
        }
        assert!(all(shadow).is_empty());
        // What one mapping would have held, of those that are tried again.
        assert!(n_lost + n_unknown <= 8_000, "{n_lost} {n_unknown}");
        if !is_refused {
            assert_eq!((n_lost, n_unknown), (0, 0));
            break;
        }
        n_before += 1;
    }
    assert!(n_before >= 8, "{n_before}");
}

#[test]
fn memory_of_blocks_that_are_gone_serves_those_of_other_addresses() {
    let bytes_at_last = || {
        let shadow = shadow();
        for first in (0..40u64).map(|round| round << 32) {
            let addrs = (0..20_000).map(|i| first + i * 64);
            addrs.clone().for_each(|addr| assert_eq!(insert(shadow, addr, trace(40)), Ok(None)));
            addrs.for_each(|addr| assert_eq!(take(shadow, addr), Some(trace(40))));
        }
        entry_bytes(shadow)
    };
    // All together are 7 MB; what is empty stays for a while, until memory is wanted. Threads of other tests
    // that are always at work keep memory from being used again.
    let is_used_again = (0..30).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        bytes_at_last() < 3 << 20
    });
    assert!(is_used_again);
}

/// Groups of entries, marked or not.
fn groups(shadow: &PageShadow) -> impl Iterator<Item = Option<(u64, &Group)>> {
    let groups = |chunk: &'static Chunk| (0..).map_while(|index| chunk.group(index).ok());
    #[expect(unsafe_code, reason = "chunks in mapped memory")]
    // SAFETY: the shadow of a test is never dropped, nor are its chunks.
    let chunks = shadow.directory.chunks().map(|chunk| unsafe { &*core::ptr::from_ref(chunk) });
    chunks.flat_map(groups)
}

/// What entries and arrays take, in bytes.
fn entry_bytes(shadow: &PageShadow) -> u64 {
    let mut bytes = groups(shadow).flatten().count() as u64 * size_of::<Group>() as u64;
    shadow.directory.for_each_page(|_, entry| {
        if let Entry::Array(shape) = Entry::of(entry.load(Relaxed)) {
            bytes += 8 * shape.n_words() as u64;
        }
    });
    bytes
}

/// Checks the invariants by number, and returns one that does not hold. For quiet tables.
fn violated_invariant(shadow: &PageShadow) -> Option<&'static str> {
    let mut violated = None;
    shadow.directory.for_each_page(|_, entry| {
        let mut tags = Tags::default();
        match Entry::of(entry.load(SeqCst)) {
            Entry::Growing(_) => violated = Some("I3"),
            Entry::Array(shape) => {
                let mut index = 0;
                for_each_word(shape, |word| {
                    let is_in_line = || shape.line_index(tag_of(word)) == index / LINE_WORDS;
                    if word != 0
                        && !(kind(word) == Kind::Live && is_in_line() && tags.add(tag_of(word)))
                    {
                        violated = Some("I2");
                    }
                    index += 1;
                });
            }
            Entry::None | Entry::One(_) => {}
        }
    });
    violated
}

#[test]
fn a_scan_sees_what_stays_while_a_page_grows_twice() {
    let shadow = shadow();
    let page = 7;
    let addr_of = |place: u64| page * 4096 + place * 16;
    insert(shadow, addr_of(1), trace(1)).unwrap();
    insert(shadow, addr_of(40), trace(2)).unwrap();
    let entry = shadow.directory.entry(addr_of(1)).unwrap();
    let held = entry.load(SeqCst);
    let Entry::Array(from) = Entry::of(held) else { panic!("two blocks are in an array") };
    during(|| {
        // As `grow` does, up to the first trace.
        let to = shadow.arrays.take(from.level() + 1, true).unwrap();
        let growth = shadow.growth(page).unwrap();
        growth.page.store(page, Release);
        growth.from.store(held, Release);
        entry.store(to.to_growing_entry(), SeqCst);
        let is_first = |slot: &AtomicU64| tag_of(slot.load(SeqCst)) == Tag::of(addr_of(1));
        for_each_slot(from, |slot| {
            if is_first(slot) {
                move_word(slot, to);
            }
        });
        let mut seen = Vec::new();
        shadow.for_each_of_page(page, entry, |word| {
            if tag_of(word) == Tag::of(addr_of(40)) {
                // The rest of it, and once more, while the scan is between the two arrays.
                for_each_slot(from, |slot| {
                    if !matches!(kind(slot.load(SeqCst)), Kind::Gone | Kind::Sealed) {
                        move_word(slot, to);
                    }
                });
                entry.store(to.to_entry(), SeqCst);
                shadow.arrays.retire(from);
                for place in 2..12 {
                    insert(shadow, addr_of(place), trace(3)).unwrap();
                }
                assert_ne!(entry.load(SeqCst), to.to_entry(), "it has grown again");
            }
            seen.push(tag_of(word).index());
        });
        seen.sort_unstable();
        seen.retain(|&tag| tag == 1 || tag == 40);
        assert_eq!(seen, [1, 40]);
    });
}
