//! The snapshot file: everything that a snapshot holds, compressed, and safe to load.
//!
//! A header of 16 bytes is followed by sections. Numbers of fixed width are little-endian.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | magic, `MEMTRACE` |
//! | 4 | version of the format, 2 |
//! | 4 | the number `0x01020304` |
//! | … | sections: *meta*, *texts*, *modules*, *frames*, *stacks*, *threads*, as many of *traces* as it takes, *end* |
//!
//! | bytes of a section | what |
//! | --- | --- |
//! | 4 | tag: `meta`, `text`, `modu`, `fram`, `stak`, `thrd`, `trac`, `end ` |
//! | 8 | length of the contents in bytes |
//! | … | the contents, filled up with zeros where they stand for more than 64 times as many bytes of memory |
//! | 4 | CRC-32 (IEEE) of everything in the file before it, but not of other checksums |
//!
//! What is in a section stands at the head of its module: `meta`, `text`, `modules`, `frames`,
//! `call_tree`, `threads`, `traces`. All of them consist of columns of whole numbers (`column`,
//! `prediction`, `packing`) and of texts. Ids are places in the section that they point into.
//! Frames may lack names, and have the address in their module instead: with the modules' build
//! ids that is all it takes to add them elsewhere and later.
//!
//! # Files of doubtful origin
//!
//! Loading ends in a snapshot or in a [`FileError`], nothing else, and takes memory proportional
//! to the length of the file. Few bytes may rightly stand for much: a million equal blocks, or a
//! recursion a thousand frames deep. So there is one rule for all sections: what a section claims
//! to stand for is counted before memory is reserved for it, and is refused beyond 64 times the
//! section's length. A writer adds zeros to sections that come close to that.

mod call_tree;
mod column;
mod cursor;
mod decode;
mod encode;
mod frames;
mod meta;
mod modules;
mod packing;
mod prediction;
mod section;
mod text;
mod threads;
mod traces;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use crate::Snapshot;
use crate::section::analysis;

use section::Section;

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
    /// The file was written with its bytes in another order.
    #[error(
        "the snapshot's bytes are in another order: it was written, or converted, on a big-endian \
         machine by a program that did not follow the format, which is little-endian everywhere"
    )]
    ByteOrder,
    /// The file ends too early.
    #[error(
        "the snapshot is cut off at offset {offset}: at least {expected_len} bytes were expected"
    )]
    Truncated {
        /// Where it ends.
        offset: u64,
        /// How long it would be in whole, as far as what is left can tell, in bytes.
        expected_len: u64,
    },
    /// The contents are not those that were written.
    #[error(
        "the snapshot is damaged in section \"{section}\" or before it: the checksum at offset \
         {offset} is {stored:#010x}, but that of the contents is {computed:#010x}"
    )]
    Checksum {
        /// The section that the checksum ends.
        section: &'static str,
        /// Where the checksum is.
        offset: u64,
        /// The checksum in the file.
        stored: u32,
        /// The checksum of what was read.
        computed: u32,
    },
    /// The contents make no sense, although the checksum is right.
    #[error("the snapshot is malformed at offset {offset}, in section \"{section}\": {reason}")]
    Malformed {
        /// The section.
        section: &'static str,
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
    /// All that the snapshot knows is written, also frames and stacks of no trace: those of traces
    /// that were filtered out, and all that the process has met before. So a filter makes a file
    /// smaller only by its traces, and keeps no name secret.
    ///
    /// **Cost.** Two to three bytes for each trace, in the usual case, and the distinct strings,
    /// frames and stacks; 10 to 15 ns for each trace.
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
        // Not synced: that would wait for the disk, several times as long as the rest takes, and all
        // that a power failure can take is a file that was written a moment before it.
        encode::write(self, &mut File::create_new(path)?)
    }

    /// Loads a snapshot that [`Snapshot::dump`] saved.
    ///
    /// The file need not be trusted.
    ///
    /// **Cost.** About 10 ns for each trace. The file is read into memory in whole, and memory in
    /// use stays below 80 times its length and 1 MiB, whatever is in it.
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
    /// **Cost.** Each section is made in memory and written at once; traces come in sections of
    /// 65,536.
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
