//! Calls through a library that is loaded for that, and unloaded after: the next one may come to lie
//! at its address.

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
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::sync::{Mutex, PoisonError};

    const PATHS: [&str; 3] = [env!("LATE_0"), env!("LATE_1"), env!("LATE_2")];

    static IS_REUSED: AtomicBool = AtomicBool::new(false);
    /// Which library was last at an address. Held while one is loaded, and from before one is
    /// unloaded until its rules are forgotten: no other comes to lie there in between.
    static LOADED: Mutex<Option<HashMap<usize, usize>>> = Mutex::new(None);

    type Late = unsafe extern "C-unwind" fn(f: Callback, data: *mut c_void);

    pub(crate) fn is_address_reused() -> bool {
        // Tells of itself only.
        IS_REUSED.load(Relaxed)
    }

    #[inline(never)]
    pub(crate) fn call(step: Step, mut next: Next<'_>) {
        let (handle, late) = load(step.below(PATHS.len() as u64) as usize);
        // SAFETY: the callback gets what it expects, while it is alive.
        unsafe { late(call_next, data_of(&mut next)) };
        unload(handle);
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
