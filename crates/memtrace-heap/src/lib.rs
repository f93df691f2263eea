//! A pooled heap of fixed-size blocks in pools in arenas, with exact accounting; usable alone.
//!
//! ```
//! #[global_allocator]
//! static HEAP: memtrace_heap::Heap = memtrace_heap::Heap::new(memtrace_heap::Config::new());
//!
//! println!("{}", HEAP.stats());
//! ```
//!
//! # What it is for
//! A program that must explain its memory needs a heap that can say where every byte is: asked for,
//! lost to rounding, free inside a pool in use, in unused units, in large blocks, in the heap's own
//! records. [`Heap::stats`] says so at any time, [`Heap::verify`] recounts it from the bitmaps, and
//! [`Heap::residence`] tells how much of each is in memory.
//!
//! Three uses of one code:
//! - as the global allocator, or any [`GlobalAlloc`](core::alloc::GlobalAlloc), over the system's pages;
//! - as a value with a life of its own: when a [`Heap`] is dropped, all its blocks are unmapped at once;
//! - over [`NoMemory`], as a [`Model`] that is fed with sizes and frees, and says what a heap would look
//!   like.
//!
//! # How a request is served
//! 1. [`SizeClass::of`] names the block size for a layout: 16-byte steps up to 512 bytes, then eight
//!    a doubling up to 64 KiB.
//! 2. The thread takes a free block from a **pool** of its own: a unit of 64 KiB, or eight, of blocks
//!    of one size. This needs no lock and no atomic operation, and touches one cache line.
//! 3. Without such a pool it takes an unused unit from the **arena** in which it leaves the least:
//!    4 MiB aligned to its size, cut into 64 units. Without such an arena, one is mapped.
//! 4. Blocks above 64 KiB take neighbouring units; from 2 MiB on, those of big arenas of 32 MiB.
//! 5. What is larger than that is mapped on its own and recorded; it grows by remapping pages.
//!
//! A thread that frees a block of another's pool sets a bit, with one atomic operation, which the
//! owner collects. When a thread ends, the next takes over what it owned.
//!
//! All records live in mappings of their own, never inside blocks. A free block is a bit in its
//! pool's bitmap; so a double free, a foreign or a misaligned pointer is seen, counted in
//! [`InvalidFrees`] and ignored, in every build. What is not seen: a block freed twice whose place has been
//! handed out again in between. When two threads free one block at the very same moment, that is
//! seen when the bits are collected, unless the block has been handed out again by then; if it is, the
//! class's requested bytes may be off by less than the difference between two classes.
//!
//! # Memory that is not needed
//! goes back to the system when there is more of it than a program's recent past suggests that it will
//! use again: see [`Purge`]. That happens as units are taken and given back; a program that does
//! nothing at all after a peak can call [`Heap::purge`].
//!
//! # Cost
//! A small block taken and given back by one thread: 7.5 ns where glibc takes 10, with all checks and
//! figures. A block of another thread's pool is given back with one or two atomic operations. A block above
//! 64 KiB takes the heap's lock, one above 32 MiB a system call. Records take 16 to 76 KiB for each arena
//! of 4 MiB, the more the smaller the blocks, and 8 KiB for each thread. Measured by
//! `cargo xtask bench heap` beside three other allocators; the table is in the crate's README.
//!
//! # Accounting
//! Requested bytes are taken from the layouts that `GlobalAlloc` hands over at both ends of a
//! block's life; blocks in pools do not record their size. The contract of `GlobalAlloc` makes both
//! layouts equal. A free with a layout of another class, or another size of a large block, is
//! refused and counted; one that errs within a class shifts that class's requested bytes and no
//! other figure.
//!
//! # The map
//! [`Heap::map`] tells what stands where: each arena's pools, large blocks and unused units, how many
//! blocks are in use, which unused units take memory, and whose a pool is. [`Heap::svg`] draws it, an
//! arena a row and a pool a cell, filled as far as its blocks are in use:
//!
//! ```
//! # let path = std::env::temp_dir().join(format!("memtrace-heap-{}.svg", std::process::id()));
//! # let heap = memtrace_heap::Model::new(memtrace_heap::Config::new());
//! std::fs::write(&path, heap.svg().to_string())?;
//! # std::fs::remove_file(&path)?;
//!
//! for arena in heap.map().arenas() {
//!     println!("arena at {:#x}: {} of {} bytes in use", arena.base_addr, arena.used_bytes(), arena.n_bytes());
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Neither allocates, and neither holds the heap's lock while its user is at work; so both can be used
//! on the global heap. A [`Model`] and [`python::PythonHeap`] have the same. With the feature `serde`,
//! the figures and the map can be serialised.
//!
//! # A word beside each block
//! With [`Config::block_words`] the heap keeps 64 bits of the embedder's choice for each block, outside of
//! it: [`Heap::swap_block_word`] exchanges them, [`Heap::for_each_block`] walks all blocks that have any,
//! while threads take and give back. A tracer keeps there who allocated the block.
//!
//! # Python's heap
//! [`python`] is another heap over the same page sources: CPython's, placement for placement.
//!
//! # Limits
//! Unix only. A signal handler may allocate and free: it is served by an owner of its own, and gets null
//! only if it interrupts its own thread in the heap's lock. A child made by a bare `clone` system call,
//! which runs no fork handlers, must not allocate if its parent has several threads.
#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "memtrace-heap finds blocks by 47 bits of their addresses: it needs a 64-bit target"
);

mod config;
mod heap;

mod class;
mod owner;
mod pool;
mod remote;

mod large;
mod owners;
mod shared;
mod thread;
mod usable;

mod arena;
mod arenas;
mod directory;
mod mappings;
mod pool_blocks;
mod runs;
mod word_space;
mod words;

mod cells;
mod control;
mod list;
mod mapped;
mod pages;
mod table;

mod fork;
mod lock;

mod audit;
mod invalid;
mod map;
mod residence;
mod stats;
mod svg;
mod violation;

mod model;

pub mod python;

pub use arena::{ARENA_SIZE, BIG_ARENA_SIZE, BIG_UNIT_SIZE, UNIT_SIZE, UNITS_PER_ARENA};
pub use class::{MAX_BLOCK_SIZE, N_CLASSES, SizeClass};
pub use config::{Config, Purge};
pub use heap::Heap;
pub use invalid::InvalidFrees;
pub use map::{ArenaView, ArenaViews, HeapMap, Span, SpanKind};
pub use model::Model;
pub use pages::{NoMemory, PAGE_SIZE, PageSource, SystemPages};
pub use pool_blocks::PoolBlocks;
pub use residence::Residence;
pub use runs::MAX_RUN_SIZE;
pub use stats::{ArenaStats, ClassStats, HeapStats, MappingStats, RunStats};
pub use svg::Svg;
pub use violation::Violation;
pub use words::Block;

/// So that the code in it is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
