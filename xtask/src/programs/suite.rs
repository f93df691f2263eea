//! Tests of crates from the registry, built with the heap as the global allocator.
//!
//! The crate's source is copied, twice; one copy depends on the heap, and each of its test programs has
//! the line that makes it the global allocator, and so has the crate itself in its own tests.

use super::{Outcome, ProgramError, Workspace, make_dir, no_file};
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whose tests are run.
pub(super) const CRATES: [&str; 3] = ["hashbrown", "serde_json", "crossbeam-deque"];

const ALLOCATOR: &str = "#[global_allocator]\nstatic MEMTRACE_HEAP: memtrace_heap::Heap =\n    \
     memtrace_heap::Heap::new(memtrace_heap::Config::new());\n";

/// Runs a crate's tests without and with the heap; returns a line of figures.
pub(super) fn compare(name: &'static str, dir: &Path) -> Result<String, ProgramError> {
    let source = find(name)?;
    let plain_copy = dir.join(format!("{name}-plain"));
    let heap_copy = dir.join(format!("{name}-heap"));
    for copy in [&plain_copy, &heap_copy] {
        let _ = fs::remove_dir_all(copy);
        copy_tree(&source, copy)?;
        // Not part of the workspace that it lies in.
        append(&copy.join("Cargo.toml"), "\n[workspace]\n")?;
    }
    inject(&heap_copy)?;
    let target_dir = dir.join("suites");
    let plain = run(&plain_copy, &target_dir)?;
    let with_heap = run(&heap_copy, &target_dir)?;
    let program = format!("the tests of {}", source.display());
    if !plain.0.is_success && plain.1.is_empty() {
        let Outcome { status, messages, .. } = plain.0;
        return Err(ProgramError::PlainFails { program, status, messages });
    }
    if plain.1 != with_heap.1 {
        let difference = format!(
            "plain: {:?}\nwith the heap: {:?}\n{}{}",
            plain.1, with_heap.1, with_heap.0.output, with_heap.0.messages
        );
        return Err(ProgramError::Differs { program, difference });
    }
    let words: Vec<String> = plain.1.iter().map(|(word, n)| format!("{n} {word}")).collect();
    Ok(format!("{program}: {}", words.join(", ")))
}

/// The newest source that lies in the registry.
fn find(name: &'static str) -> Result<PathBuf, ProgramError> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(env::home_dir()?.join(".cargo"))).unwrap_or_default();
    let registry = home.join("registry").join("src");
    let folders = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let sources = folders(&registry).into_iter().flat_map(|index| folders(&index));
    let version = |path: &Path| -> Option<Vec<u32>> {
        let name_and_version = path.file_name()?.to_str()?;
        let version = name_and_version.strip_prefix(name)?.strip_prefix('-')?;
        version.split('.').map(|number| number.parse().ok()).collect()
    };
    let newest = sources.filter(|path| version(path).is_some()).max_by_key(|path| version(path));
    newest.ok_or(ProgramError::NoSource { name, registry })
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), ProgramError> {
    make_dir(to)?;
    for entry in fs::read_dir(from).map_err(|source| no_file(from, source))?.flatten() {
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_tree(&path, &copy)?;
        } else {
            fs::copy(&path, &copy).map_err(|source| no_file(&path, source))?;
        }
    }
    Ok(())
}

/// Makes the heap the global allocator of the tests in `copy`.
fn inject(copy: &Path) -> Result<(), ProgramError> {
    let heap = Workspace::root().join("crates").join("memtrace-heap");
    let dependency = format!("\n[dev-dependencies.memtrace-heap]\npath = {heap:?}\n");
    append(&copy.join("Cargo.toml"), &dependency)?;
    append(&copy.join("src").join("lib.rs"), &format!("\n#[cfg(test)]\n{ALLOCATOR}"))?;
    for program in test_programs(&copy.join("tests"))? {
        append(&program, &format!("\n{ALLOCATOR}"))?;
    }
    Ok(())
}

/// The roots of the programs: files, and folders with a `main.rs`.
fn test_programs(tests: &Path) -> Result<Vec<PathBuf>, ProgramError> {
    let entries = fs::read_dir(tests).map_err(|source| no_file(tests, source))?;
    // In the folder of a test named in the manifest, `lib.rs` is often its root.
    let is_program = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    Ok(entries.flatten().map(|entry| entry.path()).filter(is_program).collect())
}

fn append(path: &Path, text: &str) -> Result<(), ProgramError> {
    let before = fs::read_to_string(path).map_err(|source| no_file(path, source))?;
    // The first writer of a file in the registry may have made it read-only.
    fs::remove_file(path).map_err(|source| no_file(path, source))?;
    fs::write(path, before + text).map_err(|source| no_file(path, source))
}

/// How many tests passed, failed, and so on.
type Counts = BTreeMap<String, u64>;

fn run(copy: &Path, target_dir: &Path) -> Result<(Outcome, Counts), ProgramError> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--tests", "--lib", "--no-fail-fast", "--target-dir"]).arg(target_dir);
    for variable in ["CARGO", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_MANIFEST_DIR"] {
        cargo.env_remove(variable);
    }
    // Newer lints than the crate's are not what is tested.
    let outcome = Outcome::of(
        cargo.args(["--config", "build.rustflags=[\"--cap-lints=allow\"]"]).current_dir(copy),
    )?;
    let counts = counts(&outcome.output);
    Ok((outcome, counts))
}

/// Sums lines up such as `test result: ok. 5 passed; 0 failed; 1 ignored; ...`.
fn counts(output: &str) -> Counts {
    let mut counts = Counts::new();
    for line in output.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        let after_verdict = line.split_once(". ").map_or("", |(_, rest)| rest);
        for part in after_verdict.split("; ") {
            let words: Vec<&str> = part.split(' ').collect();
            if let [n, word @ ("passed" | "failed" | "ignored")] = words[..] {
                *counts.entry(String::from(word)).or_default() += n.parse::<u64>().unwrap_or(0);
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_test_programs_are_summed() {
        let output = "running 3 tests\ntest a ... ok\n\
             test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1s\n\
             test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\n";
        let expected = [("failed", 3), ("ignored", 1), ("passed", 3)];
        let expected = expected.map(|(word, n)| (String::from(word), n)).into();
        assert_eq!(counts(output), expected);
    }
}
