//! One frame of a stack, with its names.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::python_repr::quoted;
use crate::{MissingSource, Module};

/// One frame of a stack: a source line, and what else is known about it.
///
/// Equality, order and hash use `(filename, lineno)` only, as in `tracemalloc`: two functions
/// that share a line, or two instances of a generic function, are one place in the source.
/// Filenames are ordered by code point.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Frame {
    /// The source file; relative for crates of the built workspace, absolute for others. When
    /// the file is unknown, a name in angle brackets, such as `<my_crate::cache::insert>`,
    /// `<libfoo.so+0x1234>` or `<unknown>`.
    pub filename: Arc<str>,
    /// The line, from 1; 0 when it is unknown or was erased by grouping by file.
    pub lineno: u32,
    /// The function's path, demangled and without hash.
    pub function: Option<Arc<str>>,
    /// The executable or library that holds the code.
    pub module: Option<Arc<Module>>,
    /// The address in the module's file, of a frame that has not been named yet; see
    /// [`Snapshot::name_frames`](crate::Snapshot::name_frames).
    pub file_addr: Option<u64>,
    /// The compilation directory: where a relative `filename` lies.
    pub directory: Option<Arc<str>>,
    /// Whether the function was inlined into the next older frame.
    pub is_inlined: bool,
    /// Why file and line are unknown, when they are.
    pub missing: Option<MissingSource>,
}

impl Frame {
    /// Makes a frame of which only the place is known.
    pub fn new(filename: impl Into<Arc<str>>, lineno: u32) -> Self {
        Self {
            filename: filename.into(),
            lineno,
            function: None,
            module: None,
            file_addr: None,
            directory: None,
            is_inlined: false,
            missing: None,
        }
    }

    /// Sets the function's path.
    #[must_use]
    pub fn with_function(mut self, function: impl Into<Arc<str>>) -> Self {
        self.function = Some(function.into());
        self
    }

    /// Sets the executable or library that holds the code.
    #[must_use]
    pub fn with_module(mut self, module: impl Into<Arc<Module>>) -> Self {
        self.module = Some(module.into());
        self
    }

    /// Makes a frame that is to be named later, elsewhere: an address in the file of a module. Its
    /// filename is `<libfoo.so+0x1234>` until then.
    pub fn unnamed(module: impl Into<Arc<Module>>, file_addr: u64) -> Self {
        let module = module.into();
        let mut frame = Self::new(format!("<{}+{file_addr:#x}>", module.name()), 0);
        frame.module = Some(module);
        frame.file_addr = Some(file_addr);
        frame.with_missing(MissingSource::NotNamed)
    }

    /// Sets the compilation directory.
    #[must_use]
    pub fn with_directory(mut self, directory: impl Into<Arc<str>>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Names a frame that [`Frame::unnamed`] made, as far as names were found: its function, and its
    /// file with the line. Where there is no file, `missing` says why, and the filename is the
    /// function, or else the address as before, in angle brackets.
    #[must_use]
    pub fn named(
        mut self,
        function: Option<Arc<str>>,
        file: Option<(Arc<str>, u32)>,
        missing: MissingSource,
    ) -> Self {
        self.missing = None;
        match (file, &function) {
            (Some((filename, lineno)), _) => (self.filename, self.lineno) = (filename, lineno),
            (None, Some(function)) => {
                self.filename = format!("<{function}>").into();
                self.missing = Some(missing);
            }
            (None, None) => self.missing = Some(missing),
        }
        self.function = function;
        self.file_addr = None;
        self
    }

    /// Says whether the function was inlined into the next older frame.
    #[must_use]
    pub fn with_inlined(mut self, is_inlined: bool) -> Self {
        self.is_inlined = is_inlined;
        self
    }

    /// Sets the reason why file and line are unknown.
    #[must_use]
    pub fn with_missing(mut self, missing: MissingSource) -> Self {
        self.missing = Some(missing);
        self
    }

    /// Whether a source file is known: no reason for its absence is given, and `filename` is not
    /// a name in angle brackets.
    pub fn has_file(&self) -> bool {
        self.missing.is_none() && !is_pseudo_filename(&self.filename)
    }

    /// The text that Python's `repr` gives: `<Frame filename='f' lineno=1>`.
    pub fn python_repr(&self) -> String {
        format!("<Frame filename={} lineno={}>", quoted(&self.filename), self.lineno)
    }
}

/// Whether a filename is only a stand-in, in angle brackets, for one that is unknown.
pub(crate) fn is_pseudo_filename(filename: &str) -> bool {
    filename.starts_with('<') && filename.ends_with('>')
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.lineno == other.lineno && self.filename == other.filename
    }
}

impl Eq for Frame {}

impl PartialOrd for Frame {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Frame {
    fn cmp(&self, other: &Self) -> Ordering {
        self.filename.cmp(&other.filename).then(self.lineno.cmp(&other.lineno))
    }
}

impl Hash for Frame {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.filename.hash(state);
        self.lineno.hash(state);
    }
}

/// Writes `filename:lineno`.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.filename, self.lineno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_compared_by_place_only() {
        let plain = Frame::new("a.rs", 3);
        let named = Frame::new("a.rs", 3)
            .with_function("f")
            .with_module(Module::new("m"))
            .with_inlined(true);
        assert_eq!(plain, named);
        assert_eq!(plain.cmp(&named), Ordering::Equal);
        assert!(Frame::new("a.rs", 9) < Frame::new("a.rs", 10));
        assert!(Frame::new("\u{ffff}.rs", 0) < Frame::new("\u{1f600}.rs", 0));
    }

    #[test]
    fn a_name_in_angle_brackets_or_a_reason_means_no_file() {
        assert!(Frame::new("src/a.rs", 1).has_file());
        assert!(!Frame::new("<app::main>", 0).has_file());
        assert!(!Frame::new("a.rs", 0).with_missing(MissingSource::NoDebugInfo).has_file());
    }

    #[test]
    fn a_frame_is_named_as_far_as_names_were_found() {
        let unnamed = || Frame::unnamed(Module::new("/lib/libfoo.so"), 0x12);
        let name = || Some(Arc::from("foo::f"));
        let reason = MissingSource::NoDebugInfo;
        let shown = |frame: Frame| (frame.to_string(), frame.missing, frame.file_addr);
        assert_eq!(
            shown(unnamed()),
            ("<libfoo.so+0x12>:0".to_owned(), Some(MissingSource::NotNamed), Some(0x12))
        );
        let file = Some((Arc::from("src/foo.rs"), 3));
        assert_eq!(
            shown(unnamed().named(name(), file, reason)),
            ("src/foo.rs:3".to_owned(), None, None)
        );
        assert_eq!(
            shown(unnamed().named(name(), None, reason)),
            ("<foo::f>:0".to_owned(), Some(reason), None)
        );
        assert_eq!(
            shown(unnamed().named(None, None, reason)),
            ("<libfoo.so+0x12>:0".to_owned(), Some(reason), None)
        );
    }

    #[test]
    fn the_python_form_quotes_as_python_does() {
        assert_eq!(Frame::new("it's", 1).python_repr(), "<Frame filename=\"it's\" lineno=1>");
        assert_eq!(Frame::new("é\n", 0).python_repr(), "<Frame filename='é\\n' lineno=0>");
        assert_eq!(Frame::new("a.rs", 7).to_string(), "a.rs:7");
    }
}
