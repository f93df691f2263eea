//! Code that was registered at run time, such as a JIT's: its unwind tables belong to no loaded
//! object, but libgcc was told of them, by `__register_frame`.
//!
//! Where no object holds an address, libgcc is asked at each step, since the code may be given back
//! and other code written in its place: what is learned of such an address never enters a table.
//!
//! Asking may take libgcc's own lock. It is not asked when a frame further in lies in libgcc,
//! because it may be this thread that holds the lock (libgcc allocates while it does): a stack that
//! leads through libgcc and, further out, through registered code is truncated there. So that this
//! is noticed without a test at each frame, the addresses in libgcc have rules that are
//! interpreted.
//!
//! # Invariants
//!
//! - **I1** `UNWINDER` is the range of the object that holds the function in `FIND_FDE`, and not
//!   that of the program.
//!
//! # Orderings
//!
//! | variable | writer | reader | what is published |
//! | --- | --- | --- | --- |
//! | `FIND_FDE` | `prepare`, Release | a step, Acquire | `UNWINDER` |
//! | `UNWINDER` | `prepare`, Relaxed | a rule, a step; Relaxed | nothing |
#![expect(unsafe_code, reason = "asks libgcc, and reads the tables that it was given")]

use crate::cfi::UnwindTables;
use crate::object::{self, with_unwind_tables};
use crate::rule::{Registers, Rule};
use core::ffi::c_void;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering, Ordering::Relaxed};

/// The longest entry that is read, in bytes.
const MAX_FDE_LEN: u64 = 1 << 20;
/// The farthest that an entry's CIE may lie before it, in bytes.
const MAX_CIE_DISTANCE: u64 = 1 << 28;

/// `struct dwarf_eh_bases`, which nothing here needs.
#[repr(C)]
struct Bases([*mut c_void; 3]);

type FindFde = unsafe extern "C" fn(*mut c_void, *mut Bases) -> *const u8;

static FIND_FDE: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
/// First address and the one after the last.
static UNWINDER: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Looks libgcc up, after the loader's functions were.
pub(crate) fn prepare() {
    // SAFETY: the name is terminated; `RTLD_DEFAULT` is a valid handle.
    let find = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_Unwind_Find_FDE".as_ptr()) };
    if find.is_null() {
        return;
    }
    let Some(range) = object::mapping_of(find as u64) else { return };
    // SAFETY: looks the value up among those that the kernel passed to the program.
    let in_program = unsafe { libc::getauxval(libc::AT_ENTRY) };
    if object::mapping_of(in_program).is_none_or(|program| program == range) {
        return;
    }
    for (to, from) in UNWINDER.iter().zip([range.start, range.end]) {
        // Relaxed: published by the store below.
        to.store(from, Relaxed);
    }
    // The partner is in `ask`.
    FIND_FDE.store(find, Ordering::Release);
}

/// A rule, and whether it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// As long as the object that holds the address stays loaded.
    Lasting(Rule),
    /// For this once: no object holds the address.
    Passing(Rule),
}

/// Learns the rule of an address from the tables of the object that holds it.
///
/// Where there is none, the rule is [`Rule::INTERPRETED`], for [`Interpreter::step`] to try, and
/// passing.
pub(crate) fn learn(call_addr: u64) -> Learned {
    match with_unwind_tables(call_addr, |tables| tables.rule(call_addr)) {
        Some(rule) if rule.is_plain() && is_in_unwinder(call_addr) => {
            Learned::Lasting(Rule::INTERPRETED)
        }
        Some(rule) => Learned::Lasting(rule),
        None if FIND_FDE.load(Relaxed).is_null() => Learned::Passing(Rule::UNKNOWN),
        None => Learned::Passing(Rule::INTERPRETED),
    }
}

/// Interprets unwind tables during one walk, which goes outward.
#[derive(Debug)]
pub(crate) struct Interpreter {
    /// Whether a frame in libgcc was stepped out of.
    has_met_unwinder: bool,
}

impl Interpreter {
    pub(crate) const fn new() -> Self {
        Self { has_met_unwinder: false }
    }

    /// Steps out of the frame of `registers`, whose rule is [`Rule::INTERPRETED`].
    pub(crate) fn step(
        &mut self,
        registers: Registers,
        read_word: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Option<Registers> {
        let call_addr = registers.call_addr();
        let by_object =
            with_unwind_tables(call_addr, |tables| tables.step(registers, &mut *read_word));
        if let Some(answer) = by_object {
            self.has_met_unwinder |= is_in_unwinder(call_addr);
            return answer;
        }
        if self.has_met_unwinder {
            return None;
        }
        let fde = ask(call_addr)?;
        let (tables, offset) = tables_of(fde)?;
        tables.step_by_entry(offset, registers, read_word)
    }
}

fn is_in_unwinder(call_addr: u64) -> bool {
    let [start, end] = &UNWINDER;
    (start.load(Relaxed)..end.load(Relaxed)).contains(&call_addr)
}

/// Asks libgcc for the address of the entry that was registered for an address.
fn ask(call_addr: u64) -> Option<*const u8> {
    // The partner is in `prepare`.
    let find = FIND_FDE.load(Ordering::Acquire);
    if find.is_null() {
        return None;
    }
    // SAFETY: `prepare` stored the address of `_Unwind_Find_FDE`, which has this signature.
    let find = unsafe { core::mem::transmute::<*mut c_void, FindFde>(find) };
    let mut bases = Bases([core::ptr::null_mut(); 3]);
    // SAFETY: any address may be asked for; `bases` is a valid place for the result. This thread
    // does not hold libgcc's lock: no frame of libgcc is among those further in.
    let fde = unsafe { find(call_addr as *mut c_void, &mut bases) };
    (!fde.is_null()).then_some(fde)
}

/// The part of a section from an entry's CIE to the end of the entry, and the entry's offset in it.
fn tables_of(fde: *const u8) -> Option<(UnwindTables<'static>, usize)> {
    let word_at = |addr: u64| {
        // SAFETY: length and distance begin each entry, and libgcc has read them.
        unsafe { (addr as *const u32).read_unaligned() }
    };
    let fde = fde as u64;
    let len = u64::from(word_at(fde));
    let distance_addr = fde.checked_add(4)?;
    let distance = u64::from(word_at(distance_addr));
    if !(4..=MAX_FDE_LEN).contains(&len) || !(4..=MAX_CIE_DISTANCE).contains(&distance) {
        return None;
    }
    let start = distance_addr.checked_sub(distance)?;
    let offset = usize::try_from(fde.checked_sub(start)?).ok()?;
    let end = distance_addr.checked_add(len)?;
    let len = usize::try_from(end.checked_sub(start)?).ok()?;
    // SAFETY: an entry and its CIE lie in one section, which stays registered while its code runs.
    let frames = unsafe { core::slice::from_raw_parts(start as *const u8, len) };
    Some((UnwindTables::new(&[], 0, frames, start), offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain::{Rules, walk};
    use crate::{End, StackBounds, here};
    extern crate std;
    use std::sync::{Mutex, MutexGuard};
    use std::{vec, vec::Vec};

    /// What a process-wide table would answer, without one.
    struct WithoutTable(Interpreter);

    impl Rules for WithoutTable {
        fn rule(&mut self, call_addr: u64) -> Rule {
            let (Learned::Lasting(rule) | Learned::Passing(rule)) = learn(call_addr);
            rule
        }

        fn interpret(
            &mut self,
            registers: Registers,
            read_word: &mut dyn FnMut(u64) -> Option<u64>,
        ) -> Option<Registers> {
            self.0.step(registers, read_word)
        }
    }

    #[inline(always)]
    fn capture() -> (Vec<u64>, End) {
        let mut frames = vec![0; 200];
        let mut rules = WithoutTable(Interpreter::new());
        let read = |addr| Some(crate::native::entry::read_word(addr));
        let walk = walk(here(), &StackBounds::current(), &mut rules, read, &mut frames);
        frames.truncate(walk.len);
        // The table keeps nothing of what it should not.
        let mut by_table = [0; 200];
        let walk_by_table = crate::capture(&StackBounds::current(), &mut by_table);
        assert_eq!(walk, walk_by_table);
        assert_eq!(frames[1..], by_table[1..walk.len]);
        (frames, walk.end)
    }

    type Callback = extern "C" fn(*const c_void, *mut c_void);

    unsafe extern "C" {
        fn __register_frame(begin: *const u8);
        fn __deregister_frame(begin: *const u8);
    }

    /// A page of code with two functions, each of which calls its first argument, and their tables.
    struct Code {
        page: *mut u8,
        frames: Vec<u8>,
    }

    const PAGE: usize = 4096;
    /// Where the second function begins.
    const SECOND: usize = 64;

    impl Code {
        fn new() -> Self {
            // SAFETY: a new mapping.
            let page = unsafe {
                libc::mmap(
                    core::ptr::null_mut(),
                    PAGE,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            assert_ne!(page, libc::MAP_FAILED);
            let page = page.cast::<u8>();
            // push rbp; mov rbp, rsp; call rdi; pop rbp; ret
            let first = [0x55, 0x48, 0x89, 0xE5, 0xFF, 0xD7, 0x5D, 0xC3];
            // sub rsp, 24; call rdi; add rsp, 24; ret
            let second = [0x48, 0x83, 0xEC, 24, 0xFF, 0xD7, 0x48, 0x83, 0xC4, 24, 0xC3];
            for (offset, code) in [(0, &first[..]), (SECOND, &second)] {
                let to = page.wrapping_add(offset);
                // SAFETY: the page has room for this, and is nobody else's.
                unsafe { to.copy_from_nonoverlapping(code.as_ptr(), code.len()) };
            }
            // SAFETY: the page made above.
            let failed =
                unsafe { libc::mprotect(page.cast(), PAGE, libc::PROT_READ | libc::PROT_EXEC) };
            assert_eq!(failed, 0);

            // Version, no augmentation, alignments, return address; CFA = rsp + 8, return address
            // at CFA - 8.
            let mut frames = vec![20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0x78, 16, 0x0C, 7, 8, 0x90, 1];
            frames.resize(24, 0);
            // After `push`: CFA = rsp + 16, rbp at CFA - 16; after `mov`: CFA = rbp + 16; after
            // `pop`: CFA = rsp + 8. After `sub`: CFA = rsp + 32; after `add`: CFA = rsp + 8.
            let standard = [0x41, 0x0E, 16, 0x86, 2, 0x43, 0x0D, 6, 0x43, 0x0C, 7, 8, 0xC6];
            let large = [0x44, 0x0E, 32, 0x46, 0x0E, 8];
            for (offset, len, program) in
                [(0, first.len(), &standard[..]), (SECOND, second.len(), &large)]
            {
                let mut body = (frames.len() as u32 + 4).to_le_bytes().to_vec();
                body.extend((page as u64 + offset as u64).to_le_bytes());
                body.extend((len as u64).to_le_bytes());
                body.extend(program);
                body.resize(body.len().next_multiple_of(8) + 4, 0);
                frames.extend((body.len() as u32).to_le_bytes());
                frames.extend(body);
            }
            frames.extend([0; 4]);
            Self { page, frames }
        }

        fn register(&self) {
            // SAFETY: a section that ends with a zero length and outlives its registration.
            unsafe { __register_frame(self.frames.as_ptr()) };
        }

        fn deregister(&self) {
            // SAFETY: was registered.
            unsafe { __deregister_frame(self.frames.as_ptr()) };
        }

        fn contains(&self, addr: u64) -> bool {
            addr.wrapping_sub(self.page as u64) < PAGE as u64
        }

        /// Calls back from inside the function at `offset`.
        fn call(&self, offset: usize, f: &mut dyn FnMut()) {
            extern "C" fn back(_: *const c_void, data: *mut c_void) {
                // SAFETY: the reference passed below.
                let f = unsafe { &mut *data.cast::<&mut dyn FnMut()>() };
                f();
            }
            let function = self.page.wrapping_add(offset);
            // SAFETY: one of the two functions written above, which take what to call and an
            // argument.
            let function = unsafe {
                core::mem::transmute::<*mut u8, extern "C" fn(Callback, *mut c_void)>(function)
            };
            let mut f = f;
            function(back, (&raw mut f).cast());
        }
    }

    impl Drop for Code {
        fn drop(&mut self) {
            // SAFETY: mapped above, and no longer called.
            unsafe { libc::munmap(self.page.cast(), PAGE) };
        }
    }

    /// One at a time, so that the page of one test is not that of another with other registrations.
    fn alone() -> MutexGuard<'static, ()> {
        static IS_FREE: Mutex<()> = Mutex::new(());
        crate::prepare();
        IS_FREE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What the system's unwinder sees from here.
    fn return_addrs() -> Vec<u64> {
        let mut addrs = vec![];
        // SAFETY: nothing is shared.
        unsafe {
            backtrace::trace_unsynchronized(|frame| {
                addrs.push(frame.ip() as u64);
                true
            });
        }
        addrs
    }

    #[test]
    fn a_stack_through_registered_code_is_that_of_the_system_unwinder() {
        let _alone = alone();
        let code = Code::new();
        code.register();
        for offset in [0, SECOND] {
            let (mut mine, mut end, mut theirs) = (vec![], End::Limit, vec![]);
            code.call(offset, &mut || {
                (mine, end) = capture();
                theirs = return_addrs();
            });
            assert_eq!(end, End::Outermost, "{mine:x?}\n{theirs:x?}");
            // The caller of this function in the page, and all beyond it.
            let at = mine.iter().position(|&addr| code.contains(addr)).unwrap();
            let mine: Vec<_> = mine[at..].iter().map(|addr| addr + 1).collect();
            let at = theirs.iter().position(|&addr| code.contains(addr)).unwrap();
            let theirs: Vec<_> = theirs[at..].iter().copied().filter(|&addr| addr != 0).collect();
            assert_eq!(mine[0], code.page as u64 + offset as u64 + 6);
            assert!(mine.len() > 3);
            assert_eq!(mine, theirs);
        }
        code.deregister();
    }

    #[test]
    fn a_stack_through_code_that_is_no_longer_registered_is_truncated_there() {
        let _alone = alone();
        let code = Code::new();
        for is_registered in [true, false, true, false] {
            if is_registered {
                code.register();
            }
            let (mut frames, mut end) = (vec![], End::Limit);
            code.call(SECOND, &mut || (frames, end) = capture());
            let is_last = code.contains(*frames.last().unwrap());
            let expected = if is_registered { End::Outermost } else { End::Truncated };
            assert_eq!((end, is_last), (expected, !is_registered), "{frames:x?}");
            if is_registered {
                code.deregister();
            }
        }
    }

    #[test]
    fn libgcc_is_not_asked_by_a_capture_that_it_may_have_led_to() {
        let _alone = alone();
        let code = Code::new();
        code.register();
        let mut captured = None;
        code.call(0, &mut || {
            // SAFETY: nothing is shared.
            unsafe {
                backtrace::trace_unsynchronized(|_| {
                    captured.get_or_insert_with(capture);
                    true
                });
            }
        });
        code.deregister();
        let (frames, end) = captured.unwrap();
        assert!(frames.iter().any(|&addr| is_in_unwinder(addr)));
        assert!(code.contains(*frames.last().unwrap()) && end == End::Truncated, "{frames:x?}");
    }

    #[test]
    fn a_rule_is_lasting_only_where_an_object_holds_the_address() {
        let _alone = alone();
        let here = here().call_addr();
        assert!(matches!(learn(here), Learned::Lasting(rule) if rule.is_plain()));
        let find = FIND_FDE.load(Relaxed) as u64;
        assert_eq!(learn(find), Learned::Lasting(Rule::INTERPRETED));
        let code = Code::new();
        assert_eq!(learn(code.page as u64), Learned::Passing(Rule::INTERPRETED));
    }
}
