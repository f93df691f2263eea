//! Lifetimes are worth less than stacks: under a limit they go without room first, are lost, and are no other site's.

use memtrace_alloc::{Options, SiteId, for_each_site_lifetimes, for_each_site_totals};
use memtrace_tests::paths::allocate;
use std::collections::HashMap;
use std::thread;

#[global_allocator]
static ALLOC: memtrace_alloc::Alloc = memtrace_alloc::Alloc::system();

const DEPTH: u32 = 13;
const LIMIT: u64 = 16 << 20;

#[test]
fn lifetimes_leave_room_for_stacks() {
    let options = Options::new().frames(40).lifetimes(true).table_limit(LIMIT);
    memtrace_alloc::start_with(options).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..2 << DEPTH).for_each(|path| drop(allocate(path, DEPTH))));
        }
    });
    memtrace_alloc::untraced(|| {
        let memory = memtrace_alloc::tracer_memory();
        assert!(memory.charged <= LIMIT, "{memory:?}");
        assert_eq!(memory.losses.n_blocks_without_site, 0, "{memory:?}");
        assert!(memory.losses.n_blocks_without_detail > 0, "{memory:?}");
        let mut n_known: HashMap<SiteId, u64> = HashMap::new();
        for_each_site_lifetimes(|site, lifetimes| {
            n_known.insert(site, lifetimes.n_blocks());
        });
        for_each_site_totals(|site, totals| {
            assert!(n_known.get(&site).is_none_or(|n| *n <= totals.n_freed), "{site:?}");
        });
    });
}
