//! The table that gives numbers to stacks, and keeps them whole to be compared.

use crate::comparison;
use memtrace_unwind::{End, Sites, StackHash};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The longest stack that is asked for, with room for frames that are left out.
const BUFFER_LEN: usize = 256;

/// One for all threads; numbers are good for the life of the process.
pub(crate) struct Table {
    stacks: Mutex<Option<Stacks>>,
}

#[derive(Default)]
struct Stacks {
    by_hash: HashMap<StackHash, NonZeroU32>,
    /// Where the frames of a site lie in `frames`, and how the stack ended.
    places: Vec<(usize, usize, End)>,
    frames: Vec<u64>,
}

impl Table {
    pub(crate) const fn new() -> Self {
        Self { stacks: Mutex::new(None) }
    }

    /// Copies the frames of a site into `frames` and returns their number and how the stack ended;
    /// `None` if there is no such site.
    pub(crate) fn copy(&self, site: NonZeroU32, frames: &mut [u64]) -> Option<(usize, End)> {
        let stacks = self.lock();
        let stacks = stacks.as_ref()?;
        let &(start, len, end) = stacks.places.get(site.get() as usize - 1)?;
        frames[..len].copy_from_slice(&stacks.frames[start..start + len]);
        Some((len, end))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Stacks>> {
        self.stacks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sites for Table {
    fn find(&self, hash: StackHash) -> Option<NonZeroU32> {
        self.lock().as_ref()?.by_hash.get(&hash).copied()
    }

    /// Ends the program if the hash is not that of the stack, or belongs to another stack.
    fn insert(&self, hash: StackHash, call_addrs: &[u64], end: End) -> Option<NonZeroU32> {
        assert_eq!(hash, StackHash::of(call_addrs, end), "{end:?}: {call_addrs:x?}");
        let mut stacks = self.lock();
        let stacks = stacks.get_or_insert_default();
        if let Some(&site) = stacks.by_hash.get(&hash) {
            // Another thread was first.
            let (start, len, its_end) = stacks.places[site.get() as usize - 1];
            let its_frames = &stacks.frames[start..start + len];
            assert_eq!((its_frames, its_end), (call_addrs, end), "two stacks share {hash:?}");
            return Some(site);
        }
        stacks.places.push((stacks.frames.len(), call_addrs.len(), end));
        stacks.frames.extend(call_addrs);
        let site = NonZeroU32::new(u32::try_from(stacks.places.len()).ok()?)?;
        stacks.by_hash.insert(hash, site);
        Some(site)
    }

    fn with_buffer<R>(&self, len: usize, f: impl FnOnce(&mut [u64]) -> R) -> Option<R> {
        (len <= BUFFER_LEN).then(|| f(&mut [0; BUFFER_LEN]))
    }

    fn is_own(&self, call_addr: u64) -> bool {
        comparison::is_own(call_addr)
    }
}

/// The same table for captures of which no frame is left out.
pub(crate) struct WithOwn<'a>(pub(crate) &'a Table);

impl Sites for WithOwn<'_> {
    fn find(&self, hash: StackHash) -> Option<NonZeroU32> {
        self.0.find(hash)
    }

    fn insert(&self, hash: StackHash, call_addrs: &[u64], end: End) -> Option<NonZeroU32> {
        self.0.insert(hash, call_addrs, end)
    }

    fn with_buffer<R>(&self, len: usize, f: impl FnOnce(&mut [u64]) -> R) -> Option<R> {
        self.0.with_buffer(len, f)
    }
}
