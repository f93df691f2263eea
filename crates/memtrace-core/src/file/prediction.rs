//! A column whose values can often be guessed: each value has a *context*, and the guess is the
//! value that came last in the same context.
//!
//! The size of a block is guessed by its stack, a frame by its caller, a file by its function. A
//! block of the column has up to [`BLOCK`] values and starts with a byte for its form:
//!
//! | form | what follows |
//! | --- | --- |
//! | 0, plain | all values, as a block of a [column](super::column) |
//! | 1, as guessed | nothing |
//! | 2, mixed | a bit for each value, lowest first, 1 if it is as guessed; the others, as a block of a column |
//!
//! **I1.** What came last in a context is kept up in every form, so that both sides always guess
//! alike. At the start it is 0; all values read into a context are up to the same largest one.
//!
//! **I2.** A context is known before its value is asked for, from values that were read before.
//!
//! **Cost.** One access to a table of the contexts for each value, and no branch that depends on
//! the value: 2 to 4 ns to write and 1 to 3 ns to read, as long as the table is in a cache.

use super::FileError;
use super::column::{BLOCK, ColumnReader, ColumnWriter};
use super::cursor::Cursor;

const PLAIN: u8 = 0;
const AS_GUESSED: u8 = 1;
const MIXED: u8 = 2;

const N_WORDS: usize = BLOCK / 64;

/// Writes one column.
pub(super) struct PredictionWriter {
    /// By context.
    last: Vec<u64>,
    misses: Vec<u64>,
}

impl PredictionWriter {
    pub(super) fn new(n_contexts: usize) -> Self {
        Self { last: vec![0; n_contexts], misses: vec![0; BLOCK] }
    }

    /// Appends one block. No values are nothing.
    pub(super) fn write_block(
        &mut self,
        column: &mut ColumnWriter,
        contexts: impl Iterator<Item = usize>,
        values: &[u64],
        out: &mut Vec<u8>,
    ) {
        let mut hits = [0_u64; N_WORDS];
        let mut n_misses = 0;
        for (i, (&value, context)) in values.iter().zip(contexts).enumerate() {
            let last = &mut self.last[context];
            let is_hit = *last == value;
            *last = value;
            self.misses[n_misses] = value;
            n_misses += usize::from(!is_hit);
            hits[i / 64] |= u64::from(is_hit) << (i % 64);
        }
        let n_hits = values.len() - n_misses;
        if values.is_empty() {
        } else if n_misses == 0 {
            out.push(AS_GUESSED);
        } else if n_hits >= values.len() / 4 {
            out.push(MIXED);
            let bytes = hits.iter().flat_map(|word| word.to_le_bytes());
            out.extend(bytes.take(values.len().div_ceil(8)));
            column.write_block(&self.misses[..n_misses], out);
        } else {
            // Too few for a bit each to pay.
            out.push(PLAIN);
            column.write_block(values, out);
        }
    }
}

/// Reads one column.
pub(super) struct PredictionReader {
    last: Vec<u64>,
    hits: [u64; N_WORDS],
    /// The values of the block that are not as guessed, and one more place, which is never used.
    misses: Vec<u64>,
    n_read: usize,
    n_misses_read: usize,
}

impl PredictionReader {
    pub(super) fn new(n_contexts: usize) -> Self {
        Self {
            last: vec![0; n_contexts],
            hits: [0; N_WORDS],
            misses: vec![0; BLOCK + 1],
            n_read: 0,
            n_misses_read: 0,
        }
    }

    /// Starts a block of `n_values`, at most [`BLOCK`], none above `max`, which is the same for all
    /// blocks; [`next_value`](Self::next_value) yields them.
    pub(super) fn start_block(
        &mut self,
        cursor: &mut Cursor<'_>,
        column: &mut ColumnReader,
        n_values: usize,
        max: u64,
        what: &str,
    ) -> Result<(), FileError> {
        (self.n_read, self.n_misses_read) = (0, 0);
        let n_misses = match cursor.byte(what)? {
            PLAIN => {
                self.hits.fill(0);
                n_values
            }
            AS_GUESSED => {
                self.hits.fill(u64::MAX);
                0
            }
            MIXED => {
                let bytes = cursor.take(n_values.div_ceil(8), what)?;
                for (word, bytes) in self.hits.iter_mut().zip(bytes.chunks(8)) {
                    let mut eight = [0; 8];
                    eight[..bytes.len()].copy_from_slice(bytes);
                    *word = u64::from_le_bytes(eight);
                }
                let n_unused = bytes.len() * 8 - n_values;
                if bytes.last().is_some_and(|&last| last.leading_zeros() < n_unused as u32) {
                    let reason = format!("more than the {n_values} {what} are marked as guessed");
                    return Err(cursor.malformed_at(cursor.offset() - 1, reason));
                }
                let n_hits: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
                n_values - n_hits as usize
            }
            other => {
                let reason = format!("the form of guessed {what} is {other}, not 0 to 2");
                return Err(cursor.malformed_at(cursor.offset() - 1, reason));
            }
        };
        column.read_block(cursor, &mut self.misses[..n_misses], max, what)
    }

    /// Reads a block, all of whose contexts are known; otherwise like
    /// [`start_block`](Self::start_block).
    pub(super) fn read_block(
        &mut self,
        cursor: &mut Cursor<'_>,
        column: &mut ColumnReader,
        (contexts, values): (&[u64], &mut [u64]),
        max: u64,
        what: &str,
    ) -> Result<(), FileError> {
        self.start_block(cursor, column, values.len(), max, what)?;
        let mut misses = &self.misses[..];
        let words = values.chunks_mut(64).zip(contexts.chunks(64)).zip(&self.hits);
        for ((values, contexts), &hits) in words {
            let pairs = values.iter_mut().zip(contexts);
            if hits == u64::MAX {
                pairs.for_each(|(value, &context)| *value = self.last[context as usize]);
                continue;
            }
            for (i, (value, &context)) in pairs.enumerate() {
                let is_hit = hits >> i & 1 == 1;
                // There is a miss left for each bit that is 0, and the unused place at the end. It is
                // looked at in any case: a branch here would be guessed wrong too often.
                let miss = misses[0];
                misses = &misses[usize::from(!is_hit)..];
                let last = &mut self.last[context as usize];
                *last = if is_hit { *last } else { miss };
                *value = *last;
            }
        }
        Ok(())
    }

    /// The next value of the block. After its last one the result means nothing.
    #[inline]
    pub(super) fn next_value(&mut self, context: usize) -> u64 {
        let is_hit = self.hits[self.n_read / 64 % N_WORDS] >> (self.n_read % 64) & 1 == 1;
        self.n_read += 1;
        let miss = self.misses[self.n_misses_read];
        self.n_misses_read = (self.n_misses_read + usize::from(!is_hit)).min(BLOCK);
        let last = &mut self.last[context];
        *last = if is_hit { *last } else { miss };
        *last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Section;
    use super::*;

    const N_CONTEXTS: usize = 9;

    fn written(values: &[(usize, u64)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut column = ColumnWriter::default();
        let mut writer = PredictionWriter::new(N_CONTEXTS);
        for block in values.chunks(BLOCK) {
            let only_values: Vec<u64> = block.iter().map(|&(_, value)| value).collect();
            let contexts = block.iter().map(|&(context, _)| context);
            writer.write_block(&mut column, contexts, &only_values, &mut bytes);
        }
        bytes
    }

    fn read(bytes: &[u8], contexts: &[usize]) -> Result<Vec<u64>, String> {
        let mut cursor = Cursor::new(Section::Meta, 0, bytes);
        let mut column = ColumnReader::default();
        let mut reader = PredictionReader::new(N_CONTEXTS);
        let mut values = Vec::new();
        for block in contexts.chunks(BLOCK) {
            reader
                .start_block(&mut cursor, &mut column, block.len(), u64::MAX, "values")
                .map_err(|error| error.to_string())?;
            values.extend(block.iter().map(|&context| reader.next_value(context)));
        }
        cursor.finish().map(|()| values).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_there_before_costs_nothing_or_a_bit() {
        let values: Vec<_> = (0..3 * BLOCK).map(|i| (i % 7, 1000 + i as u64 % 7)).collect();
        let bytes = written(&values);
        assert_eq!(bytes[0], MIXED);
        assert_eq!(bytes[bytes.len() - 2..], [AS_GUESSED, AS_GUESSED]);
        assert!(bytes.len() < BLOCK / 8 + 20, "{} bytes", bytes.len());
    }

    #[test]
    fn values_that_cannot_be_guessed_cost_no_bit() {
        let values: Vec<_> = (0..BLOCK).map(|i| (i % 7, i as u64)).collect();
        assert_eq!(written(&values)[0], PLAIN);
        assert_eq!(written(&values).len(), 1 + 4 + BLOCK * 12 / 8);
    }

    #[test]
    fn what_no_writer_has_written_is_refused() {
        for (bytes, reason) in [
            (&[3][..], "the form of guessed values is 3, not 0 to 2"),
            (&[MIXED, 0b101], "more than the 2 values are marked as guessed"),
            (&[MIXED], "1 bytes of values were expected, but the section has 0 more"),
            (&[MIXED, 1, 9], "the form of values is 9, not 0 or 1"),
            (&[], "1 bytes of values were expected, but the section has 0 more"),
        ] {
            let error = read(bytes, &[0, 0]).unwrap_err();
            assert!(error.ends_with(reason), "{error}");
        }
    }

    fn pairs() -> impl Strategy<Value = Vec<(usize, u64)>> {
        let value = prop_oneof![0..3_u64, 0..100_u64, any::<u64>()];
        prop::collection::vec((0..N_CONTEXTS, value), 0..200)
    }

    proptest! {
        #[test]
        fn a_column_comes_back(pairs in pairs(), n_times in 1..50_usize) {
            let pairs = pairs.repeat(n_times);
            let (contexts, values): (Vec<usize>, Vec<u64>) = pairs.iter().copied().unzip();
            prop_assert_eq!(read(&written(&pairs), &contexts), Ok(values));
        }

        #[test]
        fn damage_is_refused_or_read_as_other_values(
            pairs in pairs(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = written(&pairs);
            if !bytes.is_empty() {
                *at.get_mut(&mut bytes) = byte;
            }
            let contexts: Vec<usize> = pairs.iter().map(|&(context, _)| context).collect();
            if let Ok(read) = read(&bytes, &contexts) {
                prop_assert_eq!(read.len(), pairs.len());
            }
        }
    }
}
