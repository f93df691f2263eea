//! Where a report goes, and whether it is good enough.

use super::goal::{Goal, Missed};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// What is done with a report.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Delivery {
    /// Fail if a goal is missed, or could not be judged.
    #[arg(long)]
    check: bool,
    /// Write the tables to this file, too.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

impl Delivery {
    /// Prints the report, and writes it to the file if there is one.
    ///
    /// **Errors**: if that cannot be done, or if the goals are to be checked and not all are reached.
    pub(super) fn deliver(&self, text: &str, goals: &[Goal]) -> Result<(), Box<dyn Error>> {
        print!("{text}");
        if let Some(path) = &self.markdown {
            write(path, text)?;
        }
        if self.check {
            Missed::check(goals)?;
        }
        Ok(())
    }
}

/// Writes a file.
///
/// **Errors**: if that cannot be done; the message names the file.
pub(super) fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<(), String> {
    fs::write(path, contents)
        .map_err(|error| format!("{} could not be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(is_met: Option<bool>) -> Goal {
        Goal { name: String::from("a"), found: String::from("7"), is_met }
    }

    #[test]
    fn the_file_is_written_even_if_a_goal_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.md");
        let delivery = Delivery { check: true, markdown: Some(path.clone()) };
        assert!(delivery.deliver("text", &[goal(Some(false))]).is_err());
        assert_eq!(fs::read_to_string(path).unwrap(), "text");
    }

    #[test]
    fn goals_count_only_if_they_are_to_be_checked() {
        let deliver =
            |check, is_met| Delivery { check, markdown: None }.deliver("", &[goal(is_met)]).is_ok();
        assert!(deliver(false, Some(false)) && deliver(true, Some(true)));
        assert!(!deliver(true, Some(false)) && !deliver(true, None));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = write(Path::new("/no/such/folder/t.md"), "").unwrap_err();
        assert!(error.starts_with("/no/such/folder/t.md could not be written: "), "{error}");
    }
}
