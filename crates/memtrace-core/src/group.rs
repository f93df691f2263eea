//! Grouping the traces of one snapshot or two by key, and ranking the groups.
//!
//! Traces are summed by stack first, by plain indexing; a snapshot keeps these sums. All that looks
//! at frames then happens once for each distinct stack, and with ids alone: a line is a place id, a
//! file a string id, and a stack a run of place ids. Each group has a slot for the sums of either
//! snapshot. Names are looked at to order groups that are equal in all figures, by ranks of the
//! filenames, and to show the groups that are asked for.

use std::cell::OnceCell;
use std::cmp::{Ordering, Reverse};
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::columns::{TraceColumns, Uniform};
use crate::estimate::{Total, totals_by};
use crate::joint::Spelling;
use crate::stack_table::{FrameRecord, Place, StackTable};
use crate::statistic::signed_diff;
use crate::traceback::Depth;
use crate::{Frame, KeyType, Statistic, StatisticDiff, Thread, Traceback};

/// What is grouped of one snapshot.
pub(crate) struct Side<'a> {
    pub(crate) table: &'a Arc<StackTable>,
    pub(crate) traces: &'a TraceColumns,
    pub(crate) threads: &'a [Thread],
    /// How many of its newest frames each stack hides.
    pub(crate) n_hidden: Arc<[u32]>,
}

impl Side<'_> {
    /// The stack's frames that are not hidden, as a run of the table's stack frames.
    fn shown(&self, stack: u32) -> Range<usize> {
        let start = self.table.stack_start(stack);
        let n_hidden = self.n_hidden[stack as usize] as usize;
        start + n_hidden..start + self.table.stack(stack).len()
    }

    /// Bytes and blocks of each stack that has any.
    fn sums<T: Total>(&self) -> impl Iterator<Item = (u32, T)> {
        let sums = T::of_stacks(self.traces, self.table.n_stacks());
        (0..).zip(sums.iter().copied()).filter(|(_, sum)| !sum.is_empty())
    }
}

/// What a group is shown by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sample {
    /// The group has no trace.
    None,
    /// Stacks without frames.
    Frameless,
    /// For lines and files, where one of its frames is in that side's stack frames.
    Frame { side: usize, at: usize },
    /// For stacks, one of them.
    Stack { side: usize, stack: u32 },
    /// For what has no place in the source, an index into `Groups::labels`.
    Label(usize),
}

/// A group: its sums in the new snapshot and in the old one.
#[derive(Clone, Copy, Debug)]
struct Slot<T> {
    sample: Sample,
    sums: [T; 2],
}

impl<T: Total> Slot<T> {
    const EMPTY: Self = Self { sample: Sample::None, sums: [T::ZERO; 2] };

    fn add(&mut self, side: usize, sum: T, sample: impl FnOnce() -> Sample) {
        self.add_again(side, sum, 0, sample);
    }

    /// Adds a sum that was added `n_before` times already.
    fn add_again(&mut self, side: usize, sum: T, n_before: u32, sample: impl FnOnce() -> Sample) {
        if self.sample == Sample::None {
            self.sample = sample();
        }
        self.sums[side].add_again(sum, n_before);
    }
}

const NEW: usize = 0;
const OLD: usize = 1;

/// The groups of one snapshot, or of two.
pub(crate) struct Groups<'a, T> {
    sides: Vec<(Side<'a>, Spelling)>,
    key_type: KeyType,
    slots: Vec<Slot<T>>,
    labels: Vec<Frame>,
    /// For each string id that is a filename, its place among all filenames.
    filename_ranks: OnceCell<Vec<u32>>,
}

/// Which frames of a stack a trace counts for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frames {
    Newest,
    /// Each, as often as its group occurs.
    All,
    /// Each, but once for each group.
    Distinct,
}

impl<'a, T: Total> Groups<'a, T> {
    pub(crate) fn of(new: Side<'a>, key_type: KeyType) -> Self {
        Self::of_sides(vec![(new, Spelling::Unchanged)], key_type)
    }

    pub(crate) fn of_both(new: Side<'a>, old: Side<'a>, key_type: KeyType) -> Self {
        let spelling = Spelling::of(old.table, new.table);
        Self::of_sides(vec![(new, Spelling::Unchanged), (old, spelling)], key_type)
    }

    fn of_sides(sides: Vec<(Side<'a>, Spelling)>, key_type: KeyType) -> Self {
        let mut groups = Self {
            sides,
            key_type,
            slots: Vec::new(),
            labels: Vec::new(),
            filename_ranks: OnceCell::new(),
        };
        match key_type {
            KeyType::Lineno => groups.by_line(Frames::Newest),
            KeyType::CumulativeLineno => groups.by_line(Frames::All),
            KeyType::InclusiveLineno => groups.by_line(Frames::Distinct),
            KeyType::Filename => groups.by_file(Frames::Newest),
            KeyType::CumulativeFilename => groups.by_file(Frames::All),
            KeyType::InclusiveFilename => groups.by_file(Frames::Distinct),
            KeyType::Traceback => groups.by_stack(),
            KeyType::Function => groups.by_label(Frames::Newest, LabelSource::function),
            KeyType::InclusiveFunction => groups.by_label(Frames::Distinct, LabelSource::function),
            KeyType::Module => groups.by_label(Frames::Newest, LabelSource::module),
            KeyType::Thread => groups.by_thread(),
            KeyType::Domain => groups.by_domain(),
        }
        groups
    }

    fn by_line(&mut self, frames: Frames) {
        self.by_frame(frames, |_, side, spelling, frame| {
            spelling.place(side.table.place_of_frame(frame))
        });
    }

    fn by_file(&mut self, frames: Frames) {
        self.by_frame(frames, |_, side, spelling, frame| {
            spelling.string(side.table.record(frame).filename)
        });
    }

    /// Groups by the label of what `source` says of each frame.
    fn by_label(&mut self, frames: Frames, source: fn(&FrameRecord) -> LabelSource) {
        let mut labels = Labels::default();
        // For each side, the label of each source, as far as it was asked for. Sides of one lineage
        // share theirs.
        let mut known: Vec<HashMap<LabelSource, u32>> = vec![HashMap::new(); self.sides.len()];
        self.by_frame(frames, |s, side, spelling, frame| {
            let own = if matches!(spelling, Spelling::Unchanged) { NEW } else { s };
            let source = source(side.table.record(frame));
            *known[own].entry(source).or_insert_with(|| labels.number(source.label(side.table)))
        });
        self.labels = labels.frames;
        for (label, slot) in self.slots.iter_mut().enumerate() {
            if let Sample::Frame { .. } = slot.sample {
                slot.sample = Sample::Label(label);
            }
        }
    }

    /// Groups by what `slot_of` says of each frame: the number of a slot. Stacks without frames are
    /// a group of their own, unless every frame counts: then they count for nothing.
    fn by_frame(
        &mut self,
        frames: Frames,
        mut slot_of: impl FnMut(usize, &Side, &Spelling, u32) -> u32,
    ) {
        let mut slots: Vec<Slot<T>> = Vec::new();
        let mut frameless = Slot::EMPTY;
        // For each slot, one more than the stack that last counted for it.
        let mut last_stacks: Vec<u32> = Vec::new();
        // For each slot, how often that stack has counted for it before, where that matters.
        let mut n_times: Vec<u32> = Vec::new();
        for (s, (side, spelling)) in self.sides.iter().enumerate() {
            last_stacks.fill(0);
            for (stack, sum) in side.sums() {
                let run = side.shown(stack);
                if run.is_empty() && frames == Frames::Newest {
                    frameless.add(s, sum, || Sample::Frameless);
                }
                let n_frames = if frames == Frames::Newest { 1 } else { run.len() };
                for at in run.take(n_frames) {
                    let frame = side.table.stack_frames()[at];
                    let slot = slot_of(s, side, spelling, frame) as usize;
                    if slot >= slots.len() {
                        slots.resize(slot + 1 + slot / 2, Slot::EMPTY);
                        last_stacks.resize(slots.len(), 0);
                        if T::IS_ESTIMATE {
                            n_times.resize(slots.len(), 0);
                        }
                    }
                    let is_counted = last_stacks[slot] == stack + 1;
                    last_stacks[slot] = stack + 1;
                    if frames != Frames::Distinct || !is_counted {
                        let mut n_before = 0;
                        if T::IS_ESTIMATE {
                            n_before = if is_counted { n_times[slot] + 1 } else { 0 };
                            n_times[slot] = n_before;
                        }
                        let sample = || Sample::Frame { side: s, at };
                        slots[slot].add_again(s, sum, n_before, sample);
                    }
                }
            }
        }
        slots.push(frameless);
        self.slots = slots;
    }

    fn by_stack(&mut self) {
        let hasher = DefaultHashBuilder::default();
        // The same in both snapshots for equal runs of places.
        let places = |s: usize, run: Range<usize>| {
            let (side, spelling) = &self.sides[s];
            let frames = &side.table.stack_frames()[run];
            frames.iter().map(|&frame| spelling.place(side.table.place_of_frame(frame)))
        };
        let hash_of = |s, run| {
            let mut state = hasher.build_hasher();
            places(s, run).for_each(|place| state.write_u32(place));
            state.finish()
        };
        let mut slots: Vec<Slot<T>> = Vec::new();
        let mut index: HashTable<(u64, u32)> = HashTable::new();
        for (s, (side, _)) in self.sides.iter().enumerate() {
            for (stack, sum) in side.sums() {
                let run = side.shown(stack);
                let hash = hash_of(s, run.clone());
                let is_same = |&(other_hash, slot): &(u64, u32)| {
                    let Sample::Stack { side, stack } = slots[slot as usize].sample else {
                        return false;
                    };
                    let other = self.sides[side].0.shown(stack);
                    other_hash == hash && places(side, other).eq(places(s, run.clone()))
                };
                let entry = index.entry(hash, is_same, |&(hash, _)| hash);
                let slot = entry.or_insert((hash, slots.len() as u32)).get().1 as usize;
                if slot == slots.len() {
                    slots.push(Slot::EMPTY);
                }
                slots[slot].add(s, sum, || Sample::Stack { side: s, stack });
            }
        }
        self.slots = slots;
    }

    fn by_domain(&mut self) {
        self.by_column(
            |traces| &traces.domains,
            |_, _, domain| Frame::new(format!("<domain {domain}>"), 0),
        );
    }

    /// A thread is shown by the name that it has in the newer snapshot.
    fn by_thread(&mut self) {
        let newer: HashMap<_, &Thread> =
            self.sides[NEW].0.threads.iter().map(|thread| (thread.id(), thread)).collect();
        self.by_column(
            |traces| &traces.threads,
            |sides, s, thread| {
                let Some(known) = sides[s].0.threads.get(thread as usize) else {
                    return Frame::new("<unknown thread>", 0);
                };
                Frame::new(format!("<{}>", newer.get(&known.id()).unwrap_or(&known)), 0)
            },
        );
    }

    /// Groups by the label of each value of a column.
    fn by_column(
        &mut self,
        column: fn(&TraceColumns) -> &Uniform,
        label: impl Fn(&[(Side, Spelling)], usize, u32) -> Frame,
    ) {
        let mut labels = Labels::default();
        for (s, (side, _)) in self.sides.iter().enumerate() {
            for (value, sum) in totals_by(side.traces, column(side.traces), side.table.n_stacks()) {
                let number = labels.number(label(&self.sides, s, value)) as usize;
                if number == self.slots.len() {
                    self.slots.push(Slot::EMPTY);
                }
                self.slots[number].add(s, sum, || Sample::Label(number));
            }
        }
        self.labels = labels.frames;
    }

    /// The groups of the new snapshot, largest first; the first `n_wanted` of them.
    pub(crate) fn statistics(&self, n_wanted: usize) -> Vec<Statistic> {
        let rows = self.slots.iter().filter(|slot| !slot.sums[NEW].is_empty());
        let key = |slot: &Slot<T>| {
            let (size, count) = slot.sums[NEW].figures();
            (size, count, 0, 0)
        };
        let show = |slot: &Slot<T>| {
            let (size, count) = slot.sums[NEW].figures();
            let error = slot.sums[NEW].error();
            Statistic { traceback: self.traceback(slot), size, count, error }
        };
        self.ranked(rows, key, n_wanted).into_iter().map(show).collect()
    }

    /// The groups of both snapshots, the largest difference first; the first `n_wanted` of them.
    pub(crate) fn diffs(&self, n_wanted: usize) -> Vec<StatisticDiff> {
        let rows = self.slots.iter().filter(|slot| slot.sums.iter().any(|sum| !sum.is_empty()));
        let key = |slot: &Slot<T>| {
            let [(size, count), old] = slot.sums.map(|sum| sum.figures());
            let size_diff = signed_diff(size, old.0);
            let count_diff = signed_diff(count, old.1);
            (size_diff.unsigned_abs(), size, count_diff.unsigned_abs(), count)
        };
        let show = |slot: &Slot<T>| {
            let [new, old] = slot.sums.map(|sum| sum.figures());
            let errors = (slot.sums[NEW].error(), slot.sums[NEW].diff_error(slot.sums[OLD]));
            StatisticDiff::new(self.traceback(slot), new, old).with_errors(errors)
        };
        self.ranked(rows, key, n_wanted).into_iter().map(show).collect()
    }

    /// The first `n_wanted` of the slots by key, then traceback, both descending.
    ///
    /// **Cost.** Linear in the slots, plus sorting those that are wanted, and those that are equal in
    /// all figures to the last one.
    fn ranked<'s>(
        &self,
        slots: impl Iterator<Item = &'s Slot<T>>,
        key: impl Fn(&Slot<T>) -> Figures,
        n_wanted: usize,
    ) -> Vec<&'s Slot<T>> {
        let mut rows: Vec<(Reverse<Figures>, &Slot<T>)> =
            slots.map(|slot| (Reverse(key(slot)), slot)).collect();
        if n_wanted == 0 {
            return Vec::new();
        }
        if n_wanted < rows.len() {
            let (_, last, _) = rows.select_nth_unstable_by_key(n_wanted - 1, |row| row.0);
            let last = last.0;
            rows.retain(|row| row.0 <= last);
        }
        rows.sort_unstable_by_key(|row| row.0);
        for equal in rows.chunk_by_mut(|a, b| a.0 == b.0) {
            self.sort_by_traceback(equal);
        }
        rows.truncate(n_wanted);
        rows.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Sorts by traceback, descending.
    fn sort_by_traceback(&self, rows: &mut [(Reverse<Figures>, &Slot<T>)]) {
        if self.key_type != KeyType::Traceback {
            rows.sort_unstable_by(|a, b| self.traceback_order(b.1, a.1));
            return;
        }
        // Stacks have their oldest frames in common, so they are sorted by one frame after the other
        // (Bentley and Sedgewick's multikey sort), and not each time by all of them.
        let mut keyed: Vec<(Reverse<u64>, &Slot<T>)> = Vec::new();
        let mut to_do = vec![(0..rows.len(), 0)];
        while let Some((range, depth)) = to_do.pop() {
            if range.len() <= 8 {
                rows[range].sort_unstable_by(|a, b| self.traceback_order(b.1, a.1));
                continue;
            }
            let part = &mut rows[range.clone()];
            keyed.clear();
            keyed.extend(part.iter().map(|row| (Reverse(self.key_at(row.1, depth)), row.1)));
            keyed.sort_unstable_by_key(|row| row.0);
            part.iter_mut().zip(&keyed).for_each(|(row, keyed)| row.1 = keyed.1);
            let mut start = range.start;
            for equal in keyed.chunk_by(|a, b| a.0 == b.0) {
                let end = start + equal.len();
                // Stacks that have ended are equal, and so the same.
                if equal.len() > 1 && equal[0].0 != Reverse(0) {
                    to_do.push((start..end, depth + 1));
                }
                start = end;
            }
        }
    }

    /// Orders stacks by the frame that is `depth` frames above the oldest; 0 where there is none.
    fn key_at(&self, slot: &Slot<T>, depth: usize) -> u64 {
        let (side, run) = self.run(slot.sample);
        match run.len().checked_sub(depth + 1) {
            Some(from_newest) => {
                let (filename, lineno) = self.frame_rank(side, run.start + from_newest);
                (u64::from(filename) << 32 | u64::from(lineno)) + 1
            }
            None => 0,
        }
    }

    /// The order of the groups' tracebacks.
    fn traceback_order(&self, a: &Slot<T>, b: &Slot<T>) -> Ordering {
        match (a.sample, b.sample) {
            (Sample::Label(a), Sample::Label(b)) => self.labels[a].cmp(&self.labels[b]),
            (Sample::Frame { side: a, at }, Sample::Frame { side: b, at: bt }) => {
                self.frame_rank(a, at).cmp(&self.frame_rank(b, bt))
            }
            (Sample::Stack { .. }, Sample::Stack { .. }) => {
                let ranks = |sample| {
                    let (side, run) = self.run(sample);
                    run.rev().map(move |at| self.frame_rank(side, at))
                };
                ranks(a.sample).cmp(ranks(b.sample))
            }
            // No frames before any.
            (a, b) => (a != Sample::Frameless).cmp(&(b != Sample::Frameless)),
        }
    }

    /// Orders the frames at a place of a side's stack frames, as far as the key tells them apart.
    fn frame_rank(&self, s: usize, at: usize) -> (u32, u32) {
        let (side, spelling) = &self.sides[s];
        let place = side.table.place(side.table.place_of_frame(side.table.stack_frames()[at]));
        let ranks = self.filename_ranks.get_or_init(|| self.rank_filenames());
        let lineno = if self.key_type.is_by_file() { 0 } else { place.lineno };
        (ranks[spelling.string(place.filename) as usize], lineno)
    }

    fn rank_filenames(&self) -> Vec<u32> {
        let mut names: Vec<(&str, u32)> = Vec::new();
        for (side, spelling) in &self.sides {
            let filename = |place: &Place| {
                (&**side.table.string(place.filename), spelling.string(place.filename))
            };
            names.extend(side.table.places().iter().map(filename));
        }
        names.sort_unstable_by_key(|&(_, id)| id);
        names.dedup_by_key(|&mut (_, id)| id);
        let n_ids = names.last().map_or(0, |&(_, id)| id as usize + 1);
        names.sort_unstable();
        let mut ranks = vec![0; n_ids];
        for (rank, (_, id)) in (0..).zip(names) {
            ranks[id as usize] = rank;
        }
        ranks
    }

    /// Where the frames of a group are among the stack frames of one side.
    fn run(&self, sample: Sample) -> (usize, Range<usize>) {
        match sample {
            Sample::Frame { side, at } => (side, at..at + 1),
            Sample::Stack { side, stack } => (side, self.sides[side].0.shown(stack)),
            Sample::None | Sample::Frameless | Sample::Label(_) => (NEW, 0..0),
        }
    }

    fn traceback(&self, slot: &Slot<T>) -> Traceback {
        if let Sample::Label(label) = slot.sample {
            return Traceback::new([self.labels[label].clone()]);
        }
        let (side, run) = self.run(slot.sample);
        let table = self.sides[side].0.table;
        let traceback = Traceback::of_run(Arc::clone(table), run, Depth::Unstated);
        match traceback.newest() {
            Some(frame) if self.key_type.is_by_file() => Traceback::new([file_only(frame.clone())]),
            _ => traceback,
        }
    }
}

/// What groups are ordered by before their tracebacks.
type Figures = (u64, u64, u64, u64);

/// What remains of a frame that stands for its whole file.
fn file_only(frame: Frame) -> Frame {
    Frame { lineno: 0, function: None, file_addr: None, is_inlined: false, ..frame }
}

/// Frames that stand for groups without a place in the source, each once.
#[derive(Default)]
struct Labels {
    frames: Vec<Frame>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Labels {
    fn number(&mut self, label: Frame) -> u32 {
        let Self { frames, numbers } = self;
        *numbers.entry(Arc::clone(&label.filename)).or_insert_with(|| {
            frames.push(label);
            frames.len() as u32 - 1
        })
    }
}

/// What the label of a frame is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LabelSource {
    /// A function's path, by string id.
    Function(u32),
    /// A filename, by string id, as it is.
    Filename(u32),
    Module(u32),
    UnknownModule,
}

impl LabelSource {
    /// The function; where it is unknown, what stands for it, or else the file.
    fn function(record: &FrameRecord) -> Self {
        record.function.map_or(Self::Filename(record.filename), Self::Function)
    }

    fn module(record: &FrameRecord) -> Self {
        record.module.map_or(Self::UnknownModule, Self::Module)
    }

    fn label(self, table: &StackTable) -> Frame {
        match self {
            Self::Function(id) => {
                let path = table.string(id);
                Frame::new(format!("<{path}>"), 0).with_function(Arc::clone(path))
            }
            Self::Filename(id) => Frame::new(Arc::clone(table.string(id)), 0),
            Self::Module(id) => {
                let module = &table.modules()[id as usize];
                Frame::new(format!("<{}>", module.name()), 0).with_module(Arc::clone(module))
            }
            Self::UnknownModule => Frame::new("<unknown module>", 0),
        }
    }
}
