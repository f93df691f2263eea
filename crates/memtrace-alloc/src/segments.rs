//! Places with numbers, in mapped memory, that never move: an array that grows while it is read.
//!
//! # Invariants
//!
//! - **I1** Segment `k` has room for `FIRST_LEN << k` values, or is not mapped; once mapped it stays.
//! - **I2** Each number has one place. It is zeroed until its owner writes to it.
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | `segments[k]` | `place_or_map` (Release) | `place` (Acquire) | zeroed memory |
//!
//! What is in a place is for its owner to publish.
//!
//! # Cost
//!
//! A load and some arithmetic. At most half of the memory mapped is not in use, and untouched.
#![expect(unsafe_code, reason = "places in mapped memory")]

use crate::mapped::{self, Part};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Release};

/// Room for numbers from 0 up, in `N` segments of which each is twice as long as the one before.
pub(crate) struct Segments<T, const FIRST_LEN: usize, const N: usize> {
    segments: [AtomicPtr<T>; N],
    part: Part,
    is_optional: bool,
}

impl<T, const FIRST_LEN: usize, const N: usize> Segments<T, FIRST_LEN, N> {
    pub(crate) const fn new(part: Part) -> Self {
        const { assert!(FIRST_LEN.is_power_of_two()) };
        let segments = [const { AtomicPtr::new(ptr::null_mut()) }; N];
        Self { segments, part, is_optional: false }
    }

    /// Of values that are worth less than what else there is a limit for ([`mapped::map_optional`]).
    pub(crate) const fn optional(part: Part) -> Self {
        Self { is_optional: true, ..Self::new(part) }
    }

    /// Returns the place of a number, if its segment is mapped.
    #[inline]
    pub(crate) fn place(&self, number: u32) -> Option<NonNull<T>> {
        Some(self.places_from(number)?.0)
    }

    /// Returns the places from a number on to the end of their segment, and how many they are; none if it is not mapped.
    #[inline]
    pub(crate) fn places_from(&self, number: u32) -> Option<(NonNull<T>, usize)> {
        let (k, offset) = Self::split(number)?;
        let segment = NonNull::new(self.segments.get(k)?.load(Acquire))?;
        // SAFETY: within the segment, since `offset` is below its length (I1).
        Some((unsafe { segment.add(offset) }, (FIRST_LEN << k).wrapping_sub(offset)))
    }

    /// Visits every place whose segment is mapped.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(NonNull<T>)) {
        for (k, segment) in self.segments.iter().enumerate() {
            let Some(segment) = NonNull::new(segment.load(Acquire)) else { continue };
            for offset in 0..FIRST_LEN << k {
                // SAFETY: within the segment, whose length this is (I1).
                visit(unsafe { segment.add(offset) });
            }
        }
    }

    /// Returns the place of a number, mapping its segment if need be; `None` if that fails.
    #[inline]
    pub(crate) fn place_or_map(&self, number: u32) -> Option<NonNull<T>> {
        self.place(number).or_else(|| {
            let (k, _) = Self::split(number)?;
            self.segment_or_map(k);
            self.place(number)
        })
    }

    /// Returns segment `k` and its length, mapping it if need be; null if that fails.
    pub(crate) fn segment_or_map(&self, k: usize) -> (*mut T, usize) {
        let Some(segment) = self.segments.get(k) else { return (ptr::null_mut(), 0) };
        let len = FIRST_LEN << k;
        let mut base = segment.load(Acquire);
        if base.is_null() {
            let map = if self.is_optional { mapped::map_optional::<T> } else { mapped::map::<T> };
            base = map(len, self.part);
            // If another thread was first, ours stays untouched: address space, not memory.
            if let Err(first) = segment.compare_exchange(ptr::null_mut(), base, Release, Acquire) {
                if !base.is_null() {
                    mapped::uncharge(len.saturating_mul(size_of::<T>()));
                }
                base = first;
            }
        }
        (base, len)
    }

    /// The segment of a number and its place in it.
    #[inline(always)]
    fn split(number: u32) -> Option<(usize, usize)> {
        let shifted = (number as usize).checked_add(FIRST_LEN)?;
        let k = shifted.ilog2().checked_sub(FIRST_LEN.ilog2())?;
        Some((k as usize, shifted ^ FIRST_LEN << k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    #[test]
    fn segments_hold_each_number_once() {
        type Small = Segments<u64, 16, 12>;
        let mut next = [0usize; 12];
        for number in 0..16 * 4095 {
            let (k, offset) = Small::split(number).unwrap();
            assert_eq!(offset, next[k], "{number}");
            assert!(offset < 16 << k);
            next[k] += 1;
        }
        assert_eq!(next, core::array::from_fn(|k| 16 << k));
    }

    #[test]
    fn places_are_mapped_on_demand_and_never_move() {
        let places = Segments::<u64, 4, 3>::new(Part::Scratch);
        assert_eq!(places.place(0), None);
        let all: [_; 28] = core::array::from_fn(|i| places.place_or_map(i as u32).unwrap());
        for (i, place) in all.into_iter().enumerate() {
            assert_eq!(places.place(i as u32), Some(place));
            assert_eq!(all.iter().filter(|other| **other == place).count(), 1);
        }
        assert_eq!((places.place_or_map(28), places.place(u32::MAX)), (None, None));
        let mut visited = std::vec::Vec::new();
        places.for_each(|place| visited.push(place));
        assert_eq!(visited, all);
    }

    #[test]
    fn places_beyond_a_gap_are_visited() {
        let places = Segments::<u64, 4, 3>::new(Part::Scratch);
        places.place_or_map(12).unwrap();
        let mut n_visited = 0;
        places.for_each(|_| n_visited += 1);
        assert_eq!(n_visited, 16);
    }
}
