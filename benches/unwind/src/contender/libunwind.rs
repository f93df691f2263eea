//! libunwind's `unw_backtrace`, which caches rules by thread, as heaptrack uses it.
//!
//! Loaded at run time: it may be absent, and linked it would take the place of libgcc's unwinder.
#![expect(unsafe_code, reason = "calls a library in C")]

use super::backtrace::own_frames;
use crate::buffer;
use memtrace_unwind::{End, Walk};
use std::ffi::{CStr, c_int, c_void};
use std::num::NonZeroU32;
use std::sync::OnceLock;

const LIBRARY: &CStr = c"libunwind.so.8";
/// `UNW_CACHE_PER_THREAD`.
const CACHE_PER_THREAD: c_int = 2;

type Backtrace = unsafe extern "C" fn(*mut u64, c_int) -> c_int;
type SetCachingPolicy = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;

struct Library {
    backtrace: Backtrace,
    /// Frames of this file that come before the contender's.
    n_own: usize,
}

static LOADED: OnceLock<Option<Library>> = OnceLock::new();

/// Loads the library, if there is one.
pub(super) fn prepare() {
    LOADED.get_or_init(load);
}

/// Whether the library was found.
pub(super) fn is_there() -> bool {
    matches!(LOADED.get(), Some(Some(_)))
}

/// Captures, and returns the number of the stack.
#[inline(never)]
pub(super) fn site(limit: usize) -> Option<NonZeroU32> {
    let Some(Some(library)) = LOADED.get() else { return None };
    let n_own = library.n_own;
    // SAFETY: captures do not nest, as an allocation inside of one is not captured.
    let frames = unsafe { buffer::frames() };
    let wanted = n_own + limit + 1;
    // SAFETY: there is room for as many frames.
    let len = unsafe { (library.backtrace)(frames[..wanted].as_mut_ptr(), wanted as c_int) };
    let len = usize::try_from(len).unwrap_or(0).saturating_sub(n_own);
    if n_own > 0 {
        frames.copy_within(n_own.., 0);
    }
    // Return addresses become call addresses.
    frames[..len].iter_mut().for_each(|addr| *addr = addr.wrapping_sub(1));
    let end = if len > limit { End::Limit } else { End::Outermost };
    buffer::intern(frames, Walk { len: len.min(limit), end })
}

fn load() -> Option<Library> {
    // SAFETY: the library's initialisers have no demands. Its names stay local to it.
    let handle = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    let find = |name: &CStr| {
        // SAFETY: `handle` is an open library.
        let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
        (!handle.is_null() && !found.is_null()).then_some(found)
    };
    let backtrace = find(c"unw_backtrace")?;
    let set_policy = find(c"_ULx86_64_set_caching_policy")?;
    let space = find(c"_ULx86_64_local_addr_space")?;
    // SAFETY: this is the function's signature.
    let backtrace = unsafe { std::mem::transmute::<*mut c_void, Backtrace>(backtrace) };
    // SAFETY: this is the function's signature.
    let set_policy = unsafe { std::mem::transmute::<*mut c_void, SetCachingPolicy>(set_policy) };
    // SAFETY: the variable holds the address of the space of this process.
    let space = unsafe { *space.cast::<*mut c_void>() };
    // SAFETY: no other thread uses the library yet.
    unsafe { set_policy(space, CACHE_PER_THREAD) };
    Some(Library { backtrace, n_own: own_frames(|| probe(backtrace), probe as *const () as u64) })
}

/// The frames of a capture by a function as [`site`] is one.
#[inline(never)]
fn probe(backtrace: Backtrace) -> Vec<u64> {
    let mut frames = vec![0; 16];
    // SAFETY: there is room for as many frames.
    let len = unsafe { backtrace(frames.as_mut_ptr(), 16) };
    frames.truncate(usize::try_from(len).unwrap_or(0));
    frames
}
