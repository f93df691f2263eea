//! Which traces to keep.

use crate::Pattern;
use crate::pattern::normalized_filename;

/// Keeps or drops traces by the file and line of a frame, and optionally by domain.
///
/// Looks at the newest frame that the snapshot's [`Attribution`](crate::Attribution) does not
/// hide, that is, at the line that statistics blame; with [`Filter::all_frames`], at all frames
/// of the stack.
///
/// The pattern language is that of [`Pattern`]. `*` crosses directories, so `*/tokio-*` is
/// everything inside a directory whose name starts with `tokio-`.
///
/// ```
/// use memtrace_core::Filter;
///
/// let no_runtime = Filter::exclude("*/tokio-*");
/// let one_line_of_the_gpu = Filter::include("src/upload.rs").lineno(80).domain(7);
/// # let _ = (no_runtime, one_line_of_the_gpu);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    is_inclusive: bool,
    pattern: Pattern,
    lineno: Option<u32>,
    has_all_frames: bool,
    domain: Option<u32>,
}

impl Filter {
    /// Makes a filter that keeps what it hits, if `is_inclusive`, or else drops it.
    pub fn new(is_inclusive: bool, pattern: &str) -> Self {
        let pattern = Pattern::new(normalized_filename(pattern).as_ref());
        Self { is_inclusive, pattern, lineno: None, has_all_frames: false, domain: None }
    }

    /// Makes a filter that keeps traces whose filename matches.
    pub fn include(pattern: &str) -> Self {
        Self::new(true, pattern)
    }

    /// Makes a filter that drops traces whose filename matches.
    pub fn exclude(pattern: &str) -> Self {
        Self::new(false, pattern)
    }

    /// Hits this line only. Line 0 is the unknown line, not any line.
    #[must_use]
    pub fn lineno(mut self, lineno: u32) -> Self {
        self.lineno = Some(lineno);
        self
    }

    /// Hits if any frame of the stack does, also a hidden one.
    #[must_use]
    pub fn all_frames(mut self) -> Self {
        self.has_all_frames = true;
        self
    }

    /// Hits traces of this domain only.
    #[must_use]
    pub fn domain(mut self, domain: u32) -> Self {
        self.domain = Some(domain);
        self
    }

    /// Whether the filter keeps what it hits.
    pub fn is_inclusive(&self) -> bool {
        self.is_inclusive
    }

    /// The pattern for filenames, in the form in which it is compared.
    pub fn filename_pattern(&self) -> &str {
        self.pattern.as_str()
    }

    pub(crate) fn has_all_frames(&self) -> bool {
        self.has_all_frames
    }

    pub(crate) fn has_domain(&self) -> bool {
        self.domain.is_some()
    }

    pub(crate) fn hits_domain(&self, domain: u32) -> bool {
        self.domain.is_none_or(|only| only == domain)
    }

    /// Whether the filter hits a frame at this place.
    pub fn matches(&self, filename: &str, lineno: u32) -> bool {
        self.lineno.is_none_or(|only| only == lineno)
            && self.pattern.matches(&normalized_filename(filename))
    }
}

/// Keeps or drops traces by domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainFilter {
    is_inclusive: bool,
    domain: u32,
}

impl DomainFilter {
    /// Makes a filter that keeps traces of a domain, if `is_inclusive`, or else drops them.
    pub fn new(is_inclusive: bool, domain: u32) -> Self {
        Self { is_inclusive, domain }
    }

    /// Makes a filter that keeps traces of this domain.
    pub fn include(domain: u32) -> Self {
        Self::new(true, domain)
    }

    /// Makes a filter that drops traces of this domain.
    pub fn exclude(domain: u32) -> Self {
        Self::new(false, domain)
    }

    /// Whether the filter keeps what it hits.
    pub fn is_inclusive(&self) -> bool {
        self.is_inclusive
    }

    /// The domain that is kept or dropped.
    pub fn domain(&self) -> u32 {
        self.domain
    }
}

/// Either kind of filter, for lists that mix them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnyFilter {
    /// By file, line and domain.
    Frame(Filter),
    /// By domain only.
    Domain(DomainFilter),
}

impl AnyFilter {
    /// Whether the filter keeps what it hits.
    pub fn is_inclusive(&self) -> bool {
        match self {
            Self::Frame(filter) => filter.is_inclusive,
            Self::Domain(filter) => filter.is_inclusive,
        }
    }
}

impl From<Filter> for AnyFilter {
    fn from(filter: Filter) -> Self {
        Self::Frame(filter)
    }
}

impl From<DomainFilter> for AnyFilter {
    fn from(filter: DomainFilter) -> Self {
        Self::Domain(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_zero_is_a_line_of_its_own() {
        let filter = Filter::include("a.rs").lineno(0);
        assert!(filter.matches("a.rs", 0) && !filter.matches("a.rs", 1));
        assert!(Filter::include("a.rs").matches("a.rs", 1));
    }

    #[test]
    fn both_sides_are_normalized() {
        assert_eq!(Filter::exclude("*.pyc").filename_pattern(), "*.py");
        assert!(Filter::include("*.pyc").matches("a.py", 1));
        assert!(Filter::include("*.py").matches("a.pyc", 1));
        assert!(!Filter::include("*.pyc").matches("a.pyo", 1));
    }

    #[test]
    fn a_domain_narrows_what_is_hit() {
        assert!(Filter::include("*").hits_domain(3));
        assert!(Filter::include("*").domain(3).hits_domain(3));
        assert!(!Filter::include("*").domain(3).hits_domain(0));
    }
}
