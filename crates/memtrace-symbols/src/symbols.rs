//! The answer: frames, and why some of it may be missing.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything known about one address.
///
/// `frames` is empty only if not even the function is known. `missing` says why there is no file
/// and line, and is `None` if they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Symbols {
    /// The innermost inlined function first, the physical function last.
    pub frames: Vec<SymbolFrame>,
    /// Why files, lines or inlined frames are missing, if any are.
    pub missing: Option<Missing>,
}

impl Symbols {
    pub(crate) fn missing(missing: Missing) -> Self {
        Symbols { frames: Vec::new(), missing: Some(missing) }
    }

    /// Returns the frames without those of a global allocator that the compiler has inlined into the function
    /// that allocates: without all that was inlined into `__rust_alloc` or its like, and without that.
    ///
    /// For stacks that begin where the program calls its allocator.
    pub fn without_allocator(&self) -> &[SymbolFrame] {
        const WAYS_IN: [&str; 3] = ["__rust_alloc", "__rust_alloc_zeroed", "__rust_realloc"];
        let is_way_in = |frame: &SymbolFrame| {
            let name = frame.function.as_deref().and_then(|path| path.rsplit("::").next());
            frame.is_inlined && name.is_some_and(|name| WAYS_IN.contains(&name))
        };
        // What it was inlined into is left: an inlined frame is never the last.
        let way_in = self.frames.iter().position(is_way_in);
        way_in.and_then(|n| self.frames.get(n + 1..)).unwrap_or(&self.frames)
    }
}

/// One function at one place in its source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SymbolFrame {
    /// The demangled name without the hash, `alloc::vec::Vec<T,A>::push`. For an inlined function
    /// of a program built with `debug = "line-tables-only"` only the last part of the name, with
    /// its generic arguments, is known.
    pub function: Option<Arc<str>>,
    /// The source file: relative to `directory` for crates of the workspace that was built, as in
    /// `file!()` and panic messages, else absolute.
    pub file: Option<Arc<str>>,
    /// The compilation directory, the workspace root, if `file` is relative to it.
    pub directory: Option<Arc<str>>,
    /// The line in `file`, counted from 1; `None` if the compiler gave none.
    pub line: Option<u32>,
    /// Whether the function was inlined into that of the next frame.
    pub is_inlined: bool,
}

/// Why something is not known about an address.
///
/// Its text is one line that also says what to do, where something can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// No debug information covers the address; the function may still be known from the symbol
    /// table.
    NoDebugInfo {
        /// What was looked for and not found, or could not be read.
        reason: Arc<str>,
    },
    /// The file cannot be read, or no file backs the module.
    FileUnavailable {
        /// The path as given.
        path: PathBuf,
        /// Why the file was not read.
        reason: Arc<str>,
    },
    /// The file at the path is not the one that was loaded: its build id differs. Nothing in it may
    /// be used.
    FileReplaced {
        /// The path as given.
        path: PathBuf,
    },
    /// There is no debug information, and no symbol covers the address: the file was stripped.
    NotInSymbolTable {
        /// Why debug information did not help either.
        reason: Arc<str>,
    },
    /// No executable segment of the file contains the address.
    OutsideCode,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::NoDebugInfo { reason } => write!(
                f,
                "no debug information ({reason}): set `debug = \"line-tables-only\"` in the \
                 profile that is built"
            ),
            Missing::FileUnavailable { path, reason } if path.as_os_str().is_empty() => {
                write!(f, "no module file: {reason}")
            }
            Missing::FileUnavailable { path, reason } => {
                write!(f, "module file {} cannot be read: {reason}", path.display())
            }
            Missing::FileReplaced { path } => write!(
                f,
                "module file {} was replaced since it was loaded (its build id differs): restart \
                 the program, or keep the file it was started from",
                path.display()
            ),
            Missing::NotInSymbolTable { reason } => write!(
                f,
                "no symbol covers the address and there is no debug information ({reason}): keep \
                 the symbols, `strip = \"none\"`"
            ),
            Missing::OutsideCode => {
                f.write_str("the address lies in no executable segment of the module file")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(names: &[(&str, bool)]) -> Vec<SymbolFrame> {
        let frame = |&(name, is_inlined): &(&str, bool)| SymbolFrame {
            function: Some(name.into()),
            is_inlined,
            ..SymbolFrame::default()
        };
        names.iter().map(frame).collect()
    }

    #[test]
    fn an_allocator_that_was_inlined_is_left_out_and_nothing_else() {
        let of = |names: &[(&str, bool)]| {
            let symbols = Symbols { frames: frames(names), missing: None };
            let left = symbols.without_allocator().iter();
            left.map(|frame| frame.function.clone().unwrap_or_default()).collect::<Vec<_>>()
        };
        for way_in in
            ["__rust_realloc", "__rustc::__rust_alloc", "__rustc[1f2e]::__rust_alloc_zeroed"]
        {
            let all = [("realloc", true), (way_in, true), ("grow", true), ("main", false)];
            assert_eq!(of(&all), ["grow".into(), Arc::from("main")]);
            assert_eq!(
                of(&[("alloc", true), (way_in, false)]),
                ["alloc".into(), Arc::from(way_in)]
            );
        }
        assert_eq!(of(&[("mine::rust_alloc", true), ("main", false)]).len(), 2);
        assert!(of(&[]).is_empty());
    }
}
