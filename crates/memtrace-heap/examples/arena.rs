//! A heap as a value: what a phase of a program allocates is given back at once when it ends.
//!
//! ```text
//! cargo run -p memtrace-heap --example arena
//! ```
//!
//! A tree is made in a heap of its own, node by node, and never taken apart: dropping the heap unmaps
//! all of it. The program's other allocations are not concerned.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;
use std::time::Instant;

use memtrace_heap::{Config, Heap};

/// A tree whose nodes live in a heap that it owns.
struct Tree {
    heap: Heap,
    root: Option<NonNull<Node>>,
}

struct Node {
    key: u64,
    children: [Option<NonNull<Node>>; 2],
}

impl Tree {
    fn new() -> Tree {
        Tree { heap: Heap::new(Config::new()), root: None }
    }

    /// Adds `key`, unless it is there; whether it was added.
    fn insert(&mut self, key: u64) -> bool {
        let mut link = &mut self.root;
        while let Some(mut node) = *link {
            // SAFETY: nodes live as long as the heap, which the tree owns and borrows mutably here.
            let node = unsafe { node.as_mut() };
            if node.key == key {
                return false;
            }
            link = &mut node.children[usize::from(key > node.key)];
        }
        // SAFETY: the size of a node is not zero.
        let block = unsafe { self.heap.alloc(Layout::new::<Node>()) };
        let node = NonNull::new(block.cast::<Node>()).expect("there is memory for a node");
        // SAFETY: a block just taken for a node, which is aligned and nobody else's.
        unsafe { node.write(Node { key, children: [None; 2] }) };
        *link = Some(node);
        true
    }

    fn n_nodes(&self) -> usize {
        self.heap.stats().n_blocks_used()
    }
}

fn main() {
    let mut tree = Tree::new();
    let mut key = 1u64;
    let began = Instant::now();
    for _ in 0..300_000 {
        key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tree.insert(key >> 20);
    }
    println!("{} nodes inserted in {:?}", tree.n_nodes(), began.elapsed());

    let stats = tree.heap.stats();
    println!("{} bytes requested, {} mapped", stats.requested_bytes(), stats.mapped_bytes());
    for arena in tree.heap.map().arenas() {
        let percent = 100 * arena.used_bytes() / arena.n_bytes();
        println!("  arena {} at {:#x}: {percent} % in use", arena.number, arena.base_addr);
    }

    let began = Instant::now();
    drop(tree);
    println!("dropped in {:?}, without a visit to any node", began.elapsed());
}
