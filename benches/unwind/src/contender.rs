//! The contenders: ways to get from a point in the program to the number of its stack.
//!
//! Each begins in a function of its own, which is the newest frame of its stacks. All frames beyond
//! it are the same for all, if the contender is called by the same instruction.

pub(crate) mod backtrace;
mod frame_pointers;
pub(crate) mod framehop;
pub(crate) mod libunwind;
mod memtrace;

use std::num::NonZeroU32;

/// A capture of at most so many frames of the stack; returns the number of the stack.
pub(crate) type Site = fn(usize) -> Option<NonZeroU32>;

/// A way to capture.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) site: Site,
    /// Whether it claims that its frames are right.
    pub(crate) is_exact: bool,
    /// Whether it tells a complete stack from one that was cut off, as the truth does.
    pub(crate) tells_end: bool,
    /// Whether the stack gets a number, or is captured only.
    pub(crate) is_interning: bool,
    /// Whether this machine has it; known once it is prepared.
    is_there: fn() -> bool,
}

/// The place of the truth among all contenders.
pub(crate) const TRUTH: usize = 4;

const N_ALL: usize = 8;

/// All contenders.
pub(crate) static ALL: [Contender; N_ALL] = [
    exact("memtrace site", memtrace::site),
    exact("memtrace walk + intern", memtrace::walk),
    Contender { tells_end: false, ..exact("framehop + intern", framehop::site) },
    Contender {
        tells_end: false,
        is_there: libunwind::is_there,
        ..exact("libunwind + intern", libunwind::site)
    },
    exact("backtrace + intern", backtrace::site),
    Contender {
        is_exact: false,
        tells_end: false,
        ..exact("frame pointers + intern", frame_pointers::site)
    },
    Contender { is_interning: false, ..exact("memtrace walk only", memtrace::walk_only) },
    Contender { is_interning: false, ..exact("framehop only", framehop::walk_only) },
];

/// The number of contenders.
pub(crate) const fn n_all() -> usize {
    N_ALL
}

impl Contender {
    /// Whether this machine has it.
    pub(crate) fn is_there(&self) -> bool {
        (self.is_there)()
    }

    /// Bytes of memory that it takes, if it tells.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        let rules = memtrace_unwind::rule_table().1 as u64;
        match self.name {
            "memtrace site" => Some(rules + memtrace_unwind::cache_memory()),
            name => name.starts_with("memtrace").then_some(rules),
        }
    }

    /// The part of its rules that this thread found in its cache, if it tells.
    pub(crate) fn rule_hits(&self) -> Option<f64> {
        self.name.starts_with("framehop").then(framehop::rule_hits).flatten()
    }
}

/// Does all that has to be done before the first capture, for a table of so many slots.
pub(crate) fn prepare(n_slots: usize) {
    crate::table::TABLE.prepare(n_slots);
    memtrace_unwind::prepare();
    framehop::prepare();
    libunwind::prepare();
    backtrace::prepare();
}

/// What the time of calling a contender is measured by.
#[inline(never)]
pub(crate) fn nothing(limit: usize) -> Option<NonZeroU32> {
    std::hint::black_box(limit);
    None
}

const fn exact(name: &'static str, site: Site) -> Contender {
    Contender { name, site, is_exact: true, tells_end: true, is_interning: true, is_there: always }
}

fn always() -> bool {
    true
}
