//! Which lines allocate most, whether they hold anything or not.
//!
//! # The order of things
//!
//! The totals of all sites are copied first; then sites are named, put into groups, and added up. All of it
//! runs untraced.

use crate::border::tracebacks_of;
use hashbrown::HashMap;
use memtrace_alloc::{Lifetimes, SiteId, SiteTotals, untraced};
use memtrace_core::{Attribution, SourceCache, Traceback};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// Why nothing can be said of churn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChurnError {
    /// Tracing is off.
    #[error("tracing is off: call memtrace::start_with(Config::new().site_totals(true)) first")]
    NotTracing,
    /// Totals by call site are not counted.
    #[error(
        "totals by call site are not counted: start with \
         memtrace::start_with(Config::new().site_totals(true))"
    )]
    NotCounted,
}

/// A group of call sites, and what was allocated there since tracing began.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChurnStatistic {
    /// What the stacks of the group have in common.
    pub traceback: Traceback,
    /// Blocks that were allocated there. A resized block is given back by who had it and allocated anew.
    pub n_allocated: u64,
    /// The bytes that were requested for them.
    pub allocated_bytes: u64,
    /// How many of these blocks were given back.
    pub n_freed: u64,
    /// The bytes that had been requested for them.
    pub freed_bytes: u64,
    /// How long they had lived; `None` if that is not counted, as [`Config::lifetimes`](crate::Config::lifetimes) does.
    pub lifetimes: Option<Lifetimes>,
}

/// Returns how much each line of your code has allocated since tracing began or traces were cleared, and how
/// much of that was given back, as in a snapshot with the default [`Attribution`]: lines with the most blocks
/// given back first, which are those that a program could save by using memory again.
///
/// To be asked for beforehand with [`Config::site_totals`](crate::Config::site_totals), or with
/// [`Config::lifetimes`](crate::Config::lifetimes), which tells, too, how long the blocks lived. While tracing is
/// sampled these are estimates. Memory that was told of with [`track`](crate::track) is not among it, but for blocks of
/// the program's own, which it takes over as a resize does.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: memtrace::Alloc = memtrace::Alloc::system();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// memtrace::start_with(memtrace::Config::new().lifetimes(true))?;
/// let mut n = 0;
/// for i in 0..10_000 {
///     n += format!("a text for each number, {i}, and away with it").len();
/// }
/// let churn = memtrace::churn()?;
/// assert!(churn[0].n_freed >= 10_000 && churn[0].n_freed == churn[0].n_allocated);
/// // Half of them lived less than this:
/// let lifetimes = churn[0].lifetimes.as_ref().unwrap();
/// assert!(lifetimes.quantile(0.5).unwrap().end < std::time::Duration::from_secs(1));
/// println!("{}\n{lifetimes}", churn[0]);
/// # Ok(())
/// # }
/// ```
///
/// **Cost**: a look at each site; naming as for [`take_snapshot`](crate::take_snapshot).
///
/// **Errors**: if tracing is off, or totals by site are not counted.
pub fn churn() -> Result<Vec<ChurnStatistic>, ChurnError> {
    untraced(|| {
        let attribution = Attribution::default();
        churn_by(|traceback| Traceback::new(attribution.attributed(traceback).cloned().as_slice()))
    })
}

/// As [`churn`], with call sites put together whose stacks `group` makes equal: with `Traceback::clone` each
/// distinct stack is by itself.
///
/// **Errors**, **Cost**: as [`churn`].
pub fn churn_by(
    group: impl FnMut(&Traceback) -> Traceback,
) -> Result<Vec<ChurnStatistic>, ChurnError> {
    untraced(|| {
        if !memtrace_alloc::is_tracing() {
            return Err(ChurnError::NotTracing);
        }
        let mut copied: Vec<(SiteId, SiteTotals)> = Vec::new();
        if !memtrace_alloc::for_each_site_totals(|site, totals| copied.push((site, totals))) {
            return Err(ChurnError::NotCounted);
        }
        let mut lifetimes: HashMap<SiteId, Lifetimes> = HashMap::new();
        let are_counted = memtrace_alloc::for_each_site_lifetimes(|site, of_site| {
            lifetimes.insert(site, of_site);
        });
        let (sites, totals): (Vec<_>, Vec<_>) = copied.into_iter().unzip();
        let lifetimes = are_counted.then(|| {
            let of_site = |site: &SiteId| lifetimes.get(site).copied().unwrap_or_default();
            sites.iter().map(of_site).collect::<Vec<_>>()
        });
        Ok(grouped(tracebacks_of(&sites), &totals, lifetimes.as_deref(), group))
    })
}

fn grouped(
    tracebacks: Vec<Traceback>,
    totals: &[SiteTotals],
    lifetimes: Option<&[Lifetimes]>,
    mut group: impl FnMut(&Traceback) -> Traceback,
) -> Vec<ChurnStatistic> {
    let mut groups: HashMap<Traceback, ChurnStatistic> = HashMap::new();
    for (i, (traceback, totals)) in tracebacks.iter().zip(totals).enumerate() {
        let traceback = group(traceback);
        let sum = groups.entry(traceback).or_insert_with_key(|traceback| ChurnStatistic {
            traceback: traceback.clone(),
            n_allocated: 0,
            allocated_bytes: 0,
            n_freed: 0,
            freed_bytes: 0,
            lifetimes: lifetimes.map(|_| Lifetimes::default()),
        });
        sum.n_allocated += totals.n_allocated;
        sum.allocated_bytes += totals.allocated_bytes;
        sum.n_freed += totals.n_freed;
        sum.freed_bytes += totals.freed_bytes;
        if let (Some(sum), Some(part)) =
            (&mut sum.lifetimes, lifetimes.and_then(|lifetimes| lifetimes.get(i)))
        {
            *sum += part;
        }
    }
    let mut statistics: Vec<ChurnStatistic> = groups.into_values().collect();
    statistics.sort_by(|a, b| {
        let figures = |sum: &ChurnStatistic| (sum.n_freed, sum.freed_bytes, sum.n_allocated);
        figures(b).cmp(&figures(a)).then_with(|| a.traceback.cmp(&b.traceback))
    });
    statistics
}

/// Writes a line of figures, with the lifetimes that half and nine in ten of the blocks given back did not reach if they
/// are known, and the formatted traceback with source lines.
impl fmt::Display for ChurnStatistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        write!(
            f,
            "{} blocks allocated, {:.2} KiB; {} freed, {:.2} KiB",
            self.n_allocated,
            kib(self.allocated_bytes),
            self.n_freed,
            kib(self.freed_bytes)
        )?;
        let lifetime = |share| Some(Lifetime(self.lifetimes.as_ref()?.quantile(share)?));
        if let (Some(half), Some(nine_in_ten)) = (lifetime(0.5), lifetime(0.9)) {
            write!(f, "; half lived {half}, 90 % {nine_in_ten}")?;
        }
        for line in self.traceback.format(None, false, &SourceCache::new()) {
            write!(f, "\n{line}")?;
        }
        Ok(())
    }
}

/// Writes what a lifetime was below; of the last class, that it was longer.
struct Lifetime(Range<Duration>);

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.end {
            Duration::MAX => write!(f, "{:.1?} or more", self.0.start),
            end => write!(f, "less than {end:.1?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memtrace_core::Frame;

    fn at(filename: &str) -> Traceback {
        Traceback::new([Frame::new(filename, 3)])
    }

    #[test]
    fn groups_are_sums_and_the_most_freed_come_first() {
        let mut totals = [SiteTotals::default(); 4];
        for (i, totals) in totals.iter_mut().enumerate() {
            totals.n_allocated = 10 + i as u64;
            totals.allocated_bytes = 1024;
            totals.n_freed = [4, 8, 0, 5][i];
            totals.freed_bytes = 512;
        }
        let tracebacks = ["a.rs", "b.rs", "c.rs", "a.rs"].map(at).to_vec();
        let churn = grouped(tracebacks, &totals, None, Traceback::clone);
        let found: Vec<_> = churn.iter().map(|sum| (sum.n_allocated, sum.n_freed)).collect();
        assert_eq!(found, [(23, 9), (11, 8), (12, 0)]);
        assert_eq!(
            churn[0].to_string(),
            "23 blocks allocated, 2.00 KiB; 9 freed, 1.00 KiB\n  File \"a.rs\", line 3"
        );
        let [us, ms] = [1, 1000].map(Duration::from_micros);
        assert_eq!(Lifetime(us..ms).to_string(), "less than 1.0ms");
        assert_eq!(Lifetime(ms..Duration::MAX).to_string(), "1.0ms or more");
    }
}
