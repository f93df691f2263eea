//! The calling stack as call addresses, without allocating and without frame pointers.
//!
//! ```
//! let stack = memtrace_unwind::StackBounds::current();
//! let mut call_addrs = [0; 25];
//! let walk = memtrace_unwind::capture(&stack, &mut call_addrs);
//! assert!(walk.len > 1);
//! ```
//!
//! A default release build of a Rust program has no frame pointers, but every function in it has an
//! entry in `.eh_frame`, because a panic must be able to unwind through it. The entry says where the
//! caller's frame begins and where the return address is stored. This crate reads those entries in
//! place, turns each into a one-word [`Rule`], keeps the rule in a process-wide table, and follows
//! rules from frame to frame. A function that does keep a frame pointer has a rule that says so, and
//! is walked by it: frame pointers are a property of each function, never a mode of the build.
//!
//! The path of one capture, in the order of the modules below:
//!
//! 1. [`capture`] takes the caller's registers,
//! 2. [`StackBounds`] says which memory may be read,
//! 3. [`plain::walk`] asks for the [`Rule`] of each address and steps outward,
//! 4. the table answers from memory, or, for an address seen for the first time,
//! 5. finds the loaded object that holds the address and interprets its unwind tables.
//!
//! # What is promised
//!
//! - Nothing here allocates, panics, or takes a lock that other code may hold. (One exception: before
//!   glibc 2.35, an address seen for the first time is looked up with `dl_iterate_phdr`, which takes
//!   the loader's lock.)
//! - A stack that could not be followed to its outermost frame is marked [`End::Truncated`], never
//!   passed off as complete.
//! - A *call address* lies inside the calling instruction (return address − 1) or, below a signal
//!   frame, is the interrupted instruction itself: it can be given to a symbolizer as it stands.
//!
//! # Targets
//!
//! x86_64 Linux is walked as described. Every other target is walked by the `backtrace` crate behind
//! the same functions; that walker can be built here too, with the feature `portable`, and be put in
//! the place of the native one with `--cfg memtrace_portable` in `RUSTFLAGS`, which stands for another
//! target. The same crate is the oracle of the tests.
//!
//! # Limits
//!
//! Code registered at run time (a JIT's) is known where libgcc is a library of its own and was told of
//! it; stacks that reach it through libgcc are truncated there. When a library is unloaded and other
//! code is loaded at the same address, [`forget_unloaded`] must be called before the rules there are
//! right again.

#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

#[cfg(all(test, target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod adversary;
mod bounds;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod cache;
#[cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable))),
    allow(dead_code, reason = "the native walker uses more of it")
)]
mod cfi;
mod counts;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod entry;
mod expression;
mod hash;
mod object;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod objects_seen;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod pages;
pub mod plain;
#[cfg(any(
    feature = "portable",
    not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))
))]
pub mod portable;
mod reach;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod records;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod registered;
#[cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable))),
    allow(dead_code, reason = "the native walker uses more of it")
)]
mod rule;
mod site;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod table;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod trail;
mod walker;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod world;

pub use bounds::StackBounds;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
pub use cache::SiteCache;
pub use cfi::UnwindTables;
pub use counts::Counts;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
pub use entry::{capture, capture_plainly, function_range, here, prepare};
pub use hash::StackHash;
pub use object::{LoadedObject, for_each_object};
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
pub use pages::{cache_memory, set_cache_budget};
#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable))))]
pub use portable::{
    SiteCache, cache_memory, capture, capture_plainly, forget_unloaded, function_range, here,
    prepare, rule_table, set_cache_budget,
};
pub use rule::{CfaBase, End, Registers, Rule, Walk};
pub use site::{N_FRAMES_ON_STACK, Sites};
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
pub use table::{forget_unloaded, rule_table};
pub use walker::walk;
