//! What workloads work on: a JSON document and a Rust source, of this workspace.

use crate::cargo::Workspace;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Crates whose source is parsed, together.
const PARSED_CRATES: [&str; 3] = ["memtrace", "memtrace-export", "memtrace-symbols"];

/// What workloads work on, as files in a folder.
pub(super) struct Inputs {
    pub(super) dir: PathBuf,
    /// Bytes of the JSON document.
    pub(super) document_len: usize,
    /// Bytes of the Rust source.
    pub(super) source_len: usize,
}

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{} could not be read or written", path.display())]
pub(super) struct InputError {
    path: PathBuf,
    source: io::Error,
}

impl Inputs {
    /// Writes them: all that cargo knows of the workspace, and the source of some of its crates.
    pub(super) fn write(workspace: &Workspace) -> Result<Self, InputError> {
        let dir = workspace.target_dir.join("bench").join("inputs");
        let source = source(&Workspace::root().join("crates"))?;
        let failed = |source| InputError { path: dir.clone(), source };
        fs::create_dir_all(&dir)
            .and_then(|()| fs::write(dir.join("document.json"), &workspace.metadata))
            .and_then(|()| fs::write(dir.join("source.rs"), &source))
            .map_err(failed)?;
        Ok(Self { dir, document_len: workspace.metadata.len(), source_len: source.len() })
    }
}

/// One source with a module for each file.
fn source(crates: &Path) -> Result<String, InputError> {
    let mut paths = Vec::new();
    for name in PARSED_CRATES {
        list(&crates.join(name).join("src"), &mut paths)?;
    }
    paths.sort();
    let mut source = String::new();
    for (i, path) in paths.iter().enumerate() {
        let failed = |source| InputError { path: path.clone(), source };
        let text = fs::read_to_string(path).map_err(failed)?;
        source += &format!("mod file_{i} {{\n{text}\n}}\n");
    }
    Ok(source)
}

fn list(dir: &Path, paths: &mut Vec<PathBuf>) -> Result<(), InputError> {
    let failed = |source| InputError { path: dir.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            list(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_has_a_module_for_each_file_of_the_crates() {
        let source = source(&Workspace::root().join("crates")).unwrap();
        assert!(source.starts_with("mod file_0 {\n") && source.ends_with("\n}\n"));
        assert!(source.len() > 100_000, "{}", source.len());
        assert!(source.contains("\nmod file_20 {\n"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = source(Path::new("/no/such")).unwrap_err().to_string();
        assert_eq!(error, "/no/such/memtrace/src could not be read or written");
    }
}
