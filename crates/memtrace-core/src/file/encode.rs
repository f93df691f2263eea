//! Writing the snapshot file.
//!
//! The header holds the length of the body, so the body is written twice: first to nowhere, to
//! be measured, then to the file.

use std::io::{self, Write};

use super::{HEADER_LEN, MAGIC, NO_ID, VERSION};
use crate::traceback::Depth;
use crate::{Pattern, Snapshot};

pub(super) fn write(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<()> {
    let mut measure = Sink::new(io::sink());
    write_body(snapshot, &mut measure)?;
    let body_len = measure.n_bytes;

    let mut sink = Sink::new(out);
    sink.put(&MAGIC)?;
    sink.put(&VERSION.to_le_bytes())?;
    sink.put(&body_len.to_le_bytes())?;
    write_body(snapshot, &mut sink)?;
    debug_assert_eq!(sink.n_bytes, HEADER_LEN + body_len);
    let checksum = sink.checksum.finalize();
    sink.out.write_all(&checksum.to_le_bytes())?;
    sink.out.flush()
}

/// Passes bytes on, counting and summing them.
struct Sink<W> {
    out: W,
    n_bytes: u64,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Sink<W> {
    fn new(out: W) -> Self {
        Self { out, n_bytes: 0, checksum: crc32fast::Hasher::new() }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.checksum.update(bytes);
        self.n_bytes += bytes.len() as u64;
        Ok(())
    }

    fn put_u8(&mut self, value: u8) -> io::Result<()> {
        self.put(&[value])
    }

    fn put_u16(&mut self, value: u16) -> io::Result<()> {
        self.put(&value.to_le_bytes())
    }

    fn put_u32(&mut self, value: u32) -> io::Result<()> {
        self.put(&value.to_le_bytes())
    }

    /// Writes the length of a list or text, which the format holds in 32 bits.
    fn put_len(&mut self, len: usize) -> io::Result<()> {
        let len = u32::try_from(len).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{len} elements in one list; a snapshot file holds fewer than 2^32"),
            )
        })?;
        self.put_u32(len)
    }

    fn put_text(&mut self, text: &str) -> io::Result<()> {
        self.put_len(text.len())?;
        self.put(text.as_bytes())
    }

    fn put_texts<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a str>) -> io::Result<()> {
        self.put_len(texts.len())?;
        for text in texts {
            self.put_text(text)?;
        }
        Ok(())
    }
}

fn write_body(snapshot: &Snapshot, sink: &mut Sink<impl Write>) -> io::Result<()> {
    sink.put_u16(snapshot.traceback_limit())?;

    let attribution = snapshot.attribution();
    sink.put_u8(u8::from(attribution.is_workspace_only))?;
    sink.put_texts(attribution.files.iter().map(Pattern::as_str))?;
    sink.put_texts(attribution.functions.iter().map(Pattern::as_str))?;
    sink.put_texts(attribution.crates.iter().map(String::as_str))?;
    sink.put_texts(attribution.fileless_crates.iter().map(String::as_str))?;

    let table = snapshot.table();
    sink.put_texts(table.strings().iter().map(|text| &**text))?;

    sink.put_len(table.records().len())?;
    for frame in table.records() {
        sink.put_u32(frame.filename)?;
        sink.put_u32(frame.lineno)?;
        for id in [frame.function, frame.directory] {
            sink.put_u32(id.unwrap_or(NO_ID))?;
        }
        sink.put_u8(u8::from(frame.is_inlined))?;
        sink.put_u8(frame.missing.map_or(0, |reason| 1 + reason as u8))?;
    }

    sink.put_len(table.n_stacks())?;
    for id in 0..table.n_stacks() as u32 {
        let (kind, total_nframe) = match table.depth(id) {
            Depth::Unstated => (0, 0),
            Depth::Deeper => (1, 0),
            Depth::Total(total_nframe) => (2, total_nframe),
        };
        sink.put_u8(kind)?;
        sink.put_u16(total_nframe)?;
        sink.put_len(table.stack(id).len())?;
        for &frame in table.stack(id) {
            sink.put_u32(frame)?;
        }
    }

    let traces = snapshot.trace_columns();
    sink.put(&(traces.len() as u64).to_le_bytes())?;
    let rows = || (0..traces.len()).map(|index| traces.row(index));
    for row in rows() {
        sink.put_u32(row.domain)?;
    }
    for row in rows() {
        sink.put(&row.size.to_le_bytes())?;
    }
    for row in rows() {
        sink.put_u32(row.stack)?;
    }
    Ok(())
}
