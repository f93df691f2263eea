//! `track` and `untrack` for C, as `include/memtrace.h` declares them.
//!
//! The return codes are those of `PyTraceMalloc_Track` and `PyTraceMalloc_Untrack`.
#![expect(unsafe_code, reason = "symbols with names of their own")]

use crate::tracked::{TrackError, track, untrack};
use core::ffi::{c_int, c_uint};

const NO_MEMORY: c_int = -1;
const NOT_TRACING: c_int = -2;

fn code(result: Result<(), TrackError>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(TrackError::NoRoom) => NO_MEMORY,
        Err(TrackError::NotTracing) => NOT_TRACING,
    }
}

// SAFETY: no other function of this name: the prefix is the project's.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn memtrace_track(domain: c_uint, addr: usize, size: usize) -> c_int {
    code(track(domain, addr as u64, size as u64))
}

// SAFETY: as above.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn memtrace_untrack(domain: c_uint, addr: usize) -> c_int {
    code(untrack(domain, addr as u64))
}
