//! The hook around other allocators: one program each, since a process has one global allocator.
//!
//! The probe accounts for every block of a workload of several threads and fails if what memtrace
//! says differs by a byte, or if the contents of a block have changed.

use memtrace_tests::nested_build::{Probe, Settings, stdout_of};
use std::process::{Command, Stdio};

/// Builds the program of this name and runs it.
fn run(allocator: &str, args: &[&str]) {
    let args: Vec<&str> = ["--bin", allocator].iter().chain(args).copied().collect();
    let programs =
        Probe::new("allocators").build(env!("CARGO_TARGET_TMPDIR"), &Settings::LINE_TABLES, &args);
    let output = stdout_of(&mut Command::new(&programs[allocator]));
    assert!(output.ends_with("blocks accounted for\n"), "{output}");
}

#[test]
fn the_systems_allocator_is_accounted_for() {
    run("system", &[]);
}

#[test]
fn the_pooled_heap_is_accounted_for() {
    run("heap", &[]);
}

#[test]
fn mimalloc_is_accounted_for() {
    run("mimalloc", &["--features", "mimalloc"]);
}

#[test]
fn jemalloc_is_accounted_for() {
    let make = Command::new("make").arg("--version").stdout(Stdio::null()).status();
    if !make.is_ok_and(|status| status.success()) {
        let reason = "jemalloc is built with `make`, which does not run here";
        assert!(std::env::var_os("CI").is_none(), "{reason}: install it");
        eprintln!("skipped: {reason}");
        return;
    }
    run("jemalloc", &["--features", "jemalloc"]);
}
