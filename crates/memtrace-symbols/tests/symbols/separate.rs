//! Debug information in files of its own, of our making and the distribution's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memtrace_symbols::{Missing, ModuleFile, Symbolizer};
use object::{Object, ObjectSymbol};

use crate::built::{Built, all_shown, build_id, line_of, run};

/// Splits the program's debug sections off into the given file. `None` without binutils.
fn split_off(built: &Built, debug_file: &Path) -> Option<()> {
    if Command::new("objcopy").arg("--version").output().is_err() {
        println!("skipped: objcopy is not installed");
        return None;
    }
    fs::create_dir_all(debug_file.parent().unwrap()).unwrap();
    let objcopy = |args: &[&str]| run(Command::new("objcopy").args(args));
    let [program, debug] = [&built.program, debug_file].map(|it: &Path| it.to_str().unwrap());
    objcopy(&["--only-keep-debug", program, debug]);
    objcopy(&["--strip-all", &format!("--add-gnu-debuglink={debug}"), program]);
    Some(())
}

fn assert_found(built: &Built, symbolizer: &mut Symbolizer) {
    let symbols = symbolizer.resolve(&built.module(), built.call_addr("outer"));
    let expected = [
        format!("innermost src/program.rs:{} inlined", line_of("innermost")),
        format!("middle src/program.rs:{} inlined", line_of("middle")),
        format!("program::cache::outer src/program.rs:{}", line_of("outer")),
    ];
    assert_eq!(all_shown(&symbols), expected);
    assert_eq!(symbols.missing, None);
}

const ARGS: [&str; 2] = ["-Cdebuginfo=line-tables-only", "-Copt-level=3"];

#[test]
fn a_debug_file_is_found_beside_the_program() {
    for place in ["program.debug", ".debug/program.debug"] {
        let built = Built::with(&ARGS);
        let debug_file = built.directory().join(place);
        let Some(()) = split_off(&built, &debug_file) else { return };
        assert_found(&built, &mut Symbolizer::new());
    }
}

#[test]
fn a_debug_file_is_found_by_its_checksum_if_there_is_no_build_id() {
    let built = Built::with(&[ARGS[0], ARGS[1], "-Clink-arg=-Wl,--build-id=none"]);
    let debug_file = built.directory().join("program.debug");
    let Some(()) = split_off(&built, &debug_file) else { return };
    assert_found(&built, &mut Symbolizer::new());

    let mut bytes = fs::read(&debug_file).unwrap();
    bytes.push(0);
    fs::write(&debug_file, bytes).unwrap();
    let symbols = built.resolve("outer");
    assert_eq!(symbols.frames, [], "a debug file with another checksum is not used");
}

#[test]
fn a_debug_file_is_found_by_build_id_in_a_debug_directory() {
    let built = Built::with(&ARGS);
    let id: String = built.build_id().iter().map(|byte| format!("{byte:02x}")).collect();
    let root = built.directory().join("debug-files");
    let debug_file = root.join(format!(".build-id/{}/{}.debug", &id[..2], &id[2..]));
    let Some(()) = split_off(&built, &debug_file) else { return };
    assert_found(&built, &mut Symbolizer::new().with_debug_directory(root));
}

#[test]
fn a_debug_file_is_found_by_the_program_s_path_in_a_debug_directory() {
    let built = Built::with(&ARGS);
    let root = built.directory().join("debug-files");
    let own_path = built.directory().strip_prefix("/").unwrap().to_owned();
    let debug_file = root.join(own_path).join("program.debug");
    let Some(()) = split_off(&built, &debug_file) else { return };
    assert_found(&built, &mut Symbolizer::new().with_debug_directory(root));
}

#[test]
fn the_debug_file_of_another_build_is_not_used() {
    let built = Built::with(&ARGS);
    let other = Built::with(&["-Cdebuginfo=2", "-Copt-level=0"]);
    let debug_file = built.directory().join("program.debug");
    let other_debug_file = other.directory().join("program.debug");
    let Some(()) = split_off(&built, &debug_file) else { return };
    let Some(()) = split_off(&other, &other_debug_file) else { return };
    fs::rename(other_debug_file, debug_file).unwrap();
    let symbols = built.resolve("outer");
    assert_eq!(symbols.frames, []);
    assert!(matches!(symbols.missing, Some(Missing::NotInSymbolTable { .. })), "{symbols:?}");
}

#[test]
fn a_function_of_libc_has_file_and_line_where_the_distribution_s_debug_files_are_installed() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().find_map(|line| {
        let path = line.split_whitespace().last()?;
        path.ends_with("/libc.so.6").then(|| PathBuf::from(path))
    });
    let Some(libc) = libc else {
        println!("skipped: the test program has no shared libc");
        return;
    };
    let id = build_id(&libc);
    let hex: String = id[1..].iter().map(|byte| format!("{byte:02x}")).collect();
    let debug_file = format!("/usr/lib/debug/.build-id/{:02x}/{hex}.debug", id[0]);
    if !Path::new(&debug_file).exists() {
        println!("skipped: the debug files of libc (Debian: libc6-dbg) are not installed");
        return;
    }

    let bytes = fs::read(&libc).unwrap();
    let object = object::File::parse(&*bytes).unwrap();
    let qsort = object.dynamic_symbols().find(|symbol| symbol.name() == Ok("qsort")).unwrap();
    let module = ModuleFile::new(&libc).with_build_id(id);
    let symbols = Symbolizer::new().resolve(&module, qsort.address());
    let frame = symbols.frames.last().unwrap();
    assert_eq!(frame.function.as_deref(), Some("qsort"));
    assert!(frame.file.as_deref().is_some_and(|file| file.ends_with("sort.c")), "{frame:?}");
    assert!(frame.line.is_some_and(|line| line > 0), "{frame:?}");
    assert_eq!(symbols.missing, None);
}
