//! Eight threads on one heap, freeing each other's blocks.

mod common;

use std::alloc::{GlobalAlloc, Layout};
use std::sync::mpsc;
use std::thread;

use common::CheckedPages;
use memtrace_heap::Heap;

const N_THREADS: usize = 8;
const N_ROUNDS: usize = 4000;

/// A block on its way to the thread that frees it.
struct Parcel {
    ptr: *mut u8,
    layout: Layout,
    fill: u8,
}

// SAFETY: a block belongs to whoever holds its parcel.
unsafe impl Send for Parcel {}

fn next_random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state as usize
}

fn make(heap: &Heap<&CheckedPages>, random: &mut u64) -> Parcel {
    let number = next_random(random);
    let size = match number % 64 {
        0 => 33_000 + number / 64 % 100_000,
        1..8 => 1 + number / 64 % 30_000,
        _ => 1 + number / 64 % 500,
    };
    let layout = Layout::from_size_align(size, 1 << (number % 7)).unwrap();
    let fill = number as u8;
    // SAFETY: the size is not zero.
    let ptr = unsafe { heap.alloc(layout) };
    assert!(!ptr.is_null());
    // SAFETY: a live block of this size.
    unsafe { ptr.write_bytes(fill, size) };
    Parcel { ptr, layout, fill }
}

fn resize(heap: &Heap<&CheckedPages>, parcel: &mut Parcel, random: &mut u64) {
    let new_size = 1 + next_random(random) % (2 * parcel.layout.size());
    // SAFETY: a live block with its layout; the new size is not zero.
    let ptr = unsafe { heap.realloc(parcel.ptr, parcel.layout, new_size) };
    assert!(!ptr.is_null());
    // SAFETY: a live block of this size.
    unsafe { ptr.write_bytes(parcel.fill, new_size) };
    parcel.ptr = ptr;
    parcel.layout = Layout::from_size_align(new_size, parcel.layout.align()).unwrap();
}

fn free(heap: &Heap<&CheckedPages>, parcel: Parcel) {
    // SAFETY: a live block, all written by its maker.
    let bytes = unsafe { std::slice::from_raw_parts(parcel.ptr, parcel.layout.size()) };
    assert!(bytes.iter().all(|&byte| byte == parcel.fill), "someone else wrote here");
    // SAFETY: a live block with its layout.
    unsafe { heap.dealloc(parcel.ptr, parcel.layout) };
}

#[test]
fn eight_threads_freeing_each_others_blocks_leave_nothing() {
    let pages = CheckedPages::default();
    let heap = Heap::with_pages(memtrace_heap::Config::new(), &pages);
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..N_THREADS).map(|_| mpsc::channel::<Parcel>()).unzip();
    thread::scope(|scope| {
        for (index, inbox) in receivers.into_iter().enumerate() {
            let (heap, senders) = (&heap, senders.clone());
            scope.spawn(move || {
                let mut random = 0x9e37_79b9 + index as u64;
                for round in 0..N_ROUNDS {
                    let mut parcel = make(heap, &mut random);
                    if round % 3 == 0 {
                        resize(heap, &mut parcel, &mut random);
                    }
                    let to = next_random(&mut random) % N_THREADS;
                    if let Err(unsent) = senders[to].send(parcel) {
                        free(heap, unsent.0);
                    }
                    inbox.try_iter().take(2).for_each(|parcel| free(heap, parcel));
                    if round % 1000 == 0 {
                        assert_eq!(heap.verify(), Ok(()));
                    }
                }
                drop(senders);
                inbox.into_iter().for_each(|parcel| free(heap, parcel));
            });
        }
        drop(senders);
    });
    let stats = heap.stats();
    assert_eq!(heap.verify(), Ok(()));
    assert_eq!((stats.n_blocks_used(), stats.requested_bytes()), (0, 0));
    assert_eq!(stats.mappings.mapped_bytes, 0);
    assert_eq!(stats.invalid_frees.n_total(), 0);
    assert_eq!(stats.mapped_bytes(), pages.n_mapped_bytes());
    let n_total: u64 = stats.classes.iter().map(|class| class.n_blocks_total).sum();
    assert!(n_total + stats.mappings.n_total >= (N_THREADS * N_ROUNDS) as u64);
    drop(heap);
    assert_eq!(pages.n_mapped_bytes(), 0);
}

#[test]
fn threads_that_race_to_use_a_heap_first_share_one() {
    for _ in 0..200 {
        let pages = CheckedPages::default();
        let heap = Heap::with_pages(memtrace_heap::Config::new(), &pages);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| make(&heap, &mut 7));
            }
        });
        assert_eq!(heap.stats().n_blocks_used(), 4);
        assert_eq!(heap.stats().mapped_bytes(), pages.n_mapped_bytes());
        drop(heap);
        assert_eq!(pages.n_mapped_bytes(), 0);
    }
}
