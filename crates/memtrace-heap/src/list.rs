//! Doubly linked lists threaded through numbered nodes.
//!
//! # Mechanism
//! Pools and arenas stand in arrays; a list is the [`Id`] of its first node, and each node carries
//! [`Links`] to its neighbours. No pointers, hence no unsafe code, and an id of no node is a lookup
//! that fails rather than a stray write.
//!
//! # Invariants
//! - **L1** A node is in at most one list.
//! - **L2** `prev` of a list's first node is `None`; otherwise `a.next == b` exactly if
//!   `b.prev == a`.
//!
//! # Cost
//! Constant for both operations.

use core::num::NonZeroU32;

/// A node's number plus one, so that an optional id takes four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(NonZeroU32);

impl Id {
    /// The id of the node at `index`, if that is small enough.
    pub(crate) fn new(index: usize) -> Option<Id> {
        let number = u32::try_from(index).ok()?.checked_add(1)?;
        NonZeroU32::new(number).map(Id)
    }

    /// The number of the node.
    pub(crate) fn index(self) -> usize {
        // Not zero, so this does not wrap.
        self.0.get().wrapping_sub(1) as usize
    }
}

/// A node's neighbours.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Links {
    pub(crate) prev: Option<Id>,
    pub(crate) next: Option<Id>,
}

/// Nodes that have links.
pub(crate) trait Nodes {
    /// The links of node `id`; `None` if there is no such node.
    fn links_mut(&mut self, id: Id) -> Option<&mut Links>;
}

/// The first node of a list, or none.
pub(crate) type Head = Option<Id>;

/// Puts `id`, which is in no list, before the first node of `head`.
pub(crate) fn push_front(head: &mut Head, nodes: &mut impl Nodes, id: Id) {
    if let Some(links) = nodes.links_mut(id) {
        *links = Links { prev: None, next: *head };
    }
    if let Some(links) = head.and_then(|first| nodes.links_mut(first)) {
        links.prev = Some(id);
    }
    *head = Some(id);
}

/// Takes `id` out of the list `head`, which it is in.
pub(crate) fn remove(head: &mut Head, nodes: &mut impl Nodes, id: Id) {
    let Some(links) = nodes.links_mut(id).map(core::mem::take) else { return };
    match links.prev.and_then(|prev| nodes.links_mut(prev)) {
        Some(prev_links) => prev_links.next = links.next,
        None => *head = links.next,
    }
    if let Some(next_links) = links.next.and_then(|next| nodes.links_mut(next)) {
        next_links.prev = links.prev;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Array([Links; 8]);

    impl Nodes for Array {
        fn links_mut(&mut self, id: Id) -> Option<&mut Links> {
            self.0.get_mut(id.index())
        }
    }

    fn indices(head: Head, nodes: &mut Array) -> ([usize; 8], usize) {
        let (mut seen, mut n_seen, mut prev, mut at) = ([0; 8], 0, None, head);
        while let Some(id) = at {
            let links = *nodes.links_mut(id).unwrap();
            assert_eq!(links.prev, prev);
            seen[n_seen] = id.index();
            n_seen += 1;
            (prev, at) = (at, links.next);
        }
        (seen, n_seen)
    }

    fn expect(head: Head, nodes: &mut Array, expected: &[usize]) {
        let (seen, n_seen) = indices(head, nodes);
        assert_eq!(&seen[..n_seen], expected);
    }

    #[test]
    fn nodes_leave_from_the_front_the_middle_and_the_end() {
        let (mut head, mut nodes) = (None, Array(Default::default()));
        let id = |index| Id::new(index).unwrap();
        for index in 0..5 {
            push_front(&mut head, &mut nodes, id(index));
        }
        expect(head, &mut nodes, &[4, 3, 2, 1, 0]);
        remove(&mut head, &mut nodes, id(2));
        expect(head, &mut nodes, &[4, 3, 1, 0]);
        remove(&mut head, &mut nodes, id(4));
        remove(&mut head, &mut nodes, id(0));
        expect(head, &mut nodes, &[3, 1]);
        push_front(&mut head, &mut nodes, id(2));
        expect(head, &mut nodes, &[2, 3, 1]);
        for index in [1, 2, 3] {
            remove(&mut head, &mut nodes, id(index));
        }
        assert_eq!(head, None);
    }

    #[test]
    fn an_index_too_large_has_no_id() {
        assert_eq!(Id::new(u32::MAX as usize), None);
        assert_eq!(Id::new(u32::MAX as usize - 1).unwrap().index(), u32::MAX as usize - 1);
    }
}
