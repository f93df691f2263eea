//! Makes snapshots out of frames, stacks and traces.

use std::hash::{BuildHasher, Hash};
use std::mem;
use std::num::NonZeroU64;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::columns::{NO_BIRTH, NO_THREAD, Row, Sizes, TraceColumns, Uniform};
use crate::hidden::HiddenFrames;
use crate::stack_table::{FrameRecord, Place, StackTable};
use crate::traceback::Depth;
use crate::{Attribution, Frame, Generation, Module, Snapshot, Thread, Traceback};

/// A frame known to one [`SnapshotBuilder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameId(pub(crate) u32);

/// A stack known to one [`SnapshotBuilder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StackId(pub(crate) u32);

/// A thread known to one [`SnapshotBuilder`], until its next snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadId(u32);

/// Makes a [`Snapshot`] piece by piece: frames, then stacks of frames, then traces that name a
/// stack by one integer.
///
/// Equal frames and equal stacks get equal ids, however often they come. A frame costs a hash of
/// its strings, so keep its id if you meet it again.
///
/// Whoever takes many snapshots of one program keeps the builder and calls
/// [`SnapshotBuilder::snapshot`] for each: comparing two of them then needs no look at any name, and
/// frames and stacks are stored once for those between which nothing new was met.
///
/// Ids belong to the builder that made them (and its clones). An id of another builder stands for
/// another frame or stack, or for none: then the method that is given it panics.
#[derive(Debug)]
pub struct SnapshotBuilder {
    traceback_limit: u16,
    attribution: Attribution,
    generation: Option<Generation>,
    sample_period: Option<NonZeroU64>,
    table: Arc<StackTable>,
    /// Of `table` as it is.
    hidden: Arc<HiddenFrames>,
    hasher: DefaultHashBuilder,
    // Ids by what they stand for. The keys live in `table`.
    string_ids: HashTable<u32>,
    module_ids: HashTable<u32>,
    place_ids: HashTable<u32>,
    frame_ids: HashTable<u32>,
    stack_ids: HashTable<u32>,
    threads: Vec<Thread>,
    traces: TraceColumns,
}

/// The clone may grow in another way, so snapshots of the two are compared by name.
impl Clone for SnapshotBuilder {
    fn clone(&self) -> Self {
        Self {
            traceback_limit: self.traceback_limit,
            attribution: self.attribution.clone(),
            generation: self.generation,
            sample_period: self.sample_period,
            table: Arc::new((*self.table).clone().with_own_lineage()),
            hidden: Arc::default(),
            hasher: self.hasher.clone(),
            string_ids: self.string_ids.clone(),
            module_ids: self.module_ids.clone(),
            place_ids: self.place_ids.clone(),
            frame_ids: self.frame_ids.clone(),
            stack_ids: self.stack_ids.clone(),
            threads: self.threads.clone(),
            traces: self.traces.clone(),
        }
    }
}

impl SnapshotBuilder {
    /// Starts an empty snapshot whose stacks were recorded up to `traceback_limit` frames deep.
    pub fn new(traceback_limit: u16) -> Self {
        Self {
            traceback_limit,
            attribution: Attribution::default(),
            generation: None,
            sample_period: None,
            table: Arc::default(),
            hidden: Arc::default(),
            hasher: DefaultHashBuilder::default(),
            string_ids: HashTable::new(),
            module_ids: HashTable::new(),
            place_ids: HashTable::new(),
            frame_ids: HashTable::new(),
            stack_ids: HashTable::new(),
            threads: Vec::new(),
            traces: TraceColumns::default(),
        }
    }

    /// Sets how many frames deep stacks are recorded from now on.
    pub fn set_traceback_limit(&mut self, traceback_limit: u16) {
        self.traceback_limit = traceback_limit;
    }

    /// Sets the generation that ends with the next snapshot; see [`Snapshot::since`].
    pub fn set_generation(&mut self, generation: Option<Generation>) {
        self.generation = generation;
    }

    /// Sets that traces of domain 0 are samples from now on, and the mean number of bytes from one to the
    /// next; `None` and 1 if all are recorded. See [`Snapshot::sample_period`].
    pub fn set_sample_period(&mut self, period: Option<NonZeroU64>) {
        self.sample_period = period.filter(|period| period.get() > 1);
    }

    /// Adds a frame, unless one that agrees in *every* field is known already.
    ///
    /// **Panics** beyond 2³² distinct frames or strings.
    pub fn frame(&mut self, frame: Frame) -> FrameId {
        let record = FrameRecord {
            filename: self.string(frame.filename),
            lineno: frame.lineno,
            function: frame.function.map(|text| self.string(text)),
            module: frame.module.map(|module| self.module(module)),
            file_addr: frame.file_addr,
            directory: frame.directory.map(|text| self.string(text)),
            is_inlined: frame.is_inlined,
            missing: frame.missing,
        };
        self.frame_record(record)
    }

    /// Adds a stack, given with its **newest** frame first, unless it is known already.
    ///
    /// `total_nframe` is the real depth of the stack in frames, where 65,535 also stands for
    /// everything deeper; `None` means that the stack was cut and its depth is unknown.
    ///
    /// **Panics** if an id is of another builder, and beyond 2³² distinct stacks.
    pub fn stack(&mut self, newest_first: &[FrameId], total_nframe: Option<u16>) -> StackId {
        self.stack_of_depth(newest_first, total_nframe.map_or(Depth::Deeper, Depth::Total))
    }

    /// Adds a thread to the next snapshot. Threads are not compared: each call adds one.
    ///
    /// **Panics** beyond 2³² threads.
    pub fn thread(&mut self, thread: Thread) -> ThreadId {
        let id = u32::try_from(self.threads.len()).ok().filter(|&id| id != NO_THREAD);
        self.threads.push(thread);
        ThreadId(id.expect("a snapshot has fewer than 2^32 threads"))
    }

    /// Adds a live block of `size` bytes, as requested by `stack`, in an address space.
    ///
    /// **Panics** if the id is of another builder.
    pub fn trace(&mut self, domain: u32, size: u64, stack: StackId) {
        self.trace_of(domain, size, stack, None, None);
    }

    /// Adds a live block like [`SnapshotBuilder::trace`], of which the thread that allocated it, or
    /// the generation in which that was, may be known. Generations are numbered from 1.
    ///
    /// **Panics** if an id is of another builder, or of an earlier snapshot's thread.
    pub fn trace_of(
        &mut self,
        domain: u32,
        size: u64,
        stack: StackId,
        thread: Option<ThreadId>,
        birth: Option<u32>,
    ) {
        self.push_trace(domain, size, stack, thread, birth, false);
    }

    /// Adds a trace like [`SnapshotBuilder::trace_of`] that stands for itself alone, though the program's
    /// heap may be sampled: one that the program told of. Those of other domains than 0 always do.
    ///
    /// **Panics** like that.
    pub fn certain_trace_of(
        &mut self,
        domain: u32,
        size: u64,
        stack: StackId,
        thread: Option<ThreadId>,
        birth: Option<u32>,
    ) {
        self.push_trace(domain, size, stack, thread, birth, domain == 0);
    }

    fn push_trace(
        &mut self,
        domain: u32,
        size: u64,
        stack: StackId,
        thread: Option<ThreadId>,
        birth: Option<u32>,
        is_certain: bool,
    ) {
        self.check(stack);
        let is_known = thread.is_none_or(|thread| (thread.0 as usize) < self.threads.len());
        assert!(is_known, "the thread is of another builder or snapshot");
        self.traces.push(Row {
            domain,
            size,
            stack: stack.0,
            thread: thread.map_or(NO_THREAD, |thread| thread.0),
            birth: birth.unwrap_or(NO_BIRTH),
            is_certain,
        });
    }

    /// Adds many live blocks of one address space, given as columns: sizes in bytes, and stacks.
    ///
    /// **Panics** if the columns are not of one length, or an id is of another builder.
    ///
    /// **Cost.** The first columns of a snapshot become its own; of later ones, each trace costs a
    /// nanosecond or two.
    pub fn trace_columns(&mut self, domain: u32, sizes: Vec<u32>, stacks: Vec<StackId>) {
        assert_eq!(sizes.len(), stacks.len(), "each trace has a size and a stack");
        stacks.iter().for_each(|&stack| self.check(stack));
        if self.traces.len() == 0 {
            self.traces = TraceColumns::new(
                Sizes::Narrow(sizes),
                stacks,
                Uniform::One(domain),
                Uniform::One(NO_THREAD),
                Uniform::One(NO_BIRTH),
                Uniform::One(0),
            );
        } else {
            self.traces.extend(domain, sizes.into_iter().map(u64::from).zip(stacks));
        }
    }

    /// Ends the snapshot. Its attribution is the default one.
    pub fn finish(mut self) -> Snapshot {
        self.snapshot()
    }

    /// Ends a snapshot and begins the next one, which knows the same frames and stacks, and has no
    /// threads and traces yet.
    ///
    /// **Cost.** Nothing that grows with the snapshot; but the first new frame or stack after it
    /// copies their tables, as long as that snapshot is there.
    pub fn snapshot(&mut self) -> Snapshot {
        self.traces.set_period(self.sample_period);
        Snapshot::from_parts(
            (Arc::clone(&self.table), Arc::clone(&self.hidden)),
            Arc::new(mem::take(&mut self.traces)),
            mem::take(&mut self.threads).into(),
            self.traceback_limit,
            self.generation.take(),
            self.attribution.clone(),
        )
    }

    pub(crate) fn set_attribution(&mut self, attribution: Attribution) {
        self.attribution = attribution;
    }

    /// Sets all traces at once. Their ids are this builder's.
    pub(crate) fn set_traces(&mut self, traces: TraceColumns) {
        self.traces = traces;
    }

    /// Makes room for exactly so many strings; like the next two, for a builder that has none yet.
    pub(crate) fn reserve_strings(&mut self, n_strings: usize) {
        Arc::make_mut(&mut self.table).reserve_strings(n_strings);
        self.string_ids.reserve(n_strings, |_| 0);
    }

    pub(crate) fn reserve_frames(&mut self, n_frames: usize) {
        Arc::make_mut(&mut self.table).reserve_frames(n_frames);
        self.frame_ids.reserve(n_frames, |_| 0);
        self.place_ids.reserve(n_frames, |_| 0);
    }

    /// Makes room for exactly so many stacks, with so many frames in all.
    pub(crate) fn reserve_stacks(&mut self, n_stacks: usize, n_frames: usize) {
        Arc::make_mut(&mut self.table).reserve_stacks(n_stacks, n_frames);
    }

    /// Appends a stack of this builder's frames that is known to be a new one. It is not found by
    /// [`stack`](Self::stack) later, and so meant for a builder that is about to finish.
    pub(crate) fn push_distinct_stack(
        &mut self,
        newest_first: impl Iterator<Item = u32>,
        depth: Depth,
    ) {
        Arc::make_mut(&mut self.table).push_stack(newest_first, depth);
    }

    fn check(&self, stack: StackId) {
        assert!((stack.0 as usize) < self.table.n_stacks(), "the stack is of another builder");
    }

    pub(crate) fn string(&mut self, text: Arc<str>) -> u32 {
        let hash = self.hasher.hash_one(&*text);
        let Self { table, hasher, string_ids, .. } = self;
        if let Some(&id) = string_ids.find(hash, |&id| **table.string(id) == *text) {
            return id;
        }
        let id = Arc::make_mut(table).push_string(text);
        string_ids.insert_unique(hash, id, |&id| hasher.hash_one(&**table.string(id)));
        id
    }

    pub(crate) fn module(&mut self, module: Arc<Module>) -> u32 {
        let hash = self.hasher.hash_one(&*module);
        let Self { table, hasher, module_ids, .. } = self;
        let is_same = |&id: &u32| *table.modules()[id as usize] == *module;
        if let Some(&id) = module_ids.find(hash, is_same) {
            return id;
        }
        let id = Arc::make_mut(table).push_module(module);
        let hash_of = |&id: &u32| hasher.hash_one(&*table.modules()[id as usize]);
        module_ids.insert_unique(hash, id, hash_of);
        id
    }

    /// The ids in the record are this builder's.
    pub(crate) fn frame_record(&mut self, record: FrameRecord) -> FrameId {
        let hash = self.hasher.hash_one(record);
        let Self { table, hasher, frame_ids, .. } = self;
        if let Some(&id) = frame_ids.find(hash, |&id| *table.record(id) == record) {
            return FrameId(id);
        }
        let place = Self::place(
            table,
            &mut self.place_ids,
            hasher,
            Place { filename: record.filename, lineno: record.lineno },
        );
        let id = Arc::make_mut(table).push_frame(record, place);
        frame_ids.insert_unique(hash, id, |&id| hasher.hash_one(table.record(id)));
        FrameId(id)
    }

    fn place(
        table: &mut Arc<StackTable>,
        place_ids: &mut HashTable<u32>,
        hasher: &DefaultHashBuilder,
        place: Place,
    ) -> u32 {
        let hash = hasher.hash_one(place);
        if let Some(&id) = place_ids.find(hash, |&id| table.place(id) == place) {
            return id;
        }
        let id = Arc::make_mut(table).push_place(place);
        place_ids.insert_unique(hash, id, |&id| hasher.hash_one(table.place(id)));
        id
    }

    pub(crate) fn stack_of_depth(&mut self, newest_first: &[FrameId], depth: Depth) -> StackId {
        let n_frames = self.table.n_frames();
        assert!(
            newest_first.iter().all(|frame| (frame.0 as usize) < n_frames),
            "a frame is of another builder"
        );
        let ids = || newest_first.iter().map(|frame| frame.0);
        let hash = stack_hash(&self.hasher, ids(), depth);
        let Self { table, hidden, hasher, stack_ids, .. } = self;
        let is_same =
            |&id: &u32| table.depth(id) == depth && table.stack(id).iter().copied().eq(ids());
        if let Some(&id) = stack_ids.find(hash, is_same) {
            return StackId(id);
        }
        let id = Arc::make_mut(table).push_stack(ids(), depth);
        *hidden = Arc::default();
        stack_ids.insert_unique(hash, id, |&id| {
            stack_hash(hasher, table.stack(id).iter().copied(), table.depth(id))
        });
        StackId(id)
    }

    pub(crate) fn traceback(&mut self, traceback: &Traceback) -> StackId {
        let newest_first: Vec<FrameId> =
            traceback.iter().rev().map(|frame| self.frame(frame.clone())).collect();
        self.stack_of_depth(&newest_first, traceback.depth())
    }
}

fn stack_hash(hasher: &impl BuildHasher, ids: impl Iterator<Item = u32>, depth: Depth) -> u64 {
    use std::hash::Hasher;

    let mut state = hasher.build_hasher();
    ids.for_each(|id| state.write_u32(id));
    depth.hash(&mut state);
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_frames_and_stacks_get_equal_ids() {
        let mut builder = SnapshotBuilder::new(5);
        let a = builder.frame(Frame::new("a", 1));
        let b = builder.frame(Frame::new("b", 1));
        assert_eq!(builder.frame(Frame::new("a", 1)), a);
        assert_ne!(builder.frame(Frame::new("a", 1).with_function("f")), a);
        let stack = builder.stack(&[a, b], Some(2));
        assert_eq!(builder.stack(&[a, b], Some(2)), stack);
        assert_ne!(builder.stack(&[a, b], Some(3)), stack);
        assert_ne!(builder.stack(&[a, b], None), stack);
        assert_ne!(builder.stack(&[b, a], Some(2)), stack);
        assert_ne!(builder.stack(&[a], Some(2)), stack);
    }

    #[test]
    fn a_stack_is_given_newest_first_and_shown_oldest_first() {
        let mut builder = SnapshotBuilder::new(2);
        let newest = builder.frame(Frame::new("new", 1));
        let oldest = builder.frame(Frame::new("old", 1));
        let stack = builder.stack(&[newest, oldest], None);
        builder.trace(7, 16, stack);
        let snapshot = builder.finish();
        let trace = snapshot.traces().next().unwrap();
        assert_eq!((trace.domain, trace.size), (7, 16));
        assert_eq!(trace.traceback[0].to_string(), "old:1");
        assert!(trace.traceback.is_truncated());
        assert_eq!(snapshot.traceback_limit(), 2);
    }

    #[test]
    fn columns_and_single_traces_keep_their_order() {
        let mut builder = SnapshotBuilder::new(1);
        let frames = ["a", "b"].map(|name| builder.frame(Frame::new(name, 1)));
        let [a, b] = frames.map(|frame| builder.stack(&[frame], Some(1)));
        builder.trace_columns(3, vec![1, 2], vec![a, b]);
        builder.trace(0, 3, a);
        builder.trace_columns(4, vec![4], vec![b]);
        builder.trace_columns(4, vec![], vec![]);
        let snapshot = builder.snapshot();
        let shown = |trace: crate::Trace| {
            (trace.domain, trace.size, trace.traceback[0].filename.to_string())
        };
        let expected = [(3, 1, "a"), (3, 2, "b"), (0, 3, "a"), (4, 4, "b")];
        assert!(snapshot.traces().map(shown).eq(expected.map(|(d, s, f)| (d, s, f.to_owned()))));
        // The next one begins empty.
        builder.trace_columns(9, vec![7], vec![a]);
        assert_eq!(builder.finish().traces().map(|t| (t.domain, t.size)).last(), Some((9, 7)));
    }

    #[test]
    #[should_panic(expected = "the stack is of another builder")]
    fn columns_with_a_foreign_stack_are_refused() {
        let mut other = SnapshotBuilder::new(1);
        let stack = other.stack(&[], None);
        SnapshotBuilder::new(1).trace_columns(0, vec![1], vec![stack]);
    }

    #[test]
    #[should_panic(expected = "the thread is of another builder or snapshot")]
    fn a_thread_of_the_last_snapshot_is_refused() {
        let mut builder = SnapshotBuilder::new(1);
        let stack = builder.stack(&[], None);
        let thread = builder.thread(Thread::new(1, 1, ""));
        builder.trace_of(0, 1, stack, Some(thread), None);
        assert_eq!(builder.snapshot().threads().len(), 1);
        builder.trace_of(0, 1, stack, Some(thread), None);
    }

    #[test]
    #[should_panic(expected = "the stack is of another builder")]
    fn a_foreign_stack_is_refused() {
        let mut other = SnapshotBuilder::new(1);
        let stack = other.stack(&[], None);
        SnapshotBuilder::new(1).trace(0, 1, stack);
    }
}
