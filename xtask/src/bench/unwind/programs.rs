//! Building and running the benchmark's program.

use crate::bench::program::{self, RunError};
use crate::cargo::{CargoError, Programs, Workspace};
use memtrace_benches::unwind::Figures;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

const PROGRAM: &str = "memtrace-bench-unwind";
/// What the program's build script asks for the number of a layout.
const LAYOUT: &str = "MEMTRACE_BENCH_LAYOUT";

/// How the program is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Build {
    /// As programs are, without being told otherwise.
    Default,
    /// With frame pointers in all code but that of the C library.
    FramePointers,
}

/// Why the program's figures are not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnwindError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(
        "{program} was compiled with other flags than asked for: does RUSTFLAGS say otherwise?"
    )]
    OtherFlags { program: String },
}

/// The program, built.
pub(super) struct Program {
    build: Build,
    path: PathBuf,
}

impl Build {
    pub(super) const ALL: [Self; 2] = [Self::Default, Self::FramePointers];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Default => "default build",
            Self::FramePointers => "build with frame pointers",
        }
    }

    const fn target_dir(self) -> &'static str {
        match self {
            Self::Default => "unwind",
            Self::FramePointers => "unwind-frame-pointers",
        }
    }
}

impl Program {
    /// Builds it in a workspace and a target directory of its own, with the functions laid out in
    /// one of several orders.
    pub(super) fn build(
        workspace: &Workspace,
        build: Build,
        layout: u16,
    ) -> Result<Self, CargoError> {
        let mut args: Vec<OsString> = vec![
            "--locked".into(),
            "--manifest-path".into(),
            Workspace::root().join("benches/unwind/Cargo.toml").into(),
            "--target-dir".into(),
            workspace.target_dir.join(build.target_dir()).into(),
            "--config".into(),
            format!("env.{LAYOUT}=\"{layout}\"").into(),
        ];
        if build == Build::FramePointers {
            let flags = r#"["-Cforce-frame-pointers=yes", "--cfg=frame_pointers"]"#;
            args.extend(["--config".into(), format!("build.rustflags={flags}").into()]);
        }
        let path = Programs::build(&args)?.path(PROGRAM)?.to_owned();
        Ok(Self { build, path })
    }

    /// Returns the names of the workloads.
    pub(super) fn workloads(&self) -> Result<Vec<String>, RunError> {
        let output = program::run(&mut self.command(["names"]))?;
        Ok(output.lines().map(str::to_owned).collect())
    }

    /// Checks and times a workload in a process of its own.
    pub(super) fn run(
        &self,
        workload: &str,
        n_rounds: u16,
        budget_ms: u16,
    ) -> Result<Figures, UnwindError> {
        let [n_rounds, budget_ms] = [n_rounds, budget_ms].map(|number| number.to_string());
        let mut command = self.command(["run", workload, &n_rounds, &budget_ms]);
        let figures = program::measure(&mut command, Figures::from_output)?;
        if figures.has_frame_pointers != (self.build == Build::FramePointers) {
            return Err(UnwindError::OtherFlags { program: self.path.display().to_string() });
        }
        Ok(figures)
    }

    fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(&self.path);
        command.args(args);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn package_and_build_script_are_named_as_they_are_asked_for() {
        let read = |path| fs::read_to_string(Workspace::root().join(path)).unwrap();
        assert!(read("benches/unwind/Cargo.toml").contains(&format!("name = \"{PROGRAM}\"")));
        assert!(read("benches/unwind/build.rs").contains(&format!("\"{LAYOUT}\"")));
    }

    #[test]
    fn a_program_that_says_nothing_or_fails_is_named() {
        let program = |path: &str| Program { build: Build::Default, path: path.into() };
        let error = program("true").run("same 25/25", 1, 1).unwrap_err().to_string();
        assert_eq!(error, "true did not say what it measured");
        let error = program("false").workloads().unwrap_err().to_string();
        assert_eq!(error, "false failed: exit status: 1");
    }
}
