//! CPython's small-object heap, reproduced exactly: every block at the place where CPython 3.6 to
//! 3.13 puts it.
//!
//! # What it is for
//! A [`PythonHeap`] over [`NoMemory`](crate::NoMemory) is a model: fed with the sizes and frees of a
//! trace it tells what the heap of a version makes of them, in arenas, pools and bytes lost, and
//! which version keeps fewer arenas, without a byte of memory for blocks. Over
//! [`SystemPages`](crate::SystemPages) its blocks are real. The text of its figures is that of
//! `sys._debugmallocstats()`.
//!
//! ```
//! use memtrace_heap::NoMemory;
//! use memtrace_heap::python::{PythonHeap, Version};
//!
//! // Half a million bytes of floats, then all but one in a hundred freed.
//! let mut heap = PythonHeap::new("3.9".parse::<Version>()?.profile(), NoMemory::new());
//! let floats: Vec<usize> = (0..20_000).filter_map(|_| heap.allocate(24)).collect();
//! for float in floats.iter().enumerate().filter(|(index, _)| index % 100 != 0) {
//!     heap.release(*float.1)?;
//! }
//! let stats = heap.stats();
//! assert_eq!(stats.allocated_blocks(), 200);
//! assert_eq!(stats.n_arenas, 3, "every pool still holds a block");
//! assert!(stats.fragmentation() > 0.99);
//! assert!(stats.to_string().contains("\n3 arenas * 262144 bytes/arena      =              786,432\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Mechanism
//! [`Version::profile`] names the constants. A request of 1 to 512 bytes takes a block of its class
//! from the first pool of that class with room, last freed first; else from a new pool of the fullest
//! arena that has one; else from a new arena. The rules stand where they are applied: blocks in
//! `pool`, pools in `arena`, arenas in `arenas`, classes in `small`, resizing in `heap`.
//!
//! All records are outside of the blocks, so what is freed twice, or is no block, is seen and
//! reported as [`InvalidFree`] and changes nothing.
//!
//! # Invariants
//! Each part's stand in its module; [`PythonHeap::verify`] recounts them all.
//!
//! # Cost
//! A hash look-up and a division for a release, neither for most allocations: about 25 ns for a small
//! block taken and given back again and again, 60 ns for one of 200,000 of all sizes picked at
//! random, on a 2-core x86_64 Linux machine with other work running. Records take an eighth of the
//! arenas. Blocks outside of the pools cost a hash operation and, with memory, system calls.
//!
//! # Limits
//! 64-bit builds with the interpreter's lock. What stands above the heap is not modelled: free lists
//! of types, headers of the garbage collector, and what decides when objects are freed. Blocks
//! outside of the pools are counted and never placed as the C library would.

mod profile;

mod heap;
mod raw;
mod small;

mod arena;
mod arenas;
mod map;
mod pool;

mod memory;

mod error;
mod stats;
mod verify;
mod view;

pub use error::{InvalidFree, Violation};
pub use heap::{Place, PythonHeap};
pub use profile::{
    ALIGNMENT, N_CLASSES, POOL_HEADER, POOLS_PER_ARENA, Profile, THRESHOLD, UnknownVersion, Version,
};
pub(crate) use view::Places;

pub use stats::{PythonClassStats, PythonParts, PythonStats};
