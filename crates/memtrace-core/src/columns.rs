//! Traces in columns, and their sums by stack.
//!
//! A column is as narrow as its values allow. Sizes take 4 bytes until one of 4 GiB or more comes,
//! and 8 from then on; one domain for all takes nothing; threads and births are there only if
//! somebody recorded them. So the usual trace takes 8 bytes.
//!
//! If the program was sampled, the columns have the period, and each trace stands for more than itself
//! ([`crate::estimate`]).
//!
//! **I1.** All columns that are there have the same length.
//!
//! **I2.** `sums` and `estimates`, once computed, are those of the columns: whatever changes a column
//! empties them.

use std::num::NonZeroU64;
use std::sync::OnceLock;

use crate::builder::StackId;
use crate::estimate::{Estimate, Total};

/// The bytes and blocks of some traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) size: u64,
    pub(crate) count: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, other: Sum) {
        self.size = self.size.saturating_add(other.size);
        self.count = self.count.saturating_add(other.count);
    }
}

/// A thread that is not known.
pub(crate) const NO_THREAD: u32 = u32::MAX;
/// A birth that is not known; generations are numbered from 1.
pub(crate) const NO_BIRTH: u32 = 0;

/// Sizes in bytes.
#[derive(Clone, Debug)]
pub(crate) enum Sizes {
    /// All below 4 GiB.
    Narrow(Vec<u32>),
    Wide(Vec<u64>),
}

impl Sizes {
    pub(crate) fn get(&self, index: usize) -> u64 {
        match self {
            Self::Narrow(sizes) => u64::from(sizes[index]),
            Self::Wide(sizes) => sizes[index],
        }
    }

    pub(crate) fn push(&mut self, size: u64) {
        if let Self::Narrow(sizes) = self {
            match u32::try_from(size) {
                Ok(size) => return sizes.push(size),
                Err(_) => self.widen(),
            }
        }
        if let Self::Wide(sizes) = self {
            sizes.push(size);
        }
    }

    #[cold]
    fn widen(&mut self) {
        if let Self::Narrow(sizes) = self {
            let mut wide = Vec::with_capacity(sizes.capacity());
            wide.extend(sizes.iter().map(|&size| u64::from(size)));
            *self = Self::Wide(wide);
        }
    }

    fn reserve(&mut self, n_more: usize) {
        match self {
            Self::Narrow(sizes) => sizes.reserve_exact(n_more),
            Self::Wide(sizes) => sizes.reserve_exact(n_more),
        }
    }

    fn n_bytes(&self) -> usize {
        match self {
            Self::Narrow(sizes) => size_of_val(&sizes[..]),
            Self::Wide(sizes) => size_of_val(&sizes[..]),
        }
    }
}

/// A column that is not there while all of its values are the same.
#[derive(Clone, Debug)]
pub(crate) enum Uniform {
    /// This value, as often as there are traces.
    One(u32),
    Each(Vec<u32>),
}

impl Uniform {
    pub(crate) fn get(&self, index: usize) -> u32 {
        match self {
            Self::One(value) => *value,
            Self::Each(values) => values[index],
        }
    }

    /// Appends a value `n_more` times to a column of `len` values.
    fn push(&mut self, value: u32, n_more: usize, len: usize) {
        match self {
            Self::One(one) if *one == value => {}
            Self::One(one) if len == 0 => *one = value,
            Self::One(one) => {
                let mut values = vec![*one; len];
                values.resize(len + n_more, value);
                *self = Self::Each(values);
            }
            Self::Each(values) => values.resize(values.len() + n_more, value),
        }
    }

    fn n_bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Each(values) => size_of_val(&values[..]),
        }
    }
}

/// One trace of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) domain: u32,
    pub(crate) size: u64,
    pub(crate) stack: u32,
    /// Index into the snapshot's threads, or [`NO_THREAD`].
    pub(crate) thread: u32,
    /// Generation, or [`NO_BIRTH`].
    pub(crate) birth: u32,
    /// Whether it was recorded for certain, though it is of domain 0.
    pub(crate) is_certain: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct TraceColumns {
    pub(crate) sizes: Sizes,
    pub(crate) stacks: Vec<StackId>,
    pub(crate) domains: Uniform,
    pub(crate) threads: Uniform,
    pub(crate) births: Uniform,
    /// 1 for those of domain 0 that were not left to chance, else 0; in a sampled snapshot.
    pub(crate) certain: Uniform,
    /// Bytes between samples; `None` if all traces were recorded.
    pub(crate) period: Option<NonZeroU64>,
    /// Bytes and blocks by stack.
    sums: OnceLock<Vec<Sum>>,
    /// What these stand for, by stack, if the snapshot is sampled.
    estimates: OnceLock<Vec<Estimate>>,
}

impl Default for TraceColumns {
    fn default() -> Self {
        Self {
            sizes: Sizes::Narrow(Vec::new()),
            stacks: Vec::new(),
            domains: Uniform::One(0),
            threads: Uniform::One(NO_THREAD),
            births: Uniform::One(NO_BIRTH),
            certain: Uniform::One(0),
            period: None,
            sums: OnceLock::new(),
            estimates: OnceLock::new(),
        }
    }
}

impl TraceColumns {
    /// Makes traces of columns of the same length.
    pub(crate) fn new(
        sizes: Sizes,
        stacks: Vec<StackId>,
        domains: Uniform,
        threads: Uniform,
        births: Uniform,
        certain: Uniform,
    ) -> Self {
        Self { sizes, stacks, domains, threads, births, certain, ..Self::default() }
    }

    /// Sets the period of samples; without one, all traces are certain.
    pub(crate) fn set_period(&mut self, period: Option<NonZeroU64>) {
        self.estimates.take();
        self.period = period;
        if period.is_none() {
            self.certain = Uniform::One(0);
        }
    }

    /// Whether a trace was recorded whatever its size. Only the program's own heap, domain 0, is sampled.
    pub(crate) fn is_certain(&self, index: usize) -> bool {
        self.domains.get(index) != 0 || self.certain.get(index) != 0
    }

    fn forget_sums(&mut self) {
        self.sums.take();
        self.estimates.take();
    }

    pub(crate) fn len(&self) -> usize {
        self.stacks.len()
    }

    pub(crate) fn reserve(&mut self, n_traces: usize) {
        self.sizes.reserve(n_traces);
        self.stacks.reserve_exact(n_traces);
    }

    pub(crate) fn push(&mut self, row: Row) {
        self.forget_sums();
        let len = self.len();
        self.domains.push(row.domain, 1, len);
        self.threads.push(row.thread, 1, len);
        self.births.push(row.birth, 1, len);
        self.certain.push(row.is_certain.into(), 1, len);
        self.sizes.push(row.size);
        self.stacks.push(StackId(row.stack));
    }

    /// Appends traces of one domain of which nothing but size and stack is known.
    pub(crate) fn extend(&mut self, domain: u32, traces: impl Iterator<Item = (u64, StackId)>) {
        self.forget_sums();
        let len = self.len();
        self.reserve(traces.size_hint().0);
        for (size, stack) in traces {
            self.sizes.push(size);
            self.stacks.push(stack);
        }
        let n_more = self.len() - len;
        if n_more > 0 {
            self.domains.push(domain, n_more, len);
            self.threads.push(NO_THREAD, n_more, len);
            self.births.push(NO_BIRTH, n_more, len);
            self.certain.push(0, n_more, len);
        }
    }

    pub(crate) fn row(&self, index: usize) -> Row {
        Row {
            domain: self.domains.get(index),
            size: self.sizes.get(index),
            stack: self.stacks[index].0,
            thread: self.threads.get(index),
            birth: self.births.get(index),
            is_certain: self.certain.get(index) != 0,
        }
    }

    /// The rows that `keep` wants, in the same order.
    pub(crate) fn filtered(&self, keep: impl Fn(Row) -> bool) -> Self {
        let mut kept = Self { period: self.period, ..Self::default() };
        for row in (0..self.len()).map(|index| self.row(index)).filter(|&row| keep(row)) {
            kept.push(row);
        }
        kept
    }

    /// The same traces, of stacks with other ids.
    pub(crate) fn with_stacks(&self, stack: impl Fn(u32) -> StackId) -> Self {
        let stacks = self.stacks.iter().map(|old| stack(old.0)).collect();
        let mut same = Self { stacks, ..self.clone() };
        same.forget_sums();
        same
    }

    /// Bytes and blocks of each of `n_stacks` stacks.
    ///
    /// **Cost.** A pass over the columns the first time.
    pub(crate) fn sums(&self, n_stacks: usize) -> &[Sum] {
        self.sums.get_or_init(|| {
            let mut sums = vec![Sum::default(); n_stacks];
            match &self.sizes {
                // Fewer than 2^32 times less than 2^32: these cannot overflow.
                Sizes::Narrow(sizes) if sizes.len() <= u32::MAX as usize => {
                    for (&size, stack) in sizes.iter().zip(&self.stacks) {
                        let sum = &mut sums[stack.0 as usize];
                        sum.size = sum.size.wrapping_add(u64::from(size));
                        sum.count = sum.count.wrapping_add(1);
                    }
                }
                sizes => {
                    for (index, stack) in self.stacks.iter().enumerate() {
                        sums[stack.0 as usize].add(Sum { size: sizes.get(index), count: 1 });
                    }
                }
            }
            sums
        })
    }

    /// What the traces of each of `n_stacks` stacks stand for.
    ///
    /// **Cost.** A pass over the columns the first time.
    pub(crate) fn estimates(&self, n_stacks: usize) -> &[Estimate] {
        self.estimates.get_or_init(|| {
            let mut estimates = vec![Estimate::ZERO; n_stacks];
            for (index, stack) in self.stacks.iter().enumerate() {
                estimates[stack.0 as usize].add(Estimate::of_trace(self, index));
            }
            estimates
        })
    }

    pub(crate) fn n_bytes(&self) -> usize {
        let sums = self.sums.get().map_or(0, |sums| size_of_val(&sums[..]));
        let estimates = self.estimates.get().map_or(0, |estimates| size_of_val(&estimates[..]));
        let optional = [&self.domains, &self.threads, &self.births, &self.certain];
        let optional: usize = optional.into_iter().map(Uniform::n_bytes).sum();
        self.sizes.n_bytes() + size_of_val(&self.stacks[..]) + optional + sums + estimates
    }
}
