//! Reading the snapshot file, without trusting a byte of it.
//!
//! **I1.** A section's checksum is compared before anything in it is looked at.
//!
//! **I2.** Nothing is reserved before it is [charged](super::cursor::Cursor::charge) to the
//! section that asks for it.
//!
//! **I3.** Texts, modules, frames and stacks go through a [`SnapshotBuilder`], which owns the
//! invariants of the tables. They are distinct in a file that was written here, so that their
//! numbers in the file are their ids; a file in which two are equal is refused.
//!
//! **I4.** Every id is compared with the number of what it stands for.

use std::io::Read;
use std::sync::Arc;

use super::call_tree::CallTree;
use super::column::ColumnReader;
use super::cursor::Cursor;
use super::section::{HEADER_LEN, Section, Sections, check_header};
use super::text::Texts;
use super::{FileError, frames, meta, modules, threads, traces};
use crate::columns::NO_THREAD;
use crate::{Snapshot, SnapshotBuilder};

pub(super) fn read(mut input: impl Read) -> Result<Snapshot, FileError> {
    let mut file = Vec::new();
    let failed = |source| FileError::Read { source };
    // First only as much as tells a snapshot from other files, which may have no end.
    input.by_ref().take(HEADER_LEN as u64).read_to_end(&mut file).map_err(failed)?;
    check_header(&file)?;
    input.read_to_end(&mut file).map_err(failed)?;
    read_sections(Sections::new(&file)?)
}

fn read_sections(mut sections: Sections<'_>) -> Result<Snapshot, FileError> {
    let column = &mut ColumnReader::default();

    let mut cursor = sections.next(Section::Meta)?;
    let meta = meta::read(&mut cursor, column)?;
    cursor.finish()?;
    let mut builder = SnapshotBuilder::new(meta.traceback_limit);
    builder.set_attribution(meta.attribution);
    builder.set_generation(meta.generation);

    let mut cursor = sections.next(Section::Texts)?;
    let n_texts = read_texts(&mut cursor, column, &mut builder)?;
    cursor.finish()?;

    let mut cursor = sections.next(Section::Modules)?;
    let n_modules = modules::read(&mut cursor, column, &mut builder)?;
    cursor.finish()?;

    let mut cursor = sections.next(Section::Frames)?;
    let n_frames = frames::read(&mut cursor, column, n_texts, n_modules, &mut builder)?;
    cursor.finish()?;

    let mut cursor = sections.next(Section::Stacks)?;
    let n_stacks = read_stacks(&mut cursor, column, n_frames, &mut builder)?;
    cursor.finish()?;

    let mut cursor = sections.next(Section::Threads)?;
    let n_threads = threads::read(&mut cursor, column, &mut builder)?;
    if let [_, Some(thread), _] = meta.shape.uniform
        && thread as usize >= n_threads
        && thread != NO_THREAD
    {
        return Err(cursor.malformed(format!(
            "all traces are of thread {thread}, but there are {n_threads} threads"
        )));
    }
    cursor.finish()?;

    let traces = traces::read(&mut sections, &meta.shape, n_stacks, n_threads, column)?;
    sections.finish()?;
    builder.set_traces(traces);
    Ok(builder.finish())
}

fn read_texts(
    cursor: &mut Cursor<'_>,
    column: &mut ColumnReader,
    builder: &mut SnapshotBuilder,
) -> Result<usize, FileError> {
    let texts = Texts::read(cursor, column, 1)?;
    builder.reserve_strings(texts.len());
    for (id, text) in texts.iter().enumerate() {
        if builder.string(Arc::from(text)) as usize != id {
            return Err(cursor.malformed(format!("text {id} is there twice")));
        }
    }
    Ok(texts.len())
}

fn read_stacks(
    cursor: &mut Cursor<'_>,
    column: &mut ColumnReader,
    n_frames: usize,
    builder: &mut SnapshotBuilder,
) -> Result<usize, FileError> {
    let stacks = CallTree::read(cursor, column, n_frames)?;
    builder.reserve_stacks(stacks.n_stacks(), stacks.n_entries());
    let mut newest_first = Vec::new();
    for id in 0..stacks.n_stacks() {
        let depth = stacks.stack(id, &mut newest_first);
        if builder.stack_of_depth(&newest_first, depth).0 as usize != id {
            return Err(cursor.malformed(format!("stack {id} is there twice")));
        }
    }
    Ok(stacks.n_stacks())
}
