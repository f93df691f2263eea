//! Loom's atomics under the names, with the constructors and in the sizes of the language's.
//!
//! An atomic here is zeros and its address; what loom explores in its place is made before there are
//! threads, and found by the address. So statics and zeroed memory are as good as they are in the program,
//! and nothing is left of one run in the next.
//!
//! Loom tries another order of two accesses of one atomic only if no third came between them, where
//! a load counts that the second thread made itself: one that loads and then exchanges is never tried
//! before an earlier load of another thread. So each access here first changes a companion, relaxed;
//! then all accesses of one atomic depend on each other, and every order is tried.

pub mod atomic {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::marker::PhantomData;
    use std::rc::Rc;

    use crate::mistakes::{self, Mistake};
    use loom::sync::atomic as explored;
    pub use loom::sync::atomic::Ordering;

    struct Explored {
        value: explored::AtomicU64,
        companion: explored::AtomicBool,
        /// Whether the memory is in use: read by each access, written when it is given back.
        memory: loom::cell::UnsafeCell<()>,
    }

    thread_local! {
        // All threads of a model run on one thread of the system.
        static UNUSED: RefCell<Vec<Rc<Explored>>> = const { RefCell::new(Vec::new()) };
        static BY_ADDR: RefCell<HashMap<usize, Rc<Explored>>> = RefCell::default();
        /// What each thread loaded last, and whether it is to load it once more: see `repeat_load`.
        static LOADED: RefCell<HashMap<(loom::thread::ThreadId, usize), u64>> = RefCell::default();
        static REPEATS: RefCell<HashMap<loom::thread::ThreadId, bool>> = RefCell::default();
    }

    /// Begins a run in which no more than `n_atomics` are accessed.
    pub fn begin_run(n_atomics: usize) {
        BY_ADDR.with_borrow_mut(HashMap::clear);
        LOADED.with_borrow_mut(HashMap::clear);
        REPEATS.with_borrow_mut(HashMap::clear);
        let make = || Explored {
            value: explored::AtomicU64::new(0),
            companion: explored::AtomicBool::new(false),
            memory: loom::cell::UnsafeCell::new(()),
        };
        UNUSED.set((0..n_atomics).map(|_| Rc::new(make())).collect());
    }

    fn at(addr: usize) -> Rc<Explored> {
        BY_ADDR.with_borrow_mut(|by_addr| {
            let take = || UNUSED.with_borrow_mut(Vec::pop).expect("the model has more atomics");
            by_addr.entry(addr).or_insert_with(take).clone()
        })
    }

    fn at_now(addr: usize) -> Rc<Explored> {
        let explored = at(addr);
        explored.companion.swap(true, Ordering::Relaxed);
        explored.memory.with(|_| ());
        explored
    }

    /// Gives memory back: fails the model if anyone may still access what is there, or does so later.
    /// What comes there next is zero.
    pub fn give_back(addrs: impl Iterator<Item = usize>) {
        for addr in addrs {
            let known = BY_ADDR.with_borrow_mut(|by_addr| by_addr.remove(&addr));
            if let Some(explored) = known {
                explored.memory.with_mut(|_| ());
            }
        }
    }

    /// For a mistake: the thread's next load of a value that it has loaded before returns that.
    pub fn repeat_load() {
        REPEATS.with_borrow_mut(|repeats| repeats.insert(loom::thread::current().id(), true));
    }

    fn repeated(addr: usize) -> Option<u64> {
        if !mistakes::is_made(Mistake::NoSecondLook) {
            return None;
        }
        let thread = loom::thread::current().id();
        let repeats = REPEATS.with_borrow_mut(|repeats| repeats.insert(thread, false));
        let loaded = LOADED.with_borrow(|loaded| loaded.get(&(thread, addr)).copied());
        loaded.filter(|_| repeats == Some(true))
    }

    fn load(addr: usize, order: Ordering) -> u64 {
        if let Some(value) = repeated(addr) {
            return value;
        }
        // With what is written before it in place.
        let order = if order == Ordering::SeqCst {
            fence_of_access();
            Ordering::Acquire
        } else {
            order
        };
        let value = at_now(addr).value.load(weakened(order));
        if mistakes::is_made(Mistake::NoSecondLook) {
            let thread = loom::thread::current().id();
            LOADED.with_borrow_mut(|loaded| loaded.insert((thread, addr), value));
        }
        value
    }

    fn weakened(order: Ordering) -> Ordering {
        if mistakes::is_made(Mistake::AllRelaxed) { Ordering::Relaxed } else { order }
    }

    fn fence_of_access() {
        if !mistakes::is_made(Mistake::AllRelaxed) {
            explored::fence(Ordering::SeqCst);
        }
    }

    /// A write, or a read and a write: a `SeqCst` one comes before what is read then.
    fn write<R>(
        addr: usize,
        order: Ordering,
        access: impl FnOnce(&explored::AtomicU64, Ordering) -> R,
    ) -> R {
        let weaker = if order == Ordering::SeqCst { Ordering::AcqRel } else { order };
        let result = access(&at_now(addr).value, weakened(weaker));
        if order == Ordering::SeqCst {
            fence_of_access();
        }
        result
    }

    fn store(addr: usize, value: u64, order: Ordering) {
        write(addr, order, |explored, order| {
            let order = if order == Ordering::AcqRel { Ordering::Release } else { order };
            explored.store(value, order);
        });
    }

    fn compare_exchange(
        addr: usize,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        if mistakes::is_step_apart(current, new) {
            let now = load(addr, Ordering::Acquire);
            if now != current {
                return Err(now);
            }
            if !mistakes::is_step_left_out(new) {
                store(addr, new, success);
            }
            return Ok(now);
        }
        let weaker = if success == Ordering::SeqCst { Ordering::AcqRel } else { success };
        let explored = at_now(addr);
        let exchanged =
            explored.value.compare_exchange(current, new, weakened(weaker), weakened(failure));
        if exchanged.is_ok() && success == Ordering::SeqCst {
            fence_of_access();
        }
        exchanged
    }

    /// Of the light kind, which is as good as a full fence against one that all threads pass.
    pub fn compiler_fence(order: Ordering) {
        if !mistakes::is_made(Mistake::NoLightFence) {
            explored::fence(order);
        }
    }

    /// Of the heavy kind: in all threads.
    pub fn heavy_fence() {
        explored::fence(Ordering::SeqCst);
    }

    macro_rules! atomic {
        ($name:ident $(<$t:ident>)?, $value:ty, $zero:expr, $of_word:expr) => {
            #[repr(transparent)]
            pub struct $name $(<$t>)? {
                _zero: $value,
                $(_leads_to: PhantomData<$t>,)?
            }

            #[expect(unsafe_code, reason = "nothing is accessed here")]
            // SAFETY: the value is never accessed.
            unsafe impl $(<$t>)? Sync for $name $(<$t>)? {}

            impl $(<$t>)? Default for $name $(<$t>)? {
                fn default() -> Self {
                    Self::new($zero)
                }
            }

            impl $(<$t>)? std::fmt::Debug for $name $(<$t>)? {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(stringify!($name))
                }
            }

            #[allow(dead_code, reason = "part of it is used")]
            impl $(<$t>)? $name $(<$t>)? {
                /// All begin as zero.
                pub const fn new(zero: $value) -> Self {
                    Self { _zero: zero, $(_leads_to: PhantomData::<$t>,)? }
                }

                fn addr(&self) -> usize {
                    std::ptr::from_ref(self).addr()
                }

                pub fn load(&self, order: Ordering) -> $value {
                    $of_word(load(self.addr(), order))
                }

                pub fn store(&self, value: $value, order: Ordering) {
                    store(self.addr(), value as u64, order);
                }

                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    $of_word(write(self.addr(), order, |explored, order| {
                        explored.swap(value as u64, order)
                    }))
                }

                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    compare_exchange(self.addr(), current as u64, new as u64, success, failure)
                        .map($of_word)
                        .map_err($of_word)
                }

                // Without its own failures: they only run the loop around it once more.
                pub fn compare_exchange_weak(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.compare_exchange(current, new, success, failure)
                }
            }
        };
    }

    macro_rules! sum {
        ($name:ident, $value:ty) => {
            #[allow(dead_code, reason = "part of it is used")]
            impl $name {
                pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    write(self.addr(), order, |explored, order| {
                        explored.fetch_add(value as u64, order)
                    }) as $value
                }

                pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    self.fetch_add(value.wrapping_neg(), order)
                }
            }
        };
    }

    atomic!(AtomicBool, bool, false, |word| word != 0);
    atomic!(AtomicU8, u8, 0, |word| word as u8);
    atomic!(AtomicU32, u32, 0, |word| word as u32);
    atomic!(AtomicU64, u64, 0, |word| word);
    atomic!(AtomicI64, i64, 0, |word| word as i64);
    atomic!(AtomicUsize, usize, 0, |word| word as usize);
    atomic!(AtomicPtr<T>, *mut T, std::ptr::null_mut(), |word| {
        std::ptr::with_exposed_provenance_mut(word as usize)
    });
    sum!(AtomicI64, i64);
    sum!(AtomicU32, u32);
}
