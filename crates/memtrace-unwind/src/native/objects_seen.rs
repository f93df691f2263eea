//! Which objects the rules were learned from, so that other code at the same address is noticed.
//!
//! A library is unloaded, another one is loaded where it was: rules learned of the first are wrong
//! for the second. The loader tells nobody, and asking it how often it unloaded something takes its
//! lock. So each object is noted when a rule is learned of it: its range, and a fingerprint of what
//! differs between builds. Whoever walks through an address later compares what lies there now.
//!
//! A note is made before the rules of its object are stored, and is forgotten before they are:
//!
//! | learning a rule | forgetting them |
//! | --- | --- |
//! | [`agrees`](ObjectsSeen::agrees) makes the note | [`forget`](ObjectsSeen::forget) drops all notes |
//! | the rule is stored | a fence |
//! | a fence, then [`agrees`](ObjectsSeen::agrees) once more | all rules are dropped |
//!
//! Either the rule is stored before it is dropped, or the note is made once more after it was
//! dropped.
//!
//! # Invariants
//!
//! - **I1** A slot is empty (`key` 0) or that of one object, whose first address and [`Place`] are
//!   its key. Only [`ObjectsSeen::forget`] empties a slot.
//! - **I2** The ranges of two slots do not overlap, because objects that are loaded at one time do
//!   not, and one that overlaps an earlier one is a change.
//! - **I3** After a change nothing agrees until all is forgotten.
//!
//! # Orderings
//!
//! Everything is `Relaxed`: a fingerprint covers its object's range, so that words of two objects
//! taken together agree with nothing. One that is still 0 is being noted by somebody else, of the
//! same object. The two fences are named above and are each other's partner.
//!
//! # Cost
//!
//! One or two loads and a fingerprint; a pass over all slots for an object seen for the first time.
//! 12 KiB. Objects beyond the 512th are not watched.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, Ordering::Relaxed, fence};

const SLOT_BITS: u32 = 9;
const N_SLOTS: usize = 1 << SLOT_BITS;
/// Objects begin with a page, which leaves this many bits of a key.
const PLACE_BITS: u32 = 12;
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;

/// Where in the first page of an object the eight bytes lie that tell its build from others, as an
/// offset; or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Place {
    /// The page begins with what all objects have in common.
    pub(crate) const NOWHERE: Self = Self(0);

    /// Makes a place of an offset in bytes, if the eight bytes there lie in the first page.
    pub(crate) fn new(offset: u64) -> Option<Self> {
        let is_inside = offset > 0 && offset.checked_add(8)? <= 1 << PLACE_BITS;
        is_inside.then_some(Self(offset))
    }

    /// Returns the offset in bytes.
    pub(crate) fn offset(self) -> Option<usize> {
        if self == Self::NOWHERE { None } else { usize::try_from(self.0).ok() }
    }
}

struct Slot {
    /// First address and [`Place`].
    key: AtomicU64,
    /// The address after the last.
    end: AtomicU64,
    fingerprint: AtomicU64,
}

impl Slot {
    #[expect(clippy::declare_interior_mutable_const, reason = "the initial value of each slot")]
    const EMPTY: Self =
        Self { key: AtomicU64::new(0), end: AtomicU64::new(0), fingerprint: AtomicU64::new(0) };
}

/// The objects that rules were learned from.
pub(crate) struct ObjectsSeen {
    slots: [Slot; N_SLOTS],
    is_changed: AtomicBool,
}

impl ObjectsSeen {
    pub(crate) const fn new() -> Self {
        Self { slots: [const { Slot::EMPTY }; N_SLOTS], is_changed: AtomicBool::new(false) }
    }

    /// Whether the object that is loaded at `range` is the one that was there before, if any was;
    /// one that is new is noted.
    ///
    /// `place` is asked for once for a new object, and given back to `fingerprint` each time.
    #[inline]
    pub(crate) fn agrees(
        &self,
        range: Range<u64>,
        place: impl FnOnce() -> Place,
        fingerprint: impl Fn(Place) -> u64,
    ) -> bool {
        if range.start & PLACE_MASK != 0 || range.start == 0 {
            // A part of a program that is mapped piece by piece; programs are not unloaded.
            return !self.is_changed.load(Relaxed);
        }
        // Never 0, the mark of a fingerprint that is not there yet.
        let fingerprint = |place| fingerprint(place) | 1;
        for slot in self.probe(range.start) {
            let key = slot.key.load(Relaxed);
            if key & !PLACE_MASK == range.start {
                let known = slot.fingerprint.load(Relaxed);
                if known != 0 && known != fingerprint(Place(key & PLACE_MASK)) {
                    self.is_changed.store(true, Relaxed);
                }
                return !self.is_changed.load(Relaxed);
            }
            if key == 0 {
                let place = place();
                return self.note(range, place, fingerprint(place));
            }
        }
        !self.is_changed.load(Relaxed)
    }

    /// Whether an object that was noted had a part at `addr`.
    #[cold]
    pub(crate) fn had_part_at(&self, addr: u64) -> bool {
        self.overlap(&(addr..addr.saturating_add(1)))
    }

    /// Whether an object was found to be another than before, after which nothing agrees.
    pub(crate) fn is_changed(&self) -> bool {
        self.is_changed.load(Relaxed)
    }

    /// Forgets all objects: to be called before the rules are dropped.
    pub(crate) fn forget(&self) {
        for slot in &self.slots {
            if slot.key.load(Relaxed) != 0 {
                slot.fingerprint.store(0, Relaxed);
                slot.end.store(0, Relaxed);
                slot.key.store(0, Relaxed);
            }
        }
        self.is_changed.store(false, Relaxed);
        // The partner is in `after_storing`.
        fence(Ordering::SeqCst);
    }

    /// Comes between storing a rule and making sure that its object is still noted.
    pub(crate) fn after_storing(&self) {
        // The partner is in `forget`.
        fence(Ordering::SeqCst);
    }

    #[cold]
    #[inline(never)]
    fn note(&self, range: Range<u64>, place: Place, fingerprint: u64) -> bool {
        if self.overlap(&range) {
            self.is_changed.store(true, Relaxed);
            return false;
        }
        let key = range.start | place.0;
        for slot in self.probe(range.start) {
            match slot.key.compare_exchange(0, key, Relaxed, Relaxed) {
                Ok(_) => {
                    slot.end.store(range.end, Relaxed);
                    slot.fingerprint.store(fingerprint, Relaxed);
                    break;
                }
                // Somebody else was first, with the same object.
                Err(other) if other == key => break,
                Err(_) => {}
            }
        }
        !self.is_changed.load(Relaxed)
    }

    fn overlap(&self, range: &Range<u64>) -> bool {
        self.slots.iter().any(|slot| {
            let start = slot.key.load(Relaxed) & !PLACE_MASK;
            start < range.end && range.start < slot.end.load(Relaxed)
        })
    }

    /// All slots, beginning with the one where an object is looked for first.
    #[inline]
    fn probe(&self, start: u64) -> impl Iterator<Item = &Slot> {
        let page = start >> PLACE_BITS;
        let first = page.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - SLOT_BITS);
        let (before, after) = self.slots.split_at_checked(first as usize).unwrap_or_default();
        after.iter().chain(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::boxed::Box;

    fn agrees(seen: &ObjectsSeen, range: Range<u64>, fingerprint: u64) -> bool {
        seen.agrees(range, || Place::NOWHERE, |_| fingerprint << 1)
    }

    #[test]
    fn an_object_agrees_with_itself_and_not_with_another_at_its_address() {
        let seen = Box::new(ObjectsSeen::new());
        for _ in 0..2 {
            assert!(agrees(&seen, 0x1000..0x9000, 1));
            assert!(agrees(&seen, 0x9000..0xA000, 2));
        }
        assert!(!agrees(&seen, 0x1000..0x9000, 3));
        // Nothing agrees until all is forgotten.
        assert!(!agrees(&seen, 0x9000..0xA000, 2) && seen.is_changed());
        seen.forget();
        assert!(agrees(&seen, 0x1000..0x9000, 3) && agrees(&seen, 0x1000..0x9000, 3));
    }

    #[test]
    fn an_object_that_overlaps_an_earlier_one_is_a_change() {
        for range in [0x1000..0x3000, 0x2000..0x6000, 0x3000..0x4000, 0x4000..0x9000] {
            let seen = Box::new(ObjectsSeen::new());
            assert!(agrees(&seen, 0x2000..0x5000, 1));
            assert!(!agrees(&seen, range.clone(), 2), "{range:x?}");
        }
    }

    #[test]
    fn where_an_object_was_is_remembered_until_it_is_forgotten() {
        let seen = Box::new(ObjectsSeen::new());
        agrees(&seen, 0x2000..0x5000, 1);
        let had = [0x1FFF, 0x2000, 0x4FFF, 0x5000].map(|addr| seen.had_part_at(addr));
        assert_eq!(had, [false, true, true, false]);
        seen.forget();
        assert!(!seen.had_part_at(0x2000));
    }

    #[test]
    fn objects_beyond_the_last_slot_are_not_watched() {
        let seen = Box::new(ObjectsSeen::new());
        for fingerprint in [1, 2] {
            for i in 0..N_SLOTS as u64 * 2 {
                let start = (i + 1) << 16;
                let expected = fingerprint == 1;
                assert_eq!(agrees(&seen, start..start + 0x4000, fingerprint), expected, "{i}");
            }
        }
        seen.forget();
        assert!(agrees(&seen, 0x10000..0x14000, 3));
    }

    #[test]
    fn a_place_gives_back_what_was_packed_and_lies_in_the_first_page() {
        for offset in [1, 568, 4088] {
            let place = Place::new(offset).unwrap();
            assert_eq!(place.offset(), Some(offset as usize));
            let seen = Box::new(ObjectsSeen::new());
            for _ in 0..2 {
                let agrees = seen.agrees(0x7000..0x9000, || place, |at| u64::from(at != place) * 2);
                assert!(agrees && !seen.is_changed());
            }
        }
        for offset in [0, 4089, u64::MAX] {
            assert_eq!(Place::new(offset), None);
        }
        assert_eq!(Place::NOWHERE.offset(), None);
    }
}
