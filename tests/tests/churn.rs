//! What each line has allocated and given back is counted, whatever it holds.

use memtrace::{ChurnError, ChurnStatistic, Config};
use std::hint::black_box;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

fn of_line(churn: &[ChurnStatistic], line: u32) -> &ChurnStatistic {
    let is_it = |sum: &&ChurnStatistic| {
        let frame = sum.traceback.iter().next_back();
        frame.is_some_and(|frame| frame.lineno == line && frame.filename.ends_with("churn.rs"))
    };
    churn.iter().find(is_it).unwrap_or_else(|| panic!("nothing of line {line}"))
}

#[test]
fn allocations_and_releases_of_all_threads_are_counted_at_the_line_that_allocates() {
    assert_eq!(memtrace::churn().unwrap_err(), ChurnError::NotTracing);
    memtrace::start(25).unwrap();
    assert_eq!(memtrace::churn().unwrap_err(), ChurnError::NotCounted);
    memtrace::stop();

    memtrace::start_with(Config::new().site_totals(true)).unwrap();
    let mut temporary_line = 0;
    let mut kept_line = 0;
    let kept: Vec<Vec<Box<[u8; 100]>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut kept = Vec::with_capacity(500);
                    for i in 0..1000 {
                        drop(black_box(Box::new([i as u8; 40])));
                        if i % 2 == 0 {
                            kept.push(black_box(Box::new([i as u8; 100])));
                        }
                    }
                    kept
                })
            })
            .collect();
        temporary_line += line!() - 9;
        kept_line += line!() - 8;
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let churn = memtrace::churn().unwrap();
    let temporary = of_line(&churn, temporary_line);
    assert_eq!((temporary.n_allocated, temporary.n_freed), (4000, 4000));
    assert_eq!((temporary.allocated_bytes, temporary.freed_bytes), (160_000, 160_000));
    let held = of_line(&churn, kept_line);
    assert_eq!((held.n_allocated, held.n_freed), (2000, 0));
    assert_eq!(held.allocated_bytes, 200_000);
    // Released by another thread than the one that allocated.
    drop(kept);
    let churn = memtrace::churn().unwrap();
    assert_eq!(of_line(&churn, kept_line).freed_bytes, 200_000);

    // A block that a tool resizes for itself is born anew where it was.
    let mut tools = vec![0_u8; 1000];
    let tools_line = line!() - 1;
    memtrace::untraced(|| tools.resize(3000, 1));
    let churn = memtrace::churn().unwrap();
    let resized = of_line(&churn, tools_line);
    assert_eq!((resized.n_allocated, resized.n_freed), (2, 1));
    assert_eq!((resized.allocated_bytes, resized.freed_bytes), (4000, 1000));
    drop(tools);
    let churn = memtrace::churn().unwrap();
    assert_eq!(of_line(&churn, tools_line).freed_bytes, 4000);

    // A vector that grows gives back what it had.
    let mut grown = Vec::new();
    for i in 0..64u64 {
        grown.push(i);
    }
    let growing_line = line!() - 2;
    let churn = memtrace::churn().unwrap();
    let growing = of_line(&churn, growing_line);
    assert_eq!((growing.n_allocated, growing.n_freed), (5, 4));
    assert_eq!(
        (growing.allocated_bytes, growing.freed_bytes),
        (8 * (4 + 8 + 16 + 32 + 64), 8 * 60)
    );
    drop(grown);

    memtrace::clear_traces();
    let churn = memtrace::churn().unwrap();
    assert!(churn.iter().all(|sum| sum.n_allocated < 100), "{churn:?}");
    memtrace::stop();
}
