//! What is told: figures on standard output, and the first difference on standard error, which ends the
//! process.
//!
//! Nothing here allocates or takes a lock, because the allocator itself may have found the difference.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// All `Relaxed`: counts.
pub(crate) struct Figures {
    pub(crate) n_rounds: AtomicU64,
    pub(crate) n_compared: AtomicU64,
    pub(crate) n_scans: AtomicU64,
    pub(crate) n_scanned: AtomicU64,
    pub(crate) n_toggles: AtomicU64,
    pub(crate) n_forks: AtomicU64,
    pub(crate) n_threads: AtomicU64,
    pub(crate) n_sent: AtomicU64,
    pub(crate) n_failed_resizes: AtomicU64,
    pub(crate) n_moved: AtomicU64,
    pub(crate) n_large: AtomicU64,
    pub(crate) n_untraced: AtomicU64,
    /// Blocks compared that overlapped a toggle, so that both answers are right.
    pub(crate) n_either: AtomicU64,
    /// Losses that a limit on the tables brought about.
    pub(crate) n_lost: AtomicU64,
    pub(crate) n_drifts: AtomicU64,
    pub(crate) n_spoilt: AtomicU64,
    /// The tracer's tables after some rounds and at last, in bytes charged.
    pub(crate) early_bytes: AtomicU64,
    pub(crate) last_bytes: AtomicU64,
}

pub(crate) static FIGURES: Figures = Figures {
    n_rounds: AtomicU64::new(0),
    n_compared: AtomicU64::new(0),
    n_scans: AtomicU64::new(0),
    n_scanned: AtomicU64::new(0),
    n_toggles: AtomicU64::new(0),
    n_forks: AtomicU64::new(0),
    n_threads: AtomicU64::new(0),
    n_sent: AtomicU64::new(0),
    n_failed_resizes: AtomicU64::new(0),
    n_moved: AtomicU64::new(0),
    n_large: AtomicU64::new(0),
    n_untraced: AtomicU64::new(0),
    n_either: AtomicU64::new(0),
    n_lost: AtomicU64::new(0),
    n_drifts: AtomicU64::new(0),
    n_spoilt: AtomicU64::new(0),
    early_bytes: AtomicU64::new(0),
    last_bytes: AtomicU64::new(0),
};

/// Counts one more.
pub(crate) fn count(figure: &AtomicU64) {
    figure.fetch_add(1, Relaxed);
}

/// Prints a line for each figure: its name and its value, separated by a tab.
pub(crate) fn print_figures() {
    let get = |figure: &AtomicU64| figure.load(Relaxed);
    let counts = crate::ALLOC.inner().counts();
    let figures = [
        ("events", counts.n_allocations + counts.n_releases + counts.n_resizes),
        ("allocations", counts.n_allocations),
        ("releases", counts.n_releases),
        ("resizes", counts.n_resizes),
        ("resizes that moved", get(&FIGURES.n_moved)),
        ("resizes that failed", get(&FIGURES.n_failed_resizes)),
        ("blocks of 16 MiB and more", get(&FIGURES.n_large)),
        ("requests in untraced sections", get(&FIGURES.n_untraced)),
        ("blocks sent to another thread", get(&FIGURES.n_sent)),
        ("threads that ended under load", get(&FIGURES.n_threads)),
        ("rounds", get(&FIGURES.n_rounds)),
        ("blocks compared", get(&FIGURES.n_compared)),
        ("blocks of which both answers are right", get(&FIGURES.n_either)),
        ("losses under a limit", get(&FIGURES.n_lost)),
        ("scans", get(&FIGURES.n_scans)),
        ("blocks scanned", get(&FIGURES.n_scanned)),
        ("toggles", get(&FIGURES.n_toggles)),
        ("forked children", get(&FIGURES.n_forks)),
        ("drains compared", get(&FIGURES.n_drifts)),
        ("spoilt", get(&FIGURES.n_spoilt)),
        ("bytes of tables, the most in the first 40 rounds", get(&FIGURES.early_bytes)),
        ("bytes of tables, the most in the last 40 rounds", get(&FIGURES.last_bytes)),
    ];
    let mut out = Raw(1);
    let _ = writeln!(out, "figure\tvalue");
    for (name, value) in figures {
        let _ = writeln!(out, "{name}\t{value}");
    }
}

/// Tells of a difference and ends the process; of several at once, of the first.
pub(crate) fn differs(what: fmt::Arguments<'_>) -> ! {
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    if !IS_TOLD.swap(true, Relaxed) {
        let _ = writeln!(Raw(2), "difference: {what}");
        if !crate::truth::IS_CHILD.load(Relaxed) {
            print_figures();
        }
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(1) }
    }
    loop {
        std::thread::park();
    }
}

/// Like `assert!`, with [`differs`].
macro_rules! ensure {
    ($is_so:expr, $($what:tt)+) => {
        if !$is_so {
            $crate::report::differs(format_args!($($what)+))
        }
    };
}
pub(crate) use ensure;

/// A file descriptor without a lock or a buffer.
struct Raw(libc::c_int);

impl Write for Raw {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the bytes are readable.
        let written = unsafe { libc::write(self.0, text.as_ptr().cast(), text.len()) };
        if written < 0 { Err(fmt::Error) } else { Ok(()) }
    }
}
