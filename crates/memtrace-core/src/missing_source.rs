//! Why a frame has no file and line.

use std::fmt;

/// Why a frame has no file and line.
///
/// Its text is one line that says what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MissingSource {
    /// The code was built without line tables.
    NoDebugInfo,
    /// The executable or library could not be read.
    FileUnavailable,
    /// The file on disk is not the one that was loaded.
    FileReplaced,
    /// The address lies in no loaded executable or library.
    OutsideModules,
    /// The stack could not be walked to this frame.
    NotUnwound,
    /// The executable or library was stripped of its symbols.
    Stripped,
    /// The snapshot holds addresses that have not been named yet.
    NotNamed,
}

impl MissingSource {
    /// All reasons, in the order of their codes in the snapshot file.
    pub(crate) const ALL: [Self; 7] = [
        Self::NoDebugInfo,
        Self::FileUnavailable,
        Self::FileReplaced,
        Self::OutsideModules,
        Self::NotUnwound,
        Self::Stripped,
        Self::NotNamed,
    ];
}

impl fmt::Display for MissingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDebugInfo => {
                "built without line tables: set `debug = \"line-tables-only\"` in the Cargo \
                 profile to see files and lines"
            }
            Self::FileUnavailable => {
                "the executable or library cannot be read: keep it, readable, at the path it was \
                 loaded from to see files and lines"
            }
            Self::FileReplaced => {
                "the executable or library was replaced on disk after it was loaded: restart the \
                 program to see files and lines"
            }
            Self::OutsideModules => {
                "the code belongs to no loaded file, as when it was generated at run time or its \
                 library was unloaded: take the snapshot while the library is loaded"
            }
            Self::NotUnwound => {
                "the stack could not be walked: build with unwind tables (`-C \
                 force-unwind-tables=yes`) or frame pointers (`-C force-frame-pointers=yes`)"
            }
            Self::Stripped => {
                "stripped of its symbols: remove `strip = true` (or `\"symbols\"`) from the Cargo \
                 profile and set `debug = \"line-tables-only\"` to see functions, files and lines"
            }
            Self::NotNamed => {
                "addresses without names: run `memtrace name SNAPSHOT` where the executable and \
                 its libraries are to see functions, files and lines"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_one_line_that_says_what_to_do() {
        for reason in MissingSource::ALL {
            let text = reason.to_string();
            assert!(!text.contains('\n') && !text.contains("  "), "{text:?}");
            assert!(text.contains(": "), "{text:?}");
        }
        assert!(MissingSource::NoDebugInfo.to_string().contains("debug = \"line-tables-only\""));
    }

    #[test]
    fn codes_follow_the_order_of_declaration() {
        for (code, reason) in MissingSource::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, code);
        }
    }
}
