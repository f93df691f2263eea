//! Blocks that stay until the end.

use std::any::Any;

/// A block that a case allocated, and its owner.
pub struct Kept {
    /// As requested, in bytes; no two cases have the same.
    pub size: u64,
    /// Where it starts, if its owner tells.
    pub start: Option<*const u8>,
    _owner: Box<dyn Any>,
}

impl Kept {
    /// The block of a vector.
    pub fn vec<T: 'static>(owner: Vec<T>) -> Self {
        let size = (owner.capacity() * size_of::<T>()) as u64;
        Self { size, start: Some(owner.as_ptr().cast()), _owner: Box::new(owner) }
    }

    /// A block whose owner tells neither where it is nor how large.
    pub fn other(size: u64, owner: impl Any) -> Self {
        Self { size, start: None, _owner: Box::new(owner) }
    }
}
