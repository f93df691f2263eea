//! Small inputs for a fuzzer to begin with, each with something that the others lack.

mod heap;
mod unwind;

pub(crate) use heap::heaps;
pub(crate) use unwind::{stacks, tables};

use memtrace_core::{Attribution, Frame, Generation, Module, Snapshot, SnapshotBuilder, Thread};

/// Files of snapshots.
pub(crate) fn snapshots() -> Vec<(&'static str, Vec<u8>)> {
    let snapshots = [
        ("empty", SnapshotBuilder::new(1).finish()),
        ("named", named()),
        ("unnamed", unnamed()),
        ("recursion", recursion()),
        ("threads", threads()),
        ("sizes", sizes()),
        ("equal", equal()),
    ];
    let file_of = |snapshot: Snapshot| {
        let mut file = Vec::new();
        snapshot.write_to(&mut file).expect("a vector takes everything");
        file
    };
    snapshots.into_iter().map(|(name, snapshot)| (name, file_of(snapshot))).collect()
}

/// Functions, files, lines; stacks that share their outer frames; more than one block of a column.
fn named() -> Snapshot {
    let mut builder = SnapshotBuilder::new(25);
    let frames: Vec<_> = (0..40_u32)
        .map(|i| {
            let frame = Frame::new(format!("src/part_{}.rs", i % 7), 10 * i)
                .with_function(format!("app::part_{}::step_{i}", i % 7))
                .with_inlined(i % 3 == 0);
            builder.frame(if i % 5 == 0 { frame } else { frame.with_directory("/src/app") })
        })
        .collect();
    let stacks: Vec<_> = (0..30)
        .map(|i| {
            let newest_first = [frames[i % 9 + 20], frames[i % 4 + 8], frames[i % 2], frames[0]];
            builder.stack(&newest_first[i % 3..], Some(4))
        })
        .collect();
    for i in 0..5000 {
        builder.trace(0, 16 + (i % 30) as u64, stacks[i * 7 % 30]);
    }
    builder.finish()
}

/// Addresses in modules with and without build ids, and stacks that were cut.
fn unnamed() -> Snapshot {
    let mut builder = SnapshotBuilder::new(4);
    let program = Module::new("/usr/bin/app").with_build_id([0xde, 0xad, 0xbe, 0xef]);
    let library = Module::new("/usr/lib/libfoo.so.1");
    let frames: Vec<_> = (0..20_u64)
        .map(|i| {
            let module = if i % 4 == 0 { &library } else { &program };
            builder.frame(Frame::unnamed(module.clone(), 0x1000 + i * 37))
        })
        .collect();
    for i in 0..200 {
        let stack = builder.stack(&[frames[i % 20], frames[i % 6], frames[i % 3]], None);
        builder.trace(0, 8 * (i % 12) as u64, stack);
    }
    let attribution = Attribution::newest_frame().hide_files("*[!a-c]?").hide_crate("app");
    builder.finish().with_attribution(attribution)
}

fn recursion() -> Snapshot {
    let mut builder = SnapshotBuilder::new(1000);
    let frame = builder.frame(Frame::new("src/deep.rs", 1));
    for depth in 0..60 {
        let stack = builder.stack(&vec![frame; depth], None);
        builder.trace(0, 1, stack);
    }
    builder.finish()
}

/// Domains, threads, births and a generation.
fn threads() -> Snapshot {
    let mut builder = SnapshotBuilder::new(2);
    let frames = [1, 2, 3].map(|line| builder.frame(Frame::new("src/main.rs", line)));
    let stacks = frames.map(|frame| builder.stack(&[frame], Some(1)));
    let threads = ["main", "worker", ""].map(|name| builder.thread(Thread::new(1, 77, name)));
    for i in 0..300 {
        let thread = (i % 5 != 0).then_some(threads[i % 3]);
        let birth = (i % 7 != 0).then_some((i / 50 + 1) as u32);
        let domain = if i % 11 == 0 { 389_047 } else { 0 };
        builder.trace_of(domain, 100, stacks[i % 3], thread, birth);
    }
    builder.set_generation(Some(Generation { run: 0x0123_4567_89ab_cdef, number: 8 }));
    builder.finish()
}

/// Sizes of every order of magnitude.
fn sizes() -> Snapshot {
    let mut builder = SnapshotBuilder::new(1);
    let stack = builder.stack(&[], Some(0));
    (0..64).for_each(|bit| builder.trace(0, 1 << bit, stack));
    builder.trace(0, u64::MAX, stack);
    builder.finish()
}

/// Enough of the same for zeros to fill the file up.
fn equal() -> Snapshot {
    let mut builder = SnapshotBuilder::new(1);
    let stack = builder.stack(&[], None);
    builder.trace_columns(0, vec![64; 20_000], vec![stack; 20_000]);
    builder.finish()
}
