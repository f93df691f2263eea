//! Asking cargo to build, and where it put what it built.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why cargo did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CargoError {
    #[error("`{command}` could not be run")]
    NotRun { command: String, source: io::Error },
    #[error("`{command}` failed: {status}")]
    Failed { command: String, status: std::process::ExitStatus },
    #[error("what `{command}` wrote was not understood")]
    NotUnderstood { command: String, source: serde_json::Error },
    #[error("`{command}` built no program named {name}; it built: {}", built.join(", "))]
    NotBuilt { command: String, name: String, built: Vec<String> },
}

/// What cargo knows of this workspace.
pub(crate) struct Workspace {
    /// Where cargo builds: `CARGO_TARGET_DIR` and its like are honoured.
    pub(crate) target_dir: PathBuf,
    /// The JSON document that says all that cargo knows.
    pub(crate) metadata: Vec<u8>,
}

/// Programs that cargo has built.
pub(crate) struct Programs {
    command: String,
    paths: BTreeMap<String, PathBuf>,
}

impl Workspace {
    /// The folder of this workspace.
    pub(crate) fn root() -> &'static Path {
        let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
        xtask.parent().unwrap_or(xtask)
    }

    /// Asks cargo.
    pub(crate) fn read() -> Result<Self, CargoError> {
        #[derive(Deserialize)]
        struct Known {
            target_directory: PathBuf,
        }
        let (command, metadata) = run(&["metadata".into(), "--format-version=1".into()])?;
        let known: Known = serde_json::from_slice(&metadata)
            .map_err(|source| CargoError::NotUnderstood { command, source })?;
        Ok(Self { target_dir: known.target_directory, metadata })
    }
}

impl Programs {
    /// Runs `cargo build --release` with more arguments.
    pub(crate) fn build(args: &[OsString]) -> Result<Self, CargoError> {
        let fixed = ["build", "--release", "--message-format=json-render-diagnostics"];
        let fixed = fixed.map(OsString::from);
        let (command, messages) = run(&[&fixed, args].concat())?;
        match executables(&messages) {
            Ok(paths) => Ok(Self { command, paths }),
            Err(source) => Err(CargoError::NotUnderstood { command, source }),
        }
    }

    /// Returns the path of a program.
    pub(crate) fn path(&self, name: &str) -> Result<&Path, CargoError> {
        self.paths.get(name).map(PathBuf::as_path).ok_or_else(|| CargoError::NotBuilt {
            command: self.command.clone(),
            name: name.to_owned(),
            built: self.paths.keys().cloned().collect(),
        })
    }
}

/// Runs cargo in the workspace's folder and returns the command line and what it wrote.
fn run(args: &[OsString]) -> Result<(String, Vec<u8>), CargoError> {
    // The cargo that runs this program, if it tells.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = args.iter().map(|arg| arg.to_string_lossy());
    let command = words.fold(String::from("cargo"), |line, word| line + " " + &word);
    let output = Command::new(cargo)
        .args(args)
        .current_dir(Workspace::root())
        .stderr(Stdio::inherit())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok((command, output.stdout)),
        Ok(output) => Err(CargoError::Failed { command, status: output.status }),
        Err(source) => Err(CargoError::NotRun { command, source }),
    }
}

/// Finds the programs in cargo's messages, which are lines of JSON.
fn executables(messages: &[u8]) -> Result<BTreeMap<String, PathBuf>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Message {
        target: Option<Target>,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    let mut paths = BTreeMap::new();
    for message in serde_json::Deserializer::from_slice(messages).into_iter::<Message>() {
        if let Message { target: Some(target), executable: Some(path) } = message? {
            paths.insert(target.name, path);
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"untraced"},"executable":"/t/untraced"}
{"reason":"build-finished","success":true}
"#;

    #[test]
    fn programs_are_found_among_the_messages_and_an_absent_one_is_answered_with_those_built() {
        let paths = executables(MESSAGES.as_bytes()).unwrap();
        let programs = Programs { command: String::from("cargo build"), paths };
        assert_eq!(programs.path("untraced").unwrap(), Path::new("/t/untraced"));
        let error = programs.path("serde").unwrap_err().to_string();
        assert_eq!(error, "`cargo build` built no program named serde; it built: untraced");
    }
}
