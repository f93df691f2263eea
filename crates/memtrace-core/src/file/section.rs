//! The outer form of the file: a header, and sections that are checked one by one.
//!
//! A checksum is that of all sections so far, so that one which is missing, repeated or out of
//! place does not fit, however whole it is. It leaves out the checksums before it: a CRC that runs
//! over data and their CRC is always the same, and forgets what the data were.

use std::io::{self, Write};

use super::FileError;
use super::cursor::{Cursor, MAX_EXPANSION};

const MAGIC: [u8; 8] = *b"MEMTRACE";
pub(super) const VERSION: u32 = 2;
/// Reads as another number where the order of bytes is another.
const BYTE_ORDER: u32 = 0x0102_0304;

/// Magic, version, and order of bytes.
pub(super) const HEADER_LEN: usize = 16;
/// Tag, and length of the contents.
const SECTION_HEADER_LEN: usize = 12;
const CHECKSUM_LEN: usize = 4;

/// A section, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Meta,
    Texts,
    Modules,
    Frames,
    Stacks,
    Threads,
    Traces,
    End,
}

impl Section {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Texts => "texts",
            Self::Modules => "modules",
            Self::Frames => "frames",
            Self::Stacks => "stacks",
            Self::Threads => "threads",
            Self::Traces => "traces",
            Self::End => "end",
        }
    }

    fn tag(self) -> [u8; 4] {
        match self {
            Self::Meta => *b"meta",
            Self::Texts => *b"text",
            Self::Modules => *b"modu",
            Self::Frames => *b"fram",
            Self::Stacks => *b"stak",
            Self::Threads => *b"thrd",
            Self::Traces => *b"trac",
            Self::End => *b"end ",
        }
    }
}

/// Writes header and sections in one pass.
pub(super) struct SectionWriter<W> {
    out: W,
    checksum: crc32fast::Hasher,
    /// The section that is made, with all around it.
    bytes: Vec<u8>,
}

impl<W: Write> SectionWriter<W> {
    /// Writes the header.
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend(BYTE_ORDER.to_le_bytes());
        out.write_all(&header)?;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&header);
        Ok(Self { out, checksum, bytes: Vec::new() })
    }

    /// Writes a section. `write` appends its contents and returns how many bytes of memory they
    /// stand for; zeros follow if that is too many for so few.
    pub(super) fn section(
        &mut self,
        section: Section,
        write: impl FnOnce(&mut Vec<u8>) -> u64,
    ) -> io::Result<()> {
        self.bytes.clear();
        self.bytes.extend(section.tag());
        self.bytes.extend([0; 8]);
        let min_len = write(&mut self.bytes).div_ceil(MAX_EXPANSION) as usize;
        let contents_len = (self.bytes.len() - SECTION_HEADER_LEN).max(min_len);
        self.bytes.resize(SECTION_HEADER_LEN + contents_len, 0);
        self.bytes[4..SECTION_HEADER_LEN].copy_from_slice(&(contents_len as u64).to_le_bytes());
        self.checksum.update(&self.bytes);
        let checksum = self.checksum.clone().finalize();
        self.bytes.extend(checksum.to_le_bytes());
        self.out.write_all(&self.bytes)
    }

    /// Writes the last section, and ends.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.section(Section::End, |_| 0)?;
        self.out.flush()
    }
}

/// Checks what the file starts with, as far as it is there.
pub(super) fn check_header(bytes: &[u8]) -> Result<(), FileError> {
    let n_magic = bytes.len().min(MAGIC.len());
    if bytes[..n_magic] != MAGIC[..n_magic] {
        let mut found = [0; 8];
        found[..n_magic].copy_from_slice(&bytes[..n_magic]);
        return Err(FileError::NotASnapshot { found });
    }
    let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
        let expected_len = HEADER_LEN + SECTION_HEADER_LEN + CHECKSUM_LEN;
        return Err(FileError::Truncated {
            offset: bytes.len() as u64,
            expected_len: expected_len as u64,
        });
    };
    let [_, _, _, _, _, _, _, _, version @ .., o1, o2, o3, o4] = *header;
    let (version, order) = (u32::from_le_bytes(version), u32::from_le_bytes([o1, o2, o3, o4]));
    if order == BYTE_ORDER.swap_bytes() {
        return Err(FileError::ByteOrder);
    }
    if version != VERSION {
        return Err(FileError::UnsupportedVersion { found: version, supported: VERSION });
    }
    if order != BYTE_ORDER {
        return Err(FileError::Malformed {
            section: "header",
            offset: 12,
            reason: format!("the mark of byte order is {order:#010x}, not {BYTE_ORDER:#010x}"),
        });
    }
    Ok(())
}

/// Sections of a whole file, one after the other.
pub(super) struct Sections<'a> {
    file: &'a [u8],
    next: usize,
    checksum: crc32fast::Hasher,
}

impl<'a> Sections<'a> {
    /// Checks the header.
    pub(super) fn new(file: &'a [u8]) -> Result<Self, FileError> {
        check_header(file)?;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&file[..HEADER_LEN]);
        Ok(Self { file, next: HEADER_LEN, checksum })
    }

    /// How many bytes of the file were not looked at yet.
    pub(super) fn n_left(&self) -> usize {
        self.file.len() - self.next
    }

    /// Returns the contents of the next section, whole and as they were written.
    pub(super) fn next(&mut self, section: Section) -> Result<Cursor<'a>, FileError> {
        let start = self.next;
        let rest = &self.file[start..];
        let truncated = |contents_len: u64| FileError::Truncated {
            offset: self.file.len() as u64,
            expected_len: ((start + SECTION_HEADER_LEN + CHECKSUM_LEN) as u64)
                .saturating_add(contents_len),
        };
        let Some((header, rest)) = rest.split_first_chunk::<SECTION_HEADER_LEN>() else {
            return Err(truncated(0));
        };
        let [t1, t2, t3, t4, contents_len @ ..] = *header;
        let tag = [t1, t2, t3, t4];
        if tag != section.tag() {
            let (found, expected) = (tag.escape_ascii(), section.tag().escape_ascii().to_string());
            return Err(FileError::Malformed {
                section: section.name(),
                offset: start as u64,
                reason: format!("the section is called \"{found}\", not \"{expected}\""),
            });
        }
        let contents_len = u64::from_le_bytes(contents_len);
        let parts = usize::try_from(contents_len).ok().and_then(|n| rest.split_at_checked(n));
        let Some((contents, rest)) = parts else { return Err(truncated(contents_len)) };
        let Some(&stored) = rest.first_chunk::<CHECKSUM_LEN>() else {
            return Err(truncated(contents_len));
        };
        self.checksum.update(header);
        self.checksum.update(contents);
        let computed = self.checksum.clone().finalize();
        let contents_start = start + SECTION_HEADER_LEN;
        let checksum_start = contents_start + contents.len();
        if u32::from_le_bytes(stored) != computed {
            return Err(FileError::Checksum {
                section: section.name(),
                offset: checksum_start as u64,
                stored: u32::from_le_bytes(stored),
                computed,
            });
        }
        self.next = checksum_start + CHECKSUM_LEN;
        Ok(Cursor::new(section, contents_start as u64, contents))
    }

    /// Reads the last section. Nothing may follow.
    pub(super) fn finish(mut self) -> Result<(), FileError> {
        self.next(Section::End)?.finish()?;
        match self.n_left() {
            0 => Ok(()),
            n_left => Err(FileError::Malformed {
                section: Section::End.name(),
                offset: self.next as u64,
                reason: format!("the snapshot ends here, but {n_left} more bytes follow"),
            }),
        }
    }
}
