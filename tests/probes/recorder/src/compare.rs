//! The comparison of what is recorded with the truth, when all threads are quiet.

use crate::ALLOC;
use crate::report::{FIGURES, count, differs, ensure};
use crate::rounds::Round;
use crate::sites::N_SITES;
use crate::truth::{self, Block, Expected, NO_TAG};
use memtrace_alloc::{LiveBlock, Losses, SiteId};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// Room for blocks that the counts do not know of.
const N_SPARE: usize = 10_000;

/// Compares everything with the truth, and returns how many bytes have a trace.
pub(crate) fn compare(round: &Round, extents: &[Range<u64>; N_SITES], before: &Losses) -> u64 {
    // A difference found here is told by `differs`, which does not return.
    truth::untraced(|| {
        let recorded = recorded();
        compare_blocks(round, extents, &recorded, if round.has_limit { n_lost(before) } else { 0 });
        let n_bytes = recorded.iter().map(|block| block.size).sum();
        compare_sums(round, recorded.len() as u64, n_bytes);
        compare_site_totals(round, &recorded);
        compare_lifetimes(round);
        compare_losses(round, before);
        FIGURES.n_compared.fetch_add(recorded.len() as u64, Relaxed);
        n_bytes
    })
}

/// Expects that nothing is recorded at all.
pub(crate) fn expect_nothing(when: &str) {
    truth::untraced(|| {
        let recorded = recorded();
        ensure!(
            recorded.is_empty(),
            "{when}, {} blocks are recorded, such as {:x?}",
            recorded.len(),
            recorded.first()
        );
        let (current, n_traces) =
            (memtrace_alloc::traced_memory().current, memtrace_alloc::n_traces());
        ensure!(
            (current, n_traces) == (0, 0),
            "{when}, the totals have drifted: {current} bytes, {n_traces} blocks"
        );
    });
}

/// Every block that is recorded, by address, none twice.
fn recorded() -> Vec<LiveBlock> {
    let mut recorded = Vec::with_capacity(memtrace_alloc::n_traces() as usize + N_SPARE);
    let mut n_without_room = 0_u64;
    memtrace_alloc::for_each_block(|block| {
        if recorded.len() < recorded.capacity() {
            recorded.push(block);
        } else {
            n_without_room += 1;
        }
    });
    ensure!(n_without_room == 0, "{n_without_room} blocks more are recorded than are counted");
    recorded.sort_unstable_by_key(|block| block.block_addr);
    for pair in recorded.windows(2) {
        let [one, other] = pair else { continue };
        ensure!(one.block_addr != other.block_addr, "a block is recorded twice: {pair:x?}");
    }
    recorded
}

/// Every block that is live, by address.
fn live() -> Vec<Block> {
    let truth = ALLOC.inner();
    let mut live = Vec::with_capacity(truth.n_blocks() + N_SPARE);
    truth.for_each(|block| {
        ensure!(live.len() < live.capacity(), "there are more live blocks than were counted");
        live.push(block);
    });
    live.sort_unstable_by_key(|block| block.addr);
    live
}

/// Expects a record of every live block that is to have one, but of `n_lost` of them.
fn compare_blocks(
    round: &Round,
    extents: &[Range<u64>; N_SITES],
    recorded: &[LiveBlock],
    n_lost: u64,
) {
    let live = live();
    let is_on = memtrace_alloc::is_tracing();
    let mut n_missing = 0;
    let (mut recorded, mut live) = (recorded.iter().peekable(), live.iter().peekable());
    loop {
        let (record, block) = (recorded.peek().copied(), live.peek().copied());
        let order = match (record, block) {
            (None, None) => return,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(record), Some(block)) => record.block_addr.cmp(&(block.addr as u64)),
        };
        if order != Ordering::Greater {
            recorded.next();
        }
        if order != Ordering::Less {
            live.next();
        }
        let expected = block.map(|block| block.expected(is_on, round.is_steady));
        match (order, record, block, expected) {
            (Ordering::Less, Some(record), ..) => {
                differs(format_args!("a block is recorded and is not live: {record:x?}"))
            }
            (Ordering::Equal, Some(record), Some(block), Some(expected)) => {
                ensure!(
                    expected != Expected::None,
                    "a block is recorded that should not be: {block:x?} as {record:x?}"
                );
                count_if_either(expected);
                ensure!(
                    record.size == block.size as u64,
                    "a block is recorded with another size: {block:x?} as {record:x?}"
                );
                if expected == Expected::Trace {
                    compare_details(round, record, block);
                    compare_site(round, extents, record, block);
                }
            }
            (_, _, Some(block), Some(expected)) => {
                count_if_either(expected);
                if expected == Expected::Trace && !may_be_left_out(round, block) {
                    n_missing += 1;
                    ensure!(
                        n_missing <= n_lost,
                        "a live block is not recorded: {block:x?}; {n_lost} may be missing"
                    );
                }
            }
            _ => {}
        }
    }
}

/// Whether a block was perhaps not sampled.
fn may_be_left_out(round: &Round, block: &Block) -> bool {
    // One that was resized untraced is recorded if it was before.
    (block.size as u64) < round.sample_every || round.sample_every > 0 && block.os_id == 0
}

fn count_if_either(expected: Expected) {
    if expected == Expected::Either {
        count(&FIGURES.n_either);
    }
}

fn compare_details(round: &Round, record: &LiveBlock, block: &Block) {
    if round.threads && block.os_id != 0 && !round.has_limit {
        let os_id = memtrace_alloc::thread_info(record.thread).map(|info| info.os_id);
        ensure!(
            os_id == Some(block.os_id),
            "a block is recorded with another thread: {block:x?} as {record:x?}, which is {os_id:?}"
        );
    }
    let births = match round.generations {
        true if round.has_limit => 0..=memtrace_alloc::generation(),
        true => 1..=memtrace_alloc::generation(),
        false => 0..=0,
    };
    ensure!(
        births.contains(&record.birth) && (round.threads || record.thread == 0),
        "a block is recorded with details that cannot be: {record:x?}"
    );
}

fn compare_site(round: &Round, extents: &[Range<u64>], record: &LiveBlock, block: &Block) {
    let Some(site) = memtrace_alloc::site_frames(record.site) else {
        return ensure!(round.has_limit, "a block is recorded without a stack: {record:x?}");
    };
    let mut call_addrs = site.call_addrs();
    ensure!(
        call_addrs.len() > 0 && call_addrs.len() <= usize::from(round.n_frames),
        "a stack has {} frames of at most {}",
        call_addrs.len(),
        round.n_frames
    );
    // In a dev build the nearest frame is a function of the standard library's.
    if block.tag == NO_TAG || cfg!(debug_assertions) && round.n_frames == 1 {
        return;
    }
    let extent = &extents[block.tag as usize];
    ensure!(
        call_addrs.any(|addr| extent.contains(&addr)),
        "a block is recorded with a stack that does not lead through {extent:x?}: {block:x?} as \
         {record:x?}, {site:x?}"
    );
}

fn compare_sums(round: &Round, n_blocks: u64, n_bytes: u64) {
    let (memory, n_traces) = (memtrace_alloc::traced_memory(), memtrace_alloc::n_traces());
    let is_estimate = round.sample_every > 0 && n_blocks > 0;
    ensure!(
        n_traces == n_blocks
            && (memory.current == n_bytes || is_estimate && memory.current > n_bytes),
        "the totals have drifted: {} bytes, {n_traces} blocks; recorded are {n_bytes} bytes, {n_blocks} \
         blocks; steady: {}",
        memory.current,
        round.is_steady
    );
    ensure!(memory.peak >= memory.current, "the peak is lower than what there is: {memory:?}");
}

/// What was allocated at each site, less what was given back, is what is live.
fn compare_site_totals(round: &Round, recorded: &[LiveBlock]) {
    let is_exact = round.is_steady && !round.has_limit && round.sample_every == 0;
    if !round.site_totals || !is_exact {
        return;
    }
    let mut live: HashMap<SiteId, (i64, i64)> = HashMap::new();
    for record in recorded {
        let (n_blocks, n_bytes) = live.entry(record.site).or_default();
        (*n_blocks, *n_bytes) = (*n_blocks + 1, *n_bytes + record.size as i64);
    }
    memtrace_alloc::for_each_site_totals(|site, totals| {
        let left = (
            totals.n_allocated as i64 - totals.n_freed as i64,
            totals.allocated_bytes as i64 - totals.freed_bytes as i64,
        );
        let live = live.remove(&site).unwrap_or_default();
        ensure!(
            left == live,
            "the totals of a site leave {left:?} blocks and bytes, and live are {live:?}: {site:?}, {totals:?}"
        );
    });
    ensure!(live.is_empty(), "sites have no totals: {live:?}");
}

/// Of each block that was given back it is counted how long it lived.
fn compare_lifetimes(round: &Round) {
    let mut n_known: HashMap<SiteId, u64> = HashMap::new();
    let are_counted = memtrace_alloc::for_each_site_lifetimes(|site, lifetimes| {
        n_known.insert(site, lifetimes.n_blocks());
    });
    let are_wanted = round.lifetimes && memtrace_alloc::is_tracing();
    ensure!(are_counted == are_wanted, "lifetimes are counted: {are_counted}, not {are_wanted}");
    if !round.lifetimes || !round.is_steady {
        return;
    }
    memtrace_alloc::for_each_site_totals(|site, totals| {
        let n_known = n_known.remove(&site).unwrap_or(0);
        // Where there is no room, some are lost.
        ensure!(
            n_known == totals.n_freed || round.has_limit && n_known < totals.n_freed,
            "{n_known} lifetimes are known of a site that has {totals:?}"
        );
    });
    ensure!(n_known.is_empty(), "sites have no totals: {n_known:?}");
}

/// How many blocks there was no room for.
fn n_lost(before: &Losses) -> u64 {
    memtrace_alloc::losses().n_blocks_without_record - before.n_blocks_without_record
}

fn compare_losses(round: &Round, before: &Losses) {
    let now = memtrace_alloc::losses();
    if round.has_limit {
        FIGURES.n_lost.fetch_add(n_lost(before), Relaxed);
        ensure!(now.n_nested == before.n_nested, "allocations were lost inside the recorder");
    } else {
        ensure!(now == *before, "there are losses: {before:?}, now {now:?}");
    }
}
