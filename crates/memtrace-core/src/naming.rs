//! Names for the frames of a snapshot that was taken without.

use std::sync::Arc;

use crate::builder::FrameId;
use crate::section::analysis;
use crate::traceback::Depth;
use crate::{Frame, Module, Snapshot, SnapshotBuilder};

impl Snapshot {
    /// Whether there are frames that [`Snapshot::name_frames`] can name.
    pub fn has_unnamed_frames(&self) -> bool {
        self.n_unnamed_frames() > 0
    }

    /// The number of distinct frames that [`Snapshot::name_frames`] can name.
    pub fn n_unnamed_frames(&self) -> usize {
        self.table().records().iter().filter(|record| record.file_addr.is_some()).count()
    }

    /// Returns the same snapshot with names: each frame with a [`Frame::file_addr`] is replaced by
    /// the frames that `name` returns for it, **newest** (the innermost inlined one) first, or
    /// stays as it is if that is none.
    ///
    /// A snapshot can be saved without names where the program runs, and be named where its
    /// debug information is.
    ///
    /// **Cost.** A call of `name` for each distinct frame; then time proportional to stacks, their
    /// frames, and traces.
    ///
    /// ```
    /// use memtrace_core::{Frame, KeyType, Module, SnapshotBuilder};
    ///
    /// let mut builder = SnapshotBuilder::new(25);
    /// let frame = builder.frame(Frame::unnamed(Module::new("/bin/app"), 0x1234));
    /// let stack = builder.stack(&[frame], Some(1));
    /// builder.trace(0, 64, stack);
    /// let raw = builder.finish();
    /// assert_eq!(raw.statistics(KeyType::Lineno)[0].traceback.to_string(), "<app+0x1234>:0");
    ///
    /// let named = raw.name_frames(|module, file_addr| {
    ///     assert_eq!((module.name(), file_addr), ("app", 0x1234));
    ///     vec![Frame::new("src/main.rs", 7)]
    /// });
    /// assert_eq!(named.statistics(KeyType::Lineno)[0].traceback.to_string(), "src/main.rs:7");
    /// ```
    #[must_use]
    pub fn name_frames(&self, mut name: impl FnMut(&Arc<Module>, u64) -> Vec<Frame>) -> Snapshot {
        analysis(|| {
            let table = self.table();
            let mut builder = SnapshotBuilder::new(self.traceback_limit());
            let frames: Vec<Vec<FrameId>> = (0..table.n_frames() as u32)
                .map(|id| {
                    let frame = table.frame(id);
                    let named = match (&frame.module, frame.file_addr) {
                        (Some(module), Some(file_addr)) => name(module, file_addr),
                        _ => Vec::new(),
                    };
                    let named = if named.is_empty() { vec![frame.clone()] } else { named };
                    named.into_iter().map(|frame| builder.frame(frame)).collect()
                })
                .collect();
            let mut newest_first = Vec::new();
            let stacks: Vec<_> = (0..table.n_stacks() as u32)
                .map(|id| {
                    newest_first.clear();
                    let stack = table.stack(id);
                    stack.iter().for_each(|&f| newest_first.extend_from_slice(&frames[f as usize]));
                    // Inlined frames count for the depth, too.
                    let n_more = newest_first.len().saturating_sub(stack.len());
                    let depth = match table.depth(id) {
                        Depth::Total(total_nframe) => {
                            let n_more = u16::try_from(n_more).unwrap_or(u16::MAX);
                            Depth::Total(total_nframe.saturating_add(n_more))
                        }
                        depth => depth,
                    };
                    builder.stack_of_depth(&newest_first, depth)
                })
                .collect();
            self.with_table(builder.finish(), |stack| stacks[stack as usize])
        })
    }
}
