//! What a thread does all the time: allocate, resize, give back, and hand to other threads.

use crate::held::{self, Held};
use crate::report::{FIGURES, count};
use crate::rng::Rng;
use crate::rounds::{Round, is_over};
use crate::truth;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::thread;

/// Blocks that a thread holds at most.
const MAX_HELD: usize = 3000;
/// Blocks received at once, at most.
const MAX_RECEIVED: usize = 50;

/// The C library calls destructors four times at most.
const MAX_AGAIN: u32 = 2;

/// Blocks for whoever comes next: who puts one in gives back what was there.
static MAILBOX: [AtomicPtr<Held>; 256] = [const { AtomicPtr::new(ptr::null_mut()) }; 256];

/// Keys of the C library's thread-specific data, one more than each; 0 for none.
static KEYS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

thread_local! {
    static KEPT: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
    /// How often the destructors of keys have asked to be called again.
    static N_AGAIN: Cell<u32> = const { Cell::new(0) };
}

pub(crate) struct Load {
    rng: Rng,
    held: Vec<Held>,
    /// How many it is to hold, about.
    n_wanted: usize,
    received: Receiver<Held>,
    others: Vec<Sender<Held>>,
    /// Every so many blocks the record of one is dropped; 0 for never.
    drop_records: u64,
}

impl Load {
    pub(crate) fn new(
        seed: u64,
        received: Receiver<Held>,
        others: Vec<Sender<Held>>,
        drop_records: u64,
    ) -> Self {
        Self {
            rng: Rng::new(seed),
            held: held::list(MAX_HELD),
            n_wanted: MAX_HELD / 2,
            received,
            others,
            drop_records,
        }
    }

    /// Works until the round is over, waits twice, and gives everything back.
    pub(crate) fn run(mut self, barrier: &Arc<Barrier>, round: &Round) {
        while !is_over() {
            for _ in 0..64 {
                self.step(round);
            }
        }
        barrier.wait();
        barrier.wait();
        truth::untraced(|| self.others = Vec::new());
        self.held.drain(..).for_each(drop);
        // Those who send have given their ends back, or will, and what they sent goes with this one.
        truth::untraced(|| drop(self));
    }

    fn step(&mut self, round: &Round) {
        match self.rng.below(1000) {
            0..=379 => self.add(),
            380..=699 => self.remove(),
            700..=869 => self.resize(),
            870..=909 => self.send(),
            910..=929 => self.receive(),
            930..=949 => self.put_in_mailbox(),
            950..=969 => self.work_untraced(),
            970..=989 => self.use_collections(),
            990..=996 => self.n_wanted = 1 + self.rng.below(MAX_HELD),
            997 => {
                black_box(memtrace_alloc::traced_memory());
                if round.generations {
                    memtrace_alloc::advance_generation();
                }
            }
            998 if self.rng.below(8) == 0 => self.be_another(),
            _ if self.rng.below(8) == 0 => {
                let some = self.rng.below(self.held.len() + 1);
                self.held.truncate(some);
            }
            _ => self.add(),
        }
    }

    fn add(&mut self) {
        if self.held.len() >= self.n_wanted {
            return self.remove();
        }
        let may_be_large = !self.held.iter().take(200).any(Held::is_large);
        let held = Held::random(&mut self.rng, may_be_large);
        if self.drop_records != 0 {
            static N: AtomicU64 = AtomicU64::new(0);
            if N.fetch_add(1, Relaxed) % self.drop_records == self.drop_records - 1
                && memtrace_alloc::untrack(0, held.addr()).is_ok()
            {
                count(&FIGURES.n_spoilt);
            }
        }
        self.held.push(held);
    }

    fn some_held(&mut self) -> Option<usize> {
        (!self.held.is_empty()).then(|| self.rng.below(self.held.len()))
    }

    fn remove(&mut self) {
        if let Some(i) = self.some_held() {
            self.held.swap_remove(i);
        }
    }

    fn resize(&mut self) {
        if let Some(i) = self.some_held() {
            self.held[i].resize(&mut self.rng);
        }
    }

    fn send(&mut self) {
        let Some(i) = self.some_held() else { return };
        let held = self.held.swap_remove(i);
        let to = self.rng.below(self.others.len());
        count(&FIGURES.n_sent);
        // Given back here if the other has gone.
        drop(self.others[to].send(held));
    }

    fn receive(&mut self) {
        for _ in 0..MAX_RECEIVED {
            let Ok(mut held) = self.received.try_recv() else { return };
            match self.rng.below(3) {
                0 if self.held.len() < MAX_HELD => self.held.push(held),
                1 => held.resize(&mut self.rng),
                _ => {}
            }
        }
    }

    fn put_in_mailbox(&mut self) {
        if let Some(i) = self.some_held() {
            let held = self.held.swap_remove(i);
            count(&FIGURES.n_sent);
            put(self.rng.below(MAILBOX.len()), Box::into_raw(Box::new(held)));
        }
    }

    fn work_untraced(&mut self) {
        count(&FIGURES.n_untraced);
        truth::untraced(|| match self.rng.below(4) {
            0 => self.add(),
            1 => self.remove(),
            2 => self.resize(),
            _ => drop(black_box(Box::new([0_u8; 100]))),
        });
    }

    fn use_collections(&mut self) {
        let n = self.rng.below(200);
        let mut numbers = Vec::new();
        for i in 0..n {
            numbers.push(black_box(i));
        }
        numbers.truncate(n / 3);
        numbers.shrink_to_fit();
        let names: std::collections::BTreeMap<usize, String> =
            numbers.iter().map(|&n| (n ^ 0x55, format!("{n:>20}"))).collect();
        black_box((numbers, names));
    }

    /// Lets another thread live for a while, which hands its blocks on when it ends, and gives some back as it
    /// ends, at every time that there is.
    fn be_another(&mut self) {
        let seed = self.rng.number();
        let n = self.rng.below(300);
        let given: Vec<Held> = (0..self.rng.below(20)).filter_map(|_| self.held.pop()).collect();
        let to = self.others[self.rng.below(self.others.len())].clone();
        let life = move || {
            let mut rng = Rng::new(seed);
            drop(given);
            for i in 0..n {
                let held = Held::random(&mut rng, false);
                match rng.below(4) {
                    0 => KEPT.with_borrow_mut(|kept| kept.push(held)),
                    1 => drop(to.send(held)),
                    2 if i % 64 == 0 => keep_to_the_end(rng.below(2), held),
                    _ => drop(held),
                }
            }
        };
        let other = thread::spawn(life);
        // While it lives there is something to do here, too.
        for _ in 0..self.rng.below(50) {
            self.resize();
        }
        if other.join().is_err() {
            crate::report::differs(format_args!("a thread panicked"));
        }
        count(&FIGURES.n_threads);
    }
}

fn put(place: usize, letter: *mut Held) {
    // Publishes the block to the one who takes it out; so does theirs.
    let old = MAILBOX[place].swap(letter, AcqRel);
    if !old.is_null() {
        // SAFETY: put in above, and taken out once.
        drop(unsafe { Box::from_raw(old) });
    }
}

/// Gives back what is in the mailbox.
pub(crate) fn empty_mailbox() {
    (0..MAILBOX.len()).for_each(|place| put(place, ptr::null_mut()));
}

/// Makes one of two keys whose destructors allocate and give back at the end of a thread: the first before
/// the recorder has made its own, the second after.
pub(crate) fn make_key(n: usize) {
    let mut key = 0;
    // SAFETY: a valid place; the destructor is a function of this program.
    let made = unsafe { libc::pthread_key_create(&mut key, Some(on_thread_end)) };
    if made == 0 {
        KEYS[n].store(u64::from(key) + 1, Relaxed);
    }
}

/// Leaves a block to the destructor of a key.
fn keep_to_the_end(n: usize, held: Held) {
    let Some(key) = KEYS[n].load(Relaxed).checked_sub(1) else { return };
    let key = key as libc::pthread_key_t;
    // SAFETY: a key that was made; its value is null or was put in here.
    let old = unsafe { libc::pthread_getspecific(key) };
    if old.is_null() {
        let held = Box::into_raw(Box::new(held));
        // SAFETY: as above.
        unsafe { libc::pthread_setspecific(key, held.cast()) };
    }
}

extern "C" fn on_thread_end(held: *mut c_void) {
    // SAFETY: put in by `keep_to_the_end`, and taken out once.
    let mut held = unsafe { Box::from_raw(held.cast::<Held>()) };
    let mut rng = Rng::new(held.addr());
    held.resize(&mut rng);
    let other = Held::random(&mut rng, false);
    let n_again = N_AGAIN.get();
    if n_again < MAX_AGAIN && rng.below(2) == 0 {
        N_AGAIN.set(n_again + 1);
        keep_to_the_end(rng.below(2), other);
    }
}
