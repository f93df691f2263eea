//! Functions, files, lines and inlined frames, in each way of compiling.

use memtrace_symbols::{Missing, Symbolizer};

use crate::built::{Built, all_shown, line_of, shown};

/// Without debug information `rustc` is given neither: what std brings along stays.
const NO_DEBUG: [&str; 2] = ["-Cdebuginfo=0", "-Cstrip=none"];

#[test]
fn full_debug_information_qualifies_every_name() {
    for level in ["-Cdebuginfo=2", "-Cdebuginfo=1"] {
        for opt in ["-Copt-level=0", "-Copt-level=3"] {
            for mangling in ["-Cdebug-assertions=no", "-Csymbol-mangling-version=v0"] {
                let built = Built::with(&[level, opt, mangling]);
                let prefix = "program::cache::";
                assert_marked_chain(&built, prefix, &format!("{level} {opt} {mangling}"));
            }
        }
    }
}

#[test]
fn line_tables_qualify_the_physical_function_by_its_symbol() {
    for opt in ["-Copt-level=0", "-Copt-level=3"] {
        for mangling in ["-Cdebug-assertions=no", "-Csymbol-mangling-version=v0"] {
            let built = Built::with(&["-Cdebuginfo=line-tables-only", opt, mangling]);
            assert_marked_chain(&built, "", &format!("{opt} {mangling}"));
        }
    }
}

#[test]
fn dwarf_4_and_5_say_the_same() {
    for version in ["-Cdwarf-version=4", "-Cdwarf-version=5"] {
        let built = Built::with(&["-Cdebuginfo=line-tables-only", "-Copt-level=3", version]);
        assert_marked_chain(&built, "", version);
    }
}

/// Checks the places `insert` and `outer`. Inlined functions have the given prefix.
fn assert_marked_chain(built: &Built, inlined_prefix: &str, how: &str) {
    let symbols = built.resolve("insert");
    let expected = format!("program::cache::insert src/program.rs:{}", line_of("insert"));
    assert_eq!(all_shown(&symbols), [expected], "{how}");
    assert_eq!(symbols.missing, None, "{how}");
    let directory = built.directory();
    assert_eq!(symbols.frames[0].directory.as_deref(), directory.to_str(), "{how}");

    let symbols = built.resolve("outer");
    let line = line_of;
    let expected = [
        format!("{inlined_prefix}innermost src/program.rs:{} inlined", line("innermost")),
        format!("{inlined_prefix}middle src/program.rs:{} inlined", line("middle")),
        format!("program::cache::outer src/program.rs:{}", line("outer")),
    ];
    assert_eq!(all_shown(&symbols), expected, "{how}");
    assert_eq!(symbols.missing, None, "{how}");
}

#[test]
fn methods_of_generic_types_are_named_by_their_type() {
    for debug_info in ["-Cdebuginfo=2", "-Cdebuginfo=line-tables-only"] {
        let legacy = Built::with(&[debug_info]).resolve("generic");
        let v0 = Built::with(&[debug_info, "-Csymbol-mangling-version=v0"]).resolve("generic");
        let place = format!("src/program.rs:{}", line_of("generic"));
        assert_eq!(all_shown(&legacy), [format!("program::cache::Table<K>::put {place}")]);
        assert_eq!(all_shown(&v0), [format!("<program::cache::Table<u32>>::put {place}")]);
    }
}

#[test]
fn functions_without_mangling_keep_their_name() {
    for debug_info in ["-Cdebuginfo=2", "-Cdebuginfo=line-tables-only"] {
        let symbols = Built::with(&[debug_info]).resolve("plain");
        let expected = format!("plain_name src/program.rs:{}", line_of("plain"));
        assert_eq!(all_shown(&symbols), [expected]);
    }
}

#[test]
fn a_library_function_inlined_into_the_workspace_stays_absolute() {
    let built = Built::with(&["-Cdebuginfo=2", "-Copt-level=3"]);
    let symbols = built.resolve("library");
    let frames = &symbols.frames;
    assert_eq!(frames.len(), 3, "{frames:#?}");

    let place = format!("src/program.rs:{}", line_of("library"));
    let closure = format!("program::through_the_library::{{{{closure}}}} {place} inlined");
    assert_eq!(shown(&frames[0]), closure);
    assert_eq!(frames[1].function.as_deref(), Some("core::option::Option<T>::map"));
    let file = frames[1].file.as_deref().unwrap();
    assert!(file.starts_with('/'), "{file}");
    assert!(file.ends_with("library/core/src/option.rs"), "{file}");
    assert_eq!(frames[1].directory, None);
    assert_eq!(shown(&frames[2]), format!("program::through_the_library {place}"));
}

#[test]
fn a_crate_compiled_by_its_absolute_path_keeps_it() {
    let built = Built::from_absolute_path_with(&["-Cdebuginfo=line-tables-only"]);
    let symbols = built.resolve("insert");
    let file = built.directory().join("src/program.rs");
    assert_eq!(symbols.frames[0].file.as_deref(), file.to_str());
    assert_eq!(symbols.frames[0].directory, None);
    assert_eq!(symbols.frames[0].line, Some(line_of("insert")));
}

#[test]
fn without_debug_information_the_symbol_names_the_physical_function() {
    for mangling in ["-Cdebug-assertions=no", "-Csymbol-mangling-version=v0"] {
        let built = Built::with(&[NO_DEBUG[0], NO_DEBUG[1], mangling]);
        for (mark, function) in [("insert", "insert"), ("outer", "outer")] {
            let symbols = built.resolve(mark);
            assert_eq!(all_shown(&symbols), [format!("program::cache::{function} ?:?")]);
            let Some(Missing::NoDebugInfo { reason }) = &symbols.missing else {
                panic!("{symbols:?}");
            };
            assert_eq!(&**reason, "no compilation unit covers the address");
        }
    }
}

#[test]
fn without_debug_sections_the_reason_is_that_there_are_none() {
    let symbols = Built::with(&["-Cstrip=debuginfo"]).resolve("insert");
    assert_eq!(all_shown(&symbols), ["program::cache::insert ?:?"]);
    let text = symbols.missing.unwrap().to_string();
    assert!(text.contains("the file has no .debug_info section"), "{text}");
    assert!(text.contains("debug = \"line-tables-only\""), "{text}");
}

#[test]
fn a_stripped_program_gives_no_name_and_says_why() {
    let symbols = Built::with(&["-Cstrip=symbols"]).resolve("insert");
    assert_eq!(symbols.frames, []);
    let Some(Missing::NotInSymbolTable { reason }) = &symbols.missing else {
        panic!("{symbols:?}");
    };
    assert_eq!(&**reason, "the file has no .debug_info section");
}

#[test]
fn split_dwarf_gives_lines_and_names_and_says_that_inlined_frames_are_missing() {
    let args = ["-Cdebuginfo=2", "-Copt-level=3", "-Csplit-debuginfo=packed"];
    let built = Built::with(&args);
    let symbols = built.resolve("outer");
    let file = built.directory().join("src/program.rs");
    let line = line_of("innermost");
    let expected = format!("program::cache::outer {}:{line}", file.display());
    assert_eq!(all_shown(&symbols), [expected]);
    let text = symbols.missing.unwrap().to_string();
    assert!(text.contains("split DWARF"), "{text}");
}

#[test]
fn compressed_sections_are_read() {
    for format in ["zlib", "zstd"] {
        let flag = format!("-Clink-arg=-Wl,--compress-debug-sections={format}");
        let built = Built::with(&["-Cdebuginfo=line-tables-only", "-Copt-level=3", &flag]);
        assert_marked_chain(&built, "", format);
    }
}

#[test]
fn an_address_is_resolved_once_and_the_answer_shared() {
    let built = Built::with(&["-Cdebuginfo=line-tables-only"]);
    let call_addr = built.call_addr("insert");
    let mut symbolizer = Symbolizer::new();
    let first = symbolizer.resolve(&built.module(), call_addr);
    // The file is not needed again.
    std::fs::remove_file(&built.program).unwrap();
    let second = symbolizer.resolve(&built.module(), call_addr);
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    let elsewhere = symbolizer.resolve(&built.module(), call_addr - 1);
    assert_eq!(elsewhere.frames[0].function, first.frames[0].function);
}
