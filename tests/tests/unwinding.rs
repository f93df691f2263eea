//! Captures, by the walk and by the cache of sites, are those of the system's unwinder, frame for
//! frame: below every kind of call, on every kind of stack, however the code is compiled.
//!
//! `cargo xtask soak unwinding` compares more of them, in more builds.
#![cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]

use memtrace_tests::nested_build::Settings;
use memtrace_tests::unwinding::{self, Outcome};
use std::path::Path;

/// Captures of one run.
const N_CAPTURES: u64 = 30_000;

fn run(settings: &Settings, sabotage: Option<u64>) -> Outcome {
    let program = unwinding::build(Path::new(env!("CARGO_TARGET_TMPDIR")), settings);
    unwinding::run(&program, N_CAPTURES, 1, sabotage)
}

fn check(settings: &Settings, n_kinds: usize) {
    let Outcome { counts, is_success, messages, .. } = &run(settings, None);
    assert!(is_success, "{}: {counts:#?}\n{messages}", settings.name);
    assert_eq!(counts.len(), n_kinds, "kinds of calls in {}: {counts:#?}", settings.name);
    for (kind, count) in counts {
        assert!(count.n_comparisons > 0, "{kind} in {}", settings.name);
        assert_eq!(count.n_differences, 0, "{kind} in {}", settings.name);
        // The stated limit is met where one unusual stack follows upon another, and nowhere else.
        assert!(count.n_explained * 10 <= count.n_comparisons, "{kind}: {count:?}");
    }
}

#[test]
fn captures_of_dev_builds_are_those_of_the_system_unwinder() {
    check(&Settings::DEV, 23);
}

#[test]
fn captures_of_release_builds_are_those_of_the_system_unwinder() {
    check(&Settings::RELEASE, 23);
}

#[test]
fn captures_of_builds_with_frame_pointers_are_those_of_the_system_unwinder() {
    check(&unwinding::FRAME_POINTERS, 23);
}

#[test]
fn captures_of_static_programs_are_those_of_the_system_unwinder() {
    // They load no libraries, and are not interrupted.
    check(&unwinding::STATIC_PIE, 22);
}

#[test]
fn a_spoilt_answer_is_a_difference() {
    let outcome = run(&Settings::RELEASE, Some(100));
    let n_sabotaged = outcome.n_sabotaged.expect("answers were spoilt");
    assert!(!outcome.is_success && n_sabotaged > N_CAPTURES / 150, "{outcome:?}");
    assert_eq!(outcome.total().n_differences, n_sabotaged, "{outcome:?}");
    assert!(outcome.messages.starts_with("difference: "), "{outcome:?}");
}
