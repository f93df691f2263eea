//! Where a capture begins: the registers of the caller, and the memory of this process.
#![expect(unsafe_code, reason = "takes the caller's registers and reads its stack")]

use crate::bounds::StackBounds;
use crate::native::cache::SiteCache;
use crate::native::record::{Group, VECTOR_LEN};
use crate::native::table::{ProcessRules, forget_unloaded, generation};
use crate::native::world::World;
use crate::object;
use crate::plain;
use crate::rule::{Registers, Walk};
use crate::site::Sites;
use crate::walker::walk;
use core::num::NonZeroU32;
use core::ops::Range;

/// Prepares for captures; called once, before the first of them, it keeps them off the loader's lock.
///
/// Without it captures are right but look new addresses up with `dl_iterate_phdr`.
pub fn prepare() {
    object::prepare();
    // Rules of libgcc's code that were learned before are not those to be used from now on.
    forget_unloaded();
}

/// Captures the stack of the caller into `call_addrs`, newest frame first.
///
/// The first address lies in the caller itself. `stack` are the bounds of the current thread's own
/// stack; on another stack (a signal's, a coroutine's) a capture works, too, and trusts at most
/// 16 MiB above the stack pointer.
///
/// **Cost**: 3 to 5 ns a frame for addresses seen before, some 300 ns more for each new one.
#[inline(always)]
pub fn capture(stack: &StackBounds, call_addrs: &mut [u64]) -> Walk {
    walk_from(here(), stack, call_addrs)
}

#[inline(never)]
fn walk_from(start: Registers, stack: &StackBounds, call_addrs: &mut [u64]) -> Walk {
    let stack = &stack.if_told();
    let read = |addr: u64| Some(read_word(addr));
    let before = generation();
    let result = walk(start, stack, &mut ProcessRules::new(), read, call_addrs);
    if generation() == before {
        return result;
    }
    // A library was found to be another than before, perhaps beyond frames that its old rules led to.
    walk(start, stack, &mut ProcessRules::new(), read, call_addrs)
}

/// Captures as [`capture`] does, by [`plain::walk`]: slower, and simple enough to be believed.
#[inline(always)]
pub fn capture_plainly(stack: &StackBounds, call_addrs: &mut [u64]) -> Walk {
    walk_plainly_from(here(), stack, call_addrs)
}

#[inline(never)]
fn walk_plainly_from(start: Registers, stack: &StackBounds, call_addrs: &mut [u64]) -> Walk {
    let stack = &stack.if_told();
    plain::walk(start, stack, &mut ProcessRules::new(), |addr| Some(read_word(addr)), call_addrs)
}

/// Returns the extent of the function that holds `call_addr`, as its unwind table states it.
///
/// The parts of a function that the compiler split off count as functions of their own.
pub fn function_range(call_addr: u64) -> Option<Range<u64>> {
    object::with_unwind_tables(call_addr, |tables| tables.function_range(call_addr))?
}

/// Returns the registers at this point of the function that it is inlined into.
///
/// The program counter is that of the instruction that reads it; less one, it lies inside the same
/// function, and its unwind rule is good for the two other registers.
#[inline(always)]
pub fn here() -> Registers {
    let (pc, sp, fp);
    // SAFETY: reads three registers and writes nothing.
    unsafe {
        core::arch::asm!(
            "lea {pc}, [rip]",
            "mov {sp}, rsp",
            "mov {fp}, rbp",
            pc = out(reg) pc,
            sp = out(reg) sp,
            fp = out(reg) fp,
            options(nomem, nostack, preserves_flags),
        );
    }
    Registers { pc, sp, fp, is_exact_pc: false }
}

/// Returns the registers of the caller of a function, as they are when that has returned.
///
/// For functions without a frame that pass on where they were called from. The program counter is the return
/// address.
///
/// # Safety
///
/// `sp` is the stack pointer that the function returns with, below which its return address lies, and `fp` is
/// what the frame pointer register was when it was called.
#[inline(always)]
pub unsafe fn caller(sp: *const u64, fp: u64) -> Registers {
    // SAFETY: the caller's promise.
    let pc = unsafe { sp.wrapping_sub(1).read() };
    Registers { pc, sp: sp.addr() as u64, fp, is_exact_pc: false }
}

/// Reads a word of a stack of this process for a walk of its own.
#[inline(always)]
pub(crate) fn read_word(addr: u64) -> u64 {
    // SAFETY: a walk asks only for aligned words above the stack pointer of a live frame: in the
    // thread's own stack, or where the unwind tables of the running code say that a caller's frame
    // lies (the walker's I1).
    unsafe { (addr as *const u64).read() }
}

impl SiteCache {
    /// Returns the site of the stack that [`here`] was called on, as [`Self::site_of_caller`] does.
    ///
    /// So a tool whose capture is some calls deep in functions of its own begins where it was entered.
    ///
    /// # Safety
    ///
    /// `start` is what [`here`] returned, on this thread, in a function that has not returned since; or what
    /// [`caller`] did, of a function to which control has not come back since.
    #[inline(always)]
    pub unsafe fn site_from(
        &mut self,
        start: Registers,
        stack: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        self.site(&Process, start, stack, limit, sites)
    }

    /// Returns the site of a stack as [`Self::site_from`] does, if it is remembered where it is likeliest to
    /// be: a few instructions, and a few more for each frame. At most as many frames of it as the last
    /// [`Self::site_from`] or [`Self::site_unrecalled`] was asked for.
    ///
    /// # Safety
    ///
    /// As for [`Self::site_from`].
    #[inline(always)]
    pub unsafe fn recall(&mut self, start: Registers) -> Option<NonZeroU32> {
        self.recall_in(&Process, start)
    }

    /// Returns the site of a stack as [`Self::recall`] does, if the last capture was asked for one frame; else `None`.
    ///
    /// # Safety
    ///
    /// As for [`Self::site_from`].
    #[inline(always)]
    pub unsafe fn recall_one_frame(&mut self, start: Registers) -> Option<NonZeroU32> {
        self.recall_one_frame_in(&Process, start)
    }

    /// Returns the site of a stack as [`Self::recall`] does, where several stacks begin alike, and words further out
    /// tell which of them it is likeliest to be; `None` for all others.
    ///
    /// # Safety
    ///
    /// As for [`Self::site_from`].
    #[inline(always)]
    pub unsafe fn recall_further(&mut self, start: Registers) -> Option<NonZeroU32> {
        self.recall_further_in(&Process, start)
    }

    /// Returns the site of a stack as [`Self::site_from`] does, when [`Self::recall`] has not, nor
    /// [`Self::recall_one_frame`], nor [`Self::recall_further`].
    ///
    /// # Safety
    ///
    /// As for [`Self::site_from`].
    #[inline(always)]
    pub unsafe fn site_unrecalled(
        &mut self,
        start: Registers,
        stack: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        self.unrecalled_in(&Process, &start, stack, limit, sites)
    }
}

/// This process.
pub(crate) struct Process;

impl World for Process {
    type Rules = ProcessRules;

    #[inline(always)]
    fn rules(&self) -> ProcessRules {
        ProcessRules::new()
    }

    #[inline(always)]
    fn read_word(&self, addr: u64) -> u64 {
        read_word(addr)
    }

    #[inline(always)]
    fn differ_by_pairs(&self, sp: u64, groups: &[Group]) -> bool {
        let Range { start, end } = groups.as_ptr_range();
        debug_assert!(start != end && start.addr().is_multiple_of(8 * VECTOR_LEN));
        let equal: u32;
        // SAFETY: reads the groups, which are one or more and lie where vectors do, and, as `read_word` does, two words
        // at each of their places. Every x86_64 processor has SSE2. In assembly, for the compiler would save more
        // registers at the beginning of each capture. Words that have changed are the exception, so all are looked at.
        unsafe {
            core::arch::asm!(
                "pcmpeqd {all}, {all}",
                "2:",
                "movzx {place:e}, word ptr [{group} + 64]",
                "movdqu {two}, xmmword ptr [{sp} + 8 * {place:r}]",
                "pcmpeqd {two}, xmmword ptr [{group}]",
                "pand {all}, {two}",
                "movzx {place:e}, word ptr [{group} + 66]",
                "movdqu {two}, xmmword ptr [{sp} + 8 * {place:r}]",
                "pcmpeqd {two}, xmmword ptr [{group} + 16]",
                "pand {all}, {two}",
                "movzx {place:e}, word ptr [{group} + 68]",
                "movdqu {two}, xmmword ptr [{sp} + 8 * {place:r}]",
                "pcmpeqd {two}, xmmword ptr [{group} + 32]",
                "pand {all}, {two}",
                "movzx {place:e}, word ptr [{group} + 70]",
                "movdqu {two}, xmmword ptr [{sp} + 8 * {place:r}]",
                "pcmpeqd {two}, xmmword ptr [{group} + 48]",
                "pand {all}, {two}",
                "add {group}, {group_size}",
                "cmp {group}, {end}",
                "jne 2b",
                "pmovmskb {place:e}, {all}",
                group = inout(reg) start => _,
                end = in(reg) end,
                group_size = const size_of::<Group>(),
                sp = in(reg) sp,
                place = out(reg) equal,
                all = out(xmm_reg) _,
                two = out(xmm_reg) _,
                options(readonly, nostack),
            );
        }
        equal != 0xFFFF
    }

    #[inline(always)]
    fn differ_by_singles(&self, sp: u64, groups: &[Group]) -> bool {
        let Range { start, end } = groups.as_ptr_range();
        if start == end {
            return false;
        }
        debug_assert!(start.addr().is_multiple_of(8 * VECTOR_LEN));
        let equal: u32;
        // SAFETY: the same, with one word at each place. In assembly, for no compiler puts two words of memory into a
        // vector and leaves the other registers alone.
        unsafe {
            core::arch::asm!(
                "pcmpeqd {all}, {all}",
                "2:",
                "movzx {place:e}, word ptr [{group} + 64]",
                "movq {two}, qword ptr [{sp} + 8 * {place:r}]",
                "movzx {place:e}, word ptr [{group} + 66]",
                "movhps {two}, qword ptr [{sp} + 8 * {place:r}]",
                "pcmpeqd {two}, xmmword ptr [{group}]",
                "pand {all}, {two}",
                "movzx {place:e}, word ptr [{group} + 68]",
                "movq {two}, qword ptr [{sp} + 8 * {place:r}]",
                "movzx {place:e}, word ptr [{group} + 70]",
                "movhps {two}, qword ptr [{sp} + 8 * {place:r}]",
                "pcmpeqd {two}, xmmword ptr [{group} + 16]",
                "pand {all}, {two}",
                "movzx {place:e}, word ptr [{group} + 72]",
                "movq {two}, qword ptr [{sp} + 8 * {place:r}]",
                "movzx {place:e}, word ptr [{group} + 74]",
                "movhps {two}, qword ptr [{sp} + 8 * {place:r}]",
                "pcmpeqd {two}, xmmword ptr [{group} + 32]",
                "pand {all}, {two}",
                "movzx {place:e}, word ptr [{group} + 76]",
                "movq {two}, qword ptr [{sp} + 8 * {place:r}]",
                "movzx {place:e}, word ptr [{group} + 78]",
                "movhps {two}, qword ptr [{sp} + 8 * {place:r}]",
                "pcmpeqd {two}, xmmword ptr [{group} + 48]",
                "pand {all}, {two}",
                "add {group}, {group_size}",
                "cmp {group}, {end}",
                "jne 2b",
                "pmovmskb {place:e}, {all}",
                group = inout(reg) start => _,
                end = in(reg) end,
                group_size = const size_of::<Group>(),
                sp = in(reg) sp,
                place = out(reg) equal,
                all = out(xmm_reg) _,
                two = out(xmm_reg) _,
                options(readonly, nostack),
            );
        }
        equal != 0xFFFF
    }

    #[inline(always)]
    fn trusted(&self, stack: &StackBounds) -> StackBounds {
        stack.if_told()
    }

    #[inline(always)]
    fn generation(&self) -> u32 {
        generation()
    }

    #[inline(always)]
    fn cycles(&self) -> u64 {
        // SAFETY: reads a counter, which every x86_64 processor has.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    fn look_for_unloaded(&self, mut call_addrs: impl Iterator<Item = u64>) {
        if !call_addrs.all(object::is_as_learned) {
            forget_unloaded();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use proptest::prelude::*;

    /// Groups where vectors lie.
    #[repr(align(16))]
    struct Aligned([Group; 8]);

    fn place() -> impl Strategy<Value = u64> {
        prop_oneof![0..65u64, 0x7FF0..0x8010u64, 0xFFF0..0x10000u64]
    }

    /// Makes groups of the words that lie at some places, `n` at each.
    fn groups(words: &[u64], places: &[[u64; 8]], n: usize) -> Aligned {
        let mut aligned = Aligned([[0; 10]; 8]);
        for (group, places) in aligned.0.iter_mut().zip(places) {
            for (i, &place) in places.iter().take(8 / n).enumerate() {
                let values = &words[place as usize..place as usize + n];
                group[n * i..n * (i + 1)].copy_from_slice(values);
                group[8 + i / 4] |= place << (16 * (i % 4));
            }
        }
        aligned
    }

    proptest! {
        #[test]
        fn words_compared_at_once_differ_where_any_of_them_does(
            seed: u64,
            places in prop::collection::vec(prop::array::uniform8(place()), 0..8),
            are_pairs: bool,
            changed in prop::option::of((0..64usize, 0..64u32)),
        ) {
            let words: std::vec::Vec<u64> =
                (0..0x10001).map(|i| (i ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
            let mut groups = groups(&words, &places, if are_pairs { 2 } else { 1 });
            let changed = changed.filter(|(i, _)| i / 8 < places.len());
            if let Some((i, bit)) = changed {
                groups.0[i / 8][i % 8] ^= 1 << bit;
            }
            let (sp, groups) = (words.as_ptr() as u64, &groups.0[..places.len()]);
            if are_pairs {
                prop_assume!(!groups.is_empty());
                prop_assert_eq!(Process.differ_by_pairs(sp, groups), changed.is_some());
            } else {
                prop_assert_eq!(Process.differ_by_singles(sp, groups), changed.is_some());
            }
        }
    }
}
