//! Signal handlers that allocate, a thousand times a second and at any instruction of the hook: no
//! fault, no deadlock, no wrong stack, and no loss that is not counted.
//!
//! `cargo xtask soak signals` does it for a minute in each build.
#![cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]

use memtrace_tests::nested_build::Settings;
use memtrace_tests::outcome::Outcome;
use memtrace_tests::signals;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// One at a time: each has three threads that never wait.
static TURN: Mutex<()> = Mutex::new(());

fn run(settings: &Settings, options: &[&str]) -> Outcome {
    let _turn = TURN.lock();
    let program = signals::build(Path::new(env!("CARGO_TARGET_TMPDIR")), settings);
    Outcome::run(&program, Duration::from_secs(3), 1, options)
}

fn check(settings: &Settings, options: &[&str]) {
    let outcome = run(settings, options);
    let figure = |name: &str| outcome.figure(name);
    assert!(outcome.is_success, "{}:\n{outcome}", settings.name);
    assert_eq!(figure("differences"), 0, "{outcome}");
    // A handler that interrupts the holder of a lock cannot wait for it: what needs the lock is lost, and counted.
    let [nested, without_room] = ["nested losses", "losses without room"].map(figure);
    assert_eq!(figure("allocations without a record"), nested + without_room, "{outcome}");
    assert!(without_room <= 3, "{outcome}");
    assert_eq!(figure("losses of stacks"), 0, "{outcome}");
    assert_eq!(figure("live blocks recorded"), figure("live blocks"), "{outcome}");
    // That there was something to be seen, even on a busy machine.
    assert!(figure("signals") > 300, "{outcome}");
    assert!(figure("threads ended while interrupted") > 2, "{outcome}");
    assert!(figure("stacks compared outside of handlers") > 1000, "{outcome}");
    assert!(figure("stacks compared in handlers") > 100, "{outcome}");
    assert!(figure("nested losses") > 100, "{outcome}");
}

#[test]
fn handlers_that_allocate_are_traced_rightly_in_dev_builds() {
    check(&Settings::DEV, &[]);
}

#[test]
fn handlers_that_allocate_are_traced_rightly_in_release_builds() {
    check(&Settings::RELEASE, &[]);
}

#[test]
fn handlers_that_allocate_are_traced_rightly_with_stacks_of_any_depth() {
    check(&Settings::RELEASE, &["--frames", "400"]);
}

#[test]
fn a_spoilt_answer_is_a_difference() {
    let outcome = run(&Settings::RELEASE, &["--sabotage", "50"]);
    assert!(!outcome.is_success && outcome.figure("spoilt") > 20, "{outcome}");
    assert_eq!(outcome.figure("differences"), outcome.figure("spoilt"), "{outcome}");
    assert!(outcome.messages.starts_with("difference: "), "{outcome}");
}
