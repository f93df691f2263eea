//! Where debug information lies that was split off a file.
//!
//! Distributions ship programs without debug sections and put these into files of their own, which
//! are found as debuggers find them:
//!
//! 1. by build id, `DIR/.build-id/ab/cdef….debug` in each debug directory;
//! 2. by the name in `.gnu_debuglink`: beside the file, in `.debug` beside it, and in each debug
//!    directory under the file's own path.
//!
//! A file found this way is used only if it belongs to the program: its build id must be the same
//! or, where there is none, its checksum must be the one in the link.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::elf::ElfFile;

/// Where debug files are looked for unless told otherwise.
pub(crate) const DEBUG_DIRECTORY: &str = "/usr/lib/debug";

/// Opens the separate debug file of `file`, which was opened from `path`.
pub(crate) fn open(file: &ElfFile, path: &Path, debug_directories: &[PathBuf]) -> Option<ElfFile> {
    let of_same_build = |candidate: PathBuf| {
        let debug = ElfFile::open(&candidate).ok()?;
        (debug.has_debug_info() && belongs_to(&debug, file)).then_some(debug)
    };
    by_build_id(file, debug_directories)
        .chain(by_link(file, path, debug_directories))
        .find_map(of_same_build)
}

fn belongs_to(debug: &ElfFile, file: &ElfFile) -> bool {
    match (file.build_id(), debug.build_id()) {
        (Some(of_file), Some(of_debug)) => of_file == of_debug,
        _ => file.debug_link().is_some_and(|(_, checksum)| checksum == debug.checksum()),
    }
}

fn by_build_id(file: &ElfFile, directories: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    let name = file.build_id().and_then(|id| id.split_first()).map(|(first, rest)| {
        let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(".build-id/{first:02x}/{rest}.debug")
    });
    name.into_iter().flat_map(|name| directories.iter().map(move |dir| dir.join(&name)))
}

fn by_link(file: &ElfFile, path: &Path, directories: &[PathBuf]) -> Vec<PathBuf> {
    let Some((name, _)) = file.debug_link() else { return Vec::new() };
    // Only a plain name is looked for: a link that leads elsewhere is no link a tool has written.
    if name.is_empty() || name.contains(&b'/') {
        return Vec::new();
    }
    let name = OsStr::from_bytes(name);
    let Some(parent) = path.canonicalize().ok().and_then(|path| Some(path.parent()?.to_owned()))
    else {
        return Vec::new();
    };
    let mut candidates = vec![parent.join(name), parent.join(".debug").join(name)];
    candidates.extend(
        directories.iter().map(|directory| {
            directory.join(parent.strip_prefix("/").unwrap_or(&parent)).join(name)
        }),
    );
    candidates
}
