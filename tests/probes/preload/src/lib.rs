//! C's allocation functions on top of the heap: `LD_PRELOAD=libpreload.so program`.
//!
//! C's `free` names no size, so blocks are taken with the whole size of their class
//! ([`Heap::usable_layout`]) and given back with what the heap finds for the address.
//!
//! If the environment has `MEMTRACE_PRELOAD_REPORT`, a path, the library appends a line to that file as
//! the process exits: the process's number, blocks ever handed out, blocks in use, refused calls, and
//! what [`Heap::verify`] says.

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{c_char, c_int, c_void};
use core::fmt::{self, Write};
use core::ptr;

use memtrace_heap::{Config, Heap, PAGE_SIZE, SystemPages};

static HEAP: Heap = Heap::new(Config::new());

/// What C promises of every block.
const MIN_ALIGN: usize = 16;

fn out_of_memory() -> *mut c_void {
    // SAFETY: the C library's own variable.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    ptr::null_mut()
}

/// The layout to take a block with.
fn layout(size: usize, align: usize) -> Option<Layout> {
    let layout = Layout::from_size_align(size.max(1), align.max(MIN_ALIGN)).ok()?;
    Some(Heap::<SystemPages>::usable_layout(layout))
}

fn take(size: usize, align: usize) -> *mut c_void {
    let Some(layout) = layout(size, align) else { return out_of_memory() };
    // SAFETY: the size is not zero.
    let block = unsafe { HEAP.alloc(layout) };
    if block.is_null() { out_of_memory() } else { block.cast() }
}

fn give_back(ptr: *mut c_void) {
    // What is no block in use is for the heap to count.
    let layout = HEAP.layout_of(ptr.cast()).unwrap_or(Layout::new::<u8>());
    // SAFETY: a block in use with a layout of it, or something that the heap refuses.
    unsafe { HEAP.dealloc(ptr.cast(), layout) };
}

/// See `malloc(3)`.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    take(size, MIN_ALIGN)
}

/// See `calloc(3)`.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(n: usize, size: usize) -> *mut c_void {
    let asked = n.checked_mul(size).and_then(|size| layout(size, MIN_ALIGN));
    let Some(layout) = asked else { return out_of_memory() };
    // SAFETY: the size is not zero.
    let block = unsafe { HEAP.alloc_zeroed(layout) };
    if block.is_null() { out_of_memory() } else { block.cast() }
}

/// See `free(3)`.
///
/// # Safety
/// As C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(ptr: *mut c_void) {
    if !ptr.is_null() {
        give_back(ptr);
    }
}

/// See `realloc(3)`.
///
/// # Safety
/// As C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(ptr: *mut c_void, size: usize) -> *mut c_void {
    if ptr.is_null() {
        return malloc(size);
    }
    if size == 0 {
        give_back(ptr);
        return ptr::null_mut();
    }
    let (Some(old), Some(new)) = (HEAP.layout_of(ptr.cast()), layout(size, MIN_ALIGN)) else {
        return out_of_memory();
    };
    // SAFETY: a block in use with a layout of it.
    let moved = unsafe { HEAP.realloc(ptr.cast(), old, new.size()) };
    if moved.is_null() { out_of_memory() } else { moved.cast() }
}

/// See `reallocarray(3)`.
///
/// # Safety
/// As C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(ptr: *mut c_void, n: usize, size: usize) -> *mut c_void {
    match n.checked_mul(size) {
        // SAFETY: the caller's.
        Some(size) => unsafe { realloc(ptr, size) },
        None => out_of_memory(),
    }
}

/// See `posix_memalign(3)`.
///
/// # Safety
/// As C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<usize>()) {
        return libc::EINVAL;
    }
    let block = take(size, align);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's.
    unsafe { *out = block };
    0
}

/// See `aligned_alloc(3)`.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    take(size, align)
}

/// See `memalign(3)`.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    // The C library's rounds up, too.
    take(size, align.checked_next_power_of_two().unwrap_or(0))
}

/// See `valloc(3)`.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    take(size, PAGE_SIZE)
}

/// See `pvalloc(3)`.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    match size.checked_next_multiple_of(PAGE_SIZE) {
        Some(size) => take(size, PAGE_SIZE),
        None => out_of_memory(),
    }
}

/// See `malloc_usable_size(3)`.
///
/// # Safety
/// As C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(ptr: *mut c_void) -> usize {
    if ptr.is_null() { 0 } else { HEAP.usable_size(ptr.cast()).unwrap_or(0) }
}

/// A line that is made without allocating.
struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len.checked_add(text.len()).ok_or(fmt::Error)?;
        let place = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

extern "C" fn report() {
    // SAFETY: a name that ends in zero; the environment does not change while a process exits.
    let path: *const c_char = unsafe { libc::getenv(c"MEMTRACE_PRELOAD_REPORT".as_ptr()) };
    if path.is_null() {
        return;
    }
    let stats = HEAP.stats();
    let in_pools: u64 = stats.classes.iter().map(|class| class.n_blocks_total).sum();
    let n_total = in_pools + stats.runs.n_total + stats.mappings.n_total;
    let mut line = Line { bytes: [0; 256], len: 0 };
    let _ = writeln!(
        line,
        "{}\t{n_total}\t{}\t{}\t{:?}",
        std::process::id(),
        stats.n_blocks_used(),
        stats.invalid_frees.n_total(),
        HEAP.verify()
    );
    // SAFETY: the path ends in zero, the line is as long as is said.
    unsafe {
        let file = libc::open(path, libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT, 0o644);
        libc::write(file, line.bytes.as_ptr().cast(), line.len);
        libc::close(file);
    }
}

#[used]
#[unsafe(link_section = ".fini_array")]
static REPORT: extern "C" fn() = report;
