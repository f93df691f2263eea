//! The query string of a request: which rows are wanted, and how many; what a ledger is compared with,
//! and in what form.
//!
//! A parameter is never guessed at and never ignored: a mistyped one is an error that names the
//! right ones, as a report with other rows than those asked for would mislead.

use axum::extract::Query;
use axum::http::Uri;
use memtrace_core::KeyType;
use thiserror::Error;

/// How many rows a request gets that does not say.
const DEFAULT_TOP: usize = 10;

/// How many rows a request may ask for.
const MAX_TOP: usize = 10_000;

/// How much of a refused value is repeated in the error, in characters.
const N_CHARS_SHOWN: usize = 40;

/// What one request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GrowthQuery {
    pub(crate) top: usize,
    pub(crate) key_type: KeyType,
}

/// What a request for a ledger asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LedgerQuery {
    pub(crate) format: Format,
    pub(crate) since: Since,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

/// What a ledger is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Since {
    /// Nothing: it is shown as it is.
    #[default]
    Nothing,
    /// The one of the first request.
    First,
}

/// Why a query string was refused. Values are shown quoted and escaped, and cut if they are long.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum QueryError {
    #[error("top={value} is not a number: use 1 to {MAX_TOP}")]
    TopNotANumber { value: String },
    #[error("top={value} is out of range: use 1 to {MAX_TOP}")]
    TopOutOfRange { value: String },
    #[error("group_by={value} is unknown: use {}", KeyType::ALL.map(KeyType::name).join(", "))]
    UnknownGroupBy { value: String },
    #[error("format={value} is unknown: use text or json")]
    UnknownFormat { value: String },
    #[error("since={value} is unknown: use first, or leave it out")]
    UnknownSince { value: String },
    #[error("unknown parameter {name}: use {known}")]
    UnknownParameter { name: String, known: &'static str },
    #[error("parameter {name} is given more than once: give it once")]
    RepeatedParameter { name: &'static str },
    #[error("the query string cannot be read: use for example {example}")]
    Unreadable { example: &'static str },
}

impl GrowthQuery {
    /// Reads the query string of `uri`; what is not given has its default.
    ///
    /// **Errors.** The first parameter, from the left, that is wrong.
    pub(crate) fn from_uri(uri: &Uri) -> Result<GrowthQuery, QueryError> {
        let parameters = parameters(uri, "?top=10&group_by=lineno")?;
        let mut top = None;
        let mut key_type = None;
        for (name, value) in &parameters {
            match name.as_str() {
                "top" => set_once(&mut top, "top", parse_top(value)?)?,
                "group_by" => set_once(&mut key_type, "group_by", parse_group_by(value)?)?,
                _ => return Err(unknown_parameter(name, "top or group_by")),
            }
        }
        Ok(GrowthQuery {
            top: top.unwrap_or(DEFAULT_TOP),
            key_type: key_type.unwrap_or(KeyType::Lineno),
        })
    }
}

impl LedgerQuery {
    /// Reads the query string of `uri`; what is not given has its default.
    ///
    /// **Errors.** The first parameter, from the left, that is wrong.
    pub(crate) fn from_uri(uri: &Uri) -> Result<LedgerQuery, QueryError> {
        let mut format = None;
        let mut since = None;
        for (name, value) in &parameters(uri, "?format=json&since=first")? {
            match name.as_str() {
                "format" => set_once(&mut format, "format", parse_format(value)?)?,
                "since" => set_once(&mut since, "since", parse_since(value)?)?,
                _ => return Err(unknown_parameter(name, "format or since")),
            }
        }
        Ok(LedgerQuery { format: format.unwrap_or_default(), since: since.unwrap_or_default() })
    }
}

fn parameters(uri: &Uri, example: &'static str) -> Result<Vec<(String, String)>, QueryError> {
    let parsed = Query::<Vec<(String, String)>>::try_from_uri(uri);
    parsed.map(|Query(parameters)| parameters).map_err(|_| QueryError::Unreadable { example })
}

fn unknown_parameter(name: &str, known: &'static str) -> QueryError {
    QueryError::UnknownParameter { name: quoted(name), known }
}

fn set_once<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), QueryError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(QueryError::RepeatedParameter { name }),
    }
}

fn parse_top(value: &str) -> Result<usize, QueryError> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(QueryError::TopNotANumber { value: quoted(value) });
    }
    match value.parse() {
        Ok(top @ 1..=MAX_TOP) => Ok(top),
        // Digits that do not parse are a number all the same: one that is negative or huge.
        _ => Err(QueryError::TopOutOfRange { value: quoted(value) }),
    }
}

fn parse_group_by(value: &str) -> Result<KeyType, QueryError> {
    value.parse().map_err(|_| QueryError::UnknownGroupBy { value: quoted(value) })
}

fn parse_format(value: &str) -> Result<Format, QueryError> {
    match value {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(QueryError::UnknownFormat { value: quoted(value) }),
    }
}

fn parse_since(value: &str) -> Result<Since, QueryError> {
    match value {
        "first" => Ok(Since::First),
        _ => Err(QueryError::UnknownSince { value: quoted(value) }),
    }
}

fn quoted(text: &str) -> String {
    match text.char_indices().nth(N_CHARS_SHOWN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<GrowthQuery, String> {
        let uri: Uri = format!("/snapshots{query}").parse().expect("the case is a valid URI");
        GrowthQuery::from_uri(&uri).map_err(|error| error.to_string())
    }

    fn query(top: usize, key_type: KeyType) -> Result<GrowthQuery, String> {
        Ok(GrowthQuery { top, key_type })
    }

    #[test]
    fn defaults_stand_for_what_is_not_given() {
        assert_eq!(parse(""), query(10, KeyType::Lineno));
        assert_eq!(parse("?"), query(10, KeyType::Lineno));
        assert_eq!(parse("?top=3"), query(3, KeyType::Lineno));
        assert_eq!(parse("?group_by=filename"), query(10, KeyType::Filename));
        assert_eq!(parse("?group_by=traceback&top=1"), query(1, KeyType::Traceback));
        assert_eq!(parse("?group_by=lineno&top=10000"), query(10_000, KeyType::Lineno));
        assert_eq!(parse("?t%6Fp=%31%32"), query(12, KeyType::Lineno), "percent signs are decoded");
    }

    #[test]
    fn each_mistake_is_named_together_with_what_would_be_right() {
        for (mistake, message) in [
            ("?top=banana", r#"top="banana" is not a number: use 1 to 10000"#),
            ("?top=", r#"top="" is not a number: use 1 to 10000"#),
            ("?top", r#"top="" is not a number: use 1 to 10000"#),
            ("?top=-", r#"top="-" is not a number: use 1 to 10000"#),
            ("?top=+5", r#"top=" 5" is not a number: use 1 to 10000"#),
            ("?top=0x10", r#"top="0x10" is not a number: use 1 to 10000"#),
            ("?top=%D9%A3", "top=\"\u{663}\" is not a number: use 1 to 10000"),
            ("?top=%0A%1B[31m", r#"top="\n\u{1b}[31m" is not a number: use 1 to 10000"#),
            ("?top=%FF", "top=\"\u{fffd}\" is not a number: use 1 to 10000"),
            ("?top=0", r#"top="0" is out of range: use 1 to 10000"#),
            ("?top=10001", r#"top="10001" is out of range: use 1 to 10000"#),
            ("?top=999999999", r#"top="999999999" is out of range: use 1 to 10000"#),
            ("?top=-7", r#"top="-7" is out of range: use 1 to 10000"#),
            (
                "?top=99999999999999999999999",
                r#"top="99999999999999999999999" is out of range: use 1 to 10000"#,
            ),
            (
                "?group_by=line",
                "group_by=\"line\" is unknown: use filename, lineno, traceback, \
                 cumulative-filename, cumulative-lineno, inclusive-filename, inclusive-lineno, \
                 function, inclusive-function, module, thread, domain",
            ),
            ("?limit=3", r#"unknown parameter "limit": use top or group_by"#),
            ("?Top=3", r#"unknown parameter "Top": use top or group_by"#),
            ("?=3", r#"unknown parameter "": use top or group_by"#),
            ("?top=3&top=3", "parameter top is given more than once: give it once"),
            (
                "?group_by=lineno&top=3&group_by=filename",
                "parameter group_by is given more than once: give it once",
            ),
        ] {
            assert_eq!(parse(mistake), Err(message.to_owned()), "{mistake}");
        }
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let message = parse(&format!("?top={}", "%C3%A4".repeat(2_000))).unwrap_err();
        let expected = format!("top=\"{}\"... is not a number: use 1 to 10000", "ä".repeat(40));
        assert_eq!(message, expected);
    }

    #[test]
    fn a_ledger_is_asked_for_with_a_form_and_something_to_compare_with() {
        let parse = |query: &str| {
            let uri: Uri = format!("/ledger{query}").parse().expect("the case is a valid URI");
            LedgerQuery::from_uri(&uri).map_err(|error| error.to_string())
        };
        let (text, json) = (Format::Text, Format::Json);
        let query = |format, since| Ok(LedgerQuery { format, since });
        assert_eq!(parse(""), query(text, Since::Nothing));
        assert_eq!(parse("?format=text"), query(text, Since::Nothing));
        assert_eq!(parse("?since=first&format=json"), query(json, Since::First));
        for (mistake, message) in [
            ("?format=xml", r#"format="xml" is unknown: use text or json"#),
            ("?format", r#"format="" is unknown: use text or json"#),
            ("?since=1", r#"since="1" is unknown: use first, or leave it out"#),
            ("?top=1", r#"unknown parameter "top": use format or since"#),
            ("?since=first&since=first", "parameter since is given more than once: give it once"),
        ] {
            assert_eq!(parse(mistake), Err(message.to_owned()), "{mistake}");
        }
    }
}
