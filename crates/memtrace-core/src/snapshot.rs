//! All live blocks at one moment.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use crate::attribution::Verdicts;
use crate::group::{compare, group};
use crate::stack_table::StackTable;
use crate::{
    AnyFilter, Attribution, KeyType, MissingSource, SnapshotBuilder, Statistic, StatisticDiff,
    Trace, Traceback,
};

/// Traces in columns: 16 bytes each.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceColumns {
    pub(crate) domains: Vec<u32>,
    pub(crate) sizes: Vec<u64>,
    pub(crate) stacks: Vec<u32>,
}

impl TraceColumns {
    pub(crate) fn push(&mut self, domain: u32, size: u64, stack: u32) {
        self.domains.push(domain);
        self.sizes.push(size);
        self.stacks.push(stack);
    }

    pub(crate) fn reserve(&mut self, n_traces: usize) {
        self.domains.reserve_exact(n_traces);
        self.sizes.reserve_exact(n_traces);
        self.stacks.reserve_exact(n_traces);
    }

    pub(crate) fn len(&self) -> usize {
        self.sizes.len()
    }

    /// (domain, size, stack) of each trace.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u64, u32)> {
        let sizes_and_stacks = self.sizes.iter().zip(&self.stacks);
        self.domains.iter().zip(sizes_and_stacks).map(|(&d, (&size, &stack))| (d, size, stack))
    }
}

/// All live blocks at one moment: a trace for each, with the stack that asked for it.
///
/// Made by a [`SnapshotBuilder`], by [`Snapshot::from_traces`], or by [`Snapshot::load`]. The
/// traces keep the order in which they were added.
///
/// An [`Attribution`] is always in force; [`Snapshot::with_attribution`] changes it. Statistics
/// see each stack without the frames it hides at the newest end; [`Snapshot::traces`] shows
/// everything.
///
/// **Cost.** 16 bytes for each trace, and each distinct string, frame and stack once. Filtered
/// snapshots share the latter.
#[derive(Clone)]
pub struct Snapshot {
    table: Arc<StackTable>,
    traces: TraceColumns,
    traceback_limit: u16,
    attribution: Attribution,
}

impl Snapshot {
    pub(crate) fn from_parts(
        table: Arc<StackTable>,
        traces: TraceColumns,
        traceback_limit: u16,
        attribution: Attribution,
    ) -> Self {
        Self { table, traces, traceback_limit, attribution }
    }

    /// Makes a snapshot of plain data, with the default attribution.
    ///
    /// ```
    /// use memtrace_core::{Frame, KeyType, Snapshot, Trace, Traceback};
    ///
    /// let traceback = Traceback::new([Frame::new("src/cache.rs", 42)]);
    /// let snapshot = Snapshot::from_traces([Trace { domain: 0, size: 64, traceback }], 1);
    /// let statistics = snapshot.statistics(KeyType::Lineno);
    /// assert_eq!(statistics[0].to_string(), "src/cache.rs:42: size=64 B, count=1, average=64 B");
    /// ```
    pub fn from_traces(traces: impl IntoIterator<Item = Trace>, traceback_limit: u16) -> Self {
        let mut builder = SnapshotBuilder::new(traceback_limit);
        for trace in traces {
            let stack = builder.traceback(&trace.traceback);
            builder.trace(trace.domain, trace.size, stack);
        }
        builder.finish()
    }

    /// Groups the traces by key and returns the groups, largest first: by size, then count, then
    /// traceback, each descending.
    ///
    /// Domains and real depths play no part. Tracebacks in the result have the frames that make
    /// up the key, and no `total_nframe`. Of frames that differ in more than their place, such
    /// as in their function, the one whose stack was added first is shown.
    ///
    /// **Cost.** Time proportional to the traces, plus the distinct stacks and their frames, plus
    /// sorting the groups.
    pub fn statistics(&self, key_type: KeyType) -> Vec<Statistic> {
        let mut statistics = group(&self.table, &self.traces, &self.attribution, key_type);
        statistics.sort_unstable_by(Statistic::result_order);
        statistics
    }

    /// Groups both snapshots by key and returns how much this one has, and by how much that is
    /// more than in the `old` one; the largest differences, of either sign, first: by
    /// |`size_diff`|, size, |`count_diff`|, count, and traceback, each descending.
    ///
    /// Groups of either snapshot are listed, also unchanged ones. The attribution of *this*
    /// snapshot is applied to both.
    ///
    /// **Cost.** Like [`Snapshot::statistics`], for both.
    pub fn compare_to(&self, old: &Snapshot, key_type: KeyType) -> Vec<StatisticDiff> {
        let new_groups = group(&self.table, &self.traces, &self.attribution, key_type);
        let old_groups = group(&old.table, &old.traces, &self.attribution, key_type);
        let mut diffs = compare(new_groups, old_groups);
        diffs.sort_unstable_by(StatisticDiff::result_order);
        diffs
    }

    /// Returns a snapshot of the traces that the filters let pass, in the same order.
    ///
    /// A trace passes if an inclusive filter hits it, or there is none, and no exclusive filter
    /// hits it. Without filters everything passes. A [`Filter`](crate::Filter) without
    /// `all_frames` looks at the frame that the attribution blames.
    ///
    /// Mixed kinds go into one list as [`AnyFilter`].
    ///
    /// **Cost.** Matches each filter once against each distinct frame, then takes time
    /// proportional to stacks and traces, times filters.
    pub fn filter_traces<F: Clone + Into<AnyFilter>>(&self, filters: &[F]) -> Snapshot {
        let verdicts = Verdicts::new(&self.attribution, &self.table);
        let (included, excluded): (Vec<_>, Vec<_>) = filters
            .iter()
            .map(|filter| PreparedFilter::new(filter.clone().into(), &self.table, &verdicts))
            .partition(|filter| filter.filter.is_inclusive());
        let mut traces = TraceColumns::default();
        for (domain, size, stack) in self.traces.iter() {
            let is_hit = |filter: &PreparedFilter| filter.hits(domain, stack);
            if (included.is_empty() || included.iter().any(is_hit)) && !excluded.iter().any(is_hit)
            {
                traces.push(domain, size, stack);
            }
        }
        Self {
            table: Arc::clone(&self.table),
            traces,
            traceback_limit: self.traceback_limit,
            attribution: self.attribution.clone(),
        }
    }

    /// The traces, with whole stacks, whatever the attribution.
    ///
    /// **Cost.** Each distinct traceback is made once and shared by its traces.
    pub fn traces(&self) -> Traces<'_> {
        Traces { snapshot: self, next: 0, tracebacks: vec![None; self.table.n_stacks()] }
    }

    /// The number of traces, which is the number of live blocks.
    pub fn n_traces(&self) -> usize {
        self.traces.len()
    }

    /// The sum of all sizes in bytes.
    ///
    /// **Cost.** Time proportional to the traces.
    pub fn total_size(&self) -> u64 {
        self.traces.sizes.iter().fold(0, |total, &size| total.saturating_add(size))
    }

    /// How many frames deep the stacks were recorded.
    pub fn traceback_limit(&self) -> u16 {
        self.traceback_limit
    }

    /// The rule for which frame of a stack is blamed.
    pub fn attribution(&self) -> &Attribution {
        &self.attribution
    }

    /// Changes the rule for which frame of a stack is blamed.
    #[must_use]
    pub fn with_attribution(mut self, attribution: Attribution) -> Self {
        self.attribution = attribution;
        self
    }

    /// Why files and lines are missing in statistics: the commonest reason among the frames that
    /// are blamed, if at least one in ten traces has it.
    ///
    /// **Cost.** Like [`Snapshot::statistics`], without the sorting.
    pub fn missing_source(&self) -> Option<MissingSource> {
        let verdicts = Verdicts::new(&self.attribution, &self.table);
        let reasons: Vec<Option<MissingSource>> = (0..self.table.n_stacks() as u32)
            .map(|id| {
                let newest = verdicts.shown(self.table.stack(id)).first()?;
                self.table.record(*newest).missing
            })
            .collect();
        let mut counts = [0_usize; MissingSource::ALL.len()];
        for &stack in &self.traces.stacks {
            if let Some(reason) = reasons[stack as usize] {
                counts[reason as usize] += 1;
            }
        }
        let (count, reason) = counts
            .into_iter()
            .zip(MissingSource::ALL)
            .rev()
            .max_by_key(|&(count, _)| count)
            .filter(|&(count, _)| count > 0)?;
        (count >= self.n_traces().div_ceil(10)).then_some(reason)
    }

    pub(crate) fn table(&self) -> &StackTable {
        &self.table
    }

    pub(crate) fn trace_columns(&self) -> &TraceColumns {
        &self.traces
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("n_traces", &self.n_traces())
            .field("total_size", &self.total_size())
            .field("traceback_limit", &self.traceback_limit)
            .finish_non_exhaustive()
    }
}

/// A filter with its answers for every stack.
struct PreparedFilter {
    filter: AnyFilter,
    /// For each stack id; empty for filters by domain.
    stack_hits: Vec<bool>,
}

impl PreparedFilter {
    fn new(filter: AnyFilter, table: &StackTable, verdicts: &Verdicts<'_>) -> Self {
        let stack_hits = match &filter {
            AnyFilter::Domain(_) => Vec::new(),
            AnyFilter::Frame(by_frame) => {
                let frame_hits: Vec<bool> = table
                    .frames()
                    .iter()
                    .map(|record| by_frame.matches(table.string(record.filename), record.lineno))
                    .collect();
                let is_hit = |frame: &u32| frame_hits[*frame as usize];
                let stacks = (0..table.n_stacks() as u32).map(|id| table.stack(id));
                if by_frame.has_all_frames() {
                    stacks.map(|stack| stack.iter().any(is_hit)).collect()
                } else {
                    stacks.map(|stack| verdicts.shown(stack).first().is_some_and(is_hit)).collect()
                }
            }
        };
        Self { filter, stack_hits }
    }

    fn hits(&self, domain: u32, stack: u32) -> bool {
        match &self.filter {
            AnyFilter::Domain(filter) => filter.domain() == domain,
            AnyFilter::Frame(filter) => {
                filter.hits_domain(domain) && self.stack_hits[stack as usize]
            }
        }
    }
}

/// The traces of a snapshot; see [`Snapshot::traces`].
#[derive(Clone, Debug)]
pub struct Traces<'a> {
    snapshot: &'a Snapshot,
    next: usize,
    /// The tracebacks made so far, by stack id.
    tracebacks: Vec<Option<Traceback>>,
}

impl Iterator for Traces<'_> {
    type Item = Trace;

    fn next(&mut self) -> Option<Trace> {
        let Snapshot { table, traces, .. } = self.snapshot;
        let stack = *traces.stacks.get(self.next)?;
        let traceback =
            self.tracebacks[stack as usize].get_or_insert_with(|| table.traceback(stack)).clone();
        let trace =
            Trace { domain: traces.domains[self.next], size: traces.sizes[self.next], traceback };
        self.next += 1;
        Some(trace)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n_left = self.snapshot.traces.len() - self.next;
        (n_left, Some(n_left))
    }
}

impl ExactSizeIterator for Traces<'_> {}

impl FusedIterator for Traces<'_> {}
