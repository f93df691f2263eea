//! The program itself, on files that were saved by `memtrace-core`.

use std::fs;
use std::io::Read;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use memtrace_core::{Frame, MissingSource, Snapshot, SnapshotBuilder};
use serde_json::Value;
use tempfile::TempDir;

fn memtrace(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memtrace"));
    // Not the package's own directory, where relative filenames would find its sources.
    command.args(args).current_dir("/");
    command
}

/// Runs to success and returns standard output.
fn stdout(args: &[&str]) -> String {
    let Output { status, stdout, stderr } = memtrace(args).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success() && stderr.is_empty(), "{status}: {stderr}");
    String::from_utf8(stdout).unwrap()
}

/// Runs to failure and returns standard error.
fn failure(args: &[&str]) -> String {
    let Output { status, stdout, stderr } = memtrace(args).output().unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(stdout.is_empty());
    String::from_utf8(stderr).unwrap()
}

struct Files {
    directory: TempDir,
}

impl Files {
    /// Saves `old` and `new`: a cache that has grown, and a buffer that has not.
    fn new() -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(files.path("src")).unwrap();
        fs::write(files.path("src/cache.rs"), "fn insert() {\n    self.map.insert(k, v);\n}\n")
            .unwrap();
        files.snapshot(&[1024]).dump(files.path("old")).unwrap();
        files.snapshot(&[1024, 2048]).dump(files.path("new")).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn snapshot(&self, cached: &[u64]) -> Snapshot {
        self.snapshot_with(cached, SnapshotBuilder::new(25))
    }

    fn snapshot_with(&self, cached: &[u64], mut builder: SnapshotBuilder) -> Snapshot {
        let directory = self.directory.path().to_str().unwrap();
        let mut frame = |filename, lineno, function| {
            let frame = Frame::new(filename, lineno).with_function(function);
            builder.frame(frame.with_directory(directory))
        };
        let main = frame("src/main.rs", 1, "app::main");
        let insert = frame("src/cache.rs", 2, "app::cache::insert");
        let buffer = frame("src/buffer.rs", 3, "app::buffer");
        let grow = frame("/rustc/1/library/alloc/src/raw_vec.rs", 4, "alloc::raw_vec::grow");
        let in_cache = builder.stack(&[grow, insert, main], None);
        let in_buffer = builder.stack(&[buffer, main], Some(2));
        cached.iter().for_each(|&size| builder.trace(0, size, in_cache));
        builder.trace(0, 4096, in_buffer);
        builder.finish()
    }
}

/// Standard output of a command that says that figures are estimates.
fn stdout_of_samples(args: &[&str], file: &str) -> String {
    let Output { status, stdout, stderr } = memtrace(args).output().unwrap();
    let note = "sampled, one block in 64.0 KiB: figures are estimates, and ± is half the width of \
                their 95 % intervals";
    assert!(status.success());
    assert_eq!(String::from_utf8(stderr).unwrap(), format!("memtrace: {file}: {note}\n"));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn figures_of_samples_are_shown_as_estimates() {
    let files = Files::new();
    let mut builder = SnapshotBuilder::new(25);
    builder.set_sample_period(NonZeroU64::new(65_536));
    files.snapshot_with(&[2048; 100], builder).dump(files.path("sampled")).unwrap();
    let (old, new) = (files.name("old"), files.name("sampled"));
    let report = stdout_of_samples(&["report", &new, "--top", "1"], &new);
    assert!(
        report.starts_with("≈6500.52 ±1254.33 total KiB, ≈3250 ±628 total blocks\n"),
        "{report}"
    );
    let diff = stdout_of_samples(&["diff", &old, &new, "--top", "1"], &new);
    let expected = "≈6499.52 ±1254.33 new KiB, ≈6500.52 ±1254.33 total KiB, ≈3249 ±628 new blocks, \
                    ≈3250 ±628 total blocks\n";
    assert!(diff.starts_with(expected), "{diff}");
    let json = stdout_of_samples(&["report", &new, "--json"], &new);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["sample_period"], 65_536);
    assert_eq!(
        (&json["groups"][0]["count"], &json["groups"][0]["count_error"]),
        (&3250.into(), &628.into())
    );
    let json = stdout_of_samples(&["diff", &old, &new, "--json"], &new);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["sample_period"], &json["old_sample_period"]),
        (&65_536.into(), &Value::Null)
    );
    assert_eq!(json["groups"][0]["count_diff_error"], 628);
    let folded = stdout_of_samples(&["folded", &new, "--metric", "blocks"], &new);
    assert!(folded.contains("app::main;app::cache::insert 3250\n"), "{folded}");
}

#[test]
fn a_report_lists_the_largest_lines_with_their_source() {
    let files = Files::new();
    assert_eq!(
        stdout(&["report", &files.name("new")]),
        "4.00 total KiB, 1 total blocks\n  File \"src/buffer.rs\", line 3\n\n\
         3.00 total KiB, 2 total blocks\n  File \"src/cache.rs\", line 2\n    \
         self.map.insert(k, v);\n\n"
    );
}

#[test]
fn a_diff_lists_what_grew_first() {
    let files = Files::new();
    assert_eq!(
        stdout(&["diff", &files.name("old"), &files.name("new"), "--top", "1"]),
        "2.00 new KiB, 3.00 total KiB, 1 new blocks, 2 total blocks\n  \
         File \"src/cache.rs\", line 2\n    self.map.insert(k, v);\n\n"
    );
    let back = stdout(&["diff", &files.name("new"), &files.name("old"), "--top=1"]);
    assert!(back.starts_with("-2.00 new KiB, 1.00 total KiB, -1 new blocks, 1 total blocks\n"));
}

#[test]
fn groups_are_chosen_and_filtered_by_the_options() {
    let files = Files::new();
    let new = files.name("new");
    let by_file = stdout(&["report", &new, "--group-by", "filename", "--include", "*/cache.rs"]);
    assert_eq!(by_file, "3.00 total KiB, 2 total blocks\n  File \"src/cache.rs\", line 0\n\n");
    let by_stack = stdout(&["report", &new, "--group-by=traceback", "--exclude=*/cache.rs"]);
    assert_eq!(
        by_stack,
        "4.00 total KiB, 1 total blocks\n  File \"src/main.rs\", line 1\n  \
         File \"src/buffer.rs\", line 3\n\n"
    );
    assert_eq!(stdout(&["report", &new, "--include=*/a.rs", "--include=*/b.rs"]), "");
}

#[test]
fn json_is_the_same_for_scripts() {
    let files = Files::new();
    let (old, new) = (files.name("old"), files.name("new"));
    let report: Value = serde_json::from_str(&stdout(&["report", &new, "--json"])).unwrap();
    assert_eq!(report["schema"], "memtrace.statistics/1");
    assert_eq!(report["n_groups"], 2);
    assert_eq!(report["groups"][1]["size"], 3072);
    let diff = stdout(&["diff", &old, &new, "--json", "--top=1", "--group-by=filename"]);
    let diff: Value = serde_json::from_str(&diff).unwrap();
    assert_eq!(diff["schema"], "memtrace.diff/1");
    assert_eq!(diff["group_by"], "filename");
    assert_eq!(diff["groups"][0]["size_diff"], 2048);
    assert_eq!(diff["groups"].as_array().unwrap().len(), 1);
}

#[test]
fn folded_stacks_go_to_standard_output_or_a_file() {
    let files = Files::new();
    let (new, out) = (files.name("new"), files.name("out"));
    let bytes = "app::main;app::buffer 4096\napp::main;app::cache::insert 3072\n";
    assert_eq!(stdout(&["folded", &new]), bytes);
    assert_eq!(stdout(&["folded", &new, "--metric", "bytes", "-o", &out]), "");
    assert_eq!(fs::read_to_string(&out).unwrap(), bytes);
    let blocks = "app::main;app::buffer 1\napp::main;app::cache::insert 2\n";
    assert_eq!(stdout(&["folded", &new, "--metric=blocks"]), blocks);
}

#[test]
fn a_leak_is_found_in_many_snapshots_and_can_be_suppressed() {
    let files = Files::new();
    let paths: Vec<String> = (1..=6).map(|i| files.name(&format!("at-{i}"))).collect();
    for (n_entries, path) in (1..).zip(&paths) {
        files.snapshot(&vec![1024; n_entries]).dump(path).unwrap();
    }
    let leaks = |options: &[&str]| {
        let files = paths.iter().map(String::as_str);
        stdout(
            &["leaks"].into_iter().chain(files).chain(options.iter().copied()).collect::<Vec<_>>(),
        )
    };
    let text = leaks(&[]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("src/cache.rs:2: leak, +1024 B a snapshot"), "{text}");
    assert_eq!(lines[1], "  File \"src/cache.rs\", line 2");
    assert!(!text.contains("buffer.rs"), "{text}");
    assert!(leaks(&["--all"]).contains("buffer.rs"));
    assert!(leaks(&["--group-by", "function"]).starts_with("<app::cache::insert>:0: leak"));
    assert!(leaks(&["--min-growth=1000000"]).starts_with("no leak among 2 groups"));

    let rules = files.name("suppressions");
    fs::write(&rules, "# by design\nleak:^app::cache::*\n").unwrap();
    let text = leaks(&["--suppressions", &rules]);
    assert_eq!(text, "no leak among 1 groups\nsuppressed: 6144 B in 6 blocks by ^app::cache::*\n");
    fs::write(&rules, "leak:a\nrace:b\n").unwrap();
    let [first, .., last] = &paths[..] else { unreachable!() };
    let text = failure(&["leaks", first, last, last, "--suppressions", &rules]);
    assert!(text.contains(&rules) && text.contains("line 2"), "{text}");
    assert!(failure(&["leaks", first, last]).contains("three or more"));
}

#[test]
fn what_fails_is_named_on_standard_error_with_exit_code_2() {
    let files = Files::new();
    let (old, new, gone) = (files.name("old"), files.name("new"), files.name("gone"));
    for args in [&["report", &gone][..], &["diff", &old, &gone], &["diff", &gone, &new]] {
        let text = failure(args);
        assert!(text.starts_with("memtrace: ") && text.contains(&gone), "{text}");
        assert!(text.contains("No such file"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
    let bytes = fs::read(&new).unwrap();
    fs::write(&old, &bytes[..bytes.len() / 2]).unwrap();
    let text = failure(&["folded", &old]);
    assert!(text.contains(&old) && text.contains("cut off at offset"), "{text}");
    fs::write(&old, "PK\x03\x04 something else").unwrap();
    assert!(failure(&["report", &old]).contains("not a memtrace snapshot"));
    let nowhere = files.name("no/such/place");
    assert!(failure(&["folded", &new, "-o", &nowhere]).contains(&nowhere));
    assert!(failure(&["report", &new, "--group-by=functions"]).contains("traceback"));
    assert!(failure(&["report"]).contains("FILE"));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let files = Files::new();
    let mut builder = SnapshotBuilder::new(1);
    for lineno in 1..20_000 {
        let frame = builder.frame(Frame::new("a.rs", lineno));
        let stack = builder.stack(&[frame], Some(1));
        builder.trace(0, 1, stack);
    }
    let path = files.name("large");
    builder.finish().dump(Path::new(&path)).unwrap();
    for args in [
        &["report", &path, "--top=20000"][..],
        &["report", &path, "--top=20000", "--json"],
        &["folded", &path],
    ] {
        let mut command = memtrace(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0];
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut first).unwrap();
        drop(out);
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        assert!(status.success(), "{args:?}: {status}");
        assert_eq!(String::from_utf8(stderr).unwrap(), "");
    }
}

#[test]
fn why_sources_are_missing_is_told_beside_the_report() {
    let files = Files::new();
    let mut builder = SnapshotBuilder::new(1);
    let frame = Frame::new("<app::main>", 0).with_missing(MissingSource::NoDebugInfo);
    let frame = builder.frame(frame);
    let stack = builder.stack(&[frame], None);
    builder.trace(0, 512, stack);
    let path = files.name("bare");
    builder.finish().dump(&path).unwrap();
    let Output { status, stdout, stderr } = memtrace(&["report", &path]).output().unwrap();
    assert!(status.success());
    assert!(String::from_utf8(stdout).unwrap().contains("File \"<app::main>\", line 0"));
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(stderr, format!("memtrace: {path}: {}\n", MissingSource::NoDebugInfo));
}
