//! The part of a heap that must not move: mapped at the first allocation, zero at first.

use core::sync::atomic::AtomicU64;

use crate::arena::Scale;
use crate::arenas::{Arenas, Token};
use crate::cells::{Cell8, Cell64};
use crate::class::N_CLASSES;
use crate::directory::Directory;
use crate::fork;
use crate::invalid::Counters;
use crate::lock::SpinLock;
use crate::mappings::Mappings;
use crate::owners::Owners;
use crate::runs::Runs;

/// The records that lead to all others.
#[derive(Debug)]
pub(crate) struct Control {
    /// No other heap of the process ever has the same; never 0.
    pub(crate) id: Cell64,
    pub(crate) owners: Owners,
    pub(crate) invalid: Counters,
    /// By class, what was given back by signal handlers for which no owner was to be had.
    pub(crate) unowned: [Unowned; N_CLASSES],
    /// The heap's options, for those who have no heap at hand.
    pub(crate) config: Cell8,
    /// 1 if the page source is the system, which can be reached without the heap.
    pub(crate) is_over_system: Cell8,
    pub(crate) lock: SpinLock<Locked>,
    /// Those for pools and medium blocks.
    pub(crate) arenas: Arenas,
    /// Those for large blocks.
    pub(crate) big_arenas: Arenas,
    pub(crate) runs: Runs,
    pub(crate) fork_node: fork::Node,
    pub(crate) directory: Directory,
}

/// What was given back without an owner. Only its sum with the owners' figures means anything.
#[derive(Debug, Default)]
pub(crate) struct Unowned {
    pub(crate) n_given: AtomicU64,
    pub(crate) requested_bytes: AtomicU64,
}

/// What the lock is held for.
#[derive(Debug, Default)]
pub(crate) struct Locked {
    /// Lets its holder change the arenas and runs.
    pub(crate) token: Token,
    pub(crate) mappings: Mappings,
}

impl Control {
    pub(crate) fn arenas_of(&self, scale: Scale) -> &Arenas {
        match scale {
            Scale::Small => &self.arenas,
            Scale::Big => &self.big_arenas,
        }
    }

    /// All arenas, small and big.
    pub(crate) fn all_arenas(&self) -> [&Arenas; 2] {
        [&self.arenas, &self.big_arenas]
    }
}
