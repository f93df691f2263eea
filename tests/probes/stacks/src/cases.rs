//! The cases: each allocates one block and keeps it.

mod calls;
mod inlined;
mod library;
#[cfg(panic = "unwind")]
mod panics;
mod threads;

use crate::kept::Kept;

/// A name and the function that allocates.
pub type Case = (&'static str, fn() -> Kept);

/// All cases; where panics abort, those that panic are missing.
pub const CASES: &[Case] = &[
    ("function", calls::function),
    ("closure", calls::closure),
    ("trait object", calls::trait_object),
    ("generic u16", calls::generic_u16),
    ("generic triple", calls::generic_triple),
    ("callback from C", calls::callback_from_c),
    ("recursion", calls::recursion),
    ("inlined", inlined::run),
    ("inlined closure", inlined::run_closure),
    ("thread", threads::run),
    ("boxed", library::boxed),
    ("zeroed", library::zeroed),
    ("vec growth", library::vec_growth),
    ("vec shrinking", library::vec_shrinking),
    ("string", library::string),
    ("btree map", library::btree_map),
    ("arc slice", library::arc_slice),
    ("iterator", library::iterator),
    ("iterator item", library::iterator_item),
    #[cfg(panic = "unwind")]
    ("catch unwind", panics::inside_catch_unwind),
    #[cfg(panic = "unwind")]
    ("unwinding", panics::while_unwinding),
];
