//! Executables and libraries, with what tells their builds apart.
//!
//! The section: the paths, as [texts](super::text); a column of the lengths of build ids, each
//! more by 1, and 0 for none; the build ids, one after the other.

use std::sync::Arc;

use super::FileError;
use super::column::{ColumnReader, ColumnWriter};
use super::cursor::Cursor;
use super::text::{self, Texts};
use crate::{Module, SnapshotBuilder};

/// What a module takes in memory beside its texts.
const MODULE_OVERHEAD: u64 = 128;

/// Appends the section and returns what it takes in memory.
pub(super) fn write(modules: &[Arc<Module>], column: &mut ColumnWriter, out: &mut Vec<u8>) -> u64 {
    let n_bytes = text::write(modules.iter().map(|module| &*module.path), column, out);
    let build_ids = || modules.iter().map(|module| module.build_id.as_deref());
    let lens: Vec<u64> = build_ids().map(|id| id.map_or(0, |id| id.len() as u64 + 1)).collect();
    column.write(&lens, out);
    build_ids().flatten().for_each(|id| out.extend_from_slice(id));
    n_bytes + MODULE_OVERHEAD * modules.len() as u64
}

/// Reads the section into the builder, which has no modules yet.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    column: &mut ColumnReader,
    builder: &mut SnapshotBuilder,
) -> Result<usize, FileError> {
    let paths = Texts::read(cursor, column, 1)?;
    cursor.charge((paths.len() as u64).saturating_mul(MODULE_OVERHEAD))?;
    let mut lens = vec![0; paths.len()];
    column.read(cursor, &mut lens, u64::MAX, "lengths of build ids")?;
    for (id, (path, len)) in paths.iter().zip(lens).enumerate() {
        let mut module = Module::new(path);
        if let Some(len) = len.checked_sub(1) {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            module = module.with_build_id(cursor.take(len, "a build id")?);
        }
        if builder.module(Arc::new(module)) as usize != id {
            return Err(cursor.malformed(format!("module {id} is there twice")));
        }
    }
    Ok(paths.len())
}
