//! Which frame of a stack is "the line of your code".
//!
//! The newest frame of nearly every allocation in Rust lies in `alloc`, `std` or `hashbrown`:
//! the machinery by which the program asked, not the place that asked. An [`Attribution`] hides
//! that machinery. It drops the run of hidden frames at the *newest* end of a stack and leaves
//! the rest alone, also hidden frames further out.
//!
//! **I1.** At least one frame of a stack always remains: if every frame is hidden, none is.
//!
//! **I2.** An attribution is plain data (patterns and names), so that it can be saved with a
//! snapshot.

use std::sync::Arc;

use crate::frame::is_pseudo_filename;
use crate::function_path::head_crate;
use crate::stack_table::{FrameRecord, StackTable};
use crate::{Frame, Pattern, Traceback};

/// The rule that finds, in each stack, the frame that statistics blame: the newest one that is
/// not hidden, or plainly the newest if all are.
///
/// The default hides
///
/// - frames whose file is one of Rust's own library sources or of the `hashbrown` package:
///   `/rustc/*`, `*/lib/rustlib/src/rust/*`, `/rust/deps/*`, `*/hashbrown-*/src/*`;
/// - the symbols that lead to the global allocator (`__rust_alloc` and the like, and everything
///   in `__rustc`), and the crates that record allocations: `memtrace_alloc`, `memtrace_unwind`
///   and `memtrace_heap`;
/// - among frames *without* a file, functions of `alloc`, `core`, `std` and `hashbrown`.
///
/// ```
/// use memtrace_core::{Attribution, Frame};
///
/// let rule = Attribution::default().hide_crate("my_buffers");
/// assert!(rule.hides(&Frame::new("/rustc/59807616e/library/alloc/src/vec/mod.rs", 1234)));
/// assert!(rule.hides(&Frame::new("src/buffer.rs", 9).with_function("my_buffers::Buffer::grow")));
/// assert!(!rule.hides(&Frame::new("src/cache.rs", 42).with_function("my_app::cache::insert")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribution {
    /// Patterns for filenames.
    pub(crate) files: Vec<Pattern>,
    /// Patterns for function paths.
    pub(crate) functions: Vec<Pattern>,
    /// Crates whose functions are hidden.
    pub(crate) crates: Vec<String>,
    /// Crates whose functions are hidden if their file is unknown.
    pub(crate) fileless_crates: Vec<String>,
    pub(crate) is_workspace_only: bool,
}

impl Default for Attribution {
    fn default() -> Self {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(*text)).collect();
        let names = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self {
            files: patterns(&[
                "/rustc/*",
                "*/lib/rustlib/src/rust/*",
                "/rust/deps/*",
                "*/hashbrown-*/src/*",
                // The hook may be inlined into the function that allocates; a build with line tables
                // alone then knows its functions by bare names like `alloc`.
                "*memtrace-alloc*/src/*",
                "*memtrace-unwind*/src/*",
                "*memtrace-heap*/src/*",
            ]),
            functions: patterns(&[
                "__rust_alloc",
                "__rust_alloc_zeroed",
                "__rust_realloc",
                "__rustc::*",
            ]),
            crates: names(&["__rustc", "memtrace_alloc", "memtrace_unwind", "memtrace_heap"]),
            fileless_crates: names(&["alloc", "core", "std", "hashbrown"]),
            is_workspace_only: false,
        }
    }
}

impl Attribution {
    /// Hides nothing: the newest frame is blamed, whatever it is, as in `tracemalloc`.
    pub fn newest_frame() -> Self {
        Self {
            files: Vec::new(),
            functions: Vec::new(),
            crates: Vec::new(),
            fileless_crates: Vec::new(),
            is_workspace_only: false,
        }
    }

    /// Also hides frames whose filename matches the pattern.
    #[must_use]
    pub fn hide_files(mut self, pattern: &str) -> Self {
        self.files.push(Pattern::new(pattern));
        self
    }

    /// Also hides frames whose function path matches the pattern.
    #[must_use]
    pub fn hide_functions(mut self, pattern: &str) -> Self {
        self.functions.push(Pattern::new(pattern));
        self
    }

    /// Also hides functions of this crate, including its types' methods: both
    /// `name::f` and `<name::Type as Trait>::f`.
    #[must_use]
    pub fn hide_crate(mut self, name: &str) -> Self {
        self.crates.push(name.to_owned());
        self
    }

    /// Blames only frames of the built workspace: those with a filename that is relative to a known
    /// [`Frame::directory`]. In a stack that has none the other rules decide alone.
    #[must_use]
    pub fn only_workspace(mut self) -> Self {
        self.is_workspace_only = true;
        self
    }

    /// Whether the rule hides this frame, leaving [`Attribution::only_workspace`] aside.
    pub fn hides(&self, frame: &Frame) -> bool {
        self.hides_parts(&frame.filename, frame.function.as_deref(), frame.has_file())
    }

    /// The frame that this rule blames for what the stack holds; `None` only without any frame.
    pub fn attributed<'a>(&self, traceback: &'a Traceback) -> Option<&'a Frame> {
        let newest_first = || traceback.iter().rev();
        let n_hidden = self.n_hidden_by(newest_first().map(|frame| {
            let has_directory = frame.directory.is_some();
            (self.hides(frame), is_in_workspace(&frame.filename, has_directory))
        }));
        newest_first().nth(n_hidden)
    }

    fn hides_parts(&self, filename: &str, function: Option<&str>, has_file: bool) -> bool {
        (has_file && self.hides_file(filename))
            || function
                .or_else(|| if has_file { None } else { function_in(filename) })
                .is_some_and(|function| self.hides_function(function).applies(has_file))
    }

    fn hides_file(&self, filename: &str) -> bool {
        self.files.iter().any(|pattern| pattern.matches(filename))
    }

    fn hides_function(&self, function: &str) -> Hides {
        if self.functions.iter().any(|pattern| pattern.matches(function)) {
            return Hides::Always;
        }
        match head_crate(function) {
            Some(head) if self.crates.iter().any(|name| name == head) => Hides::Always,
            Some(head) if self.fileless_crates.iter().any(|name| name == head) => {
                Hides::WithoutFile
            }
            _ => Hides::Never,
        }
    }

    /// How many frames of a stack are dropped, given (hidden, in workspace) newest first.
    fn n_hidden_by(&self, mut frames: impl Iterator<Item = (bool, bool)> + Clone) -> usize {
        let in_workspace = if self.is_workspace_only {
            frames.clone().position(|(is_hidden, in_workspace)| in_workspace && !is_hidden)
        } else {
            None
        };
        in_workspace.or_else(|| frames.position(|(is_hidden, _)| !is_hidden)).unwrap_or(0)
    }
}

/// Whether a file is one of the workspace that was built: relative to a known directory. A C library
/// may have relative names, too, but nobody knows to what.
fn is_in_workspace(filename: &str, has_directory: bool) -> bool {
    let is_windows_path = filename.get(1..3).is_some_and(|s| s == ":\\" || s == ":/");
    has_directory
        && !filename.is_empty()
        && !filename.starts_with(['/', '\\'])
        && !is_windows_path
        && !is_pseudo_filename(filename)
}

/// Whether frames of a function are hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hides {
    Never,
    /// Those whose file is unknown.
    WithoutFile,
    Always,
}

impl Hides {
    fn applies(self, has_file: bool) -> bool {
        match self {
            Self::Never => false,
            Self::WithoutFile => !has_file,
            Self::Always => true,
        }
    }
}

/// The function in a stand-in for a filename, which is used where the frame names none.
fn function_in(filename: &str) -> Option<&str> {
    is_pseudo_filename(filename).then(|| &filename[1..filename.len() - 1])
}

/// How many of its newest frames an attribution hides in each stack of a table.
///
/// **Cost.** Matches the patterns once against each distinct filename and function, then looks at
/// each hidden frame of each stack.
pub(crate) fn n_hidden_by_stack(attribution: &Attribution, table: &StackTable) -> Arc<[u32]> {
    let mut verdicts = Verdicts::new(attribution, table);
    let frames: Vec<(bool, bool)> = table.records().iter().map(|r| verdicts.of(r)).collect();
    let n_hidden = |id: u32| {
        let stack = table.stack(id).iter().map(|&frame| frames[frame as usize]);
        // No stack is longer than its table, whose ids are of 32 bits.
        attribution.n_hidden_by(stack) as u32
    };
    (0..table.n_stacks() as u32).map(n_hidden).collect()
}

/// What an attribution says about the texts of a table, each asked about once.
struct Verdicts<'a> {
    attribution: &'a Attribution,
    table: &'a StackTable,
    /// For each string id: whether the file of this name is hidden.
    files: Vec<Option<bool>>,
    /// For each string id: whether the function of this name is hidden.
    functions: Vec<Option<Hides>>,
}

impl<'a> Verdicts<'a> {
    fn new(attribution: &'a Attribution, table: &'a StackTable) -> Self {
        let n_strings = table.strings().len();
        Self { attribution, table, files: vec![None; n_strings], functions: vec![None; n_strings] }
    }

    /// (hidden, in the workspace), as [`Attribution::hides_parts`] says.
    fn of(&mut self, record: &FrameRecord) -> (bool, bool) {
        let Self { attribution, table, files, functions } = self;
        let filename = table.string(record.filename);
        let has_file = record.missing.is_none() && !is_pseudo_filename(filename);
        let is_file_hidden = has_file
            && *files[record.filename as usize]
                .get_or_insert_with(|| attribution.hides_file(filename));
        let hides_function = match record.function {
            Some(id) => *functions[id as usize]
                .get_or_insert_with(|| attribution.hides_function(table.string(id))),
            None if has_file => Hides::Never,
            None => function_in(filename).map_or(Hides::Never, |f| attribution.hides_function(f)),
        };
        let in_workspace = is_in_workspace(filename, record.directory.is_some());
        (is_file_hidden || hides_function.applies(has_file), in_workspace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MissingSource;

    fn hides(frame: Frame) -> bool {
        Attribution::default().hides(&frame)
    }

    fn hides_in_file(filename: &str, function: &str) -> bool {
        hides(Frame::new(filename, 1).with_function(function))
    }

    /// The two ways in which a frame says that it has no file.
    fn hides_without_file(function: &str) -> bool {
        let by_name = hides(Frame::new(format!("<{function}>"), 0));
        let by_function = hides(Frame::new("<libapp.so+0x10>", 0).with_function(function));
        let reason = MissingSource::NoDebugInfo;
        let by_reason = hides(Frame::new("app", 0).with_function(function).with_missing(reason));
        assert_eq!((by_name, by_function), (by_reason, by_reason), "{function}");
        by_reason
    }

    #[test]
    fn library_sources_are_hidden_whatever_the_function() {
        for filename in [
            "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/alloc/src/raw_vec/mod.rs",
            "/home/u/.rustup/toolchains/1.95/lib/rustlib/src/rust/library/std/src/io/mod.rs",
            "/rust/deps/hashbrown-0.16.1/src/raw.rs",
            "/home/u/.cargo/registry/src/index/hashbrown-0.17.1/src/raw.rs",
        ] {
            assert!(hides(Frame::new(filename, 1)), "{filename}");
            assert!(hides_in_file(filename, "my_crate::Generic<T>::f"), "{filename}");
        }
        for filename in ["src/hashbrown.rs", "/home/u/rustc/a.rs", "/home/u/hashbrown-x/a.rs"] {
            assert!(!hides(Frame::new(filename, 1)), "{filename}");
        }
    }

    #[test]
    fn the_way_to_the_allocator_is_hidden_in_any_file() {
        for function in [
            "__rust_alloc",
            "__rust_realloc",
            "__rust_alloc_zeroed",
            "__rustc::__rust_alloc",
            "__rustc[1f2e]::__rdl_alloc",
            "memtrace_alloc::hook::allocated",
            "memtrace_unwind::walk",
            "memtrace_heap::Heap<P>::allocate",
            "<memtrace_alloc::Alloc<A> as core::alloc::global::GlobalAlloc>::alloc",
            "<memtrace_unwind::Walker>::step",
            "<memtrace_heap::Heap as core::alloc::global::GlobalAlloc>::realloc",
        ] {
            assert!(hides_in_file("src/lib.rs", function), "{function}");
            assert!(hides_without_file(function), "{function}");
        }
        for function in ["my_crate::__rust_alloc", "memtrace_allocator::f", "memtrace::f"] {
            assert!(!hides_in_file("src/lib.rs", function), "{function}");
        }
    }

    #[test]
    fn without_a_file_the_crate_of_the_function_decides() {
        for function in [
            "alloc::raw_vec::RawVec<T,A>::grow_one",
            "core::ops::function::FnOnce::call_once",
            "std::collections::hash::map::HashMap<K,V,S>::insert",
            "hashbrown::raw::RawTable<T,A>::reserve_rehash",
            "<alloc::vec::Vec<u8> as core::clone::Clone>::clone",
            "<alloc::vec::Vec<u8>>::push",
            "<[u8]>::to_vec",
            "<str>::to_owned",
            "<T as alloc::string::ToString>::to_string",
            "<&str as alloc::string::ToString>::to_string",
            "<[T] as alloc::slice::Concat<V>>::concat",
            "<(A, B) as core::clone::Clone>::clone",
        ] {
            assert!(hides_without_file(function), "{function}");
            assert!(!hides_in_file("src/lib.rs", function), "{function}");
        }
        for function in [
            "my_crate::cache::insert",
            "<mycrate::Foo as alloc::borrow::ToOwned>::to_owned",
            "<T as my_crate::Draw>::draw",
            "main",
            "unknown",
            "allocator::f",
        ] {
            assert!(!hides_without_file(function), "{function}");
        }
    }

    #[test]
    fn rules_can_be_added_and_left_out() {
        let frame = Frame::new("/vendor/tower/src/a.rs", 1).with_function("<tower::A>::call");
        assert!(!hides(frame.clone()));
        assert!(Attribution::default().hide_files("/vendor/*").hides(&frame));
        assert!(Attribution::default().hide_functions("*::call").hides(&frame));
        assert!(Attribution::default().hide_crate("tower").hides(&frame));
        assert!(!Attribution::newest_frame().hides(&Frame::new("/rustc/1/a.rs", 1)));
    }

    fn blamed(rule: &Attribution, oldest_first: &[&str]) -> String {
        // As the symbolizer does: the directory is known for files of the workspace.
        let frame = |name: &&str| match Frame::new(*name, 1) {
            frame if name.starts_with("src/") => frame.with_directory("/home/u/workspace"),
            frame => frame,
        };
        let frames: Vec<Frame> = oldest_first.iter().map(frame).collect();
        rule.attributed(&Traceback::new(frames)).map(Frame::to_string).unwrap_or_default()
    }

    #[test]
    fn the_newest_frame_that_is_not_hidden_is_blamed() {
        let rule = Attribution::default();
        assert_eq!(blamed(&rule, &["src/a.rs", "/rustc/1/v.rs", "/rustc/1/r.rs"]), "src/a.rs:1");
        assert_eq!(blamed(&rule, &["/rustc/1/rt.rs", "src/a.rs", "src/b.rs"]), "src/b.rs:1");
        assert_eq!(blamed(&rule, &["/rustc/1/rt.rs", "/rustc/1/r.rs"]), "/rustc/1/r.rs:1");
        assert_eq!(blamed(&rule, &[]), "");
    }

    #[test]
    fn only_the_workspace_is_blamed_where_it_occurs() {
        let rule = Attribution::default().only_workspace();
        let registry = "/home/u/.cargo/registry/serde-1.0/src/de.rs";
        assert_eq!(blamed(&rule, &["src/a.rs", registry, "/rustc/1/v.rs"]), "src/a.rs:1");
        assert_eq!(blamed(&rule, &["src/a.rs", "C:\\x\\b.rs", "<c::d>"]), "src/a.rs:1");
        assert_eq!(blamed(&rule, &[registry, "/rustc/1/v.rs"]), format!("{registry}:1"));
        assert_eq!(blamed(&rule, &["/rustc/1/v.rs"]), "/rustc/1/v.rs:1");
        // A C library's names may be relative, to nobody knows what.
        assert_eq!(blamed(&rule, &["csu/libc-start.c", "src/a.rs", registry]), "src/a.rs:1");
        assert_eq!(blamed(&rule, &["csu/libc-start.c", "<app::main>"]), "<app::main>:1");
    }
}
