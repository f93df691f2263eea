//! A block of the global allocator that knows what it should contain.
//!
//! Its first word says its size and a tag, its last byte repeats a part of the tag; between them is,
//! if it was written in whole, a byte that follows from the tag.
//!
//! **I1** A block's address came from the global allocator, with the layout that its first word says,
//! and was not given back; whoever has the [`Block`] is the only one to know of it.
#![expect(unsafe_code, reason = "allocates by hand")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::hint::black_box;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};

/// How much of a block is written and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// The first word and the last byte.
    Ends,
    /// All of it.
    Whole,
}

/// A block; it must be [freed](Self::free).
#[must_use]
#[repr(transparent)]
pub(crate) struct Block(NonNull<u8>);

// SAFETY: by I1 nobody else knows of the block; the global allocator serves all threads.
unsafe impl Send for Block {}

impl Block {
    pub(crate) const MIN_SIZE: usize = 16;

    /// Allocates it.
    #[inline]
    pub(crate) fn new(size: usize, tag: u32, contents: Contents) -> Self {
        assert!(size >= Self::MIN_SIZE && size <= u32::MAX as usize);
        let layout = layout(size);
        // SAFETY: the size is not 0. The black box keeps the compiler from removing the pair.
        let addr = black_box(unsafe { alloc(layout) });
        let Some(block) = NonNull::new(addr) else { handle_alloc_error(layout) };
        if contents == Contents::Whole {
            // SAFETY: the block has so many bytes.
            unsafe { addr.write_bytes(filler(tag), size) };
        }
        // SAFETY: the block is aligned to a word and longer than one.
        unsafe { addr.cast::<u64>().write(u64::from(tag) << 32 | size as u64) };
        // SAFETY: the block has a last byte.
        let last = unsafe { addr.add(size - 1) };
        // SAFETY: as above; it is behind the first word.
        unsafe { last.write(tag as u8) };
        Self(block)
    }

    /// Compares and frees it, and returns its tag.
    ///
    /// **Panics**: if the contents are not what was written.
    #[inline]
    pub(crate) fn free(self, contents: Contents) -> u64 {
        let addr = self.0.as_ptr();
        // SAFETY: by I1 the block is there, with its first word.
        let word = unsafe { addr.cast::<u64>().read() };
        let (size, tag) = (word as u32 as usize, (word >> 32) as u32);
        assert!(size >= Self::MIN_SIZE, "a block lost its first word");
        // SAFETY: by I1 the block is of this size.
        let last = unsafe { addr.add(size - 1) };
        // SAFETY: as above.
        let last = unsafe { last.read() };
        assert_eq!(last, tag as u8, "a block of {size} bytes lost its last byte");
        if contents == Contents::Whole {
            // SAFETY: the block has so many bytes, all of which were written.
            let bytes = unsafe { slice::from_raw_parts(addr, size) };
            let is_filled = bytes[8..size - 1].iter().all(|&byte| byte == filler(tag));
            assert!(is_filled, "a block of {size} bytes lost its contents");
        }
        // SAFETY: by I1 it was allocated with this layout.
        unsafe { dealloc(addr, layout(size)) };
        u64::from(tag)
    }
}

/// A place for a block that threads share.
///
/// | variable | writer | reader | published |
/// |---|---|---|---|
/// | address | `put` (release) | `take` (acquire) | the block's contents |
/// | null | `take` (release) | `put` (acquire) | nothing but the place |
pub(crate) struct Place(AtomicPtr<u8>);

impl Place {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Writes to its memory that nothing is there; a block that is there is lost.
    pub(crate) fn touch(&self) {
        // Relaxed: publishes nothing but the place.
        self.0.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// Puts a block there, or returns it if there is one.
    #[inline]
    pub(crate) fn put(&self, block: Block) -> Result<(), Block> {
        let empty = ptr::null_mut();
        // A look first, so that whoever waits does not write to the line.
        if !self.0.load(Ordering::Relaxed).is_null() {
            return Err(block);
        }
        let addr = block.0.as_ptr();
        match self.0.compare_exchange(empty, addr, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(_) => Err(block),
        }
    }

    /// Takes the block that is there.
    #[inline]
    pub(crate) fn take(&self) -> Option<Block> {
        if self.0.load(Ordering::Relaxed).is_null() {
            return None;
        }
        NonNull::new(self.0.swap(ptr::null_mut(), Ordering::AcqRel)).map(Block)
    }
}

#[inline]
fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("sizes are small")
}

fn filler(tag: u32) -> u8 {
    (tag >> 8) as u8 ^ 0xA5
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn a_block_has_its_tag_when_it_is_freed() {
        for size in [16, 17, 1000] {
            let block = Block::new(size, 0xABCD_EF01, Contents::Whole);
            assert_eq!(block.free(Contents::Whole), 0xABCD_EF01);
        }
    }

    #[test]
    fn a_byte_that_changed_is_seen() {
        for (at, contents) in [(15, Contents::Ends), (8, Contents::Whole), (99, Contents::Whole)] {
            let size = if contents == Contents::Ends { 16 } else { 100 };
            let block = Block::new(size, 7, contents);
            // SAFETY: the block is longer.
            let byte = unsafe { block.0.as_ptr().add(at) };
            // SAFETY: the byte was written.
            unsafe { *byte ^= 1 };
            assert!(catch_unwind(|| block.free(contents)).is_err(), "{at}");
        }
    }

    #[test]
    fn a_place_holds_one_block() {
        let place = Place::new();
        assert!(place.take().is_none());
        assert!(place.put(Block::new(16, 1, Contents::Ends)).is_ok());
        let back = place.put(Block::new(16, 2, Contents::Ends)).err().unwrap();
        assert_eq!(back.free(Contents::Ends), 2);
        assert_eq!(place.take().unwrap().free(Contents::Ends), 1);
        assert!(place.take().is_none());
    }
}
