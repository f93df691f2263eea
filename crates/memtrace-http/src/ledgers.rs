//! Ledgers: a source of them, the first one it gave, and the text of the newest, or of what has changed.
//!
//! - I1: the baseline is the first ledger that was turned into an answer. Nothing replaces it, and no
//!   error or panic takes it away.
//!
//! Cost: one ledger is kept.

use memtrace_core::Ledger;
use memtrace_export::ledger::{write_ledger, write_ledger_diff};

use crate::failure::Failure;
use crate::query::{Format, LedgerQuery, Since};

/// Gives the newest ledger, or the reason why there is none.
type LedgerSource = Box<dyn Fn() -> Result<Ledger, String> + Send>;

/// Where memory is, and how that has changed since the first ledger.
pub(crate) struct Ledgers {
    take_ledger: LedgerSource,
    baseline: Option<Ledger>,
}

impl Ledgers {
    /// No ledger is taken before the first report.
    pub(crate) fn new(
        take_ledger: impl Fn() -> Result<Ledger, String> + Send + 'static,
    ) -> Ledgers {
        Ledgers { take_ledger: Box::new(take_ledger), baseline: None }
    }

    /// Takes a ledger and returns it, or its difference to the first, in the form that is asked for.
    /// The first becomes the baseline and is compared with itself.
    ///
    /// **Errors.** [`Failure::NoLedger`] if the source has none.
    pub(crate) fn report(&mut self, query: LedgerQuery) -> Result<String, Failure> {
        let newest = (self.take_ledger)().map_err(|reason| Failure::NoLedger { reason })?;
        let baseline = self.baseline.get_or_insert_with(|| newest.clone());
        let diff = match query.since {
            Since::Nothing => None,
            Since::First => Some(newest.compare_to(baseline)),
        };
        let mut bytes = Vec::new();
        let written = match (query.format, &diff) {
            (Format::Text, None) => return Ok(newest.to_string()),
            (Format::Text, Some(diff)) => return Ok(diff.to_string()),
            (Format::Json, None) => write_ledger(&mut bytes, &newest),
            (Format::Json, Some(diff)) => write_ledger_diff(&mut bytes, diff),
        };
        written.map_err(|error| Failure::NoLedger { reason: error.to_string() })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
