//! Times each operation on snapshots of the heap in its two states.
//!
//! An operation is timed on snapshots that nothing was asked of before, and then once more on the
//! same: what a snapshot remembers for later questions so shows. In each round, for each key, the
//! heap goes back to its old state and forth again, and all snapshots are taken anew. In the first
//! round each result is checked against the plan.

use crate::check::{Expected, Group};
use crate::heap::Heap;
use memtrace::{Attribution, KeyType, Snapshot, SnapshotError};
use memtrace_benches::analysis::{Figures, Millis, Plan, State};
use memtrace_benches::resident::resident_bytes;
use memtrace_benches::stopwatch::Stopwatch;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::Path;

/// Snapshots that are held to see how much memory one takes.
const N_HELD: u64 = 4;
/// Groups asked for where only the largest are.
const N_TOP: usize = 10;

/// Measures all operations; `file` is written and removed.
pub(crate) fn measure(
    n_blocks: usize,
    n_rounds: usize,
    file: &Path,
) -> Result<Figures, Box<dyn Error>> {
    let heap = Heap::start(Plan::new(n_blocks))?;
    heap.enter(State::Old);
    let expected = Expected::new(heap.plan());
    let mut clock = Clock::default();
    let mut figures = of_cold_snapshot(&expected, &mut clock)?;
    for round in 0..n_rounds {
        for i in 0..KeyType::ALL.len() {
            let key_type = KeyType::ALL[(i + round) % KeyType::ALL.len()];
            time_key(&heap, &mut clock, key_type, (round == 0).then_some(&expected))?;
        }
        clock.snapshot("take_raw_snapshot", memtrace::take_raw_snapshot)?;
        figures.file_bytes = time_file(&mut clock, file)?;
    }
    figures.millis = clock.millis;
    figures.waited_ms = clock.waited_ms;
    Ok(figures)
}

/// Takes the first snapshot of all and looks at how much there is of everything.
fn of_cold_snapshot(expected: &Expected, clock: &mut Clock) -> Result<Figures, Box<dyn Error>> {
    let (cold, cold_snapshot_ms) = clock.time(memtrace::take_snapshot);
    let cold = cold?;
    expected.check_snapshot(&cold)?;
    let whole = cold.clone().with_attribution(Attribution::newest_frame());
    let stacks = whole.statistics(KeyType::Traceback);
    let n_frames = |is: fn(&memtrace::Frame) -> bool| {
        let n_frames = stacks.iter().map(|group| group.traceback.iter().filter(|&f| is(f)).count());
        n_frames.sum::<usize>() as f64 / stacks.len() as f64
    };
    Ok(Figures {
        program: String::from("memtrace"),
        n_traces: cold.n_traces() as u64,
        n_stacks: stacks.len() as u64,
        n_frames_per_stack: n_frames(|_| true),
        n_calls_per_stack: n_frames(|frame| !frame.is_inlined),
        cold_snapshot_ms,
        stated_bytes: Some(cold.n_bytes_in_memory() as u64),
        resident_bytes: resident_bytes_per_snapshot()?,
        ..Figures::default()
    })
}

/// Holds some snapshots and returns by how much each raises the resident memory.
fn resident_bytes_per_snapshot() -> Result<u64, Box<dyn Error>> {
    // The first one leaves behind what taking them takes for a while.
    let mut held = vec![memtrace::take_snapshot()?];
    let before = resident_bytes()?;
    for _ in 0..N_HELD {
        held.push(memtrace::take_snapshot()?);
    }
    let after = resident_bytes()?;
    drop(black_box(held));
    Ok(after.saturating_sub(before) / N_HELD)
}

/// Times what there is to ask by one key, each question of snapshots of its own.
fn time_key(
    heap: &Heap,
    clock: &mut Clock,
    key_type: KeyType,
    expected: Option<&Expected>,
) -> Result<(), Box<dyn Error>> {
    let take = |clock: &mut Clock| clock.snapshot("take_snapshot", memtrace::take_snapshot);
    heap.enter(State::Old);
    let [old_for_all, old_for_top] = [take(clock)?, take(clock)?];
    heap.enter(State::New);

    let new = take(clock)?;
    let groups = clock.twice(&format!("statistics {key_type}"), || new.statistics(key_type));
    if let Some(expected) = expected {
        expected.check_snapshot(&new)?;
        expected.check_groups(key_type, groups.iter().map(Group::of), &new, None)?;
    }
    drop(groups);

    let new = take(clock)?;
    let top = clock.twice(&format!("top {key_type}"), || new.top(key_type, N_TOP));
    if expected.is_some() && top != new.statistics(key_type)[..top.len()] {
        return Err(format!("the top by {key_type} is not that of the statistics").into());
    }
    drop(top);

    let (new, old) = (take(clock)?, old_for_all);
    let diffs = clock.twice(&format!("compare_to {key_type}"), || new.compare_to(&old, key_type));
    if let Some(expected) = expected {
        expected.check_groups(key_type, diffs.iter().map(Group::of_diff), &new, Some(&old))?;
    }
    drop(diffs);

    let (new, old) = (take(clock)?, old_for_top);
    let top = clock.twice(&format!("top_diff {key_type}"), || new.top_diff(&old, key_type, N_TOP));
    if expected.is_some() && top != new.compare_to(&old, key_type)[..top.len()] {
        return Err(format!("the top by {key_type} is not that of the comparison").into());
    }
    Ok(())
}

/// Times saving and loading, and returns the length of the file.
fn time_file(clock: &mut Clock, file: &Path) -> Result<u64, Box<dyn Error>> {
    let snapshot = clock.snapshot("take_snapshot", memtrace::take_snapshot)?;
    clock.twice("dump", || snapshot.dump(file))?;
    let n_bytes = fs::metadata(file)?.len();
    let loaded = clock.twice("load", || Snapshot::load(file))?;
    if loaded.statistics(KeyType::Traceback) != snapshot.statistics(KeyType::Traceback) {
        return Err("the loaded snapshot is not the one that was saved".into());
    }
    fs::remove_file(file)?;
    Ok(n_bytes)
}

/// Times by operation.
#[derive(Default)]
struct Clock {
    millis: BTreeMap<String, Millis>,
    waited_ms: f64,
}

impl Clock {
    fn snapshot(
        &mut self,
        name: &str,
        take: impl FnOnce() -> Result<Snapshot, SnapshotError>,
    ) -> Result<Snapshot, SnapshotError> {
        let (snapshot, ms) = self.time(take);
        self.millis.entry(name.to_owned()).or_default().first.push(ms);
        snapshot
    }

    /// Does something twice and returns the first result.
    fn twice<R>(&mut self, name: &str, mut operation: impl FnMut() -> R) -> R {
        let (result, first) = self.time(&mut operation);
        let (_, again) = self.time(operation);
        let millis = self.millis.entry(name.to_owned()).or_default();
        millis.first.push(first);
        millis.again.push(again);
        result
    }

    /// Does something and returns the result and its time in milliseconds. The result is dropped
    /// later, outside of the time.
    fn time<R>(&mut self, operation: impl FnOnce() -> R) -> (R, f64) {
        let stopwatch = Stopwatch::start();
        let result = black_box(operation());
        let lap = stopwatch.lap();
        self.waited_ms += lap.waited.as_secs_f64() * 1000.0;
        (result, lap.elapsed.as_secs_f64() * 1000.0)
    }
}
