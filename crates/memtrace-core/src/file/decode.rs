//! Reading the snapshot file, without trusting a byte of it.
//!
//! **I1.** A section's checksum is compared before anything in it is looked at.
//!
//! **I2.** Nothing is reserved before it is [charged](super::cursor::Cursor::charge) to the
//! section that asks for it.
//!
//! **I3.** Texts, modules and frames go through a [`SnapshotBuilder`], which owns the invariants of
//! the tables; that stacks are distinct is known of their tree. In a file that was written here all
//! of them are, so that their numbers in the file are their ids; a file in which two are equal is
//! refused.
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
    builder.set_sample_period(meta.sample_period);

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
    if let [_, Some(thread), ..] = meta.shape.uniform
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
    for (newest_first, depth) in stacks.stacks() {
        builder.push_distinct_stack(newest_first, depth);
    }
    Ok(stacks.n_stacks())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use proptest::prelude::*;

    use super::*;
    use crate::{Frame, Generation, MissingSource, Module, Thread};

    fn text() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "",
            "a.rs",
            "a.rs2",
            "<a::f>",
            "é",
            "/a/very/long/name/of/a/file",
        ])
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let module = (text(), prop::option::of(prop::collection::vec(any::<u8>(), 0..3)));
        let module = module.prop_map(|(path, build_id)| match build_id {
            None => Module::new(path),
            Some(build_id) => Module::new(path).with_build_id(build_id),
        });
        let line = prop_oneof![0..3_u32, any::<u32>()];
        let addr = prop_oneof![0..3_u64, any::<u64>()];
        let missing = prop::sample::select(MissingSource::ALL.to_vec());
        let o = prop::option::of::<BoxedStrategy<&'static str>>;
        (
            (text(), line, o(text().boxed()), o(text().boxed())),
            (prop::option::of(module), prop::option::of(addr)),
            (any::<bool>(), prop::option::of(missing)),
        )
            .prop_map(
                |((filename, line, function, directory), (module, addr), (is_inlined, missing))| {
                    let mut frame = Frame::new(filename, line).with_inlined(is_inlined);
                    frame.function = function.map(Into::into);
                    frame.directory = directory.map(Into::into);
                    frame.module = module.map(Arc::new);
                    frame.file_addr = addr;
                    frame.missing = missing;
                    frame
                },
            )
    }

    type Index = prop::sample::Index;
    type Row = ((u32, bool), u64, Index, Option<Index>, Option<u32>);

    /// Few or many values, as columns like it; some like no columns at all.
    fn row() -> impl Strategy<Value = Row> {
        let domain = prop_oneof![8 => Just(0), 1 => any::<u32>()];
        let size = prop_oneof![0..9_u64, 0..4096_u64, any::<u32>().prop_map(u64::from)];
        let birth = prop_oneof![Just(None), (1..9_u32).prop_map(Some)];
        // Some snapshots have nothing that is certain, or nothing else.
        let domain = (domain, any::<bool>());
        (domain, size, any::<Index>(), any::<Option<Index>>(), birth)
    }

    fn snapshot() -> impl Strategy<Value = Snapshot> {
        let frames = prop::collection::vec(frame(), 1..9);
        let stack = prop::collection::vec(any::<prop::sample::Index>(), 0..6);
        let depth = prop::option::of(0..9_u16);
        let stacks = prop::collection::vec((stack, depth), 1..20);
        let threads = prop::collection::vec((0..9_u32, any::<u32>(), text()), 0..4);
        let large = prop::option::of(any::<u64>());
        let generation = prop::option::of((any::<u64>(), any::<u32>()));
        let rows = prop::collection::vec(row(), 0..40);
        let period = prop_oneof![Just(None), (0..u64::MAX).prop_map(NonZeroU64::new)];
        let sampling = (period, 0..3_u8);
        (frames, stacks, threads, rows, 1..200_usize, large, generation, any::<u16>(), sampling)
            .prop_map(
                |(frames, stacks, threads, rows, n_times, large, generation, limit, sampling)| {
                    let mut builder = SnapshotBuilder::new(limit);
                    let (period, n_certain) = sampling;
                    builder.set_sample_period(period);
                    let frames: Vec<_> = frames.into_iter().map(|f| builder.frame(f)).collect();
                    let stacks: Vec<_> = stacks
                        .iter()
                        .map(|(stack, depth)| {
                            let stack: Vec<_> = stack.iter().map(|i| *i.get(&frames)).collect();
                            builder.stack(&stack, *depth)
                        })
                        .collect();
                    let threads: Vec<_> = threads
                        .into_iter()
                        .map(|(number, os_id, name)| {
                            builder.thread(Thread::new(number, os_id, name))
                        })
                        .collect();
                    for _ in 0..n_times {
                        for ((domain, is_certain), size, stack, thread, birth) in &rows {
                            let thread = thread.filter(|_| !threads.is_empty());
                            let thread = thread.map(|thread| *thread.get(&threads));
                            let stack = *stack.get(&stacks);
                            if n_certain == 2 || n_certain == 1 && *is_certain {
                                builder.certain_trace_of(*domain, *size, stack, thread, *birth);
                            } else {
                                builder.trace_of(*domain, *size, stack, thread, *birth);
                            }
                        }
                    }
                    if let Some(size) = large {
                        builder.trace(0, size, stacks[0]);
                    }
                    builder
                        .set_generation(generation.map(|(run, number)| Generation { run, number }));
                    builder.finish()
                },
            )
    }

    /// Beside what users can see: every id and the form of every column.
    fn assert_identical(found: &Snapshot, expected: &Snapshot) {
        let (table, expected_table) = (found.table(), expected.table());
        assert_eq!(table.strings(), expected_table.strings());
        assert_eq!(table.modules(), expected_table.modules());
        assert_eq!(table.records(), expected_table.records());
        assert_eq!(table.places(), expected_table.places());
        assert_eq!(table.n_stacks(), expected_table.n_stacks());
        for id in 0..table.n_stacks() as u32 {
            assert_eq!(table.stack(id), expected_table.stack(id));
            assert_eq!(table.depth(id), expected_table.depth(id));
        }
        assert_eq!(found.threads(), expected.threads());
        assert_eq!(found.generation(), expected.generation());
        assert_eq!(found.sample_period(), expected.sample_period());
        assert_eq!(found.traceback_limit(), expected.traceback_limit());
        assert_eq!(found.attribution(), expected.attribution());
        let (traces, expected_traces) = (found.trace_columns(), expected.trace_columns());
        assert_eq!(traces.len(), expected_traces.len());
        for index in 0..traces.len() {
            assert_eq!(traces.row(index), expected_traces.row(index), "trace {index}");
        }
        assert_eq!(traces.n_bytes(), expected_traces.n_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_loaded_is_what_was_saved_id_by_id(snapshot in snapshot()) {
            let mut file = Vec::new();
            snapshot.write_to(&mut file).unwrap();
            let loaded = Snapshot::read_from(&file[..]).unwrap();
            assert_identical(&loaded, &snapshot);
            let mut again = Vec::new();
            loaded.write_to(&mut again).unwrap();
            prop_assert_eq!(again, file);
        }
    }
}
