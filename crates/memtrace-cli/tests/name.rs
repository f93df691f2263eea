//! A snapshot of this very process, saved without names and named by the program.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use memtrace::{Attribution, KeyType, MissingSource, Snapshot};

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

const SIZE: usize = 123_457;

#[inline(never)]
fn keep() -> Vec<u8> {
    Vec::with_capacity(SIZE)
}

/// The line of the allocation above.
const LINE: u32 = 17;

fn memtrace(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_memtrace")).args(args).output().unwrap()
}

/// The group of the block that this test keeps.
fn of_kept(snapshot: &Snapshot) -> memtrace::Frame {
    let statistics = snapshot.statistics(KeyType::Lineno);
    let kept = statistics.iter().find(|statistic| statistic.size == SIZE as u64);
    kept.and_then(|statistic| statistic.traceback.newest()).expect("the block is traced").clone()
}

fn is_named(snapshot: &Snapshot) -> bool {
    let frame = of_kept(snapshot);
    frame.filename.ends_with("tests/name.rs")
        && frame.lineno == LINE
        && frame.function.as_deref() == Some("name::keep")
}

#[test]
fn a_raw_snapshot_is_named_where_its_program_is() {
    memtrace::start(25).unwrap();
    let kept = keep();
    let raw = memtrace::take_raw_snapshot().unwrap();
    let named_at_once = memtrace::take_snapshot().unwrap();
    drop(kept);
    memtrace::stop();
    assert!(is_named(&named_at_once), "{:?}", of_kept(&named_at_once));

    assert!(raw.has_unnamed_frames());
    assert_eq!(raw.missing_source(), Some(MissingSource::NotNamed));
    let own_path = env::current_exe().unwrap();
    let modules = raw.statistics(KeyType::Module);
    let own_name = own_path.file_name().unwrap().to_str().unwrap();
    assert!(modules.iter().any(|m| *m.traceback[0].filename == format!("<{own_name}>")));

    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    raw.dump(path("raw")).unwrap();

    // As it is, it says what to do.
    let Output { stderr, .. } = memtrace(&["report", &path("raw")]);
    assert!(String::from_utf8(stderr).unwrap().contains("memtrace name SNAPSHOT"));

    let Output { status, stderr, .. } = memtrace(&["name", &path("raw"), "-o", &path("named")]);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let named = Snapshot::load(path("named")).unwrap();
    assert!(is_named(&named), "{:?}", of_kept(&named));
    let lines = |snapshot: Snapshot| {
        let snapshot = snapshot.with_attribution(Attribution::default().only_workspace());
        snapshot.top(KeyType::Lineno, 3)
    };
    assert_eq!(lines(named)[0], lines(named_at_once)[0]);

    // Without names it is the same as it was.
    assert!(!is_named(&Snapshot::load(path("raw")).unwrap()));

    // The program has moved; it is found in a directory, and named in place.
    let moved = directory.path().join("moved");
    fs::create_dir(&moved).unwrap();
    fs::copy(&own_path, moved.join(own_name)).unwrap();
    let elsewhere = raw_with_program_at(&raw, &own_path, "/nowhere/to/be/found");
    elsewhere.dump(path("elsewhere")).unwrap();
    let Output { stderr, .. } = memtrace(&["name", &path("elsewhere")]);
    let stderr = String::from_utf8(stderr).unwrap();
    let not_found = format!("addresses in /nowhere/to/be/found/{own_name} have no names: ");
    assert!(stderr.contains(&not_found), "{stderr}");
    let still_raw = Snapshot::load(path("elsewhere")).unwrap();
    assert!(still_raw.has_unnamed_frames() && !is_named(&still_raw));
    let moved = moved.to_str().unwrap();
    let Output { status, .. } = memtrace(&["name", &path("elsewhere"), "--dir", moved]);
    assert!(status.success());
    assert!(is_named(&Snapshot::load(path("elsewhere")).unwrap()));
}

/// The snapshot as if the program had been loaded from another directory.
fn raw_with_program_at(raw: &Snapshot, own_path: &Path, directory: &str) -> Snapshot {
    raw.name_frames(|module, file_addr| {
        if Path::new(&*module.path) != own_path {
            return Vec::new();
        }
        let mut moved = memtrace::Module::new(format!("{directory}/{}", module.name()));
        moved.build_id.clone_from(&module.build_id);
        vec![memtrace::Frame::unnamed(moved, file_addr)]
    })
}
