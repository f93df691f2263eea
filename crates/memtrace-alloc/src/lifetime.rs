//! How long blocks lived, from the call that allocated or last resized them to the one that gave them back.
//!
//! Times are the system's monotonic clock's, in nanoseconds; Linux's does not run while the machine sleeps. What is kept
//! of them is a histogram with a class for each power of two.

use core::fmt;
use core::ops::{AddAssign, Range};
use core::time::Duration;

/// When a block was born; zero if that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Birth(u64);

impl Birth {
    pub(crate) const UNKNOWN: Self = Self(0);

    /// This moment. May be asked for in a signal handler.
    ///
    /// **Cost**: 20 to 40 ns: the system call is one that need not enter the system.
    pub(crate) fn now() -> Self {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        #[expect(unsafe_code, reason = "a system call, without `std`")]
        // SAFETY: the time is written where there is room for it. On failure it stays zero, which is unknown.
        unsafe {
            libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time);
        }
        let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
        Self(seconds.unwrap_or(0).wrapping_mul(1_000_000_000).wrapping_add(nanos.unwrap_or(0)))
    }

    pub(crate) const fn to_word(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The class of a block that was born then and goes now; `None` if it is not known when it was born.
    pub(crate) fn class_now(self) -> Option<usize> {
        (self != Self::UNKNOWN).then(|| class(Self::now().0.saturating_sub(self.0)))
    }
}

/// Nanoseconds below which all lifetimes are of the first class: 2¹⁰.
const FIRST_BITS: u32 = 10;

/// The class of a lifetime in nanoseconds.
const fn class(lifetime_ns: u64) -> usize {
    let n_bits = u64::BITS.wrapping_sub(lifetime_ns.leading_zeros());
    let class = n_bits.saturating_sub(FIRST_BITS) as usize;
    if class < Lifetimes::N_CLASSES { class } else { Lifetimes::N_CLASSES - 1 }
}

/// The lifetimes of a class.
fn range(class: usize) -> Range<Duration> {
    let bits = FIRST_BITS.saturating_add(class as u32);
    let power = |bits: u32| Duration::from_nanos(1u64.wrapping_shl(bits));
    let start = if class == 0 { Duration::ZERO } else { power(bits.wrapping_sub(1)) };
    let is_last = class.wrapping_add(1) >= Lifetimes::N_CLASSES;
    start..if is_last { Duration::MAX } else { power(bits) }
}

/// How long the blocks of a call site lived: a histogram with a class for each power of two.
///
/// The first class is of those that lived less than 2¹⁰ ns, about a microsecond; in each other the longest lifetimes
/// are twice the shortest; and the last is of those that lived 2⁴⁰ ns and more, some 18 minutes.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: memtrace_alloc::Alloc = memtrace_alloc::Alloc::system();
/// use memtrace_alloc::{Lifetimes, Options};
/// use std::time::Duration;
///
/// memtrace_alloc::start_with(Options::new().lifetimes(true)).unwrap();
/// for i in 0..1000u32 {
///     drop(std::hint::black_box(Box::new(i)));
/// }
/// let mut all = Lifetimes::default();
/// assert!(memtrace_alloc::for_each_site_lifetimes(|_site, lifetimes| all += &lifetimes));
/// assert!(all.n_blocks() >= 1000);
/// // Nine in ten lived less than this:
/// assert!(all.quantile(0.9).unwrap().end < Duration::from_secs(1));
/// println!("{all}");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    n_blocks: [u64; Self::N_CLASSES],
}

impl Lifetimes {
    /// The number of classes.
    pub const N_CLASSES: usize = 32;

    /// Of so many blocks of each class.
    pub(crate) const fn of(n_blocks: [u64; Self::N_CLASSES]) -> Self {
        Self { n_blocks }
    }

    /// Returns how many blocks there are in all classes.
    pub fn n_blocks(&self) -> u64 {
        self.n_blocks.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }

    /// Returns the lifetimes of each class, shortest first, with the number of blocks that lived so long. The last
    /// range ends at [`Duration::MAX`].
    pub fn classes(&self) -> impl Iterator<Item = (Range<Duration>, u64)> {
        self.n_blocks.iter().enumerate().map(|(class, &n_blocks)| (range(class), n_blocks))
    }

    /// Returns the class below whose end at least `share` of all blocks lived, the first such one: that of the median
    /// for 0.5. `None` if there are no blocks, or if `share` is not in `0.0..=1.0`.
    pub fn quantile(&self, share: f64) -> Option<Range<Duration>> {
        if !(0.0..=1.0).contains(&share) {
            return None;
        }
        let wanted = share * self.n_blocks() as f64;
        let mut sum = 0u64;
        let found = self.classes().find(|(_, n_blocks)| {
            sum = sum.wrapping_add(*n_blocks);
            *n_blocks != 0 && sum as f64 >= wanted
        });
        found.map(|(range, _)| range)
    }
}

impl AddAssign<&Self> for Lifetimes {
    fn add_assign(&mut self, other: &Self) {
        for (sum, n_blocks) in self.n_blocks.iter_mut().zip(other.n_blocks) {
            *sum = sum.wrapping_add(n_blocks);
        }
    }
}

/// Writes a line for each class from the first to the last that has blocks: below which time they lived, how many
/// there are, their share, and a bar as long as that.
impl fmt::Display for Lifetimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BAR: &str = "##################################################";
        let n_all = self.n_blocks();
        let is_there = |n_blocks: &u64| *n_blocks != 0;
        let first = self.n_blocks.iter().position(is_there).unwrap_or(0);
        let Some(last) = self.n_blocks.iter().rposition(is_there) else {
            return f.write_str("no block has been given back");
        };
        let n_lines = last.wrapping_sub(first).wrapping_add(1);
        for (i, (range, n_blocks)) in self.classes().skip(first).take(n_lines).enumerate() {
            let share = n_blocks as f64 / n_all as f64;
            let bar = BAR.get(..(share * BAR.len() as f64) as usize).unwrap_or(BAR);
            if i != 0 {
                f.write_str("\n")?;
            }
            write!(f, "{} {n_blocks:>12} {:>5.1} %", Bound(&range), share * 100.0)?;
            if !bar.is_empty() {
                write!(f, " {bar}")?;
            }
        }
        Ok(())
    }
}

/// Writes how long the blocks of a class lived at most, or, for the last class, at least.
struct Bound<'a>(&'a Range<Duration>);

impl fmt::Display for Bound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.end {
            Duration::MAX => write!(f, ">= {:>8.1?}", self.0.start),
            end => write!(f, " < {end:>8.1?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::string::ToString;
    use std::vec::Vec;

    #[test]
    fn a_lifetime_lies_in_the_range_of_its_class_and_ranges_follow_each_other() {
        for bits in 0..64 {
            for lifetime_ns in [(1u64 << bits) - 1, 1 << bits, (1 << bits) + 1] {
                let range = range(class(lifetime_ns));
                assert!(range.contains(&Duration::from_nanos(lifetime_ns)), "{lifetime_ns}");
            }
        }
        assert_eq!(class(u64::MAX), Lifetimes::N_CLASSES - 1);
        let ranges: Vec<_> = Lifetimes::default().classes().map(|(range, _)| range).collect();
        assert_eq!(ranges[0].start, Duration::ZERO);
        assert_eq!(ranges[0].end, Duration::from_nanos(1 << 10));
        assert!(ranges.windows(2).all(|two| two[0].end == two[1].start));
        assert_eq!(ranges[31], Duration::from_nanos(1 << 40)..Duration::MAX);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_lifetimes() {
        let mut lifetimes = Lifetimes::default();
        assert_eq!(lifetimes.quantile(0.5), None);
        let mut sorted = Vec::new();
        for (class, n_blocks) in [(0, 3), (4, 10), (5, 1), (31, 6)] {
            lifetimes.n_blocks[class] = n_blocks;
            sorted.extend((0..n_blocks).map(|_| range(class)));
        }
        assert_eq!(lifetimes.n_blocks(), 20);
        for (i, expected) in sorted.iter().enumerate() {
            // A share between this block's and the one before.
            let share = (i as f64 + 0.5) / 20.0;
            assert_eq!(lifetimes.quantile(share).as_ref(), Some(expected), "{i}");
        }
        assert_eq!(lifetimes.quantile(0.0), Some(range(0)));
        assert_eq!(lifetimes.quantile(1.0), Some(range(31)));
        assert_eq!((lifetimes.quantile(1.1), lifetimes.quantile(f64::NAN)), (None, None));
    }

    #[test]
    fn a_histogram_has_a_line_for_each_class_between_the_first_and_the_last() {
        let mut lifetimes = Lifetimes::default();
        assert_eq!(lifetimes.to_string(), "no block has been given back");
        lifetimes.n_blocks[0] = 300;
        lifetimes.n_blocks[2] = 100;
        let expected = [
            " <    1.0µs          300  75.0 % #####################################",
            " <    2.0µs            0   0.0 %",
            " <    4.1µs          100  25.0 % ############",
        ];
        assert_eq!(lifetimes.to_string(), expected.join("\n"));
        let mut old = Lifetimes::default();
        old.n_blocks[31] = 1;
        assert!(old.to_string().starts_with(">=  1099.5s            1 100.0 % ####"), "{old}");
    }

    #[test]
    fn the_clock_goes_on_and_what_was_never_born_has_no_class() {
        let birth = Birth::now();
        assert!(birth != Birth::UNKNOWN && birth.class_now().is_some_and(|class| class < 31));
        assert_eq!(Birth::UNKNOWN.class_now(), None);
        assert_eq!(Birth::from_word(birth.to_word()), birth);
        std::thread::sleep(Duration::from_millis(3));
        assert!(birth.class_now().is_some_and(|class| range(class).end > Duration::from_millis(3)));
    }
}
