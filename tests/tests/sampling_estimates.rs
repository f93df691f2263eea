//! Whether estimates are right on average, and their intervals as wide as they say: the hook's sampler,
//! over allocations that are made up, and the statistics of what it has kept.

use memtrace_alloc::Sampler;
use memtrace_core::{Frame, KeyType, Snapshot, SnapshotBuilder, StackId};
use memtrace_tests::rng::Rng;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;

const PERIOD: u64 = 4096;
/// So many that chance moves a coverage by half a percent.
const N_SEEDS: u64 = 2000;

/// Number of blocks and range of sizes, of each site.
const SITES: [(usize, RangeInclusive<usize>); 9] = [
    // Strings, nodes, buffers.
    (16_000, 24..=40),
    (10_000, 64..=64),
    (5000, 100..=300),
    (1000, 1000..=1000),
    (6000, 16..=3000),
    // About as large as the period.
    (400, 3000..=5000),
    // What is always kept, and few that are.
    (50, 4096..=100_000),
    (15_000, 48..=48),
    // Most of the bytes are in few of the blocks.
    (6000, 1..=2000),
];

/// A program's allocations, in their order: site, size, and whether the block is there at the end.
fn allocations(seed: u64) -> Vec<(usize, usize, bool)> {
    let mut rng = Rng::new(seed);
    let mut all = Vec::new();
    for (site, (n_blocks, sizes)) in SITES.into_iter().enumerate() {
        for _ in 0..n_blocks {
            let mut size = sizes.start() + rng.below(sizes.end() - sizes.start() + 1);
            if site == SITES.len() - 1 {
                // Products of even chances, which have a long tail.
                size = (size * (1 + rng.below(2000)) / 500 / (1 + rng.below(20))).max(16);
            }
            all.push((site, size, rng.below(5) > 0));
        }
    }
    for i in (1..all.len()).rev() {
        all.swap(i, rng.below(i + 1));
    }
    all
}

fn line(site: usize) -> u32 {
    site as u32 + 1
}

/// Bytes and blocks of each site and, last, of all.
fn truth(allocations: &[(usize, usize, bool)]) -> [(u64, u64); SITES.len() + 1] {
    let mut sums = [(0, 0); SITES.len() + 1];
    for &(site, size, _) in allocations.iter().filter(|(_, _, is_live)| *is_live) {
        for sum in [site, SITES.len()] {
            sums[sum].0 += size as u64;
            sums[sum].1 += 1;
        }
    }
    sums
}

struct Program {
    builder: SnapshotBuilder,
    stacks: Vec<StackId>,
}

impl Program {
    fn new() -> Self {
        let mut builder = SnapshotBuilder::new(1);
        builder.set_sample_period(NonZeroU64::new(PERIOD));
        let stack = |site| {
            let frame = builder.frame(Frame::new("site.rs", line(site)));
            builder.stack(&[frame], Some(1))
        };
        let stacks = (0..SITES.len()).map(stack).collect();
        Self { builder, stacks }
    }

    /// What a snapshot at the end has of the program's allocations.
    fn run(&mut self, allocations: &[(usize, usize, bool)], seed: u64) -> Snapshot {
        let sampler = Sampler::new(PERIOD, seed);
        for &(site, size, is_live) in allocations {
            // Blocks that are released again are decided on like all others.
            if sampler.keeps(size) && is_live {
                self.builder.trace(0, size as u64, self.stacks[site]);
            }
        }
        self.builder.snapshot()
    }
}

/// How one figure fares over all seeds.
#[derive(Clone, Copy, Default)]
struct Score {
    sum: f64,
    n_covered: u32,
}

impl Score {
    fn add<T: Copy + PartialOrd>(&mut self, found: f64, interval: RangeInclusive<T>, truth: T) {
        self.sum += found;
        self.n_covered += u32::from(interval.contains(&truth));
    }

    fn check(&self, what: &str, truth: f64, tolerance: f64, coverage: RangeInclusive<f64>) {
        let bias = (self.sum / N_SEEDS as f64 - truth).abs() / tolerance;
        let covered = f64::from(self.n_covered) / N_SEEDS as f64;
        println!("{what}: off by {:.2} % of what is allowed, {covered:.3} covered", bias * 100.0);
        assert!(bias < 1.0, "{what}: {} instead of {truth}", self.sum / N_SEEDS as f64);
        assert!(coverage.contains(&covered), "{what}: {covered} covered");
    }
}

/// The site all of whose blocks are kept.
const LARGE: usize = 6;

#[test]
fn estimates_are_right_on_average_and_their_intervals_hold_the_truth_in_95_of_100() {
    let allocations = allocations(1);
    let truth = truth(&allocations);
    let mut program = Program::new();
    let mut scores = [[Score::default(); 2]; SITES.len() + 1];
    for seed in 0..N_SEEDS {
        let snapshot = program.run(&allocations, seed);
        for statistic in snapshot.statistics(KeyType::Lineno) {
            let site = statistic.traceback[0].lineno as usize - 1;
            let [size, count] = &mut scores[site];
            size.add(statistic.size as f64, statistic.size_interval(), truth[site].0);
            count.add(statistic.count as f64, statistic.count_interval(), truth[site].1);
        }
        // The file is one line of all sites.
        let all = &snapshot.statistics(KeyType::Filename)[0];
        assert_eq!((all.size, all.count), (snapshot.total_size(), snapshot.total_count()));
        let [size, count] = &mut scores[SITES.len()];
        size.add(all.size as f64, all.size_interval(), truth[SITES.len()].0);
        count.add(all.count as f64, all.count_interval(), truth[SITES.len()].1);
    }
    for (site, [size, count]) in scores.iter().enumerate() {
        let (true_size, true_count) = (truth[site].0 as f64, truth[site].1 as f64);
        let coverage = if site == LARGE { 1.0..=1.0 } else { 0.93..=0.97 };
        size.check(&format!("bytes of {site}"), true_size, true_size / 100.0, coverage.clone());
        count.check(&format!("blocks of {site}"), true_count, true_count / 100.0, coverage);
    }
}

/// Two snapshots between which everything was replaced: what the error of a difference assumes.
#[test]
fn differences_are_right_on_average_and_their_intervals_hold_the_truth() {
    let programs = [allocations(2), allocations(3)];
    let [old_truth, new_truth] = [&programs[0], &programs[1]].map(|all| truth(all));
    let mut program = Program::new();
    let mut scores = [[Score::default(); 2]; SITES.len()];
    for seed in 0..N_SEEDS {
        let old = program.run(&programs[0], 2 * seed + 100_000);
        let new = program.run(&programs[1], 2 * seed + 100_001);
        for diff in new.compare_to(&old, KeyType::Lineno) {
            let site = diff.traceback[0].lineno as usize - 1;
            let [size, count] = &mut scores[site];
            let true_size = new_truth[site].0 as i64 - old_truth[site].0 as i64;
            let true_count = new_truth[site].1 as i64 - old_truth[site].1 as i64;
            size.add(diff.size_diff as f64, diff.size_diff_interval(), true_size);
            count.add(diff.count_diff as f64, diff.count_diff_interval(), true_count);
        }
    }
    for (site, [size, count]) in scores.iter().enumerate() {
        let (old, new) = (old_truth[site], new_truth[site]);
        let coverage = if site == LARGE { 1.0..=1.0 } else { 0.93..=0.97 };
        let true_size = new.0 as f64 - old.0 as f64;
        let true_count = new.1 as f64 - old.1 as f64;
        size.check(&format!("bytes of {site}"), true_size, new.0 as f64 / 50.0, coverage.clone());
        count.check(&format!("blocks of {site}"), true_count, new.1 as f64 / 50.0, coverage);
    }
}
