//! What the system refuses the tracer's tables costs traces or memory, both told of, and the program notices
//! nothing.
//!
//! Each case runs in a process of its own, since what is refused once stays so: this program once more.
#![cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]

use memtrace_alloc::{Options, for_each_block, losses, start_with, tracer_memory};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::ptr;
use std::thread;
use std::time::Duration;

#[global_allocator]
static ALLOC: memtrace_alloc::Alloc = memtrace_alloc::Alloc::system();

const N_BLOCKS: usize = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };

/// Runs a case in a process of its own.
fn alone(name: &str, case: fn()) {
    const CASE: &str = "MEMTRACE_TEST_CASE";
    if std::env::var_os(CASE).is_some_and(|wanted| wanted == name) {
        return case();
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(CASE, name)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    println!("{}", text(&output.stdout));
}

fn blocks(n_blocks: usize) -> Vec<Box<[u8]>> {
    let mut blocks = memtrace_alloc::untraced(|| Vec::with_capacity(n_blocks));
    blocks.extend((0..n_blocks).map(|i| vec![1_u8; 24 + i * 7 % 100].into_boxed_slice()));
    blocks
}

/// Returns how many of some blocks are recorded; none may be wrong, twice, or there no more.
fn n_recorded(blocks: &[Box<[u8]>]) -> usize {
    memtrace_alloc::untraced(|| {
        let live: BTreeMap<u64, u64> =
            blocks.iter().map(|block| (block.as_ptr().addr() as u64, block.len() as u64)).collect();
        let mut left = live.clone();
        for_each_block(|block| {
            if let Some(size) = left.remove(&block.block_addr) {
                assert_eq!(size, block.size);
            } else {
                assert!(!live.contains_key(&block.block_addr), "twice");
            }
        });
        live.len() - left.len()
    })
}

/// All are recorded but those that are told to be lost.
fn check(blocks: &[Box<[u8]>]) {
    let n_lost = losses().n_blocks_without_record;
    let n_recorded = n_recorded(blocks);
    assert!(n_recorded <= blocks.len() && n_recorded as u64 + n_lost >= blocks.len() as u64);
}

fn n_mappings() -> usize {
    memtrace_alloc::untraced(|| fs::read_to_string("/proc/self/maps").unwrap().lines().count())
}

#[test]
fn tables_of_a_million_blocks_take_few_mappings() {
    alone("tables_of_a_million_blocks_take_few_mappings", || {
        // The C library's heap, as large as it will be.
        drop(memtrace_alloc::untraced(|| blocks(N_BLOCKS)));
        let before = n_mappings();
        start_with(Options::new().frames(25).threads(true).generations(true)).unwrap();
        let all = blocks(N_BLOCKS);
        let n_mappings = n_mappings() - before;
        println!("{n_mappings} mappings for {N_BLOCKS} blocks");
        assert!(n_mappings <= 48, "{n_mappings}");
        assert_eq!(n_recorded(&all), all.len());
        assert_eq!(losses().n_blocks_without_record, 0);
    });
}

/// Pages that cannot be one mapping, until there can be no more mappings.
fn use_up_mappings() -> Vec<(*mut libc::c_void, usize)> {
    let mut taken = Vec::with_capacity(80_000);
    loop {
        let protection = [libc::PROT_NONE, libc::PROT_READ][taken.len() % 2];
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping.
        let page = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return taken;
        }
        taken.push((page, 4096));
        assert!(taken.len() < 1_000_000, "there is no limit on mappings");
    }
}

#[test]
fn where_there_can_be_no_more_mappings_traces_are_lost_and_told_of_until_there_can() {
    alone(
        "where_there_can_be_no_more_mappings_traces_are_lost_and_told_of_until_there_can",
        || {
            let is_small = fs::read_to_string("/proc/sys/vm/max_map_count")
                .is_ok_and(|text| text.trim().parse::<u64>().is_ok_and(|limit| limit < 500_000));
            if !is_small {
                return println!("not tried: the limit on mappings is too high, or not known");
            }
            drop(memtrace_alloc::untraced(|| blocks(N_BLOCKS)));
            start_with(Options::new().frames(5).threads(true)).unwrap();
            let first = blocks(100);
            let taken = memtrace_alloc::untraced(use_up_mappings);
            let many = blocks(N_BLOCKS / 2);
            check(&first);
            check(&many);
            let n_lost = losses().n_blocks_without_record + losses().n_blocks_without_detail;
            println!("{} mappings taken, {n_lost} lost", taken.len());
            for &(page, size) in &taken {
                // SAFETY: mapped above.
                unsafe { libc::munmap(page, size) };
            }
            let before = losses();
            let more = blocks(N_BLOCKS / 4);
            assert_eq!(n_recorded(&more), more.len());
            // That it was given up is remembered for a while.
            let lost = losses().n_blocks_without_record - before.n_blocks_without_record;
            assert_eq!(lost, 0);
            drop((first, many, more));
            let left = memtrace_alloc::traced_memory().current;
            assert!(left < 100_000, "{left}");
        },
    );
}

#[test]
fn where_there_is_no_address_space_traces_are_lost_and_told_of() {
    alone("where_there_is_no_address_space_traces_are_lost_and_told_of", || {
        // SAFETY: a setting of the C library's: it keeps what it has.
        unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX) };
        drop(memtrace_alloc::untraced(|| (blocks(N_BLOCKS), blocks(N_BLOCKS / 2))));
        start_with(Options::new().frames(5)).unwrap();
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        let used = statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096;
        let mut n_before = 0;
        for mib in [0_u64, 1, 2, 3, 5, 8] {
            let limit = used + (mib << 20);
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: `limit` is readable.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
            let before = losses().n_blocks_without_record;
            let mut all = memtrace_alloc::untraced(|| Vec::with_capacity(N_BLOCKS / 2));
            all.extend((0..N_BLOCKS / 2).map(|i| vec![1_u8; 24 + i * 7 % 100].into_boxed_slice()));
            let n_lost = losses().n_blocks_without_record - before;
            let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, ..limit };
            // SAFETY: as above.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
            let n_recorded = n_recorded(&all);
            println!("{mib} MiB: {n_lost} lost, {n_recorded} recorded");
            assert!(n_recorded as u64 + n_lost >= all.len() as u64);
            // What there is serves again and again.
            assert!(n_recorded >= n_before * 9 / 10, "{n_recorded}, {n_before} before");
            n_before = n_recorded;
        }
        let all = blocks(N_BLOCKS / 2);
        assert_eq!(n_recorded(&all), all.len());
    });
}

/// Has the system refuse some calls from now on, to this thread and those that it begins.
fn refuse(calls: &[libc::c_long]) {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let mut filter = vec![libc::sock_filter { code: load as u16, jt: 0, jf: 0, k: 0 }];
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    for &call in calls {
        filter.push(libc::sock_filter { code: equal, jt: 0, jf: 1, k: call as u32 });
        let k = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        filter.push(libc::sock_filter { code: answer, jt: 0, jf: 0, k });
    }
    filter.push(libc::sock_filter { code: answer, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW });
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program and its filter are readable.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) }, 0);
}

/// Threads that allocate and release, growing and shrinking, and what is left in the end.
fn work() -> Vec<Box<[u8]>> {
    let thread = || {
        let mut kept = memtrace_alloc::untraced(|| Vec::with_capacity(1000));
        for round in 0..20 {
            let all = blocks(N_BLOCKS / 100);
            kept.extend(all.into_iter().skip(round).step_by(N_BLOCKS / 100 / 30));
            let large: Vec<Vec<u8>> = (0..40).map(|i| Vec::with_capacity(i * 1000)).collect();
            drop(large);
            thread::sleep(Duration::from_millis(5));
        }
        kept
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(thread)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn traced_without(calls: &[libc::c_long]) {
    start_with(Options::new().frames(5).threads(true)).unwrap();
    let first = blocks(1000);
    refuse(calls);
    let kept = work();
    for blocks in [&first, &kept] {
        assert_eq!(n_recorded(blocks), blocks.len());
    }
    let losses = losses();
    assert_eq!((losses.n_blocks_without_record, losses.n_blocks_without_detail), (0, 0));
    let charged = tracer_memory().charged;
    // As much again is not lost by as much work again, more or less.
    drop(work());
    drop(work());
    let charged_now = tracer_memory().charged;
    println!("{charged} bytes, then {charged_now}");
    assert!(charged_now < charged * 2 + (4 << 20), "{charged} {charged_now}");
    drop((first, kept));
    assert!(memtrace_alloc::traced_memory().current < 100_000);
    memtrace_alloc::stop();
    start_with(Options::new().frames(5)).unwrap();
    let again = blocks(1000);
    assert_eq!(n_recorded(&again), again.len());
}

#[test]
fn without_membarrier_nothing_is_lost() {
    alone("without_membarrier_nothing_is_lost", || traced_without(&[libc::SYS_membarrier]));
}

#[test]
fn without_madvise_nothing_is_lost() {
    alone("without_madvise_nothing_is_lost", || traced_without(&[libc::SYS_madvise]));
}

#[test]
fn without_mincore_nothing_is_lost_but_what_is_resident_is_not_known() {
    alone("without_mincore_nothing_is_lost_but_what_is_resident_is_not_known", || {
        traced_without(&[libc::SYS_mincore]);
        let memory = tracer_memory();
        assert!(memory.live_table == 0 && memory.charged > 0, "{memory:?}");
    });
}

#[test]
fn without_any_of_them_nothing_is_lost() {
    alone("without_any_of_them_nothing_is_lost", || {
        traced_without(&[libc::SYS_membarrier, libc::SYS_madvise, libc::SYS_mincore]);
    });
}
