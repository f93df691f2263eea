//! Analysis in a section that the program chooses.
//!
//! A tool that measures the program it is part of must not measure itself. What this crate does for
//! its callers therefore runs inside a function that the program may set: one that, say, switches
//! measuring off for the current thread meanwhile.

use std::sync::OnceLock;

/// Calls what it is given, once, before it returns.
pub type Section = fn(&mut dyn FnMut());

static SECTION: OnceLock<Section> = OnceLock::new();

/// Has all further analysis (grouping, filtering, saving, loading, formatting) run inside `section`.
///
/// Once for a process: returns whether this was the first call.
///
/// ```
/// use memtrace_core::{KeyType, Snapshot, set_analysis_section};
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
///
/// static N_SECTIONS: AtomicU32 = AtomicU32::new(0);
///
/// assert!(set_analysis_section(|work| {
///     N_SECTIONS.fetch_add(1, Relaxed);
///     work();
/// }));
/// Snapshot::from_traces([], 1).statistics(KeyType::Lineno);
/// assert!(N_SECTIONS.load(Relaxed) > 0);
/// ```
pub fn set_analysis_section(section: Section) -> bool {
    SECTION.set(section).is_ok()
}

/// Does a piece of analysis in the section that was set, if any.
pub(crate) fn analysis<R>(work: impl FnOnce() -> R) -> R {
    let Some(section) = SECTION.get() else { return work() };
    let mut work = Some(work);
    let mut result = None;
    section(&mut || {
        if let Some(work) = work.take() {
            result = Some(work());
        }
    });
    // A section that does not keep its promise is left aside.
    match (result, work) {
        (Some(result), _) => result,
        (None, Some(work)) => work(),
        (None, None) => unreachable!("work that was taken has a result, or has panicked"),
    }
}
