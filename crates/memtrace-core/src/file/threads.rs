//! Threads that allocated.
//!
//! The section: their names, as [texts](super::text); columns of their numbers and of the
//! system's numbers for them.

use super::FileError;
use super::column::{ColumnReader, ColumnWriter};
use super::cursor::Cursor;
use super::text::{self, Texts};
use crate::{SnapshotBuilder, Thread};

/// What a thread takes in memory beside its name, while it is read and after.
const THREAD_OVERHEAD: u64 = 64;

/// Appends the section and returns what it takes in memory.
pub(super) fn write(threads: &[Thread], column: &mut ColumnWriter, out: &mut Vec<u8>) -> u64 {
    let n_bytes = text::write(threads.iter().map(|thread| &*thread.name), column, out);
    let numbers: [fn(&Thread) -> u32; 2] = [|thread| thread.number, |thread| thread.os_id];
    for number in numbers {
        let numbers: Vec<u64> = threads.iter().map(|thread| number(thread).into()).collect();
        column.write(&numbers, out);
    }
    n_bytes + THREAD_OVERHEAD * threads.len() as u64
}

/// Reads the section into the builder, which has no threads yet.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    column: &mut ColumnReader,
    builder: &mut SnapshotBuilder,
) -> Result<usize, FileError> {
    let names = Texts::read(cursor, column, 1)?;
    let n_threads = names.len();
    cursor.charge((n_threads as u64).saturating_mul(THREAD_OVERHEAD))?;
    let numbers = column.read_u32s(cursor, n_threads, u32::MAX, "threads' numbers")?;
    let os_ids = column.read_u32s(cursor, n_threads, u32::MAX, "threads' system numbers")?;
    for ((name, number), os_id) in names.iter().zip(numbers).zip(os_ids) {
        builder.thread(Thread::new(number, os_id, name));
    }
    Ok(n_threads)
}
