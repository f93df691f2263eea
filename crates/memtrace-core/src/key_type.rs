//! What traces are grouped by.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::python_repr::quoted;

/// What [`Snapshot::statistics`](crate::Snapshot::statistics) groups traces by.
///
/// "The newest frame" below is the one that the snapshot's
/// [`Attribution`](crate::Attribution) chooses, and "the stack" is what remains from that frame
/// on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyType {
    /// The file of the newest frame.
    Filename,
    /// The file and line of the newest frame.
    Lineno,
    /// The stack.
    Traceback,
    /// Each frame's file: a trace counts once for *every frame* of its stack, so that a file
    /// gets everything allocated below it. A file that occurs twice in a stack counts twice;
    /// the sums exceed the traced memory.
    CumulativeFilename,
    /// Each frame's file and line, counted like [`KeyType::CumulativeFilename`].
    CumulativeLineno,
    /// Each frame's file, but a trace counts only *once* for a file, however often the file occurs
    /// in its stack: no sum exceeds the traced memory.
    InclusiveFilename,
    /// Each frame's file and line, counted like [`KeyType::InclusiveFilename`].
    InclusiveLineno,
    /// The function of the newest frame, shown as `<my_app::cache::insert>`; where it is unknown,
    /// the filename.
    ///
    /// A build with `debug = "line-tables-only"` knows functions that were inlined by their last
    /// name alone, so that `cache::add` and `users::add` may both be `<add>`: group by line there,
    /// or build with `debug = "full"`.
    Function,
    /// Each frame's function, counted like [`KeyType::InclusiveFilename`].
    InclusiveFunction,
    /// The executable or library of the newest frame, shown as `<libfoo.so>`: by its file name, so
    /// that two of one name are one group.
    Module,
    /// The thread that allocated, shown as `<thread 3 "worker">`, or `<unknown thread>` where
    /// nobody recorded it. Linux knows the first 15 bytes of a name.
    Thread,
    /// The address space, shown as `<domain 0>`.
    Domain,
}

impl KeyType {
    /// All key types.
    pub const ALL: [Self; 12] = [
        Self::Filename,
        Self::Lineno,
        Self::Traceback,
        Self::CumulativeFilename,
        Self::CumulativeLineno,
        Self::InclusiveFilename,
        Self::InclusiveLineno,
        Self::Function,
        Self::InclusiveFunction,
        Self::Module,
        Self::Thread,
        Self::Domain,
    ];

    /// Reads the two arguments of `tracemalloc`'s `statistics`.
    ///
    /// ```
    /// use memtrace_core::KeyType;
    ///
    /// assert_eq!(KeyType::parse("lineno", false), Ok(KeyType::Lineno));
    /// let error = KeyType::parse("function", false).unwrap_err();
    /// assert_eq!(error.to_string(), "unknown key_type: 'function'");
    /// ```
    ///
    /// **Errors.** If `key` is not `filename`, `lineno` or `traceback`, and if it is
    /// `traceback` with `cumulative`.
    pub fn parse(key: &str, cumulative: bool) -> Result<Self, KeyTypeError> {
        match (key, cumulative) {
            ("filename", false) => Ok(Self::Filename),
            ("lineno", false) => Ok(Self::Lineno),
            ("traceback", false) => Ok(Self::Traceback),
            ("filename", true) => Ok(Self::CumulativeFilename),
            ("lineno", true) => Ok(Self::CumulativeLineno),
            ("traceback", true) => Err(KeyTypeError::Cumulative { key: key.to_owned() }),
            _ => Err(KeyTypeError::Unknown { key: key.to_owned() }),
        }
    }

    /// The name: that of `tracemalloc` where there is one, with `cumulative-` before it for the
    /// cumulative ones.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filename => "filename",
            Self::Lineno => "lineno",
            Self::Traceback => "traceback",
            Self::CumulativeFilename => "cumulative-filename",
            Self::CumulativeLineno => "cumulative-lineno",
            Self::InclusiveFilename => "inclusive-filename",
            Self::InclusiveLineno => "inclusive-lineno",
            Self::Function => "function",
            Self::InclusiveFunction => "inclusive-function",
            Self::Module => "module",
            Self::Thread => "thread",
            Self::Domain => "domain",
        }
    }

    /// Whether a trace counts for every frame of its stack, as often as it occurs.
    pub const fn is_cumulative(self) -> bool {
        matches!(self, Self::CumulativeFilename | Self::CumulativeLineno)
    }

    /// Whether groups are files, whose line is erased.
    pub(crate) const fn is_by_file(self) -> bool {
        matches!(self, Self::Filename | Self::CumulativeFilename | Self::InclusiveFilename)
    }
}

/// Writes the [`KeyType::name`].
impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Reads a [`KeyType::name`].
///
/// ```
/// use memtrace_core::KeyType;
///
/// assert_eq!("inclusive-function".parse(), Ok(KeyType::InclusiveFunction));
/// let error = "functions".parse::<KeyType>().unwrap_err();
/// assert!(error.to_string().starts_with("unknown key type \"functions\"; there are filename, "));
/// ```
impl FromStr for KeyType {
    type Err = UnknownKeyType;

    fn from_str(name: &str) -> Result<Self, UnknownKeyType> {
        let found = Self::ALL.into_iter().find(|key_type| key_type.name() == name);
        found.ok_or_else(|| UnknownKeyType { name: name.to_owned() })
    }
}

/// No key type has this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "unknown key type {name:?}; there are {}",
    KeyType::ALL.map(KeyType::name).join(", ")
)]
pub struct UnknownKeyType {
    /// The name.
    pub name: String,
}

/// Why there is no such [`KeyType`]. The texts are those of `tracemalloc`, to the letter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyTypeError {
    /// No key type has this name.
    #[error("unknown key_type: {}", quoted(key))]
    Unknown {
        /// The name.
        key: String,
    },
    /// This key type cannot be cumulative.
    #[error("cumulative mode cannot by used with key type {}", quoted(key))]
    Cumulative {
        /// The name.
        key: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_type_is_read_back_from_its_name() {
        for key_type in KeyType::ALL {
            assert_eq!(key_type.to_string().parse(), Ok(key_type));
        }
    }

    #[test]
    fn tracemallocs_names_are_its_key_types() {
        for key_type in &KeyType::ALL[..5] {
            let name = key_type.name().trim_start_matches("cumulative-");
            assert_eq!(KeyType::parse(name, key_type.is_cumulative()), Ok(*key_type));
        }
        for key_type in &KeyType::ALL[5..] {
            assert!(KeyType::parse(key_type.name(), false).is_err());
        }
    }

    #[test]
    fn an_unknown_name_is_reported_before_a_wrong_mode() {
        let text = |key| KeyType::parse(key, true).unwrap_err().to_string();
        assert_eq!(text("it's"), "unknown key_type: \"it's\"");
        assert_eq!(text("traceback"), "cumulative mode cannot by used with key type 'traceback'");
    }
}
