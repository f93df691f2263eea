//! What the system says of the memory of this process.
//!
//! # Mechanism
//! `/proc/self/smaps_rollup` has the sums over all mappings, exact at the time of reading; where there is
//! none (Linux before 4.14, or a container that hides it), `/proc/self/status` has about the same,
//! from counters that may lag by some pages for each processor.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const ROLLUP: &str = "/proc/self/smaps_rollup";
const STATUS: &str = "/proc/self/status";

/// Why there is no ledger.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The system does not say what is resident.
    #[error("cannot read {}, which says what is resident", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What reading it failed with.
        source: io::Error,
    },
    /// The system does not say what is resident, in the way that is known.
    #[error("{} has no line {field} with a number of kB", path.display())]
    MissingField {
        /// The file.
        path: PathBuf,
        /// The name of the line.
        field: &'static str,
    },
}

/// The memory of this process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resident {
    /// All that is resident.
    pub(crate) total: u64,
    /// Of it, what belongs to files or is shared with other processes.
    pub(crate) of_files: u64,
    /// What is swapped out, if the system tells.
    pub(crate) swapped: Option<u64>,
}

impl Resident {
    /// Reads what is resident now.
    pub(crate) fn now() -> Result<Resident, LedgerError> {
        match read(ROLLUP) {
            Ok(text) => Resident::from_rollup(&text),
            Err(_) => Resident::from_status(&read(STATUS)?),
        }
    }

    fn from_rollup(text: &str) -> Result<Resident, LedgerError> {
        let total = field(text, ROLLUP, "Rss")?;
        let anonymous = field(text, ROLLUP, "Anonymous")?;
        let swapped = field(text, ROLLUP, "Swap").ok();
        Ok(Resident { total, of_files: total.saturating_sub(anonymous), swapped })
    }

    fn from_status(text: &str) -> Result<Resident, LedgerError> {
        let total = field(text, STATUS, "VmRSS")?;
        let anonymous = field(text, STATUS, "RssAnon")?;
        let swapped = field(text, STATUS, "VmSwap").ok();
        Ok(Resident { total, of_files: total.saturating_sub(anonymous), swapped })
    }
}

fn read(path: &str) -> Result<String, LedgerError> {
    // Bytes first: a line that is not UTF-8 (status begins with the name of the program) is none of ours.
    let bytes =
        fs::read(path).map_err(|source| LedgerError::Unreadable { path: path.into(), source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The bytes of the first line `name: <number> kB`.
fn field(text: &str, path: &str, name: &'static str) -> Result<u64, LedgerError> {
    let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
    let value = text.lines().find(is_it).map(|line| &line[name.len() + 1..]);
    value
        .and_then(kib)
        .and_then(|kib| kib.checked_mul(1024))
        .ok_or_else(|| LedgerError::MissingField { path: Path::new(path).to_owned(), field: name })
}

/// The number of a text like `   1756 kB`.
fn kib(text: &str) -> Option<u64> {
    let digits = text.strip_suffix(" kB")?.trim_start();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "55ed1b598000-7fff51bad000 ---p 00000000 00:00 0                          \
                        [rollup]\nRss:                1756 kB\nPss:                 332 kB\n\
                        Anonymous:           116 kB\nSwap:                  8 kB\n\
                        SwapPss:               4 kB\n";

    fn parsed(text: &str) -> Result<Resident, String> {
        Resident::from_rollup(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_rollup_says_what_is_resident_and_how_much_of_it_is_of_files() {
        let expected = Resident { total: 1756 << 10, of_files: 1640 << 10, swapped: Some(8 << 10) };
        assert_eq!(parsed(GOOD), Ok(expected));
    }

    #[test]
    fn lines_may_be_missing_new_or_in_another_order() {
        let text = "Anonymous: 5 kB\nBanana: yes\n\nAnonymousX: 9 kB\nRss: 3 kB";
        // A process that shrinks while it is read may have more of one than of all.
        assert_eq!(parsed(text), Ok(Resident { total: 3 << 10, of_files: 0, swapped: None }));
        let status =
            "Name:\t\u{fffd}Rss: 1 kB\nVmRSS:\t  20 kB\nRssAnon:\t   5 kB\nVmSwap:\t 0 kB\n";
        let found = Resident::from_status(status).unwrap();
        assert_eq!(found, Resident { total: 20 << 10, of_files: 15 << 10, swapped: Some(0) });
    }

    #[test]
    fn a_broken_text_is_an_error_that_names_file_and_line() {
        let no_rss = "/proc/self/smaps_rollup has no line Rss with a number of kB";
        for value in [
            "",
            " kB",
            " 12",
            " 12 MB",
            " -1 kB",
            " +1 kB",
            " 1.5 kB",
            " 1 2 kB",
            " x kB",
            " 18446744073709551615 kB",
            " 99999999999999999999999 kB",
            " ٣ kB",
        ] {
            let text = GOOD.replace("                1756 kB", value);
            assert_eq!(parsed(&text), Err(no_rss.to_owned()), "{value:?}");
        }
        assert_eq!(parsed(""), Err(no_rss.to_owned()));
        assert_eq!(parsed("Rss\nRss 5 kB\n\u{0}"), Err(no_rss.to_owned()));
        let no_anonymous = "/proc/self/smaps_rollup has no line Anonymous with a number of kB";
        assert_eq!(parsed("Rss: 1 kB\n"), Err(no_anonymous.to_owned()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_of_its_own_and_of_files() {
        let found = Resident::now().unwrap();
        assert!(found.of_files > 100 << 10 && found.total > found.of_files, "{found:?}");
        let status = Resident::from_status(&read(STATUS).unwrap()).unwrap();
        assert!(status.total.abs_diff(found.total) < 8 << 20, "{status:?} {found:?}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read("/proc/self/no-such-file").unwrap_err();
        assert!(error.to_string().starts_with("cannot read /proc/self/no-such-file"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
}
