//! A program whose global allocator is the heap: real work, dying threads, and forks.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use memtrace_heap::{Heap, MAX_BLOCK_SIZE};

#[global_allocator]
static HEAP: Heap = Heap::new(memtrace_heap::Config::new());

/// The tests compare figures of the one heap of the process, so they take turns.
static TURN: Mutex<()> = Mutex::new(());

fn alone(test: impl FnOnce()) {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    test();
    assert_eq!(HEAP.verify(), Ok(()));
    assert_eq!(HEAP.stats().invalid_frees.n_total(), 0);
}

fn work(seed: usize) -> usize {
    let mut words = BTreeMap::<String, Vec<usize>>::new();
    for index in 0..2000 {
        let word = format!("{}-{}", (index * seed) % 97, "x".repeat(index % 50));
        words.entry(word).or_default().push(index);
    }
    let mut text = String::new();
    for (word, indices) in &words {
        text.push_str(word);
        text.push_str(&format!("{indices:?}"));
    }
    let by_len: HashMap<usize, String> = words.into_keys().map(|word| (word.len(), word)).collect();
    text.len() + by_len.values().map(String::len).sum::<usize>()
}

#[test]
fn real_work_in_threads_gives_the_same_results_and_returns_its_memory() {
    alone(|| {
        let expected: Vec<usize> = (1..=8).map(work).collect();
        let before = HEAP.stats();
        for _ in 0..5 {
            let results = thread::scope(|scope| {
                let threads: Vec<_> = (1..=8).map(|seed| scope.spawn(move || work(seed))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            });
            assert_eq!(results, expected);
        }
        let after = HEAP.stats();
        let n_made = |stats: memtrace_heap::HeapStats| {
            stats.classes.iter().map(|class| class.n_blocks_total).sum::<u64>()
        };
        assert!(n_made(after) > n_made(before) + 40_000);
        // The test harness prints and keeps names meanwhile; the work itself leaves nothing.
        assert!(after.requested_bytes() < before.requested_bytes() + 64 * 1024);
    });
}

#[test]
fn a_vector_through_all_sizes_is_accounted_to_the_byte() {
    alone(|| {
        let mut bytes = Vec::<u8>::new();
        while bytes.capacity() < 100 * MAX_BLOCK_SIZE {
            let old_capacity = bytes.capacity();
            bytes.reserve_exact(old_capacity / 2 + 100);
            bytes.resize(bytes.capacity(), bytes.len() as u8);
        }
        let with_it = HEAP.stats().runs;
        let capacity = bytes.capacity();
        drop(bytes);
        let without_it = HEAP.stats().runs;
        assert_eq!(with_it.requested_bytes - without_it.requested_bytes, capacity);
        assert_eq!(with_it.n_current - without_it.n_current, 1);
    });
}

#[test]
fn destructors_of_dying_threads_may_allocate() {
    struct Last(Vec<u8>);
    impl Drop for Last {
        fn drop(&mut self) {
            let more: Vec<String> = (0..50).map(|index| format!("{index} {:?}", self.0)).collect();
            assert_eq!(more.len(), 50);
        }
    }
    thread_local!(static LAST: RefCell<Option<Last>> = const { RefCell::new(None) });
    alone(|| {
        for round in 0..300 {
            let thread = thread::spawn(move || LAST.set(Some(Last(vec![round as u8; 10]))));
            thread.join().unwrap();
        }
    });
}

/// What a forked child does; its exit status is its result.
fn child_works() -> bool {
    let results: Vec<usize> = (1..4).map(work).collect();
    let larger = vec![1u8; 1 << 20];
    HEAP.verify().is_ok() && results.iter().all(|&len| len > 0) && larger[1 << 19] == 1
}

/// Waits for `child`, but not for ever: a child that hangs on a lock is the failure to find.
fn wait_for(child: libc::pid_t) -> Option<libc::c_int> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let mut status = 0;
        // SAFETY: `status` is writable.
        if unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == child {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: a child of this process, not waited for yet.
    unsafe { libc::kill(child, libc::SIGKILL) };
    None
}

#[test]
fn children_forked_while_threads_allocate_can_allocate() {
    alone(|| {
        let is_over = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (1..=3)
            .map(|seed| {
                let is_over = Arc::clone(&is_over);
                thread::spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        work(seed);
                    }
                })
            })
            .collect();
        for round in 0..60 {
            // SAFETY: the child only allocates and leaves without running destructors.
            let child = unsafe { libc::fork() };
            assert!(child >= 0);
            if child == 0 {
                let status = if child_works() { 7 } else { 1 };
                // SAFETY: no preconditions.
                unsafe { libc::_exit(status) };
            }
            let status = wait_for(child).unwrap_or_else(|| panic!("child {round} hangs"));
            assert!(libc::WIFEXITED(status), "child {round}: status {status:#x}");
            assert_eq!(libc::WEXITSTATUS(status), 7, "child {round}");
        }
        is_over.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(HEAP.stats().is_fork_safe);
    });
}

/// A fork handler that allocates from the global heap.
extern "C" fn allocating_handler() {
    let words: Vec<String> = (0..100).map(|index| index.to_string()).collect();
    assert_eq!(words.concat().len(), 190);
}

/// A fork handler that makes a heap of its own and ends it.
extern "C" fn heap_making_handler() {
    let heap = Heap::new(memtrace_heap::Config::new());
    let layout = Layout::new::<[u8; 100]>();
    // SAFETY: the size is not zero.
    let ptr = unsafe { heap.alloc(layout) };
    assert!(!ptr.is_null());
    assert_eq!(heap.verify(), Ok(()));
}

extern "C" fn install_handlers() {
    for handler in [allocating_handler, heap_making_handler] {
        let handler: unsafe extern "C" fn() = handler;
        // SAFETY: the handlers are functions of this program.
        let error = unsafe { libc::pthread_atfork(Some(handler), Some(handler), Some(handler)) };
        assert_eq!(error, 0);
    }
}

/// Runs before anything has allocated, so that these handlers are older than the heap's: their
/// `prepare` runs while the heap's locks are held already, and their `parent` and `child` while
/// they still are.
#[cfg(target_os = "linux")]
#[used]
// SAFETY: the section holds pointers to functions without arguments that the loader calls.
#[unsafe(link_section = ".init_array")]
static INSTALL_HANDLERS: extern "C" fn() = install_handlers;

#[test]
fn fork_handlers_older_and_younger_than_the_heap_may_allocate_and_make_heaps() {
    alone(|| {
        // The younger ones.
        install_handlers();
        for _ in 0..5 {
            // SAFETY: the child only allocates and leaves without running destructors.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let status = if child_works() { 7 } else { 1 };
                // SAFETY: no preconditions.
                unsafe { libc::_exit(status) };
            }
            let status = wait_for(child).expect("the child hangs");
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7);
        }
    });
}
