//! Captures by a function that does not save the frame pointer, below C that needs it: of two states
//! with one program counter and one stack pointer, only the frame pointer tells the stacks apart.
//!
//! Two frames share a room, most of which the inner one has in the first round and the outer one in
//! the second: what the inner one left where it was is then still there, and leads to the outer
//! function of the first round.

use super::Next;
use super::c_frame::Callback;
use crate::comparison::{self, Comparer};
use crate::kind::Kind;
use crate::plan::Step;
use libc::c_void;
use std::hint::black_box;

type SharedRoom = unsafe extern "C-unwind" fn(usize, usize, Callback, *mut c_void);

unsafe extern "C-unwind" {
    fn memtrace_shared_room_0(n_bytes: usize, n_all: usize, f: Callback, data: *mut c_void);
    fn memtrace_shared_room_1(n_bytes: usize, n_all: usize, f: Callback, data: *mut c_void);
}

/// Bytes of the room, and how many of them the outer frame has in each round.
const N_ALL: usize = 8192;
const N_OUTER: [usize; 2] = [16, 4096];
const OUTER: [SharedRoom; 2] = [memtrace_shared_room_0, memtrace_shared_room_1];

#[inline(never)]
pub(crate) fn call(_: Step, next: Next<'_>) {
    let comparer = Comparer::current();
    take_rounds(comparer.cast());
    // SAFETY: the comparer of this thread is alive, and nothing else refers to it here.
    unsafe { &mut *comparer }.compare_bare_site(Kind::LiveFramePointer);
    next();
}

/// Only the last round is compared: anything that is called between the two would overwrite what the
/// first one left.
#[inline(never)]
fn take_rounds(comparer: *mut c_void) {
    let mut i = 0;
    // Not to be unrolled to two calls, which return to different addresses.
    while *black_box(&mut i) < OUTER.len() {
        // SAFETY: the callback gets what it expects: the comparer of this thread, which is alive.
        unsafe { OUTER[i](N_OUTER[i], N_ALL, comparison::check_barely, comparer) };
        i += 1;
    }
}
