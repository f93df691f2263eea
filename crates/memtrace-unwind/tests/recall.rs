//! Stacks that come again are recalled, however many there are and whatever order they come in.
#![cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]

use memtrace_unwind::{End, SiteCache, Sites, StackBounds, StackHash};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::thread;

const N_FRAMES: usize = 25;

/// Numbers of stacks.
#[derive(Default)]
struct Table(RefCell<HashMap<StackHash, NonZeroU32>>);

impl Sites for Table {
    fn find(&self, hash: StackHash) -> Option<NonZeroU32> {
        self.0.borrow().get(&hash).copied()
    }

    fn insert(&self, hash: StackHash, _: &[u64], _: End) -> Option<NonZeroU32> {
        let mut numbers = self.0.borrow_mut();
        let next = NonZeroU32::new(u32::try_from(numbers.len()).unwrap() + 1).unwrap();
        Some(*numbers.entry(hash).or_insert(next))
    }
}

struct Captures {
    cache: SiteCache,
    stack: StackBounds,
    limit: usize,
    table: Table,
}

impl Captures {
    fn new(limit: usize) -> Self {
        let (cache, stack) = (SiteCache::new(), StackBounds::current());
        Self { cache, stack, limit, table: Table::default() }
    }
}

/// Captures with a frame of some size, and so with a stack pointer of its own.
#[inline(never)]
fn capture<const N_WORDS: usize>(captures: &mut Captures) {
    black_box(&mut [0u64; N_WORDS]);
    let limit = captures.limit;
    black_box(captures.cache.site_of_caller(&captures.stack, limit, &captures.table));
}

/// Captures below so many calls, of which each bit of `which` tells from where it was made: as many stacks, in eighths
/// that begin alike.
#[inline(never)]
fn descend(captures: &mut Captures, n_calls: u32, which: u32) {
    if n_calls == 3 {
        let captures_by = [
            capture::<2>,
            capture::<10>,
            capture::<20>,
            capture::<30>,
            capture::<40>,
            capture::<50>,
            capture::<60>,
            capture::<70>,
        ];
        captures_by[which as usize % 8](captures);
    } else {
        // Functions of their own: of two like calls in one, a compiler makes one.
        let by: [fn(&mut Captures, u32, u32); 2] = [descend_by::<0>, descend_by::<1>];
        by[which as usize % 2](captures, n_calls - 1, which >> 1);
    }
}

#[inline(never)]
fn descend_by<const WHICH: u32>(captures: &mut Captures, n_calls: u32, which: u32) {
    descend(captures, n_calls, which);
    black_box(WHICH);
}

/// Numbers that a small generator says.
fn numbers(mut state: u64) -> impl FnMut(u32) -> u32 {
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((u64::from((state >> 32) as u32) * u64::from(below)) >> 32) as u32
    }
}

/// Which part of the captures is recalled once it has been seen what comes, of `n_stacks` in an `order`.
fn recalled(n_stacks: u32, n_captures: u32, mut order: impl FnMut(u32) -> u32 + Send) -> f64 {
    let count = || {
        let mut captures = Captures::new(N_FRAMES);
        let n_before = 20_000 + 40 * n_stacks;
        let mut n_hits_before = 0;
        // All from one place, so that there are no other stacks.
        for i in 0..n_before + n_captures {
            if i == n_before {
                n_hits_before = captures.cache.counts().n_hits;
            }
            descend(&mut captures, 10, order(i));
        }
        let n_hits = captures.cache.counts().n_hits - n_hits_before;
        assert_eq!(captures.table.0.borrow().len(), n_stacks as usize);
        n_hits as f64 / f64::from(n_captures)
    };
    thread::scope(|scope| scope.spawn(count).join().unwrap())
}

#[test]
fn stacks_that_come_again_in_order_are_recalled_however_many_there_are() {
    for n_stacks in [1, 8, 60, 300, 700] {
        let part = recalled(n_stacks, 20_000, |i| i % n_stacks);
        println!("{n_stacks} in order: {part:.4} recalled");
        assert!(part > 0.85, "{n_stacks}: {part}");
    }
}

#[test]
fn stacks_that_come_again_at_random_are_recalled_however_many_there_are() {
    for n_stacks in [8, 60, 300, 700] {
        let mut random = numbers(n_stacks.into());
        // Each once at least.
        let part = recalled(n_stacks, 20_000, |i| if i < n_stacks { i } else { random(n_stacks) });
        println!("{n_stacks} at random: {part:.4} recalled");
        assert!(part > 0.85, "{n_stacks}: {part}");
    }
}

#[test]
fn a_stack_of_one_frame_is_recalled_wherever_it_is_on_the_stack() {
    let count = || {
        let mut captures = Captures::new(1);
        for i in 0..10_000 {
            descend(&mut captures, 3 + i % 50, 0);
        }
        assert_eq!(captures.table.0.borrow().len(), 1, "all from one place");
        (captures.cache.counts().n_hits, captures.cache.memory())
    };
    let (n_hits, n_bytes) = thread::scope(|scope| scope.spawn(count).join().unwrap());
    assert!(n_hits > 9900, "{n_hits}");
    assert_eq!(n_bytes, 8 << 10);
}

/// Captures from one place, and returns how often that was recalled.
fn hits(captures: &mut Captures, n_captures: u32) -> u64 {
    let n_before = captures.cache.counts().n_hits;
    (0..n_captures).for_each(|_| capture::<2>(captures));
    captures.cache.counts().n_hits - n_before
}

#[test]
fn a_thread_that_is_asked_for_more_frames_or_fewer_goes_on_with_memory() {
    let check = || {
        let mut captures = Captures::new(1);
        for (n, limit) in [1, N_FRAMES, 1, N_FRAMES, 1].into_iter().enumerate() {
            captures.limit = limit;
            // An odd number: memory is asked for at powers of two.
            let n_hits = hits(&mut captures, 1111);
            assert!(n_hits > 1000, "{n}: {n_hits}");
            let n_bytes = captures.cache.memory();
            assert_eq!(n_bytes, if limit == 1 { 8 << 10 } else { 24 << 10 }, "{n}");
        }
    };
    thread::scope(|scope| scope.spawn(check).join().unwrap());
}

#[test]
fn what_is_forgotten_is_not_recalled_and_is_learned_again() {
    let check = || {
        for limit in [1, N_FRAMES] {
            let mut captures = Captures::new(limit);
            let mut n_hits = Vec::new();
            // All from one place, so that the stack is one.
            for n_captures in [1000, 1, 1, 1000] {
                n_hits.push(hits(&mut captures, n_captures));
                if n_hits.len() == 2 {
                    captures.cache.forget();
                }
            }
            assert!(n_hits[0] > 900 && n_hits[3] > 990, "{limit}: {n_hits:?}");
            assert_eq!(n_hits[1..3], [1, 0], "{limit}");
        }
    };
    thread::scope(|scope| scope.spawn(check).join().unwrap());
}
