//! A C library tells of its memory.

use memtrace::{DomainFilter, KeyType};
// The C library is linked into this one.
use memtrace_tests as _;
use std::ffi::{c_int, c_void};
use std::ptr;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

unsafe extern "C" {
    fn pool_open(pool: *mut *mut c_void, size: usize) -> c_int;
    fn pool_close(pool: *mut c_void) -> c_int;
}

const POOL_DOMAIN: u32 = 77;
const SIZE: usize = 54_321;

#[test]
fn memory_of_a_c_library_has_the_stack_of_its_c_caller() {
    let mut pool = ptr::null_mut();
    // SAFETY: a place for the pool.
    let code = unsafe { pool_open(&raw mut pool, SIZE) };
    assert_eq!(code, -2, "tracing is off");
    // SAFETY: opened above.
    assert_eq!(unsafe { pool_close(pool) }, -2);

    memtrace::start(25).unwrap();
    // SAFETY: a place for the pool.
    assert_eq!(unsafe { pool_open(&raw mut pool, SIZE) }, 0);
    let snapshot = memtrace::take_snapshot().unwrap();
    let pools = snapshot.filter_traces(&[DomainFilter::include(POOL_DOMAIN)]);
    let traces: Vec<_> = pools.traces().collect();
    assert_eq!((traces.len(), traces[0].size), (1, SIZE as u64));
    // Frames of memtrace itself are not shown: the newest is the C function that called.
    let newest = traces[0].traceback.newest().unwrap();
    assert_eq!(newest.function.as_deref(), Some("pool_open"), "{:?}", traces[0].traceback);
    assert!(newest.filename.ends_with("pool.c"), "{newest:?}");
    let caller = traces[0].traceback.iter().rev().nth(1).unwrap();
    assert!(caller.filename.ends_with("c_symbols.rs"), "{caller:?}");
    let domains = snapshot.statistics(KeyType::Domain);
    assert!(domains.iter().any(|d| *d.traceback[0].filename == *"<domain 77>" && d.count == 1));

    // SAFETY: opened above.
    assert_eq!(unsafe { pool_close(pool) }, 0);
    let snapshot = memtrace::take_snapshot().unwrap();
    assert_eq!(snapshot.filter_traces(&[DomainFilter::include(POOL_DOMAIN)]).n_traces(), 0);
}
