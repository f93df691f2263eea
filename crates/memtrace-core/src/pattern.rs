//! Patterns for filenames and function paths.
//!
//! The language is that of `fnmatch` in CPython 3.10 and later, over characters:
//!
//! - `*` matches any run of characters, also across `/` and line ends; `?` matches one;
//! - `[set]` matches one of a set and `[!set]` one outside of it. `]` is literal if it comes
//!   first, `-` if it comes first or last, and `a-z` is a range. A range that is reversed adds
//!   nothing; a set that is left empty matches nothing, and its negation everything;
//! - a `[` that is never closed is literal. There is no escape character, but `[*]` is a star.
//!
//! A pattern matches whole texts only.
//!
//! **I1.** Between two stars of the pattern, the leftmost place where the tokens fit is as good
//! as any other, for whatever follows fits at least as well after it. So only the last star seen
//! needs to be tried again, and a match takes time proportional to text times pattern at worst.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A compiled `fnmatch` pattern.
///
/// ```
/// use memtrace_core::Pattern;
///
/// let pattern = Pattern::new("*/tokio-[0-9]*/src/*");
/// assert!(pattern.matches("/home/u/.cargo/registry/tokio-1.49.0/src/task/mod.rs"));
/// assert!(!pattern.matches("src/tokio.rs"));
/// ```
///
/// **Cost.** A match takes time linear in the text, times the length of the pattern in the worst
/// case. Cloning shares the compiled form.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    tokens: Arc<[Token]>,
}

#[derive(Debug)]
enum Token {
    /// Any run of characters.
    Run,
    /// Any one character.
    Any,
    /// This character.
    One(char),
    /// One character inside (or outside) of these closed ranges.
    Set { is_negated: bool, ranges: Box<[(char, char)]> },
}

impl Token {
    fn matches(&self, c: char) -> bool {
        match self {
            Self::Run | Self::Any => true,
            Self::One(expected) => *expected == c,
            Self::Set { is_negated, ranges } => {
                ranges.iter().any(|(first, last)| (first..=last).contains(&&c)) != *is_negated
            }
        }
    }
}

impl Pattern {
    /// Compiles a pattern. Every text is a pattern.
    pub fn new(pattern: impl Into<Arc<str>>) -> Self {
        let text = pattern.into();
        let tokens = compile(&text);
        Self { text, tokens }
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern matches the whole of `text`.
    pub fn matches(&self, text: &str) -> bool {
        let mut tokens = &self.tokens[..];
        let mut rest = text;
        // What to go on with if the tokens since the last star do not fit here (I1).
        let mut retry: Option<(&[Token], &str)> = None;
        loop {
            match (tokens.split_first(), rest.chars().next()) {
                (None, None) => return true,
                (Some((Token::Run, after)), _) => {
                    tokens = after;
                    retry = Some((after, rest));
                    continue;
                }
                (Some((token, after)), Some(c)) if token.matches(c) => {
                    tokens = after;
                    rest = &rest[c.len_utf8()..];
                    continue;
                }
                _ => {}
            }
            let Some((after_star, start)) = retry else { return false };
            let mut chars = start.chars();
            if chars.next().is_none() {
                return false;
            }
            tokens = after_star;
            rest = chars.as_str();
            retry = Some((after_star, rest));
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

/// Writes the pattern as it was given.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// Brings a filename, or a pattern for filenames, into the form in which the two are compared:
/// on Windows without regard to case and kind of slash, everywhere with `.pyc` as `.py`.
pub(crate) fn normalized_filename(filename: &str) -> Cow<'_, str> {
    let folded = if cfg!(windows) {
        Cow::Owned(filename.replace('/', "\\").to_lowercase())
    } else {
        Cow::Borrowed(filename)
    };
    if !folded.ends_with(".pyc") {
        return folded;
    }
    match folded {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..text.len() - 1]),
        Cow::Owned(mut text) => {
            text.pop();
            Cow::Owned(text)
        }
    }
}

fn compile(pattern: &str) -> Arc<[Token]> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut tokens = Vec::with_capacity(chars.len());
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        i += 1;
        tokens.push(match c {
            '*' if matches!(tokens.last(), Some(Token::Run)) => continue,
            '*' => Token::Run,
            '?' => Token::Any,
            '[' => match set_end(&chars, i) {
                Some(end) => {
                    let set = compile_set(&chars[i..end]);
                    i = end + 1;
                    set
                }
                None => Token::One('['),
            },
            _ => Token::One(c),
        });
    }
    tokens.into()
}

/// Where the `]` is that closes the set whose contents start at `start`.
fn set_end(chars: &[char], start: usize) -> Option<usize> {
    let mut i = start;
    if chars.get(i) == Some(&'!') {
        i += 1;
    }
    if chars.get(i) == Some(&']') {
        i += 1;
    }
    (i..chars.len()).find(|&i| chars[i] == ']')
}

/// Compiles what stands between `[` and `]`; never empty.
///
/// Follows CPython step by step, for the language is defined by what it does: the contents are
/// cut at the dashes that make ranges, reversed ranges are joined away, and only then is a `!` in
/// front looked for. So `[c-a!b]` is "not b".
fn compile_set(contents: &[char]) -> Token {
    let mut chunks = range_chunks(contents);
    for k in (1..chunks.len()).rev() {
        if chunks[k - 1].last() > chunks[k].first() {
            let tail = chunks.remove(k);
            chunks[k - 1].pop();
            chunks[k - 1].extend(&tail[1..]);
        }
    }
    // The contents again, where `None` is a dash that makes a range.
    let mut items: Vec<Option<char>> = Vec::with_capacity(contents.len());
    for chunk in &chunks {
        if !items.is_empty() {
            items.push(None);
        }
        items.extend(chunk.iter().copied().map(Some));
    }
    let is_negated = items.first() == Some(&Some('!'));
    let mut items = &items[usize::from(is_negated)..];
    let mut ranges = Vec::new();
    while let Some((item, after)) = items.split_first() {
        // A range can lose its start to the negation; its dash is then literal.
        let first = item.unwrap_or('-');
        if let [None, Some(last), rest @ ..] = after {
            ranges.push((first, *last));
            items = rest;
        } else {
            ranges.push((first, first));
            items = after;
        }
    }
    Token::Set { is_negated, ranges: ranges.into() }
}

/// Cuts the contents of a set at the dashes that make ranges: not the first character, not the
/// last, and not right after a range, so that `a-c-e` is `a` to `c`, a dash, and `e`.
fn range_chunks(contents: &[char]) -> Vec<Vec<char>> {
    let mut chunks: Vec<Vec<char>> = Vec::new();
    let mut start = 0;
    let mut from = if contents.first() == Some(&'!') { 2 } else { 1 };
    while let Some(dash) = (from..contents.len()).find(|&i| contents[i] == '-') {
        chunks.push(contents[start..dash].to_vec());
        start = dash + 1;
        from = dash + 3;
    }
    match chunks.last_mut() {
        Some(last) if start == contents.len() => last.push('-'),
        _ => chunks.push(contents[start..].to_vec()),
    }
    chunks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).matches(text)
    }

    /// Which of a few characters a set matches.
    fn members(set: &str) -> String {
        "!-]^abcdez".chars().filter(|c| matches(set, c.encode_utf8(&mut [0; 4]))).collect()
    }

    #[test]
    fn stars_cross_everything_and_patterns_match_whole_texts() {
        assert!(matches("", "") && !matches("", "a"));
        assert!(matches("*", "") && matches("a*b", "a/\n.b"));
        assert!(matches("*.rs", ".rs") && !matches("*.rs", "a.rs "));
        assert!(matches("a**b*c", "abbc") && !matches("a*b*c", "acb"));
        assert!(matches("?", "é") && matches("?", "\n") && !matches("?", ""));
    }

    #[test]
    fn sets_follow_cpython() {
        assert_eq!(members("[a-c]"), "abc");
        assert_eq!(members("[!a-c]"), "!-]^dez");
        assert_eq!(members("[]a]"), "]a");
        assert_eq!(members("[!]a]"), "!-^bcdez");
        assert_eq!(members("[-a]"), "-a");
        assert_eq!(members("[a-]"), "-a");
        assert_eq!(members("[a-c-e]"), "-abce");
        assert_eq!(members("[^a]"), "^a");
        assert!(matches("[a", "[a") && matches("[!", "[!") && matches("[]", "[]"));
    }

    #[test]
    fn reversed_ranges_vanish() {
        assert_eq!(members("[c-a]"), "");
        assert_eq!(members("[!c-a]"), "!-]^abcdez");
        assert_eq!(members("[c-ae]"), "e");
        // What is then in front may turn out to be the negation.
        assert_eq!(members("[c-a!b]"), "!-]^acdez");
        assert_eq!(members("[c-a!-z]"), "!]^abcde");
        assert_eq!(members("[c-a!]"), "!-]^abcdez");
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let pattern = format!("{}b", "*a".repeat(200));
        assert!(!matches(&pattern, &"a".repeat(20_000)));
    }

    #[test]
    fn compiled_python_files_stand_for_their_sources() {
        assert_eq!(normalized_filename("a.pyc"), "a.py");
        assert_eq!(normalized_filename("a.pyo"), "a.pyo");
        assert_eq!(normalized_filename("a.pycc"), "a.pycc");
    }

    /// The plain definition, with backtracking.
    fn oracle(tokens: &[Token], text: &[char]) -> bool {
        match (tokens, text) {
            ([], []) => true,
            ([Token::Run, after @ ..], _) => {
                (0..=text.len()).any(|n_taken| oracle(after, &text[n_taken..]))
            }
            ([token, after @ ..], [c, rest @ ..]) => token.matches(*c) && oracle(after, rest),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_backtracking(
            pattern in "[ab*?é\\[\\]!-]{0,10}",
            text in "[abé!-]{0,12}",
        ) {
            let pattern = Pattern::new(pattern);
            let chars: Vec<char> = text.chars().collect();
            prop_assert_eq!(pattern.matches(&text), oracle(&pattern.tokens, &chars));
        }

        #[test]
        fn a_text_without_special_characters_matches_itself_only(
            pattern in "[a-z/.]{0,8}",
            text in "[a-z/.]{0,8}",
        ) {
            prop_assert!(matches(&pattern, &pattern));
            prop_assert_eq!(matches(&pattern, &text), pattern == text);
        }
    }
}
