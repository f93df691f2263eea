//! Threads that have allocated, each with a small number: what a block's detail names its thread by.
//!
//! A thread gets the next number, from 1, when it first allocates while threads are recorded. Numbers
//! are never given again, so a block of a thread that has ended still tells whose it was.
//!
//! # Invariants
//!
//! - **I1** A record is written once, by the thread it is about, before `is_written`; only the system's
//!   number changes after that, in a forked child.
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | `is_written` | `register` (Release) | `get` (Acquire) | the record |
//!
//! # Cost
//!
//! Two system calls for each thread, once; 32 bytes for each thread that there ever was.
#![expect(unsafe_code, reason = "records in mapped memory, and two system calls")]

use crate::mapped::Part;
use crate::segments::Segments;
use core::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// What is known of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadInfo {
    /// The number that blocks name the thread by; counted from 1, never given again.
    pub number: u32,
    /// The system's number of the thread; 0 if the system does not tell.
    ///
    /// The system gives numbers again: of several threads with this one, only that with the highest
    /// `number` can be alive.
    pub os_id: u32,
    /// The name that the thread had when it first allocated, padded with zero bytes.
    ///
    /// A thread that is named later, as those of `std` are shortly after they begin, has its
    /// creator's name here.
    pub name: [u8; 16],
}

/// A record; zeroed memory is one not written yet.
#[repr(C)]
struct Record {
    is_written: AtomicU32,
    os_id: AtomicU32,
    name: [AtomicU64; 2],
}

const FIRST_LEN: usize = 128;
const N_SEGMENTS: usize = 25;

pub(crate) struct ThreadTable {
    n_threads: AtomicU32,
    records: Segments<Record, FIRST_LEN, N_SEGMENTS>,
}

impl ThreadTable {
    pub(crate) const fn new() -> Self {
        Self { n_threads: AtomicU32::new(0), records: Segments::new(Part::Threads) }
    }

    /// Gives the calling thread a number. A thread calls this once.
    #[cold]
    #[inline(never)]
    pub(crate) fn register(&self) -> u32 {
        // Relaxed: the record is published by itself.
        let number = self.n_threads.fetch_add(1, Relaxed).wrapping_add(1);
        if let Some(place) = self.records.place_or_map(number) {
            // SAFETY: a record of mapped, zeroed memory, which stays mapped.
            let record = unsafe { place.as_ref() };
            let name = system::name();
            for (half, bytes) in record.name.iter().zip(name.as_chunks::<8>().0) {
                half.store(u64::from_ne_bytes(*bytes), Relaxed);
            }
            record.os_id.store(system::id(), Relaxed);
            record.is_written.store(1, Release);
        }
        number
    }

    /// Renews the system's number of the calling thread, which a fork has changed.
    pub(crate) fn renew(&self, number: u32) {
        if let Some(place) = self.records.place(number) {
            // SAFETY: as above.
            let record = unsafe { place.as_ref() };
            record.os_id.store(system::id(), Relaxed);
        }
    }

    /// Returns what is known of a thread; `None` if there is none of this number, or if there was no
    /// memory for its record.
    pub(crate) fn get(&self, number: u32) -> Option<ThreadInfo> {
        let place = self.records.place(number)?;
        // SAFETY: as above.
        let record = unsafe { place.as_ref() };
        if number == 0 || record.is_written.load(Acquire) == 0 {
            return None;
        }
        let mut name = [0; 16];
        for (bytes, half) in name.as_chunks_mut::<8>().0.iter_mut().zip(&record.name) {
            *bytes = half.load(Relaxed).to_ne_bytes();
        }
        Some(ThreadInfo { number, os_id: record.os_id.load(Relaxed), name })
    }

    /// Returns the highest number given so far.
    pub(crate) fn n_threads(&self) -> u32 {
        self.n_threads.load(Relaxed)
    }
}

#[cfg(target_os = "linux")]
mod system {
    /// Returns the kernel's number of the calling thread.
    pub(super) fn id() -> u32 {
        // SAFETY: takes no arguments and touches no memory.
        let id = unsafe { libc::syscall(libc::SYS_gettid) };
        u32::try_from(id).unwrap_or(0)
    }

    /// Returns the name of the calling thread.
    pub(super) fn name() -> [u8; 16] {
        let mut name = [0u8; 16];
        // SAFETY: the kernel writes at most 16 bytes.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        name
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn id() -> u32 {
        0
    }

    pub(super) fn name() -> [u8; 16] {
        [0; 16]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    #[test]
    fn each_thread_has_a_number_of_its_own_and_the_name_it_had() {
        static TABLE: ThreadTable = ThreadTable::new();
        let of_main = TABLE.register();
        assert_eq!(TABLE.get(of_main).unwrap().os_id, system::id());
        let threads: std::vec::Vec<_> = (0..300)
            .map(|i| {
                let thread = std::thread::Builder::new().name(std::format!("worker-{i}"));
                thread.spawn(move || (i, TABLE.register())).unwrap()
            })
            .collect();
        let mut numbers = std::vec![of_main];
        for thread in threads {
            let (i, number) = thread.join().unwrap();
            let info = TABLE.get(number).unwrap();
            let name = info.name.split(|&byte| byte == 0).next().unwrap();
            assert_eq!(name, std::format!("worker-{i}").as_bytes());
            assert!(info.os_id != 0 && info.number == number);
            numbers.push(number);
        }
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(1..=301));
        assert_eq!(TABLE.n_threads(), 301);
        assert_eq!((TABLE.get(0), TABLE.get(302), TABLE.get(u32::MAX)), (None, None, None));
    }
}
