//! Calls through a library that is loaded for that, and unloaded after, when the next comes to lie at
//! its address.
//!
//! The libraries differ in nothing but the size of their frames. Each is called by a function of its
//! own, whose frame is larger by as much as the library's is smaller: the rest of the path is taken
//! twice, at the same stack pointer. And the frame of a library is full of return addresses into the
//! caller of the one before, so that each word that a walk by the old rules reads is there, with
//! its old value. Only who knows that a library was unloaded does not believe it.

use super::Next;
use crate::plan::Step;

/// Whether a library was loaded where another had been.
#[cfg(not(target_feature = "crt-static"))]
pub(crate) use library::{call, is_address_reused};

#[cfg(target_feature = "crt-static")]
pub(crate) fn call(_: Step, _: Next<'_>) {
    unreachable!("a static program loads no libraries")
}

#[cfg(target_feature = "crt-static")]
pub(crate) fn is_address_reused() -> bool {
    false
}

#[cfg(not(target_feature = "crt-static"))]
mod library {
    use super::*;
    use crate::calls::c_frame::{Callback, call_next, data_of};
    use libc::c_void;
    use std::collections::HashMap;
    use std::ffi::CString;
    use std::hint::black_box;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::sync::{Mutex, PoisonError};

    const PATHS: [&str; 3] = [env!("LATE_0"), env!("LATE_1"), env!("LATE_2")];

    static IS_REUSED: AtomicBool = AtomicBool::new(false);
    /// Which library was last at an address. Held while one is loaded, and from before one is
    /// unloaded until its rules are forgotten: no other comes to lie there in between.
    static LOADED: Mutex<Option<HashMap<usize, usize>>> = Mutex::new(None);

    /// Sizes of the libraries' frames, as `build.rs` has them.
    const FRAMES: [usize; 3] = [1024, 2048, 3072];

    /// Returns the address that the function returns to.
    type Late = unsafe extern "C-unwind" fn(Callback, *mut c_void, *mut c_void) -> *mut c_void;
    type Caller = unsafe extern "C-unwind" fn(
        n_bytes: usize,
        late: Late,
        f: Callback,
        data: *mut c_void,
        decoy: *mut c_void,
    ) -> *mut c_void;

    unsafe extern "C-unwind" {
        fn memtrace_late_caller_0(
            _: usize,
            _: Late,
            _: Callback,
            _: *mut c_void,
            _: *mut c_void,
        ) -> *mut c_void;
        fn memtrace_late_caller_1(
            _: usize,
            _: Late,
            _: Callback,
            _: *mut c_void,
            _: *mut c_void,
        ) -> *mut c_void;
        fn memtrace_late_caller_2(
            _: usize,
            _: Late,
            _: Callback,
            _: *mut c_void,
            _: *mut c_void,
        ) -> *mut c_void;
    }

    const CALLERS: [Caller; 3] =
        [memtrace_late_caller_0, memtrace_late_caller_1, memtrace_late_caller_2];

    pub(crate) fn is_address_reused() -> bool {
        // Tells of itself only.
        IS_REUSED.load(Relaxed)
    }

    /// A step. All of it lies in memory, so that rounds have no more in registers than they must:
    /// what a round's frame saves of them is the same in the next.
    struct Rounds<'a> {
        next: Next<'a>,
        which: usize,
        n_left: u32,
        decoy: *mut c_void,
    }

    #[inline(never)]
    pub(crate) fn call(step: Step, next: Next<'_>) {
        let which = step.below(PATHS.len() as u64) as usize;
        let mut rounds = Rounds { next, which, n_left: 2, decoy: std::ptr::null_mut() };
        // Not to be unrolled to two calls, which return to different addresses.
        while black_box(&mut rounds).n_left > 0 {
            round(&mut rounds);
        }
    }

    #[inline(never)]
    fn round(rounds: &mut Rounds<'_>) {
        let which = rounds.which;
        let (handle, late) = load(which);
        let n_bytes = FRAMES[2] + 64 - FRAMES[which];
        let data = data_of(&mut rounds.next);
        // SAFETY: the callback gets what it expects, while it is alive; the decoy is only data.
        let decoy = unsafe { CALLERS[which](n_bytes, late, call_next, data, rounds.decoy) };
        unload(handle);
        rounds.decoy = decoy;
        rounds.which = (rounds.which + 1) % PATHS.len();
        rounds.n_left -= 1;
    }

    fn load(which: usize) -> (*mut c_void, Late) {
        let path = CString::new(PATHS[which]).expect("a path has no zero");
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the library has no initialisers.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "{path:?} is not loaded");
        // SAFETY: the handle is good, the name ends with a zero.
        let late = unsafe { libc::dlsym(handle, c"memtrace_late".as_ptr()) };
        assert!(!late.is_null());
        let before = loaded.get_or_insert_default().insert(late as usize, which);
        if before.is_some_and(|before| before != which) {
            IS_REUSED.store(true, Relaxed);
        }
        // SAFETY: the library defines the function with this signature.
        (handle, unsafe { std::mem::transmute::<*mut c_void, Late>(late) })
    }

    fn unload(handle: *mut c_void) {
        let _loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the handle is good, and is not used again.
        assert_eq!(unsafe { libc::dlclose(handle) }, 0);
        memtrace_unwind::forget_unloaded();
    }
}
