//! What a twin does otherwise: `page_array` as the page shadow sees it, which is the real one unless a mistake
//! is made.

use std::cell::Cell;

use crate::page_word::{Kind, SEALED, Shape, Tag, copy, gone, kind, live, tag_of, trace_of};
use crate::real::page_array as real;
use crate::sync::atomic::{self, AtomicU64, Ordering};

pub(crate) use real::{
    Found, Inserted, Tags, for_each_slot, home, is_crowded, is_empty, is_needed, line, place,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    /// A copy counts whether its original is gone or not.
    CopiesCount,
    /// The same for scans alone.
    CopiesAreVisited,
    /// Scans pass by what is gone.
    GoneIsNotVisited,
    /// A trace is marked as gone before there is a copy.
    GoneBeforeCopy,
    /// A copy becomes live whether its original had been released or not.
    CopyLiveAnyway,
    /// What was not found is not there: the entry is not looked at again.
    NoSecondLook,
    /// Empty places stay as they are.
    NoSeals,
    /// What is sealed is taken to be empty.
    SealsIgnored,
    /// Places are looked at and then stored into.
    InsertInTwoSteps,
    TakeInTwoSteps,
    AllRelaxed,
    /// A hook looks at the state before it begins the operation.
    LookBeforeOperation,
    /// `stop` sweeps without waiting.
    SweepAtOnce,
    /// `stop` sweeps before it stores the state.
    SweepBeforeState,
    /// Arrays are used again without a look at who may look at them.
    UseAgainAtOnce,
    /// Operations are marked without a fence.
    NoLightFence,
    /// A cell is marked before the trace is in the table.
    MarkBeforeWord,
    /// A cell is cleared after a look whether it is still searched.
    ClearInTwoSteps,
}

thread_local! {
    // All threads of a model run on one thread of the system.
    static MADE: Cell<Mistake> = const { Cell::new(Mistake::None) };
}

pub(crate) fn make(mistake: Mistake) {
    MADE.set(mistake);
}

pub(crate) fn is_made(mistake: Mistake) -> bool {
    MADE.get() == mistake
}

/// Whether a compare-and-swap is a load and a store.
pub(crate) fn is_step_apart(current: u64, new: u64) -> bool {
    match MADE.get() {
        Mistake::NoSeals => new == SEALED,
        Mistake::InsertInTwoSteps => current == 0 && kind(new) == Kind::Live,
        Mistake::TakeInTwoSteps => kind(current) == Kind::Live && new == 0,
        // No trace in these models is this word.
        Mistake::ClearInTwoSteps => current == 1 && new == 0,
        _ => false,
    }
}

/// Whether the store is left out then.
pub(crate) fn is_step_left_out(new: u64) -> bool {
    is_made(Mistake::NoSeals) && new == SEALED
}

pub(crate) fn take_from(shape: Shape, tag: Tag, counts_copy: bool) -> Found {
    let found = real::take_from(shape, tag, counts_copy || is_made(Mistake::CopiesCount));
    // Copies count in the new array only.
    if is_made(Mistake::NoSecondLook)
        && matches!(found, Found::Not { is_gone } if counts_copy || !is_gone)
    {
        atomic::repeat_load();
    }
    found
}

pub(crate) fn word_of(shape: Shape, tag: Tag, counts_copy: bool) -> Result<u64, bool> {
    real::word_of(shape, tag, counts_copy || is_made(Mistake::CopiesCount))
}

pub(crate) fn insert_where_vacant(shape: Shape, tag: Tag, word: u64) -> bool {
    real::insert_where_vacant(shape, tag, word) || insert_where_sealed(shape, word)
}

pub(crate) fn insert_into(shape: Shape, tag: Tag, word: u64) -> Inserted {
    match real::insert_into(shape, tag, word) {
        Inserted::HasMoved if insert_where_sealed(shape, word) => Inserted::Yes(None),
        inserted => inserted,
    }
}

fn insert_where_sealed(shape: Shape, word: u64) -> bool {
    let mut is_stored = false;
    if is_made(Mistake::SealsIgnored) {
        for_each_slot(shape, |slot| {
            is_stored = is_stored
                || slot.compare_exchange(SEALED, word, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        });
    }
    is_stored
}

pub(crate) fn move_word(slot: &AtomicU64, to: Shape) {
    match MADE.get() {
        Mistake::GoneBeforeCopy => {
            let held = slot.load(Ordering::SeqCst);
            if kind(held) == Kind::Live
                && slot
                    .compare_exchange(held, gone(held), Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
            {
                place(to, tag_of(held), held);
                return;
            }
        }
        Mistake::CopyLiveAnyway => {
            let held = slot.load(Ordering::SeqCst);
            if kind(held) == Kind::Live {
                let placed = place(to, tag_of(held), copy(held)).unwrap();
                let _ =
                    slot.compare_exchange(held, gone(held), Ordering::SeqCst, Ordering::Relaxed);
                placed.store(held, Ordering::SeqCst);
                return;
            }
        }
        _ => {}
    }
    real::move_word(slot, to);
}

pub(crate) fn for_each_word(shape: Shape, mut visit: impl FnMut(u64)) {
    real::for_each_word(shape, |word| match (MADE.get(), kind(word)) {
        (Mistake::CopiesAreVisited, Kind::Copy) => visit(live(tag_of(word), trace_of(word))),
        (Mistake::GoneIsNotVisited, Kind::Gone) => {}
        _ => visit(word),
    });
}
