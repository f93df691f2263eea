//! Every interleaving of a few threads that record and release blocks of a page while it grows, is scanned,
//! swept, or loses its array.
//!
//! # What is real here
//! `page_shadow.rs` and what it consists of, the words, lines and arrays of a page, the cells of sampled
//! pages, the leaf lock and the slots of threads, are compiled as they stand, over loom's atomics: in this crate `core` is the crate
//! itself. What they name of the rest is in [`records`], reduced to what they touch: a directory of four
//! pages, and arrays that are handed out one after another. What the hook and `stop` do around the table is
//! written once more in [`sweeps`], in a few lines.
//!
//! # What is shown
//! Whatever the order of the steps, and whatever of the allowed values each load returned: a block is taken
//! exactly once, and found as long as it is live and no longer; what is recorded is there afterwards, once,
//! and never takes a trace for one given back unseen; a scan visits what is live throughout, once, and nothing
//! that was released before; nothing is left after `stop`; and nobody looks at an array that is used again. No
//! release of a sampled block is let go.
//!
//! Each kind of model has twins with a mistake ([`mistakes`]), which must fail.
//!
//! # Limits
//! Two or three threads; lines of two words, so that a page grows after two blocks. Loom has no order of all
//! `SeqCst` accesses, only of fences; so here one is an access with a `SeqCst` fence after it (a write) or
//! before it (a read), which orders more than the language promises where others are weaker. All runs
//! are explored with at most as many preemptions as each model says.
//!
//! No signal handler interrupts an operation. A fence that all threads pass at once cannot be had; here the
//! compiler fences that it goes with are full ones, and it is one itself: that this comes to the same is the
//! system's promise. Threads hold their slots from the beginning, and arrays are zero from the beginning: that
//! their zeros are published is not shown.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p memtrace-alloc --release --test loom`; without the flag
//! there is nothing here.
#![cfg(loom)]
#![deny(unsafe_code)]

// So that the crate's sources find loom's atomics where they look for those of the language.
extern crate self as core;
pub use std::{cell, ops, ptr};
#[path = "atomics.rs"]
#[allow(missing_docs, reason = "public only so that paths of `core` lead here")]
pub mod sync;
#[allow(missing_docs, reason = "as above")]
pub mod hint {
    pub use loom::hint::spin_loop;
}

mod mistakes;
mod records;

#[allow(dead_code, unreachable_pub, reason = "part of it is used")]
#[path = "../../src"]
mod real {
    pub(crate) mod live;
    pub(crate) mod lock;
    pub(crate) mod operation;
    pub(crate) mod page_array;
    pub(crate) mod page_line;
    pub(crate) mod page_shadow;
    pub(crate) mod page_word;
    pub(crate) mod sampled_pages;
    pub(crate) mod thread_slot;
}

// Where those look for each other, and for the rest.
use mistakes as page_array;
use real::{live, lock, operation, page_line, page_shadow, page_word, sampled_pages, thread_slot};
use records::{
    array_memory, flat_shadow, mapped, membarrier, pace, page_directory, segments, site, thread,
};

mod arrays;
mod growth;
mod samples;
mod scans;
mod setting;
mod sweeps;
