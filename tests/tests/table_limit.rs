//! The tracer's tables stay within their limit whatever the program does, which notices nothing.

use memtrace_alloc::{Options, StartError};
use memtrace_tests::paths::allocate;

#[global_allocator]
static ALLOC: memtrace_alloc::Alloc = memtrace_alloc::Alloc::system();

const N_PATHS: u32 = 1 << DEPTH;
const DEPTH: u32 = if cfg!(debug_assertions) { 17 } else { 20 };

#[test]
fn many_stacks_and_their_blocks_stay_within_the_limit_and_the_rest_is_counted() {
    let too_low = memtrace_alloc::start_with(Options::new().table_limit(1 << 20)).unwrap_err();
    assert_eq!(too_low, StartError::TableLimitTooLow { bytes: 1 << 20 });
    assert_eq!(
        too_low.to_string(),
        "the limit on tables must be 4194304 bytes or more, not 1048576"
    );
    assert!(!memtrace_alloc::is_tracing());

    const LIMIT: u64 = 8 << 20;
    memtrace_alloc::start_with(Options::new().frames(60).table_limit(LIMIT)).unwrap();
    let mut kept = memtrace_alloc::untraced(|| Vec::with_capacity(N_PATHS as usize));
    for path in 0..N_PATHS {
        kept.push(allocate(path, DEPTH));
        if path % 16_384 == 0 {
            let memory = memtrace_alloc::tracer_memory();
            assert!(memory.charged <= LIMIT, "{memory:?}");
        }
    }
    // The bits of each path were used up on the way.
    assert!(kept.iter().all(|block| **block == 0));
    let memory = memtrace_alloc::tracer_memory();
    let limited =
        memory.sites + memory.live_table + memory.tracked + memory.threads + memory.buffers;
    // The directories of the live table are not counted: a page for each 32 GiB that has blocks.
    assert!(limited <= LIMIT + (64 << 10), "{memory:?}");
    assert!(limited > LIMIT / 4, "{memory:?}");
    let n_lost = memory.losses.n_blocks_without_site + memory.losses.n_blocks_without_record;
    assert!(n_lost > u64::from(N_PATHS) / 4, "{memory:?}");

    // What was recorded is told, and forgotten when it is given back.
    let mut n_recorded = 0u64;
    memtrace_alloc::for_each_block(|_| n_recorded += 1);
    assert!(n_recorded + memory.losses.n_blocks_without_record >= u64::from(N_PATHS));
    drop(kept);
    assert!(memtrace_alloc::traced_memory().current < 10_000);
    memtrace_alloc::stop();

    // Without a limit there is room again.
    memtrace_alloc::start_with(Options::new().frames(60)).unwrap();
    let before = memtrace_alloc::losses();
    let kept: Vec<_> = (0..1000).map(|path| allocate(N_PATHS - 1 - path, DEPTH)).collect();
    assert_eq!(memtrace_alloc::losses(), before);
    drop(kept);
    memtrace_alloc::stop();
}
