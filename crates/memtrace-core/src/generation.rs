//! Which snapshot of a run this one is.

/// The place of a snapshot in the life of a program: how many generations of blocks there were.
///
/// A recorder that numbers generations begins a new one with each snapshot. A block is *born* in
/// the generation in which it was allocated, so a block whose birth is above a snapshot's
/// generation was allocated after that snapshot began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Generation {
    /// Tells runs of a recorder apart. Generations of different runs cannot be compared.
    pub run: u64,
    /// The generation that ended with the snapshot, from 1.
    pub number: u32,
}
