//! Which lines pin half-empty pools, in a program that is known to the last block.

use memtrace::heap::{ClassStats, Config, Heap};
use memtrace::{PinnedMemory, PinnedMemoryError, Pins, Pooled, Traceback};
use std::hint::black_box;

static HEAP: Heap = Heap::new(Config::new().block_words(true));

#[global_allocator]
static ALLOC: memtrace::Alloc<Pooled> = memtrace::Alloc::pooled(&HEAP);

/// A size that nothing else in the program asks for.
type Alone = [u64; 219];
/// Another.
type Mixed = [u64; 380];

fn class_of<T>() -> ClassStats {
    let stats = HEAP.stats();
    *stats.classes.iter().find(|class| class.block_size >= size_of::<T>()).unwrap()
}

fn is_at(traceback: &Traceback, line: u32) -> bool {
    traceback.newest().is_some_and(|frame| &*frame.filename == file!() && frame.lineno == line)
}

/// What the blocks of a line pin.
fn pins_of(memory: &PinnedMemory, line: u32) -> Pins {
    let mut found = memory.sites.iter().filter(|site| is_at(&site.traceback, line));
    let pins = found.next().unwrap_or_else(|| panic!("line {line} is not in {memory}")).pins;
    assert_eq!(found.next(), None);
    pins
}

fn check_sum(memory: &PinnedMemory) {
    let all = memory.sites.iter().map(|site| site.pins).chain([memory.untraced]);
    let sum: u64 = all.map(|pins| pins.hostage_bytes + pins.shared_bytes).sum();
    assert_eq!(sum, memory.free_bytes);
}

#[test]
fn a_line_pins_the_free_bytes_of_the_pools_that_only_its_blocks_keep() {
    assert_eq!(memtrace::pinned_memory(), Err(PinnedMemoryError::NotTracing));
    memtrace::start(25).unwrap();
    assert_eq!(class_of::<Alone>().n_blocks_used, 0);
    assert_eq!(class_of::<Mixed>().n_blocks_used, 0);

    // One of a hundred stays, the others go.
    let (mut kept, mut gone) = (Vec::with_capacity(1000), Vec::with_capacity(10_000));
    let (mut kept_line, mut gone_line) = (0, 0);
    for i in 0..10_000u64 {
        if i % 100 == 50 {
            kept_line = line!() + 1;
            kept.push(Box::new(black_box([i; 219]) as Alone));
        } else {
            gone_line = line!() + 1;
            gone.push(Box::new(black_box([i; 219]) as Alone));
        }
    }
    gone.clear();

    // Two lines that keep the same pools share them by their blocks: three of one for each of the other.
    let [mut ours, mut theirs, mut gone_too] = [(); 3].map(|()| Vec::with_capacity(2000));
    let (mut our_line, mut their_line) = (0, 0);
    for i in 0..2000u64 {
        match i % 10 {
            0..3 => {
                our_line = line!() + 1;
                ours.push(Box::new(black_box([i; 380]) as Mixed));
            }
            3 => {
                their_line = line!() + 1;
                theirs.push(Box::new(black_box([i; 380]) as Mixed));
            }
            _ => gone_too.push(Box::new(black_box([i; 380]) as Mixed)),
        }
    }
    gone_too.clear();

    let (alone, mixed) = (class_of::<Alone>(), class_of::<Mixed>());
    // The first call: names, which memtrace keeps in pools as well, come after the pools were copied.
    let memory = memtrace::pinned_memory().unwrap();
    check_sum(&memory);
    assert_eq!(alone.n_blocks_used, kept.len());
    let pins = pins_of(&memory, kept_line);
    let n_pools = alone.n_pools - alone.n_pools_empty;
    let n_free = n_pools * (65_536 / alone.block_size) - kept.len();
    assert_eq!(pins.hostage_bytes, (n_free * alone.block_size) as u64);
    assert_eq!((pins.n_pools, pins.n_blocks), (n_pools as u64, 100));
    assert_eq!(pins.block_bytes, (100 * alone.block_size) as u64);
    assert_eq!(pins.n_shared_pools, 0);
    assert_eq!(memory.sites[0].pins, pins, "the line that pins most is first");

    let (ours_pin, theirs_pin) = (pins_of(&memory, our_line), pins_of(&memory, their_line));
    let pinned = |pins: &Pins| pins.hostage_bytes + pins.shared_bytes;
    let n_mixed_pools = mixed.n_pools - mixed.n_pools_empty;
    let n_free = n_mixed_pools * (65_536 / mixed.block_size) - ours.len() - theirs.len();
    assert_eq!(pinned(&ours_pin) + pinned(&theirs_pin), (n_free * mixed.block_size) as u64);
    assert!(ours_pin.n_shared_pools >= n_mixed_pools as u64 * 9 / 10);
    assert!(pinned(&ours_pin) > 2 * pinned(&theirs_pin));

    let text = memory.to_string();
    let kib = pins.hostage_bytes as f64 / 1024.0;
    let row = format!("{kib:.2} hostage KiB in {n_pools} pools, 100 blocks");
    let place = format!("  File \"{}\", line {kept_line}", file!());
    assert!(text.contains(&row) && text.contains(&place), "{text}");

    let by_stack = memtrace::pinned_memory_by(Traceback::clone).unwrap();
    check_sum(&by_stack);
    let all_blocks = |pins: &Pins| pins.n_blocks + pins.n_shared_blocks;
    assert_eq!(all_blocks(&by_stack.sites[0].pins), 100);
    assert!(by_stack.sites[0].traceback.len() > 3);

    // Those who go pin nothing any more.
    drop((ours, theirs));
    let memory = memtrace::pinned_memory().unwrap();
    check_sum(&memory);
    assert_eq!(all_blocks(&pins_of(&memory, kept_line)), 100);
    for line in [our_line, gone_line] {
        assert!(!memory.sites.iter().any(|site| is_at(&site.traceback, line)), "{memory}");
    }
    drop(kept);
    memtrace::stop();
    assert_eq!(memtrace::pinned_memory(), Err(PinnedMemoryError::NotTracing));
}
