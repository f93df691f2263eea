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
mod models;
mod records;

#[allow(dead_code, unused_imports, reason = "part of it is used")]
#[path = "../../src"]
mod real {
    pub(crate) mod live;
    pub(crate) mod lock;
    pub(crate) mod page_array;
    pub(crate) mod page_line;
    pub(crate) mod page_shadow;
    pub(crate) mod page_word;
    pub(crate) mod thread_slot;
}

// Where those look for each other, and for the rest.
use mistakes as page_array;
use real::{live, lock, page_line, page_shadow, page_word, thread_slot};
use records::{
    array_memory, flat_shadow, mapped, membarrier, page_directory, segments, site, thread,
};
