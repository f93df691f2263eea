//! How much memory tracers take for what is kept live.

use super::configuration::Configuration;
use super::programs::{Programs, RunError};
use crate::bench::figure::Figure;
use memtrace_benches::{Kept, Shape, Task};
use std::collections::BTreeMap;

/// What is kept, and of how many units: blocks, documents or maps.
pub(super) type Amount = (Shape, u32);

/// Of each shape so many that what a tracer takes once for all counts little.
const SHAPES: [Amount; 6] = [
    (Shape::Blocks32, 1_000_000),
    (Shape::Blocks64, 1_000_000),
    (Shape::Blocks256, 1_000_000),
    (Shape::Blocks4096, 250_000),
    (Shape::Json, 16),
    (Shape::Maps, 48),
];

/// Blocks whose number grows: whether memory and time grow in proportion.
const GROWTH: [Amount; 3] =
    [(Shape::Blocks64, 100_000), (Shape::Blocks64, 1_000_000), (Shape::Blocks64, 10_000_000)];

/// Who is measured with all shapes: the judged configuration and peers that keep a record of each
/// live block in the process, and their baselines.
const MEASURED: [Configuration; 7] = [
    Configuration::Untraced,
    Configuration::UntracedFramePointers,
    Configuration::Pooled,
    Configuration::Full25,
    Configuration::Full25Pooled,
    Configuration::Heapscope,
    Configuration::Dhat,
];

/// All that was measured.
#[derive(Default)]
pub(super) struct Memory {
    n_live: BTreeMap<Amount, u64>,
    /// A figure of each round.
    kept: BTreeMap<(Amount, Configuration), Vec<Kept>>,
}

/// Why memory could not be measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("{configuration} kept something else in {shape}: its memory means nothing")]
    ChecksumDiffers { configuration: Configuration, shape: Shape },
}

impl Memory {
    /// Measures in so many rounds; if it is to be quick, without the greatest number of blocks.
    pub(super) fn measure(
        programs: &Programs,
        n_rounds: u16,
        is_quick: bool,
    ) -> Result<Self, MemoryError> {
        let growth = &GROWTH[..if is_quick { 2 } else { 3 }];
        let mut memory = Self::default();
        let mut checksums = BTreeMap::new();
        for &(shape, n_units) in SHAPES.iter().chain(growth) {
            let count = programs.count(Task::Keep(shape, n_units))?;
            memory.n_live.insert((shape, n_units), count.n_allocations);
            checksums.insert((shape, n_units), count.checksum);
        }
        let shapes = SHAPES.iter().flat_map(|&amount| MEASURED.map(|c| (amount, c)));
        let growth = growth.iter().flat_map(|&amount| {
            [Configuration::Untraced, Configuration::Full25].map(|c| (amount, c))
        });
        let mut all: Vec<_> = shapes.chain(growth).collect();
        all.sort_unstable();
        all.dedup();
        for _ in 0..n_rounds {
            for &(amount, configuration) in &all {
                let (shape, n_units) = amount;
                let kept = programs.keep(configuration, Task::Keep(shape, n_units))?;
                if kept.checksum != checksums[&amount] {
                    return Err(MemoryError::ChecksumDiffers { configuration, shape });
                }
                memory.kept.entry((amount, configuration)).or_default().push(kept);
            }
        }
        Ok(memory)
    }

    /// The shapes measured, with their numbers of units.
    pub(super) fn shapes(&self) -> impl Iterator<Item = Amount> {
        SHAPES.into_iter().filter(|amount| self.n_live.contains_key(amount))
    }

    /// What was measured of one shape in growing numbers, least first.
    pub(super) fn growth(&self) -> impl DoubleEndedIterator<Item = Amount> {
        GROWTH.into_iter().filter(|amount| self.n_live.contains_key(amount))
    }

    /// Blocks that are live: more than units where these are made of several.
    pub(super) fn n_live(&self, amount: Amount) -> Option<u64> {
        self.n_live.get(&amount).copied()
    }

    /// The tracer's own bytes for each live block, all that it holds included.
    pub(super) fn tracer_bytes(&self, amount: Amount, c: Configuration) -> Option<f64> {
        self.per_block(amount, c, |kept, _| Some(kept.tracer.as_ref()?.resident_bytes as f64))
    }

    /// Resident bytes for each live block, more than the baseline's in the same round.
    pub(super) fn added_bytes(&self, amount: Amount, c: Configuration) -> Option<f64> {
        self.per_block(amount, c, |kept, baseline| {
            Some(kept.resident_bytes as f64 - baseline.resident_bytes as f64)
        })
    }

    /// Nanoseconds to allocate each block.
    pub(super) fn build_ns(&self, amount: Amount, c: Configuration) -> Option<f64> {
        self.per_block(amount, c, |kept, _| Some(kept.build_ns))
    }

    /// Nanoseconds to free each block.
    pub(super) fn free_ns(&self, amount: Amount, c: Configuration) -> Option<f64> {
        self.per_block(amount, c, |kept, _| Some(kept.free_ns))
    }

    /// The median over the rounds, divided by the live blocks.
    fn per_block(
        &self,
        amount: Amount,
        configuration: Configuration,
        value: impl Fn(&Kept, &Kept) -> Option<f64>,
    ) -> Option<f64> {
        let kept = self.kept.get(&(amount, configuration))?;
        let baseline = self.kept.get(&(amount, configuration.baseline()))?;
        let values = kept.iter().zip(baseline).filter_map(|(kept, baseline)| value(kept, baseline));
        Some(Figure::of(values)?.median / self.n_live(amount)? as f64)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use memtrace_benches::TracerFigures;

    /// One round, in which traced blocks take `bytes_per_block` more, and a unit is two blocks.
    pub(in crate::bench::cost) fn one_round(bytes_per_block: u64) -> Memory {
        let mut memory = Memory::default();
        for (shape, n_units) in SHAPES.into_iter().chain(GROWTH) {
            let amount = (shape, n_units);
            let n_live = 2 * u64::from(n_units);
            memory.n_live.insert(amount, n_live);
            for (configuration, bytes) in
                [(Configuration::Untraced, 0), (Configuration::Full25, bytes_per_block)]
            {
                let n_bytes = n_live * bytes;
                let tracer = TracerFigures { resident_bytes: n_bytes, n_sites: 1, n_lost: 0 };
                let kept = Kept {
                    checksum: 7,
                    build_ns: n_live as f64 * 30.0,
                    free_ns: n_live as f64 * 10.0,
                    resident_bytes: (100 << 20) + n_bytes,
                    has_frame_pointers: false,
                    tracer: Some(tracer),
                };
                memory.kept.insert((amount, configuration), vec![kept]);
            }
        }
        memory
    }

    #[test]
    fn bytes_and_times_are_for_each_live_block_and_not_for_each_unit() {
        let memory = one_round(9);
        let amount = (Shape::Blocks64, 1_000_000);
        assert_eq!(memory.n_live(amount), Some(2_000_000));
        assert_eq!(memory.tracer_bytes(amount, Configuration::Full25), Some(9.0));
        assert_eq!(memory.added_bytes(amount, Configuration::Full25), Some(9.0));
        assert_eq!(memory.build_ns(amount, Configuration::Untraced), Some(30.0));
        assert_eq!(memory.free_ns(amount, Configuration::Full25), Some(10.0));
        assert_eq!(memory.added_bytes(amount, Configuration::Dhat), None);
    }

    #[test]
    fn all_shapes_are_measured_and_the_numbers_that_grow_grow_tenfold() {
        let memory = one_round(1);
        assert!(memory.shapes().map(|(shape, _)| shape).eq(Shape::ALL));
        let numbers: Vec<u32> = memory.growth().map(|(_, n_units)| n_units).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == 10 * pair[0]), "{numbers:?}");
    }
}
