//! Every distinct string, frame and stack of a snapshot, once.
//!
//! Columns of plain ids: a stack is a run of frame ids, newest first, in one long array; a frame
//! is a record of string ids. Tables are shared by a snapshot and all that is filtered from it.
//!
//! **I1.** No two strings, no two frame records and no two (stack, depth) pairs are equal, so
//! ids can be compared instead of what they stand for.
//!
//! **I2.** Every id in a record or stack is less than the length of the column it points into.
//!
//! **I3.** `stack_ends` ascends, and its last element is the length of `stack_frames`.

use std::sync::Arc;

use crate::traceback::Depth;
use crate::{Frame, MissingSource, Traceback};

/// A frame whose strings are ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FrameRecord {
    pub(crate) filename: u32,
    pub(crate) lineno: u32,
    pub(crate) function: Option<u32>,
    pub(crate) module: Option<u32>,
    pub(crate) directory: Option<u32>,
    pub(crate) is_inlined: bool,
    pub(crate) missing: Option<MissingSource>,
}

impl FrameRecord {
    /// What frames are compared by.
    pub(crate) fn place(&self) -> (u32, u32) {
        (self.filename, self.lineno)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct StackTable {
    strings: Vec<Arc<str>>,
    frames: Vec<FrameRecord>,
    stack_frames: Vec<u32>,
    /// Where each stack ends in `stack_frames`.
    stack_ends: Vec<usize>,
    depths: Vec<Depth>,
}

impl StackTable {
    pub(crate) fn strings(&self) -> &[Arc<str>] {
        &self.strings
    }

    pub(crate) fn string(&self, id: u32) -> &Arc<str> {
        &self.strings[id as usize]
    }

    pub(crate) fn frames(&self) -> &[FrameRecord] {
        &self.frames
    }

    pub(crate) fn record(&self, id: u32) -> &FrameRecord {
        &self.frames[id as usize]
    }

    pub(crate) fn n_stacks(&self) -> usize {
        self.stack_ends.len()
    }

    /// The frame ids of a stack, newest first.
    pub(crate) fn stack(&self, id: u32) -> &[u32] {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.stack_ends[id - 1] };
        &self.stack_frames[start..self.stack_ends[id]]
    }

    pub(crate) fn depth(&self, id: u32) -> Depth {
        self.depths[id as usize]
    }

    pub(crate) fn frame(&self, id: u32) -> Frame {
        let record = self.record(id);
        let text = |id: Option<u32>| id.map(|id| Arc::clone(self.string(id)));
        Frame {
            filename: Arc::clone(self.string(record.filename)),
            lineno: record.lineno,
            function: text(record.function),
            module: text(record.module),
            directory: text(record.directory),
            is_inlined: record.is_inlined,
            missing: record.missing,
        }
    }

    /// The whole stack, as users see it.
    pub(crate) fn traceback(&self, id: u32) -> Traceback {
        Traceback::from_parts(self.frames_of(self.stack(id)), self.depth(id))
    }

    /// Frames oldest first, of frame ids newest first.
    pub(crate) fn frames_of(&self, newest_first: &[u32]) -> Arc<[Frame]> {
        newest_first.iter().rev().map(|&id| self.frame(id)).collect()
    }

    /// Appends a string that is not in the table.
    pub(crate) fn push_string(&mut self, text: Arc<str>) -> u32 {
        self.strings.push(text);
        last_id(self.strings.len())
    }

    /// Appends a record that is not in the table.
    pub(crate) fn push_frame(&mut self, record: FrameRecord) -> u32 {
        self.frames.push(record);
        last_id(self.frames.len())
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
}

fn last_id(len: usize) -> u32 {
    u32::try_from(len - 1).expect("a snapshot has fewer than 2^32 distinct strings and stacks")
}
