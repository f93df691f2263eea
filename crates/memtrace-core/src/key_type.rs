//! What traces are grouped by.

use std::fmt;

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
}

impl KeyType {
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

    /// The name that [`KeyType::parse`] reads.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filename | Self::CumulativeFilename => "filename",
            Self::Lineno | Self::CumulativeLineno => "lineno",
            Self::Traceback => "traceback",
        }
    }

    /// Whether a trace counts for every frame of its stack.
    pub fn is_cumulative(self) -> bool {
        matches!(self, Self::CumulativeFilename | Self::CumulativeLineno)
    }
}

/// Writes the name that [`KeyType::parse`] reads.
impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
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
        for key_type in [
            KeyType::Filename,
            KeyType::Lineno,
            KeyType::Traceback,
            KeyType::CumulativeFilename,
            KeyType::CumulativeLineno,
        ] {
            let parsed = KeyType::parse(key_type.as_str(), key_type.is_cumulative());
            assert_eq!(parsed, Ok(key_type));
        }
    }

    #[test]
    fn an_unknown_name_is_reported_before_a_wrong_mode() {
        let text = |key| KeyType::parse(key, true).unwrap_err().to_string();
        assert_eq!(text("it's"), "unknown key_type: \"it's\"");
        assert_eq!(text("traceback"), "cumulative mode cannot by used with key type 'traceback'");
    }
}
