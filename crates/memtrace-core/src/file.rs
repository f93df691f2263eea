//! The snapshot file: a plain binary form with all names inside.
//!
//! All numbers are little-endian. There is no padding and no compression.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | magic, `MEMTRACE` |
//! | 4 | version of the format, 1 |
//! | 8 | length of the body in bytes |
//! | … | the body |
//! | 4 | CRC-32 (IEEE) of everything before it |
//!
//! The body is a sequence of sections. A *text* is its length in bytes (4) and UTF-8; an
//! *optional id* is an id (4), or `0xffff_ffff` for none.
//!
//! | section | what |
//! | --- | --- |
//! | limit | traceback limit in frames (2) |
//! | attribution | workspace only (1: 0 or 1); then four lists of texts, each after its length (4): file patterns, function patterns, crates, crates hidden without a file |
//! | strings | number (4); texts |
//! | frames | number (4); for each: filename id (4), line (4), optional ids of function, module and directory (12), inlined (1: 0 or 1), missing (1: 0 for nothing, or 1 + the reason's place in [`MissingSource`](crate::MissingSource)) |
//! | stacks | number (4); for each: kind of depth (1: 0 unstated, 1 deeper than recorded, 2 known), depth in frames (2, 0 unless known), number of frames (4), their ids, newest first (4 each) |
//! | traces | number (8); then as columns: domains (4 each), sizes in bytes (8 each), stack ids (4 each) |
//!
//! Every number read is checked before it is used: lengths and counts against the bytes that are
//! left, ids against the section they point into. So a file of doubtful origin costs memory
//! proportional to its length and ends in a snapshot or in a [`FileError`], nothing else.

mod decode;
mod encode;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use crate::Snapshot;
use crate::section::analysis;

const MAGIC: [u8; 8] = *b"MEMTRACE";
const VERSION: u32 = 1;
/// Magic, version, and length of the body.
const HEADER_LEN: u64 = 20;
const CHECKSUM_LEN: u64 = 4;
/// An optional id that is not there.
const NO_ID: u32 = u32::MAX;

/// Why a snapshot could not be saved or loaded. Offsets are in bytes from the start of the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be written or put in its place.
    #[error("cannot save {}", path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The snapshot could not be read.
    #[error("cannot read the snapshot")]
    Read {
        /// What the reader said.
        source: io::Error,
    },
    /// The snapshot could not be written.
    #[error("cannot write the snapshot")]
    Write {
        /// What the writer said.
        source: io::Error,
    },
    /// The file does not start like a snapshot.
    #[error("not a memtrace snapshot: it starts with \"{}\", not \"MEMTRACE\"", found.escape_ascii())]
    NotASnapshot {
        /// The first eight bytes.
        found: [u8; 8],
    },
    /// The file is of another version of the format.
    #[error(
        "snapshot format version {found} is not supported; this program reads version {supported}"
    )]
    UnsupportedVersion {
        /// The version in the file.
        found: u32,
        /// The version that can be read.
        supported: u32,
    },
    /// The file ends too early.
    #[error("the snapshot is cut off at offset {offset}: {expected_len} bytes were expected")]
    Truncated {
        /// Where it ends.
        offset: u64,
        /// How long it would be in whole, as far as what is left can tell, in bytes.
        expected_len: u64,
    },
    /// Something follows after the end.
    #[error("the snapshot ends at offset {offset}, but more bytes follow")]
    TrailingBytes {
        /// Where it should end.
        offset: u64,
    },
    /// The contents are not those that were written.
    #[error(
        "the snapshot is damaged: the checksum at offset {offset} is {stored:#010x}, but that of \
         the contents is {computed:#010x}"
    )]
    Checksum {
        /// Where the checksum is.
        offset: u64,
        /// The checksum in the file.
        stored: u32,
        /// The checksum of what was read.
        computed: u32,
    },
    /// The contents make no sense, although the checksum is right.
    #[error("the snapshot is malformed at offset {offset}: {reason}")]
    Malformed {
        /// Where.
        offset: u64,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

impl Snapshot {
    /// Saves the snapshot, with its attribution, in a file that [`Snapshot::load`] reads.
    ///
    /// The file appears at `path` only when it is complete: it is written under another name in
    /// the same directory and then renamed, replacing what was there.
    ///
    /// **Cost.** 16 bytes for each trace, and the distinct strings, frames and stacks.
    ///
    /// **Errors.** If the file cannot be created, written or renamed; nothing is left behind
    /// then.
    pub fn dump(&self, path: impl AsRef<Path>) -> Result<(), FileError> {
        let path = path.as_ref();
        let failed = |source| FileError::Save { path: path.to_owned(), source };
        let temporary = temporary_beside(path).map_err(failed)?;
        let saved =
            analysis(|| self.save_as(&temporary).and_then(|()| fs::rename(&temporary, path)));
        saved.map_err(|source| {
            // The first error is the one to report; without the file this one says nothing new.
            let _ = fs::remove_file(&temporary);
            failed(source)
        })
    }

    fn save_as(&self, path: &Path) -> io::Result<()> {
        let file = File::create_new(path)?;
        let mut out = BufWriter::with_capacity(1 << 16, file);
        encode::write(self, &mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }

    /// Loads a snapshot that [`Snapshot::dump`] saved.
    ///
    /// The file need not be trusted.
    ///
    /// **Cost.** The file is read into memory in whole; memory in use stays proportional to its
    /// length.
    ///
    /// **Errors.** If the file cannot be read, or is not a whole and undamaged snapshot of a
    /// version that is supported.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let file =
            File::open(path).map_err(|source| FileError::Open { path: path.to_owned(), source })?;
        Self::read_from(file)
    }

    /// Writes the snapshot in the form of the snapshot file.
    ///
    /// **Cost.** Many small writes: `out` should be buffered.
    ///
    /// **Errors.** If `out` fails.
    pub fn write_to(&self, mut out: impl Write) -> Result<(), FileError> {
        analysis(|| encode::write(self, &mut out)).map_err(|source| FileError::Write { source })
    }

    /// Reads a snapshot that makes up the whole input.
    ///
    /// **Cost.** Like [`Snapshot::load`].
    ///
    /// **Errors.** Like [`Snapshot::load`].
    pub fn read_from(input: impl Read) -> Result<Self, FileError> {
        analysis(|| decode::read(input))
    }
}

/// A name for a file in the same directory as `path`, which nobody else uses.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    static N_NAMES: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    };
    // Relaxed: the number only has to be unique; nothing is published with it.
    let serial = N_NAMES.fetch_add(1, Ordering::Relaxed);
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.{serial}.tmp", process::id()));
    Ok(path.with_file_name(temporary))
}
