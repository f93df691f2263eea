//! Owned mappings: raw regions for blocks, and typed arrays for the heap's own metadata.
//!
//! # Mechanism
//! A [`Region`] is address and size of one mapping; it is never dereferenced here. An [`Array`]
//! is a region that holds elements, all initialised. Neither has a destructor, because releasing
//! needs the page source; forgetting one leaks address space and nothing worse. A [`Source`] is the
//! heap's page source with the promise that it is that one, made once, where the heap is entered;
//! so all code between here and there is safe.
//!
//! # Invariants
//! - **M1** A region that is not vacant is exactly one mapping of the heap's page source, owned by
//!   this value alone: values are moved, never copied.
//! - **M2** An array's region holds `len` initialised elements at its start, aligned.
//! - **M3** Element types need no drop.
//! - **M4** All [`Source`] values that meet a given region refer to the same page source.
//!
//! # Cost
//! One `map` an array; growing moves every element.
#![expect(unsafe_code, reason = "makes references into mapped memory")]

use core::marker::PhantomData;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};
use core::slice;

use crate::arena::Arena;
use crate::cells::{CellPtr, CellSize};
use crate::control::Control;
use crate::directory::Leaf;
use crate::owner::Owner;
#[cfg(feature = "std")]
use crate::pages::SystemPages;
use crate::pages::{PAGE_SIZE, PageSource};

/// The page source of a heap.
#[derive(Debug)]
pub(crate) struct Source<'a, P>(&'a P);

impl<P> Clone for Source<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Source<'_, P> {}

impl<'a, P: PageSource> Source<'a, P> {
    /// Vouches for `pages`.
    ///
    /// # Safety
    /// Regions and arrays that meet the result were mapped by `pages`, and meet no other source
    /// (M4).
    pub(crate) unsafe fn new(pages: &'a P) -> Source<'a, P> {
        Source(pages)
    }

    /// See [`PageSource::millis`].
    pub(crate) fn millis(self) -> u64 {
        self.0.millis()
    }

    /// Gives the contents of `size` bytes at `ptr` back; `false` if the source cannot.
    ///
    /// # Safety
    /// As for [`PageSource::discard`].
    pub(crate) unsafe fn discard(self, ptr: *mut u8, size: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.0.discard(ptr, size) }
    }

    /// The same for memory of records.
    ///
    /// # Safety
    /// As for [`PageSource::discard_records`].
    pub(crate) unsafe fn discard_records(self, ptr: *mut u8, size: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.0.discard_records(ptr, size) }
    }
}

#[cfg(feature = "std")]
impl Source<'static, SystemPages> {
    /// The system, all values of which are one source.
    pub(crate) fn system() -> Source<'static, SystemPages> {
        Source(&SystemPages)
    }
}

/// One mapping, or none.
#[derive(Debug, Default)]
pub(crate) struct Region {
    base: Option<NonNull<u8>>,
    size: usize,
}

// SAFETY: M1, the mapping has one owner, and addresses mean the same in every thread.
unsafe impl Send for Region {}

impl Region {
    /// Maps `size` bytes, rounded up to whole pages, aligned to `align`.
    pub(crate) fn map(
        source: Source<'_, impl PageSource>,
        size: usize,
        align: usize,
    ) -> Option<Region> {
        let size = size.checked_next_multiple_of(PAGE_SIZE)?;
        NonNull::new(source.0.map(size, align)).map(|base| Region { base: Some(base), size })
    }

    /// Maps `size` bytes for records, rounded up to whole pages.
    pub(crate) fn map_records(source: Source<'_, impl PageSource>, size: usize) -> Option<Region> {
        let size = size.checked_next_multiple_of(PAGE_SIZE)?;
        NonNull::new(source.0.map_records(size)).map(|base| Region { base: Some(base), size })
    }

    /// Gives a mapping back of which nothing was ever handed out.
    pub(crate) fn abandon(self, source: Source<'_, impl PageSource>) {
        // SAFETY: nobody knows its address.
        unsafe { self.unmap(source) }
    }

    /// As [`abandon`](Self::abandon), for a region of [`map_records`](Self::map_records).
    pub(crate) fn abandon_records(self, source: Source<'_, impl PageSource>) {
        // SAFETY: nobody knows its address.
        unsafe { self.unmap_records(source) }
    }

    /// The first byte; null for a vacant region.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    /// The mapped size, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// See [`PageSource::prefer_huge`].
    pub(crate) fn prefer_huge(&self, source: Source<'_, impl PageSource>) {
        if let Some(base) = self.base {
            // SAFETY: M1 and M4.
            unsafe { source.0.prefer_huge(base.as_ptr(), self.size) }
        }
    }

    /// Resizes to `size` bytes, rounded up to whole pages, and moves if it must; `false`, with
    /// nothing changed, if the source cannot.
    ///
    /// # Safety
    /// Nothing will use the old address unless it is still the base.
    pub(crate) unsafe fn remap(
        &mut self,
        source: Source<'_, impl PageSource>,
        size: usize,
    ) -> bool {
        let Some(size) = size.checked_next_multiple_of(PAGE_SIZE) else { return false };
        // SAFETY: M1 and M4, this is one whole live mapping of the source; the rest is promised.
        let moved = unsafe { source.0.remap(self.base(), self.size, size) };
        match NonNull::new(moved) {
            Some(base) => {
                *self = Region { base: Some(base), size };
                true
            }
            None => false,
        }
    }

    /// Gives the memory back; a vacant region is left alone.
    ///
    /// # Safety
    /// Nothing will use the memory any more.
    pub(crate) unsafe fn unmap(self, source: Source<'_, impl PageSource>) {
        if let Some(base) = self.base {
            // SAFETY: M1 and M4, this is one whole live mapping of the source; the rest is promised.
            unsafe { source.0.unmap(base.as_ptr(), self.size) }
        }
    }

    /// Gives the memory of records back; a vacant region is left alone.
    ///
    /// # Safety
    /// As for [`unmap`](Self::unmap), for a region of [`map_records`](Self::map_records).
    pub(crate) unsafe fn unmap_records(self, source: Source<'_, impl PageSource>) {
        if let Some(base) = self.base {
            // SAFETY: M1 and M4, this is one whole live mapping of the source; the rest is promised.
            unsafe { source.0.unmap_records(base.as_ptr(), self.size) }
        }
    }
}

/// A region that can be put into a record and taken out again.
#[derive(Debug, Default)]
pub(crate) struct RegionCell {
    base: CellPtr,
    size: CellSize,
}

impl RegionCell {
    /// The first byte; null while there is none.
    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.get()
    }

    /// The mapped size, in bytes.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.size.get()
    }

    /// Puts `region` where none is.
    pub(crate) fn put(&self, region: Region) {
        self.size.set(region.size);
        self.base.set(region.base());
    }

    /// Takes out what was put in.
    pub(crate) fn take(&self) -> Region {
        let region = Region { base: NonNull::new(self.base.get()), size: self.size.get() };
        self.base.set(ptr::null_mut());
        self.size.set(0);
        region
    }
}

/// Types that can stand in a mapping of their own, shared by all threads, until the heap ends.
///
/// # Safety
/// All zero bytes are a valid value, and all that is changed through a shared reference is atomic or
/// behind a lock.
pub(crate) unsafe trait Record {}

// SAFETY: cells, links and atomics only.
unsafe impl Record for Arena {}
// SAFETY: links only.
unsafe impl Record for Leaf {}
// SAFETY: cells, links and atomics only.
unsafe impl Record for Owner {}
// SAFETY: cells, links and atomics; a lock that is not taken, over numbers, options of references and
// regions that are none; a node without neighbours.
unsafe impl Record for Control {}

/// Maps a record of all zero bytes, which stays until the heap ends (R1 and R2 of the cells).
pub(crate) fn map_record<'h, T: Record>(source: Source<'_, impl PageSource>) -> Option<&'h T> {
    const { assert!(!mem::needs_drop::<T>() && align_of::<T>() <= PAGE_SIZE) };
    let region = Region::map_records(source, size_of::<T>())?;
    // SAFETY: mapped with this size, aligned to a page, zero, which is valid; only shared references
    // to it are ever made.
    unsafe { region.base().cast::<T>().as_ref() }
}

/// Gives the memory of a record back.
///
/// # Safety
/// The record came from [`map_record`] with this source, and nobody uses it any more.
pub(crate) unsafe fn unmap_record<T: Record>(source: Source<'_, impl PageSource>, record: &T) {
    let base = NonNull::new(ptr::from_ref(record).cast_mut().cast());
    // SAFETY: the caller's promise; a record is a whole mapping of this size.
    unsafe { Region { base, size: record_bytes::<T>() }.unmap_records(source) }
}

/// Gives the contents of all pages of a record but the first back; they are zero then.
///
/// # Safety
/// The record came from [`map_record`] with this source, and nobody relies on what those pages hold.
pub(crate) unsafe fn discard_tail<T: Record>(source: Source<'_, impl PageSource>, record: &T) {
    let Some(size) = record_bytes::<T>().checked_sub(PAGE_SIZE) else { return };
    let tail = ptr::from_ref(record).cast_mut().cast::<u8>().wrapping_add(PAGE_SIZE);
    if size != 0 {
        // SAFETY: whole pages of one mapping for records; the rest is promised.
        unsafe { source.0.discard_records(tail, size) };
    }
}

/// What [`map_record`] maps for a record, in bytes.
pub(crate) const fn record_bytes<T>() -> usize {
    size_of::<T>().next_multiple_of(PAGE_SIZE)
}

/// A fixed number of elements in a mapping for records of their own.
#[derive(Debug)]
pub(crate) struct Array<T> {
    region: Region,
    len: usize,
    elements: PhantomData<T>,
}

impl<T> Default for Array<T> {
    /// The array of no elements, which has no mapping.
    fn default() -> Array<T> {
        Array { region: Region::default(), len: 0, elements: PhantomData }
    }
}

impl<T: Default> Array<T> {
    /// Maps `len` elements, each with its default value; `None` if the pages are not to be had.
    pub(crate) fn new(source: Source<'_, impl PageSource>, len: usize) -> Option<Array<T>> {
        const { assert!(!mem::needs_drop::<T>() && align_of::<T>() <= PAGE_SIZE) };
        let region = Region::map_records(source, len.checked_mul(size_of::<T>())?)?;
        let first = region.base().cast::<T>();
        for index in 0..len {
            let element = first.wrapping_add(index);
            // SAFETY: inside the `len * size_of::<T>()` bytes just mapped, aligned to a page and
            // so to T, and owned by nobody else.
            unsafe { element.write(T::default()) };
        }
        Some(Array { region, len, elements: PhantomData })
    }

    /// Grows to `len` elements, moving those that exist; `false`, with nothing changed, if the
    /// pages are not to be had.
    pub(crate) fn grow(&mut self, source: Source<'_, impl PageSource>, len: usize) -> bool {
        let Some(mut larger) = Array::new(source, len) else { return false };
        for (new, old) in larger.iter_mut().zip(self.iter_mut()) {
            mem::swap(new, old);
        }
        let old = mem::replace(self, larger);
        old.unmap(source);
        true
    }
}

impl<T> Array<T> {
    /// The mapped size, in bytes.
    pub(crate) fn n_bytes(&self) -> usize {
        self.region.size()
    }

    /// Gives the memory back.
    pub(crate) fn unmap(self, source: Source<'_, impl PageSource>) {
        // SAFETY: every reference to an element borrowed this array, which is consumed here.
        unsafe { self.region.unmap_records(source) }
    }

    fn first(&self) -> *mut T {
        self.region.base.map_or(NonNull::dangling(), NonNull::cast).as_ptr()
    }
}

impl<T> Deref for Array<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: M2, or no elements at a dangling aligned address; M1 makes the borrow of self
        // the borrow of the elements.
        unsafe { slice::from_raw_parts(self.first(), self.len) }
    }
}

impl<T> DerefMut for Array<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.first(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::SystemPages;

    #[test]
    fn an_array_keeps_its_elements_when_it_grows() {
        // SAFETY: the only source in this test.
        let source = unsafe { Source::new(&SystemPages) };
        let mut array = Array::<u64>::default();
        assert!(array.is_empty());
        assert!(array.grow(source, 3));
        array.copy_from_slice(&[1, 2, 3]);
        assert!(array.grow(source, 1000));
        assert_eq!(array[..4], [1, 2, 3, 0]);
        assert_eq!(array.n_bytes(), 2 * PAGE_SIZE);
        array.unmap(source);
    }

    #[test]
    fn an_array_that_cannot_be_mapped_leaves_the_old_one_alone() {
        // SAFETY: the only source in this test.
        let source = unsafe { Source::new(&SystemPages) };
        let mut array = Array::<u64>::new(source, 1).unwrap();
        array[0] = 9;
        assert!(!array.grow(source, usize::MAX / 16));
        assert!(!array.grow(source, usize::MAX));
        assert_eq!(array[..], [9]);
        array.unmap(source);
    }
}
