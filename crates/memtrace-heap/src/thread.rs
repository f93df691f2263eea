//! Which owner a thread holds in which heap.
//!
//! # Mechanism
//! Thread-local state has room for the owners of a few heaps, the one last used first: for that, the
//! look-up is one comparison. When a thread ends, a destructor of the C library's thread-specific data
//! lets its owners go; what the thread allocates after that is served by an owner held for that
//! operation alone, as for a thread that uses more heaps at once than there is room for.
//!
//! Without the feature `std` no owner is held longer than for an operation.
//!
//! # Invariants
//! - **H1** An entry's owner is held by this thread, if the heap with the entry's id still exists.
//! - **H2** The state is const-initialised and has no destructor of the language: it can be used from
//!   the first to the last instruction of a thread.
//!
//! # Cost
//! One load and one comparison.
#![cfg_attr(feature = "std", expect(unsafe_code, reason = "the C library's thread data, and H1"))]

use crate::owner::{Busy, Owner};

#[cfg(feature = "std")]
pub(crate) use held::{enter, forget, holds, owner_of, remember};

#[cfg(feature = "std")]
mod held {
    extern crate std;

    use core::cell::Cell;
    use core::ffi::c_void;
    use core::ptr;
    use core::sync::atomic::{AtomicUsize, Ordering, compiler_fence};
    use std::thread_local;

    use crate::config::Config;
    use crate::control::Control;
    use crate::fork;
    use crate::mapped::Source;
    use crate::shared::Shared;

    use super::{Busy, Owner};

    const N_OTHERS: usize = 3;
    /// An id of no heap; nor is it 0, which heaps have that were never used.
    const NO_HEAP: u64 = u64::MAX;

    struct Entry {
        /// [`NO_HEAP`] for none.
        heap_id: Cell<u64>,
        owner: Cell<*const Owner>,
    }

    impl Entry {
        const fn none() -> Entry {
            Entry { heap_id: Cell::new(NO_HEAP), owner: Cell::new(ptr::null()) }
        }
    }

    struct Local {
        latest: Entry,
        others: [Entry; N_OTHERS],
        phase: Cell<Phase>,
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Phase {
        /// No destructor is registered.
        New,
        Registered,
        /// A change is under way: a destructor is being registered, which may allocate, or entries
        /// are exchanged. Also how a thread ends: nothing is held any more.
        Closed,
    }

    thread_local! {
        static LOCAL: Local = const {
            Local {
                latest: Entry::none(),
                others: [const { Entry::none() }; N_OTHERS],
                phase: Cell::new(Phase::New),
            }
        };
    }

    /// The owner that this thread holds in the heap `heap_id`, which the caller borrows, if that is
    /// the heap it used last.
    #[inline]
    pub(crate) fn owner_of<'h>(heap_id: u64) -> Option<&'h Owner> {
        let owner = LOCAL.try_with(|local| {
            if local.latest.heap_id.get() != heap_id {
                return None;
            }
            // SAFETY: H1: an entry with the id of a heap that exists has an owner, not null, whose
            // records exist, too.
            Some(unsafe { &*local.latest.owner.get() })
        });
        owner.ok().flatten()
    }

    /// Begins an operation with the owner that [`owner_of`] finds, unless this interrupts one.
    #[inline(always)]
    pub(crate) fn enter<'h>(heap_id: u64) -> Option<Busy<'h>> {
        let busy = LOCAL.try_with(|local| {
            if local.latest.heap_id.get() != heap_id {
                return None;
            }
            // SAFETY: as in `owner_of`. Written twice, because only with the look at the owner in here is
            // it not compared with null.
            unsafe { &*local.latest.owner.get() }.enter()
        });
        busy.ok().flatten()
    }

    /// Whether this thread holds `owner`, in whatever heap.
    pub(crate) fn holds(owner: &Owner) -> bool {
        let holds =
            |entry: &Entry| entry.heap_id.get() != NO_HEAP && ptr::eq(entry.owner.get(), owner);
        LOCAL.try_with(|local| holds(&local.latest) || local.others.iter().any(holds)) == Ok(true)
    }

    /// Finds the owner held in `heap_id`, or has one made by `hold`, and makes it the latest. `None`
    /// if none is held: `hold` had none, or there is no room, or the thread is ending.
    pub(crate) fn remember<'h>(
        heap_id: u64,
        hold: impl FnOnce() -> Option<&'h Owner>,
    ) -> Option<&'h Owner> {
        LOCAL.try_with(|local| local.remember(heap_id, hold)).ok().flatten()
    }

    /// Forgets the owner held in the heap `heap_id`, which ends.
    pub(crate) fn forget(heap_id: u64) {
        let _ = LOCAL.try_with(|local| {
            for entry in core::iter::once(&local.latest).chain(&local.others) {
                if entry.heap_id.get() == heap_id {
                    entry.heap_id.set(NO_HEAP);
                }
            }
        });
    }

    impl Local {
        fn remember<'h>(
            &self,
            heap_id: u64,
            hold: impl FnOnce() -> Option<&'h Owner>,
        ) -> Option<&'h Owner> {
            if self.latest.heap_id.get() == heap_id {
                return owner_of(heap_id);
            }
            let phase = self.phase.replace(Phase::Closed);
            if phase == Phase::Closed || (phase == Phase::New && !register()) {
                return None;
            }
            let place = self.others.iter().find(|entry| entry.heap_id.get() == heap_id);
            let held = match place {
                Some(place) => {
                    let owner = place.owner.get();
                    place.heap_id.set(NO_HEAP);
                    // SAFETY: H1: the caller borrows the heap.
                    unsafe { owner.as_ref() }
                }
                None => self.has_room().then(hold).flatten(),
            };
            if let Some(owner) = held {
                self.put_first(heap_id, owner);
            }
            self.phase.set(Phase::Registered);
            held
        }

        fn vacant(&self) -> Option<&Entry> {
            self.others.iter().find(|entry| {
                let id = entry.heap_id.get();
                id == NO_HEAP || !fork::is_registered(id)
            })
        }

        fn has_room(&self) -> bool {
            self.latest.heap_id.get() == NO_HEAP || self.vacant().is_some()
        }

        /// Makes `owner` the latest. A signal handler that comes in between finds no latest.
        fn put_first(&self, heap_id: u64, owner: &Owner) {
            let before = self.latest.heap_id.replace(NO_HEAP);
            compiler_fence(Ordering::SeqCst);
            if before != NO_HEAP
                && let Some(place) = self.vacant()
            {
                place.owner.set(self.latest.owner.get());
                place.heap_id.set(before);
            }
            self.latest.owner.set(owner);
            compiler_fence(Ordering::SeqCst);
            self.latest.heap_id.set(heap_id);
        }
    }

    /// Sees to it that [`end`] will run for this thread; `false` if it will not.
    fn register() -> bool {
        key().is_some_and(|key| {
            // SAFETY: the key exists, and its destructor ignores the value.
            unsafe { libc::pthread_setspecific(key, ptr::dangling::<u8>().cast()) == 0 }
        })
    }

    /// The key whose destructor lets owners go; `None` if the system has no more keys.
    fn key() -> Option<libc::pthread_key_t> {
        /// The key plus 1, or 0.
        static KEY: AtomicUsize = AtomicUsize::new(0);
        // Of 4 bytes on one system, of 8 on another.
        let key_of = |number: usize| Some(number.checked_sub(1)? as libc::pthread_key_t);
        // Relaxed: the number is all there is.
        if let Some(key) = key_of(KEY.load(Ordering::Relaxed)) {
            return Some(key);
        }
        let mut key = 0;
        // SAFETY: `key` is writable, and the destructor is a function of this library.
        if unsafe { libc::pthread_key_create(&mut key, Some(end)) } != 0 {
            return None;
        }
        let number = (key as usize).checked_add(1)?;
        match KEY.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Some(key),
            Err(faster) => {
                // SAFETY: created above and known to nobody.
                unsafe { libc::pthread_key_delete(key) };
                key_of(faster)
            }
        }
    }

    /// Lets the owner of an ending thread go.
    fn retire(control: &Control, owner: &Owner) {
        if control.is_over_system.get() == 0 {
            // As it is: units of its empty pools could not be given back without the page source.
            return control.owners.let_go(owner);
        }
        let config = Config::from_byte(control.config.get());
        Shared { control, source: Source::system(), config }.retire(owner);
    }

    unsafe extern "C" fn end(_: *mut c_void) {
        let _ = LOCAL.try_with(|local| {
            // First, so that what the rest allocates is not held.
            local.phase.set(Phase::Closed);
            for entry in core::iter::once(&local.latest).chain(&local.others) {
                let id = entry.heap_id.replace(NO_HEAP);
                if id == NO_HEAP {
                    continue;
                }
                fork::with_registered(id, |control| {
                    // SAFETY: H1: the heap exists, and cannot end before this returns.
                    if let Some(owner) = unsafe { entry.owner.get().as_ref() } {
                        retire(control, owner);
                    }
                });
            }
        });
    }
}

#[cfg(not(feature = "std"))]
mod not_held {
    use super::{Busy, Owner};

    pub(crate) fn owner_of<'h>(_: u64) -> Option<&'h Owner> {
        None
    }

    pub(crate) fn enter<'h>(_: u64) -> Option<Busy<'h>> {
        None
    }

    pub(crate) fn holds(_: &Owner) -> bool {
        false
    }

    pub(crate) fn remember<'h>(_: u64, _: impl FnOnce() -> Option<&'h Owner>) -> Option<&'h Owner> {
        None
    }

    pub(crate) fn forget(_: u64) {}
}

#[cfg(not(feature = "std"))]
pub(crate) use not_held::{enter, forget, holds, owner_of, remember};
