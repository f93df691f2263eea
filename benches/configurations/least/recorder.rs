//! The least that recording takes.

use core::arch::naked_asm;
use core::arch::x86_64::{
    _mm_and_si128, _mm_castpd_si128, _mm_castsi128_pd, _mm_cmpeq_epi32, _mm_load_si128,
    _mm_loadh_pd, _mm_loadl_epi64, _mm_movemask_epi8, _mm_set1_epi32,
};
use memtrace_benches::TracerFigures;
use memtrace_unwind::StackBounds;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicPtr, AtomicU16, AtomicU64, Ordering::Relaxed,
};

#[global_allocator]
static ALLOC: Recording = Recording;

/// Return addresses that are compared at most, but for the call's own, by which a record is found.
const MAX_WORDS: usize = 24;
/// How many are compared at once.
const GROUP: usize = 4;
/// Of all threads, whose stack pointers differ. Stacks whose place another one has are not compared with anything.
const N_RECORDS: usize = 1 << 14;
/// Bytes of heap for each trace: in fewer no two blocks of the C library start.
const GRAIN: usize = 32;
/// Traces: a GiB of heap has places of its own.
const N_TRACES: usize = (1 << 30) / GRAIN;

/// How many frames are recorded, 0 while none are. Relaxed: stored before there is another thread.
static N_FRAMES: AtomicU16 = AtomicU16::new(0);
/// As many as [`N_TRACES`], by the block's address; null until recording starts. Relaxed, as above, and the traces as if only
/// one thread stored there.
static TRACES: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
/// By the return address of the call and its stack pointer.
static RECORDS: [OnceLock<Record>; N_RECORDS] = [const { OnceLock::new() }; N_RECORDS];
/// Records without a return address, where there should be some. Relaxed: read at the end.
static N_EMPTY: AtomicU64 = AtomicU64::new(0);
/// Whether a record is being made: what is allocated for it makes none. Relaxed: guards nothing.
static IS_LEARNING: AtomicBool = AtomicBool::new(false);

/// Where the return addresses of a stack are, and what they were.
#[repr(C, align(64))]
struct Record {
    /// The return address of the call, by which it is found.
    call: u64,
    /// The address of the stack pointer.
    sp: usize,
    site: u64,
    n_groups: usize,
    /// Bytes from the stack pointer.
    offsets: [[u32; GROUP]; MAX_WORDS / GROUP],
    /// At a multiple of 16 bytes.
    values: [[u64; GROUP]; MAX_WORDS / GROUP],
}

const _: () = assert!(std::mem::offset_of!(Record, values).is_multiple_of(16));

struct Thread {
    /// Atomic so that the compiler does not add both at once: a vector waits for words that were stored one by one. Relaxed:
    /// the thread's own.
    n_bytes: AtomicI64,
    n_blocks: AtomicI64,
}

thread_local! {
    static THREAD: Thread = const { Thread { n_bytes: AtomicI64::new(0), n_blocks: AtomicI64::new(0) } };
}

/// Records every allocation from here on, with so many frames.
///
/// **Errors**: if that is no number of frames that can be compared.
pub(crate) fn start(n_frames: u16) -> Result<(), String> {
    if n_frames == 0 || usize::from(n_frames) > MAX_WORDS + 1 {
        return Err(format!("N_FRAMES must be 1 to {}, not {n_frames}", MAX_WORDS + 1));
    }
    memtrace_unwind::prepare();
    N_FRAMES.store(n_frames, Relaxed);
    let layout = Layout::array::<AtomicU64>(N_TRACES).map_err(|error| error.to_string())?;
    // SAFETY: the size is not zero.
    let traces = unsafe { System.alloc_zeroed(layout) };
    if traces.is_null() {
        return Err(format!("{} bytes for traces could not be had", layout.size()));
    }
    // For as long as the process runs.
    TRACES.store(traces.cast(), Relaxed);
    Ok(())
}

/// What there is to tell of it: the stacks that others are compared with.
pub(crate) fn figures() -> Option<TracerFigures> {
    if !is_on() {
        return None;
    }
    let n_records = RECORDS.iter().filter(|record| record.get().is_some()).count();
    let resident_bytes = (n_records * size_of::<Record>()) as u64;
    let n_lost = N_EMPTY.load(Relaxed);
    Some(TracerFigures { resident_bytes, n_sites: n_records as u32, n_lost })
}

#[inline(always)]
fn is_on() -> bool {
    !TRACES.load(Relaxed).is_null()
}

/// The system's allocator, and what is recorded of its blocks.
struct Recording;

// SAFETY: every request goes unchanged to the system's allocator, and its answer back.
unsafe impl GlobalAlloc for Recording {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_on() {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        // SAFETY: the caller's promise.
        unsafe { alloc_and_record(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_on() {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the caller's promise.
        unsafe { alloc_zeroed_and_record(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        take(block);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        take(block);
        if !is_on() {
            // SAFETY: the caller's promise.
            return unsafe { System.realloc(block, layout, new_size) };
        }
        // SAFETY: the caller's promise.
        unsafe { realloc_and_record(new_size, layout.align(), block, layout.size()) }
    }
}

/// A function of the name that has `allocate` allocate, and then records the block: the size is its first argument, and it
/// hands all of them on.
macro_rules! recording {
    ($name:ident($($argument:ident: $type:ty),*), $allocate:ident) => {
        #[unsafe(naked)]
        unsafe extern "C-unwind" fn $name(size: usize, align: usize $(, $argument: $type)*) -> *mut u8 {
            naked_asm!(
                ".cfi_startproc",
                "push rbp",
                ".cfi_def_cfa_offset 16",
                ".cfi_offset rbp, -16",
                "mov rbp, rsp",
                ".cfi_def_cfa_register rbp",
                "push rdi",
                "push rax",
                "call {allocate}",
                "mov [rsp], rax",
                "lea rdi, [rbp + 16]",
                "mov rsi, rax",
                "mov rdx, [rsp + 8]",
                "call {record}",
                "pop rax",
                "leave",
                ".cfi_def_cfa rsp, 8",
                "ret",
                ".cfi_endproc",
                allocate = sym $allocate,
                record = sym record,
            )
        }
    };
}

recording!(alloc_and_record(), alloc);
recording!(alloc_zeroed_and_record(), alloc_zeroed);
recording!(realloc_and_record(block: *mut u8, old_size: usize), realloc);

/// What was a layout becomes one again.
///
/// # Safety
///
/// It was one.
#[inline(always)]
const unsafe fn layout(size: usize, align: usize) -> Layout {
    // SAFETY: the caller's promise.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

unsafe extern "C-unwind" fn alloc(size: usize, align: usize) -> *mut u8 {
    // SAFETY: the caller's promise: this was a layout.
    let layout = unsafe { layout(size, align) };
    // SAFETY: as above.
    unsafe { System.alloc(layout) }
}

unsafe extern "C-unwind" fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    // SAFETY: as above.
    let layout = unsafe { layout(size, align) };
    // SAFETY: as above.
    unsafe { System.alloc_zeroed(layout) }
}

unsafe extern "C-unwind" fn realloc(
    new_size: usize,
    align: usize,
    block: *mut u8,
    size: usize,
) -> *mut u8 {
    // SAFETY: as above.
    let layout = unsafe { layout(size, align) };
    // SAFETY: as above.
    unsafe { System.realloc(block, layout, new_size) }
}

/// Stores what is known of the block.
///
/// # Safety
///
/// `sp` is that of a call that has not returned, above whose return address it points.
unsafe extern "C-unwind" fn record(sp: *const u64, block: *mut u8, size: usize) {
    if block.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let site = unsafe { site(sp) };
    place(block).store((size as u64) << 32 | site << 1 | 1, Relaxed);
    let thread = thread();
    add(&thread.n_bytes, size as i64);
    add(&thread.n_blocks, 1);
}

/// Takes out what is known of the block, if anything is.
#[inline(always)]
fn take(block: *mut u8) {
    if !is_on() {
        return;
    }
    let trace = place(block).load(Relaxed);
    if trace == 0 {
        return;
    }
    place(block).store(0, Relaxed);
    let thread = thread();
    add(&thread.n_bytes, -((trace >> 32) as i64));
    add(&thread.n_blocks, -1);
}

/// This thread's. Not handed to a closure: one that does all of this would not be inlined.
#[inline(always)]
fn thread() -> &'static Thread {
    // SAFETY: without a destructor it is there as long as the thread, and references go no further than this function's
    // callers.
    unsafe { &*THREAD.with(ptr::from_ref) }
}

#[inline(always)]
fn add(sum: &AtomicI64, n: i64) {
    sum.store(sum.load(Relaxed).wrapping_add(n), Relaxed);
}

#[inline(always)]
fn place(block: *mut u8) -> &'static AtomicU64 {
    let index = block.addr() / GRAIN % N_TRACES;
    // SAFETY: there are as many, for as long as the process runs; asked for only when they are there.
    unsafe { &*TRACES.load(Relaxed).wrapping_add(index) }
}

/// The number of the stack; 0 if it is none that is known.
///
/// # Safety
///
/// As for [`record`].
#[inline(always)]
unsafe fn site(sp: *const u64) -> u64 {
    // SAFETY: the return address of the call.
    let call = unsafe { sp.wrapping_sub(1).read() };
    let Some(record) = RECORDS[index(sp, call)].get() else {
        // SAFETY: the caller's promise.
        return unsafe { learn(sp, call) };
    };
    if record.call != call || record.sp != sp.addr() {
        return 0;
    }
    // SAFETY: the stack reaches from here as far as it did from the same stack pointer: all threads of a workload that lie at
    // one place after another have stacks of one size. Every x86_64 has vectors of two words.
    if unsafe { holds(record, sp) } { record.site } else { 0 }
}

/// Tells whether all return addresses are what they were.
///
/// # Safety
///
/// The stack can be read where they were.
#[target_feature(enable = "sse2")]
#[inline]
unsafe fn holds(record: &Record, sp: *const u64) -> bool {
    let mut is_equal = _mm_set1_epi32(-1);
    for (offsets, values) in record.offsets.iter().zip(&record.values).take(record.n_groups) {
        for ([low, high], values) in offsets.as_chunks().0.iter().zip(values.as_chunks::<2>().0) {
            let [low, high] = [low, high].map(|&offset| sp.wrapping_byte_add(offset as usize));
            // SAFETY: the caller's promise.
            let low = _mm_castsi128_pd(unsafe { _mm_loadl_epi64(low.cast()) });
            // SAFETY: as above.
            let words = unsafe { _mm_loadh_pd(low, high.cast()) };
            // SAFETY: they lie where vectors do.
            let values = unsafe { _mm_load_si128(ptr::from_ref(values).cast()) };
            let both = _mm_cmpeq_epi32(_mm_castpd_si128(words), values);
            is_equal = _mm_and_si128(is_equal, both);
        }
    }
    _mm_movemask_epi8(is_equal) == 0xffff
}

#[inline(always)]
fn index(sp: *const u64, call: u64) -> usize {
    let mixed = (sp.addr() as u64 ^ call).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (u64::BITS - N_RECORDS.ilog2())) as usize
}

/// Makes a record of the stack, of which there was none at its place. Returns 0, the number of no stack.
///
/// # Safety
///
/// As for [`record`].
#[cold]
#[inline(never)]
unsafe fn learn(sp: *const u64, call: u64) -> u64 {
    if IS_LEARNING.swap(true, Relaxed) {
        return 0;
    }
    let index = index(sp, call);
    // SAFETY: the caller's promise.
    let record = unsafe { Record::of_stack(sp, call, index as u64 + 1) };
    // Where another thread was quicker, it is that one's.
    let _ = RECORDS[index].set(record);
    IS_LEARNING.store(false, Relaxed);
    0
}

impl Record {
    /// # Safety
    ///
    /// As for [`record`].
    unsafe fn of_stack(sp: *const u64, call: u64, site: u64) -> Self {
        let mut record = Self {
            call,
            sp: sp.addr(),
            site,
            n_groups: 0,
            offsets: Default::default(),
            values: Default::default(),
        };
        // The frames from here to the call come before the others.
        let mut call_addrs = [0; MAX_WORDS + 16];
        let walk = memtrace_unwind::capture(&StackBounds::current(), &mut call_addrs);
        let from_call = call_addrs[..walk.len].iter().skip_while(|&&addr| addr + 1 != call);
        let n_words = usize::from(N_FRAMES.load(Relaxed)) - 1;
        let (mut word, mut n) = (sp, 0);
        for return_addr in from_call.skip(1).map(|addr| addr + 1).take(n_words) {
            // SAFETY: it is on the stack, above that of the frame before.
            while unsafe { word.read() } != return_addr {
                word = word.wrapping_add(1);
            }
            record.offsets[n / GROUP][n % GROUP] = (word.addr() - sp.addr()) as u32;
            record.values[n / GROUP][n % GROUP] = return_addr;
            // The next one may be the same address.
            word = word.wrapping_add(1);
            n += 1;
        }
        if n == 0 && n_words > 0 {
            N_EMPTY.fetch_add(1, Relaxed);
        }
        record.n_groups = n.div_ceil(GROUP);
        // What is missing of the last group are others once more.
        for i in n..record.n_groups * GROUP {
            record.offsets[i / GROUP][i % GROUP] = record.offsets[0][0];
            record.values[i / GROUP][i % GROUP] = record.values[0][0];
        }
        record
    }
}
