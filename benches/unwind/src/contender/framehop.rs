//! framehop: rules cached by each thread, nothing allocated while unwinding.
#![expect(unsafe_code, reason = "reads the unwind tables of loaded objects, and the stack")]

use crate::buffer::{self, MAX_FRAMES};
use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, Module, MustNotAllocateDuringUnwind,
    UnwindRegsNative, Unwinder, UnwinderNative,
};
use memtrace_unwind::{End, Registers, Walk, here};
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::OnceLock;

type Native = UnwinderNative<&'static [u8], MustNotAllocateDuringUnwind>;
type Cache = CacheNative<MustNotAllocateDuringUnwind>;

static UNWINDER: OnceLock<Native> = OnceLock::new();

thread_local! {
    /// Made by the first capture, inside the guard.
    static CACHE: UnsafeCell<Option<Box<Cache>>> = const { UnsafeCell::new(None) };
}

/// Makes all loaded objects known.
pub(super) fn prepare() {
    UNWINDER.get_or_init(|| {
        let mut unwinder = Native::new();
        // SAFETY: the function has the signature that is asked for, and `data` is what it expects.
        unsafe { libc::dl_iterate_phdr(Some(add_module), (&raw mut unwinder).cast()) };
        unwinder
    });
}

/// The part of the rules that this thread found in its cache.
pub(super) fn rule_hits() -> Option<f64> {
    let cache = CACHE.try_with(UnsafeCell::get).ok()?;
    // SAFETY: no capture is under way.
    let stats = unsafe { &*cache }.as_ref()?.stats();
    Some(stats.hits() as f64 / stats.total() as f64)
}

/// Captures, and returns the number of the stack.
#[inline(never)]
pub(super) fn site(limit: usize) -> Option<NonZeroU32> {
    // SAFETY: captures do not nest, as an allocation inside of one is not captured.
    let frames = unsafe { buffer::frames() };
    let walk = walk(here(), limit, frames);
    buffer::intern(frames, walk)
}

/// Captures.
#[inline(never)]
pub(super) fn walk_only(limit: usize) -> Option<NonZeroU32> {
    // SAFETY: captures do not nest, as an allocation inside of one is not captured.
    let frames = unsafe { buffer::frames() };
    let walk = walk(here(), limit, frames);
    buffer::keep(frames, walk)
}

#[inline(never)]
fn walk(start: Registers, limit: usize, frames: &mut [u64; MAX_FRAMES]) -> Walk {
    let truncated = Walk { len: 0, end: End::Truncated };
    let Ok(cache) = CACHE.try_with(UnsafeCell::get) else { return truncated };
    // SAFETY: captures do not nest, as an allocation inside of one is not captured.
    let cache = unsafe { &mut *cache }.get_or_insert_with(Box::default);
    let Some(unwinder) = UNWINDER.get() else { return truncated };
    let bounds = buffer::bounds();
    let mut read = |addr: u64| {
        if addr.is_multiple_of(8) && addr >= start.sp && bounds.contains_word(addr) {
            // SAFETY: an aligned word of this thread's stack above its stack pointer.
            Ok(unsafe { (addr as *const u64).read() })
        } else {
            Err(())
        }
    };
    let mut registers = UnwindRegsNative::new(start.pc, start.sp, start.fp);
    let mut address = FrameAddress::from_instruction_pointer(start.pc);
    let mut call_addr = start.call_addr();
    let mut len = 0;
    loop {
        if len == limit {
            return Walk { len, end: End::Limit };
        }
        frames[len] = call_addr;
        len += 1;
        match unwinder.unwind_frame(address, &mut registers, cache, &mut read) {
            Ok(Some(return_addr)) => {
                let Some(next) = FrameAddress::from_return_address(return_addr) else {
                    return Walk { len, end: End::Outermost };
                };
                address = next;
                call_addr = return_addr - 1;
            }
            Ok(None) => return Walk { len, end: End::Outermost },
            Err(_) => return Walk { len, end: End::Truncated },
        }
    }
}

/// Adds one loaded object that has unwind tables.
unsafe extern "C" fn add_module(
    info: *mut libc::dl_phdr_info,
    _: usize,
    unwinder: *mut c_void,
) -> c_int {
    // SAFETY: the loader hands out a valid object.
    let info = unsafe { &*info };
    // SAFETY: this is what `prepare` handed over, and nothing else refers to it meanwhile.
    let unwinder = unsafe { &mut *unwinder.cast::<Native>() };
    let bias = info.dlpi_addr;
    // SAFETY: the loader states where the headers are, and how many.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let segment = |header: &libc::Elf64_Phdr| {
        let start = bias + header.p_vaddr;
        start..start + header.p_memsz
    };
    let loads = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD).map(segment);
    let range = loads().reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
    let code = headers.iter().find(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_X != 0);
    let index = headers.iter().find(|header| header.p_type == libc::PT_GNU_EH_FRAME).map(segment);
    let (Some(range), Some(code), Some(index)) = (range, code.map(segment), index) else {
        return 0;
    };
    // From an address to the end of the segment that holds it.
    let rest = |addr: u64| Some(addr..loads().find(|load| load.contains(&addr))?.end);
    let Some(index) = rest(index.start) else { return 0 };
    // SAFETY: within a mapped segment; objects stay loaded.
    let index_bytes = unsafe { bytes(&index) };
    // Version 1, the address of `.eh_frame` as 32 bits relative to where it is stored: what all
    // linkers write.
    let &[1, 0x1B, _, _, a, b, c, d, ..] = index_bytes else { return 0 };
    let frames = index.start + 4;
    let frames = frames.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into());
    let Some(frames) = rest(frames) else { return 0 };
    // SAFETY: within a mapped segment; objects stay loaded.
    let frame_bytes = unsafe { bytes(&frames) };
    let in_file = |range: &Range<u64>| range.start - bias..range.end - bias;
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: Some(in_file(&code)),
        eh_frame_svma: Some(in_file(&frames)),
        eh_frame: Some(frame_bytes),
        eh_frame_hdr_svma: Some(in_file(&index)),
        eh_frame_hdr: Some(index_bytes),
        ..Default::default()
    };
    unwinder.add_module(Module::new(String::new(), range, bias, sections));
    0
}

/// # Safety
///
/// The range must be mapped, readable, and stay so unchanged.
unsafe fn bytes(range: &Range<u64>) -> &'static [u8] {
    let len = (range.end - range.start) as usize;
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(range.start as *const u8, len) }
}
