//! Generations: the times between snapshots, by which the age of a block is told.
//!
//! Each start of tracing begins a *run*, with an identity that no other run of this or any other
//! process has. Within a run, generations are counted up by whoever takes a snapshot, just before the
//! copy: what is allocated after that was born in a later generation than all that the snapshot holds.
//!
//! # Invariants
//!
//! - **I1** Generation numbers only grow as long as the process lives, from run to run and in a forked
//!   child: a number belongs to one run. 0 is no generation.
//! - **I2** The first generation of a run is stored before tracing is on.
//!
//! All accesses are `Relaxed`: nothing else is published by them.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

pub(crate) struct Generations {
    current: AtomicU32,
    first_of_run: AtomicU32,
    /// Random bits of this run; 0 before the first.
    seed: AtomicU64,
    /// Forks of this process and, before each fork that led to it, of its ancestors.
    n_forks: AtomicU32,
}

impl Generations {
    pub(crate) const fn new() -> Self {
        Self {
            current: AtomicU32::new(0),
            first_of_run: AtomicU32::new(0),
            seed: AtomicU64::new(0),
            n_forks: AtomicU32::new(0),
        }
    }

    /// Begins a run. Called under the control lock, before tracing is on.
    pub(crate) fn begin_run(&self) {
        self.seed.store(random().max(1), Relaxed);
        self.first_of_run.store(self.advance().wrapping_add(1), Relaxed);
    }

    /// Ends the current generation and returns its number.
    pub(crate) fn advance(&self) -> u32 {
        self.current.fetch_add(1, Relaxed)
    }

    /// Returns the number of the current generation.
    #[inline]
    pub(crate) fn current(&self) -> u32 {
        self.current.load(Relaxed)
    }

    /// Whether a generation belongs to the current run.
    #[inline]
    pub(crate) fn is_of_run(&self, generation: u32) -> bool {
        generation >= self.first_of_run.load(Relaxed)
    }

    /// Returns the identity of the current run, or of the last one; 0 before the first.
    pub(crate) fn run_id(&self) -> u64 {
        match self.seed.load(Relaxed) {
            0 => 0,
            // The process is asked for now: a child that was made without the handlers around a fork,
            // as by a bare `clone`, differs from its parent, too.
            seed => mix(seed ^ mix(process_id())).max(1),
        }
    }

    /// Notes that the process is about to be forked.
    pub(crate) fn before_fork(&self) {
        self.n_forks.fetch_add(1, Relaxed);
    }

    /// Gives a forked child's run an identity of its own: that of no other child, even if the kernel
    /// gives a process number again.
    pub(crate) fn after_fork_in_child(&self) {
        let seed = self.seed.load(Relaxed);
        if seed != 0 {
            let n_forks = u64::from(self.n_forks.load(Relaxed));
            self.seed.store(mix(seed ^ mix(n_forks)).max(1), Relaxed);
        }
    }
}

/// The finishing step of splitmix64: a bijection, so that different numbers stay different.
pub(crate) const fn mix(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

fn process_id() -> u64 {
    #[expect(unsafe_code, reason = "a system call")]
    // SAFETY: takes no arguments and touches no memory.
    let id = unsafe { libc::getpid() };
    id.unsigned_abs().into()
}

/// Asks the system for random bits; `false` if it gives none.
fn fill_with_random(bytes: &mut [u8; 8]) -> bool {
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "a system call")]
    // SAFETY: the system writes at most this many bytes. Not by a function of the C library, which musl's
    // bindings lack.
    let n_bytes = unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), 0) };
    #[cfg(target_os = "linux")]
    return usize::try_from(n_bytes) == Ok(bytes.len());

    #[cfg(not(target_os = "linux"))]
    #[expect(unsafe_code, reason = "a system call")]
    // SAFETY: the system writes this many bytes.
    return unsafe { libc::getentropy(bytes.as_mut_ptr().cast(), bytes.len()) } == 0;
}

/// Returns random bits from the system; from a system that gives none, bits that differ between
/// processes by where the loader put this crate.
pub(crate) fn random() -> u64 {
    let mut bytes = [0u8; 8];
    if fill_with_random(&mut bytes) {
        return u64::from_ne_bytes(bytes);
    }
    static N_CALLS: AtomicU32 = AtomicU32::new(0);
    let n_calls = u64::from(N_CALLS.fetch_add(1, Relaxed));
    mix((&raw const N_CALLS).addr() as u64 ^ mix(process_id() ^ n_calls << 32))
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    #[test]
    fn generations_go_on_from_run_to_run_and_belong_to_one() {
        let generations = Generations::new();
        assert_eq!(generations.run_id(), 0);
        generations.begin_run();
        let first = generations.current();
        assert!(first != 0 && generations.is_of_run(first) && !generations.is_of_run(0));
        assert_eq!((generations.advance(), generations.current()), (first, first + 1));
        let run_id = generations.run_id();
        assert!(run_id != 0 && run_id == generations.run_id());
        generations.begin_run();
        assert_ne!(generations.run_id(), run_id);
        assert!(!generations.is_of_run(first + 1));
        assert!(generations.is_of_run(generations.current()));
    }

    #[test]
    fn a_fork_changes_the_childs_run_and_not_the_parents() {
        let copy = |generations: &Generations| {
            let copy = Generations::new();
            copy.seed.store(generations.seed.load(Relaxed), Relaxed);
            copy.n_forks.store(generations.n_forks.load(Relaxed), Relaxed);
            copy.after_fork_in_child();
            copy
        };
        let parent = Generations::new();
        parent.begin_run();
        let run_id = parent.run_id();
        // The process number is the same for all of them here: as when it is given again and again.
        let mut seen = std::vec![run_id];
        for _ in 0..10 {
            parent.before_fork();
            let child = copy(&parent);
            child.before_fork();
            let grandchild = copy(&child);
            assert_eq!(parent.run_id(), run_id);
            seen.extend([child.run_id(), grandchild.run_id()]);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 21);
    }
}
