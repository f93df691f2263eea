//! Running a benchmark's program and reading what it says.

use memtrace_benches::LineError;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// Why a program's figures are not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("{program} could not be run")]
    NotRun { program: String, source: io::Error },
    #[error("{program} failed: {status}")]
    Failed { program: String, status: ExitStatus },
    #[error("{program} did not say what it measured")]
    NothingSaid { program: String, source: LineError },
}

/// Runs a command and returns what it wrote on its standard output.
pub(super) fn run(command: &mut Command) -> Result<String, RunError> {
    let program = name(command);
    match command.stderr(Stdio::inherit()).output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => Err(RunError::Failed { program, status: output.status }),
        Err(source) => Err(RunError::NotRun { program, source }),
    }
}

/// Runs a command and reads the figures among what it wrote.
pub(super) fn measure<T>(
    command: &mut Command,
    read: impl FnOnce(&str) -> Result<T, LineError>,
) -> Result<T, RunError> {
    let output = run(command)?;
    read(&output).map_err(|source| RunError::NothingSaid { program: name(command), source })
}

fn name(command: &Command) -> String {
    Path::new(command.get_program()).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use memtrace_benches::Count;

    #[test]
    fn a_program_that_fails_or_is_not_there_or_says_nothing_is_named() {
        let message = |program: &str| {
            measure(&mut Command::new(program), Count::from_output).unwrap_err().to_string()
        };
        assert_eq!(message("false"), "false failed: exit status: 1");
        assert_eq!(message("/no/such/program"), "/no/such/program could not be run");
        assert_eq!(message("true"), "true did not say what it measured");
    }
}
