//! The configurations that are compared, and running one.

use super::program;
use crate::cargo::{CargoError, Programs, Workspace};
use memtrace_benches::{Count, LineError, Measurement, Request};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program that runs another one under heaptrack.
pub(super) const HEAPTRACK: &str = "heaptrack";
/// The place of the untraced configuration among the [`Configurations`].
pub(super) const UNTRACED: usize = 0;

/// A way to run the workloads.
struct Configuration {
    name: &'static str,
    program: PathBuf,
    n_frames: Option<u16>,
    /// Whether memtrace traces, and must say what it recorded.
    is_traced: bool,
    is_under_heaptrack: bool,
}

/// All configurations, built; the first is [`UNTRACED`].
pub(super) struct Configurations {
    all: Vec<Configuration>,
    counting: PathBuf,
    /// Where heaptrack writes what it records; emptied after each run.
    heaptrack_dir: PathBuf,
}

/// Why a configuration could not be run.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Run(#[from] program::RunError),
    #[error("{name} did not trace: the tracer recorded no stack")]
    NotTraced { name: &'static str },
    #[error("{name} lost {n_lost} traces or their stacks: its time is that of doing less")]
    Lost { name: &'static str, n_lost: u64 },
    #[error("{} could not be made or emptied", path.display())]
    Directory { path: PathBuf, source: io::Error },
}

impl Configurations {
    /// Builds all programs: memtrace's in the workspace, peers in a workspace and a target directory
    /// of their own.
    pub(super) fn build(workspace: &Workspace) -> Result<Self, CargoError> {
        let ours = Programs::build(&["--package=memtrace-benches".into(), "--examples".into()])?;
        let peers = Programs::build(&[
            "--locked".into(),
            "--manifest-path".into(),
            Workspace::root().join("benches/peers/Cargo.toml").into(),
            "--target-dir".into(),
            workspace.target_dir.join("peers").into(),
        ])?;
        let of = |name, program: &Path, n_frames, is_traced| Configuration {
            name,
            program: program.to_owned(),
            n_frames,
            is_traced,
            is_under_heaptrack: false,
        };
        let (untraced, hooked) = (ours.path("untraced")?, ours.path("hooked")?);
        let mut all = vec![
            of("untraced", untraced, None, false),
            of("stopped", hooked, None, false),
            of("traced 1", hooked, Some(1), true),
            of("traced 25", hooked, Some(25), true),
            of("dhat 25", peers.path("peer_dhat")?, Some(25), false),
        ];
        if is_on_path(HEAPTRACK) {
            let heaptrack = of(HEAPTRACK, untraced, None, false);
            all.push(Configuration { is_under_heaptrack: true, ..heaptrack });
        }
        Ok(Self {
            all,
            counting: ours.path("counting")?.to_owned(),
            heaptrack_dir: workspace.target_dir.join("bench").join(HEAPTRACK),
        })
    }

    /// Returns the names, in order.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.all.iter().map(|configuration| configuration.name).collect()
    }

    pub(super) fn has_heaptrack(&self) -> bool {
        self.all.iter().any(|configuration| configuration.is_under_heaptrack)
    }

    /// Counts the allocations of a workload.
    pub(super) fn count(&self, request: Request) -> Result<Count, RunError> {
        let output = run(Command::new(&self.counting).args(request.to_args()))?;
        Count::from_output(&output).map_err(|source| self.nothing_said(&self.counting, source))
    }

    /// Runs a configuration by its place; its number of frames takes the place of the request's.
    pub(super) fn measure(&self, i: usize, request: Request) -> Result<Measurement, RunError> {
        let Configuration { name, program, n_frames, is_traced, is_under_heaptrack } = &self.all[i];
        let args = Request { n_frames: *n_frames, ..request }.to_args();
        let output = if *is_under_heaptrack {
            self.run_under_heaptrack(program, &args)?
        } else {
            run(Command::new(program).args(args))?
        };
        let measurement = Measurement::from_output(&output)
            .map_err(|source| self.nothing_said(program, source))?;
        if *is_traced {
            match &measurement.tracer {
                Some(tracer) if tracer.n_lost > 0 => {
                    return Err(RunError::Lost { name, n_lost: tracer.n_lost });
                }
                Some(tracer) if tracer.n_sites > 0 => {}
                _ => return Err(RunError::NotTraced { name }),
            }
        }
        Ok(measurement)
    }

    /// Raw: what heaptrack records is not interpreted meanwhile, which would take up a core.
    fn run_under_heaptrack(
        &self,
        program: &Path,
        args: &[impl AsRef<OsStr>],
    ) -> Result<String, RunError> {
        let dir = &self.heaptrack_dir;
        let failed = |source| RunError::Directory { path: dir.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let output = run(Command::new(HEAPTRACK)
            .arg("--raw")
            .arg("--output")
            .arg(dir.join("recorded"))
            .arg(program)
            .args(args));
        fs::remove_dir_all(dir).map_err(failed)?;
        output
    }

    fn nothing_said(&self, program: &Path, source: LineError) -> RunError {
        let program = program.display().to_string();
        program::RunError::NothingSaid { program, source }.into()
    }
}

/// Runs a command and returns what it wrote on its standard output.
fn run(command: &mut Command) -> Result<String, RunError> {
    // Nothing but the request says whether to trace.
    Ok(program::run(command.env_remove("MEMTRACE"))?)
}

fn is_on_path(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The version of a package in a lock file.
    fn version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
        let (_, entry) = lock.split_once(&format!("name = \"{package}\"\n"))?;
        entry.lines().next()
    }

    #[test]
    fn peers_parse_json_with_the_version_of_the_workspace() {
        let lock = |path| fs::read_to_string(Workspace::root().join(path)).unwrap();
        let (ours, peers) = (lock("Cargo.lock"), lock("benches/peers/Cargo.lock"));
        assert!(version(&ours, "serde_json").is_some());
        for package in ["serde_json", "serde_core", "memchr", "itoa"] {
            assert_eq!(version(&ours, package), version(&peers, package), "{package}");
        }
    }

    #[test]
    fn a_program_that_fails_or_is_not_there_is_named() {
        let message = |program: &str| run(&mut Command::new(program)).unwrap_err().to_string();
        assert_eq!(message("false"), "false failed: exit status: 1");
        assert_eq!(message("/no/such/program"), "/no/such/program could not be run");
    }
}
