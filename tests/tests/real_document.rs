//! Documents that nobody here wrote, parsed by programs that nobody here wrote, in four threads: what
//! memtrace counts must be the truth to the last byte.
//!
//! The documents are the description of this workspace's dependencies as cargo prints it (JSON, half
//! a megabyte) and the source files of some of these dependencies (Rust, parsed by `syn`).

use libtest_mimic::{Arguments, Trial};
use memtrace::KeyType;
use memtrace_tests::truth::{Count, Truth};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Barrier, Mutex};
use std::thread;

#[global_allocator]
static ALLOC: memtrace::Alloc<Truth> = memtrace::Alloc::new(Truth::new());

const N_THREADS: usize = 4;
/// Crates whose sources are parsed: large, real, and always there.
const CRATES: [&str; 3] = ["axum", "hyper", "tokio"];
/// Source text that is parsed, in bytes.
const SOURCE_BYTES: usize = 600_000;

/// Cargo's description of this workspace and all its dependencies.
fn metadata() -> String {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn sources(metadata: &str) -> Vec<String> {
    let metadata: Value = serde_json::from_str(metadata).unwrap();
    let mut files = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        if CRATES.contains(&package["name"].as_str().unwrap()) {
            let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
            collect_sources(&manifest.with_file_name("src"), &mut files);
        }
    }
    let mut n_bytes = 0;
    let mut texts: Vec<String> =
        files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    texts.retain(|text| {
        n_bytes += text.len();
        n_bytes <= SOURCE_BYTES
    });
    assert!(texts.len() > 40, "only {} source files were found", texts.len());
    texts
}

fn collect_sources(directory: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect_sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// What a thread keeps of its documents.
enum Parsed {
    Json(Value),
    // syn's trees cannot be sent to another thread.
    Rust { n_items: usize, printed: String },
}

/// Compares traced bytes and blocks with the truth, and the snapshot's sum with both; what memtrace
/// holds itself is in `own`.
fn check(own: &mut Count) -> Count {
    let count = ALLOC.inner().count();
    let expected = count - *own;
    assert_eq!(memtrace::traced_memory().current as i64, expected.bytes);
    let snapshot = memtrace::take_snapshot().unwrap();
    let sum = Count { blocks: snapshot.n_traces() as i64, bytes: snapshot.total_size() as i64 };
    assert_eq!(sum, expected);
    drop(snapshot);
    *own += ALLOC.inner().count() - count;
    expected
}

fn parsed_documents_are_counted_to_the_last_byte() {
    let document = metadata();
    let sources = sources(&document);
    ALLOC.inner().begin();
    memtrace::start(25).unwrap();
    let mut own = Count::default();

    let barrier = Barrier::new(N_THREADS + 1);
    let kept: Mutex<Vec<Parsed>> = Mutex::new(Vec::new());
    let pause = || {
        barrier.wait();
        barrier.wait();
    };
    let work = |t: usize| {
        let json: Value = serde_json::from_str(&document).unwrap();
        let mine = sources.iter().skip(t).step_by(N_THREADS);
        let trees: Vec<syn::File> = mine.map(|text| syn::parse_file(text).unwrap()).collect();
        pause();
        for tree in &trees {
            let printed = tree.items.iter().map(|item| format!("{:p}\n", item)).collect();
            kept.lock().unwrap().push(Parsed::Rust { n_items: tree.items.len(), printed });
        }
        kept.lock().unwrap().push(Parsed::Json(json));
        drop(trees);
        pause();
        // Each releases what the others made.
        for _ in 0..20 {
            drop(kept.lock().unwrap().pop());
        }
        pause();
    };
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..N_THREADS).map(|t| scope.spawn(move || work(t))).collect();
        let mut at_pause = || {
            barrier.wait();
            let count = check(&mut own);
            barrier.wait();
            count
        };
        let with_trees = at_pause();
        assert!(with_trees.blocks > 100_000, "{with_trees:?}");
        let with_kept = at_pause();
        assert!(with_kept.bytes < with_trees.bytes);
        assert!(at_pause().blocks < with_kept.blocks);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    check(&mut own);

    // The rest is named by lines of this file and of serde_json, not by raw_vec.rs.
    let snapshot = memtrace::take_snapshot().unwrap();
    memtrace::untraced(|| {
        let statistics = snapshot.statistics(KeyType::Filename);
        assert!(statistics.iter().take(3).any(|statistic| {
            let filename = &statistic.traceback.newest().unwrap().filename;
            filename.contains("serde_json") || filename.ends_with("real_document.rs")
        }));
    });
    drop(snapshot);
    let is_right = |parsed: &Parsed| match parsed {
        Parsed::Json(json) => json["packages"].as_array().unwrap().len() > 50,
        Parsed::Rust { n_items, printed } => printed.lines().count() == *n_items,
    };
    assert!(kept.lock().unwrap().iter().all(is_right));
    drop(kept);
    assert_eq!(memtrace::tracer_memory().losses, Default::default());
    memtrace::stop();
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trial = Trial::test("parsed_documents_are_counted_to_the_last_byte", || {
        parsed_documents_are_counted_to_the_last_byte();
        Ok(())
    });
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}
