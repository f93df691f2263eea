//! Times each operation on snapshots of the heap in its two states.
//!
//! An operation is timed on snapshots that nothing was asked of before, and then once more on the
//! same: what a snapshot remembers for later questions so shows. In each round the heap goes back and
//! forth between its states for each key, so that both snapshots are new; each result is checked
//! against the plan in the first round.

use crate::check::{Expected, Group};
use crate::heap::Heap;
use memtrace::{KeyType, Snapshot};
use memtrace_benches::analysis::{Figures, Millis, Plan, State};
use memtrace_benches::resident::resident_bytes;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

const KEY_TYPES: [KeyType; 5] = [
    KeyType::Filename,
    KeyType::Lineno,
    KeyType::Traceback,
    KeyType::CumulativeFilename,
    KeyType::CumulativeLineno,
];

/// Snapshots that are held to see how much memory one takes.
const N_HELD: u64 = 4;

/// Measures all operations; `file` is written and removed.
pub(crate) fn measure(
    n_blocks: usize,
    n_rounds: usize,
    file: &Path,
) -> Result<Figures, Box<dyn Error>> {
    let heap = Heap::start(Plan::new(n_blocks))?;
    let expected = Expected::new(&heap);
    let mut figures = Figures { program: String::from("memtrace"), ..Figures::default() };
    let mut clock = Clock::default();
    heap.enter(State::Old);

    let (cold, ms) = timed(memtrace::take_snapshot);
    let cold = cold?;
    expected.check_snapshot(&cold)?;
    figures.cold_snapshot_ms = ms;
    figures.n_traces = cold.n_traces() as u64;
    (figures.n_stacks, figures.n_frames_per_stack) = stacks(&cold);
    drop(cold);
    figures.resident_bytes = resident_bytes_per_snapshot()?;

    for round in 0..n_rounds {
        for i in 0..KEY_TYPES.len() {
            let key_type = KEY_TYPES[(i + round) % KEY_TYPES.len()];
            heap.enter(State::Old);
            let old = clock.take_snapshot()?;
            heap.enter(State::New);
            let [for_statistics, for_comparison] = [clock.take_snapshot()?, clock.take_snapshot()?];

            let name = format!("statistics {}", name_of(key_type));
            let groups = clock.twice(&name, || for_statistics.statistics(key_type));
            if round == 0 {
                expected.check_snapshot(&for_statistics)?;
                let groups = groups.iter().map(|group| Group {
                    traceback: &group.traceback,
                    size: group.size,
                    count: group.count,
                    diff: None,
                });
                expected.check_groups(key_type, groups, &for_statistics, None)?;
            }

            let name = format!("compare_to {}", name_of(key_type));
            let diffs = clock.twice(&name, || for_comparison.compare_to(&old, key_type));
            if round == 0 {
                let groups = diffs.iter().map(|group| Group {
                    traceback: &group.traceback,
                    size: group.size,
                    count: group.count,
                    diff: Some((group.size_diff, group.count_diff)),
                });
                expected.check_groups(key_type, groups, &for_comparison, Some(&old))?;
            }
        }
        let snapshot = clock.take_snapshot()?;
        clock.twice("dump", || snapshot.dump(file))?;
        figures.file_bytes = fs::metadata(file)?.len();
        let loaded = clock.twice("load", || Snapshot::load(file))?;
        if (loaded.n_traces(), loaded.total_size()) != (snapshot.n_traces(), snapshot.total_size()) {
            return Err("the loaded snapshot is not the one that was saved".into());
        }
    }
    fs::remove_file(file)?;
    figures.millis = clock.millis;
    Ok(figures)
}

/// Times by operation.
#[derive(Default)]
struct Clock {
    millis: BTreeMap<String, Millis>,
}

impl Clock {
    fn take_snapshot(&mut self) -> Result<Snapshot, memtrace::SnapshotError> {
        let (snapshot, ms) = timed(memtrace::take_snapshot);
        self.millis.entry(String::from("take_snapshot")).or_default().first.push(ms);
        snapshot
    }

    /// Does something twice and returns the first result.
    fn twice<R>(&mut self, name: &str, mut operation: impl FnMut() -> R) -> R {
        let (result, first) = timed(&mut operation);
        let (_, again) = timed(operation);
        let millis = self.millis.entry(name.to_owned()).or_default();
        millis.first.push(first);
        millis.again.push(again);
        result
    }
}

/// Does something and returns the result and its time in milliseconds.
fn timed<R>(operation: impl FnOnce() -> R) -> (R, f64) {
    let start = Instant::now();
    let result = black_box(operation());
    (result, start.elapsed().as_secs_f64() * 1000.0)
}

fn name_of(key_type: KeyType) -> String {
    let cumulative = if key_type.is_cumulative() { "cumulative-" } else { "" };
    format!("{cumulative}{key_type}")
}

/// The number of distinct stacks, and how many frames they have on average.
fn stacks(snapshot: &Snapshot) -> (u64, f64) {
    let snapshot = snapshot.clone().with_attribution(memtrace::Attribution::newest_frame());
    let groups = snapshot.statistics(KeyType::Traceback);
    let n_frames: usize = groups.iter().map(|group| group.traceback.len()).sum();
    (groups.len() as u64, n_frames as f64 / groups.len() as f64)
}

/// Holds some snapshots and returns by how much each raises the resident memory.
fn resident_bytes_per_snapshot() -> Result<u64, Box<dyn Error>> {
    let before = resident_bytes()?;
    let held: Result<Vec<_>, _> = (0..N_HELD).map(|_| memtrace::take_snapshot()).collect();
    let held = black_box(held?);
    let after = resident_bytes()?;
    drop(held);
    Ok(after.saturating_sub(before) / N_HELD)
}
