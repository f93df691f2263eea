//! Which allocations are recorded while tracing is sampled, and what each of them stands for.
//!
//! Every byte that is requested is hit with the same small chance, one in a *period* of `T` bytes on
//! average, and a block is recorded if one of its bytes is hit: with the chance `p = 1 - exp(-s / T)`
//! for a block of `s` bytes. So it stands for `1 / p` blocks. Blocks of `T` bytes and more are always
//! recorded and stand for themselves. Both follow from size and period, and nothing is stored with a
//! trace.
//!
//! A thread counts down to its next hit. How far that is, is drawn from a geometric distribution over
//! bytes, which has no memory: what is left of it after a block that was not hit is distributed like a
//! new one. So each block is decided on independently of all others, and it does no harm if some of the
//! bytes that were counted belong to blocks that are not recorded for another reason.
//!
//! # Invariants
//!
//! - **I1** What is `left` is less than the period that it was drawn for. So a block of a period or more
//!   never passes the short way, which knows no periods.
//! - **I2** The short way is taken only with the period that the countdown was drawn for: another period
//!   begins with another countdown.
//! - **I3** What a block adds to the totals is a function of size and period alone, the same each time.
//!
//! A signal handler may allocate between any two instructions of this: each field is one word, `Relaxed`
//! since no other thread sees it, and any mixture of values is a valid countdown. What is lost then is
//! the handler's or the interrupted block's part of one countdown.
//!
//! # Cost
//!
//! A block that is not hit: two loads, a comparison, a subtraction and a store of the thread's own. A
//! hit: some 20 ns for the next countdown, beside the recording.

use crate::generation::{mix, random};
use crate::platform::thread_local;
use core::hint::cold_path;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Tells a period from other words.
pub(crate) const MARK: u64 = 1 << 63;
/// No period, and no other word that may stand where a marked one does.
const NO_PERIOD: u64 = MARK;

/// The bits of a word that a period takes, beside the [mark](MARK).
pub(crate) const PERIOD_BITS: u32 = 48;

/// Bytes from one sample to the next, on average: two or more, and less than 2⁴⁸, twice what there are addresses for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period(NonZeroU64);

impl Period {
    const MAX: u64 = (1 << PERIOD_BITS) - 1;

    /// Returns the period of so many bytes; `None` if every block is to be recorded.
    pub(crate) const fn new(n_bytes: u64) -> Option<Self> {
        let n_bytes = if n_bytes > Self::MAX { Self::MAX } else { n_bytes };
        match NonZeroU64::new(n_bytes) {
            Some(n_bytes) if n_bytes.get() > 1 => Some(Self(n_bytes)),
            _ => None,
        }
    }

    pub(crate) const fn get(self) -> NonZeroU64 {
        self.0
    }

    /// Returns the period as it stands in a word that may also hold other things, of which some leave
    /// [room](PERIOD_BITS) for more.
    pub(crate) const fn marked(self) -> u64 {
        self.0.get() | MARK
    }

    /// Reads a word that may hold a period.
    #[inline(always)]
    pub(crate) const fn of_marked(word: u64) -> Option<Self> {
        if word & MARK == 0 { None } else { Self::new(word & Self::MAX) }
    }

    /// How many bytes a recorded block of this size stands for: its size divided by its chance to be
    /// recorded, rounded (I3).
    // Not inlined into what records every block.
    #[inline(never)]
    pub(crate) fn estimate(self, size: u64) -> u64 {
        let period = self.0.get();
        if size >= period || size == 0 {
            return size;
        }
        // x / (1 - exp(-x)) as a series, for x below 1: no difference of nearly equal numbers.
        let x = size as f64 / period as f64;
        let even = SERIES.iter().rev().fold(0.0, |sum, term| (sum + term) * (x * x));
        (period as f64 * (1.0 + x / 2.0 + even) + 0.5) as u64
    }

    /// Returns how many bytes there are before the next hit, given 64 random bits.
    fn countdown(self, bits: u64) -> u64 {
        // In 0..=1, without 0: then the logarithm has an end.
        let uniform = ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        // Rounding down turns the exponential distribution of real numbers into the geometric one.
        (-ln(uniform) * self.0.get() as f64) as u64
    }
}

/// The coefficients of x², x⁴, … in the series of x / (1 - exp(-x)): Bernoulli numbers by factorials.
/// What is left out is below 10⁻¹⁴.
const SERIES: [f64; 8] = [
    1.0 / 12.0,
    -1.0 / 720.0,
    1.0 / 30_240.0,
    -1.0 / 1_209_600.0,
    1.0 / 47_900_160.0,
    -691.0 / 1_307_674_368_000.0,
    1.0 / 74_724_249_600.0,
    -3617.0 / 10_670_622_842_880_000.0,
];

/// The natural logarithm of a positive normal number, to two units in the last place or so.
///
/// The standard library's is not there without the C library's.
fn ln(x: f64) -> f64 {
    const MANTISSA_BITS: u32 = f64::MANTISSA_DIGITS - 1;
    const ONE: u64 = 1.0f64.to_bits();
    // Two parts of ln 2, of which the first is exact when multiplied by any exponent.
    const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // Scaled by a power of two to be from √½ to √2.
    let bits =
        x.to_bits().wrapping_add(ONE.wrapping_sub(core::f64::consts::FRAC_1_SQRT_2.to_bits()));
    let exponent = ((bits >> MANTISSA_BITS) as i64).wrapping_sub((ONE >> MANTISSA_BITS) as i64);
    let scaled = f64::from_bits(x.to_bits().wrapping_sub((exponent as u64) << MANTISSA_BITS));
    // ln((1 + z) / (1 - z)) = 2 (z + z³/3 + z⁵/5 + …), with z below 0.172.
    let z = (scaled - 1.0) / (scaled + 1.0);
    let square = z * z;
    let mut tail = 0.0;
    let mut odd = 23.0;
    while odd > 1.0 {
        tail = (tail + 1.0 / odd) * square;
        odd -= 2.0;
    }
    let exponent = exponent as f64;
    exponent * LN_2_HIGH + (2.0 * z + (2.0 * z * tail + exponent * LN_2_LOW))
}

/// Decides which blocks are recorded, as one thread does while tracing is sampled.
///
/// For whoever wants to know beforehand what sampling does to a program's allocations, and for
/// allocators that sample on their own. It allocates nothing.
///
/// ```
/// let sampler = memtrace_alloc::Sampler::new(512 * 1024, 1);
/// let n_kept = (0..1_000_000).filter(|_| sampler.keeps(64)).count();
/// // 64 MB, in samples of half a mebibyte: some 122 blocks.
/// assert!((80..170).contains(&n_kept));
/// // Blocks of the period and more are always kept.
/// assert!(sampler.keeps(512 * 1024));
/// ```
#[derive(Debug)]
pub struct Sampler {
    /// The period that the countdown was drawn for, marked, with whatever else is in its word; before the first,
    /// [`NO_PERIOD`] (I2).
    period: AtomicU64,
    /// Bytes before the next hit, or before the next look at `reserve` (I1).
    left: AtomicU64,
    /// Bytes before the next hit after `left` are used up.
    reserve: AtomicU64,
    /// The state of splitmix64; 0 before it has a seed.
    random: AtomicU64,
}

impl Sampler {
    /// A sampler that draws its first countdown when it is first asked, and its seed if that is 0.
    const fn idle(random: u64) -> Self {
        Self {
            period: AtomicU64::new(NO_PERIOD),
            left: AtomicU64::new(0),
            reserve: AtomicU64::new(0),
            random: AtomicU64::new(random),
        }
    }

    /// Samples one block in `sample_every` bytes on average; with 0 or 1 bytes, all blocks. Samplers
    /// of one seed and period decide alike.
    pub fn new(sample_every: u64, seed: u64) -> Self {
        let sampler = Self::idle(seeded(seed));
        if let Some(period) = Period::new(sample_every) {
            sampler.begin(period, period.marked());
        }
        sampler
    }

    /// Whether the next block, of `size` bytes, is recorded.
    pub fn keeps(&self, size: usize) -> bool {
        match Period::of_marked(self.period.load(Relaxed)) {
            Some(period) => {
                let size = size.max(1);
                let marked = period.marked();
                !self.passes_over(marked, size) && self.decides_for(marked, size as u64)
            }
            None => true,
        }
    }

    /// The short way: whether the next block is not recorded, and counted already. If `false`, nothing
    /// is counted or decided yet. With a word that is no period's it is always `false`.
    #[inline(always)]
    fn passes_over(&self, marked_period: u64, size: usize) -> bool {
        if self.period.load(Relaxed) != marked_period {
            cold_path();
            return false;
        }
        let Some(left) = self.left.load(Relaxed).checked_sub(size as u64) else {
            cold_path();
            return false;
        };
        self.left.store(left, Relaxed);
        true
    }

    /// Whether the next block is recorded. With a word that is no period's each is.
    fn decides_for(&self, marked_period: u64, size: u64) -> bool {
        let Some(period) = Period::of_marked(marked_period) else { return true };
        if self.period.load(Relaxed) != marked_period {
            self.begin(period, marked_period);
        }
        let size = size.max(1);
        if size >= period.0.get() {
            return true;
        }
        let n_left = self.left.load(Relaxed).saturating_add(self.reserve.load(Relaxed));
        match n_left.checked_sub(size) {
            Some(n_left) => self.set_left(period, n_left),
            None => self.draw(period),
        }
        n_left < size
    }

    /// Begins to sample with another period.
    #[cold]
    fn begin(&self, period: Period, marked_period: u64) {
        if self.random.load(Relaxed) == 0 {
            self.random.store(next_seed(), Relaxed);
        }
        self.draw(period);
        self.period.store(marked_period, Relaxed);
    }

    /// Counts down anew.
    fn draw(&self, period: Period) {
        let random = self.random.load(Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.store(random, Relaxed);
        self.set_left(period, period.countdown(mix(random)));
    }

    fn set_left(&self, period: Period, n_left: u64) {
        let left = n_left.min(period.0.get().saturating_sub(1));
        // A handler in between finds a countdown that is shorter by some.
        self.reserve.store(0, Relaxed);
        self.left.store(left, Relaxed);
        self.reserve.store(n_left.saturating_sub(left), Relaxed);
    }
}

thread_local! {
    static SAMPLER: Sampler = const { Sampler::idle(0) };
}

/// Whether the thread's next block is not recorded, and counted already, with a period that is given
/// [marked](Period::marked); if `false`, [`decides_for`] decides.
#[inline(always)]
pub(crate) fn passes_over(marked_period: u64, size: usize) -> bool {
    SAMPLER.try_with(|sampler| sampler.passes_over(marked_period, size)).unwrap_or(false)
}

/// Whether the thread's next block is recorded, if [`passes_over`] did not say that it is not.
#[inline(never)]
pub(crate) fn decides_for(marked_period: u64, size: u64) -> bool {
    SAMPLER.try_with(|sampler| sampler.decides_for(marked_period, size)).unwrap_or(false)
}

/// Random bits of the process; 0 before there are any.
static SEED: AtomicU64 = AtomicU64::new(0);
/// How many seeds were made of them.
static N_SEEDS: AtomicU64 = AtomicU64::new(0);

/// Makes seeds for samplers, once. Called before tracing is on.
pub(crate) fn prepare() {
    if SEED.load(Relaxed) == 0 {
        SEED.store(random().max(1), Relaxed);
    }
}

/// Lets the only thread of a forked child decide on its own, and not as its parent.
pub(crate) fn after_fork_in_child() {
    if SEED.load(Relaxed) == 0 {
        return;
    }
    SEED.store(random().max(1), Relaxed);
    let _ = SAMPLER.try_with(|sampler| {
        sampler.random.store(next_seed(), Relaxed);
        // Draws anew when asked next.
        sampler.period.store(NO_PERIOD, Relaxed);
    });
}

fn next_seed() -> u64 {
    // Relaxed: only to be different each time.
    seeded(SEED.load(Relaxed) ^ mix(N_SEEDS.fetch_add(1, Relaxed)))
}

/// The state of a generator that is begun with a seed: never 0.
fn seeded(seed: u64) -> u64 {
    mix(seed.wrapping_add(0x9E37_79B9_7F4A_7C15)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn period(n_bytes: u64) -> Period {
        Period::new(n_bytes).unwrap()
    }

    /// The chance that a block is recorded.
    fn chance(size: u64, period: u64) -> f64 {
        if size >= period { 1.0 } else { -(-(size as f64) / period as f64).exp_m1() }
    }

    #[test]
    fn the_logarithm_is_that_of_the_standard_library() {
        let check = |x: f64| {
            let (found, expected) = (ln(x), x.ln());
            let error = ((found - expected) / expected).abs();
            assert!(found == expected || error < 4.0 * f64::EPSILON, "{x}: {found} {expected}");
        };
        for exponent in 0..1022 {
            check(2f64.powi(-exponent));
            check(2f64.powi(exponent));
        }
        let (mut state, mut below_one) = (1, 1.0);
        for n in 0..1_000_000u32 {
            state = mix(state + 1);
            // Uniform as in use, near 1 from both sides, and of every exponent.
            check(((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64);
            check(1.0 - 2f64.powi(-1 - (n % 53) as i32));
            check(f64::from_bits((state >> 12 | 1) + ((1 + state % 2046) << 52)));
            below_one = f64::next_down(below_one);
            check(below_one);
        }
        check(f64::MIN_POSITIVE);
        check(f64::MAX);
        check(core::f64::consts::FRAC_1_SQRT_2);
        check(core::f64::consts::SQRT_2);
    }

    #[test]
    fn periods_of_one_byte_and_less_are_none() {
        assert_eq!([0, 1].map(Period::new), [None; 2]);
        assert_eq!(period(2).get().get(), 2);
        assert_eq!(period(u64::MAX), period(Period::MAX));
    }

    #[test]
    fn the_longest_and_the_shortest_countdown_are_within_their_bounds() {
        for n_bytes in [2, 3, 1000, 512 << 10, 1 << 40, Period::MAX] {
            let (longest, shortest) = (period(n_bytes).countdown(0), period(n_bytes).countdown(!0));
            assert!(longest as f64 <= 38.0 * n_bytes as f64, "{n_bytes}: {longest}");
            assert!(shortest <= n_bytes >> 50, "{n_bytes}: {shortest}");
            let sampler = Sampler::new(n_bytes, 3);
            sampler.set_left(period(n_bytes), longest);
            assert!(sampler.left.load(Relaxed) < n_bytes);
        }
    }

    proptest! {
        #[test]
        fn an_estimate_is_the_size_by_its_chance(
            n_bytes in prop_oneof![2..5000u64, 2..1u64 << 40, 2..1u64 << PERIOD_BITS],
            share in 0.0..1.2f64,
        ) {
            let size = ((n_bytes as f64 * share) as u64).max(1);
            let found = period(n_bytes).estimate(size);
            let expected = size as f64 / chance(size, n_bytes);
            let tolerance = 0.5 + expected * 1e-13;
            prop_assert!((found as f64 - expected).abs() <= tolerance, "{found} {expected}");
            prop_assert!(found >= size);
        }

        /// Whatever a signal handler leaves behind, I1 holds and the sampler goes on.
        #[test]
        fn a_countdown_is_less_than_its_period(
            n_bytes in 2..100_000u64,
            others in prop::collection::vec((2..100_000u64, 0..200_000usize), 1..50),
            mixed in any::<[u64; 2]>(),
        ) {
            let sampler = Sampler::new(n_bytes, mixed[0]);
            sampler.reserve.store(mixed[1], Relaxed);
            for (other, size) in others {
                for every in [n_bytes, other] {
                    let every = period(every);
                    if !sampler.passes_over(every.marked(), size) {
                        let is_kept = sampler.decides_for(every.marked(), size as u64);
                        prop_assert!(is_kept || (size as u64) < every.0.get());
                    } else {
                        prop_assert!((size as u64) < every.0.get());
                    }
                    prop_assert!(sampler.left.load(Relaxed) < every.0.get());
                }
            }
        }
    }

    #[test]
    fn blocks_of_no_bytes_count_as_one_and_large_ones_leave_the_countdown_alone() {
        let sampler = Sampler::new(2, 9);
        let n_kept = (0..100_000).filter(|_| sampler.keeps(0)).count() as f64;
        assert!((n_kept / 1e5 - chance(1, 2)).abs() < 0.01, "{n_kept}");
        let (plain, mixed) = (Sampler::new(1000, 5), Sampler::new(1000, 5));
        for size in (0..1000).cycle().take(100_000) {
            assert!(mixed.keeps(1000) && mixed.keeps(usize::MAX));
            assert_eq!(plain.keeps(size), mixed.keeps(size));
        }
        assert!(
            (0..9).all(|size| Sampler::new(1, 1).keeps(size) && Sampler::new(0, 1).keeps(size))
        );
    }

    #[test]
    fn each_size_is_kept_with_its_own_chance_whatever_comes_between() {
        const SIZES: [usize; 6] = [1, 16, 100, 1000, 4000, 8191];
        const N: u32 = 2_000_000;
        let mut counts = [0u32; SIZES.len()];
        let sampler = Sampler::new(8192, 11);
        let mut state = 0;
        for _ in 0..N {
            state = mix(state + 1);
            let which = (state % 6) as usize;
            counts[which] += u32::from(sampler.keeps(SIZES[which]));
        }
        for (size, count) in SIZES.into_iter().zip(counts) {
            let p = chance(size as u64, 8192);
            let n = f64::from(N) / 6.0;
            let error = (n * p).sqrt();
            assert!((f64::from(count) - n * p).abs() < 4.0 * error, "{size}: {count} of {}", n * p);
        }
    }

    /// Whether one block is kept says nothing about the next: runs of kept blocks are as long as chance
    /// makes them.
    #[test]
    fn decisions_are_independent() {
        let sampler = Sampler::new(1000, 4);
        let kept: Vec<bool> = (0..1_000_000).map(|_| sampler.keeps(700)).collect();
        let p = chance(700, 1000);
        for distance in 1..6 {
            let both = kept.iter().zip(&kept[distance..]).filter(|(a, b)| **a && **b).count();
            let share = both as f64 / kept.len() as f64;
            assert!((share - p * p).abs() < 0.003, "{distance}: {share} {}", p * p);
        }
    }

    #[test]
    fn distances_are_exponential() {
        // Kolmogorov and Smirnov's test against 1 - exp(-x), at a chance of 1 in 1000.
        const N: usize = 100_000;
        let every = period(1 << 40);
        let sampler = Sampler::new(1 << 40, 21);
        let mut drawn: Vec<f64> = (0..N)
            .map(|_| {
                sampler.draw(every);
                let n_left = sampler.left.load(Relaxed) + sampler.reserve.load(Relaxed);
                n_left as f64 / (1u64 << 40) as f64
            })
            .collect();
        drawn.sort_unstable_by(f64::total_cmp);
        let distance = drawn.iter().enumerate().map(|(i, x)| {
            let expected = -(-x).exp_m1();
            (expected - i as f64 / N as f64).abs().max((expected - (i + 1) as f64 / N as f64).abs())
        });
        let distance = distance.fold(0.0, f64::max);
        assert!(distance < 1.95 / (N as f64).sqrt(), "{distance}");
    }

    #[test]
    fn seeds_tell_samplers_apart_and_make_them_repeatable() {
        let first = |seed| {
            let sampler = Sampler::new(1 << 30, seed);
            (sampler.left.load(Relaxed), sampler.reserve.load(Relaxed))
        };
        assert_eq!(first(7), first(7));
        let mut firsts: Vec<_> = (0..1000).map(first).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), 1000);
        prepare();
        assert_ne!(next_seed(), next_seed());
    }

    #[test]
    fn another_period_begins_with_another_countdown() {
        let sampler = Sampler::new(1 << 40, 1);
        assert!(sampler.passes_over(period(1 << 40).marked(), 1));
        assert!(!sampler.passes_over(period(10).marked(), 1));
        sampler.decides_for(period(10).marked(), 1);
        assert!(sampler.left.load(Relaxed) < 10);
        // So does the same one in a word that differs in what is its own.
        let other = period(10).marked() | 1 << PERIOD_BITS;
        assert_eq!(Period::of_marked(other), Some(period(10)));
        assert!(!sampler.passes_over(other, 1));
    }
}
