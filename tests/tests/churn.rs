//! What each line has allocated and given back is counted, whatever it holds.

use memtrace::{ChurnError, ChurnStatistic, Config, Lifetimes};
use std::hint::black_box;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

fn of_line(churn: &[ChurnStatistic], line: u32) -> &ChurnStatistic {
    let is_it = |sum: &&ChurnStatistic| {
        let frame = sum.traceback.iter().next_back();
        frame.is_some_and(|frame| frame.lineno == line && frame.filename.ends_with("churn.rs"))
    };
    churn.iter().find(is_it).unwrap_or_else(|| panic!("nothing of line {line}"))
}

fn lifetimes_of_line(line: u32) -> Lifetimes {
    of_line(&memtrace::churn().unwrap(), line).lifetimes.unwrap()
}

/// Where one test starts and stops tracing the other must not.
static TRACING: Mutex<()> = Mutex::new(());

#[test]
fn allocations_and_releases_of_all_threads_are_counted_at_the_line_that_allocates() {
    let _alone = TRACING.lock().unwrap();
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
    assert_eq!(temporary.lifetimes, None);
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

#[test]
fn lines_tell_how_long_their_blocks_lived() {
    let _alone = TRACING.lock().unwrap();
    memtrace::start_with(Config::new().lifetimes(true)).unwrap();
    for i in 0..1000 {
        drop(black_box(Box::new(i)));
    }
    let temporary_line = line!() - 2;
    let temporary = lifetimes_of_line(temporary_line);
    assert_eq!(temporary.n_blocks(), 1000);
    assert!(temporary.quantile(0.5).unwrap().end < Duration::from_millis(1), "{temporary:?}");

    // Given back by another thread, after a time.
    let begun = Instant::now();
    let kept: Vec<_> = (0..100).map(Box::new).collect();
    let kept_line = line!() - 1;
    assert_eq!(lifetimes_of_line(kept_line).n_blocks(), 0);
    sleep(Duration::from_millis(40));
    std::thread::spawn(move || drop(kept)).join().unwrap();
    let most = begun.elapsed();
    let kept = lifetimes_of_line(kept_line);
    // With the vector.
    assert_eq!(kept.n_blocks(), 101);
    for (lifetimes, n_blocks) in kept.classes().filter(|(_, n_blocks)| *n_blocks != 0) {
        assert!(lifetimes.end > Duration::from_millis(40), "{n_blocks} lived {lifetimes:?}");
        assert!(lifetimes.start <= most, "{n_blocks} lived {lifetimes:?}, all of it {most:?}");
    }

    // A resized block is given back by whoever had it, and born anew.
    let mut grown = black_box(vec![0_u8; 1000]);
    let grown_line = line!() - 1;
    sleep(Duration::from_millis(20));
    grown.resize(100_000, 1);
    let resized_line = line!() - 1;
    let first = lifetimes_of_line(grown_line);
    assert_eq!(first.n_blocks(), 1);
    assert!(first.quantile(1.0).unwrap().end > Duration::from_millis(20), "{first:?}");
    assert_eq!(lifetimes_of_line(resized_line).n_blocks(), 0);
    let begun = Instant::now();
    drop(grown);
    let last = lifetimes_of_line(resized_line);
    assert_eq!(last.n_blocks(), 1);
    let most = begun.elapsed() + Duration::from_secs(1);
    assert!(last.quantile(1.0).unwrap().start < most, "{last:?}");

    // A block that the program tells of is given back by whoever had it, and born anew.
    let told = black_box(Box::new([7_u8; 300]));
    let told_line = line!() - 1;
    memtrace::track(0, told.as_ptr().addr() as u64, 5000).unwrap();
    let track_line = line!() - 1;
    let figures = |line| {
        let churn = memtrace::churn().unwrap();
        let sum = of_line(&churn, line);
        let n_known = sum.lifetimes.unwrap().n_blocks();
        (sum.n_allocated, sum.allocated_bytes, sum.n_freed, sum.freed_bytes, n_known)
    };
    assert_eq!(figures(told_line), (1, 300, 1, 300, 1));
    assert_eq!(figures(track_line), (1, 5000, 0, 0, 0));
    drop(told);
    assert_eq!(figures(told_line), (1, 300, 1, 300, 1));
    assert_eq!(figures(track_line), (1, 5000, 1, 5000, 1));

    let text = of_line(&memtrace::churn().unwrap(), temporary_line).to_string();
    assert!(text.contains("; half lived less than "), "{text}");
    memtrace::stop();
    memtrace::start_with(Config::new().lifetimes(true)).unwrap();
    let n_blocks = |sum: &ChurnStatistic| sum.lifetimes.as_ref().unwrap().n_blocks();
    let churn = memtrace::churn().unwrap();
    assert!(churn.iter().all(|sum| n_blocks(sum) < 10), "{churn:#?}");
    memtrace::stop();
}
