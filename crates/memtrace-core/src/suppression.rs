//! Stacks that are known to grow and not wanted in reports, in the form that LeakSanitizer reads.
//!
//! ```text
//! # Interned for the life of the process, by design.
//! leak:intern::Symbols::
//! leak:^<my_app::cache::*>::insert$
//! leak:libfontconfig.so
//! leak:src/metrics.rs
//! ```
//!
//! One rule a line, `leak:` and a pattern. Lines that start with `#`, and blank ones, say nothing.
//! A pattern is looked for anywhere in a text, `*` stands for any run of characters, `^` in front
//! and `$` at the end tie it to the ends of the text. A stack is suppressed if a pattern matches
//! the module's path, the function or the source file of *any* of its frames, hidden ones included.
//!
//! In a build with line tables alone, an inlined function is known by its last name only, without its
//! path: patterns for source files match there, too.
//!
//! Where this differs from LeakSanitizer, it says more or finds more:
//!
//! - LeakSanitizer takes the first place where a piece of a pattern fits and does not come back, so
//!   that its `foo$` does not match `foofoo`. Here it does.
//! - It reads nothing after the first `$`, takes an empty pattern for one that matches everything,
//!   and a comment after a pattern for a part of it. Here these are errors.
//!
//! **I1.** A rule has at least one literal piece; only that of a pattern with a `*` can be empty.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::section::analysis;
use crate::{Frame, Snapshot, Traceback, format_size};

/// Rules for stacks that are to be left out of a search for leaks.
///
/// ```
/// use memtrace_core::{Frame, Suppressions, Traceback};
///
/// let suppressions = Suppressions::parse("# by design\nleak:intern::*::add$\n")?;
/// let add = Frame::new("src/intern.rs", 9).with_function("app::intern::Symbols::add");
/// assert!(suppressions.suppresses(&Traceback::new([Frame::new("src/main.rs", 1), add])));
///
/// let error = Suppressions::parse("race:add").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "line 1: unknown type \"race\": this is a list of leaks, whose lines read `leak:PATTERN`"
/// );
/// # Ok::<(), memtrace_core::SuppressionError>(())
/// ```
///
/// Cloning is cheap: the rules are shared.
#[derive(Clone, Debug, Default)]
pub struct Suppressions {
    rules: Arc<[Rule]>,
}

/// How much one rule of [`Suppressions`] has suppressed; estimates if the snapshot is sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SuppressionUse {
    /// The rule's pattern, as it was written.
    pub pattern: Arc<str>,
    /// The sum of the sizes of the suppressed traces, in bytes.
    pub size: u64,
    /// The number of suppressed traces.
    pub count: u64,
}

/// Writes `SIZE in COUNT blocks by PATTERN`.
impl fmt::Display for SuppressionUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} blocks by {}", format_size(self.size), self.count, self.pattern)
    }
}

/// Why a list of suppressions cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SuppressionError {
    /// A line has no type in front of its pattern.
    #[error("line {line}: {text:?} is no suppression: write `leak:` in front of the pattern")]
    NoType {
        /// The number of the line, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// A line is of a type that means something to other tools.
    #[error(
        "line {line}: unknown type {found:?}: this is a list of leaks, whose lines read \
         `leak:PATTERN`"
    )]
    UnknownType {
        /// The number of the line, from 1.
        line: usize,
        /// The type.
        found: String,
    },
    /// A pattern is empty but for anchors.
    #[error("line {line}: an empty pattern: write `leak:*` if every stack is to be suppressed")]
    Empty {
        /// The number of the line, from 1.
        line: usize,
    },
    /// A pattern goes on after its end.
    #[error(
        "line {line}: `$` in the middle of {pattern:?}: it marks the end of a text and stands last"
    )]
    EndInside {
        /// The number of the line, from 1.
        line: usize,
        /// The pattern.
        pattern: String,
    },
    /// A comment follows a pattern.
    #[error("line {line}: the comment in {pattern:?} would be a part of it: give it its own line")]
    Comment {
        /// The number of the line, from 1.
        line: usize,
        /// The pattern.
        pattern: String,
    },
    /// A file of suppressions cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// A file of suppressions has a line that cannot be used.
    #[error("{}", path.display())]
    InFile {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong.
        source: Box<SuppressionError>,
    },
}

impl Suppressions {
    /// Makes an empty list, which suppresses nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads rules, one a line.
    ///
    /// **Errors.** At the first line that is neither a rule, nor a comment, nor blank.
    pub fn parse(text: &str) -> Result<Self, SuppressionError> {
        let lines = text.lines().map(str::trim).zip(1..);
        let rules = lines.filter(|(text, _)| !text.is_empty() && !text.starts_with('#'));
        let rules: Result<Vec<Rule>, _> =
            rules.map(|(text, line)| Rule::parse(text, line)).collect();
        Ok(Self { rules: rules?.into() })
    }

    /// Reads rules from a file.
    ///
    /// **Errors.** If the file cannot be read as text, or like [`Suppressions::parse`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, SuppressionError> {
        let path = || path.as_ref().to_owned();
        let text = fs::read_to_string(path())
            .map_err(|source| SuppressionError::Unreadable { path: path(), source })?;
        Self::parse(&text)
            .map_err(|error| SuppressionError::InFile { path: path(), source: error.into() })
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a stack is suppressed: whether a rule matches the module's path, the function or
    /// the source file of any of its frames.
    ///
    /// **Cost.** Time proportional to frames times rules.
    pub fn suppresses(&self, traceback: &Traceback) -> bool {
        self.first_match(traceback).is_some()
    }

    /// Takes the traces of suppressed stacks out of a snapshot; the second value is what each rule
    /// has taken out. A stack counts for the first rule that matches it.
    ///
    /// **Cost.** Matches each rule once against each distinct frame, then takes time proportional
    /// to the stacks and to the traces.
    pub fn filter(&self, snapshot: &Snapshot) -> (Snapshot, Vec<SuppressionUse>) {
        if self.is_empty() {
            return (snapshot.clone(), Vec::new());
        }
        analysis(|| self.filtered(snapshot))
    }

    fn filtered(&self, snapshot: &Snapshot) -> (Snapshot, Vec<SuppressionUse>) {
        let table = snapshot.table();
        let by_frame: Vec<Option<usize>> =
            (0..table.n_frames() as u32).map(|id| self.first_match([table.frame(id)])).collect();
        let unused =
            |rule: &Rule| SuppressionUse { pattern: rule.pattern.clone(), size: 0, count: 0 };
        let mut uses: Vec<SuppressionUse> = self.rules.iter().map(unused).collect();
        let mut is_kept = vec![true; table.n_stacks()];
        for ((stack, sum), is_kept) in (0..).zip(snapshot.sums_by_stack()).zip(&mut is_kept) {
            let frames = table.stack(stack).iter();
            if let Some(rule) = frames.filter_map(|&frame| by_frame[frame as usize]).min() {
                uses[rule].size = uses[rule].size.saturating_add(sum.size);
                uses[rule].count += sum.count;
                *is_kept = false;
            }
        }
        (snapshot.keep_stacks(&is_kept), uses)
    }

    /// The index of the first rule that matches any of the frames.
    fn first_match<'a>(
        &self,
        frames: impl IntoIterator<Item = &'a Frame> + Clone,
    ) -> Option<usize> {
        let is_match =
            |rule: &Rule| frames.clone().into_iter().any(|frame| rule.matches_frame(frame));
        self.rules.iter().position(is_match)
    }
}

/// One line of a list.
#[derive(Debug)]
struct Rule {
    /// As it was written.
    pattern: Arc<str>,
    is_tied_to_start: bool,
    is_tied_to_end: bool,
    /// What stands between the stars; never empty (I1).
    literals: Vec<Box<str>>,
}

impl Rule {
    /// Reads a line, which is neither blank nor a comment and has no blanks around it.
    fn parse(text: &str, line: usize) -> Result<Self, SuppressionError> {
        let pattern = match text.split_once(':') {
            Some(("leak", pattern)) => pattern.trim_start(),
            // A path of Rust in the place of a type is a pattern that lacks one.
            Some((found, rest)) if !rest.starts_with(':') && is_word(found) => {
                return Err(SuppressionError::UnknownType { line, found: found.to_owned() });
            }
            _ => return Err(SuppressionError::NoType { line, text: text.to_owned() }),
        };
        if pattern.contains(" #") {
            return Err(SuppressionError::Comment { line, pattern: pattern.to_owned() });
        }
        let untied = pattern.strip_prefix('^').unwrap_or(pattern);
        let body = untied.strip_suffix('$').unwrap_or(untied);
        if body.contains('$') {
            return Err(SuppressionError::EndInside { line, pattern: pattern.to_owned() });
        }
        if body.is_empty() {
            return Err(SuppressionError::Empty { line });
        }
        Ok(Self {
            is_tied_to_start: untied.len() < pattern.len(),
            is_tied_to_end: body.len() < untied.len(),
            literals: body.split('*').map(Into::into).collect(),
            pattern: pattern.into(),
        })
    }

    fn matches_frame(&self, frame: &Frame) -> bool {
        frame.module.as_ref().is_some_and(|module| self.matches(&module.path))
            || frame.function.as_deref().is_some_and(|function| self.matches(function))
            || self.matches(&frame.filename)
    }

    /// Whether the pattern is found in a text. Nothing is found in an empty one.
    ///
    /// Taking each literal where it comes first leaves most to those after it; only the last may
    /// be tied to a place, and is looked for there.
    fn matches(&self, text: &str) -> bool {
        let Some((last, others)) = self.literals.split_last() else { return false };
        let mut rest = text;
        for (i, literal) in others.iter().enumerate() {
            let after = if i == 0 && self.is_tied_to_start {
                rest.strip_prefix(&**literal)
            } else {
                rest.split_once(&**literal).map(|(_, after)| after)
            };
            let Some(after) = after else { return false };
            rest = after;
        }
        let is_found = match (others.is_empty() && self.is_tied_to_start, self.is_tied_to_end) {
            (true, true) => rest == &**last,
            (true, false) => rest.starts_with(&**last),
            (false, true) => rest.ends_with(&**last),
            (false, false) => rest.contains(&**last),
        };
        is_found && !text.is_empty()
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Module, Pattern};

    fn rule(pattern: &str) -> Rule {
        Rule::parse(&format!("leak:{pattern}"), 1).unwrap()
    }

    fn message(text: &str) -> String {
        Suppressions::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_pattern_is_found_anywhere_unless_it_is_tied() {
        for (pattern, text, expected) in [
            ("foo", "a::foo::b", true),
            ("foo", "fo", false),
            ("^foo", "foobar", true),
            ("^foo", "a::foo", false),
            ("foo$", "a::foo", true),
            ("foo$", "foofoo", true),
            ("foo$", "foo::b", false),
            ("^foo$", "foo", true),
            ("^foo$", "foofoo", false),
            ("a*c", "xabcx", true),
            ("a*c", "ca", false),
            ("^a*c$", "abcbc", true),
            ("^a*c$", "abcb", false),
            ("^*c", "abc", true),
            ("a*$", "ab", true),
            ("^a*a$", "a", false),
            ("*", "x", true),
            ("*", "", false),
            ("a^b", "a^b", true),
            ("{closure#0}", "app::main::{closure#0}", true),
        ] {
            assert_eq!(rule(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn any_name_of_any_frame_suppresses_a_stack() {
        let newest = Frame::new("src/cache.rs", 1).with_function("app::cache::insert");
        let oldest =
            Frame::new("/usr/src/start.c", 9).with_module(Module::new("/usr/lib/libfoo.so.1"));
        let traceback = Traceback::new([oldest, newest]);
        for pattern in ["cache::insert$", "^src/cache.rs$", "libfoo.so", "start.c", "^/usr/lib/"] {
            let list = Suppressions::parse(&format!("leak:{pattern}")).unwrap();
            assert!(list.suppresses(&traceback), "{pattern}");
        }
        let other = Suppressions::parse("leak:src/caches.rs\nleak:^cache\nleak:lib*bar").unwrap();
        assert_eq!(other.len(), 3);
        assert!(!other.suppresses(&traceback));
        assert!(!Suppressions::new().suppresses(&traceback));
    }

    #[test]
    fn comments_blank_lines_and_blanks_around_are_nothing() {
        let list = Suppressions::parse("\n  # all of it\r\n\t leak: a b \r\n\nleak:c#d").unwrap();
        assert_eq!(
            list.rules.iter().map(|rule| &*rule.pattern).collect::<Vec<_>>(),
            ["a b", "c#d"]
        );
        assert!(Suppressions::parse("").unwrap().is_empty());
    }

    #[test]
    fn an_error_names_the_line_what_is_wrong_and_what_is_right() {
        assert_eq!(
            message("leak:a\n\nmy_app::cache"),
            "line 3: \"my_app::cache\" is no suppression: write `leak:` in front of the pattern"
        );
        assert_eq!(
            message("Leak:a"),
            "line 1: unknown type \"Leak\": this is a list of leaks, whose lines read \
             `leak:PATTERN`"
        );
        for empty in ["leak:", "leak: ", "leak:^", "leak:$", "leak:^$"] {
            assert_eq!(
                message(empty),
                "line 1: an empty pattern: write `leak:*` if every stack is to be suppressed"
            );
        }
        assert_eq!(
            message("leak:a$b"),
            "line 1: `$` in the middle of \"a$b\": it marks the end of a text and stands last"
        );
        assert_eq!(
            message("# fine\nleak:a # why"),
            "line 2: the comment in \"a # why\" would be a part of it: give it its own line"
        );
    }

    #[test]
    fn an_error_in_a_file_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leaks.txt");
        let missing = Suppressions::load(&path).unwrap_err();
        assert_eq!(missing.to_string(), format!("{} cannot be read", path.display()));
        fs::write(&path, "leak:a\nrace:b\n").unwrap();
        let wrong = Suppressions::load(&path).unwrap_err();
        assert_eq!(wrong.to_string(), path.display().to_string());
        let source = std::error::Error::source(&wrong).unwrap().to_string();
        assert!(source.starts_with("line 2: unknown type \"race\""), "{source}");
        fs::write(&path, "leak:a\n").unwrap();
        assert_eq!(Suppressions::load(&path).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn a_pattern_means_what_it_means_to_fnmatch_with_stars_at_its_untied_ends(
            start in "\\^?",
            body in "[ab*]{1,8}",
            end in "\\$?",
            text in "[ab]{1,12}",
        ) {
            let open = |tie: &str| if tie.is_empty() { "*" } else { "" };
            let oracle = Pattern::new(format!("{}{body}{}", open(&start), open(&end)));
            let rule = rule(&format!("{start}{body}{end}"));
            prop_assert_eq!(rule.matches(&text), oracle.matches(&text));
        }

        #[test]
        fn every_text_is_read_or_refused_with_the_number_of_a_line(text in ".{0,40}(\n.{0,40}){0,3}") {
            if let Err(error) = Suppressions::parse(&text) {
                let error = error.to_string();
                let number = error.strip_prefix("line ").and_then(|rest| rest.split_once(':'));
                let number: usize = number.unwrap().0.parse().unwrap();
                prop_assert!((1..=text.lines().count()).contains(&number), "{}", error);
            }
        }
    }
}
