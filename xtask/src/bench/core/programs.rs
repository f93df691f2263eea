//! Building and running the two programs, and what they need.

use crate::bench::program::{RunError, measure};
use crate::cargo::{self, CargoError, Workspace};
use memtrace_benches::LineError;
use memtrace_benches::analysis::{BesideFigures, Figures, Plan, shape};
use serde_json::json;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::Command;

const PYTHON: &str = "python3";

/// Calls of the script that are in every stack: module, main, enter, area, part, site.
const N_SCRIPT_CALLS: f64 = 6.0;

/// The programs, built.
pub(super) struct Programs {
    ours: PathBuf,
    /// Where plans and saved snapshots are written.
    dir: PathBuf,
}

impl Programs {
    /// Builds memtrace's program.
    pub(super) fn build(workspace: &Workspace) -> Result<Self, Box<dyn Error>> {
        let built: Result<_, CargoError> = cargo::Programs::build(&[
            "--package=memtrace-benches".into(),
            "--features=generated-sites".into(),
            "--example=core_analysis".into(),
        ]);
        let ours = built?.path("core_analysis")?.to_owned();
        let dir = workspace.target_dir.join("bench").join("core");
        fs::create_dir_all(&dir)
            .map_err(|error| format!("{} could not be made: {error}", dir.display()))?;
        Ok(Self { ours, dir })
    }

    /// Times memtrace's operations.
    pub(super) fn operations(&self, n_blocks: usize, n_rounds: u16) -> Result<Figures, RunError> {
        let [n_blocks, n_rounds] = [n_blocks.to_string(), n_rounds.to_string()];
        let saved = self.dir.join("saved.memtrace");
        let args = ["operations".as_ref(), n_blocks.as_ref(), n_rounds.as_ref(), saved.as_os_str()];
        self.run_ours(args, Figures::from_output)
    }

    /// Watches threads that allocate while snapshots are taken.
    pub(super) fn beside(&self, n_blocks: usize, n_rounds: u16) -> Result<BesideFigures, RunError> {
        let [n_blocks, n_rounds] = [n_blocks.to_string(), n_rounds.to_string()];
        self.run_ours(["beside", &n_blocks, &n_rounds], BesideFigures::from_output)
    }

    /// Times CPython's operations on stacks of so many calls on average; `None` if there is no
    /// CPython.
    pub(super) fn cpython(
        &self,
        n_blocks: usize,
        n_calls_per_stack: f64,
        n_rounds: u16,
        is_tracing_timed: bool,
    ) -> Result<Option<Figures>, Box<dyn Error>> {
        if !has_python() {
            eprintln!("{PYTHON} could not be run: there will be nothing to compare with");
            return Ok(None);
        }
        self.write_plan(n_blocks, n_calls_per_stack).map_err(|error| {
            format!("the plan could not be written to {}: {error}", self.dir.display())
        })?;
        let script = Workspace::root().join("benches/core_tracemalloc.py");
        let [n_rounds, n_tracing_rounds] =
            [n_rounds.to_string(), u8::from(is_tracing_timed).to_string()];
        let mut command = Command::new(PYTHON);
        command.arg(script).arg(&self.dir).args([&n_rounds, &n_tracing_rounds]);
        Ok(Some(measure(&mut command, Figures::from_output)?))
    }

    fn run_ours<T>(
        &self,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        read: impl FnOnce(&str) -> Result<T, LineError>,
    ) -> Result<T, RunError> {
        // Nothing but the program says whether to trace.
        measure(Command::new(&self.ours).args(args).env_remove("MEMTRACE"), read)
    }

    fn write_plan(&self, n_blocks: usize, n_calls_per_stack: f64) -> io::Result<()> {
        fs::write(self.dir.join("shape.json"), shape_document(n_calls_per_stack))?;
        let mut file = BufWriter::new(File::create(self.dir.join("plan.bin"))?);
        Plan::new(n_blocks).write_to(&mut file)?;
        file.flush()
    }
}

/// The shape of the calls, for the program in Python.
///
/// In Rust the run time and the thread add calls above those of the shape, how many depends on what
/// was inlined; in Python the script adds as many.
fn shape_document(n_calls_per_stack: f64) -> String {
    let n_calls: Vec<usize> = (0..shape::N_MODULES).map(shape::n_calls).collect();
    let n_own_calls = n_calls.iter().sum::<usize>() as f64 / n_calls.len() as f64;
    let n_outer_calls = (n_calls_per_stack - n_own_calls).round() - N_SCRIPT_CALLS;
    json!({
        "n_calls": n_calls,
        "n_sites_per_module": shape::N_SITES_PER_MODULE,
        "n_modules_per_part": shape::N_MODULES_PER_PART,
        "n_modules_per_area": shape::N_MODULES_PER_AREA,
        "n_outer_calls": n_outer_calls.max(1.0) as usize,
    })
    .to_string()
}

fn has_python() -> bool {
    let found = Command::new(PYTHON).arg("-c").arg("import tracemalloc").status();
    found.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_says_all_that_the_script_asks_for() {
        let script = include_str!("../../../../benches/core_tracemalloc.py");
        let document = shape_document(14.4);
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        let asked = script.split("shape[\"").skip(1).filter_map(|rest| rest.split('"').next());
        let mut n_asked = 0;
        for name in asked {
            assert!(!document[name].is_null(), "{name}");
            n_asked += 1;
        }
        assert!(n_asked >= 5);
        // 6 of the script, 3 outer, 5.4 of a module on average.
        assert_eq!(document["n_outer_calls"], 3);
        assert_eq!(
            document["n_calls"].as_array().unwrap().len() * 100,
            memtrace_benches::analysis::N_SITES
        );
    }
}
