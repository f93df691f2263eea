//! Frames: places in the source, or addresses that have no names yet.
//!
//! The section: the number of frames, then for up to [`BLOCK`] frames each a block of every
//! column. Ids of what may be missing are more by 1, and 0 for nothing.
//!
//! | column | what | predicted by |
//! | --- | --- | --- |
//! | functions | text id | |
//! | files | text id | function |
//! | directories | text id | file |
//! | lines | | |
//! | modules | module id | |
//! | addresses | address in the module's file, 0 where there is none | |
//! | kinds | 1 if inlined, 2 if it has an address; and 4 times the code of why it has no file: 0 for no reason, or 1 and its place in [`MissingSource`] | |

use super::FileError;
use super::column::{BLOCK, ColumnReader, ColumnWriter};
use super::cursor::{Cursor, put_number};
use super::prediction::{PredictionReader, PredictionWriter};
use crate::stack_table::FrameRecord;
use crate::{MissingSource, SnapshotBuilder};

/// What a frame takes in memory, with all that finds it.
const FRAME_OVERHEAD: u64 = 256;

const INLINED: u64 = 1;
const HAS_ADDR: u64 = 2;
const MISSING: u64 = 4;

/// Appends the section and returns what it takes in memory.
pub(super) fn write(
    frames: &[FrameRecord],
    n_texts: usize,
    column: &mut ColumnWriter,
    out: &mut Vec<u8>,
) -> u64 {
    put_number(frames.len() as u64, out);
    let mut files = PredictionWriter::new(n_texts + 1);
    let mut directories = PredictionWriter::new(n_texts);
    for block in frames.chunks(BLOCK) {
        let values = |value: fn(&FrameRecord) -> u64| block.iter().map(value).collect::<Vec<_>>();
        let functions = values(|frame| code(frame.function));
        column.write_block(&functions, out);
        let contexts = functions.iter().map(|&function| function as usize);
        files.write_block(column, contexts, &values(|frame| frame.filename.into()), out);
        let contexts = block.iter().map(|frame| frame.filename as usize);
        directories.write_block(column, contexts, &values(|frame| code(frame.directory)), out);
        column.write_block(&values(|frame| frame.lineno.into()), out);
        column.write_block(&values(|frame| code(frame.module)), out);
        column.write_block(&values(|frame| frame.file_addr.unwrap_or(0)), out);
        column.write_block(&values(kind), out);
    }
    FRAME_OVERHEAD * frames.len() as u64
}

fn code(id: Option<u32>) -> u64 {
    id.map_or(0, |id| u64::from(id) + 1)
}

fn kind(frame: &FrameRecord) -> u64 {
    let inlined = if frame.is_inlined { INLINED } else { 0 };
    let has_addr = if frame.file_addr.is_some() { HAS_ADDR } else { 0 };
    inlined + has_addr + MISSING * frame.missing.map_or(0, |reason| 1 + reason as u64)
}

/// Reads the section into the builder, which has these texts and modules and no frames yet.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    column: &mut ColumnReader,
    n_texts: usize,
    n_modules: usize,
    builder: &mut SnapshotBuilder,
) -> Result<usize, FileError> {
    let n_frames = cursor.number("number of frames")?;
    cursor.charge(n_frames.saturating_mul(FRAME_OVERHEAD))?;
    let n_frames = n_frames as usize;
    builder.reserve_frames(n_frames);
    let mut files = PredictionReader::new(n_texts + 1);
    let mut directories = PredictionReader::new(n_texts);
    let mut columns: [Vec<u64>; 7] = [(); 7].map(|()| vec![0; n_frames.min(BLOCK)]);
    for first in (0..n_frames).step_by(BLOCK) {
        let n_block = (n_frames - first).min(BLOCK);
        let start = cursor.offset();
        let [functions, filenames, directory_codes, lines, modules, addrs, kinds] =
            columns.each_mut().map(|values| &mut values[..n_block]);
        let last_text = n_texts.checked_sub(1).ok_or_else(|| {
            cursor.malformed("there are frames, but no texts for their files".to_owned())
        })?;
        let (last_text, n_texts) = (last_text as u64, n_texts as u64);
        column.read_block(cursor, functions, n_texts, "functions")?;
        files.read_block(cursor, column, (functions, filenames), last_text, "files")?;
        let pairs = (&*filenames, &mut *directory_codes);
        directories.read_block(cursor, column, pairs, n_texts, "directories")?;
        column.read_block(cursor, lines, u32::MAX.into(), "lines")?;
        column.read_block(cursor, modules, n_modules as u64, "modules")?;
        column.read_block(cursor, addrs, u64::MAX, "addresses")?;
        let max_kind = MISSING * (1 + MissingSource::ALL.len() as u64) - 1;
        column.read_block(cursor, kinds, max_kind, "kinds of frames")?;

        for i in 0..n_block {
            let record = FrameRecord {
                filename: filenames[i] as u32,
                lineno: lines[i] as u32,
                function: id(functions[i]),
                module: id(modules[i]),
                file_addr: (kinds[i] & HAS_ADDR != 0).then_some(addrs[i]),
                directory: id(directory_codes[i]),
                is_inlined: kinds[i] & INLINED != 0,
                missing: (kinds[i] / MISSING)
                    .checked_sub(1)
                    .map(|reason| MissingSource::ALL[reason as usize]),
            };
            if builder.frame_record(record).0 as usize != first + i {
                let reason = format!("frame {} is there twice", first + i);
                return Err(cursor.malformed_at(start, reason));
            }
        }
    }
    Ok(n_frames)
}

fn id(code: u64) -> Option<u32> {
    code.checked_sub(1).map(|id| id as u32)
}
