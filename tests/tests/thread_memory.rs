//! What the recorder keeps for a thread goes when the thread ends, but for what the next ones take over.

use memtrace_alloc::{start, tracer_memory};
use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;

#[global_allocator]
static ALLOC: memtrace_alloc::Alloc = memtrace_alloc::Alloc::system();

/// Allocates `n` blocks on some hundred different stacks.
fn allocate(n: u32) {
    #[inline(never)]
    fn descend(path: u32, n_bits: u32) -> usize {
        if n_bits == 0 {
            return black_box(vec![0_u8; 40]).len();
        }
        if path & 1 == 0 {
            black_box(descend(path >> 1, n_bits - 1)) + 1
        } else {
            black_box(descend(path >> 1, n_bits - 1)) + 2
        }
    }
    for i in 0..n {
        black_box(descend(i / 4, 8));
    }
}

struct AllocatesAtItsEnd(u32);

impl Drop for AllocatesAtItsEnd {
    fn drop(&mut self) {
        allocate(self.0);
    }
}

thread_local! {
    static AT_ITS_END: RefCell<Option<AllocatesAtItsEnd>> = const { RefCell::new(None) };
}

#[test]
fn caches_of_threads_that_have_ended_do_not_add_up() {
    start(25).unwrap();
    // So that this thread's cache is as large as it gets.
    allocate(20_000);
    let of_this_thread = tracer_memory().site_caches;
    assert!(of_this_thread > 0);

    let mut most = 0;
    for i in 0..10_000 {
        let live = move || {
            // Some end with destructors that allocate, before and after the cache is given back.
            if i % 4 == 0 {
                AT_ITS_END.set(Some(AllocatesAtItsEnd(100)));
            }
            allocate(200);
            tracer_memory().site_caches
        };
        most = thread::spawn(live).join().unwrap().max(most);
    }
    assert!(most > of_this_thread, "threads have caches of their own");
    assert!(most < of_this_thread + (2 << 20), "of one thread at a time: {most} bytes");
    // What starting threads has taught this thread's own cache is within the largest that there is.
    let after = tracer_memory().site_caches;
    assert!(after <= of_this_thread.max(most), "{of_this_thread} bytes before, {after} after");
    // Starting these may teach this thread's own cache more, which then grows, once or twice; caches that
    // stayed behind would be more each time.
    let leaves_nothing = |_| {
        let before = tracer_memory().site_caches;
        look_at_living_threads(before);
        tracer_memory().site_caches == before
    };
    assert!((0..5).any(leaves_nothing), "{after} bytes, then {}", tracer_memory().site_caches);
    assert_eq!(tracer_memory().losses.n_nested, 0);
}

/// Lets threads live at once and looks at what they have.
fn look_at_living_threads(before: u64) {
    const N_THREADS: usize = 50;
    let [have_allocated, are_seen] = [(); 2].map(|()| Barrier::new(N_THREADS + 1));
    thread::scope(|scope| {
        let live = || {
            allocate(200);
            have_allocated.wait();
            are_seen.wait();
        };
        let threads: Vec<_> = (0..N_THREADS).map(|_| scope.spawn(live)).collect();
        have_allocated.wait();
        let now = tracer_memory().site_caches;
        are_seen.wait();
        assert!(now > before + N_THREADS as u64 * 4096, "{before} bytes, then {now}");
        // A scope ends when their work has, and not when their destructors have, which give the caches back.
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
