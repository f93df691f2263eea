//! Captures in a loop, on stacks of a known depth.
//!
//! The depth counts the frames from the contender's to the outermost of the workload; beyond it lie
//! those of the benchmark and of the start of the program, which a limit that is no larger than the
//! depth never reaches. Before anything is timed, the truth asserts that the depth is as claimed.

mod nodes;
mod random;
mod zoo;

use crate::check;
use crate::contender::Site;
use nodes::{LEAVES, MAX_LEAF_DEPTH, MAX_TREE_DEPTH, Tree};
use random::Random;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use zoo::enter;

/// Captures of one run.
const N_CAPTURES: usize = 4096;
/// The contender, and the loop that calls it.
const N_LOOP_FRAMES: usize = 2;
const DEPTHS_AND_LIMITS: [(usize, usize); 5] =
    [(10, 10), (25, 25), (50, 50), (100, 100), (100, 25)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pattern {
    /// One stack.
    Same,
    /// The innermost one to four frames change each time.
    Leaf,
    /// A walk over a random tree, a capture at each node.
    Tree,
    /// All frames change each time.
    Random,
}

/// A pattern of stacks of one depth.
pub(crate) struct Synthetic {
    pattern: Pattern,
    depth: usize,
    pub(crate) limit: usize,
    /// The frames that stay.
    path: Vec<u8>,
    /// Those that do not, for [`Pattern::Random`].
    paths: Vec<Vec<u8>>,
    /// Which of [`LEAVES`], for [`Pattern::Leaf`].
    leaves: Vec<u8>,
}

impl Synthetic {
    /// Slots of the table of stacks: a fifth is filled by the workload that has most of them.
    pub(crate) const N_SLOTS: usize = 1 << 18;

    /// Returns all of them, by name.
    pub(crate) fn names() -> impl Iterator<Item = String> {
        let of = |(pattern, name): (_, &str)| {
            DEPTHS_AND_LIMITS.map(|(depth, limit)| (format!("{name} {depth}/{limit}"), pattern))
        };
        PATTERNS.into_iter().flat_map(of).map(|(name, _)| name)
    }

    /// Makes the one of that name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        let (pattern, numbers) = name.split_once(' ')?;
        let (pattern, _) = PATTERNS.into_iter().find(|(_, name)| *name == pattern)?;
        let (depth, limit) = numbers.split_once('/')?;
        Some(Self::new(pattern, depth.parse().ok()?, limit.parse().ok()?))
    }

    fn new(pattern: Pattern, depth: usize, limit: usize) -> Self {
        let mut random = Random(7);
        let mut path = |len: usize| (0..len).map(|_| random.next() as u8).collect::<Vec<_>>();
        let n_inner = match pattern {
            Pattern::Same | Pattern::Random => 0,
            Pattern::Leaf => MAX_LEAF_DEPTH,
            Pattern::Tree => MAX_TREE_DEPTH,
        };
        let len = depth - N_LOOP_FRAMES - n_inner;
        let paths = match pattern {
            Pattern::Random => (0..N_CAPTURES).map(|_| path(len)).collect(),
            _ => Vec::new(),
        };
        let path = path(len);
        let leaves = (0..N_CAPTURES).map(|_| random.below(LEAVES.len() as u64) as u8).collect();
        Self { pattern, depth, limit, path, paths, leaves }
    }

    /// Captures by `site` once through; returns the number of captures.
    #[inline(never)]
    pub(crate) fn run(&self, site: Site) -> u64 {
        let (site, limit) = (black_box(site), black_box(self.limit));
        match self.pattern {
            Pattern::Same => enter(&self.path, &mut || {
                for _ in 0..black_box(N_CAPTURES) {
                    black_box(site(limit));
                }
            }),
            Pattern::Leaf => enter(&self.path, &mut || {
                for &leaf in &self.leaves {
                    black_box(LEAVES[usize::from(leaf)](site, limit));
                }
            }),
            Pattern::Tree => enter(&self.path, &mut || {
                let n_left = N_CAPTURES as u64;
                Tree { site, limit, random: Random(99), n_left }.walk();
            }),
            Pattern::Random => {
                // Another order than that in which the paths were made.
                let paths = (0..N_CAPTURES).map(|i| &self.paths[i * 2053 % N_CAPTURES]);
                paths.fold(0, |x, path| x ^ enter(path, &mut || _ = black_box(site(limit))))
            }
        };
        N_CAPTURES as u64
    }

    /// Asserts that the stacks are as deep as claimed, and returns their mean depth in frames.
    pub(crate) fn assert_depth(&self) -> f64 {
        let base = Self::new(Pattern::Same, N_LOOP_FRAMES, 1);
        let observed = base.observe();
        assert_eq!(observed.least, observed.most);
        let n_base = observed.least - N_LOOP_FRAMES as u64;

        let Observed { n, least, most, sum } = self.observe();
        assert_eq!(n, N_CAPTURES as u64);
        let (least, most) = (least - n_base, most - n_base);
        let depth = self.depth as u64;
        let spread = match self.pattern {
            Pattern::Same | Pattern::Random => 0,
            Pattern::Leaf => MAX_LEAF_DEPTH as u64 - 1,
            Pattern::Tree => MAX_TREE_DEPTH as u64 - 1,
        };
        assert_eq!((least, most), (depth - spread, depth), "depth of the stacks");
        assert!(least + n_base >= self.limit as u64, "stacks do not reach the limit");
        sum as f64 / n as f64 - n_base as f64
    }

    fn observe(&self) -> Observed {
        N.store(0, Relaxed);
        LEAST.store(u64::MAX, Relaxed);
        MOST.store(0, Relaxed);
        SUM.store(0, Relaxed);
        self.run(observe);
        Observed {
            n: N.load(Relaxed),
            least: LEAST.load(Relaxed),
            most: MOST.load(Relaxed),
            sum: SUM.load(Relaxed),
        }
    }
}

const PATTERNS: [(Pattern, &str); 4] = [
    (Pattern::Same, "same"),
    (Pattern::Leaf, "leaf"),
    (Pattern::Tree, "tree"),
    (Pattern::Random, "random"),
];

/// Depths of stacks, in frames.
struct Observed {
    n: u64,
    least: u64,
    most: u64,
    sum: u64,
}

// `Relaxed`: one thread.
static N: AtomicU64 = AtomicU64::new(0);
static LEAST: AtomicU64 = AtomicU64::new(0);
static MOST: AtomicU64 = AtomicU64::new(0);
static SUM: AtomicU64 = AtomicU64::new(0);

/// Notes the depth of the stack; a [`Site`].
fn observe(_: usize) -> Option<NonZeroU32> {
    let depth = check::depth(0);
    let n_frames = u64::from(depth.map_or(0, NonZeroU32::get));
    N.fetch_add(1, Relaxed);
    LEAST.fetch_min(n_frames, Relaxed);
    MOST.fetch_max(n_frames, Relaxed);
    SUM.fetch_add(n_frames, Relaxed);
    black_box(depth)
}
