//! What each command does.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use memtrace_core::{
    FileError, Filter, LeakFindings, LeakSearch, LeakSearchError, Snapshot, SourceCache,
    SuppressionError, Suppressions, report,
};
use memtrace_export::{folded, json};

use crate::args::{Command, View};
use crate::naming::{has_new_names, named};

/// Why a command failed, with the file it failed on.
#[derive(Debug)]
pub(crate) enum RunError {
    Load { path: PathBuf, source: FileError },
    Write { path: PathBuf, source: io::Error },
    Save { path: PathBuf, source: FileError },
    ReadSuppressions { path: PathBuf, source: SuppressionError },
    SearchLeaks { source: LeakSearchError },
    NothingNamed { path: PathBuf },
    Print { source: io::Error },
}

impl RunError {
    pub(crate) fn is_broken_pipe(&self) -> bool {
        match self {
            Self::Load { .. }
            | Self::Save { .. }
            | Self::ReadSuppressions { .. }
            | Self::SearchLeaks { .. }
            | Self::NothingNamed { .. } => false,
            Self::Write { source, .. } | Self::Print { source } => {
                source.kind() == io::ErrorKind::BrokenPipe
            }
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load { path, .. } => write!(f, "cannot load {}", path.display()),
            Self::Write { path, .. } | Self::Save { path, .. } => {
                write!(f, "cannot write {}", path.display())
            }
            Self::Print { .. } => f.write_str("cannot write to standard output"),
            Self::ReadSuppressions { path, .. } => {
                write!(f, "cannot use the suppressions of {}", path.display())
            }
            Self::SearchLeaks { .. } => f.write_str("cannot search for leaks"),
            Self::NothingNamed { path } => write!(
                f,
                "nothing in {} could be named, and nothing was saved: give the directory of the \
                 executable with --dir",
                path.display()
            ),
        }
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // Its own text would name the file again.
            Self::Load { source: FileError::Open { source, .. }, .. }
            | Self::Save { source: FileError::Save { source, .. }, .. } => Some(source),
            Self::Load { source, .. } | Self::Save { source, .. } => Some(source),
            Self::Write { source, .. } | Self::Print { source } => Some(source),
            Self::ReadSuppressions { source, .. } => Some(source),
            Self::SearchLeaks { source } => Some(source),
            Self::NothingNamed { .. } => None,
        }
    }
}

pub(crate) fn run(command: Command) -> Result<(), RunError> {
    match command {
        Command::Report { file, view } => {
            let snapshot = filtered(load(&file)?, &view);
            tell_sampling(&snapshot, &file);
            tell_missing_source(&snapshot, &file);
            print(|out| write_report(out, &snapshot, &view))
        }
        Command::Diff { old, new, view } => {
            let old_snapshot = filtered(load(&old)?, &view);
            let snapshot = filtered(load(&new)?, &view);
            tell_sampling(&old_snapshot, &old);
            tell_sampling(&snapshot, &new);
            tell_missing_source(&snapshot, &new);
            print(|out| write_diff(out, &snapshot, &old_snapshot, &view))
        }
        Command::Leaks { files, top, group_by, suppressions, min_growth, all } => {
            let mut search = LeakSearch::new(group_by).min_growth(min_growth);
            if let Some(path) = suppressions {
                search = search.suppress(read_suppressions(&path)?);
            }
            let snapshots = files.iter().map(|file| load(file)).collect::<Result<Vec<_>, _>>()?;
            let findings =
                search.run(&snapshots).map_err(|source| RunError::SearchLeaks { source })?;
            if let (Some(snapshot), Some(file)) = (snapshots.last(), files.last()) {
                tell_sampling(snapshot, file);
                tell_missing_source(snapshot, file);
            }
            print(|out| write_leaks(out, &findings, top, all))
        }
        Command::Folded { file, metric, output } => {
            let snapshot = load(&file)?;
            tell_sampling(&snapshot, &file);
            match output {
                None => print(|out| folded::write(out, &snapshot, metric.into())),
                Some(path) => File::create(&path)
                    .and_then(|out| {
                        folded::write(&mut BufWriter::new(out), &snapshot, metric.into())
                    })
                    .map_err(|source| RunError::Write { path, source }),
            }
        }
        Command::Name { file, directories, output } => {
            let raw = load(&file)?;
            let (snapshot, not_found) = named(&raw, &directories);
            for module in &not_found {
                let _ = writeln!(io::stderr(), "memtrace: {}: {module}", file.display());
            }
            if !not_found.is_empty() && !has_new_names(&raw, &snapshot) {
                return Err(RunError::NothingNamed { path: file });
            }
            let path = output.unwrap_or(file);
            snapshot.dump(&path).map_err(|source| RunError::Save { path, source })
        }
    }
}

fn load(path: &Path) -> Result<Snapshot, RunError> {
    Snapshot::load(path).map_err(|source| RunError::Load { path: path.to_owned(), source })
}

fn read_suppressions(path: &Path) -> Result<Suppressions, RunError> {
    Suppressions::load(path)
        .map_err(|source| RunError::ReadSuppressions { path: path.to_owned(), source })
}

fn filtered(snapshot: Snapshot, view: &View) -> Snapshot {
    let snapshot = if view.only_workspace {
        let attribution = snapshot.attribution().clone().only_workspace();
        snapshot.with_attribution(attribution)
    } else {
        snapshot
    };
    let included = view.include.iter().map(|pattern| Filter::include(pattern));
    let excluded = view.exclude.iter().map(|pattern| Filter::exclude(pattern));
    let filters: Vec<Filter> = included.chain(excluded).collect();
    if filters.is_empty() { snapshot } else { snapshot.filter_traces(&filters) }
}

/// Says on standard error that figures are estimates, if they are.
fn tell_sampling(snapshot: &Snapshot, path: &Path) {
    if let Some(period) = snapshot.sample_period() {
        // A note that cannot be shown is no reason to fail.
        let note = report::SamplingNote(period);
        let _ = writeln!(io::stderr(), "memtrace: {}: {note}", path.display());
    }
}

/// Says on standard error why files and lines are missing, if they are.
fn tell_missing_source(snapshot: &Snapshot, path: &Path) {
    if let Some(reason) = snapshot.missing_source() {
        // A note that cannot be shown is no reason to fail.
        let _ = writeln!(io::stderr(), "memtrace: {}: {reason}", path.display());
    }
}

/// Writes to standard output, buffered.
fn print(
    write: impl FnOnce(&mut BufWriter<io::StdoutLock<'_>>) -> io::Result<()>,
) -> Result<(), RunError> {
    let mut out = BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).map_err(|source| RunError::Print { source })
}

fn write_leaks(
    out: &mut impl Write,
    findings: &LeakFindings,
    top: usize,
    all: bool,
) -> io::Result<()> {
    let n_leaks = findings.leaks().count();
    if n_leaks == 0 {
        writeln!(out, "no leak among {} groups", findings.verdicts.len())?;
    }
    let n_shown = if all { top } else { n_leaks.min(top) };
    for verdict in findings.verdicts.iter().take(n_shown) {
        writeln!(out, "{verdict}")?;
        for line in verdict.traceback.format(None, false, &SourceCache::new()) {
            writeln!(out, "{line}")?;
        }
        writeln!(out)?;
    }
    for used in findings.suppressed.iter().filter(|used| used.count > 0) {
        writeln!(out, "suppressed: {used}")?;
    }
    Ok(())
}

fn write_report(out: &mut impl Write, snapshot: &Snapshot, view: &View) -> io::Result<()> {
    let key_type = view.group_by;
    let statistics = snapshot.statistics(key_type);
    if view.json {
        let period = snapshot.sample_period();
        return json::write_statistics(out, &statistics, key_type, view.top, period);
    }
    let mut text = String::new();
    report::write_top_statistics(&mut text, &statistics, view.top, &SourceCache::new())
        .map_err(io::Error::other)?;
    out.write_all(text.as_bytes())
}

fn write_diff(out: &mut impl Write, new: &Snapshot, old: &Snapshot, view: &View) -> io::Result<()> {
    let key_type = view.group_by;
    let diffs = new.compare_to(old, key_type);
    if view.json {
        let periods = [new, old].map(Snapshot::sample_period);
        return json::write_diffs(out, &diffs, key_type, view.top, periods);
    }
    let mut text = String::new();
    report::write_top(&mut text, &diffs, view.top, &SourceCache::new())
        .map_err(io::Error::other)?;
    out.write_all(text.as_bytes())
}
