//! Fields of records that several threads look at: figures and links.
//!
//! # Mechanism
//! Records (pools, arenas, owners) are reached by shared references from many threads. Most of their
//! fields have one writer at a time, the owner or the holder of the heap's lock, and any number of
//! readers; such a field is a plain load and a plain store, which the atomic types spell out. What
//! more than one thread changes at once is a plain atomic of `core`, with its ordering at the place.
//!
//! # Invariants
//! - **R1** A record lies in a mapping for records that is given back only when the heap ends, so a
//!   link that was ever right leads to a record for as long as the heap is borrowed.
//! - **R2** A record's initial state is all zero bytes, as it is mapped (module `mapped`).
//!
//! # Atomics
//! All accesses here are `Relaxed`: they publish nothing. A record is published by the link or the
//! lock through which it is first reached, which name their partners.
#![expect(unsafe_code, reason = "follows links between records")]

use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

macro_rules! cell {
    ($name:ident, $atomic:ident, $value:ident) => {
        /// A figure with one writer at a time that any thread may read.
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub(crate) struct $name($atomic);

        impl $name {
            #[inline]
            pub(crate) fn get(&self) -> $value {
                self.0.load(Ordering::Relaxed)
            }

            #[inline]
            pub(crate) fn set(&self, value: $value) {
                self.0.store(value, Ordering::Relaxed);
            }

            /// Adds, wrapping; not in one step, for there is no other writer.
            #[allow(dead_code, reason = "not every width counts")]
            #[inline]
            pub(crate) fn add(&self, value: $value) {
                self.set(self.get().wrapping_add(value));
            }

            /// Subtracts, wrapping; not in one step.
            #[allow(dead_code, reason = "not every width counts")]
            #[inline]
            pub(crate) fn sub(&self, value: $value) {
                self.set(self.get().wrapping_sub(value));
            }
        }
    };
}

cell!(Cell8, AtomicU8, u8);
cell!(Cell16, AtomicU16, u16);
cell!(Cell32, AtomicU32, u32);
cell!(Cell64, AtomicU64, u64);
cell!(CellSize, AtomicUsize, usize);

/// An address of block memory, which is never followed here.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct CellPtr(AtomicPtr<u8>);

impl CellPtr {
    #[inline]
    pub(crate) fn get(&self) -> *mut u8 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set(&self, ptr: *mut u8) {
        self.0.store(ptr, Ordering::Relaxed);
    }
}

/// A link to another record of the same heap, or to none.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Link<T>(AtomicPtr<T>);

impl<T> Default for Link<T> {
    fn default() -> Link<T> {
        Link::none()
    }
}

impl<T> Link<T> {
    /// A link to none.
    pub(crate) const fn none() -> Link<T> {
        Link(AtomicPtr::new(ptr::null_mut()))
    }

    /// The record, as far as this thread knows it already.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        follow(self.0.load(Ordering::Relaxed))
    }

    /// The record, with what was stored into it before it was published by one of the methods below.
    #[inline]
    pub(crate) fn get_published(&self) -> Option<&T> {
        // Acquire pairs with the Release of `publish`, `replace` and `push`.
        follow(self.0.load(Ordering::Acquire))
    }

    /// Whether it leads to `record`.
    #[inline]
    pub(crate) fn is(&self, record: &T) -> bool {
        ptr::eq(self.0.load(Ordering::Relaxed), record)
    }

    pub(crate) fn set(&self, record: Option<&T>) {
        self.0.store(address(record), Ordering::Relaxed);
    }

    /// As [`set`](Self::set), for readers that have no other way to know the record.
    pub(crate) fn publish(&self, record: Option<&T>) {
        // Release pairs with the Acquire of `get_published`.
        self.0.store(address(record), Ordering::Release);
    }

    /// Publishes `record` if there is none yet; else returns the one there is.
    pub(crate) fn publish_first<'a>(&'a self, record: &'a T) -> Result<(), Option<&'a T>> {
        let (none, new) = (ptr::null_mut(), address(Some(record)));
        // Release as in `publish`, Acquire as in `get_published`.
        match self.0.compare_exchange(none, new, Ordering::Release, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(existing) => Err(follow(existing)),
        }
    }

    /// Makes this link the head of a list: `record`, whose own link to the rest is `next`.
    ///
    /// Sequentially consistent, for pushers that look at a flag afterwards.
    pub(crate) fn push(&self, record: &T, next: &Link<T>) {
        let mut head = self.0.load(Ordering::Relaxed);
        loop {
            next.0.store(head, Ordering::Relaxed);
            let new = address(Some(record));
            // Publishes `next` and whatever was done to the record before, to `take_all`.
            match self.0.compare_exchange_weak(head, new, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes the whole list that [`push`](Self::push) made; returns its first record.
    pub(crate) fn take_all(&self) -> Option<&T> {
        // Acquire (and more) pairs with `push`.
        follow(self.0.swap(ptr::null_mut(), Ordering::SeqCst))
    }

    /// Whether the list is empty, in the one order in which pushers and flags agree.
    pub(crate) fn is_none_in_order(&self) -> bool {
        self.0.load(Ordering::SeqCst).is_null()
    }
}

#[inline]
fn follow<'a, T>(record: *mut T) -> Option<&'a T> {
    // SAFETY: R1; records are shared, and all their fields are atomic or behind a lock.
    unsafe { record.as_ref() }
}

fn address<T>(record: Option<&T>) -> *mut T {
    record.map_or(ptr::null_mut(), |record| ptr::from_ref(record).cast_mut())
}
