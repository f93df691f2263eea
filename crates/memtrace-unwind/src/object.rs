//! The objects that the loader has mapped: the program, its libraries, the vdso.
//!
//! For unwinding, the object that holds an address is found with glibc's `_dl_find_object`, which
//! takes no lock and sees every `dlopen` at once; where there is none, with `dl_iterate_phdr`. For
//! naming, [`for_each_object`] lists them all with what a symbolizer needs.
//!
//! # Invariants
//!
//! - **I1** Program headers and unwind tables are read only while the address that led to them is
//!   on a stack or otherwise known to be mapped: its object cannot be unloaded under the reader
//!   unless the program unloads code that it is running.
//! - **I2** A slice over a mapped section ends at the end of the segment that holds it.
#![expect(unsafe_code, reason = "reads the headers of loaded objects where they are mapped")]

use core::ffi::{CStr, c_int, c_void};
use core::ops::Range;

#[cfg(target_pointer_width = "64")]
type Phdr = libc::Elf64_Phdr;
#[cfg(target_pointer_width = "32")]
type Phdr = libc::Elf32_Phdr;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// A loaded object, as its headers in memory describe it.
#[derive(Clone, Debug)]
pub struct LoadedObject<'a> {
    /// Path by which the loader opened it; empty for the program itself and for the vdso.
    pub path: &'a [u8],
    /// What to subtract from an address in memory to get the address in the file.
    pub bias: u64,
    /// Lowest to highest mapped address.
    pub range: Range<u64>,
    /// The build id that the linker left in a note, if it did.
    pub build_id: Option<&'a [u8]>,
    /// Whether this is the program itself.
    pub is_program: bool,
}

/// Calls `visit` for each loaded object, the program first, until it returns `false`.
///
/// Takes the loader's lock meanwhile: not to be called from inside an allocator. `visit` must not
/// load or unload objects.
///
/// **Cost**: about 40 ns an object.
#[cfg(target_os = "linux")]
pub fn for_each_object(visit: &mut dyn FnMut(&LoadedObject<'_>) -> bool) {
    let mut is_first = true;
    for_each_header(&mut |info: &libc::dl_phdr_info| {
        let headers = headers_of(info);
        let bias = info.dlpi_addr;
        let loads = headers.iter().filter(|header| header.p_type == PT_LOAD);
        let Some(range) = loads
            .map(|header| mapped(header, bias))
            .reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
        else {
            return true;
        };
        let notes = headers.iter().filter(|header| header.p_type == PT_NOTE);
        let build_id = notes
            .filter_map(|header| bytes_in(headers, bias, mapped(header, bias)))
            .find_map(build_id);
        let path = if info.dlpi_name.is_null() {
            &[]
        } else {
            // SAFETY: the loader keeps a terminated string there as long as the object is loaded.
            unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes()
        };
        let is_program = core::mem::replace(&mut is_first, false);
        visit(&LoadedObject { path, bias, range, build_id, is_program })
    });
}

/// Other systems give no list: every address is outside of all known objects.
#[cfg(not(target_os = "linux"))]
pub fn for_each_object(_: &mut dyn FnMut(&LoadedObject<'_>) -> bool) {}

/// Returns the build id of a note segment.
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    let word = |bytes: &[u8], at: usize| {
        let field = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(field.try_into().ok()?))
    };
    loop {
        let name_len = word(notes, 0)? as usize;
        let desc_len = word(notes, 4)? as usize;
        let kind = word(notes, 8)?;
        let desc_start = 12usize.checked_add(name_len.checked_next_multiple_of(4)?)?;
        let desc_end = desc_start.checked_add(desc_len)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16) == Some(b"GNU\0") {
            return notes.get(desc_start..desc_end);
        }
        notes = notes.get(desc_end.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(target_os = "linux")]
fn for_each_header(visit: &mut dyn FnMut(&libc::dl_phdr_info) -> bool) {
    type Visit<'a> = &'a mut dyn FnMut(&libc::dl_phdr_info) -> bool;
    unsafe extern "C" fn trampoline(
        info: *mut libc::dl_phdr_info,
        _: usize,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: `data` is the pointer passed below, to a live exclusive reference.
        let visit = unsafe { &mut *data.cast::<Visit<'_>>() };
        // SAFETY: the loader passes a valid structure for the time of the call.
        let info = unsafe { &*info };
        c_int::from(!visit(info))
    }
    let mut visit: Visit<'_> = visit;
    // SAFETY: `trampoline` has the signature asked for and does not outlive `visit`.
    unsafe { libc::dl_iterate_phdr(Some(trampoline), (&raw mut visit).cast()) };
}

#[cfg(target_os = "linux")]
fn headers_of(info: &libc::dl_phdr_info) -> &[Phdr] {
    if info.dlpi_phdr.is_null() {
        return &[];
    }
    // SAFETY: the loader passes this many program headers, mapped as long as the object is (I1).
    unsafe { core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) }
}

/// The addresses that a segment takes up in memory.
#[allow(clippy::unnecessary_cast, reason = "32-bit headers have 32-bit fields")]
fn mapped(header: &Phdr, bias: u64) -> Range<u64> {
    let start = bias.wrapping_add(header.p_vaddr as u64);
    start..start.wrapping_add(header.p_memsz as u64)
}

/// The bytes of a range that lies within one loadable segment.
fn bytes_in(headers: &[Phdr], bias: u64, range: Range<u64>) -> Option<&'static [u8]> {
    let end = segment_end(headers, bias, range.start)?;
    let len = range.end.min(end).checked_sub(range.start)?;
    // SAFETY: the range lies within a mapped, readable segment (I1, I2).
    Some(unsafe {
        core::slice::from_raw_parts(range.start as *const u8, usize::try_from(len).ok()?)
    })
}

/// Where the loadable segment that holds `addr` ends.
fn segment_end(headers: &[Phdr], bias: u64, addr: u64) -> Option<u64> {
    let loads = headers.iter().filter(|header| header.p_type == PT_LOAD);
    loads
        .map(|header| mapped(header, bias))
        .find(|range| range.contains(&addr))
        .map(|range| range.end)
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
pub(crate) use unwind::{
    forget_objects, is_as_learned, is_still_noted, mapping_of, prepare, with_unwind_tables,
};

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod unwind {
    use super::*;
    use crate::cfi::UnwindTables;
    use crate::native::objects_seen::{ObjectsSeen, Place};
    use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

    const PT_GNU_EH_FRAME: u32 = 0x6474_e550;

    /// What `_dl_find_object` fills in (glibc ≥ 2.35, x86_64).
    #[repr(C)]
    struct DlFindObject {
        flags: u64,
        map_start: *const u8,
        map_end: *const u8,
        link_map: *const c_void,
        /// Address of `.eh_frame_hdr`.
        eh_frame: *const u8,
        reserved: [u64; 7],
    }

    type FindObject = unsafe extern "C" fn(*const c_void, *mut DlFindObject) -> c_int;

    /// `_dl_find_object`, once [`prepare`] has found it.
    static FIND_OBJECT: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

    /// Looks `_dl_find_object` up, so that captures need not ask the loader for anything that takes
    /// its lock.
    pub(crate) fn prepare() {
        let mut found = linked_find_object();
        if found.is_null() {
            // SAFETY: the name is terminated; `RTLD_DEFAULT` is a valid handle.
            found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        }
        // Relaxed: the function was there before the pointer to it; nothing else is published.
        FIND_OBJECT.store(found, Relaxed);
        crate::native::registered::prepare();
    }

    /// Returns `_dl_find_object` as the linker found it, or null: static programs have it, too, but
    /// nobody to ask for it by name.
    #[inline(never)]
    fn linked_find_object() -> *mut c_void {
        let found;
        // SAFETY: reads a word of the global offset table, which is null for a weak symbol that is
        // nowhere.
        unsafe {
            core::arch::asm!(
                ".weak _dl_find_object",
                "mov {found}, qword ptr [rip + _dl_find_object@GOTPCREL]",
                found = out(reg) found,
                options(nostack, preserves_flags, readonly),
            );
        }
        found
    }

    /// Returns the addresses of the object that holds `addr`, if the loader tells without a lock.
    pub(crate) fn mapping_of(addr: u64) -> Option<Range<u64>> {
        let find = FIND_OBJECT.load(Relaxed);
        if find.is_null() {
            return None;
        }
        let found = ask_loader(find, addr)?;
        Some(found.map_start as u64..found.map_end as u64)
    }

    /// Calls `f` with the unwind tables of the object that holds `call_addr`; `None` without any.
    ///
    /// The object is noted as one that rules are learned from, for [`is_as_learned`].
    pub(crate) fn with_unwind_tables<R>(
        call_addr: u64,
        f: impl FnOnce(UnwindTables<'_>) -> R,
    ) -> Option<R> {
        let find = FIND_OBJECT.load(Relaxed);
        if find.is_null() {
            return search_headers(call_addr).map(f);
        }
        let found = ask_loader(find, call_addr)?;
        is_as_before(&found);
        tables_of(&found, call_addr).map(f)
    }

    /// The objects that rules were learned from.
    static SEEN: ObjectsSeen = ObjectsSeen::new();

    /// Whether the rules that were learned for addresses in the object that holds `call_addr` are
    /// rules of that object, and not of one that was unloaded before it came.
    ///
    /// `call_addr` must be on the current stack, so that its object is not unloaded meanwhile.
    /// After the first answer `false` it stays that until [`forget_objects`] is called. Before
    /// [`prepare`] and where the loader has no `_dl_find_object`, the answer is `true`.
    ///
    /// **Cost**: 10 to 20 ns; some 100 ns in an object without a build id. Takes no lock.
    pub(crate) fn is_as_learned(call_addr: u64) -> bool {
        let find = FIND_OBJECT.load(Relaxed);
        if find.is_null() {
            return true;
        }
        match ask_loader(find, call_addr) {
            Some(found) => is_as_before(&found),
            None => !SEEN.is_changed() && !SEEN.had_part_at(call_addr),
        }
    }

    /// Makes sure that the object of `call_addr` is noted, after a rule learned of it was stored, and
    /// answers as [`is_as_learned`] does.
    ///
    /// Without this the note could be dropped by another thread's [`forget_objects`] between making
    /// it and storing the rule, and the rule would outlive its object unnoticed.
    pub(crate) fn is_still_noted(call_addr: u64) -> bool {
        SEEN.after_storing();
        is_as_learned(call_addr)
    }

    /// Forgets which objects rules were learned from: to be called before the rules are dropped.
    pub(crate) fn forget_objects() {
        SEEN.forget();
    }

    fn is_as_before(found: &DlFindObject) -> bool {
        let range = found.map_start as u64..found.map_end as u64;
        SEEN.agrees(range, || build_id_place(found.map_start), |place| fingerprint(found, place))
    }

    /// Where the build id of an object lies, if it is in its first page, as linkers put it.
    #[cold]
    fn build_id_place(map_start: *const u8) -> Place {
        let place = || {
            let headers = headers_at(map_start)?;
            let first = headers.iter().find(|header| header.p_type == PT_LOAD)?;
            // An object begins with its first segment.
            let bias = (map_start as u64).checked_sub(first.p_vaddr)?;
            let notes = headers.iter().filter(|header| header.p_type == PT_NOTE);
            let id = notes
                .filter_map(|header| bytes_in(headers, bias, mapped(header, bias)))
                .find_map(build_id)?;
            // The first eight bytes of a hash are as good as all of them.
            let id = id.first_chunk::<8>()?;
            Place::new((id.as_ptr() as u64).checked_sub(map_start as u64)?)
        };
        place().unwrap_or(Place::NOWHERE)
    }

    /// A number that differs between objects, also such that are mapped at the same addresses.
    fn fingerprint(found: &DlFindObject, place: Place) -> u64 {
        let range = found.map_start as u64 ^ (found.map_end as u64).rotate_left(32);
        let fingerprint = mix(range, found.eh_frame as u64);
        match place.offset() {
            Some(offset) => {
                let id = found.map_start.wrapping_add(offset).cast::<u64>();
                // SAFETY: the place lies in the first page of an object, which is readable (I1).
                mix(fingerprint, unsafe { id.read_unaligned() })
            }
            None => fingerprint_of_contents(found, fingerprint),
        }
    }

    /// Covers what differs between builds that have no build id: the headers, the unwind tables as
    /// far as [`N_BYTES_COVERED`], and the loader's record.
    #[cold]
    fn fingerprint_of_contents(found: &DlFindObject, fingerprint: u64) -> u64 {
        const N_BYTES_COVERED: usize = 2048;
        let mut fingerprint = mix(fingerprint, found.link_map as u64);
        if let Some(headers) = headers_at(found.map_start) {
            for header in headers {
                fingerprint = mix(fingerprint, header.p_vaddr ^ header.p_filesz.rotate_left(32));
            }
        }
        if let Some(tables) = tables_of(found, found.map_start as u64) {
            for bytes in [tables.header(), tables.frames()] {
                fingerprint = mix_bytes(fingerprint, bytes.get(..N_BYTES_COVERED).unwrap_or(bytes));
            }
        }
        fingerprint
    }

    fn mix_bytes(mut hash: u64, bytes: &[u8]) -> u64 {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            hash = mix(hash, u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        mix(hash, u64::from_le_bytes(last))
    }

    fn mix(hash: u64, word: u64) -> u64 {
        (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
    }

    fn ask_loader(find: *mut c_void, call_addr: u64) -> Option<DlFindObject> {
        // SAFETY: `prepare` stored the address of `_dl_find_object`, which has this signature.
        let find = unsafe { core::mem::transmute::<*mut c_void, FindObject>(find) };
        let mut found = core::mem::MaybeUninit::<DlFindObject>::zeroed();
        // SAFETY: any address may be asked for; `found` is a valid place for the result.
        if unsafe { find(call_addr as *const c_void, found.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: all-zero bytes are a valid value of this type, and so is what glibc wrote.
        Some(unsafe { found.assume_init() })
    }

    fn tables_of(found: &DlFindObject, call_addr: u64) -> Option<UnwindTables<'static>> {
        if found.eh_frame.is_null() {
            return None;
        }
        // The first field of a link map is the difference between addresses in memory and in the
        // file.
        let bias = found.link_map.cast::<u64>();
        // SAFETY: glibc keeps the link map as long as the object is loaded (I1).
        let bias = unsafe { bias.as_ref() }.copied()?;
        let headers = headers_at(found.map_start).or_else(|| headers_of_program(bias));
        match headers {
            Some(headers) => tables_at(headers, bias, found.eh_frame as u64),
            None => search_headers(call_addr),
        }
    }

    /// Returns the program headers of the program itself, if `bias` is its.
    ///
    /// Where there are gaps between the segments of the program, glibc takes each segment for a
    /// mapping of its own, most of which do not begin with the ELF header.
    fn headers_of_program(bias: u64) -> Option<&'static [Phdr]> {
        const PT_PHDR: u32 = 6;
        // SAFETY: looks the value up among those that the kernel passed to the program.
        let headers = unsafe { libc::getauxval(libc::AT_PHDR) } as *const Phdr;
        // SAFETY: as above.
        let n_headers = unsafe { libc::getauxval(libc::AT_PHNUM) };
        if headers.is_null() || !headers.is_aligned() {
            return None;
        }
        // SAFETY: the kernel found this many headers there; the program is never unloaded.
        let headers =
            unsafe { core::slice::from_raw_parts(headers, usize::try_from(n_headers).ok()?) };
        let own = headers.iter().find(|header| header.p_type == PT_PHDR)?;
        (mapped(own, bias).start == headers.as_ptr() as u64).then_some(headers)
    }

    /// Reads the program headers of an object through its ELF header at the start of its mapping.
    fn headers_at(map_start: *const u8) -> Option<&'static [Phdr]> {
        let header = map_start.cast::<libc::Elf64_Ehdr>();
        if header.is_null() || !header.is_aligned() {
            return None;
        }
        // SAFETY: the first page of a mapping of an object is readable (I1); whether it holds the
        // ELF header is checked below.
        let header = unsafe { &*header };
        if !header.e_ident.starts_with(b"\x7FELF")
            || usize::from(header.e_phentsize) != size_of::<Phdr>()
        {
            return None;
        }
        let offset = usize::try_from(header.e_phoff).ok()?;
        let end =
            offset.checked_add(usize::from(header.e_phnum).checked_mul(size_of::<Phdr>())?)?;
        if end > 4096 || !offset.is_multiple_of(align_of::<Phdr>()) {
            return None;
        }
        // SAFETY: `offset` lies within the first page (checked above).
        let headers = unsafe { map_start.add(offset) }.cast::<Phdr>();
        // SAFETY: as many headers as the ELF header says lie there, aligned, within the first page.
        Some(unsafe { core::slice::from_raw_parts(headers, header.e_phnum.into()) })
    }

    fn search_headers(call_addr: u64) -> Option<UnwindTables<'static>> {
        let mut tables = None;
        for_each_header(&mut |info| {
            let (headers, bias) = (headers_of(info), info.dlpi_addr);
            if segment_end(headers, bias, call_addr).is_none() {
                return true;
            }
            let index = headers.iter().find(|header| header.p_type == PT_GNU_EH_FRAME);
            tables = index.and_then(|index| {
                // SAFETY: extends the life of the slice from that of `info` to as long as the
                // object stays mapped (I1).
                let headers =
                    unsafe { core::slice::from_raw_parts(headers.as_ptr(), headers.len()) };
                tables_at(headers, bias, mapped(index, bias).start)
            });
            false
        });
        tables
    }

    fn tables_at(headers: &[Phdr], bias: u64, header_addr: u64) -> Option<UnwindTables<'static>> {
        let header = bytes_in(headers, bias, header_addr..u64::MAX)?;
        let frames_addr = UnwindTables::frames_addr(header, header_addr)?;
        let frames = bytes_in(headers, bias, frames_addr..u64::MAX)?;
        Some(UnwindTables::new(header, header_addr, frames, frames_addr))
    }
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod unloading;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    #[test]
    fn the_program_and_the_c_library_are_listed_with_build_ids() {
        let mut objects = Vec::new();
        for_each_object(&mut |object| {
            let path = std::string::String::from_utf8_lossy(object.path).into_owned();
            objects.push((
                path,
                object.range.clone(),
                object.build_id.is_some(),
                object.is_program,
            ));
            true
        });
        let here = the_program_and_the_c_library_are_listed_with_build_ids as *const () as u64;
        assert!(objects[0].3 && objects[0].1.contains(&here), "{objects:?}");
        assert_eq!(objects.iter().filter(|object| object.3).count(), 1);
        let libc = objects.iter().find(|object| object.0.contains("libc.so")).unwrap();
        assert!(libc.1.contains(&(libc::getpid as *const () as u64)) && libc.2);
    }

    #[test]
    fn a_build_id_is_found_behind_other_notes_and_never_beyond_the_end() {
        let note = |name: &[u8; 4], kind: u32, desc: &[u8]| {
            let mut bytes = Vec::new();
            for word in [4, desc.len() as u32, kind] {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend(name);
            bytes.extend(desc);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let mut notes = note(b"GNU\0", 1, &[0; 13]);
        notes.extend(note(b"Go\0\0", 3, &[7; 4]));
        notes.extend(note(b"GNU\0", 3, &[1, 2, 3, 4, 5]));
        assert_eq!(build_id(&notes), Some(&[1, 2, 3, 4, 5][..]));
        for len in 0..notes.len() - 3 {
            assert_eq!(build_id(&notes[..len]), None, "{len}");
        }
    }
}
