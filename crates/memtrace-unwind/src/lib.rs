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
//! # Sites
//!
//! A tool that captures at every allocation asks not for frames but for the number of the stack, and
//! nearly always for one that it has asked for before. [`SiteCache`] answers that: it keeps, for one
//! thread, what earlier walks depended on, and if all of it still holds, the answer is known without a
//! walk. What a number stands for is the business of a table of the tool's own, [`Sites`].
//!
//! ```
//! use memtrace_unwind::{End, SiteCache, Sites, StackBounds, StackHash};
//! use std::cell::RefCell;
//! use std::collections::HashMap;
//! use std::num::NonZeroU32;
//!
//! /// Stacks by number, from 1.
//! #[derive(Default)]
//! struct Table {
//!     numbers: RefCell<HashMap<StackHash, NonZeroU32>>,
//!     stacks: RefCell<Vec<Vec<u64>>>,
//! }
//!
//! impl Sites for Table {
//!     fn find(&self, hash: StackHash) -> Option<NonZeroU32> {
//!         self.numbers.borrow().get(&hash).copied()
//!     }
//!
//!     fn insert(&self, hash: StackHash, call_addrs: &[u64], _: End) -> Option<NonZeroU32> {
//!         self.stacks.borrow_mut().push(call_addrs.to_vec());
//!         let number = NonZeroU32::new(self.stacks.borrow().len() as u32)?;
//!         self.numbers.borrow_mut().insert(hash, number);
//!         Some(number)
//!     }
//! }
//!
//! memtrace_unwind::prepare();
//! let (stack, table, mut cache) = (StackBounds::current(), Table::default(), SiteCache::new());
//! let mut sites = Vec::new();
//! for _ in 0..1000 {
//!     sites.push(cache.site_of_caller(&stack, 25, &table).unwrap());
//! }
//! assert!(sites.iter().all(|&site| site == sites[0]));
//! assert!(cache.counts().n_hits > 900);
//! println!("{:x?}", table.stacks.borrow()[sites[0].get() as usize - 1]);
//! ```
//!
//! # The path of one capture
//!
//! 1. [`here`] takes the caller's registers,
//! 2. a record of an earlier capture from the same registers holds, or
//! 3. a walk asks for the [`Rule`] of each address and steps outward, by words that [`StackBounds`]
//!    lets it read, until it meets the trail of the last walk or the end of the stack,
//! 4. the rules come from a table in memory, or, for an address seen for the first time,
//! 5. from the [`UnwindTables`] of the loaded object that holds it,
//! 6. the [`StackHash`] of the frames is looked up among the [`Sites`].
//!
//! [`walk`] is step 3 alone, over any memory and any rules; [`plain::walk`] is the same in its plainest
//! form, which all else is compared with.
//!
//! # What it costs
//!
//! At 25 frames, in a default build on one machine: 17 ns where a record holds (on real programs 17 to
//! 50, by how much they repeat themselves), 60 to 110 ns where a walk meets the trail of the last one,
//! 90 to 150 ns where all is walked, some 300 ns more for each address seen for the first time.
//! `cargo xtask bench unwind` measures it beside other unwinders. 1 MiB of address space for rules, and
//! for each thread nothing at first, then 24 KiB (8 where one frame is asked for), up to 1 MiB as its misses ask for it; 8 or 64
//! MiB where a thread does over and over again what it does by thousands, or tens of thousands, of distinct stacks: all within
//! [`set_cache_budget`].
//!
//! # What is promised
//!
//! - Nothing here allocates, panics, or takes a lock that other code may hold. (Two exceptions: before
//!   glibc 2.35, an address seen for the first time is looked up with `dl_iterate_phdr`, which takes
//!   the loader's lock; and code registered at run time is asked of libgcc, which may take its own.)
//! - A stack that could not be followed to its outermost frame is marked [`End::Truncated`], never
//!   passed off as complete.
//! - A site is that of the stack that a walk would find now, however it was found; stacks are told
//!   apart by 64 bits of hash.
//! - A *call address* lies inside the calling instruction (return address − 1) or, below a signal
//!   frame, is the interrupted instruction itself: it can be given to a symbolizer as it stands.
//!
//! # Targets
//!
//! x86_64 Linux is walked as described. Other 64-bit Linux targets are walked by the `backtrace` crate
//! behind the same functions; aarch64 is compiled, and has not been run. That walker can be built here
//! too, with the feature `portable`, and be put in the place of the native one with
//! `--cfg memtrace_portable` in `RUSTFLAGS`, which stands for another target. The same crate is the
//! oracle of the tests. 32-bit targets, macOS and Windows do not compile: the loaded objects are read as
//! 64-bit ELF.
//!
//! # Limits
//!
//! A walk carries the stack pointer and the frame pointer. Code that a signal interrupted where its
//! frame is counted from another register, as in the first and last instructions of a C function that
//! realigns its stack, cuts the stack. A coroutine resumed from a signal handler's own stack, or from
//! another coroutine's, cannot be left, either.
//!
//! Code registered at run time (a JIT's) is known where libgcc is a library of its own and was told of
//! it; stacks that reach it through libgcc are truncated there. When a library is unloaded and other
//! code is loaded at the same address, that is noticed when a new address is learned, and otherwise
//! within some thousand captures of a thread; who unloads libraries calls [`forget_unloaded`] to be sure
//! at once.

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

mod bounds;
#[cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable))),
    allow(dead_code, reason = "the native walker uses more of it")
)]
mod cfi;
mod counts;
mod expression;
#[cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable))),
    allow(dead_code, reason = "the native walker uses more of it")
)]
mod hash;
#[cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable))),
    allow(dead_code, reason = "the native walker uses more of it")
)]
mod memory;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod native;
mod object;
pub mod plain;
#[cfg(any(
    feature = "portable",
    not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))
))]
pub mod portable;
mod reach;
#[cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable))),
    allow(dead_code, reason = "the native walker uses more of it")
)]
mod rule;
mod site;
mod walker;

pub use bounds::StackBounds;
pub use cfi::UnwindTables;
pub use counts::Counts;
pub use hash::StackHash;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
pub use native::{
    SiteCache, cache_memory, caller, capture, capture_plainly, forget_unloaded, function_range,
    here, prepare, rule_table, set_cache_budget,
};
pub use object::{LoadedObject, for_each_object};
#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable))))]
pub use portable::{
    SiteCache, cache_memory, capture, capture_plainly, forget_unloaded, function_range, here,
    prepare, rule_table, set_cache_budget,
};
pub use rule::{CfaBase, End, Registers, Rule, Walk};
pub use site::{DEFAULT_CACHE_BUDGET, N_FRAMES_ON_STACK, Sites};
pub use walker::walk;
