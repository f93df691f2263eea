//! Buffers for captures deeper than fits a thread's stack.
//!
//! A fixed number of places hold buffers that are not in use. A capture takes one, or maps a new
//! one, and puts it back afterwards; one for which there is no place left is kept aside for ever,
//! which takes more captures at once than there are places.

use crate::mapped::{self, Part};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Room for the longest stack that can be asked for, and the hook's own frames.
pub(crate) const BUFFER_LEN: usize = (1 << 16) + 64;
const N_PLACES: usize = 64;

static PLACES: [AtomicPtr<u64>; N_PLACES] = [const { AtomicPtr::new(ptr::null_mut()) }; N_PLACES];

/// Calls `f` with a buffer of [`BUFFER_LEN`] words; `None` if none can be mapped.
pub(crate) fn with_buffer<R>(f: impl FnOnce(&mut [u64]) -> R) -> Option<R> {
    // Acquire pairs with the Release below: the last user is done with the buffer.
    let mut taken = PLACES.iter().map(|place| place.swap(ptr::null_mut(), Acquire));
    let buffer = taken
        .find(|buffer| !buffer.is_null())
        .unwrap_or_else(|| mapped::map::<u64>(BUFFER_LEN, Part::Scratch));
    if buffer.is_null() {
        return None;
    }
    #[expect(unsafe_code, reason = "a mapped buffer")]
    // SAFETY: mapped with this length, zeroed, and taken out of its place, so used by this thread
    // alone.
    let words = unsafe { core::slice::from_raw_parts_mut(buffer, BUFFER_LEN) };
    let result = f(words);
    for place in &PLACES {
        if place.compare_exchange(ptr::null_mut(), buffer, Release, Relaxed).is_ok() {
            break;
        }
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    #[test]
    fn no_two_users_have_the_same_buffer() {
        std::thread::scope(|scope| {
            for t in 0..8 {
                scope.spawn(move || {
                    for _ in 0..1000 {
                        with_buffer(|buffer| {
                            buffer[..64].fill(t);
                            std::thread::yield_now();
                            assert!(buffer[..64].iter().all(|&word| word == t));
                        })
                        .unwrap();
                    }
                });
            }
        });
    }
}
