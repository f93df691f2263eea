//! All live blocks at one moment.

use std::fmt;
use std::iter::FusedIterator;
use std::num::NonZeroU64;
use std::sync::Arc;

use thiserror::Error;

use crate::builder::StackId;
use crate::columns::{NO_BIRTH, Sum, TraceColumns};
use crate::estimate::{Estimate, Total};
use crate::filtering::filtered;
use crate::group::{Groups, Side};
use crate::hidden::HiddenFrames;
use crate::section::analysis;
use crate::stack_table::StackTable;
use crate::{
    AnyFilter, Attribution, DiffSets, Generation, KeyType, MissingSource, SamplingError,
    SnapshotBuilder, Statistic, StatisticDiff, Thread, Trace,
};

/// All live blocks at one moment: a trace for each, with the stack that asked for it.
///
/// Made by a [`SnapshotBuilder`], by [`Snapshot::from_traces`], or by [`Snapshot::load`]. The
/// traces keep the order in which they were added.
///
/// An [`Attribution`] is always in force; [`Snapshot::with_attribution`] changes it. Statistics
/// see each stack without the frames it hides at the newest end; [`Snapshot::traces`] shows
/// everything.
///
/// **Cost.** 8 bytes for each trace, 12 once there is a block of 4 GiB or more; 4 more each for
/// domain, thread and birth, where traces differ in these. Each distinct string, frame and stack
/// once. Clones share all of it, filtered snapshots the latter; so do snapshots of one builder as long
/// as it meets no new frame or stack between them, and otherwise the newer one has a copy.
#[derive(Clone)]
pub struct Snapshot {
    table: Arc<StackTable>,
    hidden: Arc<HiddenFrames>,
    traces: Arc<TraceColumns>,
    threads: Arc<[Thread]>,
    traceback_limit: u16,
    generation: Option<Generation>,
    attribution: Attribution,
}

/// Why there is no telling which blocks were allocated since another snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SinceError {
    /// The births of blocks were not recorded, or not kept, for one of the snapshots.
    #[error(
        "one of the snapshots is of no generation: births of blocks are recorded if tracing is started \
         with `Config::new().generations(true)`, and a snapshot of the peak is of none"
    )]
    NoGenerations,
    /// The snapshots are of different runs, whose generations have nothing to do with each other.
    #[error(
        "the snapshots are of different runs of the tracer: compare snapshots taken between one \
         start and the next stop"
    )]
    OtherRun,
    /// The other snapshot is not the older one.
    #[error(
        "the other snapshot is of generation {other}, and this one of generation {own}: ask the \
         newer one what there is since the older"
    )]
    NotOlder {
        /// The generation of this snapshot.
        own: u32,
        /// The generation of the other snapshot.
        other: u32,
    },
}

impl Snapshot {
    pub(crate) fn from_parts(
        (table, hidden): (Arc<StackTable>, Arc<HiddenFrames>),
        traces: Arc<TraceColumns>,
        threads: Arc<[Thread]>,
        traceback_limit: u16,
        generation: Option<Generation>,
        attribution: Attribution,
    ) -> Self {
        Self { table, hidden, traces, threads, traceback_limit, generation, attribution }
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
        analysis(|| {
            let mut builder = SnapshotBuilder::new(traceback_limit);
            for trace in traces {
                let stack = builder.traceback(&trace.traceback);
                builder.trace(trace.domain, trace.size, stack);
            }
            builder.finish()
        })
    }

    /// Groups the traces by key and returns the groups, largest first: by size, then count, then
    /// traceback, each descending.
    ///
    /// Domains and real depths play no part. Tracebacks in the result have the frames that make
    /// up the key, and no `total_nframe`. Of frames that differ in more than their place, such
    /// as in their function, the one whose stack was added first is shown.
    ///
    /// **Cost.** Time proportional to the traces, the first time; then, to the distinct stacks and
    /// their frames, plus sorting the groups.
    pub fn statistics(&self, key_type: KeyType) -> Vec<Statistic> {
        self.top(key_type, usize::MAX)
    }

    /// Returns the first `n_groups` of [`Snapshot::statistics`].
    ///
    /// **Cost.** Like that, but sorts no more than what it returns.
    pub fn top(&self, key_type: KeyType, n_groups: usize) -> Vec<Statistic> {
        analysis(|| {
            let side = self.side(&self.attribution);
            match self.sample_period() {
                None => Groups::<Sum>::of(side, key_type).statistics(n_groups),
                Some(_) => Groups::<Estimate>::of(side, key_type).statistics(n_groups),
            }
        })
    }

    /// Groups both snapshots by key and returns how much this one has, and by how much that is
    /// more than in the `old` one; the largest differences, of either sign, first: by
    /// |`size_diff`|, size, |`count_diff`|, count, and traceback, each descending.
    ///
    /// Groups of either snapshot are listed, also unchanged ones. The attribution of *this*
    /// snapshot is applied to both. Of sampled ones each is weighed by its own
    /// [period](Snapshot::sample_period).
    ///
    /// **Cost.** Like [`Snapshot::statistics`], for both. Unless one builder made both snapshots,
    /// the names of one are looked up among those of the other.
    pub fn compare_to(&self, old: &Snapshot, key_type: KeyType) -> Vec<StatisticDiff> {
        self.top_diff(old, key_type, usize::MAX)
    }

    /// Returns the first `n_groups` of [`Snapshot::compare_to`].
    ///
    /// **Cost.** Like that, but sorts no more than what it returns.
    pub fn top_diff(
        &self,
        old: &Snapshot,
        key_type: KeyType,
        n_groups: usize,
    ) -> Vec<StatisticDiff> {
        let is_sampled = self.sample_period().or(old.sample_period()).is_some();
        analysis(|| {
            let (new, old) = (self.side(&self.attribution), old.side(&self.attribution));
            if is_sampled {
                Groups::<Estimate>::of_both(new, old, key_type).diffs(n_groups)
            } else {
                Groups::<Sum>::of_both(new, old, key_type).diffs(n_groups)
            }
        })
    }

    /// Returns what [`Snapshot::compare_to`] does, sorted into what is new, gone, grown, shrunk and
    /// unchanged.
    ///
    /// **Cost.** Like [`Snapshot::compare_to`].
    pub fn diff_sets(&self, old: &Snapshot, key_type: KeyType) -> DiffSets {
        analysis(|| DiffSets::of(self.compare_to(old, key_type)))
    }

    fn side<'a>(&'a self, attribution: &Attribution) -> Side<'a> {
        Side {
            table: &self.table,
            traces: &self.traces,
            threads: &self.threads,
            n_hidden: self.hidden.n_hidden(&self.table, attribution),
        }
    }

    /// Returns a snapshot of the traces that the filters let pass, in the same order.
    ///
    /// A trace passes if an inclusive filter hits it, or there is none, and no exclusive filter
    /// hits it. Without filters everything passes. A [`Filter`](crate::Filter) without
    /// `all_frames` looks at the frame that the attribution blames.
    ///
    /// Mixed kinds go into one list as [`AnyFilter`].
    ///
    /// **Cost.** Matches each filter once against each distinct place, then takes time
    /// proportional to stacks times filters, and to the traces.
    pub fn filter_traces<F: Clone + Into<AnyFilter>>(&self, filters: &[F]) -> Snapshot {
        analysis(|| {
            let filters: Vec<AnyFilter> = filters.iter().cloned().map(Into::into).collect();
            if filters.is_empty() {
                return self.clone();
            }
            let n_hidden = self.hidden.n_hidden(&self.table, &self.attribution);
            self.with_traces(filtered(&self.table, &n_hidden, &self.traces, filters))
        })
    }

    /// Returns a snapshot of the live blocks that were allocated, or last resized, after the
    /// `older` snapshot was begun.
    ///
    /// A cache that is full, and replaces what it holds, is as large in the newer snapshot as in the
    /// older one, and so is a leak that something else makes up for: a comparison shows neither.
    /// Here the first shows what was replaced since; what it holds from long ago is left out, and
    /// what remains, snapshot after snapshot, is what nobody releases.
    ///
    /// **Cost.** Time proportional to the traces.
    ///
    /// **Errors.** If births were not recorded, or the other snapshot is of another run or not
    /// older.
    pub fn since(&self, older: &Snapshot) -> Result<Snapshot, SinceError> {
        let (Some(own), Some(other)) = (self.generation, older.generation) else {
            return Err(SinceError::NoGenerations);
        };
        if own.run != other.run {
            return Err(SinceError::OtherRun);
        }
        if own.number <= other.number {
            return Err(SinceError::NotOlder { own: own.number, other: other.number });
        }
        Ok(analysis(|| self.with_traces(self.traces.filtered(|row| row.birth > other.number))))
    }

    /// This snapshot with the tables of another one, where its stacks have other ids.
    pub(crate) fn with_table(&self, other: Snapshot, stack: impl Fn(u32) -> StackId) -> Snapshot {
        let traces = Arc::new(self.traces.with_stacks(stack));
        Self { table: other.table, hidden: other.hidden, traces, ..self.clone() }
    }

    /// This snapshot with other names for its threads.
    pub(crate) fn with_thread_names(&self, name: impl Fn(&Thread) -> Arc<str>) -> Snapshot {
        let named = |thread: &Thread| Thread { name: name(thread), ..*thread };
        Self { threads: self.threads.iter().map(named).collect(), ..self.clone() }
    }

    fn with_traces(&self, traces: TraceColumns) -> Snapshot {
        Self { traces: Arc::new(traces), ..self.clone() }
    }

    /// This snapshot without the traces of stacks that are not kept, given by stack id.
    pub(crate) fn keep_stacks(&self, is_kept: &[bool]) -> Snapshot {
        self.with_traces(self.traces.filtered(|row| is_kept[row.stack as usize]))
    }

    /// The traces, with whole stacks, whatever the attribution.
    pub fn traces(&self) -> Traces<'_> {
        Traces { snapshot: self, next: 0 }
    }

    /// The thread that allocated a trace, by the trace's place in [`Snapshot::traces`]; `None` if
    /// nobody recorded it.
    pub fn thread_of(&self, trace_index: usize) -> Option<&Thread> {
        let is_there = trace_index < self.n_traces();
        let thread = is_there.then(|| self.traces.threads.get(trace_index))?;
        self.threads.get(thread as usize)
    }

    /// The generation in which a trace was allocated, by the trace's place in
    /// [`Snapshot::traces`]; `None` if nobody recorded it.
    pub fn birth_of(&self, trace_index: usize) -> Option<u32> {
        let is_there = trace_index < self.n_traces();
        is_there.then(|| self.traces.births.get(trace_index)).filter(|&birth| birth != NO_BIRTH)
    }

    /// The threads that traces may be of.
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }

    /// The snapshot's place in the life of the program; `None` if generations were not recorded.
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// The number of traces, which is the number of live blocks.
    pub fn n_traces(&self) -> usize {
        self.traces.len()
    }

    /// The sum of all sizes in bytes; an estimate for all blocks if the snapshot is sampled.
    ///
    /// **Cost.** Time proportional to the traces, the first time.
    pub fn total_size(&self) -> u64 {
        self.total().0
    }

    /// The number of blocks: that of the traces, or what they stand for if the snapshot is sampled.
    ///
    /// **Cost.** Time proportional to the traces, the first time.
    pub fn total_count(&self) -> u64 {
        self.total().1
    }

    /// How far [`Snapshot::total_size`] and [`Snapshot::total_count`] may be off; `None` if they are
    /// exact.
    ///
    /// **Cost.** Time proportional to the traces, the first time.
    pub fn total_error(&self) -> Option<SamplingError> {
        self.total().2
    }

    fn total(&self) -> (u64, u64, Option<SamplingError>) {
        fn total<T: Total>(snapshot: &Snapshot) -> (u64, u64, Option<SamplingError>) {
            let mut total = T::ZERO;
            let sums = T::of_stacks(&snapshot.traces, snapshot.table.n_stacks());
            sums.iter().for_each(|&sum| total.add(sum));
            let (size, count) = total.figures();
            (size, count, total.error())
        }
        analysis(|| match self.sample_period() {
            None => total::<Sum>(self),
            Some(_) => total::<Estimate>(self),
        })
    }

    /// The mean number of bytes from one sample to the next; `None` if every block was recorded.
    ///
    /// A sampled snapshot has each block of `s` bytes with the chance `p = 1 - exp(-s / period)`, and each
    /// of the period or more; memory of other domains than 0, or told of by the program, has all its
    /// traces. Sums of sizes and counts are estimates then, a trace counting for `1 / p`, and
    /// have a [`SamplingError`]. Its traces are those that were recorded.
    ///
    /// ```
    /// use std::num::NonZeroU64;
    ///
    /// use memtrace_core::{Frame, KeyType, SnapshotBuilder};
    ///
    /// let mut builder = SnapshotBuilder::new(1);
    /// builder.set_sample_period(NonZeroU64::new(64 * 1024));
    /// let frame = builder.frame(Frame::new("src/cache.rs", 42));
    /// let stack = builder.stack(&[frame], Some(1));
    /// builder.trace_columns(0, vec![1000; 100], vec![stack; 100]);
    /// let snapshot = builder.finish();
    /// assert_eq!(snapshot.n_traces(), 100);
    /// assert_eq!(
    ///     snapshot.statistics(KeyType::Lineno)[0].to_string(),
    ///     "src/cache.rs:42: size≈6449 KiB (±1254 KiB), count≈6604 (±1285), average≈1000 B"
    /// );
    /// ```
    pub fn sample_period(&self) -> Option<NonZeroU64> {
        self.traces.period
    }

    /// The bytes of memory that the snapshot takes up, with what it shares with others; without room
    /// that is reserved and not used, of which there may be as much again.
    ///
    /// **Cost.** Time proportional to the distinct strings.
    pub fn n_bytes_in_memory(&self) -> usize {
        self.traces.n_bytes() + self.table.n_bytes() + size_of_val(&self.threads[..])
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
    /// are blamed, if at least one in ten traces, as they were recorded, has it.
    ///
    /// **Cost.** Like [`Snapshot::statistics`], without the sorting.
    pub fn missing_source(&self) -> Option<MissingSource> {
        analysis(|| {
            let n_hidden = self.hidden.n_hidden(&self.table, &self.attribution);
            let sums = self.traces.sums(self.table.n_stacks());
            let mut counts = [0_u64; MissingSource::ALL.len()];
            for (stack, sum) in (0_u32..).zip(sums) {
                let newest = self.table.stack(stack).get(n_hidden[stack as usize] as usize);
                let reason = newest.and_then(|&frame| self.table.record(frame).missing);
                if let Some(reason) = reason {
                    counts[reason as usize] += sum.count;
                }
            }
            let (count, reason) = counts
                .into_iter()
                .zip(MissingSource::ALL)
                .rev()
                .max_by_key(|&(count, _)| count)
                .filter(|&(count, _)| count > 0)?;
            (count >= self.n_traces().div_ceil(10) as u64).then_some(reason)
        })
    }

    pub(crate) fn table(&self) -> &StackTable {
        &self.table
    }

    /// Bytes and blocks of each stack, by stack id; estimates if the snapshot is sampled.
    pub(crate) fn sums_by_stack(&self) -> Box<dyn Iterator<Item = Sum> + '_> {
        fn sums<T: Total>(snapshot: &Snapshot) -> impl Iterator<Item = Sum> {
            let sums = T::of_stacks(&snapshot.traces, snapshot.table.n_stacks()).iter();
            sums.map(Total::figures).map(|(size, count)| Sum { size, count })
        }
        match self.sample_period() {
            None => Box::new(sums::<Sum>(self)),
            Some(_) => Box::new(sums::<Estimate>(self)),
        }
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

/// The traces of a snapshot; see [`Snapshot::traces`].
#[derive(Clone, Debug)]
pub struct Traces<'a> {
    snapshot: &'a Snapshot,
    next: usize,
}

impl Iterator for Traces<'_> {
    type Item = Trace;

    fn next(&mut self) -> Option<Trace> {
        let Snapshot { table, traces, .. } = self.snapshot;
        if self.next == traces.len() {
            return None;
        }
        let row = traces.row(self.next);
        self.next += 1;
        Some(Trace { domain: row.domain, size: row.size, traceback: table.traceback(row.stack) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n_left = self.snapshot.traces.len() - self.next;
        (n_left, Some(n_left))
    }
}

impl ExactSizeIterator for Traces<'_> {}

impl FusedIterator for Traces<'_> {}
