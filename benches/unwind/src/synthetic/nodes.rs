//! The innermost frames of some workloads: chains of one to four calls, and a tree.

use super::random::Random;
use crate::contender::Site;
use std::hint::black_box;

type Function = fn(Site, usize) -> u64;

/// Functions that capture one to four frames further in.
pub(super) const LEAVES: [Function; 8] =
    [one, one_large, two, two_large, three, three_large, four, four_large];

/// The deepest of [`LEAVES`], in frames.
pub(super) const MAX_LEAF_DEPTH: usize = 4;
/// The deepest node of a tree, in frames.
pub(super) const MAX_TREE_DEPTH: usize = 8;

#[inline(never)]
fn one(site: Site, limit: usize) -> u64 {
    black_box(site(limit));
    1
}

macro_rules! around {
    ($($name:ident: $len:expr, $inner:ident;)*) => {$(
        #[inline(never)]
        fn $name(site: Site, limit: usize) -> u64 {
            let words = black_box([limit; $len]);
            let n = $inner(site, limit);
            black_box(&words);
            n + 1
        }
    )*};
}

#[inline(never)]
fn one_large(site: Site, limit: usize) -> u64 {
    let words = black_box([limit; 7]);
    black_box(site(limit));
    black_box(&words);
    1
}

around! {
    two: 1, one;
    two_large: 3, one_large;
    three: 2, two;
    three_large: 5, two;
    four: 4, three;
    four_large: 6, three_large;
}

/// A walk over a random tree that captures at every node.
pub(super) struct Tree {
    pub(super) site: Site,
    pub(super) limit: usize,
    pub(super) random: Random,
    /// Nodes still to be visited.
    pub(super) n_left: u64,
}

impl Tree {
    /// Visits as many nodes as are left, tree after tree.
    pub(super) fn walk(&mut self) {
        while self.n_left > 0 {
            black_box(self.narrow(MAX_TREE_DEPTH));
        }
    }

    #[inline(always)]
    fn capture(&mut self) -> bool {
        if self.n_left == 0 {
            return false;
        }
        self.n_left -= 1;
        black_box((self.site)(self.limit));
        true
    }

    #[inline(never)]
    fn narrow(&mut self, height: usize) -> u64 {
        if !self.capture() || height == 1 {
            return 1;
        }
        let mut n = 1;
        for _ in 0..black_box(2) {
            n += match self.random.below(16) {
                0..4 => self.narrow(height - 1),
                4..8 => self.wide(height - 1),
                8..13 => self.busy(height - 1),
                _ => 0,
            };
        }
        n
    }

    #[inline(never)]
    fn wide(&mut self, height: usize) -> u64 {
        let words = black_box([height; 12]);
        if !self.capture() || height == 1 {
            return 1;
        }
        let mut n = self.narrow(height - 1);
        if self.random.below(2) == 0 {
            n += self.busy(height - 1);
        }
        black_box(&words);
        n + 1
    }

    #[inline(never)]
    fn busy(&mut self, height: usize) -> u64 {
        let [a, b, c] = [black_box(1), black_box(2), black_box(3)];
        let mut n = 0;
        if height > 1 {
            n = if self.random.below(3) == 0 {
                self.busy(height - 1)
            } else {
                self.wide(height - 1)
            };
        }
        self.capture();
        n ^ a ^ b ^ c
    }
}
