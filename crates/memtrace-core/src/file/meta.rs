//! What holds for the snapshot as a whole.
//!
//! The section: the traceback limit; 0, or 1 and the run and number of the generation; the number
//! of traces; for sizes, 0 if all are below 2^32 and else 1; for each of domain, thread and
//! birth, 0 and the value that all traces have, or 1 if each has its own; the attribution, which
//! is 1 for workspace only and else 0, and four lists of [texts](super::text): file patterns,
//! function patterns, crates, crates hidden without a file. If the snapshot is sampled, there follow the
//! period in bytes, 2 or more; and for which traces of domain 0 are certain, 0 and the value of all
//! traces, 0 or 1, or 1 if each has its own. Where nothing but zeros follows, every block was recorded.

use std::num::NonZeroU64;

use super::FileError;
use super::column::{ColumnReader, ColumnWriter};
use super::cursor::{Cursor, put_number};
use super::text::{self, Texts};
use crate::columns::{Sizes, TraceColumns, Uniform};
use crate::{Attribution, Generation, Pattern, Snapshot};

/// What a byte of a pattern takes in memory, at most, once it is compiled.
const PATTERN_OVERHEAD: u64 = 32;

/// What is known of the traces before the first is read.
pub(super) struct TraceShape {
    pub(super) n_traces: u64,
    pub(super) has_wide_sizes: bool,
    /// Of domains, threads, births and what is certain: the value of all, or none if each has its own.
    pub(super) uniform: [Option<u32>; 4],
}

impl TraceShape {
    pub(super) fn of(traces: &TraceColumns) -> Self {
        let uniform = [&traces.domains, &traces.threads, &traces.births, &traces.certain];
        Self {
            n_traces: traces.len() as u64,
            has_wide_sizes: matches!(traces.sizes, Sizes::Wide(_)),
            uniform: uniform.map(|values| match values {
                Uniform::One(value) => Some(*value),
                Uniform::Each(_) => None,
            }),
        }
    }

    /// Bytes of memory for a trace.
    pub(super) fn n_bytes_each(&self) -> u64 {
        let n_each = self.uniform.iter().filter(|uniform| uniform.is_none()).count();
        4 + if self.has_wide_sizes { 8 } else { 4 } + 4 * n_each as u64
    }
}

pub(super) struct Meta {
    pub(super) traceback_limit: u16,
    pub(super) generation: Option<Generation>,
    pub(super) sample_period: Option<NonZeroU64>,
    pub(super) shape: TraceShape,
    pub(super) attribution: Attribution,
}

/// Appends the section and returns what it takes in memory.
pub(super) fn write(
    snapshot: &Snapshot,
    shape: &TraceShape,
    column: &mut ColumnWriter,
    out: &mut Vec<u8>,
) -> u64 {
    put_number(snapshot.traceback_limit().into(), out);
    match snapshot.generation() {
        None => put_number(0, out),
        Some(Generation { run, number }) => {
            put_number(1, out);
            put_number(run, out);
            put_number(number.into(), out);
        }
    }
    put_number(shape.n_traces, out);
    put_number(u64::from(shape.has_wide_sizes), out);
    let [domains, threads, births, certain] = shape.uniform;
    for uniform in [domains, threads, births] {
        write_uniform(uniform, out);
    }
    let attribution = snapshot.attribution();
    put_number(u64::from(attribution.is_workspace_only), out);
    let mut n_bytes = 0;
    for patterns in [&attribution.files, &attribution.functions] {
        let texts = patterns.iter().map(Pattern::as_str);
        n_bytes += PATTERN_OVERHEAD * text::write(texts, column, out);
    }
    for names in [&attribution.crates, &attribution.fileless_crates] {
        n_bytes += text::write(names.iter().map(String::as_str), column, out);
    }
    if let Some(period) = snapshot.sample_period() {
        put_number(period.get(), out);
        write_uniform(certain, out);
    }
    n_bytes
}

fn write_uniform(uniform: Option<u32>, out: &mut Vec<u8>) {
    match uniform {
        Some(value) => {
            put_number(0, out);
            put_number(value.into(), out);
        }
        None => put_number(1, out),
    }
}

/// Reads the section.
pub(super) fn read(cursor: &mut Cursor<'_>, column: &mut ColumnReader) -> Result<Meta, FileError> {
    let traceback_limit = cursor.number_up_to(u16::MAX.into(), "traceback limit")? as u16;
    let generation = match cursor.flag("generation")? {
        false => None,
        true => {
            let run = cursor.number("run")?;
            let number = cursor.u32("generation")?;
            Some(Generation { run, number })
        }
    };
    let n_traces = cursor.number("number of traces")?;
    let has_wide_sizes = cursor.flag("width of sizes")?;
    let mut uniform = [None, None, None, Some(0)];
    for (value, what) in uniform.iter_mut().zip(["domain", "thread", "birth"]) {
        *value = if cursor.flag(what)? { None } else { Some(cursor.u32(what)?) };
    }
    let is_workspace_only = cursor.flag("workspace only")?;
    let mut patterns = || {
        let texts = Texts::read(cursor, column, PATTERN_OVERHEAD)?;
        Ok(texts.iter().map(Pattern::new).collect())
    };
    let (files, functions) = (patterns()?, patterns()?);
    let mut names = || {
        let texts = Texts::read(cursor, column, 1)?;
        Ok(texts.iter().map(str::to_owned).collect())
    };
    let (crates, fileless_crates) = (names()?, names()?);
    let attribution = Attribution { is_workspace_only, files, functions, crates, fileless_crates };
    let sample_period = match cursor.is_at_end() {
        true => None,
        false => NonZeroU64::new(cursor.number("sampling period")?),
    };
    if let Some(period) = sample_period {
        if period.get() == 1 {
            let reason = "the sampling period is 1 byte, not 2 or more".to_owned();
            return Err(cursor.malformed(reason));
        }
        uniform[3] = match cursor.flag("certainty")? {
            true => None,
            false => Some(cursor.number_up_to(1, "certainty of all")? as u32),
        };
    }
    let shape = TraceShape { n_traces, has_wide_sizes, uniform };
    Ok(Meta { traceback_limit, generation, sample_period, shape, attribution })
}
