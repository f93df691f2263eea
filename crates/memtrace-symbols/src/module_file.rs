//! What was loaded: a file and the build id that was found in memory.

use std::path::PathBuf;

/// A file that was loaded into a process, as the process saw it.
///
/// The build id is what keeps names honest: a program that was rebuilt while its predecessor runs
/// lies at the same path, and every address would get a wrong name. With the build id of the loaded
/// image at hand, the file on disk is read only if it is the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModuleFile {
    /// Where the file lies; `/proc/self/exe` will do. Empty for memory that no file backs.
    pub path: PathBuf,
    /// The bytes of the GNU build id note as they stand in memory; `None` if they are not known, in
    /// which case the file at `path` is taken on trust.
    pub build_id: Option<Vec<u8>>,
}

impl ModuleFile {
    /// A file that is taken on trust, without a build id to compare.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        ModuleFile { path: path.into(), build_id: None }
    }

    /// The same file, to be read only if its build id is this one.
    #[must_use]
    pub fn with_build_id(self, build_id: impl Into<Vec<u8>>) -> Self {
        ModuleFile { build_id: Some(build_id.into()), ..self }
    }
}
