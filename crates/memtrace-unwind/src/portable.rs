//! Captures for targets without a walker of their own: the system's unwinder, through `backtrace`.
//!
//! It takes 130 to 250 ns a frame. On some systems it takes the loader's lock. The call address of a
//! frame that a signal interrupted is the byte before the interrupted instruction: the unwinder does not
//! say which frames are such.
//!
//! # Mechanism
//!
//! The unwinder begins in functions of this crate. Which of its frames is the one that a capture was
//! asked from, stack pointers tell: [`here`] returns the address of a variable in that frame, so that
//! it is the first frame whose caller's stack pointer is above that address.

use crate::bounds::StackBounds;
use crate::counts::Counts;
use crate::hash::{StackHash, Sum};
use crate::rule::{End, Registers, Walk};
use crate::site::Sites;
use core::marker::PhantomData;
use core::num::NonZeroU32;
use core::ops::Range;

/// Nothing needs to be prepared here.
pub fn prepare() {}

/// Captures the stack of the caller into `call_addrs`, newest frame first.
///
/// The first address lies in the caller itself. The system's unwinder does not tell a stack that it
/// could not follow from one that it followed to the end: [`End::Truncated`] is never returned.
#[inline(always)]
pub fn capture(_: &StackBounds, call_addrs: &mut [u64]) -> Walk {
    capture_from(here(), call_addrs)
}

/// Captures as [`capture`] does: there is one walk only.
#[inline(always)]
pub fn capture_plainly(stack: &StackBounds, call_addrs: &mut [u64]) -> Walk {
    capture(stack, call_addrs)
}

#[inline(never)]
fn capture_from(start: Registers, call_addrs: &mut [u64]) -> Walk {
    copy(start, |_| false, call_addrs)
}

/// Returns what is known of the registers at this point of the function that it is inlined into: an
/// address in its frame as the stack pointer. The others are zero.
#[inline(always)]
pub fn here() -> Registers {
    let local = 0u8;
    // So that it has an address.
    let sp = core::hint::black_box(core::ptr::from_ref(&local)).addr() as u64;
    Registers { pc: 0, sp, fp: 0, is_exact_pc: false }
}

/// Calls `visit` with the call address of each frame, from the one that `start` is in, until it returns
/// `false`.
#[inline(never)]
fn trace(start: Registers, visit: &mut dyn FnMut(u64) -> bool) {
    // The newest frame that may be the first, until its caller is seen.
    let mut pending = None;
    let mut is_below = false;
    let mut on_frame = |frame: &backtrace::Frame| {
        let pc = frame.ip().addr() as u64;
        if !is_below {
            if frame.sp().addr() as u64 <= start.sp {
                pending = Some(pc);
                return true;
            }
            is_below = true;
            if pending.take().is_some_and(|pc| !visit(pc.wrapping_sub(1))) {
                return false;
            }
        }
        pc != 0 && visit(pc.wrapping_sub(1))
    };
    trace_all(&mut on_frame);
    // The outermost frame, or a system whose unwinder does not tell of stack pointers.
    if let Some(pc @ 1..) = pending {
        visit(pc.wrapping_sub(1));
    }
}

#[expect(unsafe_code, reason = "the synchronised variant takes a lock")]
fn trace_all(visit: &mut dyn FnMut(&backtrace::Frame) -> bool) {
    // SAFETY: synchronisation is asked for by Windows' dbghelp, which this crate does not support.
    unsafe { backtrace::trace_unsynchronized(visit) };
}

/// Visits the frames of a stack, without the newest that are own, and returns how it ended.
fn trace_without(
    start: Registers,
    limit: usize,
    is_own: impl Fn(u64) -> bool,
    mut visit: impl FnMut(u64),
) -> Walk {
    let mut walk = Walk { len: 0, end: End::Outermost };
    let mut is_in_own = true;
    trace(start, &mut |call_addr| {
        is_in_own = is_in_own && is_own(call_addr);
        if is_in_own {
            return true;
        }
        if walk.len == limit {
            walk.end = End::Limit;
            return false;
        }
        walk.len = walk.len.saturating_add(1);
        visit(call_addr);
        true
    });
    walk
}

/// Copies as many frames as there is room for.
fn copy(start: Registers, is_own: impl Fn(u64) -> bool, out: &mut [u64]) -> Walk {
    let limit = out.len();
    let mut slots = out.iter_mut();
    trace_without(start, limit, is_own, |call_addr| {
        if let Some(slot) = slots.next() {
            *slot = call_addr;
        }
    })
}

/// Finds the sites of stacks by a walk each: nothing is remembered here, and no memory taken.
#[derive(Default)]
pub struct SiteCache {
    n_walks: u64,
    _of_this_thread: PhantomData<*mut ()>,
}

impl SiteCache {
    /// Makes a cache, which takes no memory.
    pub const fn new() -> Self {
        Self { n_walks: 0, _of_this_thread: PhantomData }
    }

    /// Returns the site of the caller's stack, at most `limit` frames of it, those that are the tool's
    /// own left out; `None` if the table of sites has no room.
    ///
    /// **Cost**: a walk; for a stack that has no site yet, two.
    #[inline(always)]
    pub fn site_of_caller(
        &mut self,
        _: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        self.site(here(), limit, sites)
    }

    /// Returns the site of the stack that [`here`] was called on, as [`Self::site_of_caller`] does.
    ///
    /// # Safety
    ///
    /// None is needed here. Other targets ask that `start` is what [`here`] returned, on this thread, in
    /// a function that has not returned since.
    #[expect(unsafe_code, reason = "the same signature as on other targets")]
    #[inline(always)]
    pub unsafe fn site_from(
        &mut self,
        start: Registers,
        _: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        self.site(start, limit, sites)
    }

    /// Returns `None`: nothing is remembered here.
    ///
    /// # Safety
    ///
    /// None is needed here; see [`Self::site_from`].
    #[expect(unsafe_code, reason = "the same signature as on other targets")]
    #[inline(always)]
    pub unsafe fn recall(&mut self, _: Registers) -> Option<NonZeroU32> {
        None
    }

    /// Returns `None`, as [`Self::recall`] does.
    ///
    /// # Safety
    ///
    /// None is needed here; see [`Self::site_from`].
    #[expect(unsafe_code, reason = "the same signature as on other targets")]
    #[inline(always)]
    pub unsafe fn recall_one_frame(&mut self, _: Registers) -> Option<NonZeroU32> {
        None
    }

    /// Returns `None`, as [`Self::recall`] does.
    ///
    /// # Safety
    ///
    /// None is needed here; see [`Self::site_from`].
    #[expect(unsafe_code, reason = "the same signature as on other targets")]
    #[inline(always)]
    pub unsafe fn recall_further(&mut self, _: Registers) -> Option<NonZeroU32> {
        None
    }

    /// Returns the site of a stack as [`Self::site_from`] does.
    ///
    /// # Safety
    ///
    /// None is needed here; see [`Self::site_from`].
    #[expect(unsafe_code, reason = "the same signature as on other targets")]
    #[inline(always)]
    pub unsafe fn site_unrecalled(
        &mut self,
        start: Registers,
        _: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        self.site(start, limit, sites)
    }

    /// Not inlined, so that both walks find the caller at the same call.
    #[inline(never)]
    fn site(&mut self, start: Registers, limit: usize, sites: &impl Sites) -> Option<NonZeroU32> {
        self.n_walks = self.n_walks.wrapping_add(1);
        let found = site_without(start, limit, sites, |addr| sites.is_own(addr));
        // A stack that is the tool's own altogether was cut there: better those frames than none.
        found.unwrap_or_else(|| site_without(start, limit, sites, |_| false).flatten())
    }

    /// Forgets nothing: nothing is remembered.
    pub fn forget(&mut self) {}

    /// Takes no memory from now on: nor did it before.
    pub fn retire(&mut self) {}

    /// Returns how the captures so far were answered: by a walk each.
    pub fn counts(&self) -> Counts {
        Counts { n_plain: self.n_walks, ..Counts::default() }
    }

    /// Returns the bytes mapped for this cache: none.
    pub fn memory(&self) -> usize {
        0
    }
}

/// Returns the site of a stack without its own frames; `None` if it has no others.
fn site_without<S: Sites>(
    start: Registers,
    limit: usize,
    sites: &S,
    is_own: impl Fn(u64) -> bool,
) -> Option<Option<NonZeroU32>> {
    let mut sum = Sum::new();
    let walk = trace_without(start, limit, &is_own, |call_addr| sum.push(call_addr));
    if walk.len == 0 && walk.end == End::Outermost {
        return None;
    }
    let insert = || {
        sites.with_buffer(limit, |buffer| {
            let buffer = buffer.get_mut(..limit)?;
            let walk = copy(start, is_own, buffer);
            let call_addrs = buffer.get(..walk.len)?;
            sites.insert(StackHash::of(call_addrs, walk.end), call_addrs, walk.end)
        })?
    };
    Some(sites.find(sum.finish(walk.end)).or_else(insert))
}

/// There are no caches with memory here.
pub fn set_cache_budget(_: u64) {}

/// Nothing is mapped here.
pub fn cache_memory() -> u64 {
    0
}

/// The extent of functions is not known here.
pub fn function_range(_: u64) -> Option<Range<u64>> {
    None
}

/// Nothing is kept here.
pub fn forget_unloaded() {}

/// There is no table here.
pub fn rule_table() -> (*const u8, usize) {
    (core::ptr::null(), 0)
}
