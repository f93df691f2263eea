//! The command line.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use memtrace_core::KeyType;
use memtrace_export::folded::Metric;

/// Shows which lines of a program hold memory, from snapshots that it saved.
#[derive(Debug, Parser)]
#[command(name = "memtrace", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prints what holds most memory
    Report {
        /// The snapshot
        file: PathBuf,
        #[command(flatten)]
        view: View,
    },
    /// Prints what differs most between two snapshots
    Diff {
        /// The earlier snapshot
        old: PathBuf,
        /// The later snapshot
        new: PathBuf,
        #[command(flatten)]
        view: View,
    },
    /// Follows every group through three or more snapshots, and prints those that leak
    Leaks {
        /// The snapshots, oldest first, with work of the same kind between any two
        #[arg(required = true, num_args = 1.., value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How many groups to show
        #[arg(long, value_name = "N", default_value_t = 10)]
        top: usize,
        /// What to group by
        #[arg(long, value_name = "KEY", value_parser = key_type_parser(), default_value = "lineno")]
        group_by: KeyType,
        /// A file of lines `leak:PATTERN` in LeakSanitizer's form: stacks to leave out
        #[arg(long, value_name = "FILE")]
        suppressions: Option<PathBuf>,
        /// Call nothing a leak that has grown by less, over all snapshots
        #[arg(long, value_name = "BYTES", default_value_t = 1)]
        min_growth: u64,
        /// Print the verdict on every group, also on those that do not leak
        #[arg(long)]
        all: bool,
    },
    /// Writes the stacks in the form that flame graph programs read
    Folded {
        /// The snapshot
        file: PathBuf,
        /// What to count
        #[arg(long, value_enum, default_value = "bytes")]
        metric: MetricName,
        /// Where to write, instead of standard output
        #[arg(short, long, value_name = "OUT")]
        output: Option<PathBuf>,
    },
    /// Adds functions, files and lines to a snapshot that was saved without them
    ///
    /// Needs the executable and libraries that the program was run from, with the debug information
    /// that they or their separate debug files have.
    Name {
        /// The snapshot
        file: PathBuf,
        /// Where to look for executables and libraries that are not at their old place; may be
        /// repeated
        #[arg(long = "dir", value_name = "DIR")]
        directories: Vec<PathBuf>,
        /// Where to save the snapshot with names, instead of in its old place
        #[arg(short, long, value_name = "OUT")]
        output: Option<PathBuf>,
    },
}

/// Which groups to show, and how.
#[derive(Debug, ClapArgs)]
pub(crate) struct View {
    /// How many groups to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,
    /// What to group by
    #[arg(long, value_name = "KEY", value_parser = key_type_parser(), default_value = "lineno")]
    pub(crate) group_by: KeyType,
    /// Blame only lines of the workspace that was built, never those of a dependency
    #[arg(long)]
    pub(crate) only_workspace: bool,
    /// Keep only lines of files that match the pattern; may be repeated
    #[arg(long, value_name = "PAT")]
    pub(crate) include: Vec<String>,
    /// Drop lines of files that match the pattern; may be repeated
    #[arg(long, value_name = "PAT")]
    pub(crate) exclude: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads the name of a key type; the help lists all names.
fn key_type_parser() -> impl TypedValueParser<Value = KeyType> {
    PossibleValuesParser::new(KeyType::ALL.map(KeyType::name)).try_map(|name| name.parse())
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MetricName {
    Bytes,
    Blocks,
}

impl From<MetricName> for Metric {
    fn from(name: MetricName) -> Self {
        match name {
            MetricName::Bytes => Self::Bytes,
            MetricName::Blocks => Self::Blocks,
        }
    }
}
