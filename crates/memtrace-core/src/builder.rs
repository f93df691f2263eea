//! Makes snapshots out of frames, stacks and traces.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::snapshot::TraceColumns;
use crate::stack_table::{FrameRecord, StackTable};
use crate::traceback::Depth;
use crate::{Attribution, Frame, Snapshot, Traceback};

/// A frame known to one [`SnapshotBuilder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameId(u32);

/// A stack known to one [`SnapshotBuilder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StackId(u32);

/// Makes a [`Snapshot`] piece by piece: frames, then stacks of frames, then traces that name a
/// stack by one integer.
///
/// Equal frames and equal stacks get equal ids, however often they come. A frame costs a hash of
/// its strings, so keep its id if you meet it again.
///
/// Ids belong to the builder that made them (and its clones). An id of another builder stands for
/// another frame or stack, or for none: then the method that is given it panics.
#[derive(Clone, Debug)]
pub struct SnapshotBuilder {
    traceback_limit: u16,
    attribution: Attribution,
    table: StackTable,
    hasher: DefaultHashBuilder,
    // Ids by what they stand for. The keys live in `table`.
    string_ids: HashTable<u32>,
    frame_ids: HashTable<u32>,
    stack_ids: HashTable<u32>,
    traces: TraceColumns,
}

impl SnapshotBuilder {
    /// Starts an empty snapshot whose stacks were recorded up to `traceback_limit` frames deep.
    pub fn new(traceback_limit: u16) -> Self {
        Self {
            traceback_limit,
            attribution: Attribution::default(),
            table: StackTable::default(),
            hasher: DefaultHashBuilder::default(),
            string_ids: HashTable::new(),
            frame_ids: HashTable::new(),
            stack_ids: HashTable::new(),
            traces: TraceColumns::default(),
        }
    }

    /// Adds a frame, unless one that agrees in *every* field is known already.
    ///
    /// **Panics** beyond 2³² distinct frames or strings.
    pub fn frame(&mut self, frame: Frame) -> FrameId {
        let record = FrameRecord {
            filename: self.string(frame.filename),
            lineno: frame.lineno,
            function: frame.function.map(|text| self.string(text)),
            module: frame.module.map(|text| self.string(text)),
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

    /// Adds a live block of `size` bytes, as requested by `stack`, in an address space.
    ///
    /// **Panics** if the id is of another builder.
    pub fn trace(&mut self, domain: u32, size: u64, stack: StackId) {
        assert!((stack.0 as usize) < self.table.n_stacks(), "the stack is of another builder");
        self.traces.push(domain, size, stack.0);
    }

    /// Ends the snapshot. Its attribution is the default one.
    pub fn finish(self) -> Snapshot {
        Snapshot::from_parts(
            Arc::new(self.table),
            self.traces,
            self.traceback_limit,
            self.attribution,
        )
    }

    pub(crate) fn set_attribution(&mut self, attribution: Attribution) {
        self.attribution = attribution;
    }

    pub(crate) fn reserve_traces(&mut self, n_traces: usize) {
        self.traces.reserve(n_traces);
    }

    pub(crate) fn string(&mut self, text: Arc<str>) -> u32 {
        let hash = self.hasher.hash_one(&*text);
        let Self { table, hasher, string_ids, .. } = self;
        if let Some(&id) = string_ids.find(hash, |&id| **table.string(id) == *text) {
            return id;
        }
        let id = table.push_string(text);
        string_ids.insert_unique(hash, id, |&id| hasher.hash_one(&**table.string(id)));
        id
    }

    /// The string ids are this builder's.
    pub(crate) fn frame_record(&mut self, record: FrameRecord) -> FrameId {
        let hash = self.hasher.hash_one(record);
        let Self { table, hasher, frame_ids, .. } = self;
        if let Some(&id) = frame_ids.find(hash, |&id| *table.record(id) == record) {
            return FrameId(id);
        }
        let id = table.push_frame(record);
        frame_ids.insert_unique(hash, id, |&id| hasher.hash_one(table.record(id)));
        FrameId(id)
    }

    pub(crate) fn stack_of_depth(&mut self, newest_first: &[FrameId], depth: Depth) -> StackId {
        let n_frames = self.table.frames().len();
        assert!(
            newest_first.iter().all(|frame| (frame.0 as usize) < n_frames),
            "a frame is of another builder"
        );
        let ids = || newest_first.iter().map(|frame| frame.0);
        let hash = stack_hash(&self.hasher, ids(), depth);
        let Self { table, hasher, stack_ids, .. } = self;
        let is_same =
            |&id: &u32| table.depth(id) == depth && table.stack(id).iter().copied().eq(ids());
        if let Some(&id) = stack_ids.find(hash, is_same) {
            return StackId(id);
        }
        let id = table.push_stack(ids(), depth);
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
    #[should_panic(expected = "the stack is of another builder")]
    fn a_foreign_stack_is_refused() {
        let mut other = SnapshotBuilder::new(1);
        let stack = other.stack(&[], None);
        SnapshotBuilder::new(1).trace(0, 1, stack);
    }
}
