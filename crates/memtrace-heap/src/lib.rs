//! A pooled heap of fixed-size blocks in pools in arenas, with exact accounting; usable alone.
//!
//! ```
//! #[global_allocator]
//! static HEAP: memtrace_heap::Heap = memtrace_heap::Heap::new();
//!
//! println!("{}", HEAP.stats());
//! ```
//!
//! # What it is for
//! A program that must explain its memory needs a heap that can say where every byte is: asked for,
//! lost to rounding, free inside a pool in use, in unused pools, in large blocks, in the heap's own
//! records. [`Heap::stats`] says so at any time, exactly, and [`Heap::verify`] recounts it from the
//! bitmaps. It is plain and has one lock: of moderate speed in one thread, not made for many that
//! allocate at once, and slow (microseconds) for blocks above 32 KiB that come and go, each being a
//! mapping.
//!
//! # How a request is served
//! 1. [`SizeClass::of`] names the block size for a layout: 16-byte steps up to 512 bytes, then four
//!    a doubling up to 32 KiB.
//! 2. The class takes the lowest free block of a **pool** with room: 64 KiB of blocks of one size.
//! 3. Without such a pool it takes an unused one from the fullest **arena** that has any: 4 MiB
//!    aligned to its size, cut into 64 pools. Without such an arena, one is mapped. Arenas that
//!    empty are given back, but for one.
//! 4. What no class serves is mapped on its own and recorded; it grows by remapping pages.
//!
//! All records live in mappings of their own, never inside blocks. A free block is a bit in its
//! pool's bitmap; so a double free, a foreign or a misaligned pointer is seen, counted in
//! [`InvalidFrees`] and ignored.
//!
//! # Accounting
//! Requested bytes are taken from the layouts that `GlobalAlloc` hands over at both ends of a
//! block's life; blocks in pools do not record their size. The contract of `GlobalAlloc` makes both
//! layouts equal. A free with a layout of another class, or another size of a large block, is
//! refused and counted; one that errs within a class shifts that class's requested bytes and no
//! other figure.
//!
//! # Python's heap
//! [`python`] is another heap over the same page sources: CPython's, placement for placement.
//!
//! # Limits
//! Unix only. A signal handler that allocates can meet its own thread holding the lock and wait for
//! ever. A child made by a bare `clone` system call, which runs no fork handlers, must not allocate.
//! Pages of free blocks and of unused pools stay in memory until their arena is given back.
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

mod heap;

mod class;
mod classes;

mod arenas;
mod pool;

mod mappings;

mod list;
mod mapped;
mod pages;
mod table;

mod fork;
mod lock;

mod state;
mod stats;
mod violation;

pub mod python;

pub use arenas::{ARENA_SIZE, POOLS_PER_ARENA};
pub use class::{MAX_BLOCK_SIZE, N_CLASSES, SizeClass};
pub use heap::Heap;
pub use pages::{NoMemory, PAGE_SIZE, PageSource, SystemPages};
pub use pool::POOL_SIZE;
pub use stats::{ArenaStats, ClassStats, HeapStats, InvalidFrees, MappingStats};
pub use violation::Violation;
