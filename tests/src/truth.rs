//! An allocator that counts what a correct tracer must count, by the plainest means.
//!
//! [`Truth`] stands between `memtrace::Alloc` and the system's allocator, or another. It keeps every block that
//! was allocated or resized since [`Truth::begin`] in a hash table of its own memory, under one
//! mutex, with the size that was requested. It shares no code with memtrace, and knows neither
//! guards nor races: the mutex is held from before a release until after it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Slots of the table: 32 MiB of address space.
const N_SLOTS: usize = 1 << 21;
/// Blocks and requested bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Blocks.
    pub blocks: i64,
    /// Requested bytes.
    pub bytes: i64,
}

impl std::ops::Sub for Count {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { blocks: self.blocks - other.blocks, bytes: self.bytes - other.bytes }
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.bytes += other.bytes;
    }
}

/// Linear probing, at most half full; zeroes are empty slots.
struct Table {
    slots: *mut (usize, usize),
    count: Count,
}

// SAFETY: the slots belong to the table alone.
unsafe impl Send for Table {}

impl Table {
    fn new() -> Self {
        let len = N_SLOTS * size_of::<(usize, usize)>();
        // SAFETY: a fresh private mapping.
        let slots = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        expect(slots != libc::MAP_FAILED, "no memory for the truth\n");
        Self { slots: slots.cast(), count: Count::default() }
    }

    fn slots(&mut self) -> &mut [(usize, usize)] {
        // SAFETY: mapped with this length, zeroed.
        unsafe { std::slice::from_raw_parts_mut(self.slots, N_SLOTS) }
    }

    /// The slot that holds an address, or the empty one that ends its probe.
    fn find(&mut self, addr: usize) -> usize {
        let mut i = start_of(addr);
        while !matches!(self.slots()[i].0, held if held == addr || held == 0) {
            i = (i + 1) % N_SLOTS;
        }
        i
    }

    fn insert(&mut self, addr: usize, size: usize) {
        let i = self.find(addr);
        expect(self.slots()[i].0 == 0, "a live block was handed out again\n");
        self.slots()[i] = (addr, size);
        self.count += Count { blocks: 1, bytes: size as i64 };
        expect(self.count.blocks < N_SLOTS as i64 / 2, "the truth's table is full\n");
    }

    fn remove(&mut self, addr: usize) {
        let mut hole = self.find(addr);
        let (held, size) = self.slots()[hole];
        if held == 0 {
            return;
        }
        self.count += Count { blocks: -1, bytes: -(size as i64) };
        // Whatever could not be found behind a hole moves into it.
        let mut i = hole;
        loop {
            i = (i + 1) % N_SLOTS;
            let moving = self.slots()[i];
            if moving.0 == 0 {
                break;
            }
            let distance = |from: usize| (i + N_SLOTS - from) % N_SLOTS;
            if distance(start_of(moving.0)) >= distance(hole) {
                self.slots()[hole] = moving;
                hole = i;
            }
        }
        self.slots()[hole] = (0, 0);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: mapped with this length; the slice of it ends with the table.
        unsafe { libc::munmap(self.slots.cast(), N_SLOTS * size_of::<(usize, usize)>()) };
    }
}

fn start_of(addr: usize) -> usize {
    ((addr >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) % N_SLOTS
}

/// Ends the process if something is not so: a panic would allocate, and this is the allocator.
fn expect(is_so: bool, otherwise: &str) {
    if !is_so {
        // SAFETY: the bytes are readable.
        unsafe { libc::write(2, otherwise.as_ptr().cast(), otherwise.len()) };
        std::process::abort();
    }
}

/// An allocator, counted.
pub struct Truth<A = System> {
    inner: A,
    table: Mutex<Option<Table>>,
    /// Every so many resizes one fails; 0 for none.
    fail_every: AtomicU64,
    n_resizes: AtomicU64,
}

impl Truth {
    /// The system's allocator; counts nothing yet.
    pub const fn new() -> Self {
        Self::around(System)
    }
}

impl<A> Truth<A> {
    /// Another allocator; counts nothing yet.
    pub const fn around(inner: A) -> Self {
        Self {
            inner,
            table: Mutex::new(None),
            fail_every: AtomicU64::new(0),
            n_resizes: AtomicU64::new(0),
        }
    }

    /// Forgets all blocks and counts from now.
    pub fn begin(&self) {
        *self.lock() = Some(Table::new());
    }

    /// What is live now of the blocks allocated or resized since [`Self::begin`].
    pub fn count(&self) -> Count {
        self.lock().as_ref().map_or_else(Count::default, |table| table.count)
    }

    /// Calls `visit` with the address and the size of each such block. `visit` must not allocate.
    pub fn for_each(&self, mut visit: impl FnMut(usize, usize)) {
        if let Some(table) = self.lock().as_mut() {
            for &mut (addr, size) in table.slots() {
                if addr != 0 {
                    visit(addr, size);
                }
            }
        }
    }

    /// Lets every `n`th resize fail from now; none for 0.
    pub fn fail_resizes(&self, n: u64) {
        self.fail_every.store(n, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Table>> {
        // A mutex of std neither allocates nor, uncontended, calls the system.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allocated(&self, block: *mut u8, size: usize) -> *mut u8 {
        if !block.is_null()
            && let Some(table) = self.lock().as_mut()
        {
            table.insert(block.addr(), size);
        }
        block
    }
}

impl Default for Truth {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: everything goes to the allocator unchanged; a resize that is made to fail leaves
// its block alone, as the contract allows.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Truth<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        self.allocated(unsafe { self.inner.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        self.allocated(unsafe { self.inner.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let mut table = self.lock();
        if let Some(table) = table.as_mut() {
            table.remove(block.addr());
        }
        // SAFETY: the caller's promise.
        unsafe { self.inner.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let every = self.fail_every.load(Relaxed);
        if every != 0 && self.n_resizes.fetch_add(1, Relaxed).is_multiple_of(every) {
            return std::ptr::null_mut();
        }
        let mut table = self.lock();
        // SAFETY: the caller's promise.
        let resized = unsafe { self.inner.realloc(block, layout, new_size) };
        if !resized.is_null()
            && let Some(table) = table.as_mut()
        {
            table.remove(block.addr());
            table.insert(resized.addr(), new_size);
        }
        resized
    }
}
