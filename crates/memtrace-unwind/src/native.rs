//! The walker of x86_64 Linux: registers, unwind rules of this process, and what captures remember.
//!
//! In the order of a capture: **entry** takes the registers; the **cache** of the thread tries its
//! **records**, by **guesses** first, then a walk **along** its **trail**, or one that is **uncached**, by
//! **choice**; what speaks for more memory is counted as **growth**. Where **one_frame** is asked for there is a
//! shorter way. Rules come from the
//! **table**, and beyond it from loaded objects (**objects_seen** notes which) or from what was
//! **registered** at run time. Memory of caches is counted in **pages**. All of a process that a cache
//! looks at is its **world**, so that an **adversary** can take its place in tests.

#[cfg(test)]
mod adversary;
mod along;
mod cache;
mod choice;
mod entry;
mod growth;
mod guesses;
pub(crate) mod objects_seen;
mod one_frame;
mod pages;
mod record;
mod records;
pub(crate) mod registered;
mod table;
mod trail;
mod uncached;
mod world;

pub use cache::SiteCache;
pub use entry::{caller, capture, capture_plainly, function_range, here, prepare};
pub use pages::{cache_memory, set_cache_budget};
pub use table::{forget_unloaded, rule_table};
