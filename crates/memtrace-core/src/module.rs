//! An executable or library that code was loaded from.

use std::sync::Arc;

/// An executable or library that code was loaded from.
///
/// ```
/// use memtrace_core::Module;
///
/// let module = Module::new("/usr/lib/libfoo.so.1").with_build_id([0xab, 0xcd]);
/// assert_eq!(module.name(), "libfoo.so.1");
/// assert_eq!(module.build_id.as_deref(), Some(&[0xab, 0xcd][..]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Module {
    /// Where it was loaded from.
    pub path: Arc<str>,
    /// What tells this build from others, as its linker wrote it (the GNU build id of an ELF
    /// file).
    pub build_id: Option<Arc<[u8]>>,
}

impl Module {
    /// Makes a module of which only the path is known.
    pub fn new(path: impl Into<Arc<str>>) -> Self {
        Self { path: path.into(), build_id: None }
    }

    /// Sets the build id.
    #[must_use]
    pub fn with_build_id(mut self, build_id: impl Into<Arc<[u8]>>) -> Self {
        self.build_id = Some(build_id.into());
        self
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        let name = self.path.rsplit(['/', '\\']).next().unwrap_or_default();
        if name.is_empty() { &self.path } else { name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_last_part_of_a_path_and_never_empty() {
        assert_eq!(Module::new("/bin/app").name(), "app");
        assert_eq!(Module::new("C:\\app.exe").name(), "app.exe");
        assert_eq!(Module::new("app").name(), "app");
        assert_eq!(Module::new("/odd/").name(), "/odd/");
    }
}
