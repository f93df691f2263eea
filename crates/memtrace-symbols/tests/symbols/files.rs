//! Files that are gone, replaced, no files at all, and addresses that are not in them.

use std::fs;
use std::path::Path;

use memtrace_symbols::{Missing, ModuleFile, Symbolizer, Symbols};
use object::{Object, ObjectSegment, SegmentFlags, elf};

use crate::built::{Built, line_of, shown};

fn resolved(module: &ModuleFile, file_addr: u64) -> Symbols {
    Symbols::clone(&Symbolizer::new().resolve(module, file_addr))
}

#[test]
fn a_file_with_the_loaded_build_id_is_read() {
    let built = Built::with(&["-Cdebuginfo=line-tables-only"]);
    let module = built.module().with_build_id(built.build_id());
    let symbols = resolved(&module, built.call_addr("insert"));
    let expected = format!("program::cache::insert src/program.rs:{}", line_of("insert"));
    assert_eq!(shown(&symbols.frames[0]), expected);
}

#[test]
fn a_replaced_file_gives_no_names() {
    let loaded = Built::with(&["-Cdebuginfo=line-tables-only"]);
    let call_addr = loaded.call_addr("insert");
    let module = loaded.module().with_build_id(loaded.build_id());
    let other = Built::with(&["-Cdebuginfo=line-tables-only", "-Copt-level=3"]);
    assert_ne!(other.build_id(), loaded.build_id());
    fs::rename(&other.program, &loaded.program).unwrap();

    let symbols = resolved(&module, call_addr);
    assert_eq!(symbols.frames, []);
    let path = loaded.program.clone();
    assert_eq!(symbols.missing, Some(Missing::FileReplaced { path }));
}

#[test]
fn a_file_that_lost_its_build_id_counts_as_replaced() {
    let built = Built::with(&["-Clink-arg=-Wl,--build-id=none"]);
    let module = built.module().with_build_id([1, 2, 3]);
    let symbols = resolved(&module, built.call_addr("insert"));
    assert!(matches!(symbols.missing, Some(Missing::FileReplaced { .. })), "{symbols:?}");
}

#[test]
fn modules_without_a_readable_file_say_why() {
    let directory = tempfile::tempdir().unwrap();
    let text_file = directory.path().join("text");
    fs::write(&text_file, "no program").unwrap();
    let empty_file = directory.path().join("empty");
    fs::write(&empty_file, "").unwrap();
    let gone = directory.path().join("gone");
    for (path, part) in [
        (Path::new(""), "belongs to no file"),
        (Path::new("[vdso]"), "the kernel provides"),
        (Path::new("linux-vdso.so.1"), "the kernel provides"),
        (Path::new("/usr/bin/true (deleted)"), "was deleted"),
        (&gone, "No such file"),
        (directory.path(), "not a regular file"),
        (Path::new("/dev/zero"), "not a regular file"),
        (&text_file, "not an ELF file"),
        (&empty_file, "not an ELF file"),
    ] {
        let symbols = resolved(&ModuleFile::new(path), 0x1000);
        assert_eq!(symbols.frames, []);
        let Some(missing @ Missing::FileUnavailable { .. }) = &symbols.missing else {
            panic!("{symbols:?}");
        };
        let text = missing.to_string();
        assert!(text.contains(part), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn addresses_outside_the_code_are_told_so() {
    let built = Built::with(&["-Cdebuginfo=line-tables-only"]);
    let bytes = fs::read(&built.program).unwrap();
    let object = object::File::parse(&*bytes).unwrap();
    let is_code =
        |flags| matches!(flags, SegmentFlags::Elf { p_flags, .. } if p_flags.contains(elf::PF_X));
    let code = object.segments().find(|segment| is_code(segment.flags())).unwrap();
    let end = code.address() + code.size();
    for file_addr in [0, 1, code.address() - 1, end, u64::MAX - 1, u64::MAX] {
        let symbols = resolved(&built.module(), file_addr);
        assert_eq!(symbols.frames, [], "{file_addr:#x}");
        assert_eq!(symbols.missing, Some(Missing::OutsideCode), "{file_addr:#x}");
    }
    assert_ne!(resolved(&built.module(), end - 1).missing, Some(Missing::OutsideCode));
}

#[test]
fn the_running_program_can_be_asked_about_itself() {
    let itself = ModuleFile::new("/proc/self/exe");
    let bytes = fs::read("/proc/self/exe").unwrap();
    let object = object::File::parse(&*bytes).unwrap();
    let symbols = resolved(&itself, object.entry());
    assert_eq!(symbols.frames[0].function.as_deref(), Some("_start"));
}
