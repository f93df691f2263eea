//! The examples run, and say what their descriptions say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What an example prints.
fn run(name: &str, args: &[&Path]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--example", name, "--"])
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // The flags of this test's own build are not the example's.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn picture_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn assert_is_picture(path: &Path) {
    let svg = fs::read_to_string(path).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("-byte blocks, "));
}

#[test]
fn the_model_prints_a_line_for_each_program_and_draws_the_last() {
    let path = picture_path("model.svg");
    let text = run("model", &[&path]);
    for program in ["all of 48 bytes", "1 to 128 bytes", "small, and buffers of 80 KB"] {
        assert!(text.lines().any(|line| line.starts_with(program)), "{text}");
    }
    assert_is_picture(&path);
}

#[test]
fn the_global_allocator_draws_itself_and_gives_unused_pages_back() {
    let path = picture_path("global.svg");
    let text = run("global_allocator", &[&path]);
    assert!(text.contains("\n# bytes in allocated blocks"), "{text}");
    assert!(text.ends_with("\n  0 bytes of unused units have pages\n"), "{text}");
    assert_is_picture(&path);
}

#[test]
fn the_arena_ends_at_once() {
    let text = run("arena", &[]);
    assert!(text.starts_with("300000 nodes inserted"), "{text}");
    assert!(text.contains("\n7200000 bytes requested, "), "{text}");
}

#[test]
fn the_examples_that_the_readme_names_are_all_there_are() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let readme = readme.unwrap();
    let mut named: Vec<&str> = readme
        .split("--example ")
        .skip(1)
        .map(|rest| rest.split_whitespace().next().unwrap())
        .collect();
    named.sort_unstable();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort_unstable();
    assert_eq!(named, files);
}
