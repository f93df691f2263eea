//! What cannot be done is refused in words that say what to do instead, and nothing is lost by it.
//!
//! This binary itself has no allocator of memtrace's; the program `switches` has one.

use memtrace::{SnapshotError, StartError};
use std::process::{Command, Output};

/// Runs `switches` with a script and, if given, with `MEMTRACE` set.
fn switches(script: &str, memtrace: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switches"));
    command.arg(script).env_remove("MEMTRACE");
    if let Some(value) = memtrace {
        command.env("MEMTRACE", value);
    }
    command.output().expect("the program runs")
}

/// What the program wrote, if it ended well and complained of nothing.
fn quiet_output(script: &str, memtrace: Option<&str>) -> String {
    let output = switches(script, memtrace);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "MEMTRACE={memtrace:?}");
    String::from_utf8(output.stdout).expect("the program writes UTF-8")
}

#[test]
fn without_the_allocator_starting_is_refused_and_the_line_to_add_is_named() {
    for _ in 0..2 {
        let error = memtrace::start(25).unwrap_err();
        assert_eq!(error, StartError::NotInstalled);
        let line = "#[global_allocator] static ALLOC: memtrace::Alloc = memtrace::Alloc::system();";
        assert!(error.to_string().contains(line), "{error}");
        assert!(!memtrace::is_tracing());
    }
    assert_eq!(memtrace::take_snapshot().unwrap_err(), SnapshotError::NotTracing);
    assert_eq!(memtrace::traced_memory(), memtrace::TracedMemory::default());
    let block = Box::new(1_u8);
    assert_eq!(memtrace::traceback_of(&raw const *block), None);
}

#[test]
fn the_line_that_the_refusal_names_is_the_one_that_works() {
    let source = include_str!("../src/bin/switches.rs").replace('\n', " ");
    assert!(source.contains(
        "#[global_allocator] static ALLOC: memtrace::Alloc = memtrace::Alloc::system();"
    ));
    assert_eq!(quiet_output("start=25", None), "Now\n");
}

#[test]
fn zero_frames_are_refused_with_what_is_allowed() {
    let text = "error: the number of frames must be in 1..=65535, not 0\n";
    assert_eq!(
        quiet_output("start=0,state,start=65535,start=0,state", None),
        format!("{text}tracing: false, limit: 1\nNow\n{text}tracing: true, limit: 65535\n")
    );
}

#[test]
fn a_snapshot_is_refused_while_tracing_is_off() {
    let text = "error: tracing is off: call memtrace::start(25), or set MEMTRACE=25 in the \
                environment, first\n";
    assert_eq!(
        quiet_output("snapshot,start=3,stop,snapshot,stop,snapshot", None),
        format!("{text}Now\n{text}{text}")
    );
}

#[test]
fn a_second_start_changes_nothing_and_tells_the_limit_in_force() {
    assert_eq!(
        quiet_output("start=7,start=9,state,stop,state,start=9,state", None),
        "Now\nAlready { limit: 7 }\ntracing: true, limit: 7\ntracing: false, limit: 7\nNow\n\
         tracing: true, limit: 9\n"
    );
}

#[test]
fn malformed_values_are_reported_once_and_tracing_stays_off() {
    for value in [
        "banana",
        "-1",
        "65536",
        "25 ",
        "2.5",
        "0x10",
        "99999999999999999999",
        "25,sample_every=",
        "25,sample=512K",
    ] {
        let output = switches("state,start=4,state", Some(value));
        assert!(output.status.success(), "MEMTRACE={value:?}: {output:?}");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            format!(
                "memtrace: MEMTRACE=\"{value}\" is not a number of frames (1 to 65535, or 0 for \
                 off), nor one with \",sample_every=\" and bytes behind it: tracing stays off\n"
            )
        );
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "tracing: false, limit: 1\nNow\ntracing: true, limit: 4\n",
            "the program may still start it"
        );
    }
}

#[test]
fn no_value_and_zero_mean_off() {
    for value in [None, Some(""), Some("0"), Some("000"), Some("  ")] {
        assert_eq!(quiet_output("state", value), "tracing: false, limit: 1\n", "{value:?}");
    }
}

#[test]
fn a_number_with_a_period_samples_from_before_main() {
    for value in ["5,sample_every=524288", "5,sample_every=512K"] {
        assert_eq!(
            quiet_output("state,period,start=25", Some(value)),
            "tracing: true, limit: 5\nSome(524288)\nAlready { limit: 5 }\n",
            "MEMTRACE={value:?}"
        );
    }
    assert_eq!(quiet_output("period", Some("5")), "None\n");
    assert_eq!(quiet_output("state", Some("0,sample_every=512K")), "tracing: false, limit: 1\n");
}

#[test]
fn a_number_traces_from_before_main_with_that_many_frames() {
    for value in ["5", " 5", "005"] {
        assert_eq!(
            quiet_output("state,start=25,snapshot", Some(value)),
            "tracing: true, limit: 5\nAlready { limit: 5 }\nlimit: 5, blocks from before main: 1\n",
            "MEMTRACE={value:?}"
        );
    }
    assert_eq!(
        quiet_output("start=5,snapshot", None),
        "Now\nlimit: 5, blocks from before main: 0\n"
    );
}
