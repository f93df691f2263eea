//! The snapshot file: what it keeps, what it costs, and what it makes of damage.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use memtrace_core::{
    Attribution, FileError, Frame, Generation, KeyType, MissingSource, Module, Snapshot,
    SnapshotBuilder, StackId, Thread,
};

/// Counts what the current thread has allocated.
struct Counting;

thread_local! {
    static LIVE_BYTES: Cell<isize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count(n_bytes: isize) {
    let live = LIVE_BYTES.get() + n_bytes;
    LIVE_BYTES.set(live);
    PEAK_BYTES.set(PEAK_BYTES.get().max(live));
}

// SAFETY: every request is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both exist for a moment, at worst.
        count(new_size as isize);
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, new_size) }
    }
}

#[global_allocator]
static ALLOC: Counting = Counting;

/// Returns also the most memory in use meanwhile, in bytes, beyond what was in use before.
fn with_peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE_BYTES.get();
    PEAK_BYTES.set(before);
    let result = work();
    (result, (PEAK_BYTES.get() - before) as usize)
}

/// What loading may take at most, as `Snapshot::load` says.
fn memory_limit(file_len: usize) -> usize {
    80 * file_len + (1 << 20)
}

/// A little of everything.
fn small() -> Snapshot {
    let mut builder = SnapshotBuilder::new(7);
    let full = Frame::new("src/é.rs", 3)
        .with_function("a::f")
        .with_module(Module::new("/bin/a"))
        .with_directory("/src")
        .with_inlined(true);
    let full = builder.frame(full);
    let missing = Frame::new("<a::g>", 0).with_missing(MissingSource::NotUnwound);
    let missing = builder.frame(missing);
    let library = Module::new("/usr/lib/libfoo.so.1").with_build_id([0xab, 0xcd, 0]);
    let unnamed = builder.frame(Frame::unnamed(library, 0x1234));
    let high = builder.frame(Frame::unnamed(Module::new("").with_build_id([]), u64::MAX));
    let known = builder.stack(&[full, missing, full], Some(u16::MAX));
    let cut = builder.stack(&[missing], None);
    let empty = builder.stack(&[], Some(0));
    let raw = builder.stack(&[high, unnamed, missing], None);
    let worker = builder.thread(Thread::new(3, 77, "worker"));
    let nameless = builder.thread(Thread::new(u32::MAX, 0, ""));
    builder.trace_of(0, 64, known, Some(worker), Some(1));
    builder.trace(u32::MAX, u64::MAX, cut);
    builder.trace_of(0, 0, empty, Some(nameless), None);
    builder.trace_of(0, 64, known, Some(worker), Some(u32::MAX));
    builder.trace(7, 64, raw);
    builder.set_generation(Some(Generation { run: u64::MAX, number: 5 }));
    let attribution = Attribution::default().hide_files("*[x]").hide_crate("c").only_workspace();
    builder.finish().with_attribution(attribution)
}

/// Pseudo-random numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.roll()) * n as u128) >> 64) as usize
    }
}

/// As many stacks as asked for, 10 to 25 frames deep, in which each frame calls one of four.
fn stacks(builder: &mut SnapshotBuilder, n_stacks: usize, dice: &mut Dice) -> Vec<StackId> {
    let n_frames = n_stacks / 2;
    let frames: Vec<_> = (0..n_frames)
        .map(|i| {
            let (module, line) = (i % 300, 1 + (i * 7 % 1900) as u32);
            let frame = Frame::new(format!("/home/u/app/src/module_{module}.rs"), line);
            builder.frame(frame.with_function(format!("app::module_{module}::Type::method_{i}")))
        })
        .collect();
    (0..n_stacks)
        .map(|_| {
            let mut frame = 0;
            let mut outermost_first = Vec::new();
            for depth in 0..10 + dice.below(16) {
                frame = (frame * 31 + dice.below(4) * 7919 + depth * 13) % n_frames;
                outermost_first.push(frames[frame]);
            }
            outermost_first.reverse();
            builder.stack(&outermost_first, Some(outermost_first.len() as u16))
        })
        .collect()
}

/// Traces of stacks in no order, each stack with a size of its own.
fn large(n_traces: usize, n_stacks: usize) -> Snapshot {
    let dice = &mut Dice(88_172_645_463_325_252);
    let mut builder = SnapshotBuilder::new(25);
    let stacks = stacks(&mut builder, n_stacks, dice);
    let sizes: Vec<u64> = stacks.iter().map(|_| 16 + dice.below(1009) as u64).collect();
    for _ in 0..n_traces {
        let at = dice.below(stacks.len());
        builder.trace(0, sizes[at], stacks[at]);
    }
    builder.finish()
}

fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot.write_to(&mut bytes).unwrap();
    bytes
}

fn load(bytes: &[u8]) -> Result<Snapshot, FileError> {
    Snapshot::read_from(bytes)
}

/// Everything a snapshot holds, including what equality of frames leaves out.
fn everything(snapshot: &Snapshot) -> String {
    let traces: Vec<_> = snapshot
        .traces()
        .enumerate()
        .map(|(i, trace)| (trace, snapshot.thread_of(i), snapshot.birth_of(i)))
        .collect();
    format!(
        "{} {:?} {:?} {:?} {:?} {traces:#?}",
        snapshot.traceback_limit(),
        snapshot.sample_period(),
        snapshot.generation(),
        snapshot.attribution(),
        snapshot.threads(),
    )
}

const HEADER_LEN: usize = 16;
const SECTION_HEADER_LEN: usize = 12;

/// A section: its tag, its contents, and where these start in the file.
#[derive(Clone, Debug)]
struct Section {
    tag: [u8; 4],
    start: usize,
    contents: Vec<u8>,
}

fn sections(file: &[u8]) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut at = HEADER_LEN;
    while at < file.len() {
        let tag = file[at..at + 4].try_into().unwrap();
        let len = u64::from_le_bytes(file[at + 4..at + 12].try_into().unwrap()) as usize;
        let start = at + SECTION_HEADER_LEN;
        sections.push(Section { tag, start, contents: file[start..start + len].to_vec() });
        at = start + len + 4;
    }
    sections
}

/// A file of these sections, with lengths and checksums that are right.
fn file_of(sections: &[Section]) -> Vec<u8> {
    let mut file = b"MEMTRACE\x02\0\0\0\x04\x03\x02\x01".to_vec();
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&file);
    for Section { tag, contents, .. } in sections {
        let start = file.len();
        file.extend(tag);
        file.extend((contents.len() as u64).to_le_bytes());
        file.extend(contents);
        checksum.update(&file[start..]);
        file.extend(checksum.clone().finalize().to_le_bytes());
    }
    file
}

/// The small file with other sections.
fn forged(forge: impl FnOnce(&mut Vec<Section>)) -> Vec<u8> {
    let mut sections = sections(&bytes_of(&small()));
    forge(&mut sections);
    file_of(&sections)
}

/// The place of a section of the small file.
fn place(tag: &[u8; 4]) -> usize {
    sections(&bytes_of(&small())).iter().position(|section| section.tag == *tag).unwrap()
}

fn malformed(bytes: &[u8]) -> (&'static str, u64, String) {
    match load(bytes) {
        Err(FileError::Malformed { section, offset, reason }) => (section, offset, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_round_trip_keeps_everything() {
    let many_threads = {
        let mut builder = SnapshotBuilder::new(1);
        let stack = builder.stack(&[], None);
        let thread = builder.thread(Thread::new(1, 2, "x"));
        builder.trace_of(5, 1, stack, Some(thread), Some(9));
        builder.trace_of(5, u64::from(u32::MAX), stack, Some(thread), Some(9));
        builder.finish()
    };
    let empty = SnapshotBuilder::new(u16::MAX).finish();
    let sampled_and_empty = {
        let mut builder = SnapshotBuilder::new(1);
        builder.set_sample_period(NonZeroU64::new(u64::MAX));
        builder.finish()
    };
    let wide = Snapshot::from_traces(small().traces(), 1);
    for snapshot in
        [small(), many_threads, empty, wide, large(5000, 300), sampled(), sampled_and_empty]
    {
        let bytes = bytes_of(&snapshot);
        let loaded = load(&bytes).unwrap();
        assert_eq!(everything(&loaded), everything(&snapshot));
        assert_eq!(bytes_of(&loaded), bytes);
        for key_type in KeyType::ALL {
            assert_eq!(loaded.statistics(key_type), snapshot.statistics(key_type), "{key_type}");
        }
    }
}

/// A snapshot with traces that are certain and others that are samples.
fn sampled() -> Snapshot {
    let mut builder = SnapshotBuilder::new(1);
    builder.set_sample_period(NonZeroU64::new(4096));
    let stack = builder.stack(&[], None);
    builder.trace(0, 64, stack);
    builder.certain_trace_of(0, 64, stack, None, None);
    builder.trace(3, 64, stack);
    builder.finish()
}

#[test]
fn a_file_from_before_there_were_samples_is_what_is_written_of_every_block() {
    let file = include_bytes!("data/every_block.snap");
    assert_eq!(everything(&load(file).unwrap()), everything(&small()));
    assert!(bytes_of(&small()) == file);
}

#[test]
fn hostile_periods_and_certainties_are_refused() {
    // Without patterns, for which the section would be filled up.
    let snapshot = sampled().with_attribution(Attribution::newest_frame());
    let whole = sections(&bytes_of(&snapshot));
    let meta = whole[0].contents.clone();
    // The period takes two bytes, then there is a 1: each trace has a certainty of its own.
    let exact = meta.len() - 3;
    assert_eq!(meta[exact..], [0x80, 0x20, 1]);
    let with_meta = |end: &[u8]| {
        let mut sections = whole.clone();
        sections[0].contents.truncate(exact);
        sections[0].contents.extend(end);
        load(&file_of(&sections))
    };
    assert_eq!(with_meta(&[0x80, 0x20, 1]).unwrap().total_count(), 67);
    // Longer, and with zeros after it.
    assert_eq!(with_meta(&[0x80, 0xa0, 0, 1, 0, 0]).unwrap().total_count(), 67);
    let refused: [(&[u8], &str); 7] = [
        (&[1, 0, 0], "the sampling period is 1 byte, not 2 or more"),
        (&[0x80], "sampling period"),
        (&[0x80, 0x20], "certainty"),
        (&[0x80, 0x20, 2], "certainty is 2, not 0 to 1"),
        (&[0x80, 0x20, 0, 2], "certainty of all is 2, not 0 to 1"),
        (&[0xff; 11], "sampling period is not a number below 2^64"),
        (&[0x80, 0x20, 1, 5], "only zeros may follow"),
    ];
    for (end, expected) in refused {
        let Err(FileError::Malformed { section: "meta", reason, .. }) = with_meta(end) else {
            panic!("{end:?}")
        };
        assert!(reason.contains(expected), "{reason}");
    }
    // All certain, all not, or of every block: then the column of certainties is one too many.
    for end in [&[0x80, 0x20, 0, 1][..], &[0x80, 0x20, 0, 0], &[], &[0, 0]] {
        assert!(with_meta(end).is_err(), "{end:?}");
    }
    // A certainty that is neither: the last byte of the traces, or one that cannot be at all.
    for value in 0..=u8::MAX {
        let mut sections = whole.clone();
        let traces = sections.iter_mut().find(|section| section.tag == *b"trac").unwrap();
        *traces.contents.last_mut().unwrap() = value;
        if let Ok(snapshot) = load(&file_of(&sections)) {
            use_all(&snapshot);
        }
    }
}

#[test]
fn the_order_of_traces_is_kept_across_sections() {
    let mut builder = SnapshotBuilder::new(1);
    let stack = builder.stack(&[], None);
    for size in 0..150_000 {
        builder.trace(size as u32 / 70_000, size, stack);
    }
    let bytes = bytes_of(&builder.finish());
    assert_eq!(sections(&bytes).iter().filter(|section| section.tag == *b"trac").count(), 3);
    for (trace, size) in load(&bytes).unwrap().traces().zip(0..) {
        assert_eq!((trace.size, trace.domain), (size, size as u32 / 70_000));
    }
}

#[test]
fn unnamed_frames_can_be_named_after_loading() {
    let mut builder = SnapshotBuilder::new(1);
    let module = Module::new("/bin/app").with_build_id([1, 2]);
    let frame = builder.frame(Frame::unnamed(module.clone(), 0x77));
    let stack = builder.stack(&[frame], Some(1));
    builder.trace(0, 1, stack);
    let loaded = load(&bytes_of(&builder.finish())).unwrap();
    assert!(loaded.has_unnamed_frames());
    let named = loaded.name_frames(|found, file_addr| {
        assert_eq!((&**found, file_addr), (&module, 0x77));
        vec![Frame::new("src/main.rs", 5)]
    });
    assert_eq!(named.statistics(KeyType::Lineno)[0].traceback[0].to_string(), "src/main.rs:5");
}

#[test]
fn a_trace_takes_less_than_three_bytes() {
    let snapshot = large(200_000, 2000);
    let n_bytes = bytes_of(&snapshot).len();
    assert!(n_bytes < 3 * snapshot.n_traces(), "{n_bytes} bytes");
}

#[test]
fn a_large_file_is_loaded_in_the_memory_that_was_said() {
    let equal_blocks = {
        let mut builder = SnapshotBuilder::new(1);
        let stack = builder.stack(&[], None);
        builder.trace_columns(0, vec![64; 1_000_000], vec![stack; 1_000_000]);
        builder.finish()
    };
    let recursion = {
        let mut builder = SnapshotBuilder::new(1000);
        let frame = builder.frame(Frame::new("src/deep.rs", 1));
        for depth in 0..2000 {
            let stack = builder.stack(&vec![frame; depth], None);
            builder.trace(0, 1, stack);
        }
        builder.finish()
    };
    let long_names = {
        let mut builder = SnapshotBuilder::new(1);
        let start = "a::very::long::name".repeat(200);
        for i in 0..2000 {
            builder.frame(Frame::new("src/main.rs", 1).with_function(format!("{start}{i}")));
        }
        builder.finish()
    };
    for snapshot in [small(), equal_blocks, recursion, long_names, large(100_000, 3000)] {
        let bytes = bytes_of(&snapshot);
        let (loaded, n_bytes) = with_peak(|| load(&bytes).unwrap());
        assert_eq!(loaded.n_traces(), snapshot.n_traces());
        let limit = memory_limit(bytes.len());
        assert!(n_bytes <= limit, "{n_bytes} for a file of {} bytes", bytes.len());
    }
}

#[test]
fn every_truncation_is_an_error_with_its_offset() {
    let bytes = bytes_of(&small());
    for len in 0..bytes.len() {
        match load(&bytes[..len]) {
            Err(FileError::Truncated { offset, expected_len }) => {
                assert_eq!(offset, len as u64);
                assert!((len + 1..=bytes.len()).contains(&(expected_len as usize)), "{len} bytes");
            }
            other => panic!("{len} bytes: {other:?}"),
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    let bytes = bytes_of(&small());
    let tags: Vec<usize> =
        sections(&bytes).iter().map(|section| section.start - SECTION_HEADER_LEN).collect();
    for bit in 0..8 * bytes.len() {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = load(&damaged).expect_err(&format!("bit {bit}"));
        let at = bit / 8;
        let within = |range: std::ops::Range<usize>| {
            tags.iter().any(|tag| (tag + range.start..tag + range.end).contains(&at))
        };
        let is_expected = match error {
            FileError::NotASnapshot { .. } => at < 8,
            FileError::UnsupportedVersion { supported: 2, .. } => (8..12).contains(&at),
            FileError::Malformed { section: "header", offset: 12, .. } => (12..16).contains(&at),
            FileError::Malformed { offset, .. } => {
                within(0..4) && tags.contains(&(offset as usize))
            }
            FileError::Truncated { .. } => within(4..12),
            FileError::Checksum { offset, .. } => at >= HEADER_LEN && offset as usize + 4 > at,
            _ => false,
        };
        assert!(is_expected, "bit {bit}: {error}");
    }
}

#[test]
fn sections_that_are_missing_repeated_or_exchanged_are_errors() {
    let bytes = bytes_of(&large(200_000, 50));
    let whole = sections(&bytes);
    // As they are, with their old checksums.
    let file = |order: &[usize]| {
        let mut file = bytes[..HEADER_LEN].to_vec();
        for &i in order {
            let Section { start, contents, .. } = &whole[i];
            file.extend(&bytes[start - SECTION_HEADER_LEN..start + contents.len() + 4]);
        }
        file
    };
    let all: Vec<usize> = (0..whole.len()).collect();
    assert_eq!(file(&all), bytes);
    let first_traces = whole.iter().position(|section| section.tag == *b"trac").unwrap();
    for i in all.clone() {
        let mut missing = all.clone();
        missing.remove(i);
        load(&file(&missing)).expect_err("missing");
        let mut repeated = all.clone();
        repeated.insert(i, i);
        load(&file(&repeated)).expect_err("repeated");
    }
    let mut exchanged = all;
    exchanged.swap(first_traces, first_traces + 1);
    let error = load(&file(&exchanged)).unwrap_err();
    assert!(matches!(error, FileError::Checksum { section: "traces", .. }), "{error}");
}

/// With the checksums put right, damage may yield another snapshot, but never a panic.
#[test]
fn every_forged_byte_is_an_error_or_a_snapshot() {
    for snapshot in [small(), sampled()] {
        forge_every_byte(&snapshot);
    }
}

fn forge_every_byte(snapshot: &Snapshot) {
    let bytes = bytes_of(snapshot);
    let whole = sections(&bytes);
    let mut n_errors = 0;
    for (i, section) in whole.iter().enumerate() {
        for at in 0..section.contents.len() {
            for value in [0, 1, 2, 3, 0x7f, 0x80, 0xff] {
                let mut sections = whole.clone();
                sections[i].contents[at] = value;
                let file = file_of(&sections);
                let (loaded, n_bytes) = with_peak(|| load(&file));
                assert!(n_bytes <= memory_limit(file.len()), "{n_bytes} bytes");
                match loaded {
                    Ok(snapshot) => use_all(&snapshot),
                    Err(FileError::Malformed { offset, .. }) => {
                        assert!((section.start..=file.len()).contains(&(offset as usize)));
                        n_errors += 1;
                    }
                    Err(error) => panic!("byte {at} of {i}: {error}"),
                }
            }
        }
    }
    assert!(n_errors > bytes.len(), "{n_errors} errors");
}

/// Looks at everything in a snapshot that was loaded.
fn use_all(snapshot: &Snapshot) {
    for key_type in [KeyType::Lineno, KeyType::Traceback, KeyType::Thread, KeyType::Function] {
        assert!(snapshot.statistics(key_type).len() <= snapshot.n_traces());
    }
    assert_eq!(snapshot.traces().count(), snapshot.n_traces());
    assert_eq!(everything(&load(&bytes_of(snapshot)).unwrap()), everything(snapshot));
}

#[test]
fn a_forged_file_is_refused_with_the_section_and_the_place_of_the_fault() {
    let start = |i: usize| sections(&bytes_of(&small()))[i].start as u64;
    // The limit, then whether there is a generation.
    let (section, offset, reason) = malformed(&forged(|s| s[0].contents[1] = 2));
    assert_eq!((section, offset), ("meta", start(0) + 1));
    assert_eq!(reason, "generation is 2, not 0 to 1");
    let texts = place(b"text");
    let (section, offset, reason) = malformed(&forged(|s| {
        s[texts].contents = vec![0xff; 20];
    }));
    assert_eq!((section, offset), ("texts", start(texts)));
    assert_eq!(reason, "number of texts is not a number below 2^64");
    let (section, _, reason) = malformed(&forged(|s| {
        let last = s[texts].contents.iter().rposition(|&byte| byte != 0).unwrap();
        s[texts].contents[last] = 0xff;
    }));
    assert_eq!((section, &*reason), ("texts", "the texts are not UTF-8"));
    let traces = place(b"trac");
    let (section, offset, reason) = malformed(&forged(|s| s[traces].contents[0] = 9));
    assert_eq!((section, offset), ("traces", start(traces)));
    assert_eq!(reason, "the form of stacks is 9, not 0 or 1");
    let (section, _, reason) = malformed(&forged(|s| s[traces].contents[2] += 1));
    assert_eq!((section, &*reason), ("traces", "the greatest of stacks is 4, not 0 to 3"));
    let (section, _, reason) = malformed(&forged(|s| s[traces].contents.push(1)));
    assert_eq!(section, "traces");
    assert_eq!(reason, "only zeros may follow after the end of the contents");
}

#[test]
fn tables_in_which_two_are_equal_are_refused() {
    // The only text and frame with a 3 in them become equal to others with another.
    let mut builder = SnapshotBuilder::new(1);
    let frames = [2, 3].map(|line| builder.frame(Frame::new("a", line)));
    let stacks = frames.map(|frame| builder.stack(&[frame], None));
    stacks.iter().for_each(|&stack| builder.trace(0, 1, stack));
    let whole = sections(&bytes_of(&builder.finish()));
    let frames = whole.iter().position(|section| section.tag == *b"fram").unwrap();
    let mut sections = whole.clone();
    // Lines: a range of one bit each. Without it both are 2.
    let at = sections[frames].contents.windows(3).position(|w| w == [0, 2, 1]).unwrap();
    sections[frames].contents[at + 3] = 0;
    let (section, _, reason) = malformed(&file_of(&sections));
    assert_eq!((section, &*reason), ("frames", "frame 1 is there twice"));
}

#[test]
fn counts_beyond_what_a_section_may_stand_for_are_refused() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    for tag in [b"text", b"modu", b"fram", b"thrd"] {
        let i = place(tag);
        let file = forged(|s| {
            s[i].contents.splice(0..1, huge);
        });
        let ((_, _, reason), n_bytes) = with_peak(|| malformed(&file));
        assert!(reason.contains("64 times as many are allowed"), "{reason}");
        assert!(n_bytes < 1 << 20, "{n_bytes} bytes");
    }
    let stacks = place(b"stak");
    let file = forged(|s| {
        s[stacks].contents.splice(0..1, huge);
    });
    let (_, _, reason) = malformed(&file);
    assert_eq!(reason, "number of stacks is 18446744073709551615, not 0 to 4294967295");
    // The number of traces follows after the generation's run and number.
    let file = forged(|s| {
        let at = s[0].contents.iter().position(|&byte| byte == 5).unwrap();
        assert_eq!(s[0].contents[at + 1], 5);
        s[0].contents.splice(at + 1..at + 2, huge);
    });
    let ((section, _, reason), n_bytes) = with_peak(|| malformed(&file));
    assert_eq!(section, "traces");
    assert!(reason.contains("64 times as many are allowed"), "{reason}");
    assert!(n_bytes < memory_limit(file.len()), "{n_bytes} bytes");
}

#[test]
fn bytes_after_the_end_are_refused() {
    let mut bytes = bytes_of(&small());
    bytes.push(0);
    let (section, offset, reason) = malformed(&bytes);
    assert_eq!((section, offset), ("end", bytes.len() as u64 - 1));
    assert_eq!(reason, "the snapshot ends here, but 1 more bytes follow");
}

#[test]
fn a_promised_length_reserves_nothing() {
    let mut bytes = bytes_of(&small());
    bytes[HEADER_LEN + 4..HEADER_LEN + 12].copy_from_slice(&u64::MAX.to_le_bytes());
    let (error, n_bytes) = with_peak(|| load(&bytes).unwrap_err());
    assert!(matches!(error, FileError::Truncated { expected_len: u64::MAX, .. }), "{error}");
    assert!(n_bytes < 4 * bytes.len() + 1000, "{n_bytes} bytes");
}

#[test]
fn foreign_files_are_named_as_such() {
    let error = load(b"\x7fELF\x02\x01\x01\x00 and so on").unwrap_err();
    assert_eq!(
        error.to_string(),
        "not a memtrace snapshot: it starts with \"\\x7fELF\\x02\\x01\\x01\\x00\", not \"MEMTRACE\""
    );
    let mut bytes = bytes_of(&small());
    bytes[8] = 9;
    assert_eq!(
        load(&bytes).unwrap_err().to_string(),
        "snapshot format version 9 is not supported; this program reads version 2"
    );
    let mut bytes = bytes_of(&small());
    bytes[8..12].reverse();
    bytes[12..16].reverse();
    let error = load(&bytes).unwrap_err();
    assert!(matches!(error, FileError::ByteOrder), "{error}");
    assert!(error.to_string().starts_with("the snapshot's bytes are in another order"));
    // Endless, but known by its start.
    let error = Snapshot::read_from(io::repeat(b'x')).unwrap_err();
    assert!(matches!(error, FileError::NotASnapshot { .. }), "{error}");
}

/// Damages the contents of sections, with lengths and checksums put right after it.
fn mutate(sections: &mut [Section], others: &[Section], dice: &mut Dice) {
    const ODD: [u8; 8] = [0, 1, 2, 3, 0x7f, 0x80, 0xfe, 0xff];
    for _ in 0..1 + dice.below(3) {
        let contents = &mut sections[dice.below(8)].contents;
        let at = dice.below(contents.len() + 1);
        let n_bytes = dice.below(contents.len() - at + 1).min(1 + dice.below(40));
        match dice.below(7) {
            0 if at < contents.len() => contents[at] ^= 1 << dice.below(8),
            1 if at < contents.len() => contents[at] = ODD[dice.below(8)],
            2 => contents.truncate(at),
            3 => drop(contents.drain(at..at + n_bytes)),
            4 => {
                // An absurd number of up to ten bytes.
                let mut number = vec![0xff; dice.below(10)];
                number.push(dice.below(128) as u8);
                contents.splice(at..at, number);
            }
            5 => {
                let other = &others[dice.below(others.len())].contents;
                let from = dice.below(other.len() + 1);
                let part = other[from..].iter().copied().take(n_bytes);
                contents.splice(at..at, part.collect::<Vec<_>>());
            }
            _ => {
                let repeated = contents[at..at + n_bytes].repeat(dice.below(4));
                contents.splice(at..at, repeated);
            }
        }
    }
}

#[test]
fn thousands_of_damaged_files_cause_no_panic_and_no_waste() {
    const N_INPUTS: usize = 12_000;
    let dice = &mut Dice(0x9e37_79b9_7f4a_7c15);
    let seeds: Vec<Vec<u8>> =
        [small(), large(100, 20), large(1000, 9)].iter().map(bytes_of).collect();
    let seeds_in_parts: Vec<Vec<Section>> = seeds.iter().map(|seed| sections(seed)).collect();
    let others: Vec<Section> = seeds_in_parts.iter().flatten().cloned().collect();
    let (mut n_loaded, mut n_malformed) = (0, 0);
    for i in 0..N_INPUTS {
        let seed = dice.below(seeds.len());
        let file = if i % 10 == 0 {
            // As it comes, checksums and all.
            let mut file = seeds[seed].clone();
            for _ in 0..1 + dice.below(4) {
                let at = dice.below(file.len());
                file[at] ^= 1 << dice.below(8);
            }
            file.truncate(dice.below(2 * file.len()));
            file
        } else {
            let mut sections = seeds_in_parts[seed].clone();
            mutate(&mut sections, &others, dice);
            file_of(&sections)
        };
        let start = Instant::now();
        let (loaded, n_bytes) = with_peak(|| load(&file));
        assert!(start.elapsed() < Duration::from_secs(10), "input {i} takes too long");
        assert!(n_bytes <= memory_limit(file.len()), "input {i}: {n_bytes} bytes");
        match loaded {
            Ok(snapshot) => {
                n_loaded += 1;
                if n_loaded % 64 == 0 {
                    use_all(&snapshot);
                }
            }
            Err(FileError::Malformed { offset, .. }) => {
                assert!(offset <= file.len() as u64);
                n_malformed += 1;
            }
            Err(_) => {}
        }
    }
    // Most inputs got behind the checksums, and some of them are snapshots.
    assert!(n_malformed > N_INPUTS / 2, "{n_malformed} of {N_INPUTS}");
    assert!(n_loaded > N_INPUTS / 100, "{n_loaded} of {N_INPUTS}");
}

#[test]
fn a_dumped_file_replaces_the_old_one_and_leaves_nothing_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.memtrace");
    fs::write(&path, "old").unwrap();
    small().dump(&path).unwrap();
    assert_eq!(everything(&Snapshot::load(&path).unwrap()), everything(&small()));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_dump_that_fails_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let taken = directory.path().join("taken");
    fs::create_dir_all(taken.join("full")).unwrap();
    let error = small().dump(&taken).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot save {}", taken.display()));
    assert!(error.source().is_some());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert!(small().dump(directory.path().join("no/such/place")).is_err());
    assert!(small().dump("/").is_err());
}

#[test]
fn a_missing_file_is_named() {
    let error = Snapshot::load("/no/such/file").unwrap_err();
    assert_eq!(error.to_string(), "cannot open /no/such/file");
    assert!(error.source().unwrap().is::<io::Error>());
}

/// Fails after a number of bytes, in either direction.
struct Failing(usize);

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = bytes.len().min(self.0);
        self.0 -= n_bytes;
        if n_bytes == 0 { Err(io::Error::other("full")) } else { Ok(n_bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Failing {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n_bytes = bytes.len().min(self.0);
        self.0 -= n_bytes;
        bytes[..n_bytes].copy_from_slice(&b"MEMTRACE\x02\0\0\0\x04\x03\x02\x01meta"[..n_bytes]);
        if n_bytes == 0 { Err(io::Error::other("gone")) } else { Ok(n_bytes) }
    }
}

#[test]
fn failing_writers_and_readers_are_reported() {
    for n_bytes in [0, 4, 30, 100] {
        let error = small().write_to(Failing(n_bytes)).unwrap_err();
        assert!(matches!(error, FileError::Write { .. }), "{n_bytes}: {error}");
    }
    for n_bytes in [0, 4, 20] {
        let error = Snapshot::read_from(Failing(n_bytes)).unwrap_err();
        assert!(matches!(error, FileError::Read { .. }), "{n_bytes}: {error}");
    }
}
