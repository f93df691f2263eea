//! Reading the snapshot file, without trusting a byte of it.
//!
//! **I1.** The body is read in whole and its checksum compared before anything in it is looked
//! at. The reader grows by what really comes, never by what the header promises.
//!
//! **I2.** Nothing is reserved for a count before the bytes that its elements need at least are
//! known to be there.
//!
//! **I3.** Strings, frames and stacks go through a [`SnapshotBuilder`], which owns the invariants
//! of the tables. Elements that should be distinct and are not become one: ids in the file are
//! translated.

use std::io::Read;
use std::sync::Arc;

use super::{CHECKSUM_LEN, FileError, HEADER_LEN, MAGIC, NO_ID, VERSION};
use crate::builder::{FrameId, StackId};
use crate::stack_table::FrameRecord;
use crate::traceback::Depth;
use crate::{Attribution, MissingSource, Pattern, Snapshot, SnapshotBuilder};

pub(super) fn read(mut input: impl Read) -> Result<Snapshot, FileError> {
    let mut read_up_to = |n_bytes: u64| {
        let mut bytes = Vec::new();
        let result = input.by_ref().take(n_bytes).read_to_end(&mut bytes);
        result.map(|_| bytes).map_err(|source| FileError::Read { source })
    };
    let header = read_up_to(HEADER_LEN)?;
    let body_len = parse_header(&header)?;
    let mut rest = read_up_to(body_len.saturating_add(CHECKSUM_LEN))?;
    let expected_len = HEADER_LEN.saturating_add(body_len).saturating_add(CHECKSUM_LEN);
    let found_len = HEADER_LEN + rest.len() as u64;
    if found_len < expected_len {
        return Err(FileError::Truncated { offset: found_len, expected_len });
    }
    if !read_up_to(1)?.is_empty() {
        return Err(FileError::TrailingBytes { offset: expected_len });
    }
    let checksum = rest.split_off(rest.len() - CHECKSUM_LEN as usize);
    let stored = u32::from_le_bytes(array(&checksum));
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header);
    hasher.update(&rest);
    let computed = hasher.finalize();
    if stored != computed {
        let offset = HEADER_LEN + body_len;
        return Err(FileError::Checksum { offset, stored, computed });
    }
    Body { rest: &rest, len: rest.len() }.snapshot()
}

/// Checks what comes before the body, and returns the body's length in bytes.
fn parse_header(header: &[u8]) -> Result<u64, FileError> {
    let n_magic = header.len().min(MAGIC.len());
    if header[..n_magic] != MAGIC[..n_magic] {
        let mut found = [0; 8];
        found[..n_magic].copy_from_slice(&header[..n_magic]);
        return Err(FileError::NotASnapshot { found });
    }
    if header.len() < HEADER_LEN as usize {
        let (offset, expected_len) = (header.len() as u64, HEADER_LEN + CHECKSUM_LEN);
        return Err(FileError::Truncated { offset, expected_len });
    }
    let version = u32::from_le_bytes(array(&header[8..12]));
    if version != VERSION {
        return Err(FileError::UnsupportedVersion { found: version, supported: VERSION });
    }
    Ok(u64::from_le_bytes(array(&header[12..20])))
}

/// The body, as far as it is not read yet.
struct Body<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Body<'a> {
    fn snapshot(mut self) -> Result<Snapshot, FileError> {
        let mut builder = SnapshotBuilder::new(u16::from_le_bytes(self.array("limit")?));
        builder.set_attribution(self.attribution()?);
        let strings = self.strings(&mut builder)?;
        let frames = self.frames(&mut builder, &strings)?;
        let stacks = self.stacks(&mut builder, &frames)?;
        self.traces(&mut builder, &stacks)?;
        if !self.rest.is_empty() {
            let n_bytes = self.rest.len();
            return Err(self.malformed(format!("{n_bytes} bytes follow after the last trace")));
        }
        Ok(builder.finish())
    }

    fn attribution(&mut self) -> Result<Attribution, FileError> {
        let is_workspace_only = self.flag("workspace only")?;
        let patterns = |texts: Vec<&str>| texts.into_iter().map(Pattern::new).collect();
        let names = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        Ok(Attribution {
            is_workspace_only,
            files: patterns(self.texts("file patterns")?),
            functions: patterns(self.texts("function patterns")?),
            crates: names(self.texts("crates")?),
            fileless_crates: names(self.texts("crates without file")?),
        })
    }

    /// Returns the builder's id for each id in the file, as do the next two.
    fn strings(&mut self, builder: &mut SnapshotBuilder) -> Result<Vec<u32>, FileError> {
        let texts = self.texts("strings")?;
        Ok(texts.into_iter().map(|text| builder.string(Arc::from(text))).collect())
    }

    fn frames(
        &mut self,
        builder: &mut SnapshotBuilder,
        strings: &[u32],
    ) -> Result<Vec<FrameId>, FileError> {
        let n_frames = self.count("frames", 18)?;
        let mut frames = Vec::with_capacity(n_frames);
        for _ in 0..n_frames {
            let record = FrameRecord {
                filename: self.id("filename", strings)?,
                lineno: self.u32("line")?,
                function: self.optional_id("function", strings)?,
                module: None,
                file_addr: None,
                directory: self.optional_id("directory", strings)?,
                is_inlined: self.flag("inlined")?,
                missing: self.missing()?,
            };
            frames.push(builder.frame_record(record));
        }
        Ok(frames)
    }

    fn missing(&mut self) -> Result<Option<MissingSource>, FileError> {
        let [code] = self.array("missing")?;
        let Some(index) = code.checked_sub(1) else { return Ok(None) };
        match MissingSource::ALL.get(usize::from(index)) {
            Some(&reason) => Ok(Some(reason)),
            None => {
                let n_reasons = MissingSource::ALL.len();
                Err(self.malformed(format!("missing is {code}, not 0 to {n_reasons}")))
            }
        }
    }

    fn stacks(
        &mut self,
        builder: &mut SnapshotBuilder,
        frames: &[FrameId],
    ) -> Result<Vec<StackId>, FileError> {
        let n_stacks = self.count("stacks", 7)?;
        let mut stacks = Vec::with_capacity(n_stacks);
        let mut newest_first = Vec::new();
        for _ in 0..n_stacks {
            let [kind] = self.array("kind of depth")?;
            let total_nframe = u16::from_le_bytes(self.array("depth")?);
            let depth = match (kind, total_nframe) {
                (0, 0) => Depth::Unstated,
                (1, 0) => Depth::Deeper,
                (2, total_nframe) => Depth::Total(total_nframe),
                (0 | 1, _) => {
                    return Err(self.malformed(format!(
                        "depth is {total_nframe}, not 0, although its kind is {kind}"
                    )));
                }
                _ => return Err(self.malformed(format!("kind of depth is {kind}, not 0 to 2"))),
            };
            newest_first.clear();
            for _ in 0..self.count("frames of a stack", 4)? {
                newest_first.push(self.id("frame", frames)?);
            }
            stacks.push(builder.stack_of_depth(&newest_first, depth));
        }
        Ok(stacks)
    }

    fn traces(
        &mut self,
        builder: &mut SnapshotBuilder,
        stacks: &[StackId],
    ) -> Result<(), FileError> {
        let n_traces = u64::from_le_bytes(self.array("number of traces")?);
        let n_traces = self.checked_count("traces", n_traces, 16)?;
        builder.reserve_traces(n_traces);
        // Both columns are there: the count was checked against all three.
        let domains = self.take(n_traces * 4, "domains")?.chunks_exact(4);
        let sizes = self.take(n_traces * 8, "sizes")?.chunks_exact(8);
        for (domain, size) in domains.zip(sizes) {
            let stack = self.id("stack", stacks)?;
            let size = u64::from_le_bytes(array(size));
            builder.trace(u32::from_le_bytes(array(domain)), size, stack);
        }
        Ok(())
    }

    fn texts(&mut self, what: &str) -> Result<Vec<&'a str>, FileError> {
        let n_texts = self.count(what, 4)?;
        let mut texts = Vec::with_capacity(n_texts);
        for _ in 0..n_texts {
            let n_bytes = self.count("bytes of a text", 1)?;
            let bytes = self.take(n_bytes, what)?;
            texts.push(str::from_utf8(bytes).map_err(|error| {
                let at = n_bytes - error.valid_up_to();
                self.malformed_before(at, format!("a text of {what} is not UTF-8"))
            })?);
        }
        Ok(texts)
    }

    fn id<T: Copy>(&mut self, what: &str, ids: &[T]) -> Result<T, FileError> {
        let id = self.u32(what)?;
        let out_of_range = || {
            self.malformed_before(4, format!("{what} is number {id}, but there are {}", ids.len()))
        };
        ids.get(id as usize).copied().ok_or_else(out_of_range)
    }

    fn optional_id(&mut self, what: &str, ids: &[u32]) -> Result<Option<u32>, FileError> {
        if self.rest.starts_with(&NO_ID.to_le_bytes()) {
            self.u32(what)?;
            return Ok(None);
        }
        self.id(what, ids).map(Some)
    }

    fn flag(&mut self, what: &str) -> Result<bool, FileError> {
        match self.array(what)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.malformed_before(1, format!("{what} is {other}, not 0 or 1"))),
        }
    }

    /// Reads how many elements follow, of at least `min_len` bytes each.
    fn count(&mut self, what: &str, min_len: usize) -> Result<usize, FileError> {
        let count = self.u32(what)?;
        self.checked_count(what, count.into(), min_len)
    }

    fn checked_count(&self, what: &str, count: u64, min_len: usize) -> Result<usize, FileError> {
        let n_possible = self.rest.len() / min_len;
        usize::try_from(count).ok().filter(|&count| count <= n_possible).ok_or_else(|| {
            self.malformed(format!(
                "{count} {what} cannot be in the {} bytes left",
                self.rest.len()
            ))
        })
    }

    fn u32(&mut self, what: &str) -> Result<u32, FileError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FileError> {
        self.take(N, what).map(array)
    }

    fn take(&mut self, n_bytes: usize, what: &str) -> Result<&'a [u8], FileError> {
        let Some((taken, rest)) = self.rest.split_at_checked(n_bytes) else {
            return Err(self.malformed(format!("the body ends within {what}")));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn malformed(&self, reason: String) -> FileError {
        self.malformed_before(0, reason)
    }

    /// The error that something is wrong with what was read `n_bytes` ago.
    fn malformed_before(&self, n_bytes: usize, reason: String) -> FileError {
        let offset = HEADER_LEN + (self.len - self.rest.len() - n_bytes) as u64;
        FileError::Malformed { offset, reason }
    }
}

/// The bytes as an array. They are as many as it takes.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}
