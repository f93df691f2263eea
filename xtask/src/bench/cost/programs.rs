//! Building the configurations' programs, and running them.

use super::configuration::{Configuration, Program};
use crate::bench::program;
use crate::cargo::{self, CargoError, Workspace};
use memtrace_benches::{
    Count, Kept, LineError, Measurement, Request, Task, TracerFigures, Tracing,
};
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program that runs another one under heaptrack.
pub(super) const HEAPTRACK: &str = "heaptrack";

/// All programs, built.
pub(super) struct Programs {
    paths: BTreeMap<Program, PathBuf>,
    counting: PathBuf,
    has_heaptrack: bool,
    /// The folder with what workloads work on.
    inputs: PathBuf,
    /// Where heaptrack writes what it records; emptied after each run.
    heaptrack_dir: PathBuf,
}

/// Why a configuration could not be run.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Run(#[from] program::RunError),
    #[error("{configuration} did not trace: the tracer recorded no stack")]
    NotTraced { configuration: Configuration },
    #[error("{configuration} lost {n_lost} traces or their stacks: its time is that of doing less")]
    Lost { configuration: Configuration, n_lost: u64 },
    #[error(
        "{configuration} was compiled with other flags than asked for: does RUSTFLAGS say otherwise?"
    )]
    OtherFlags { configuration: Configuration },
    #[error("{} could not be made or emptied", path.display())]
    Directory { path: PathBuf, source: io::Error },
}

impl Programs {
    /// Builds memtrace's in the workspace, peers in a workspace of their own; what is compiled with
    /// frame pointers, and peers, in target directories of their own.
    pub(super) fn build(workspace: &Workspace, inputs: PathBuf) -> Result<Self, CargoError> {
        let built = Built { target_dir: &workspace.target_dir };
        let ours = built.ours(None)?;
        let ours_fp = built.ours(Some("frame-pointers"))?;
        let peers = built.peers("peers", "dhat,jemalloc", &[])?;
        // Heapscope 0.3 asks for Rust 1.96, and compiles with 1.95.
        let flags = [FRAME_POINTERS.as_slice(), &["--ignore-rust-version"]].concat();
        let peers_fp = built.peers("peers-frame-pointers", "heapscope", &flags)?;
        let paths = [
            (Program::Untraced, &ours, "untraced"),
            (Program::Hooked, &ours, "hooked"),
            (Program::Least, &ours, "least"),
            (Program::UntracedFramePointers, &ours_fp, "untraced"),
            (Program::HookedFramePointers, &ours_fp, "hooked"),
            (Program::Pooled, &ours, "pooled"),
            (Program::Dhat, &peers, "peer_dhat"),
            (Program::Jemalloc, &peers, "peer_jemalloc"),
            (Program::Heapscope, &peers_fp, "peer_heapscope"),
        ];
        let paths = paths.map(|(program, built, name)| Ok((program, built.path(name)?.to_owned())));
        Ok(Self {
            paths: paths.into_iter().collect::<Result<_, CargoError>>()?,
            counting: ours.path("counting")?.to_owned(),
            has_heaptrack: is_on_path(HEAPTRACK),
            inputs,
            heaptrack_dir: workspace.target_dir.join("bench").join(HEAPTRACK),
        })
    }

    /// Returns the configurations that can be run on this machine.
    pub(super) fn configurations(&self) -> Vec<Configuration> {
        let is_there = |configuration: &Configuration| {
            *configuration != Configuration::Heaptrack || self.has_heaptrack
        };
        Configuration::ALL.into_iter().filter(is_there).collect()
    }

    /// Counts the allocations of a workload, or the blocks of what is kept.
    pub(super) fn count(&self, task: Task) -> Result<Count, RunError> {
        let mut command = Command::new(&self.counting);
        command.args(self.request(task, Tracing::default()));
        run(command, Count::from_output)
    }

    /// Times a workload.
    pub(super) fn time(
        &self,
        configuration: Configuration,
        task: Task,
    ) -> Result<Measurement, RunError> {
        let measurement = self.run(configuration, task, Measurement::from_output)?;
        let Measurement { has_frame_pointers, ref tracer, .. } = measurement;
        check(configuration, has_frame_pointers, tracer.as_ref())?;
        Ok(measurement)
    }

    /// Looks at the memory while blocks are kept.
    pub(super) fn keep(&self, configuration: Configuration, task: Task) -> Result<Kept, RunError> {
        let kept = self.run(configuration, task, Kept::from_output)?;
        check(configuration, kept.has_frame_pointers, kept.tracer.as_ref())?;
        Ok(kept)
    }

    fn run<T>(
        &self,
        configuration: Configuration,
        task: Task,
        read: impl FnOnce(&str) -> Result<T, LineError>,
    ) -> Result<T, RunError> {
        let program = &self.paths[&configuration.program()];
        let args = self.request(task, configuration.tracing());
        if configuration == Configuration::Heaptrack {
            return self.run_under_heaptrack(program, &args, read);
        }
        let mut command = Command::new(program);
        command.args(args).env_remove("_RJEM_MALLOC_CONF");
        command.envs(configuration.jemalloc_conf().map(|conf| ("_RJEM_MALLOC_CONF", conf)));
        run(command, read)
    }

    /// Raw: what heaptrack records is not interpreted meanwhile, which would take up a core.
    fn run_under_heaptrack<T>(
        &self,
        program: &Path,
        args: &[OsString],
        read: impl FnOnce(&str) -> Result<T, LineError>,
    ) -> Result<T, RunError> {
        let dir = &self.heaptrack_dir;
        let failed = |source| RunError::Directory { path: dir.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let mut command = Command::new(HEAPTRACK);
        command.arg("--raw").arg("--output").arg(dir.join("recorded")).arg(program).args(args);
        let figures = run(command, read);
        fs::remove_dir_all(dir).map_err(failed)?;
        figures
    }

    fn request(&self, task: Task, tracing: Tracing) -> Vec<OsString> {
        Request { task, inputs: self.inputs.clone(), tracing }.to_args()
    }
}

/// What cargo is told where frame pointers are wanted.
const FRAME_POINTERS: [&str; 2] =
    ["--config", r#"build.rustflags=["-Cforce-frame-pointers=yes", "--cfg=frame_pointers"]"#];

/// Where programs are built.
struct Built<'a> {
    target_dir: &'a Path,
}

impl Built<'_> {
    /// Builds ours, with frame pointers if a folder is named for that.
    fn ours(&self, frame_pointers_dir: Option<&str>) -> Result<cargo::Programs, CargoError> {
        let mut args: Vec<OsString> =
            vec!["--package=memtrace-benches".into(), "--examples".into()];
        if let Some(dir) = frame_pointers_dir {
            args.extend(["--target-dir".into(), self.target_dir.join(dir).into()]);
            args.extend(FRAME_POINTERS.map(OsString::from));
        }
        cargo::Programs::build(&args)
    }

    fn peers(
        &self,
        dir: &str,
        features: &str,
        more: &[&str],
    ) -> Result<cargo::Programs, CargoError> {
        let mut args: Vec<OsString> = vec![
            "--locked".into(),
            "--manifest-path".into(),
            Workspace::root().join("benches/peers/Cargo.toml").into(),
            "--target-dir".into(),
            self.target_dir.join(dir).into(),
            format!("--features={features}").into(),
        ];
        args.extend(more.iter().map(OsString::from));
        cargo::Programs::build(&args)
    }
}

/// Runs a program and reads the figures among what it wrote.
fn run<T>(
    mut command: Command,
    read: impl FnOnce(&str) -> Result<T, LineError>,
) -> Result<T, RunError> {
    // Nothing but the request says whether to trace.
    Ok(program::measure(command.env_remove("MEMTRACE"), read)?)
}

/// **Errors**: if the figures are not those of the configuration.
fn check(
    configuration: Configuration,
    has_frame_pointers: bool,
    tracer: Option<&TracerFigures>,
) -> Result<(), RunError> {
    if has_frame_pointers != configuration.program().has_frame_pointers() {
        return Err(RunError::OtherFlags { configuration });
    }
    if !configuration.is_traced() && configuration != Configuration::Least25 {
        return Ok(());
    }
    match tracer {
        Some(tracer) if tracer.n_lost > 0 => {
            Err(RunError::Lost { configuration, n_lost: tracer.n_lost })
        }
        Some(tracer) if tracer.n_sites > 0 => Ok(()),
        _ => Err(RunError::NotTraced { configuration }),
    }
}

fn is_on_path(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The versions of a package in a lock file: what follows its name.
    fn versions<'a>(lock: &'a str, package: &str) -> Vec<&'a str> {
        let head = format!("name = \"{package}\"\n");
        lock.split(&head).skip(1).filter_map(|entry| entry.lines().next()).collect()
    }

    #[test]
    fn peers_run_workloads_with_the_versions_of_the_workspace() {
        let lock = |path| fs::read_to_string(Workspace::root().join(path)).unwrap();
        let (ours, peers) = (lock("Cargo.lock"), lock("benches/peers/Cargo.lock"));
        for package in [
            "serde_json",
            "serde_core",
            "memchr",
            "itoa",
            "axum",
            "hyper",
            "tokio",
            "bytes",
            "http",
            "syn",
            "proc-macro2",
        ] {
            let theirs = versions(&peers, package);
            assert!(!theirs.is_empty(), "{package}");
            // The workspace may have further ones for other uses.
            let of_ours = versions(&ours, package);
            assert!(theirs.iter().all(|version| of_ours.contains(version)), "{package}");
        }
    }

    #[test]
    fn figures_of_another_build_or_of_a_tracer_that_did_nothing_are_refused() {
        let tracer = |n_sites, n_lost| TracerFigures { resident_bytes: 1, n_sites, n_lost };
        let message = |configuration, has_frame_pointers, tracer: Option<TracerFigures>| {
            check(configuration, has_frame_pointers, tracer.as_ref()).err().map(|e| e.to_string())
        };
        assert_eq!(message(Configuration::Full25, false, Some(tracer(1, 0))), None);
        assert_eq!(message(Configuration::Heapscope, true, None), None);
        let found = |text: Option<String>, part: &str| assert!(text.unwrap().contains(part));
        found(message(Configuration::Full25, true, Some(tracer(1, 0))), "other flags");
        found(message(Configuration::Full25, false, Some(tracer(0, 0))), "did not trace");
        found(message(Configuration::Full25, false, None), "did not trace");
        found(message(Configuration::Least25, false, Some(tracer(0, 0))), "did not trace");
        found(message(Configuration::Full25, false, Some(tracer(1, 3))), "lost 3 traces");
    }
}
