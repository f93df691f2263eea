//! Every distinct string, module, frame and stack of a snapshot, once.
//!
//! Columns of plain ids: a stack is a run of frame ids, newest first, in one long array; a frame
//! is a record of string ids. Tables are shared by a snapshot and all that is filtered from it, and
//! by the snapshots that one builder makes one after the other, until it meets something new: then
//! it goes on with a copy.
//!
//! **I1.** No two strings, modules, frame records, places and (stack, depth) pairs are equal, so
//! ids can be compared instead of what they stand for.
//!
//! **I2.** Every id in a record or stack is less than the length of the column it points into.
//!
//! **I3.** `stack_ends` ascends, and its last element is the length of `stack_frames`.
//!
//! **I4.** Of two tables with the same lineage, one is the beginning of the other, column by
//! column: an id means the same in both.

use std::sync::Arc;

use crate::traceback::Depth;
use crate::{Frame, MissingSource, Module, Traceback};

/// A frame whose strings are ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FrameRecord {
    pub(crate) filename: u32,
    pub(crate) lineno: u32,
    pub(crate) function: Option<u32>,
    pub(crate) module: Option<u32>,
    pub(crate) file_addr: Option<u64>,
    pub(crate) directory: Option<u32>,
    pub(crate) is_inlined: bool,
    pub(crate) missing: Option<MissingSource>,
}

/// What frames are compared by: filename id and line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) filename: u32,
    pub(crate) lineno: u32,
}

/// Stands for one builder's tables, however long they grow.
#[derive(Clone, Debug, Default)]
struct Lineage(Arc<()>);

impl PartialEq for Lineage {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A clone is of the same lineage; see [`StackTable::with_own_lineage`].
#[derive(Debug, Default)]
pub(crate) struct StackTable {
    lineage: Lineage,
    strings: Vec<Arc<str>>,
    modules: Vec<Arc<Module>>,
    records: Vec<FrameRecord>,
    /// The frames of `records`, as users see them.
    frames: Vec<Frame>,
    places: Vec<Place>,
    /// The place of each frame.
    frame_places: Vec<u32>,
    stack_frames: Vec<u32>,
    /// Where each stack ends in `stack_frames`.
    stack_ends: Vec<usize>,
    depths: Vec<Depth>,
}

/// Tables are cloned to grow a little beyond a snapshot that keeps the old one: the room for that is
/// an eighth, where a vector would double itself at the first push.
impl Clone for StackTable {
    fn clone(&self) -> Self {
        fn with_room<T: Clone>(column: &[T]) -> Vec<T> {
            let mut copy = Vec::with_capacity(column.len() + column.len() / 8 + 8);
            copy.extend_from_slice(column);
            copy
        }
        Self {
            lineage: self.lineage.clone(),
            strings: with_room(&self.strings),
            modules: with_room(&self.modules),
            records: with_room(&self.records),
            frames: with_room(&self.frames),
            places: with_room(&self.places),
            frame_places: with_room(&self.frame_places),
            stack_frames: with_room(&self.stack_frames),
            stack_ends: with_room(&self.stack_ends),
            depths: with_room(&self.depths),
        }
    }
}

impl StackTable {
    /// A table that may grow on its own from here, other than the one it was cloned from.
    pub(crate) fn with_own_lineage(mut self) -> Self {
        self.lineage = Lineage::default();
        self
    }

    /// Whether ids mean the same in both tables, as far as both have them.
    pub(crate) fn shares_ids_with(&self, other: &Self) -> bool {
        self.lineage == other.lineage
    }

    pub(crate) fn strings(&self) -> &[Arc<str>] {
        &self.strings
    }

    pub(crate) fn string(&self, id: u32) -> &Arc<str> {
        &self.strings[id as usize]
    }

    pub(crate) fn modules(&self) -> &[Arc<Module>] {
        &self.modules
    }

    pub(crate) fn records(&self) -> &[FrameRecord] {
        &self.records
    }

    pub(crate) fn record(&self, id: u32) -> &FrameRecord {
        &self.records[id as usize]
    }

    pub(crate) fn frame(&self, id: u32) -> &Frame {
        &self.frames[id as usize]
    }

    pub(crate) fn n_frames(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(crate) fn place(&self, id: u32) -> Place {
        self.places[id as usize]
    }

    pub(crate) fn place_of_frame(&self, frame: u32) -> u32 {
        self.frame_places[frame as usize]
    }

    pub(crate) fn n_stacks(&self) -> usize {
        self.stack_ends.len()
    }

    /// The frame ids of a stack, newest first.
    pub(crate) fn stack(&self, id: u32) -> &[u32] {
        &self.stack_frames[self.stack_start(id)..self.stack_ends[id as usize]]
    }

    /// Where the stack's frames begin among those of all stacks.
    pub(crate) fn stack_start(&self, id: u32) -> usize {
        if id == 0 { 0 } else { self.stack_ends[id as usize - 1] }
    }

    /// The frame ids of all stacks, one stack after the other.
    pub(crate) fn stack_frames(&self) -> &[u32] {
        &self.stack_frames
    }

    pub(crate) fn depth(&self, id: u32) -> Depth {
        self.depths[id as usize]
    }

    /// The whole stack, as users see it.
    pub(crate) fn traceback(self: &Arc<Self>, id: u32) -> Traceback {
        let run = self.stack_start(id)..self.stack_ends[id as usize];
        Traceback::of_run(Arc::clone(self), run, self.depth(id))
    }

    /// Appends a string that is not in the table.
    pub(crate) fn push_string(&mut self, text: Arc<str>) -> u32 {
        self.strings.push(text);
        last_id(self.strings.len())
    }

    /// Appends a module that is not in the table.
    pub(crate) fn push_module(&mut self, module: Arc<Module>) -> u32 {
        self.modules.push(module);
        last_id(self.modules.len())
    }

    /// Appends a place that is not in the table.
    pub(crate) fn push_place(&mut self, place: Place) -> u32 {
        self.places.push(place);
        last_id(self.places.len())
    }

    /// Appends a record that is not in the table.
    pub(crate) fn push_frame(&mut self, record: FrameRecord, place: u32) -> u32 {
        let text = |id: Option<u32>| id.map(|id| Arc::clone(self.string(id)));
        let frame = Frame {
            filename: Arc::clone(self.string(record.filename)),
            lineno: record.lineno,
            function: text(record.function),
            module: record.module.map(|id| Arc::clone(&self.modules[id as usize])),
            file_addr: record.file_addr,
            directory: text(record.directory),
            is_inlined: record.is_inlined,
            missing: record.missing,
        };
        self.frames.push(frame);
        self.records.push(record);
        self.frame_places.push(place);
        last_id(self.records.len())
    }

    /// Makes room for exactly so many more strings.
    pub(crate) fn reserve_strings(&mut self, n_strings: usize) {
        self.strings.reserve_exact(n_strings);
    }

    /// Makes room for exactly so many more frames, each at a place of its own.
    pub(crate) fn reserve_frames(&mut self, n_frames: usize) {
        self.records.reserve_exact(n_frames);
        self.frames.reserve_exact(n_frames);
        self.places.reserve_exact(n_frames);
        self.frame_places.reserve_exact(n_frames);
    }

    /// Makes room for exactly so many more stacks, with so many frames in all.
    pub(crate) fn reserve_stacks(&mut self, n_stacks: usize, n_frames: usize) {
        self.stack_frames.reserve_exact(n_frames);
        self.stack_ends.reserve_exact(n_stacks);
        self.depths.reserve_exact(n_stacks);
    }

    /// Appends a stack that is not in the table.
    pub(crate) fn push_stack(
        &mut self,
        newest_first: impl Iterator<Item = u32>,
        depth: Depth,
    ) -> u32 {
        self.stack_frames.extend(newest_first);
        self.stack_ends.push(self.stack_frames.len());
        self.depths.push(depth);
        last_id(self.stack_ends.len())
    }

    /// Bytes of memory, as far as they are the table's own.
    pub(crate) fn n_bytes(&self) -> usize {
        // An `Arc` has two counters before its text.
        let text = |text: &Arc<str>| text.len() + 2 * size_of::<usize>();
        let strings = self.strings.iter().map(text).sum::<usize>();
        let modules = self.modules.iter().map(|module| text(&module.path)).sum::<usize>();
        strings
            + modules
            + size_of_val(&self.strings[..])
            + size_of_val(&self.modules[..])
            + size_of_val(&self.records[..])
            + size_of_val(&self.frames[..])
            + size_of_val(&self.places[..])
            + size_of_val(&self.frame_places[..])
            + size_of_val(&self.stack_frames[..])
            + size_of_val(&self.stack_ends[..])
            + size_of_val(&self.depths[..])
    }
}

fn last_id(len: usize) -> u32 {
    u32::try_from(len - 1).expect("a snapshot has fewer than 2^32 distinct strings and stacks")
}
