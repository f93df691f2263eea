//! Writing the snapshot file: one section after the other, each made in memory.

use std::io::{self, Write};

use super::column::ColumnWriter;
use super::meta::TraceShape;
use super::section::{Section, SectionWriter};
use super::{call_tree, frames, meta, modules, text, threads, traces};
use crate::Snapshot;

pub(super) fn write(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<()> {
    let table = snapshot.table();
    let columns = snapshot.trace_columns();
    let shape = TraceShape::of(columns);
    let n_stacks = table.n_stacks();
    let column = &mut ColumnWriter::default();

    let mut sections = SectionWriter::new(out)?;
    sections.section(Section::Meta, |out| meta::write(snapshot, &shape, column, out))?;
    sections.section(Section::Texts, |out| {
        text::write(table.strings().iter().map(|text| &**text), column, out)
    })?;
    sections.section(Section::Modules, |out| modules::write(table.modules(), column, out))?;
    sections.section(Section::Frames, |out| {
        frames::write(table.records(), table.strings().len(), column, out)
    })?;
    sections.section(Section::Stacks, |out| {
        let stacks = (0..n_stacks as u32).map(|id| (table.stack(id), table.depth(id)));
        call_tree::write(stacks, table.n_frames(), column, out)
    })?;
    sections.section(Section::Threads, |out| threads::write(snapshot.threads(), column, out))?;
    traces::write(columns, &shape, n_stacks, column, &mut sections)?;
    sections.finish()
}
