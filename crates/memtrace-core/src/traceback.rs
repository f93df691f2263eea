//! A stack as users see it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::{self, FusedIterator};
use std::ops::{Index, Range};
use std::slice;
use std::sync::Arc;

use crate::section::analysis;
use crate::stack_table::StackTable;
use crate::{Frame, SourceCache};

/// How deep the real stack was when it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Depth {
    /// Nobody said.
    Unstated,
    /// Deeper than what was recorded, by an unknown amount.
    Deeper,
    /// This many frames; the maximum stands for itself and everything above.
    Total(u16),
}

/// A stack of frames, oldest first.
///
/// Equality, order and hash use the frames only, so two records of one path at different real
/// depths are the same place. The order is lexicographic from the oldest frame; a proper prefix
/// is smaller.
///
/// Cloning is cheap: the frames are shared. A traceback that came from a snapshot shares that
/// snapshot's frames and keeps them in memory, as long as it lives.
#[derive(Clone)]
pub struct Traceback {
    frames: Frames,
    depth: Depth,
}

#[derive(Clone)]
enum Frames {
    /// Oldest first.
    Own(Arc<[Frame]>),
    /// Newest first, as all stacks of the table.
    Run { table: Arc<StackTable>, run: Range<usize> },
}

impl Traceback {
    /// Makes a traceback of frames, oldest first, about whose real depth nothing is known.
    pub fn new(frames: impl Into<Arc<[Frame]>>) -> Self {
        Self { frames: Frames::Own(frames.into()), depth: Depth::Unstated }
    }

    /// Makes a traceback of a run of a table's stack frames.
    pub(crate) fn of_run(table: Arc<StackTable>, run: Range<usize>, depth: Depth) -> Self {
        Self { frames: Frames::Run { table, run }, depth }
    }

    /// Sets the real depth of the stack when it was recorded, in frames; 65,535 also stands for
    /// everything deeper.
    #[must_use]
    pub fn with_total_nframe(mut self, total_nframe: u16) -> Self {
        self.depth = Depth::Total(total_nframe);
        self
    }

    /// Says that the real stack was deeper than what was recorded, by an unknown amount.
    #[must_use]
    pub fn with_unknown_depth(mut self) -> Self {
        self.depth = Depth::Deeper;
        self
    }

    pub(crate) fn depth(&self) -> Depth {
        self.depth
    }

    /// The real depth of the stack when it was recorded, in frames, or `None` when it is
    /// unknown, as in the tracebacks of statistics.
    pub fn total_nframe(&self) -> Option<u16> {
        match self.depth {
            Depth::Total(total_nframe) => Some(total_nframe),
            Depth::Unstated | Depth::Deeper => None,
        }
    }

    /// Whether the real stack is known to have been deeper than what was recorded.
    pub fn is_truncated(&self) -> bool {
        match self.depth {
            Depth::Unstated => false,
            Depth::Deeper => true,
            Depth::Total(total_nframe) => usize::from(total_nframe) > self.len(),
        }
    }

    /// The number of frames. Recorded tracebacks have at least one; only those made by hand can
    /// have none.
    pub fn len(&self) -> usize {
        match &self.frames {
            Frames::Own(frames) => frames.len(),
            Frames::Run { run, .. } => run.len(),
        }
    }

    /// Whether there is no frame at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame at `index`, where 0 is the oldest.
    pub fn get(&self, index: usize) -> Option<&Frame> {
        match &self.frames {
            Frames::Own(frames) => frames.get(index),
            Frames::Run { table, run } => {
                let from_newest = run.len().checked_sub(index)?.checked_sub(1)?;
                Some(table.frame(table.stack_frames()[run.start + from_newest]))
            }
        }
    }

    /// The frame that the others were called from.
    pub fn oldest(&self) -> Option<&Frame> {
        self.iter().next()
    }

    /// The frame that asked for the memory.
    pub fn newest(&self) -> Option<&Frame> {
        self.iter().next_back()
    }

    /// Iterates over the frames, oldest first.
    pub fn iter(&self) -> FrameIter<'_> {
        FrameIter(match &self.frames {
            Frames::Own(frames) => Source::Own(frames.iter()),
            Frames::Run { table, run } => {
                Source::Run(table, table.stack_frames()[run.clone()].iter().rev())
            }
        })
    }

    /// Formats the traceback as lines without line ends: for each frame `  File "F", line N`,
    /// then, if its source line is known and not blank, that line, stripped, after four blanks.
    ///
    /// A positive `limit` chooses that many of the newest frames, zero none, and a negative one
    /// drops that many of the newest. `most_recent_first` then reverses what was chosen.
    ///
    /// **Cost.** Reads each source file once in the lifetime of `sources`.
    ///
    /// ```
    /// use memtrace_core::{Frame, SourceCache, Traceback};
    ///
    /// let traceback = Traceback::new([Frame::new("main.rs", 1), Frame::new("cache.rs", 2)]);
    /// let mut sources = SourceCache::without_files();
    /// sources.insert("cache.rs", "fn insert() {\n    Box::new(1);\n}\n");
    /// assert_eq!(
    ///     traceback.format(None, true, &sources),
    ///     ["  File \"cache.rs\", line 2", "    Box::new(1);", "  File \"main.rs\", line 1"]
    /// );
    /// ```
    pub fn format(
        &self,
        limit: Option<isize>,
        most_recent_first: bool,
        sources: &SourceCache,
    ) -> Vec<String> {
        analysis(|| self.formatted(limit, most_recent_first, sources))
    }

    fn formatted(
        &self,
        limit: Option<isize>,
        most_recent_first: bool,
        sources: &SourceCache,
    ) -> Vec<String> {
        let n_frames = self.len();
        let n = limit.unwrap_or(0).unsigned_abs();
        let chosen = match limit {
            None => 0..n_frames,
            Some(limit) if limit >= 0 => n_frames.saturating_sub(n)..n_frames,
            Some(_) => 0..n_frames.saturating_sub(n),
        };
        let mut lines = Vec::with_capacity(2 * chosen.len());
        let mut push = |frame: &Frame| {
            lines.push(format!("  File \"{}\", line {}", frame.filename, frame.lineno));
            lines.extend(sources.line(frame).map(|line| format!("    {line}")));
        };
        let frames = self.iter().take(chosen.end).skip(chosen.start);
        if most_recent_first {
            frames.rev().for_each(&mut push);
        } else {
            frames.for_each(&mut push);
        }
        lines
    }

    /// The text that Python's `repr` gives: `<Traceback (<Frame …>,)>`, with
    /// ` total_nframe=n` before the end when that is known.
    pub fn python_repr(&self) -> String {
        let frames: Vec<String> = self.iter().map(Frame::python_repr).collect();
        let comma = if frames.len() == 1 { "," } else { "" };
        let total = match self.total_nframe() {
            Some(total_nframe) => format!(" total_nframe={total_nframe}"),
            None => String::new(),
        };
        format!("<Traceback ({}{comma}){total}>", frames.join(", "))
    }
}

impl fmt::Debug for Traceback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The frames as a list.
        struct List<'a>(&'a Traceback);

        impl fmt::Debug for List<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.0).finish()
            }
        }

        let Self { frames: _, depth } = self;
        f.debug_struct("Traceback").field("frames", &List(self)).field("depth", depth).finish()
    }
}

impl PartialEq for Traceback {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other)
    }
}

impl Eq for Traceback {}

impl PartialOrd for Traceback {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Traceback {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other)
    }
}

impl Hash for Traceback {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.len());
        self.iter().for_each(|frame| frame.hash(state));
    }
}

/// The frame at an index, where 0 is the oldest.
///
/// **Panics** if there is no such frame.
impl Index<usize> for Traceback {
    type Output = Frame;

    fn index(&self, index: usize) -> &Frame {
        let n_frames = self.len();
        let out_of_range = || panic!("frame {index} of a traceback of {n_frames} frames");
        self.get(index).unwrap_or_else(out_of_range)
    }
}

impl<'a> IntoIterator for &'a Traceback {
    type Item = &'a Frame;
    type IntoIter = FrameIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The frames of a [`Traceback`], oldest first.
#[derive(Clone, Debug)]
pub struct FrameIter<'a>(Source<'a>);

#[derive(Clone, Debug)]
enum Source<'a> {
    Own(slice::Iter<'a, Frame>),
    Run(&'a StackTable, iter::Rev<slice::Iter<'a, u32>>),
}

impl<'a> Iterator for FrameIter<'a> {
    type Item = &'a Frame;

    fn next(&mut self) -> Option<&'a Frame> {
        match &mut self.0 {
            Source::Own(frames) => frames.next(),
            Source::Run(table, ids) => ids.next().map(|&id| table.frame(id)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Source::Own(frames) => frames.size_hint(),
            Source::Run(_, ids) => ids.size_hint(),
        }
    }
}

impl DoubleEndedIterator for FrameIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Own(frames) => frames.next_back(),
            Source::Run(table, ids) => ids.next_back().map(|&id| table.frame(id)),
        }
    }
}

impl ExactSizeIterator for FrameIter<'_> {}

impl FusedIterator for FrameIter<'_> {}

/// Writes the *oldest* frame as `filename:lineno`, which is what `tracemalloc` does; without any
/// frame, `<unknown>:0`.
impl fmt::Display for Traceback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.oldest() {
            Some(frame) => frame.fmt(f),
            None => f.write_str("<unknown>:0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Traceback {
        Traceback::new([Frame::new("a", 1), Frame::new("b", 2), Frame::new("c", 3)])
    }

    fn chosen(limit: Option<isize>, most_recent_first: bool) -> String {
        let lines = three().format(limit, most_recent_first, &SourceCache::without_files());
        lines.iter().map(|line| &line[8..9]).collect()
    }

    #[test]
    fn a_limit_chooses_frames_as_a_python_slice_does() {
        assert_eq!(chosen(None, false), "abc");
        assert_eq!(chosen(Some(2), false), "bc");
        assert_eq!(chosen(Some(9), false), "abc");
        assert_eq!(chosen(Some(0), false), "");
        assert_eq!(chosen(Some(-1), false), "ab");
        assert_eq!(chosen(Some(-2), true), "a");
        assert_eq!(chosen(Some(-9), false), "");
        assert_eq!(chosen(Some(isize::MIN), false), "");
        assert_eq!(chosen(Some(isize::MAX), true), "cba");
    }

    #[test]
    fn a_proper_prefix_is_smaller_and_the_oldest_frame_decides_first() {
        let a = Traceback::new([Frame::new("a", 1)]);
        let ab = Traceback::new([Frame::new("a", 1), Frame::new("b", 1)]);
        let b = Traceback::new([Frame::new("b", 0)]);
        assert!(a < ab && ab < b);
    }

    #[test]
    fn depth_tells_truncation_but_not_identity() {
        assert!(!three().is_truncated());
        assert!(!three().with_total_nframe(3).is_truncated());
        assert!(three().with_total_nframe(4).is_truncated());
        assert!(three().with_unknown_depth().is_truncated());
        assert_eq!(three().with_unknown_depth().total_nframe(), None);
        assert_eq!(three(), three().with_total_nframe(4));
    }

    #[test]
    fn texts_are_those_of_tracemalloc() {
        assert_eq!(three().to_string(), "a:1");
        assert_eq!(Traceback::new([]).to_string(), "<unknown>:0");
        assert_eq!(
            Traceback::new([Frame::new("f", 1)]).with_total_nframe(2).python_repr(),
            "<Traceback (<Frame filename='f' lineno=1>,) total_nframe=2>"
        );
        assert_eq!(Traceback::new([]).python_repr(), "<Traceback ()>");
    }
}
