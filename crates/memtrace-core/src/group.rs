//! Grouping traces by key, and comparing two groupings.
//!
//! Traces are summed by stack first, by plain indexing. Everything that hashes or looks at frames
//! then happens once for each distinct stack: its hidden frames are dropped, and its sum goes to
//! the group of its key, or, when cumulative, to one for each frame. Keys are made of ids; the
//! frames of a group are put together only when all groups are known.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::attribution::Verdicts;
use crate::snapshot::TraceColumns;
use crate::stack_table::StackTable;
use crate::{Attribution, Frame, KeyType, Statistic, StatisticDiff, Traceback};

#[derive(Clone, Copy, Default)]
struct Sum {
    size: u64,
    count: u64,
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.size = self.size.saturating_add(other.size);
        self.count = self.count.saturating_add(other.count);
    }
}

/// The groups of one snapshot, in no particular order.
pub(crate) fn group(
    table: &StackTable,
    traces: &TraceColumns,
    attribution: &Attribution,
    key_type: KeyType,
) -> Vec<Statistic> {
    let mut sums = vec![Sum::default(); table.n_stacks()];
    for (_, size, stack) in traces.iter() {
        sums[stack as usize].add(Sum { size, count: 1 });
    }
    let verdicts = Verdicts::new(attribution, table);
    let stacks = (0_u32..)
        .zip(sums)
        .filter(|(_, sum)| sum.count > 0)
        .map(|(id, sum)| (verdicts.shown(table.stack(id)), sum));
    match key_type {
        KeyType::Traceback => by_stack(table, stacks),
        KeyType::Lineno => by_frame(table, stacks.map(newest_only), false),
        KeyType::Filename => by_frame(table, stacks.map(newest_only), true),
        KeyType::CumulativeLineno => by_frame(table, stacks, false),
        KeyType::CumulativeFilename => by_frame(table, stacks, true),
    }
}

fn newest_only((stack, sum): (&[u32], Sum)) -> (&[u32], Sum) {
    (&stack[..stack.len().min(1)], sum)
}

/// Groups by the place of each frame. A stack without frames is a group of its own.
fn by_frame<'a>(
    table: &StackTable,
    stacks: impl Iterator<Item = (&'a [u32], Sum)>,
    erase_lineno: bool,
) -> Vec<Statistic> {
    // (the frame that is shown, the sum) by place.
    let mut groups: HashMap<(u32, u32), (u32, Sum)> = HashMap::new();
    let mut frameless = Sum::default();
    for (stack, sum) in stacks {
        if stack.is_empty() {
            frameless.add(sum);
        }
        for &id in stack {
            let (filename, lineno) = table.record(id).place();
            let place = (filename, if erase_lineno { 0 } else { lineno });
            groups.entry(place).or_insert((id, Sum::default())).1.add(sum);
        }
    }
    let mut statistics: Vec<Statistic> = groups
        .into_values()
        .map(|(id, sum)| {
            let frame = table.frame(id);
            let frame = if erase_lineno { file_only(frame) } else { frame };
            statistic(Traceback::new([frame]), sum)
        })
        .collect();
    if frameless.count > 0 {
        statistics.push(statistic(Traceback::new([]), frameless));
    }
    statistics
}

/// What remains of a frame that stands for its whole file.
fn file_only(frame: Frame) -> Frame {
    Frame { lineno: 0, function: None, is_inlined: false, ..frame }
}

/// Groups by the places of all frames.
fn by_stack<'a>(
    table: &StackTable,
    stacks: impl Iterator<Item = (&'a [u32], Sum)>,
) -> Vec<Statistic> {
    let hasher = DefaultHashBuilder::default();
    let places = |stack: &'a [u32]| stack.iter().map(|&id| table.record(id).place());
    let hash_of = |stack: &'a [u32]| {
        let mut state = hasher.build_hasher();
        for (filename, lineno) in places(stack) {
            state.write_u32(filename);
            state.write_u32(lineno);
        }
        state.finish()
    };
    let mut groups: HashTable<(&'a [u32], Sum)> = HashTable::new();
    for (stack, sum) in stacks {
        let is_same = |(other, _): &(&'a [u32], Sum)| places(other).eq(places(stack));
        groups
            .entry(hash_of(stack), is_same, |(other, _)| hash_of(other))
            .or_insert((stack, Sum::default()))
            .into_mut()
            .1
            .add(sum);
    }
    groups
        .into_iter()
        .map(|(stack, sum)| statistic(Traceback::new(table.frames_of(stack)), sum))
        .collect()
}

fn statistic(traceback: Traceback, sum: Sum) -> Statistic {
    Statistic { traceback, size: sum.size, count: sum.count }
}

/// Joins two lists of groups by traceback, in no particular order.
pub(crate) fn compare(new: Vec<Statistic>, old: Vec<Statistic>) -> Vec<StatisticDiff> {
    let mut old: HashMap<Traceback, (u64, u64)> =
        old.into_iter().map(|group| (group.traceback, (group.size, group.count))).collect();
    let mut diffs = Vec::with_capacity(new.len() + old.len());
    for Statistic { traceback, size, count } in new {
        let before = old.remove(&traceback).unwrap_or_default();
        diffs.push(StatisticDiff::new(traceback, (size, count), before));
    }
    let gone = old.into_iter();
    diffs.extend(gone.map(|(traceback, before)| StatisticDiff::new(traceback, (0, 0), before)));
    diffs
}
