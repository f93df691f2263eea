//! Files with wrong bytes in them: every answer will do, but there must be one, and soon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use memtrace_symbols::{ModuleFile, Symbolizer, Symbols};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use tempfile::TempDir;

use crate::built::run;

/// A library without the standard library, so small that each of its bytes can be damaged.
const SOURCE: &str = r#"
#![no_std]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[inline(always)]
fn inlined(n: u32) -> u32 {
    core::hint::black_box(n).wrapping_mul(3)
}

#[unsafe(no_mangle)]
pub extern "C" fn outer(n: u32) -> u32 {
    let mut sum = 0;
    for i in 0..n {
        sum += inlined(i);
    }
    sum
}
"#;

struct Small {
    directory: TempDir,
    bytes: Vec<u8>,
    addrs: Vec<u64>,
}

impl Small {
    fn with(args: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("small.rs"), SOURCE).unwrap();
        run(Command::new("rustc")
            .current_dir(directory.path())
            .args(["--edition=2024", "--crate-type=cdylib", "-Cpanic=abort", "-Copt-level=1"])
            .args(["-Clink-arg=-nostdlib", "-Clink-arg=-nostartfiles", "-osmall.so"])
            .args(args)
            .arg("small.rs"));
        let bytes = fs::read(directory.path().join("small.so")).unwrap();
        let object = object::File::parse(&*bytes).unwrap();
        let addrs = object
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
            .flat_map(|symbol| [0, 1, 2, 3].map(|n| symbol.address() + symbol.size() * n / 4))
            .collect();
        let small = Small { directory, addrs, bytes };
        assert!(small.has_an_inlined_frame(), "the undamaged file is understood");
        small
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("damaged.so")
    }

    fn has_an_inlined_frame(&self) -> bool {
        fs::write(self.path(), &self.bytes).unwrap();
        answers(&self.path(), &self.addrs).iter().any(|symbols| symbols.frames.len() > 1)
    }

    /// Writes the bytes as a file and asks for all addresses. Reports what is wrong with the
    /// answers.
    fn check(&self, bytes: &[u8], how: &str) -> usize {
        fs::write(self.path(), bytes).unwrap();
        let begin = Instant::now();
        let answers = answers(&self.path(), &self.addrs);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(10), "{how} took {took:?}");
        let mut n_with_line = 0;
        for symbols in &answers {
            let is_known = symbols.frames.iter().any(|frame| frame.line.is_some());
            assert!(!symbols.frames.is_empty() || symbols.missing.is_some(), "{how}: {symbols:?}");
            if let Some(missing) = &symbols.missing {
                let text = missing.to_string();
                assert!(!text.contains("panicked"), "{how}: {text}");
            }
            n_with_line += usize::from(is_known);
        }
        n_with_line
    }
}

fn answers(path: &Path, addrs: &[u64]) -> Vec<Symbols> {
    let module = ModuleFile::new(path);
    let mut symbolizer = Symbolizer::new();
    addrs.iter().map(|addr| Symbols::clone(&symbolizer.resolve(&module, *addr))).collect()
}

#[test]
fn a_flipped_bit_anywhere_in_headers_and_tables_ends_in_an_answer() {
    for version in ["-Cdwarf-version=4", "-Cdwarf-version=5"] {
        let small = Small::with(&["-Cdebuginfo=2", version]);
        let object = object::File::parse(&*small.bytes).unwrap();
        let mut spans: Vec<_> = object
            .sections()
            .filter(|section| {
                let name = section.name().unwrap_or_default();
                name.starts_with(".debug") || name.contains("tab") || name.starts_with(".note")
            })
            .filter_map(|section| section.file_range())
            .collect();
        let n_bytes = small.bytes.len() as u64;
        let n_header_bytes = 64 * (object.sections().count() as u64 + 1);
        spans.extend([(0, 0x200), (n_bytes - n_header_bytes, n_header_bytes)]);

        let (mut n_damaged, mut n_with_line) = (0, 0);
        for (at, size) in spans {
            for at in at..at + size {
                let mut bytes = small.bytes.clone();
                bytes[at as usize] ^= 1 << (at % 8);
                n_with_line += small.check(&bytes, &format!("a flip at {at:#x}"));
                n_damaged += 1;
            }
        }
        println!("{version}: {n_damaged} damaged files, {n_with_line} lines still found");
        assert!(n_damaged > 2_000, "only {n_damaged} bytes were damaged");
        assert!(n_with_line > 0);
    }
}

#[test]
fn a_file_cut_off_anywhere_ends_in_an_answer() {
    let small = Small::with(&["-Cdebuginfo=2"]);
    for n_bytes in (0..small.bytes.len()).step_by(7) {
        small.check(&small.bytes[..n_bytes], &format!("a cut at {n_bytes:#x}"));
    }
}

#[test]
fn bytes_set_to_extremes_in_compressed_sections_end_in_an_answer() {
    for format in ["zlib", "zstd"] {
        let flag = format!("-Clink-arg=-Wl,--compress-debug-sections={format}");
        let small = Small::with(&["-Cdebuginfo=2", &flag]);
        let object = object::File::parse(&*small.bytes).unwrap();
        for section in object.sections() {
            if !section.name().is_ok_and(|name| name.starts_with(".debug")) {
                continue;
            }
            let Some((at, size)) = section.file_range() else { continue };
            for at in at..at + size {
                for value in [0, 0xff] {
                    let mut bytes = small.bytes.clone();
                    bytes[at as usize] = value;
                    small.check(&bytes, &format!("{value:#x} at {at:#x}"));
                }
            }
        }
    }
}

/// A unit of one function with inlined functions inside each other, a byte for each.
const DEEP: &str = r#"
#![no_std]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

core::arch::global_asm!(
    ".text",
    ".globl deep",
    ".type deep, @function",
    "deep:",
    "nop",
    "nop",
    "deep_end:",
    ".size deep, deep_end - deep",
    ".section .debug_abbrev,\"\",@progbits",
    ".uleb128 1, 0x11", // the unit: low_pc (addr), high_pc (data8)
    ".byte 1, 0x11, 0x01, 0x12, 0x07, 0, 0",
    ".uleb128 2, 0x2e", // the function: the same, and name (string)
    ".byte 1, 0x11, 0x01, 0x12, 0x07, 0x03, 0x08, 0, 0",
    ".uleb128 3, 0x1d", // an inlined function: nothing
    ".byte 1, 0, 0, 0",
    ".section .debug_info,\"\",@progbits",
    ".long unit_end - unit_start",
    "unit_start:",
    ".short 4",
    ".long 0",
    ".byte 8",
    ".byte 1",
    ".quad deep",
    ".quad deep_end - deep",
    ".byte 2",
    ".quad deep",
    ".quad deep_end - deep",
    ".asciz \"deep\"",
    ".fill N_LEVELS, 1, 3",
    ".fill N_LEVELS + 2, 1, 0",
    "unit_end:",
);
"#;

/// What is known about the function around so many levels of inlined functions.
fn nested(n_levels: usize) -> Symbols {
    let directory = tempfile::tempdir().unwrap();
    let source = DEEP.replace("N_LEVELS", &n_levels.to_string());
    fs::write(directory.path().join("deep.rs"), source).unwrap();
    run(Command::new("rustc")
        .current_dir(directory.path())
        .args(["--edition=2024", "--crate-type=cdylib", "-Cpanic=abort", "-Cdebuginfo=0"])
        .args(["-Clink-arg=-nostdlib", "-Clink-arg=-nostartfiles", "-odeep.so"])
        .args(["-Clink-arg=-Wl,--no-gc-sections", "-Clink-dead-code=yes"])
        .arg("deep.rs"));
    let path = directory.path().join("deep.so");
    let bytes = fs::read(&path).unwrap();
    let object = object::File::parse(&*bytes).unwrap();
    let deep = object.symbols().find(|symbol| symbol.name() == Ok("deep")).unwrap();
    answers(&path, &[deep.address()]).remove(0)
}

#[test]
fn a_nesting_that_would_overflow_the_stack_is_refused() {
    for n_levels in [257, 200_000] {
        let symbols = nested(n_levels);
        assert_eq!(symbols.frames[0].function.as_deref(), Some("deep"));
        let text = symbols.missing.as_ref().unwrap().to_string();
        assert!(text.contains("nested more than 256 deep"), "{text}");
    }
}

#[test]
fn the_deepest_nesting_that_is_allowed_fits_half_the_stack_of_a_thread() {
    let symbols = nested(256);
    let text = symbols.missing.as_ref().unwrap().to_string();
    assert!(text.contains("no line table covers the address"), "{text}");
    let on_small_stack = thread::Builder::new().stack_size(1 << 20).spawn(|| nested(256));
    assert_eq!(on_small_stack.unwrap().join().unwrap(), symbols);
}
