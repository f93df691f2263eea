mod cache;

use cache::Cache;
use memtrace::KeyType;
use memtrace::report::Report;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

fn main() -> Result<(), Box<dyn std::error::Error>> {
    memtrace::start(25)?;
    let first = memtrace::take_snapshot()?;

    let mut cache = Cache::default();
    for number in 0..1000 {
        cache.insert(number);
    }

    let snapshot = memtrace::take_snapshot()?;
    println!("[ Top 5 ]");
    for stat in snapshot.statistics(KeyType::Lineno).iter().take(5) {
        println!("{stat}");
    }
    println!("[ Top 5 differences ]");
    for diff in snapshot.compare_to(&first, KeyType::Lineno).iter().take(5) {
        println!("{diff}");
    }
    println!("[ Report ]");
    print!("{}", Report::of(&snapshot, KeyType::Lineno).top(5));
    println!("[ Growth ]");
    print!("{}", Report::growth(&snapshot, &first, KeyType::Lineno).top(5));
    assert_eq!(cache.len(), 1000);
    Ok(())
}
