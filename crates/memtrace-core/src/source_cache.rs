//! Lines of source files.

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Frame;

/// Files larger than this, in bytes, are taken for something other than source.
const MAX_FILE_LEN: u64 = 16 << 20;

/// Source files, read when first asked for and then kept.
///
/// A relative filename is looked for in the frame's compilation directory, then in the current
/// directory. A file is tried once; one that is missing, not a regular file, or larger than
/// 16 MiB has no lines. Filenames in angle brackets are never looked for.
pub struct SourceCache {
    reads_files: bool,
    /// Files given by hand, by filename as frames spell it.
    given: HashMap<String, SourceText>,
    /// Files tried so far, by path.
    read: Mutex<HashMap<PathBuf, Option<Arc<SourceText>>>>,
}

impl SourceCache {
    /// Makes an empty cache that reads files of this machine.
    pub fn new() -> Self {
        Self { reads_files: true, given: HashMap::new(), read: Mutex::default() }
    }

    /// Makes a cache that opens no file and knows only what is [inserted](SourceCache::insert):
    /// for snapshots of other machines, and for those of doubtful origin, whose filenames should
    /// not be opened.
    pub fn without_files() -> Self {
        Self { reads_files: false, ..Self::new() }
    }

    /// Gives the text of a file, under the name that frames have.
    pub fn insert(&mut self, filename: impl Into<String>, text: impl Into<String>) {
        self.given.insert(filename.into(), SourceText::new(text.into()));
    }

    /// The source line of a frame, without blanks at either end; `None` if it is not known or
    /// blank.
    ///
    /// **Cost.** Reads the file if this is the first call for it.
    pub fn line(&self, frame: &Frame) -> Option<String> {
        if frame.lineno == 0 {
            return None;
        }
        let line = match self.given.get(&*frame.filename) {
            Some(text) => text.line(frame.lineno)?.to_owned(),
            None if self.reads_files && frame.has_file() => {
                self.read_for(frame)?.line(frame.lineno)?.to_owned()
            }
            None => return None,
        };
        Some(line)
    }

    fn read_for(&self, frame: &Frame) -> Option<Arc<SourceText>> {
        let filename = Path::new(&*frame.filename);
        let in_directory = frame.directory.as_deref().and_then(|directory| {
            filename.is_relative().then(|| self.read_once(&Path::new(directory).join(filename)))?
        });
        in_directory.or_else(|| {
            // The absolute path, so that a later change of the current directory does no harm.
            let current =
                if filename.is_relative() { env::current_dir().ok()? } else { PathBuf::new() };
            self.read_once(&current.join(filename))
        })
    }

    fn read_once(&self, path: &Path) -> Option<Arc<SourceText>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = read.get(path) {
            return known.clone();
        }
        let text = SourceText::read(path).map(Arc::new);
        read.insert(path.to_owned(), text.clone());
        text
    }
}

impl Default for SourceCache {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SourceCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceCache")
            .field("reads_files", &self.reads_files)
            .field("n_given", &self.given.len())
            .finish_non_exhaustive()
    }
}

struct SourceText {
    text: String,
    /// Where each line starts.
    starts: Vec<usize>,
}

impl SourceText {
    fn new(text: String) -> Self {
        let after_line_ends = text.match_indices('\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(after_line_ends).collect();
        Self { text, starts }
    }

    fn read(path: &Path) -> Option<Self> {
        // Asked before opening, for opening a pipe would wait for its other end.
        let metadata = path.metadata().ok()?;
        if !metadata.is_file() || metadata.len() > MAX_FILE_LEN {
            return None;
        }
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(MAX_FILE_LEN).read_to_end(&mut bytes).ok()?;
        Some(Self::new(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// A line without blanks at either end, or `None` if there is none or nothing is left.
    fn line(&self, lineno: u32) -> Option<&str> {
        let index = usize::try_from(lineno).ok()?.checked_sub(1)?;
        let start = *self.starts.get(index)?;
        let end = self.starts.get(index + 1).copied().unwrap_or(self.text.len());
        let line = self.text[start..end].trim_matches(is_blank);
        (!line.is_empty()).then_some(line)
    }
}

/// What Python strips: white space as Unicode defines it, and the four ASCII separators.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_count_from_one_and_blank_ones_are_none() {
        let mut sources = SourceCache::without_files();
        sources.insert("a.rs", "fn main() {\r\n\n\t let x = 1; \n}");
        let line = |lineno| sources.line(&Frame::new("a.rs", lineno));
        assert_eq!(line(0), None);
        assert_eq!(line(1).as_deref(), Some("fn main() {"));
        assert_eq!(line(2), None);
        assert_eq!(line(3).as_deref(), Some("let x = 1;"));
        assert_eq!(line(4).as_deref(), Some("}"));
        assert_eq!(line(5), None);
        assert_eq!(line(u32::MAX), None);
        assert_eq!(sources.line(&Frame::new("b.rs", 1)), None);
    }

    #[test]
    fn a_relative_filename_lies_in_the_directory_of_its_frame() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("src")).unwrap();
        fs::write(directory.path().join("src/odd.rs"), b"one\ntwo \xff\n").unwrap();
        let frame = Frame::new("src/odd.rs", 1).with_directory(directory.path().to_str().unwrap());
        assert_eq!(SourceCache::new().line(&frame).as_deref(), Some("one"));
        assert_eq!(SourceCache::without_files().line(&frame), None);
        assert_eq!(SourceCache::new().line(&Frame::new("src/odd.rs", 1)), None);
        // Cargo runs tests in the package's own directory.
        let here = Frame::new("src/lib.rs", 1).with_directory("/nowhere");
        assert!(SourceCache::new().line(&here).unwrap().starts_with("//! "));
    }

    #[test]
    fn a_file_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.rs");
        fs::write(&path, "before\n").unwrap();
        let frame = Frame::new(path.to_str().unwrap(), 1);
        let missing = Frame::new(directory.path().join("b.rs").to_str().unwrap(), 1);
        let sources = SourceCache::new();
        assert_eq!(sources.line(&frame).as_deref(), Some("before"));
        assert_eq!(sources.line(&missing), None);
        fs::write(&path, "after\n").unwrap();
        fs::write(&*missing.filename, "late\n").unwrap();
        assert_eq!(sources.line(&frame).as_deref(), Some("before"));
        assert_eq!(sources.line(&missing), None);
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        assert_eq!(SourceCache::new().line(&Frame::new("/dev/zero", 1)), None);
        assert_eq!(SourceCache::new().line(&Frame::new("/", 1)), None);
        assert_eq!(SourceCache::new().line(&Frame::new("<unknown>", 1)), None);
    }
}
