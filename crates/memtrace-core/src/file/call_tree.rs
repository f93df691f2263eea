//! Stacks as paths in the tree of calls.
//!
//! Stacks of one program mostly start with the same frames: seen from the outermost one they are
//! a tree, in which a node is a frame called from its parent's. A stack is then the node of its
//! newest frame. In the order of the stacks, each adds a chain of nodes below one that is there
//! already, and only these have to be written; and what a frame calls is often what it called the
//! last time, so that most of them take a [bit](super::prediction).
//!
//! The section: the numbers of stacks, nodes, and frames in all stacks together. Then for all
//! stacks a column each of: the node to which it adds, 0 for the root, which has no frame; the
//! nodes that it adds; its depth (0: as many frames as it has; 1: unstated; 2: deeper than
//! recorded; 3 and more: that many less 3). Then the frames of the nodes, predicted by the
//! parent's frame.
//!
//! **Cost.** Writing looks at each frame of each stack: 3 ns where a node has one child, a look
//! into a hash table where it has several. Reading walks each stack up to the root: 1 ns a frame.

use std::iter;

use hashbrown::{HashMap, HashSet};

use super::FileError;
use super::column::{BLOCK, ColumnReader, ColumnWriter};
use super::cursor::{Cursor, put_number};
use super::prediction::{PredictionReader, PredictionWriter};
use crate::traceback::Depth;

/// What a stack takes in memory beside its frames, while it is read and after.
const STACK_OVERHEAD: u64 = 64;
/// The same for a node.
const NODE_OVERHEAD: u64 = 12;
/// What a frame in a stack takes.
const ENTRY_OVERHEAD: u64 = 4;

const ROOT: u32 = 0;

/// What stacks take in memory, as [`Cursor::charge`] counts.
fn expansion(n_stacks: u64, n_nodes: u64, n_entries: u64) -> u64 {
    let stacks = n_stacks.saturating_mul(STACK_OVERHEAD);
    let nodes = n_nodes.saturating_mul(NODE_OVERHEAD);
    stacks.saturating_add(nodes).saturating_add(n_entries.saturating_mul(ENTRY_OVERHEAD))
}

/// Appends the section for stacks of frame ids, newest first, below `n_frames`; returns what it
/// takes in memory.
pub(super) fn write<'a>(
    stacks: impl ExactSizeIterator<Item = (&'a [u32], Depth)>,
    n_frames: usize,
    column: &mut ColumnWriter,
    out: &mut Vec<u8>,
) -> u64 {
    let n_stacks = stacks.len();
    // The root's children have a context of their own.
    let mut tree = Tree::new(n_frames as u32);
    let mut columns = [(); 3].map(|()| Vec::with_capacity(n_stacks));
    let mut n_entries = 0;
    for (newest_first, depth) in stacks {
        let (attached_to, n_added) = tree.add(newest_first);
        columns[0].push(attached_to.into());
        columns[1].push(n_added as u64);
        columns[2].push(depth_code(depth, newest_first.len()));
        n_entries += newest_first.len() as u64;
    }
    let n_nodes = tree.nodes.len() - 1;
    put_number(n_stacks as u64, out);
    put_number(n_nodes as u64, out);
    put_number(n_entries, out);
    columns.iter().for_each(|values| column.write(values, out));

    let mut predicted = PredictionWriter::new(n_frames + 1);
    let mut frames = Vec::with_capacity(BLOCK);
    for block in tree.nodes[1..].chunks(BLOCK) {
        frames.clear();
        frames.extend(block.iter().map(|node| u64::from(node.frame)));
        let contexts = block.iter().map(|node| tree.nodes[node.parent as usize].frame as usize);
        predicted.write_block(column, contexts, &frames, out);
    }
    expansion(n_stacks as u64, n_nodes as u64, n_entries)
}

/// The nodes by number, in the order in which they were added; the first is the root.
struct Tree {
    nodes: Vec<Node>,
    /// All children but those that were added first, by parent and frame.
    more_children: HashMap<(u32, u32), u32>,
}

struct Node {
    frame: u32,
    parent: u32,
    /// The child that was added first, or the root for none.
    first_child: u32,
}

impl Tree {
    fn new(frame_of_root: u32) -> Self {
        let root = Node { frame: frame_of_root, parent: ROOT, first_child: ROOT };
        Self { nodes: vec![root], more_children: HashMap::new() }
    }

    /// Adds the nodes that a stack needs. Returns below which node, and how many.
    fn add(&mut self, newest_first: &[u32]) -> (u32, usize) {
        let mut node = ROOT;
        for (n_newer, &frame) in newest_first.iter().enumerate().rev() {
            let child = self.child(node, frame);
            if child == ROOT {
                self.add_chain(node, &newest_first[..=n_newer]);
                return (node, n_newer + 1);
            }
            node = child;
        }
        (node, 0)
    }

    fn child(&self, node: u32, frame: u32) -> u32 {
        let first = self.nodes[node as usize].first_child;
        if first == ROOT || self.nodes[first as usize].frame == frame {
            return first;
        }
        self.more_children.get(&(node, frame)).copied().unwrap_or(ROOT)
    }

    /// Adds a node for each of these frames, of which there is at least one, below each other and
    /// a parent that has no such child.
    fn add_chain(&mut self, parent: u32, newest_first: &[u32]) {
        let n_nodes = self.nodes.len() + newest_first.len();
        let end = u32::try_from(n_nodes).expect("a snapshot has fewer than 2^32 distinct calls");
        let first = self.nodes.len() as u32;
        let ids = first..end;
        self.nodes.extend(newest_first.iter().rev().zip(ids).map(|(&frame, id)| Node {
            frame,
            parent: if id == first { parent } else { id - 1 },
            first_child: if id + 1 == end { ROOT } else { id + 1 },
        }));
        if self.nodes[parent as usize].first_child == ROOT {
            self.nodes[parent as usize].first_child = first;
        } else {
            let frame = self.nodes[first as usize].frame;
            self.more_children.insert((parent, frame), first);
        }
    }
}

fn depth_code(depth: Depth, n_frames: usize) -> u64 {
    match depth {
        Depth::Total(total) if usize::from(total) == n_frames => 0,
        Depth::Unstated => 1,
        Depth::Deeper => 2,
        Depth::Total(total) => 3 + u64::from(total),
    }
}

/// Stacks as they were read.
pub(super) struct CallTree {
    frames: Vec<u32>,
    parents: Vec<u32>,
    /// The node of each stack's newest frame, and its depth.
    stacks: Vec<(u32, Depth)>,
    n_entries: usize,
}

impl CallTree {
    /// Reads the section; all frames are below `n_frames`.
    pub(super) fn read(
        cursor: &mut Cursor<'_>,
        column: &mut ColumnReader,
        n_frames: usize,
    ) -> Result<Self, FileError> {
        let n_stacks = cursor.number_up_to(u32::MAX.into(), "number of stacks")?;
        let n_nodes = cursor.number_up_to((u32::MAX - 1).into(), "number of calls")?;
        let n_entries = cursor.number("number of frames in all stacks")?;
        cursor.charge(expansion(n_stacks, n_nodes, n_entries))?;
        let (n_stacks, n_nodes) = (n_stacks as usize, n_nodes as usize);

        let last_node = n_nodes as u32;
        let attached = column.read_u32s(cursor, n_stacks, last_node, "calls added to")?;
        let n_added = column.read_u32s(cursor, n_stacks, last_node, "numbers of added calls")?;
        let max_code = 3 + u32::from(u16::MAX);
        let codes = column.read_u32s(cursor, n_stacks, max_code, "depths of stacks")?;

        let mut parents = Vec::with_capacity(n_nodes + 1);
        let mut stacks = Vec::with_capacity(n_stacks);
        let mut n_frames_of = vec![0_u32; n_nodes + 1];
        let mut n_entries_left = n_entries;
        parents.push(ROOT);
        for ((&attached_to, &n_added), &code) in attached.iter().zip(&n_added).zip(&codes) {
            let id = stacks.len();
            let n_known = parents.len();
            if attached_to as usize >= n_known || n_added as usize > n_nodes + 1 - n_known {
                return Err(cursor.malformed(format!(
                    "stack {id} adds {n_added} calls below call {attached_to}, when there are {} \
                     of {n_nodes}",
                    n_known - 1
                )));
            }
            let mut node = attached_to;
            for _ in 0..n_added {
                let added = parents.len() as u32;
                parents.push(node);
                n_frames_of[added as usize] = n_frames_of[node as usize] + 1;
                node = added;
            }
            let n_frames = n_frames_of[node as usize];
            let Some(n_left) = n_entries_left.checked_sub(n_frames.into()) else {
                return Err(cursor.malformed(format!(
                    "stacks up to number {id} have more than {n_entries} frames"
                )));
            };
            n_entries_left = n_left;
            let Some(depth) = depth_of_code(code, n_frames) else {
                return Err(cursor.malformed(format!(
                    "stack {id} has {n_frames} frames; a depth known to be as many is at most \
                     65535"
                )));
            };
            stacks.push((node, depth));
        }
        if parents.len() != n_nodes + 1 || n_entries_left != 0 {
            return Err(cursor.malformed(format!(
                "all stacks have {} calls and {} frames, not {n_nodes} and {n_entries}",
                parents.len() - 1,
                n_entries - n_entries_left
            )));
        }
        drop(n_frames_of);

        let mut predicted = PredictionReader::new(n_frames + 1);
        let mut frames = Vec::with_capacity(n_nodes + 1);
        frames.push(n_frames as u32);
        for first in (1..=n_nodes).step_by(BLOCK) {
            let range = first..(n_nodes + 1).min(first + BLOCK);
            let Some(last_frame) = n_frames.checked_sub(1) else {
                return Err(cursor.malformed("there are calls, but no frames".to_owned()));
            };
            let n_block = range.len();
            predicted.start_block(cursor, column, n_block, last_frame as u64, "frames of calls")?;
            for &parent in &parents[range] {
                frames.push(predicted.next_value(frames[parent as usize] as usize) as u32);
            }
        }
        let tree = Self { frames, parents, stacks, n_entries: n_entries as usize };
        tree.check_distinct(cursor, &n_added)?;
        Ok(tree)
    }

    /// Refuses a tree in which two stacks are the same.
    ///
    /// Where no two children of a node have the same frame, stacks are the same only if they end at
    /// the same node. A node that continues its stack's chain has no older sibling; so there are
    /// as few nodes to compare as there are stacks, and no frames of stacks.
    fn check_distinct(&self, cursor: &Cursor<'_>, n_added: &[u32]) -> Result<(), FileError> {
        let Self { frames, parents, .. } = self;
        let mut chains = HashSet::with_capacity(n_added.len());
        let mut start = 1;
        for (id, &n_added) in n_added.iter().enumerate().filter(|&(_, &n_added)| n_added > 0) {
            let (parent, frame) = (parents[start], frames[start]);
            // The child that continues the chain that its parent belongs to.
            let older = parent as usize + 1;
            let is_older_child = older < start && parents[older] == parent;
            if is_older_child && frames[older] == frame || !chains.insert((parent, frame)) {
                return Err(cursor.malformed(format!("stack {id} adds a call that is there")));
            }
            start += n_added as usize;
        }
        drop(chains);
        let mut ends = HashSet::with_capacity(self.stacks.len());
        match self.stacks.iter().position(|&stack| !ends.insert(stack)) {
            None => Ok(()),
            Some(id) => Err(cursor.malformed(format!("stack {id} is there twice"))),
        }
    }

    pub(super) fn n_stacks(&self) -> usize {
        self.stacks.len()
    }

    /// The number of frames in all stacks together.
    pub(super) fn n_entries(&self) -> usize {
        self.n_entries
    }

    /// The frames of each stack, newest first, and its depth. No two are the same.
    pub(super) fn stacks(&self) -> impl Iterator<Item = (impl Iterator<Item = u32>, Depth)> {
        self.stacks.iter().map(move |&(end, depth)| {
            let below_root = |node: u32| (node != ROOT).then_some(node);
            let parent = move |&node: &u32| below_root(self.parents[node as usize]);
            let path = iter::successors(below_root(end), parent);
            (path.map(|node| self.frames[node as usize]), depth)
        })
    }
}

fn depth_of_code(code: u32, n_frames: u32) -> Option<Depth> {
    match code {
        0 => u16::try_from(n_frames).ok().map(Depth::Total),
        1 => Some(Depth::Unstated),
        2 => Some(Depth::Deeper),
        _ => u16::try_from(code - 3).ok().map(Depth::Total),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Section;
    use super::super::cursor::MAX_EXPANSION;
    use super::*;

    const N_FRAMES: usize = 5;

    type Stack = (Vec<u32>, Depth);

    fn written(stacks: &[Stack]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let all = stacks.iter().map(|(frames, depth)| (&frames[..], *depth));
        let expansion = write(all, N_FRAMES, &mut ColumnWriter::default(), &mut bytes);
        let min_len = expansion.div_ceil(MAX_EXPANSION) as usize;
        bytes.resize(bytes.len().max(min_len), 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Stack>, String> {
        let mut cursor = Cursor::new(Section::Stacks, 0, bytes);
        let tree = CallTree::read(&mut cursor, &mut ColumnReader::default(), N_FRAMES);
        let tree = tree.and_then(|tree| cursor.finish().map(|()| tree));
        let stacks = |tree: CallTree| {
            let stacks: Vec<Stack> =
                tree.stacks().map(|(frames, depth)| (frames.collect(), depth)).collect();
            assert_eq!(stacks.len(), tree.n_stacks());
            let n_entries: usize = stacks.iter().map(|(frames, _)| frames.len()).sum();
            assert_eq!(n_entries, tree.n_entries());
            stacks
        };
        tree.map(stacks).map_err(|error| error.to_string())
    }

    #[test]
    fn what_stacks_share_is_written_once() {
        let mut tree = Tree::new(9);
        assert_eq!(tree.add(&[2, 1, 0]), (ROOT, 3));
        assert_eq!(tree.add(&[3, 1, 0]), (2, 1));
        assert_eq!(tree.add(&[4, 3, 1, 0]), (4, 1));
        assert_eq!(tree.add(&[3, 1, 0]), (4, 0));
        assert_eq!(tree.add(&[2, 1, 0]), (3, 0));
        assert_eq!(tree.add(&[]), (ROOT, 0));
        assert_eq!(tree.add(&[4]), (ROOT, 1));
        assert_eq!(tree.nodes.len(), 1 + 3 + 1 + 1 + 1);
    }

    #[test]
    fn a_recursion_is_filled_up_so_that_it_may_stand_for_its_frames() {
        let stacks: Vec<Stack> = (0..1000).map(|n| (vec![1; 1000 + n], Depth::Deeper)).collect();
        let bytes = written(&stacks);
        assert!(bytes.len() < 100_000, "{} bytes", bytes.len());
        assert_eq!(read(&bytes), Ok(stacks));
        // Without the zeros it would be too much from too little.
        let len = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        let error = read(&bytes[..len]).unwrap_err();
        assert!(error.contains("64 times as many are allowed"), "{error}");
    }

    #[test]
    fn every_depth_is_kept() {
        let depths = [
            Depth::Unstated,
            Depth::Deeper,
            Depth::Total(0),
            Depth::Total(2),
            Depth::Total(3),
            Depth::Total(u16::MAX),
        ];
        let stacks: Vec<Stack> = depths.iter().map(|&depth| (vec![1, 0], depth)).collect();
        assert_eq!(read(&written(&stacks)), Ok(stacks));
    }

    /// A section of a stack with these numbers, and as many calls of frame 0 as it says.
    fn section(counts: [u64; 3], columns: [&[u64]; 3], frame: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        counts.iter().for_each(|&count| put_number(count, &mut bytes));
        columns.iter().for_each(|values| ColumnWriter::default().write(values, &mut bytes));
        let frames = vec![frame; counts[1] as usize];
        let mut predicted = PredictionWriter::new(N_FRAMES + 1);
        // All below each other.
        let contexts = (0..frames.len()).map(|i| if i == 0 { N_FRAMES } else { frame as usize });
        predicted.write_block(&mut ColumnWriter::default(), contexts, &frames, &mut bytes);
        bytes
    }

    #[test]
    fn what_no_stacks_have_written_is_refused() {
        assert_eq!(
            read(&section([1, 2, 2], [&[0], &[2], &[0]], 4)),
            Ok(vec![(vec![4, 4], Depth::Total(2))])
        );
        for (bytes, reason) in [
            (
                section([1, 2, 2], [&[1], &[2], &[0]], 0),
                "stack 0 adds 2 calls below call 1, when there are 0 of 2",
            ),
            (
                section([2, 2, 2], [&[0, 0], &[2, 1], &[0, 0]], 0),
                "stack 1 adds 1 calls below call 0, when there are 2 of 2",
            ),
            (
                section([1, 2, 2], [&[3], &[2], &[0]], 0),
                "the greatest of calls added to is 3, not 0 to 2",
            ),
            (section([1, 2, 1], [&[0], &[2], &[0]], 0), "have more than 1 frames"),
            (
                section([1, 2, 3], [&[0], &[2], &[0]], 0),
                "all stacks have 2 calls and 2 frames, not 2 and 3",
            ),
            (
                section([1, 2, 1], [&[0], &[1], &[0]], 0),
                "all stacks have 1 calls and 1 frames, not 2 and 1",
            ),
            (
                section([1, 1, 1], [&[0], &[1], &[65_539]], 0),
                "the greatest of depths of stacks is 65539, not 0 to 65538",
            ),
            (
                section([1, 2, 2], [&[0], &[2], &[0]], 5),
                "the greatest of frames of calls is 5, not 0 to 4",
            ),
        ] {
            let error = read(&bytes).unwrap_err();
            assert!(error.ends_with(reason), "{error}");
        }
    }

    #[test]
    fn a_call_that_is_there_twice_is_refused() {
        // 4 and 4 below it; then 4 again below the root, below the first one, below the second.
        for attached_to in [0, 1, 2] {
            let columns: [&[u64]; 3] = [&[0, attached_to], &[2, 1], &[0, 0]];
            let read = read(&section([2, 3, 2 + 1 + attached_to], columns, 4));
            if attached_to == 2 {
                assert_eq!(read.unwrap().len(), 2);
            } else {
                let error = read.unwrap_err();
                assert!(error.ends_with("stack 1 adds a call that is there"), "{error}");
            }
        }
        // The same below one that no chain continues.
        let columns: [&[u64]; 3] = [&[0, 1, 1], &[1, 1, 1], &[0, 0, 0]];
        let error = read(&section([3, 3, 5], columns, 4)).unwrap_err();
        assert!(error.ends_with("stack 2 adds a call that is there"), "{error}");
    }

    #[test]
    fn a_stack_that_is_repeated_without_end_is_refused() {
        let bytes = section([4000, 2000, 8_000_000], [&[0], &[2000], &[1]], 0);
        let error = read(&bytes).unwrap_err();
        assert!(error.contains("64 times as many are allowed"), "{error}");
    }

    fn stacks() -> impl Strategy<Value = Vec<Stack>> {
        let depth = prop_oneof![
            Just(Depth::Unstated),
            Just(Depth::Deeper),
            (0..9_u16).prop_map(Depth::Total)
        ];
        let frames = prop::collection::vec(0..N_FRAMES as u32, 0..9);
        prop::collection::vec((frames, depth), 0..60)
    }

    proptest! {
        #[test]
        fn stacks_come_back_unless_two_are_the_same(stacks in stacks()) {
            let read = read(&written(&stacks));
            let n_distinct = stacks.iter().collect::<HashSet<_>>().len();
            if n_distinct == stacks.len() {
                prop_assert_eq!(read, Ok(stacks));
            } else {
                let error = read.unwrap_err();
                prop_assert!(error.ends_with(" is there twice"), "{}", error);
            }
        }

        #[test]
        fn damage_is_refused_or_read_as_other_stacks(
            stacks in stacks(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = written(&stacks);
            *at.get_mut(&mut bytes) = byte;
            if let Ok(read) = read(&bytes) {
                let n_entries: usize = read.iter().map(|(frames, _)| frames.len()).sum();
                prop_assert!(4 * n_entries <= 64 * bytes.len());
            }
        }
    }
}
