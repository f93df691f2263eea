//! Calls that name what is no block in use: why, and how many there were.

use core::sync::atomic::{AtomicU64, Ordering};

/// Why a pointer handed to `dealloc` or `realloc` is no block that can be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidFree {
    Double,
    Foreign,
    Misaligned,
    WrongLayout,
}

/// How many calls of `dealloc` and `realloc` were refused, by reason. Each left the heap as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct InvalidFrees {
    /// The block of a pool was free already (or its whole pool unused).
    pub n_double: u64,
    /// The address belongs to no arena and no direct mapping of this heap. A second free of a
    /// direct mapping, or of a block whose arena has been given back, looks like this too.
    pub n_foreign: u64,
    /// The address lies in a pool but not at the start of a block.
    pub n_misaligned: u64,
    /// The block is in use, but of another size class, or (large blocks) another size.
    pub n_wrong_layout: u64,
}

impl InvalidFrees {
    /// All of them.
    #[must_use]
    pub fn n_total(&self) -> u64 {
        let grave = self.n_double.saturating_add(self.n_foreign);
        grave.saturating_add(self.n_misaligned).saturating_add(self.n_wrong_layout)
    }
}

/// The counters behind [`InvalidFrees`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    n_double: AtomicU64,
    n_foreign: AtomicU64,
    n_misaligned: AtomicU64,
    n_wrong_layout: AtomicU64,
}

// Relaxed throughout: counters publish nothing.
impl Counters {
    #[cold]
    pub(crate) fn count(&self, reason: InvalidFree) {
        self.add(reason, 1);
    }

    pub(crate) fn add(&self, reason: InvalidFree, n: u64) {
        let counter = match reason {
            InvalidFree::Double => &self.n_double,
            InvalidFree::Foreign => &self.n_foreign,
            InvalidFree::Misaligned => &self.n_misaligned,
            InvalidFree::WrongLayout => &self.n_wrong_layout,
        };
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> InvalidFrees {
        InvalidFrees {
            n_double: self.n_double.load(Ordering::Relaxed),
            n_foreign: self.n_foreign.load(Ordering::Relaxed),
            n_misaligned: self.n_misaligned.load(Ordering::Relaxed),
            n_wrong_layout: self.n_wrong_layout.load(Ordering::Relaxed),
        }
    }
}
