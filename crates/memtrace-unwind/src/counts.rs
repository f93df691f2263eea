//! How captures were answered.

/// How the captures of a thread were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// By a record, or of one frame by its return address.
    pub n_hits: u64,
    /// By a walk that met the trail of the last one.
    pub n_joined: u64,
    /// By a walk of the whole stack, with a trail left.
    pub n_walked: u64,
    /// By a walk of the whole stack, of which nothing is kept.
    pub n_plain: u64,
}
