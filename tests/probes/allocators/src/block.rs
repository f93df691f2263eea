//! A block of the global allocator, by layout, whose contents can be checked.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;

/// An owned block, full of a pattern that begins with its first size, or of zeros.
pub struct Block {
    start: NonNull<u8>,
    layout: Layout,
    /// The byte at index 0; each further one is one more, but for a zeroed block.
    first: u8,
    step: u8,
}

// SAFETY: the block is owned, like a box.
unsafe impl Send for Block {}

/// Sizes and alignments of one round: tiny ones, odd ones, over-aligned ones.
pub fn layouts(thread: u64, round: u64) -> impl Iterator<Item = (usize, usize)> {
    // No other block of the process is likely to have this size.
    let odd = 10_007 + (thread * 100 + round) as usize * 2;
    let tiny = (1..=8).map(|size| (size, 1));
    let aligned = (5..=12).map(move |shift| (odd + (shift << 12), 1 << shift));
    let plain = [(8, 8), (24, 8), (odd, 1), (odd * 17, 16)];
    tiny.chain(plain).chain(aligned)
}

impl Block {
    /// Allocates and fills a block.
    pub fn new(size: usize, align: usize) -> Self {
        let layout = Layout::from_size_align(size, align).expect("a layout");
        // SAFETY: no layout here is empty.
        let start = unsafe { alloc(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        let mut block = Self { start, layout, first: size as u8, step: 1 };
        block.fill_from(0);
        block
    }

    /// Allocates a block of zeros.
    pub fn zeroed(size: usize, align: usize) -> Self {
        let layout = Layout::from_size_align(size, align).expect("a layout");
        // SAFETY: no layout here is empty.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        let block = Self { start, layout, first: 0, step: 0 };
        block.check();
        block
    }

    /// Resizes the block, checks that the contents came along, and fills what is new.
    pub fn resized(mut self, size: usize) -> Self {
        let old_size = self.size();
        let layout = Layout::from_size_align(size, self.layout.align()).expect("a layout");
        // SAFETY: the block is live with this layout; the new size is neither zero nor too large.
        let start = unsafe { realloc(self.start.as_ptr(), self.layout, size) };
        self.start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        self.layout = layout;
        self.check_up_to(old_size.min(size));
        self.fill_from(old_size.min(size));
        self.check();
        self
    }

    /// As requested, in bytes.
    pub fn size(&self) -> usize {
        self.layout.size()
    }

    /// **Panics** if the block does not lie as asked for, or its contents have changed.
    pub fn check(&self) {
        self.check_up_to(self.size());
    }

    fn check_up_to(&self, n_bytes: usize) {
        assert!(self.start.as_ptr().addr().is_multiple_of(self.layout.align()), "aligned");
        // SAFETY: the block is live, owned, and initialised by the constructors.
        let bytes = unsafe { std::slice::from_raw_parts(self.start.as_ptr(), n_bytes) };
        let is_intact = bytes.iter().enumerate().all(|(index, &byte)| byte == self.byte(index));
        assert!(is_intact, "contents of a block of {} bytes", self.size());
    }

    fn fill_from(&mut self, n_bytes: usize) {
        for index in n_bytes..self.size() {
            let byte = self.byte(index);
            // SAFETY: inside the block, which is owned.
            let place = unsafe { self.start.as_ptr().add(index) };
            // SAFETY: as above.
            unsafe { place.write(byte) };
        }
    }

    fn byte(&self, index: usize) -> u8 {
        self.first.wrapping_add((index as u8).wrapping_mul(self.step))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the block is live with this layout, and nobody has it any more.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
