//! The ledger of a program whose allocator is the pooled heap: its lines move as blocks do.

use libtest_mimic::{Arguments, Trial};
use memtrace::heap::{Config, Heap};
use memtrace::{Alloc, Ledger, LedgerDiff, LedgerKind};
use std::hint::black_box;
use std::process::ExitCode;

#[global_allocator]
static ALLOC: Alloc<Heap> = Alloc::new(Heap::new(Config::new()));

const MIB: i64 = 1 << 20;

/// What may come and go for reasons of its own: the printing of results, the ledger's lines, pages that
/// the system takes from memory that is idle.
const NOISE: i64 = 3 * MIB;

/// 64 MiB of blocks of 500 bytes, which take 512 each, 127 or so to a pool.
const BLOCK_SIZE: usize = 500;
const N_BLOCKS: usize = (64 << 20) / BLOCK_SIZE;

fn ledger() -> Ledger {
    let ledger = memtrace::ledger_of(ALLOC.inner()).unwrap();
    let sum: i64 = ledger.lines().iter().map(|line| line.bytes).sum();
    assert_eq!(sum, ledger.resident_bytes(), "{ledger}");
    ledger
}

fn booked(ledger: &Ledger, kind: LedgerKind) -> i64 {
    ledger
        .lines()
        .iter()
        .filter_map(|line| Some(line.booked_bytes?).filter(|_| line.kind == kind))
        .sum::<u64>() as i64
}

/// What the heap's books say is live now; no ledger is kept, which would be live itself.
fn live_bytes_now() -> i64 {
    booked(&ledger(), LedgerKind::Live)
}

/// What is swapped out by the time of `ledger` is not resident, and no error.
#[track_caller]
fn assert_near(found: i64, expected: i64, tolerance: i64, ledger: &Ledger) {
    let tolerance = tolerance + ledger.swapped_bytes().unwrap_or(0) as i64;
    assert!((found - expected).abs() <= tolerance, "{found}, not {expected}, in\n{ledger}");
}

/// The difference of what is resident, but for pages of files, which come and go.
fn apart_from_files(diff: &LedgerDiff) -> i64 {
    diff.resident_bytes_diff() - diff.bytes_diff_of(LedgerKind::Files)
}

fn half_of_the_blocks_freed_is_half_of_the_live_memory_free_in_pools() {
    // With all of its pages touched.
    let mut blocks: Vec<Option<Box<[u8]>>> = Vec::new();
    blocks.resize_with(N_BLOCKS, || None);
    let before = ledger();
    let live_before = live_bytes_now();
    for block in &mut blocks {
        *block = Some(black_box(vec![1; BLOCK_SIZE]).into());
    }
    let live_full = live_bytes_now();
    let full = ledger();
    let grown = full.compare_to(&before);
    let live_bytes = (N_BLOCKS * BLOCK_SIZE) as i64;
    assert_eq!(live_full - live_before, live_bytes);
    assert_near(grown.bytes_diff_of(LedgerKind::Live), live_bytes, NOISE, &full);
    let rounding = (N_BLOCKS * (512 - BLOCK_SIZE)) as i64;
    assert_near(grown.bytes_diff_of(LedgerKind::Rounding), rounding, NOISE, &full);
    assert_near(apart_from_files(&grown), live_bytes + rounding, NOISE, &full);

    let live_full = live_bytes_now();
    // Every second block: no pool becomes empty.
    for block in blocks.iter_mut().step_by(2) {
        *block = None;
    }
    let live_half = live_bytes_now();
    let half = ledger();
    let shrunk = half.compare_to(&full);
    let n_freed = N_BLOCKS.div_ceil(2);
    let freed_bytes = (n_freed * BLOCK_SIZE) as i64;
    assert_eq!(live_half - live_full, -freed_bytes);
    let booked_free = booked(&half, LedgerKind::Free) - booked(&full, LedgerKind::Free);
    assert_near(booked_free, (n_freed * 512) as i64, 64 << 10, &half);
    assert_near(shrunk.bytes_diff_of(LedgerKind::Live), -freed_bytes, NOISE, &half);
    assert_near(shrunk.bytes_diff_of(LedgerKind::Free), (n_freed * 512) as i64, NOISE, &half);
    assert_near(apart_from_files(&shrunk), 0, NOISE, &half);
    assert_near(shrunk.slack_bytes_diff(), freed_bytes, NOISE, &half);

    // Nothing that is large is left over: a twentieth of what is resident at most.
    for ledger in [&full, &half] {
        let rest = ledger.bytes_of(LedgerKind::Unaccounted);
        assert!(rest.abs() < ledger.resident_bytes() / 20 + MIB, "{ledger}");
    }
    drop(black_box(blocks));
}

fn what_a_large_block_never_touched_is_not_resident() {
    let before = ledger();
    let live_before = live_bytes_now();
    let mut block: Vec<u8> = Vec::with_capacity(40 << 20);
    block.resize(10 << 20, 1);
    let block = black_box(block);
    let live_after = live_bytes_now();
    let after = ledger();
    let diff = after.compare_to(&before);
    assert_near(diff.bytes_diff_of(LedgerKind::Live), 10 * MIB, NOISE, &after);
    assert_eq!(live_after - live_before, 40 * MIB);
    drop(block);
}

fn what_the_tracer_takes_has_a_line_of_its_own() {
    let before = ledger();
    memtrace::start(25).unwrap();
    let blocks: Vec<_> = (0..200_000u32).map(|_| black_box(Box::new([1u8; 16]))).collect();
    let after = ledger();
    let diff = after.compare_to(&before);
    let tracer = memtrace::tracer_memory().total() as i64;
    assert!(tracer > MIB, "{tracer}");
    assert_near(diff.bytes_diff_of(LedgerKind::Tracer), tracer, NOISE, &after);
    memtrace::stop();
    drop(blocks);
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One after another on the main thread: figures are those of the process.
    arguments.test_threads = Some(1);
    macro_rules! trials {
        ($($case:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($case), || { $case(); Ok(()) })),*]
        };
    }
    let trials = trials![
        half_of_the_blocks_freed_is_half_of_the_live_memory_free_in_pools,
        what_a_large_block_never_touched_is_not_resident,
        what_the_tracer_takes_has_a_line_of_its_own,
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}
