//! Whether the tracer's own memory stays flat while one working set comes and goes.
//!
//! [`watch`] builds and drops the same [`N_BLOCKS`] blocks, of mixed sizes and from a handful of
//! call sites, until the wanted number of allocations is reached, and takes a [`Reading`] of the
//! tracer ten times on the way. [`check`] judges them: from the first reading to the last, the
//! tracer may grow by one part in twenty.
//!
//! Blocks are dropped in an order that differs each time, so that the allocator hands out addresses
//! in ever new orders, as it does in a program that has run for long.

use crate::sequence::Sequence;
use std::collections::VecDeque;

/// Blocks of the working set.
pub const N_BLOCKS: usize = 10_000;
/// Readings that are taken, at equal distances; the last one at the end.
pub const N_READINGS: u64 = 10;
/// The most that the tracer may grow from the first to the last reading, in percent.
pub const MAX_GROWTH_PERCENT: u64 = 5;

/// What the tracer says of itself at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Allocations made by then.
    pub n_allocations: u64,
    /// The tracer's own resident bytes.
    pub resident_bytes: u64,
    /// Traces, or stacks of traces, lost by then.
    pub n_lost: u64,
}

/// Why the tracer's memory is not flat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotFlat {
    /// There are fewer than two readings.
    #[error("growth takes at least two readings")]
    NotWatched,
    /// The tracer said that it used no memory: it was off.
    #[error("the tracer used no memory after {n_allocations} allocations: it was not tracing")]
    NotTracing {
        /// Allocations made by then.
        n_allocations: u64,
    },
    /// The tracer grew by more than it may.
    #[error(
        "the tracer grew from {first_bytes} bytes to {last_bytes}: more than {} %",
        MAX_GROWTH_PERCENT
    )]
    Grown {
        /// Resident bytes at the first reading.
        first_bytes: u64,
        /// Resident bytes at the last reading.
        last_bytes: u64,
    },
    /// The tracer stayed flat by forgetting.
    #[error("the tracer lost {n_lost} traces or their stacks")]
    Lost {
        /// How many.
        n_lost: u64,
    },
}

/// Builds and drops the working set until `n_allocations` blocks have been allocated.
///
/// At each tenth of them, `read` is called with the number of allocations so far; what it returns is
/// returned in order. The sets are whole: there may be up to [`N_BLOCKS`] allocations more.
pub fn watch(n_allocations: u64, mut read: impl FnMut(u64) -> Reading) -> Vec<Reading> {
    let mut readings = Vec::new();
    let mut order = Sequence::new();
    let mut blocks = VecDeque::with_capacity(N_BLOCKS);
    let mut n_made = 0;
    for n_wanted in (1..=N_READINGS).map(|tenth| n_allocations * tenth / N_READINGS) {
        while n_made < n_wanted {
            build(&mut blocks);
            while !blocks.is_empty() {
                blocks.swap_remove_back(order.below(blocks.len()));
            }
            n_made += N_BLOCKS as u64;
        }
        readings.push(read(n_made));
    }
    readings
}

/// Judges the readings.
///
/// **Errors**: if the tracer was off, grew by more than [`MAX_GROWTH_PERCENT`], or lost anything.
pub fn check(readings: &[Reading]) -> Result<(), NotFlat> {
    let [first, .., last] = readings else { return Err(NotFlat::NotWatched) };
    let (first_bytes, last_bytes) = (first.resident_bytes, last.resident_bytes);
    if first_bytes == 0 {
        return Err(NotFlat::NotTracing { n_allocations: first.n_allocations });
    }
    if last_bytes * 100 > first_bytes * (100 + MAX_GROWTH_PERCENT) {
        return Err(NotFlat::Grown { first_bytes, last_bytes });
    }
    if last.n_lost != 0 {
        return Err(NotFlat::Lost { n_lost: last.n_lost });
    }
    Ok(())
}

/// Allocates the blocks of one working set, from five call sites.
fn build(blocks: &mut VecDeque<Vec<u8>>) {
    let mut sizes = Sequence::new();
    for i in 0..N_BLOCKS {
        blocks.push_back(match i % 5 {
            0 => name(sizes.below(24)),
            1 => record(sizes.below(100)),
            2 => line(sizes.below(200)),
            3 => page(sizes.below(2000)),
            _ => image(sizes.below(9000)),
        });
    }
}

/// Defines functions that each allocate one block, of `extra` bytes more than their least.
macro_rules! call_sites {
    ($($name:ident: $least:literal)*) => {$(
        #[inline(never)]
        fn $name(extra: usize) -> Vec<u8> {
            vec![1; $least + extra]
        }
    )*};
}

call_sites! { name: 8 record: 32 line: 40 page: 100 image: 1000 }

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(resident_bytes: &[u64], n_lost: u64) -> Vec<Reading> {
        let reading = |&resident_bytes| Reading { n_allocations: 7, resident_bytes, n_lost };
        resident_bytes.iter().map(reading).collect()
    }

    #[test]
    fn the_working_set_comes_and_goes_until_all_allocations_are_made() {
        let mut asked = Vec::new();
        let readings = watch(200_000, |n_allocations| {
            asked.push(n_allocations);
            Reading { n_allocations, resident_bytes: 1, n_lost: 0 }
        });
        let expected: Vec<u64> = (1..=10).map(|tenth| tenth * 20_000).collect();
        assert_eq!(asked, expected);
        assert_eq!(readings.len(), 10);
    }

    #[test]
    fn one_part_in_twenty_is_flat_and_a_byte_more_is_not() {
        assert_eq!(check(&readings(&[1000, 1049, 1050], 0)), Ok(()));
        let grown = NotFlat::Grown { first_bytes: 1000, last_bytes: 1051 };
        assert_eq!(check(&readings(&[1000, 1000, 1051], 0)), Err(grown));
    }

    #[test]
    fn a_tracer_that_is_off_or_forgets_or_was_not_watched_does_not_pass() {
        let off = NotFlat::NotTracing { n_allocations: 7 };
        assert_eq!(check(&readings(&[0, 0], 0)), Err(off));
        assert_eq!(check(&readings(&[1000, 1000], 3)), Err(NotFlat::Lost { n_lost: 3 }));
        assert_eq!(check(&readings(&[1000], 0)), Err(NotFlat::NotWatched));
    }
}
