//! The ledger of a program on the C library's allocator: as much as that and the tracer tell.

use memtrace::{Ledger, LedgerKind, LedgerLine};
use std::hint::black_box;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

const MIB: i64 = 1 << 20;
/// For what the test harness does, and pages that the system takes from memory that is idle.
const NOISE: i64 = 3 * MIB;

/// What is swapped out is not resident, and no error.
fn swapped(ledger: &Ledger) -> i64 {
    ledger.swapped_bytes().unwrap_or(0) as i64
}

fn checked(ledger: Ledger) -> Ledger {
    let sum: i64 = ledger.lines().iter().map(|line| line.bytes).sum();
    assert_eq!(sum, ledger.resident_bytes(), "{ledger}");
    ledger
}

#[test]
fn blocks_that_are_traced_are_live_and_those_that_are_not_are_known_by_the_c_library() {
    let ledger = || checked(memtrace::ledger().unwrap());
    let diff =
        |later: &Ledger, earlier: &Ledger, kind| later.compare_to(earlier).bytes_diff_of(kind);

    let off = ledger();
    let untraced = black_box(vec![1u8; 40 << 20]);
    let untraced_held = ledger();
    assert_eq!(untraced_held.bytes_of(LedgerKind::Live), 0, "{untraced_held}");
    let other = diff(&untraced_held, &off, LedgerKind::Other);
    assert!((other - 40 * MIB).abs() < NOISE, "{untraced_held}");

    memtrace::start(25).unwrap();
    let started = ledger();
    let mut traced: Vec<_> = (0..64 * 1024).map(|_| Some(black_box(vec![1u8; 1008]))).collect();
    let held = ledger();
    let live = diff(&held, &started, LedgerKind::Live);
    assert!((live - 63 * MIB).abs() < NOISE, "{held}");
    let grown = held.compare_to(&started);
    let apart = grown.resident_bytes_diff() - grown.bytes_diff_of(LedgerKind::Tracer)
        + (swapped(&held) - swapped(&started));
    assert!((apart - 64 * MIB).abs() < 2 * NOISE, "{held}");
    assert!(
        held.bytes_of(LedgerKind::Unaccounted).abs() < held.resident_bytes() / 10 + swapped(&held),
        "{held}"
    );

    traced.iter_mut().step_by(2).for_each(|block| *block = None);
    let half = ledger();
    assert!((diff(&half, &held, LedgerKind::Live) + 63 * MIB / 2).abs() < NOISE, "{half}");
    assert!((diff(&half, &held, LedgerKind::Free) - 32 * MIB).abs() < NOISE, "{half}");
    assert!(half.compare_to(&held).resident_bytes_diff().abs() < NOISE + swapped(&half), "{half}");

    // As if it were another allocator, which tells of its own.
    let line = LedgerLine::resident(LedgerKind::Unused, "arenas kept", 5 * MIB as u64);
    let with = checked(memtrace::ledger_with([line]).unwrap());
    assert_eq!(with.bytes_of(LedgerKind::Unused), 5 * MIB);
    assert!((with.bytes_of(LedgerKind::Live) - half.bytes_of(LedgerKind::Live)).abs() < NOISE);

    // Memory that no allocator of the process holds is none of its live blocks.
    memtrace::track(7, 0x1000, 1 << 40).unwrap();
    let tracked = ledger();
    assert!(diff(&tracked, &half, LedgerKind::Live).abs() < NOISE, "{tracked}");
    memtrace::untrack(7, 0x1000).unwrap();
    drop((untraced, traced));
}
