//! What the compiled sources name of the heap's records, reduced to what they touch.

pub(crate) mod invalid {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum InvalidFree {
        Double,
        Misaligned,
    }
}

pub(crate) mod pages {
    pub(crate) trait PageSource {}
}

pub(crate) mod mapped {
    use std::marker::PhantomData;

    pub(crate) struct NoPages;

    impl super::pages::PageSource for NoPages {}

    /// Records come from the global allocator, and are left to it: a run has few.
    pub(crate) struct Source<'a, P>(pub(crate) PhantomData<&'a P>);

    pub(crate) fn map_record<'h, T: Default>(
        _: Source<'_, impl super::pages::PageSource>,
    ) -> Option<&'h T> {
        Some(Box::leak(Box::default()))
    }
}

pub(crate) mod owner {
    use core::sync::atomic::AtomicU32;

    use crate::cells::{Cell32, Link};
    use crate::pool::Pool;

    #[derive(Debug, Default)]
    pub(crate) struct Owner {
        pub(crate) state: AtomicU32,
        pub(crate) number: Cell32,
        pub(crate) older: Link<Owner>,
        pub(crate) queue: Link<Pool>,
    }

    impl Owner {
        pub(crate) fn is_busy(&self) -> bool {
            false
        }
    }
}

pub(crate) mod pool {
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use loom::cell::UnsafeCell;

    use crate::cells::Link;
    use crate::owner::Owner;

    pub(crate) const N_WORDS: usize = 2;

    #[derive(Debug)]
    pub(crate) struct Pool {
        owner: Link<Owner>,
        pub(crate) remote: [AtomicU64; N_WORDS],
        pub(crate) remote_words: AtomicU64,
        pub(crate) is_queued: AtomicBool,
        pub(crate) next_queued: Link<Pool>,
        /// The blocks in use, by word. What in the heap is spread over the owner's slot and the bitmap of
        /// the pool: one thread at a time, which loom checks.
        used: UnsafeCell<[u64; N_WORDS]>,
    }

    impl Pool {
        pub(crate) fn new() -> Pool {
            let pool = Pool {
                owner: Link::none(),
                remote: [const { AtomicU64::new(0) }; N_WORDS],
                remote_words: AtomicU64::new(0),
                is_queued: AtomicBool::new(false),
                next_queued: Link::none(),
                used: UnsafeCell::new([0; N_WORDS]),
            };
            // Made now, by one thread.
            pool.owner.get();
            pool.next_queued.get();
            pool.remote.iter().for_each(|word| word.store(0, Ordering::Relaxed));
            pool.remote_words.store(0, Ordering::Relaxed);
            pool.is_queued.store(false, Ordering::Relaxed);
            pool
        }

        pub(crate) fn owner(&self) -> Option<&Owner> {
            self.owner.get_published()
        }

        pub(crate) fn is_owned_by(&self, owner: &Owner) -> bool {
            self.owner.is(owner)
        }

        pub(crate) fn remote_word(&self, at: u32) -> Option<&AtomicU64> {
            self.remote.get(at as usize)
        }

        /// Here no block is freed twice, and the slot is only touched by the owner.
        pub(crate) fn is_free_in_slot(&self, _: u32) -> bool {
            false
        }

        pub(crate) fn is_free_outside(&self, index: u32) -> bool {
            let word = self.remote.get(index as usize / 64);
            word.is_some_and(|word| word.load(Ordering::Relaxed) & bit(index % 64) != 0)
        }

        /// Begins the pool with `used` blocks handed out, for who holds `owner`.
        pub(crate) fn begin(&self, owner: &Owner, used: &[u32]) {
            self.change(|words| {
                *words = [0; N_WORDS];
                used.iter().for_each(|index| words[*index as usize / 64] |= bit(index % 64));
            });
            self.remote.iter().for_each(|word| word.store(0, Ordering::Relaxed));
            self.owner.publish(Some(owner));
        }

        pub(crate) fn end(&self) {
            self.owner.publish(None);
        }

        /// Takes over freed blocks, for who holds the owner; none may be free already.
        pub(crate) fn absorb(&self, at: u32, bits: u64) {
            self.change(|words| {
                let word = &mut words[at as usize];
                assert_eq!(*word & bits, bits, "a block was collected twice");
                *word &= !bits;
            });
        }

        pub(crate) fn has_used(&self) -> bool {
            self.change(|words| *words != [0; N_WORDS])
        }

        #[expect(unsafe_code, reason = "loom's cell")]
        fn change<R>(&self, change: impl FnOnce(&mut [u64; N_WORDS]) -> R) -> R {
            self.used.with_mut(|words| {
                // SAFETY: loom fails the model if anyone else is here or does not see what was done here.
                change(unsafe { &mut *words })
            })
        }
    }

    #[expect(unsafe_code, reason = "loom runs one thread at a time")]
    // SAFETY: as for the atomics; the cell is checked.
    unsafe impl Sync for Pool {}

    pub(crate) const fn bit(index: u32) -> u64 {
        1 << index
    }
}
