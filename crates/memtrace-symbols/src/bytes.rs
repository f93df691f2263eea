//! The bytes of a file, in memory.
//!
//! Files up to [`READ_BYTES_MAX`] are read: that costs less than setting up a mapping, and nothing
//! that happens to the file afterwards matters. Larger files are mapped, since of a program of
//! hundreds of megabytes only a few pages are looked at.
//!
//! # What a mapping risks
//!
//! A mapped file that is shortened in place makes the next read of the lost pages raise `SIGBUS`.
//! Replacing by rename, which is what compilers, package managers and deployments do, leaves the
//! mapping intact: it keeps the old inode alive. And the file of a module that the process runs is
//! mapped by the dynamic loader already; shortening it in place kills the process with or without
//! this crate (Linux refuses to write to a running executable for that reason, `ETXTBSY`). What
//! remains are separate debug files and files read offline, where losing the race ends a report.

#![expect(unsafe_code, reason = "mapping a file is unsafe: others may change it meanwhile")]

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// The largest file, in bytes, that is read instead of mapped.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The contents of one file.
pub(crate) enum FileBytes {
    Read(Box<[u8]>),
    Mapped(Mmap),
}

impl FileBytes {
    /// Opens and reads or maps the file.
    ///
    /// **Errors:** those of the file system; anything but a regular file (a pipe would block, a
    /// device never end) is refused.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if !path.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut file = File::open(path)?;
        let n_bytes = file.metadata()?.len();
        if n_bytes <= READ_BYTES_MAX {
            let mut bytes = Vec::with_capacity(usize::try_from(n_bytes).unwrap_or(0));
            file.by_ref().take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
            return Ok(FileBytes::Read(bytes.into_boxed_slice()));
        }
        // SAFETY: the mapping is private and never written to. Nobody can rule out that another
        // process writes to the file meanwhile; the module's docs say why that is accepted. All
        // parsers of the bytes are safe code that takes any bytes, checks before each use, and
        // relies on no value staying the same between two reads for memory safety.
        let mapped = unsafe { Mmap::map(&file) }?;
        Ok(FileBytes::Mapped(mapped))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Read(bytes) => bytes,
            FileBytes::Mapped(mapped) => mapped,
        }
    }
}
