//! The comparison itself: a snapshot source, the first snapshot it gave, and the text of what has
//! changed since.
//!
//! - I1: the baseline is the first snapshot that was turned into a text. Nothing replaces it, and
//!   no error or panic takes it away.
//!
//! Cost: one snapshot is kept, a second one lives during [`Growth::report`].

use std::fmt;

use memtrace_core::Snapshot;
use memtrace_core::report::Report;

use crate::failure::Failure;
use crate::query::GrowthQuery;

/// Gives the newest snapshot, or the reason why there is none.
type SnapshotSource = Box<dyn Fn() -> Result<Snapshot, String> + Send>;

/// What has changed since the first snapshot.
pub(crate) struct Growth {
    take_snapshot: SnapshotSource,
    baseline: Option<Snapshot>,
}

impl Growth {
    /// No snapshot is taken before the first report.
    pub(crate) fn new(
        take_snapshot: impl Fn() -> Result<Snapshot, String> + Send + 'static,
    ) -> Growth {
        Growth { take_snapshot: Box::new(take_snapshot), baseline: None }
    }

    /// Takes a snapshot, compares it with the baseline, and returns the rows and notes as text.
    /// The first snapshot becomes the baseline and is compared with itself.
    ///
    /// **Errors.** [`Failure::NoSnapshot`] if the source has none.
    pub(crate) fn report(&mut self, query: GrowthQuery) -> Result<String, Failure> {
        let newest = (self.take_snapshot)().map_err(|reason| Failure::NoSnapshot { reason })?;
        let text = Answer { newest: &newest, baseline: self.baseline.as_ref(), query }.to_string();
        if self.baseline.is_none() {
            self.baseline = Some(newest);
        }
        Ok(text)
    }
}

/// The text of one answer: rows, then notes.
struct Answer<'a> {
    newest: &'a Snapshot,
    baseline: Option<&'a Snapshot>,
    query: GrowthQuery,
}

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let baseline = self.baseline.unwrap_or(self.newest);
        let growth = Report::growth(self.newest, baseline, self.query.key_type).top(self.query.top);
        write!(f, "{growth}")?;
        if growth.is_empty() {
            f.write_str("note: no block is traced, neither now nor in the baseline\n")?;
        }
        if self.baseline.is_none() {
            f.write_str(
                "note: first snapshot, kept as the baseline: growth shows from the next request \
                 on\n",
            )?;
        }
        Ok(())
    }
}
