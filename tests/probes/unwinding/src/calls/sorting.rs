//! Callbacks of the C library's `qsort`.

use super::Next;
use crate::plan::Step;
use libc::{c_int, c_void};

/// An item to sort, of which one leads to the rest of the path.
struct Item<'a, 'b>(Option<&'a mut Next<'b>>);

#[inline(never)]
pub(crate) fn call(step: Step, mut next: Next<'_>) {
    let mut items = [const { Item(None) }; 8];
    items[0] = Item(Some(&mut next));
    let n_items = 2 + step.below(6) as usize;
    // SAFETY: there are as many items, of this size; the comparison is total.
    unsafe {
        libc::qsort(items.as_mut_ptr().cast(), n_items, size_of::<Item<'_, '_>>(), Some(compare));
    }
    assert!(items.iter().all(|item| item.0.is_none()), "the rest of the path was taken");
}

extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
    for item in [a, b] {
        // SAFETY: `qsort` passes two of its items, and nothing else refers to them meanwhile.
        if let Some(next) = unsafe { &mut *item.cast_mut().cast::<Item<'_, '_>>() }.0.take() {
            next();
        }
    }
    0
}
