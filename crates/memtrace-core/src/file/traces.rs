//! Live blocks, in columns.
//!
//! A section holds up to [`CHUNK`] traces, all but the last one exactly so many; for up to
//! [`BLOCK`] of them each it has a block of every column: stack ids; sizes; and domains, threads,
//! births, and 1 for what is certain, where each trace has its own. All but the stacks are
//! [predicted](super::prediction) by the stack, with what earlier sections taught.
//!
//! **Cost.** With stacks in no order the bits of a stack id, and one bit more where the stack's
//! blocks have one size. Stacks that come in no order but not equally often take fewer, as the
//! few that a block of the column has need only be told apart from each other.

use std::io::{self, Write};
use std::ops::Range;

use super::FileError;
use super::column::{BLOCK, ColumnReader, ColumnWriter};
use super::cursor::MAX_EXPANSION;
use super::meta::TraceShape;
use super::prediction::{PredictionReader, PredictionWriter};
use super::section::{Section, SectionWriter, Sections};
use crate::StackId;
use crate::columns::{NO_THREAD, Sizes, TraceColumns, Uniform};

/// The most traces in a section.
const CHUNK: usize = 16 * BLOCK;

/// A column that is there if not all traces have the same value.
struct Optional {
    what: &'static str,
    /// What is added to a value, so that a thread that is not known is written as 0.
    shift: u32,
}

const OPTIONAL: [Optional; 4] = [
    Optional { what: "domains", shift: 0 },
    Optional { what: "threads", shift: NO_THREAD.wrapping_neg() },
    Optional { what: "births", shift: 0 },
    Optional { what: "certainties", shift: 0 },
];

/// Writes all sections.
pub(super) fn write(
    traces: &TraceColumns,
    shape: &TraceShape,
    n_stacks: usize,
    column: &mut ColumnWriter,
    sections: &mut SectionWriter<impl Write>,
) -> io::Result<()> {
    let mut sizes_by_stack = PredictionWriter::new(n_stacks);
    let optional = [&traces.domains, &traces.threads, &traces.births, &traces.certain];
    let mut optional: Vec<(&[u32], u32, PredictionWriter)> = optional
        .into_iter()
        .zip(&OPTIONAL)
        .filter_map(|(values, column)| match values {
            Uniform::One(_) => None,
            Uniform::Each(values) => {
                Some((&values[..], column.shift, PredictionWriter::new(n_stacks)))
            }
        })
        .collect();
    let mut values = Vec::with_capacity(BLOCK);
    let blocks = |range: Range<usize>| {
        range.clone().step_by(BLOCK).map(move |start| start..range.end.min(start + BLOCK))
    };
    for start in (0..traces.len()).step_by(CHUNK) {
        let chunk = start..traces.len().min(start + CHUNK);
        let n_bytes = chunk.len() as u64 * shape.n_bytes_each();
        sections.section(Section::Traces, |out| {
            for block in blocks(chunk) {
                let stacks = &traces.stacks[block.clone()];
                let contexts = || stacks.iter().map(|stack| stack.0 as usize);
                values.clear();
                values.extend(stacks.iter().map(|stack| u64::from(stack.0)));
                column.write_block(&values, out);
                values.clear();
                match &traces.sizes {
                    Sizes::Narrow(sizes) => {
                        values.extend(sizes[block.clone()].iter().map(|&size| u64::from(size)));
                    }
                    Sizes::Wide(sizes) => values.extend_from_slice(&sizes[block.clone()]),
                }
                sizes_by_stack.write_block(column, contexts(), &values, out);
                for (each, shift, by_stack) in &mut optional {
                    let shifted = each[block.clone()].iter().map(|each| each.wrapping_add(*shift));
                    values.clear();
                    values.extend(shifted.map(u64::from));
                    by_stack.write_block(column, contexts(), &values, out);
                }
            }
            n_bytes
        })?;
    }
    Ok(())
}

/// Reads all sections.
pub(super) fn read(
    sections: &mut Sections<'_>,
    shape: &TraceShape,
    n_stacks: usize,
    n_threads: usize,
    column: &mut ColumnReader,
) -> Result<TraceColumns, FileError> {
    // No more than can be in what is left of the file, whatever it claims.
    let n_possible = MAX_EXPANSION * sections.n_left() as u64 / shape.n_bytes_each();
    let n_likely = shape.n_traces.min(n_possible) as usize;
    let mut stacks = Vec::with_capacity(n_likely);
    let mut sizes = if shape.has_wide_sizes {
        Sizes::Wide(Vec::with_capacity(n_likely))
    } else {
        Sizes::Narrow(Vec::with_capacity(n_likely))
    };
    let mut optional = shape.uniform.map(|uniform| match uniform {
        Some(value) => (Uniform::One(value), None),
        None => {
            (Uniform::Each(Vec::with_capacity(n_likely)), Some(PredictionReader::new(n_stacks)))
        }
    });
    let max_codes = [u32::MAX.into(), n_threads as u64, u32::MAX.into(), 1];
    let max_size = if shape.has_wide_sizes { u64::MAX } else { u32::MAX.into() };
    let mut sizes_by_stack = PredictionReader::new(n_stacks);
    let (mut stack_block, mut value_block) = ([0; BLOCK], [0; BLOCK]);

    let mut n_left = shape.n_traces;
    while n_left > 0 {
        let mut cursor = sections.next(Section::Traces)?;
        let mut n_left_of_chunk = n_left.min(CHUNK as u64) as usize;
        cursor.charge(n_left_of_chunk as u64 * shape.n_bytes_each())?;
        n_left -= n_left_of_chunk as u64;
        let Some(last_stack) = (n_stacks as u64).checked_sub(1) else {
            return Err(cursor.malformed("there are traces, but no stacks".to_owned()));
        };
        while n_left_of_chunk > 0 {
            let n_block = n_left_of_chunk.min(BLOCK);
            n_left_of_chunk -= n_block;
            let (block, values) = (&mut stack_block[..n_block], &mut value_block[..n_block]);
            column.read_block(&mut cursor, block, last_stack, "stacks")?;
            stacks.extend(block.iter().map(|&stack| StackId(stack as u32)));

            let pairs = (&*block, &mut *values);
            sizes_by_stack.read_block(&mut cursor, column, pairs, max_size, "sizes")?;
            match &mut sizes {
                Sizes::Wide(sizes) => sizes.extend_from_slice(values),
                Sizes::Narrow(sizes) => sizes.extend(values.iter().map(|&size| size as u32)),
            }
            for ((values_of, reader), (Optional { what, shift }, max)) in
                optional.iter_mut().zip(OPTIONAL.iter().zip(max_codes))
            {
                let (Uniform::Each(each), Some(reader)) = (values_of, reader) else { continue };
                reader.read_block(&mut cursor, column, (block, values), max, what)?;
                each.extend(values.iter().map(|&value| (value as u32).wrapping_sub(*shift)));
            }
        }
        cursor.finish()?;
    }
    let [domains, threads, births, certain] = optional.map(|(values, _)| values);
    Ok(TraceColumns::new(sizes, stacks, domains, threads, births, certain))
}
