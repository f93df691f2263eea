//! Which lines keep half-empty pools from being given back.
//!
//! # The order of things
//!
//! The pools are copied first: of each its free bytes, and which sites have how many blocks there. Then
//! sites are named and put into groups, and each pool's free bytes are charged to the groups that live in
//! it. All of it runs untraced; what it allocates is as untraced as what is kept for snapshots.

use crate::border::tracebacks_of;
use hashbrown::HashMap;
use memtrace_alloc::{SiteId, untraced};
use memtrace_core::{Attribution, SourceCache, Traceback};
use std::fmt;

/// Why nothing can be said of pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinnedMemoryError {
    /// Tracing is off.
    #[error(
        "tracing is off: call memtrace::start(25), or set MEMTRACE=25 in the environment, first"
    )]
    NotTracing,
    /// The traces do not stand beside the blocks of a pooled heap.
    #[error(
        "the global allocator is no pooled heap with block words: use memtrace::Alloc::pooled(&HEAP)"
    )]
    NotPooled,
}

/// What one group of blocks keeps from being given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pins {
    /// Free bytes in pools in which no block lives but the group's: if its blocks went, these bytes could
    /// go, too.
    pub hostage_bytes: u64,
    /// Those pools.
    pub n_pools: u64,
    /// The group's blocks there.
    pub n_blocks: u64,
    /// What these blocks could hold, in bytes: no less than what was requested.
    pub block_bytes: u64,
    /// Its share, by number of blocks, of the free bytes in pools in which others' blocks live, too.
    pub shared_bytes: u64,
    /// Those pools.
    pub n_shared_pools: u64,
    /// The group's blocks there.
    pub n_shared_blocks: u64,
}

/// A group of call sites, and what its blocks pin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinningSite {
    /// What the stacks of the group have in common.
    pub traceback: Traceback,
    /// What its blocks pin.
    pub pins: Pins,
}

/// All free bytes in pools, by who keeps them there.
///
/// Nothing is left out and nothing counted twice: the hostage and the shared bytes of all sites and of
/// untraced blocks sum up to `free_bytes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinnedMemory {
    /// Most hostage bytes first, among equal ones most shared bytes first.
    pub sites: Vec<PinningSite>,
    /// What blocks without a trace pin: from before the start, or memtrace's own.
    pub untraced: Pins,
    /// Pools in which blocks live.
    pub n_pools: u64,
    /// The free bytes in them.
    pub free_bytes: u64,
    /// The bytes of pools in which no block lives, which a thread keeps for its next ones.
    pub empty_pool_bytes: u64,
}

/// Returns which lines keep half-empty pools of the heap from being given back: the line of your code, as
/// in a snapshot with the default [`Attribution`].
///
/// A pool of the heap can be given back to the system, or serve other sizes, when no block lives in it. So
/// one long-lived block among hundreds that are gone holds 64 KiB hostage. It takes a
/// [`pooled`](crate::Alloc::pooled) allocator.
///
/// ```
/// use memtrace::heap::{Config, Heap};
/// use memtrace::{Alloc, Pooled};
///
/// static HEAP: Heap = Heap::new(Config::new().block_words(true));
///
/// #[global_allocator]
/// static ALLOC: Alloc<Pooled> = Alloc::pooled(&HEAP);
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// memtrace::start(25)?;
/// let mut kept = Vec::new();
/// for i in 0..10_000 {
///     let message = Box::new([i; 50]);
///     if i % 100 == 0 {
///         kept.push(message);
///     }
/// }
/// println!("{}", memtrace::pinned_memory()?);
/// # Ok(())
/// # }
/// ```
///
/// While tracing is sampled, blocks that were not recorded have no trace, and count as untraced ones.
///
/// **Cost**: reads the words of all pools, some milliseconds for a million blocks; naming as for
/// [`take_snapshot`](crate::take_snapshot). Other threads run on meanwhile, and what they do is seen or not.
///
/// **Errors**: if tracing is off, or the traces do not stand beside the blocks of a heap.
pub fn pinned_memory() -> Result<PinnedMemory, PinnedMemoryError> {
    let attribution = Attribution::default();
    pinned_memory_by(|traceback| {
        Traceback::new(attribution.attributed(traceback).cloned().as_slice())
    })
}

/// As [`pinned_memory`], with call sites put together whose stacks `group` makes equal: with
/// `Traceback::clone` each distinct stack is by itself.
///
/// **Errors**, **Cost**: as [`pinned_memory`].
pub fn pinned_memory_by(
    mut group: impl FnMut(&Traceback) -> Traceback,
) -> Result<PinnedMemory, PinnedMemoryError> {
    untraced(|| {
        if !memtrace_alloc::is_tracing() {
            return Err(PinnedMemoryError::NotTracing);
        }
        let pools = CopiedPools::of_now().ok_or(PinnedMemoryError::NotPooled)?;
        let mut sites: Vec<SiteId> = pools.runs.iter().filter_map(|run| run.owner).collect();
        sites.sort_unstable();
        sites.dedup();
        let mut groups = HashMap::new();
        let mut tracebacks = Vec::new();
        let mut by_site = HashMap::new();
        for (&site, traceback) in sites.iter().zip(tracebacks_of(&sites)) {
            let traceback = group(&traceback);
            let number = *groups.entry(traceback).or_insert_with_key(|traceback| {
                tracebacks.push(traceback.clone());
                tracebacks.len() - 1
            });
            by_site.insert(site, number);
        }
        let group_of = |site: SiteId| by_site.get(&site).copied();
        Ok(pools.charge(group_of, tracebacks))
    })
}

/// So many blocks of one owner in one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run<K> {
    /// `None` for blocks without a trace.
    owner: Option<K>,
    n_blocks: u64,
}

/// A pool as it was copied.
struct CopiedPool {
    block_size: u64,
    free_bytes: u64,
    n_runs: usize,
}

/// All pools in which blocks live.
struct CopiedPools<K> {
    pools: Vec<CopiedPool>,
    /// Those of the first pool, then those of the second, and so on.
    runs: Vec<Run<K>>,
    empty_pool_bytes: u64,
}

impl CopiedPools<SiteId> {
    /// Copies what lives in the pools now; `None` if the traces are not beside the blocks.
    fn of_now() -> Option<Self> {
        let heap = memtrace_alloc::pooled_heap()?;
        let mut copied =
            Self { pools: Vec::with_capacity(1024), runs: Vec::new(), empty_pool_bytes: 0 };
        // Large enough for every pool, so that this walk takes no blocks from the pools it looks at.
        let mut owners: Vec<Option<SiteId>> = Vec::with_capacity(64 * 1024);
        copied.runs.reserve(64 * 1024);
        heap.for_each_pool(|pool| {
            owners.clear();
            pool.for_each_word(|word| owners.push(memtrace_alloc::site_of_word(word)));
            let free_bytes = pool.free_bytes() as u64;
            copied.push(pool.block_size() as u64, free_bytes, &mut owners);
        });
        Some(copied)
    }
}

impl<K: Copy + Ord> CopiedPools<K> {
    fn push(&mut self, block_size: u64, free_bytes: u64, owners: &mut [Option<K>]) {
        if owners.is_empty() {
            self.empty_pool_bytes += free_bytes;
            return;
        }
        owners.sort_unstable();
        let runs = owners.chunk_by(|a, b| a == b);
        let n_before = self.runs.len();
        self.runs.extend(runs.map(|run| Run { owner: run[0], n_blocks: run.len() as u64 }));
        let n_runs = self.runs.len() - n_before;
        self.pools.push(CopiedPool { block_size, free_bytes, n_runs });
    }

    /// Charges each pool's free bytes to the groups of those that live in it.
    fn charge(
        &self,
        group_of: impl Fn(K) -> Option<usize>,
        tracebacks: Vec<Traceback>,
    ) -> PinnedMemory {
        let mut pins = vec![Pins::default(); tracebacks.len()];
        let mut memory =
            PinnedMemory { empty_pool_bytes: self.empty_pool_bytes, ..PinnedMemory::default() };
        let mut rest = self.runs.as_slice();
        let mut here: Vec<Run<usize>> = Vec::new();
        for pool in &self.pools {
            let (runs, others) = rest.split_at(pool.n_runs);
            rest = others;
            here.clear();
            here.extend(
                runs.iter().map(|run| Run {
                    owner: run.owner.and_then(&group_of),
                    n_blocks: run.n_blocks,
                }),
            );
            here.sort_unstable();
            memory.n_pools += 1;
            memory.free_bytes += pool.free_bytes;
            let n_all: u64 = here.iter().map(|run| run.n_blocks).sum();
            let is_alone = here.first().map(|run| run.owner) == here.last().map(|run| run.owner);
            let mut n_before = 0;
            for runs in here.chunk_by(|a, b| a.owner == b.owner) {
                let n_blocks: u64 = runs.iter().map(|run| run.n_blocks).sum();
                let pins = match runs[0].owner {
                    Some(group) => &mut pins[group],
                    None => &mut memory.untraced,
                };
                if is_alone {
                    pins.hostage_bytes += pool.free_bytes;
                    pins.n_pools += 1;
                    pins.n_blocks += n_blocks;
                    pins.block_bytes += n_blocks * pool.block_size;
                    continue;
                }
                // The shares of a pool sum up to its free bytes, however they are rounded.
                let share = |n: u64| {
                    (u128::from(pool.free_bytes) * u128::from(n) / u128::from(n_all)) as u64
                };
                pins.shared_bytes += share(n_before + n_blocks) - share(n_before);
                pins.n_shared_pools += 1;
                pins.n_shared_blocks += n_blocks;
                n_before += n_blocks;
            }
        }
        let sites = tracebacks.into_iter().zip(pins);
        memory.sites = sites.map(|(traceback, pins)| PinningSite { traceback, pins }).collect();
        memory.sites.sort_by(|a, b| {
            let figures = |site: &PinningSite| (site.pins.hostage_bytes, site.pins.shared_bytes);
            figures(b).cmp(&figures(a)).then_with(|| a.traceback.cmp(&b.traceback))
        });
        memory
    }
}

impl PinnedMemory {
    /// Writes a line on all pools, and then for each of the first `top` sites a line of figures, the
    /// formatted traceback, and an empty line.
    ///
    /// ```text
    /// 6306.25 free KiB in 101 pools: 6237.11 hostage, 69.14 shared
    ///
    /// 6235.16 hostage KiB in 100 pools, 100 blocks; 62.19 shared KiB in 1 pools
    ///   File "src/queue.rs", line 42
    ///     kept.push(Box::new(message));
    /// ```
    ///
    /// **Errors.** If `w` fails.
    pub fn write_top(
        &self,
        w: &mut impl fmt::Write,
        top: usize,
        sources: &SourceCache,
    ) -> fmt::Result {
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        let all = || self.sites.iter().map(|site| &site.pins).chain([&self.untraced]);
        let hostage: u64 = all().map(|pins| pins.hostage_bytes).sum();
        let shared: u64 = all().map(|pins| pins.shared_bytes).sum();
        writeln!(
            w,
            "{:.2} free KiB in {} pools: {:.2} hostage, {:.2} shared\n",
            kib(self.free_bytes),
            self.n_pools,
            kib(hostage),
            kib(shared)
        )?;
        let write_pins = |w: &mut dyn fmt::Write, pins: &Pins| {
            writeln!(
                w,
                "{:.2} hostage KiB in {} pools, {} blocks; {:.2} shared KiB in {} pools",
                kib(pins.hostage_bytes),
                pins.n_pools,
                pins.n_blocks,
                kib(pins.shared_bytes),
                pins.n_shared_pools
            )
        };
        for site in self.sites.iter().take(top) {
            write_pins(w, &site.pins)?;
            for line in site.traceback.format(None, false, sources) {
                writeln!(w, "{line}")?;
            }
            writeln!(w)?;
        }
        if self.untraced != Pins::default() {
            write_pins(w, &self.untraced)?;
            writeln!(w, "  blocks without a trace")?;
        }
        Ok(())
    }
}

/// Writes the first ten sites, with their source lines.
impl fmt::Display for PinnedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_top(f, 10, &SourceCache::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memtrace_core::Frame;

    fn pools(pools: &[(u64, u64, &[Option<u32>])]) -> CopiedPools<u32> {
        let mut copied = CopiedPools { pools: Vec::new(), runs: Vec::new(), empty_pool_bytes: 0 };
        for &(block_size, free_bytes, owners) in pools {
            copied.push(block_size, free_bytes, &mut owners.to_vec());
        }
        copied
    }

    fn named(n: usize) -> Vec<Traceback> {
        (0..n).map(|i| Traceback::new([Frame::new(format!("{i}.rs"), 1)])).collect()
    }

    #[test]
    fn a_pool_of_one_group_is_its_hostage_and_others_are_shared_by_number_of_blocks() {
        let copied = pools(&[
            (64, 1000, &[Some(0), Some(1)]),
            (64, 0, &[Some(2)]),
            (64, 100, &[Some(2), Some(0), None]),
            (64, 700, &[None]),
            (64, 4096, &[]),
        ]);
        // Sites 0 and 1 are one group, site 2 another.
        let memory = copied.charge(|site| Some(site as usize / 2), named(2));
        assert_eq!((memory.n_pools, memory.free_bytes, memory.empty_pool_bytes), (4, 1800, 4096));
        let [first, second] = memory.sites.as_slice() else { panic!("{memory:?}") };
        let mut expected = Pins::default();
        (expected.hostage_bytes, expected.n_pools) = (1000, 1);
        (expected.n_blocks, expected.block_bytes) = (2, 128);
        (expected.shared_bytes, expected.n_shared_pools, expected.n_shared_blocks) = (33, 1, 1);
        assert_eq!(first.pins, expected);
        assert_eq!((second.pins.hostage_bytes, second.pins.n_pools), (0, 1));
        assert_eq!(memory.untraced.hostage_bytes, 700);
        let pins = [first.pins, second.pins, memory.untraced];
        let sum: u64 = pins.iter().map(|pins| pins.hostage_bytes + pins.shared_bytes).sum();
        assert_eq!(sum, memory.free_bytes);
    }

    #[test]
    fn it_is_written_as_reports_are() {
        let copied = pools(&[(64, 2048, &[Some(0)]), (64, 1024, &[Some(0), None])]);
        let memory = copied.charge(|_| Some(0), named(1));
        let mut text = String::new();
        memory.write_top(&mut text, 5, &SourceCache::without_files()).unwrap();
        assert_eq!(
            text,
            "3.00 free KiB in 2 pools: 2.00 hostage, 1.00 shared\n\n\
             2.00 hostage KiB in 1 pools, 1 blocks; 0.50 shared KiB in 1 pools\n  \
             File \"0.rs\", line 1\n\n\
             0.00 hostage KiB in 0 pools, 0 blocks; 0.50 shared KiB in 1 pools\n  \
             blocks without a trace\n"
        );
    }
}
