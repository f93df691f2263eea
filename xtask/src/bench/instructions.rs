//! `cargo xtask bench instructions`: the instructions that tracing adds to an allocation and to its
//! release, by valgrind's callgrind.
//!
//! The workload is the tight pair below 25 frames. Each program runs twice, with few and with more
//! batches: what differs are pairs in their steady state, without the start of the program, the first
//! walk of the stack and the rules learned on the way. Instructions do not depend on what else the
//! machine does, so one run is enough. What else may be recorded, or counted, beside sizes and stacks is measured by
//! itself: it goes other ways.

mod callgrind;

use super::delivery::Delivery;
use super::goal::{self, Goal};
use super::program;
use super::table::Table;
use crate::cargo::{Programs, Workspace};
use callgrind::{Calls, Profile};
use memtrace_benches::{More, Repeated, Request, Task, Tracing, Workload};
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const VALGRIND: &str = "valgrind";
const N_FRAMES: u16 = 25;
/// Batches of the two runs.
const N_BATCHES: [u32; 2] = [2, 6];
/// The function that allocates and frees, as callgrind names it.
const CALLER: &str = "memtrace_benches::work::tight_pair::frame_01";

/// Instructions that tracing may add to an allocation.
const MAX_ALLOCATION: f64 = 234.0;
/// Instructions that tracing may add to a release.
const MAX_RELEASE: f64 = 56.0;
/// What is measured beside plain tracing, and the instructions that it may add to a pair.
const MORE: [(More, f64); 2] = [(More::SiteTotals, 785.0), (More::Threads, 660.0)];

/// What to do with the figures.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    delivery: Delivery,
}

/// Why instructions could not be counted.
#[derive(Debug, thiserror::Error)]
enum CountError {
    #[error("{VALGRIND} was not found on PATH: without it instructions cannot be counted")]
    NoValgrind { source: io::Error },
    #[error(transparent)]
    Run(#[from] program::RunError),
    #[error("{} could not be read", path.display())]
    NotRead { path: PathBuf, source: io::Error },
    #[error("{} has no calls of {what} by {CALLER}: was it inlined?", path.display())]
    NoCalls { path: PathBuf, what: &'static str },
    #[error("{} batches made {n_calls} calls of {what}, not more than fewer did", N_BATCHES[1])]
    NoMoreCalls { what: &'static str, n_calls: u64 },
}

/// Instructions of a pair, all that is called included.
#[derive(Clone, Copy)]
struct Pair {
    allocation: f64,
    release: f64,
}

impl Pair {
    fn sum(self) -> f64 {
        self.allocation + self.release
    }
}

/// What was counted.
struct Counted {
    untraced: Pair,
    traced: Pair,
    /// In the order of [`MORE`].
    more: [Pair; MORE.len()],
}

/// Counts, and prints the report.
pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    // Before anything is built.
    check_valgrind()?;
    let dir = Workspace::read()?.target_dir.join("bench").join("instructions");
    fs::create_dir_all(&dir).map_err(|source| CountError::NotRead { path: dir.clone(), source })?;
    let programs = Programs::build(&["--package=memtrace-benches".into(), "--examples".into()])?;
    let traced = Tracing { n_frames: Some(N_FRAMES), ..Tracing::default() };
    let hooked = programs.path("hooked")?;
    let count_more = |(more, _)| count(hooked, Tracing { more: Some(more), ..traced }, &dir);
    let [site_totals, threads] = MORE.map(count_more);
    let counted = Counted {
        untraced: count(programs.path("untraced")?, Tracing::default(), &dir)?,
        traced: count(hooked, traced, &dir)?,
        more: [site_totals?, threads?],
    };
    let goals = judge(&counted);
    args.delivery.deliver(&write(&counted, &goals), &goals)
}

fn check_valgrind() -> Result<(), CountError> {
    let status = Command::new(VALGRIND)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .map_err(|source| CountError::NoValgrind { source })?;
    let program = VALGRIND.to_owned();
    if status.success() {
        Ok(())
    } else {
        Err(program::RunError::Failed { program, status }.into())
    }
}

/// Counts the instructions of a pair in its steady state.
fn count(program: &Path, tracing: Tracing, dir: &Path) -> Result<Pair, CountError> {
    let [few, more] = N_BATCHES.map(|n_batches| profile(program, tracing, n_batches, dir));
    let (few, more) = (few?, more?);
    let each = |what, of: fn(&Profile) -> Calls| {
        let (few, more) = (of(&few), of(&more));
        match more.n_calls.checked_sub(few.n_calls) {
            Some(n_calls) if n_calls > 0 => {
                Ok(more.n_instructions.saturating_sub(few.n_instructions) as f64 / n_calls as f64)
            }
            _ => Err(CountError::NoMoreCalls { what, n_calls: more.n_calls }),
        }
    };
    Ok(Pair {
        allocation: each("the allocator", |profile| profile.allocations)?,
        release: each("the release", |profile| profile.releases)?,
    })
}

/// Runs a program under callgrind.
fn profile(
    program: &Path,
    tracing: Tracing,
    n_batches: u32,
    dir: &Path,
) -> Result<Profile, CountError> {
    let path = dir.join("callgrind.out");
    let request = Request {
        task: Task::Repeat(Workload::TightPair, n_batches),
        inputs: dir.to_owned(),
        tracing,
    };
    let mut out_file = std::ffi::OsString::from("--callgrind-out-file=");
    out_file.push(&path);
    let mut command = Command::new(VALGRIND);
    command
        .args(["--tool=callgrind", "--quiet", "--compress-strings=no", "--compress-pos=no"])
        .arg(out_file)
        .arg(program)
        .args(request.to_args())
        .env_remove("MEMTRACE");
    program::measure(&mut command, Repeated::from_output)?;
    let text = fs::read_to_string(&path)
        .map_err(|source| CountError::NotRead { path: path.clone(), source })?;
    let profile = Profile::read(&text, CALLER);
    for (what, calls) in [("the allocator", profile.allocations), ("the release", profile.releases)]
    {
        if calls.n_calls == 0 {
            return Err(CountError::NoCalls { path, what });
        }
    }
    Ok(profile)
}

fn judge(counted: &Counted) -> Vec<Goal> {
    let Counted { untraced, traced, more } = counted;
    let goal = |name: &str, found: f64, max: f64| Goal {
        name: format!("at most {max} instructions added to {name}"),
        found: format!("{found:.1}"),
        is_met: Some(found <= max),
    };
    let mut goals = vec![
        goal("an allocation", traced.allocation - untraced.allocation, MAX_ALLOCATION),
        goal("a release", traced.release - untraced.release, MAX_RELEASE),
    ];
    let of_more = |((more, max), pair): ((More, f64), &Pair)| {
        goal(&format!("a pair with {}", more.name()), pair.sum() - untraced.sum(), max)
    };
    goals.extend(MORE.into_iter().zip(more).map(of_more));
    goals
}

fn write(counted: &Counted, goals: &[Goal]) -> String {
    let Counted { untraced, traced, more } = counted;
    let mut table = Table::new(["instructions", "untraced", "traced", "added"]);
    let mut row = |name: &str, untraced: f64, traced: f64| {
        let cells = [untraced, traced, traced - untraced].map(|value| format!("{value:.1}"));
        table.row([name.to_owned()].into_iter().chain(cells));
    };
    row("an allocation", untraced.allocation, traced.allocation);
    row("a release", untraced.release, traced.release);
    row("a pair", untraced.sum(), traced.sum());
    for ((more, _), pair) in MORE.into_iter().zip(more) {
        row(&format!("a pair with {}", more.name()), untraced.sum(), pair.sum());
    }
    format!(
        "Instructions of a tight pair below 25 frames, {N_FRAMES} frames traced, in the steady \
         state, by callgrind; the wrapped allocator is the C library's.\n\n{}\n{}",
        table.to_markdown(),
        goal::to_markdown(goals)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_tells_what_was_added_and_whether_that_is_too_much() {
        let untraced = Pair { allocation: 60.0, release: 30.0 };
        let traced = Pair { allocation: 160.0, release: 30.5 + MAX_RELEASE };
        let more = Pair { allocation: 200.0, release: 91.0 + MORE[1].1 };
        let counted = Counted { untraced, traced, more: [traced, more] };
        let goals = judge(&counted);
        let are_met: Vec<_> = goals.iter().filter_map(|goal| goal.is_met).collect();
        assert_eq!(are_met, [true, false, true, false]);
        let text = write(&counted, &goals);
        for expected in ["|     60.0 |  160.0 | 100.0 |", "| a pair with threads ", "MISSED |\n"] {
            assert!(text.contains(expected), "no {expected:?} in:\n{text}");
        }
    }

    #[test]
    fn the_function_that_allocates_is_named_as_in_the_source() {
        let path = Workspace::root().join("benches/src/work/tight_pair.rs");
        let name = CALLER.rsplit("::").next().unwrap();
        assert!(fs::read_to_string(path).unwrap().contains(&format!("fn {name}(n_pairs")));
    }
}
