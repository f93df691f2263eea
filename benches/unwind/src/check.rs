//! Whether the contenders find the stacks that are there: all capture one after the other by the
//! same instruction, and their stacks are compared frame by frame.

use crate::contender::{ALL, TRUTH, n_all};
use crate::table::{N_SLOTS, TABLE};
use memtrace_unwind::function_range;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

// All counters are `Relaxed`: they are read when the threads that counted are done.

static N_CHECKED: AtomicU64 = AtomicU64::new(0);
/// Frames of the true stacks.
static N_FRAMES: AtomicU64 = AtomicU64::new(0);
static N_WRONG: [AtomicU64; n_all()] = [const { AtomicU64::new(0) }; n_all()];
/// Those of the wrong ones that lack outer frames and are right as far as they go.
static N_CUT: [AtomicU64; n_all()] = [const { AtomicU64::new(0) }; n_all()];
/// For each contender a bit for each stack that it found.
static FOUND: [[AtomicU64; N_SLOTS / 64]; n_all()] =
    [const { [const { AtomicU64::new(0) }; N_SLOTS / 64] }; n_all()];

/// Captures by all contenders, and compares; a [`Site`](crate::contender::Site).
#[inline(never)]
pub(crate) fn check(limit: usize) -> Option<NonZeroU32> {
    let mut sites = [None; n_all()];
    let mut i = black_box(0);
    while i < sites.len() {
        // This function's frame is one more than there would be.
        sites[i] = (ALL[i].site)(limit + 1);
        i = black_box(i + 1);
    }
    compare(limit, &sites);
    sites[TRUTH]
}

/// Captures a stack that is longer than any limit, and counts its frames; a
/// [`Site`](crate::contender::Site) that returns the count.
#[inline(never)]
pub(crate) fn depth(_: usize) -> Option<NonZeroU32> {
    let site = (ALL[TRUTH].site)(crate::buffer::MAX_FRAMES - 16)?;
    // Without this function's frame.
    NonZeroU32::new(TABLE.stack(black_box(site)).0.len() as u32 - 1)
}

#[inline(never)]
fn compare(limit: usize, sites: &[Option<NonZeroU32>; n_all()]) {
    N_CHECKED.fetch_add(1, Relaxed);
    let truth = sites[TRUTH].map(|site| TABLE.stack(site));
    let n_frames = truth.map_or(0, |(frames, _)| frames.len());
    assert!((3..=limit + 1).contains(&n_frames), "the truth is {n_frames} frames of {limit}");
    N_FRAMES.fetch_add(n_frames as u64 - 1, Relaxed);
    for (i, contender) in ALL.iter().enumerate() {
        if !contender.is_interning || !contender.is_there() {
            continue;
        }
        let found = sites[i].map(|site| TABLE.stack(site));
        let (mut is_right, mut is_cut) = (false, false);
        if let (Some((found, end)), Some((truth, true_end))) = (found, truth) {
            // The newest frame is the contender itself.
            let mut pairs = found.iter().zip(truth).skip(1);
            let is_same = pairs.all(|(found, truth)| found.load(Relaxed) == truth.load(Relaxed));
            let is_right_end = !contender.tells_end || end == true_end;
            is_right = is_same && found.len() == truth.len() && is_right_end;
            is_cut = is_same && found.len() < truth.len() && found.len() > 1;
        }
        if !is_right {
            N_WRONG[i].fetch_add(1, Relaxed);
        }
        if is_cut {
            N_CUT[i].fetch_add(1, Relaxed);
        }
        if let Some(site) = sites[i] {
            let slot = site.get() as usize - 1;
            FOUND[i][slot / 64].fetch_or(1 << (slot % 64), Relaxed);
        }
    }
}

/// Captures that were compared.
pub(crate) fn n_checked() -> u64 {
    N_CHECKED.load(Relaxed)
}

/// Frames of the true stacks, on average.
pub(crate) fn mean_depth() -> f64 {
    N_FRAMES.load(Relaxed) as f64 / n_checked() as f64
}

/// Stacks of a contender that were not the true ones.
pub(crate) fn n_wrong(i: usize) -> u64 {
    N_WRONG[i].load(Relaxed)
}

/// Those of the wrong ones that only lack outer frames.
pub(crate) fn n_cut(i: usize) -> u64 {
    N_CUT[i].load(Relaxed)
}

/// Distinct stacks that a contender found when all captured in turn.
pub(crate) fn n_sites(i: usize) -> u64 {
    FOUND[i].iter().map(|bits| u64::from(bits.load(Relaxed).count_ones())).sum()
}

/// Distinct stacks that each contender found while it was timed: those without this module's frames.
pub(crate) fn n_sites_timed() -> [u64; n_all()] {
    let range = |function: *const ()| function_range(function as u64).expect("has unwind tables");
    let contenders = ALL.each_ref().map(|contender| range(contender.site as *const ()));
    let ours = [range(check as *const ()), range(depth as *const ())];
    let mut n_sites = [0; n_all()];
    TABLE.for_each_stack(|frames| {
        let [newest, next, ..] = frames else { return };
        let (newest, next) = (newest.load(Relaxed), next.load(Relaxed));
        if ours.iter().any(|range| range.contains(&next)) {
            return;
        }
        if let Some(i) = contenders.iter().position(|range| range.contains(&newest)) {
            n_sites[i] += 1;
        }
    });
    n_sites
}
