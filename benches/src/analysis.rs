//! What `cargo xtask bench core` analyses, and what it measures.
//!
//! A [`Plan`] says which blocks live: how many from which of the [`shape`]'s call sites, of which
//! sizes, in which order, in an old and in a new state. Two programs follow it,
//! `configurations/core_analysis` under memtrace and `core_tracemalloc.py` under CPython's
//! tracemalloc, and print [`Figures`] as a line of JSON.

mod figures;
mod plan;
pub mod shape;

pub use figures::{Beside, BesideFigures, Figures, Millis};
pub use plan::{N_SITES, Plan, Planned, State, Sum};
