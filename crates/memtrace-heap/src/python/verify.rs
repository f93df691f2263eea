//! The recount of everything in pools, from the links up.
//!
//! # Mechanism
//! Each arena's pools are recounted from their blocks' links; the sums are compared with the
//! counters, and the lists walked. A list with a loop in it is longer than what it may hold.
//!
//! # Invariants
//! Those of pools (P), arenas (A, U) and classes (S), each reported by its own [`Violation`].
//!
//! # Cost
//! Linear in the blocks ever carved.

use super::arena::Arena;
use super::arenas::{ArenaCounts, Arenas};
use super::error::Violation;
use super::pool::{NO_CLASS, Pool};
use super::profile::{N_CLASSES, POOLS_PER_ARENA, Profile};
use super::small::Small;
use crate::list::{Head, Id, Links};

/// `Ok` if `holds`, or else `violation`.
fn require(holds: bool, violation: Violation) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(violation) }
}

/// How many nodes a list has; `None` if a link is wrong, a node does not belong, or there are more
/// than `n_most`.
fn length<T>(
    head: Head,
    nodes: &[T],
    n_most: usize,
    links: impl Fn(&T) -> Links,
    belongs: impl Fn(&T) -> bool,
) -> Option<usize> {
    let (mut n_seen, mut prev, mut at) = (0usize, None, head);
    while let Some(id) = at {
        let node = nodes.get(id.index())?;
        if links(node).prev != prev || !belongs(node) || n_seen == n_most {
            return None;
        }
        n_seen = n_seen.wrapping_add(1);
        (prev, at) = (at, links(node).next);
    }
    Some(n_seen)
}

/// What is counted of a class.
#[derive(Default, Clone, Copy)]
struct Counted {
    n_pools: usize,
    n_used: usize,
    n_partial: usize,
}

impl Small {
    /// Recounts all of it.
    pub(super) fn verify(&self, profile: &Profile) -> Result<(), Violation> {
        let mut counted = [Counted::default(); N_CLASSES];
        let mut n_carved = 0usize;
        let pools = self.arenas.pools.chunks_exact(POOLS_PER_ARENA);
        for (place, (arena, pools)) in self.arenas.arenas.iter().zip(pools).enumerate() {
            if arena.is_vacant() {
                continue;
            }
            require(arena.is_consistent(pools), Violation::UnusedPools)?;
            n_carved = n_carved.wrapping_add(arena.n_carved);
            for (number, pool) in pools.iter().enumerate().take(arena.n_carved) {
                count_pool(profile, arena, number, pool, &mut counted)?;
                let index = place.wrapping_mul(POOLS_PER_ARENA).wrapping_add(number);
                let found = self.arenas.find(profile, arena.pool_addr(profile, number));
                require(found.is_some() && found == Id::new(index), Violation::PoolTable)?;
            }
        }
        require(n_carved == self.arenas.table.len(), Violation::PoolTable)?;
        for (index, (class, counted)) in self.classes.iter().zip(counted).enumerate() {
            let counts = (class.n_pools, class.n_used) == (counted.n_pools, counted.n_used);
            require(counts, Violation::ClassCounts)?;
            let belongs = |pool: &Pool| {
                usize::from(pool.class) == index && pool.n_used > 0 && !pool.is_full()
            };
            let pools = &self.arenas.pools;
            let n_listed =
                length(class.partial, pools, counted.n_partial, |pool| pool.links, belongs);
            require(n_listed == Some(counted.n_partial), Violation::ClassList)?;
        }
        self.arenas.verify(profile)
    }
}

/// Recounts one carved pool and adds it to its class.
fn count_pool(
    profile: &Profile,
    arena: &Arena,
    number: usize,
    pool: &Pool,
    counted: &mut [Counted; N_CLASSES],
) -> Result<(), Violation> {
    let class = usize::from(pool.class);
    let blocks = arena.blocks(profile, number);
    let is_consistent = pool.is_consistent(blocks, profile.blocks_per_pool(class));
    require(pool.class != NO_CLASS && is_consistent, Violation::Pool)?;
    let of_class = counted.get_mut(class).ok_or(Violation::Pool)?;
    if pool.n_used > 0 {
        of_class.n_pools = of_class.n_pools.wrapping_add(1);
        of_class.n_used = of_class.n_used.wrapping_add(usize::from(pool.n_used));
        of_class.n_partial = of_class.n_partial.wrapping_add(usize::from(!pool.is_full()));
    }
    Ok(())
}

impl Arenas {
    /// Recounts arenas and walks their lists.
    fn verify(&self, profile: &Profile) -> Result<(), Violation> {
        let live = || self.arenas.iter().filter(|arena| !arena.is_vacant());
        let counts = ArenaCounts {
            n_current: live().count(),
            n_misaligned: live().filter(|arena| !arena.is_aligned()).count(),
            n_pools_unused: live().map(|arena| arena.n_unused).fold(0, usize::wrapping_add),
            ..self.counts
        };
        let of_all_time = self.counts.n_current <= self.counts.n_high_water
            && self.counts.n_high_water as u64 <= self.counts.n_total;
        require(counts == self.counts && of_all_time, Violation::Counters)?;
        for (n_unused, head) in self.usable.iter().enumerate() {
            let belongs = |arena: &Arena| !arena.is_vacant() && arena.n_unused == n_unused;
            let n_expected = match n_unused {
                0 => 0,
                _ => live().filter(|arena| belongs(arena)).count(),
            };
            let n_listed = length(*head, &self.arenas, n_expected, |arena| arena.links, belongs);
            require(n_listed == Some(n_expected), Violation::ArenaLists)?;
        }
        let n_free = live().filter(|arena| arena.is_free()).count();
        require(n_free <= usize::from(profile.keeps_last_arena()), Violation::FreeArenas)
    }
}
