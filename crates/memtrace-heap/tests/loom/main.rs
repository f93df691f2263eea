//! Every interleaving of a few threads that free blocks of one pool while its owner collects, goes
//! idle, is taken over, or loses the pool to another.
//!
//! # What is real here
//! `remote.rs`, `owners.rs` and `cells.rs` are compiled as they stand, over loom's atomics: in this
//! crate `core` is the crate itself, and what they name of the rest of the heap is in [`records`],
//! reduced to what they touch. The few lines of `shared.rs` and `large.rs` between them are written
//! once more in [`protocol`], step by step under the names of the originals, because the originals
//! need arenas and pages; that is where mistakes are put in.
//!
//! # What is shown
//! At the end of each run, whatever the order of the steps and whatever of the allowed values each load
//! returned: every block freed was collected exactly once; a pool was never in two queues; the queue
//! of an idle owner is empty; and what belongs to an owner was touched by one thread at a time, each
//! of which saw what the one before did.
//!
//! Each model has twins with a mistake, which must fail.
//!
//! # Limits
//! Two or three threads, pools of two words. Loom has no order of all `SeqCst` accesses, only of fences;
//! so here one is an access with a `SeqCst` fence after it (a write) or before it (a read). All runs are
//! explored with at most as many preemptions as each model says. `n_idle`, a hint, is not explored.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p memtrace-heap --release --test loom`; without the flag
//! there is nothing here.
#![cfg(loom)]
#![deny(unsafe_code)]

// So that the heap's sources find loom's atomics where they look for those of the language.
extern crate self as core;
pub use std::{iter, ptr};
#[path = "atomics.rs"]
#[allow(missing_docs, reason = "public only so that paths of `core` lead here")]
pub mod sync;

mod protocol;
mod records;

#[allow(dead_code, reason = "part of it is used")]
#[path = "../../src/cells.rs"]
mod cells;
#[allow(dead_code, reason = "part of it is used")]
#[path = "../../src/owners.rs"]
mod owners;
#[path = "../../src/remote.rs"]
mod remote;

// Where those look for the rest.
use records::{invalid, mapped, owner, pages, pool};

use protocol::{Heap, Mistake};
use records::owner::Owner;

/// Two blocks of one word, and one of the other.
const A: u32 = 0;
const B: u32 = 1;
const C: u32 = 64;

/// Runs `model` in every order, with `mistake` made.
fn explore(max_preemptions: usize, mistake: Mistake, model: fn(&'static Heap)) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(max_preemptions);
    builder.max_branches = 10_000;
    builder.check(move || Heap::with(mistake, model));
}

/// Starts a thread that holds no owner and frees a block.
fn free_in_thread(heap: &'static Heap, index: u32) -> loom::thread::JoinHandle<()> {
    loom::thread::spawn(move || heap.give_back_block(None, index))
}

/// An owner, held by the caller.
fn held(heap: &'static Heap) -> &'static Owner {
    heap.make_owner()
}

/// Two threads free blocks of one word while the owner collects.
fn one_word(heap: &'static Heap) {
    let owner = held(heap);
    heap.begin_pool(owner, &[A, B]);
    let threads = [free_in_thread(heap, A), free_in_thread(heap, B)];
    heap.collect_queue(owner);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    heap.collect_queue(owner);
    heap.assert_all_collected(2);
}

/// Two threads free blocks of two words while the owner collects.
fn two_words(heap: &'static Heap) {
    let owner = held(heap);
    heap.begin_pool(owner, &[A, C]);
    let threads = [free_in_thread(heap, A), free_in_thread(heap, C)];
    heap.collect_queue(owner);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    heap.collect_queue(owner);
    heap.assert_all_collected(2);
}

/// A thread frees while the owner's thread ends. Nobody collects afterwards.
fn going_idle(heap: &'static Heap) {
    let owner = held(heap);
    heap.begin_pool(owner, &[A, B]);
    let thread = free_in_thread(heap, A);
    heap.let_go(owner);
    thread.join().unwrap();
    heap.assert_all_collected(1);
}

/// The same with two threads that free.
fn going_idle_with_two(heap: &'static Heap) {
    let owner = held(heap);
    heap.begin_pool(owner, &[A, B]);
    let threads = [free_in_thread(heap, A), free_in_thread(heap, B)];
    heap.let_go(owner);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    heap.assert_all_collected(2);
}

/// A thread frees at an idle owner while another takes that over, works, and lets it go.
fn taken_over(heap: &'static Heap) {
    let owner = held(heap);
    heap.begin_pool(owner, &[A, B]);
    heap.let_go(owner);
    let thread = free_in_thread(heap, A);
    if let Some(owner) = heap.owners.take_idle() {
        heap.give_back_block(Some(owner), B);
        heap.let_go(owner);
    } else {
        // The other thread holds it.
        heap.give_back_block(None, B);
    }
    thread.join().unwrap();
    heap.assert_all_collected(2);
}

/// The pool ends as its last blocks are collected, and is begun again by another owner, while the
/// threads that freed them may be anywhere behind setting their bits; and a block of the second life
/// is freed, too.
fn begun_again(heap: &'static Heap) {
    let (first, second) = (held(heap), held(heap));
    heap.begin_pool(first, &[A, C]);
    let threads = [free_in_thread(heap, A), free_in_thread(heap, C)];
    heap.collect_queue(first);
    let is_begun_again = heap.is_pool_unused();
    if is_begun_again {
        heap.begin_pool(second, &[B]);
        heap.give_back_block(Some(first), B);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    heap.collect_queue(first);
    heap.collect_queue(second);
    heap.assert_all_collected(if is_begun_again { 3 } else { 2 });
}

/// The same, where the other owner is idle when the block of the second life is freed.
fn begun_again_by_one_that_went_idle(heap: &'static Heap) {
    let (first, second) = (held(heap), held(heap));
    heap.begin_pool(first, &[A, C]);
    let threads = [free_in_thread(heap, A), free_in_thread(heap, C)];
    heap.collect_queue(first);
    let is_begun_again = heap.is_pool_unused();
    if is_begun_again {
        heap.begin_pool(second, &[B]);
        heap.let_go(second);
        heap.give_back_block(Some(first), B);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    heap.let_go(first);
    heap.assert_all_collected(if is_begun_again { 3 } else { 2 });
}

/// A model as it should be.
macro_rules! holds {
    ($name:ident: $model:ident, $bound:expr) => {
        #[test]
        fn $name() {
            explore($bound, Mistake::None, $model);
        }
    };
}

/// Its twin.
macro_rules! fails {
    ($name:ident: $model:ident, $bound:expr, $mistake:ident, $message:literal) => {
        #[test]
        #[should_panic(expected = $message)]
        fn $name() {
            explore($bound, Mistake::$mistake, $model);
        }
    };
}

holds!(frees_in_one_word_are_collected_once: one_word, 5);
holds!(frees_in_two_words_are_collected_once: two_words, 5);
holds!(an_owner_let_go_leaves_nothing_in_its_queue: going_idle, 8);
holds!(an_owner_let_go_amid_two_frees_leaves_nothing_in_its_queue: going_idle_with_two, 3);
holds!(an_idle_owner_is_woken_or_taken_over: taken_over, 5);
holds!(a_pool_begun_again_loses_no_free: begun_again, 4);
holds!(a_pool_begun_again_by_an_idle_owner_loses_no_free: begun_again_by_one_that_went_idle, 4);

fails!(collecting_before_dequeuing_loses_a_free: two_words, 5, CollectBeforeDequeue, "lost");
fails!(the_summary_before_the_bit_loses_a_free: one_word, 5, SummaryBeforeBit, "lost");
fails!(queuing_without_asking_puts_a_pool_into_two_queues: two_words, 5, QueueUnasked, "two queues");
fails!(letting_go_without_looking_again_loses_a_free: going_idle, 8, LetGoBlindly, "lost");
fails!(looking_before_pushing_loses_a_free: going_idle, 8, LookBeforePush, "lost");
fails!(weaker_orders_than_sequential_consistency_lose_a_free: going_idle, 8, NoSeqCst, "lost");
fails!(relaxed_orders_hand_over_nothing: taken_over, 5, AllRelaxed, "");
fails!(relaxed_orders_lose_or_race_where_pools_begin_again: begun_again, 4, AllRelaxed, "");
fails!(forgetting_a_pool_of_another_owner_loses_a_free: begun_again, 4, DropForeign, "lost");
