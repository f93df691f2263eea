//! What threads and handlers do: allocate, resize and give back, below calls of many kinds.
//!
//! Functions are never inlined and do something after the call, since a last call would take the
//! place of its caller.

use crate::rng::Rng;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::AcqRel};

/// Blocks that go from one thread to another, or from a handler to a thread: whoever puts one in gives
/// back what was there.
static MAILBOX: [AtomicPtr<Letter>; 64] = [const { AtomicPtr::new(ptr::null_mut()) }; 64];

type Letter = [u64; 7];

/// Paths of calls that are gone again and again: so caches have something to remember, and the table of
/// stacks does not grow with the time.
const N_PATHS: usize = 1000;

/// A thread of work, with what it keeps.
pub(crate) struct Work {
    rng: Rng,
    /// The rest of the path.
    path: Rng,
    kept: [Option<Box<[u8]>>; 64],
    texts: Vec<String>,
    names: BTreeMap<u64, Box<u64>>,
}

impl Work {
    pub(crate) fn new(seed: u64) -> Self {
        let kept = [const { None }; 64];
        Self {
            rng: Rng::new(seed),
            path: Rng::new(0),
            kept,
            texts: Vec::new(),
            names: BTreeMap::new(),
        }
    }

    /// Goes down some calls, at most `max_depth`, and allocates below.
    #[inline(never)]
    pub(crate) fn step(&mut self, max_depth: usize) {
        self.path = Rng::new(self.rng.below(N_PATHS) as u64);
        let depth = self.path.below(max_depth);
        self.descend(depth);
        black_box(self);
    }

    #[inline(never)]
    fn descend(&mut self, depth: usize) -> usize {
        let Some(rest) = depth.checked_sub(1) else { return self.leaf() };
        let done = match self.path.below(8) {
            0 => self.by_closure(&mut |work| work.descend(rest)),
            1 => self.by_sorting(rest),
            2 => by_generic([rest as u8; 24], self, rest),
            3 => by_generic(rest as u64, self, rest),
            4 => self.with_a_block_held(rest),
            5 => self.by_formatting(rest),
            _ => self.descend(rest),
        };
        black_box(done) + 1
    }

    #[inline(never)]
    fn by_closure(&mut self, f: &mut dyn FnMut(&mut Self) -> usize) -> usize {
        black_box(f(self)) + 1
    }

    #[inline(never)]
    fn by_sorting(&mut self, rest: usize) -> usize {
        let mut numbers = [3, 1, 2];
        let mut is_first = true;
        numbers.sort_by(|a, b| {
            if std::mem::take(&mut is_first) {
                black_box(self.descend(rest));
            }
            a.cmp(b)
        });
        black_box(numbers)[0]
    }

    #[inline(never)]
    fn with_a_block_held(&mut self, rest: usize) -> usize {
        let mut held = black_box(vec![rest]);
        let done = self.descend(rest);
        // Resized from another depth of the stack than it was allocated at, by what lies between.
        held.resize(1 + self.rng.below(40), done);
        black_box(held)[0]
    }

    #[inline(never)]
    fn by_formatting(&mut self, rest: usize) -> usize {
        struct Descending<'a>(std::cell::RefCell<&'a mut Work>, usize);
        impl std::fmt::Display for Descending<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let done = self.0.borrow_mut().descend(self.1);
                write!(f, "{}", black_box(done))
            }
        }
        black_box(format!("{:>9}", Descending(self.into(), rest)).len())
    }

    #[inline(never)]
    fn leaf(&mut self) -> usize {
        let random = self.rng.number();
        let done = match self.path.below(8) {
            0 => self.keep(random),
            1 => self.push(random),
            2 => self.map(random),
            3 => self.text(random),
            4 => self.send(random),
            5 => large(random),
            6 => black_box(vec![0_u32; random as usize >> 8 & 63]).len(),
            _ => black_box(Box::new(random)).leading_zeros() as usize,
        };
        black_box(done) + 1
    }

    #[inline(never)]
    fn keep(&mut self, random: u64) -> usize {
        let place = random as usize >> 8 & 63;
        let block = vec![random as u8; 1 + (random as usize >> 16 & 255)].into_boxed_slice();
        black_box(self.kept[place].replace(block)).map_or(0, |block| block.len())
    }

    #[inline(never)]
    fn push(&mut self, random: u64) -> usize {
        let mut numbers = Vec::new();
        for i in 0..random >> 8 & 63 {
            numbers.push(black_box(i));
        }
        numbers.shrink_to_fit();
        black_box(numbers).len()
    }

    #[inline(never)]
    fn map(&mut self, random: u64) -> usize {
        for i in 0..random >> 8 & 15 {
            let key = (random >> 16).wrapping_add(i * 7) & 127;
            if self.names.insert(key, Box::new(random)).is_some() {
                self.names.remove(&(key ^ 1));
            }
        }
        black_box(&self.names).len()
    }

    #[inline(never)]
    fn text(&mut self, random: u64) -> usize {
        let mut text = format!("{random:x} and {}", random >> 32);
        let _ = write!(text, " and {:?}", Some(random));
        self.texts.push(text);
        if self.texts.len() > 30 {
            self.texts.drain(..20 + (random as usize >> 8) % 10);
            self.texts.shrink_to_fit();
        }
        black_box(&self.texts).len()
    }

    #[inline(never)]
    fn send(&mut self, random: u64) -> usize {
        let place = random as usize >> 8 & 63;
        let letter = Box::into_raw(Box::new([random; 7]));
        // Publishes the letter's words to the one who takes it out; so does theirs.
        let old = MAILBOX[place].swap(letter, AcqRel);
        if old.is_null() {
            return 0;
        }
        // SAFETY: put in by `send`, and taken out once.
        let old = unsafe { Box::from_raw(old) };
        let is_whole = old.iter().all(|&word| word == old[0]);
        if !is_whole {
            crate::pool::die("a block that nobody has written to has changed\n");
        }
        black_box(old).len()
    }
}

#[inline(never)]
fn by_generic<T: Copy>(value: T, work: &mut Work, rest: usize) -> usize {
    let value = black_box(value);
    let done = work.descend(rest);
    black_box((done, value)).0 + 1
}

#[inline(never)]
fn large(random: u64) -> usize {
    let mut bytes = vec![0_u8; 1 << 12];
    bytes.reserve(random as usize >> 8 & 0xFFFF);
    black_box(bytes).capacity()
}
