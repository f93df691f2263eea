//! What the compiled sources name of the rest of the crate, reduced to what they touch.

pub(crate) mod site {
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub(crate) struct SiteId(pub(crate) u32);
}

pub(crate) mod mapped {
    #[derive(Clone, Copy)]
    pub(crate) enum Part {
        Threads,
    }
}

/// Loom has no such fence. But against it a light one, which is what other threads have, is as good as a full
/// one: so those are full here, and this is one like them.
pub(crate) mod membarrier {
    pub(crate) fn fence_all_threads() -> bool {
        crate::sync::atomic::heavy_fence();
        true
    }
}

pub(crate) mod segments {
    use crate::mapped::Part;
    use std::cell::Cell;
    use std::marker::PhantomData;
    use std::ptr::NonNull;

    const N_PLACES: usize = 8;

    /// Places that are there from the beginning. There is one only of these in a model: the slots.
    pub(crate) struct Segments<T, const FIRST_LEN: usize, const N: usize>(PhantomData<fn() -> T>);

    thread_local! {
        static PLACES: Cell<Option<NonNull<u8>>> = const { Cell::new(None) };
    }

    impl<T, const FIRST_LEN: usize, const N: usize> Segments<T, FIRST_LEN, N> {
        pub(crate) const fn new(_: Part) -> Self {
            Self(PhantomData)
        }

        pub(crate) fn place(&self, number: u32) -> Option<NonNull<T>> {
            let layout = std::alloc::Layout::array::<T>(N_PLACES).unwrap();
            let places = PLACES.get().unwrap_or_else(|| {
                #[expect(unsafe_code, reason = "memory that zeroes are written to")]
                // SAFETY: the size is not zero.
                NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap()
            });
            PLACES.set(Some(places));
            assert!((number as usize) < N_PLACES);
            NonNull::new(places.cast::<T>().as_ptr().wrapping_add(number as usize))
        }

        pub(crate) fn place_or_map(&self, number: u32) -> Option<NonNull<T>> {
            self.place(number)
        }
    }
}

/// Each thread of a model holds a slot that it was given; no signal handler interrupts it.
pub(crate) mod thread {
    use crate::thread_slot::Slot;
    use std::cell::Cell;

    loom::thread_local! {
        static SLOT: Cell<Option<&'static Slot>> = Cell::new(None);
    }

    pub(crate) fn hold_slot(slot: Option<&'static Slot>) {
        SLOT.with(|held| held.set(slot));
    }

    pub(crate) fn slot() -> Option<&'static Slot> {
        SLOT.with(Cell::get)
    }

    pub(crate) fn holds_lock() -> bool {
        false
    }

    pub(crate) fn lock_taken() {}

    pub(crate) fn lock_given_back() {}
}

/// Arrays that nobody else has ever had; unless they are to be used again.
pub(crate) mod array_memory {
    use crate::mistakes::{self, Mistake};
    use crate::page_word::{LINE_WORDS, Shape};
    use crate::sync::atomic::{self, AtomicU64};
    use crate::thread;
    use crate::thread_slot::SLOTS;
    use std::cell::{Cell, RefCell};

    const MAX_LEVEL: u32 = 3;
    const N_WORDS: usize = LINE_WORDS << MAX_LEVEL;

    #[repr(align(64))]
    struct Array([AtomicU64; N_WORDS]);

    /// How arrays are handed out.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Supply {
        Plenty,
        /// None is free at first: pages without blocks are looked at.
        Scarce,
        /// Arrays that are done with are used again once no thread can be looking at them.
        UsedAgain,
    }

    thread_local! {
        static SUPPLY: Cell<Supply> = const { Cell::new(Supply::Plenty) };
        static N_TAKEN: Cell<usize> = const { Cell::new(0) };
        static FREE: RefCell<Vec<Shape>> = const { RefCell::new(Vec::new()) };
        static N_RETIRED: Cell<u32> = const { Cell::new(0) };
        static ARRAYS: &'static [Array] =
            Vec::leak((0..16).map(|_| Array([const { AtomicU64::new(0) }; N_WORDS])).collect());
    }

    pub(crate) fn begin_run(supply: Supply) {
        SUPPLY.set(supply);
        N_TAKEN.set(0);
        N_RETIRED.set(0);
        FREE.set(Vec::new());
    }

    pub(crate) struct ArrayMemory;

    impl ArrayMemory {
        pub(crate) const fn new() -> Self {
            Self
        }

        pub(crate) fn take(&self, level: u32, may_map: bool) -> Option<Shape> {
            assert!(level <= MAX_LEVEL, "the model has longer arrays");
            if let Some(shape) = FREE.with_borrow_mut(|free| {
                free.iter().position(|shape| shape.level() == level).map(|i| free.swap_remove(i))
            }) {
                return Some(shape);
            }
            if SUPPLY.get() == Supply::Scarce && !may_map {
                return None;
            }
            let array = &ARRAYS.with(|arrays| *arrays)[N_TAKEN.replace(N_TAKEN.get() + 1)];
            Some(Shape::new(array.0.as_ptr().expose_provenance() as u64, level))
        }

        pub(crate) fn give_back(&self, _: Shape) {}

        pub(crate) fn can_retire(&self) -> bool {
            true
        }

        /// As `Memory::free_some`, which does so for many at a time.
        pub(crate) fn retire(&self, shape: Shape) {
            N_RETIRED.set(N_RETIRED.get() + 1);
            if SUPPLY.get() != Supply::UsedAgain {
                return;
            }
            let is_over = || {
                let grace = SLOTS.begin_grace();
                grace.is_some_and(|grace| SLOTS.is_over(grace, thread::slot()))
            };
            if mistakes::is_made(Mistake::UseAgainAtOnce) || is_over() {
                let words =
                    (0..shape.n_words()).map(|i| shape.addr() as usize + i * size_of::<u64>());
                atomic::give_back(words);
                FREE.with_borrow_mut(|free| free.push(shape));
            }
        }

        pub(crate) fn free_some(&self) -> bool {
            true
        }

        pub(crate) fn usage(&self) -> Usage {
            Usage { n_words: 0, n_pages: 0, n_whole: 0 }
        }

        pub(crate) fn give_back_pages(&self, _: usize) -> usize {
            0
        }

        pub(crate) fn before_fork(&self) {}

        pub(crate) fn after_fork(&self) {}
    }

    pub(crate) struct Usage {
        pub(crate) n_words: usize,
        pub(crate) n_pages: usize,
        pub(crate) n_whole: usize,
    }
}

/// It is nobody's turn to give memory back to the system.
pub(crate) mod pace {
    use crate::thread_slot::{Slot, Work};

    pub(crate) struct Pace;

    impl Pace {
        pub(crate) const fn new(_: Work) -> Self {
            Self
        }

        pub(crate) fn begin_now_and_then(&self, _: &Slot) -> Option<u64> {
            None
        }

        pub(crate) fn begin(&self) -> Option<u64> {
            None
        }

        pub(crate) fn end(&self, _: u64, _: bool) {}
    }

    pub(crate) struct RecentMost;

    impl RecentMost {
        pub(crate) const fn new() -> Self {
            Self
        }

        pub(crate) fn most(&self, _: u64, figure: u64) -> u64 {
            figure
        }
    }

    pub(crate) fn n_blocks() -> u64 {
        0
    }
}

/// Entries of two pages, of a third which has the first one's lock, and of a fourth that shares its cell with
/// the first, among sampled pages; no scan visits that one.
pub(crate) mod page_directory {
    use crate::live::NoRoom;
    use crate::page_word::Granule;
    use crate::sync::atomic::{AtomicU8, AtomicU64, Ordering::Acquire, Ordering::SeqCst};
    use std::ptr;

    pub(crate) const PAGE_BITS: u32 = 12;
    const N_PAGES: usize = 2;
    pub(crate) const CHUNK_BITS: u32 = 26;
    const SHARING: u64 = 16;
    const FAR: u64 = 1 << 16;

    pub(crate) struct Chunk {
        entries: Group,
        sharing: AtomicU64,
        far: AtomicU64,
        mark: AtomicU8,
    }

    pub(crate) type Group = [AtomicU64; N_PAGES];

    pub(crate) struct Directory {
        chunk: Chunk,
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Page<'a> {
        pub(crate) number: u64,
        pub(crate) entry: &'a AtomicU64,
        pub(crate) neighbour: Option<&'a AtomicU64>,
        mark: &'a AtomicU8,
    }

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct BeyondLast;

    impl Directory {
        pub(crate) const fn new() -> Self {
            let entries = [const { AtomicU64::new(0) }; N_PAGES];
            let [sharing, far] = [const { AtomicU64::new(0) }; 2];
            Self { chunk: Chunk { entries, sharing, far, mark: AtomicU8::new(0) } }
        }

        pub(crate) fn prepare(&self) -> bool {
            true
        }

        pub(crate) fn give_back_pages(&self) -> bool {
            false
        }

        pub(crate) fn before_fork(&self) {}

        pub(crate) fn after_fork(&self) {}

        pub(crate) fn entry(&self, addr: u64) -> Option<&AtomicU64> {
            match addr >> PAGE_BITS {
                SHARING => Some(&self.chunk.sharing),
                FAR => Some(&self.chunk.far),
                number => self.chunk.entries.get(number as usize),
            }
        }

        pub(crate) fn quick_entry(&self, granule: Granule) -> Option<&AtomicU64> {
            self.entry(granule.page() << PAGE_BITS)
        }

        pub(crate) fn quick_entry_in_use(&self, granule: Granule) -> Option<&AtomicU64> {
            if self.chunk.mark.load(Acquire) == 0 { None } else { self.quick_entry(granule) }
        }

        pub(crate) fn refuse_quickly(&self) {}

        pub(crate) fn page_or_map(&self, addr: u64) -> Result<Page<'_>, NoRoom> {
            let number = addr >> PAGE_BITS;
            let entry = self.entry(addr).ok_or(NoRoom)?;
            // Pages begin with the shortest array.
            Ok(Page { number, entry, neighbour: None, mark: &self.chunk.mark })
        }

        pub(crate) fn for_each_page(&self, mut visit: impl FnMut(u64, &AtomicU64)) {
            if self.chunk.mark.load(SeqCst) == 0 {
                return;
            }
            let pages = (0..).zip(&self.chunk.entries);
            for (number, entry) in pages.chain([(SHARING, &self.chunk.sharing)]) {
                if entry.load(SeqCst) != 0 {
                    visit(number << PAGE_BITS, entry);
                }
            }
        }

        pub(crate) fn has_entry_like(&self, addr: u64) -> bool {
            let pages = [addr >> PAGE_BITS, addr >> PAGE_BITS ^ FAR];
            let mut entries = pages.iter().filter_map(|page| self.entry(page << PAGE_BITS));
            entries.any(|entry| entry.load(Acquire) != 0)
        }

        pub(crate) fn first_chunk(&self) -> *mut Chunk {
            ptr::from_ref(&self.chunk).cast_mut()
        }
    }

    impl Page<'_> {
        pub(crate) fn mark_used(&self) -> Result<(), NoRoom> {
            if self.mark.load(Acquire) == 0 {
                self.mark.store(1, SeqCst);
            }
            Ok(())
        }
    }

    impl Chunk {
        pub(crate) fn group(&self, index: usize) -> Result<Option<(u64, &Group)>, BeyondLast> {
            if index == 0 { Ok(Some((0, &self.entries))) } else { Err(BeyondLast) }
        }

        pub(crate) fn next(&self) -> *mut Self {
            ptr::null_mut()
        }
    }
}

/// Always empty.
pub(crate) mod flat_shadow {
    use crate::live::{Detail, LiveTable, LiveTrace, NoRoom};

    pub(crate) struct FlatShadow;

    impl FlatShadow {
        pub(crate) const fn new() -> Self {
            Self
        }

        pub(crate) fn prepare(&self) -> bool {
            true
        }

        pub(crate) fn is_vacant(&self) -> bool {
            true
        }

        pub(crate) fn give_back_words(&self) -> bool {
            false
        }

        pub(crate) fn give_back_details(&self, _: impl Fn(u64) -> bool) -> bool {
            false
        }

        pub(crate) fn before_fork(&self) {}

        pub(crate) fn after_fork(&self) {}
    }

    impl LiveTable for FlatShadow {
        fn insert(&self, _: u64, _: LiveTrace) -> Result<Option<LiveTrace>, NoRoom> {
            Err(NoRoom)
        }

        fn set_detail(&self, _: u64, _: Detail) -> Result<(), NoRoom> {
            Err(NoRoom)
        }

        fn detail(&self, _: u64) -> Detail {
            Detail::UNKNOWN
        }

        fn take(&self, _: u64) -> Option<LiveTrace> {
            None
        }

        fn get(&self, _: u64) -> Option<LiveTrace> {
            None
        }

        fn for_each<const HAS_DETAILS: bool>(&self, _: impl FnMut(u64, LiveTrace, Detail)) {}

        fn clear(&self, _: &mut dyn FnMut(LiveTrace)) {}
    }
}
