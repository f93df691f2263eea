//! A column of numbers, in blocks that each choose how they are written.
//!
//! A block has up to [`BLOCK`] values and takes the shorter one of two forms, named by its first
//! byte:
//!
//! | form | what follows |
//! | --- | --- |
//! | 0, range | the least value; how far the greatest is above it; for each value, how far it is above the least, packed |
//! | 1, dictionary | how many different values there are; these in ascending order, each by how far it is above the one before plus 1 (the first above 0); for each value its place among them, packed |
//!
//! Single numbers have seven bits a byte; [`Packing`] says how many are packed. A column in which
//! all values are equal takes three bytes a block: what keeps it from standing for more memory
//! than a reader can be asked for is [`Cursor::charge`].
//!
//! **Cost.** Writing a value takes 3 ns, or 5 ns with a dictionary; a block with a range of 131,072
//! or more is sorted, which takes 16 ns. Reading takes 2 to 4 ns.

use super::FileError;
use super::cursor::{Cursor, n_bytes_of_number, put_number};
use super::packing::Packing;

/// The most values in a block.
pub(super) const BLOCK: usize = 4096;

const RANGE: u8 = 0;
const DICTIONARY: u8 = 1;

/// Different values are found in a bitmap up to this range: 16 KiB of bits.
const MAX_BITMAP_RANGE: u64 = 1 << 17;

/// Writes columns; holds what that needs for one block.
#[derive(Default)]
pub(super) struct ColumnWriter {
    distinct: Distinct,
    /// What is packed in the end: for each value its place in a dictionary, or how far it is
    /// above the least.
    digits: Vec<u64>,
}

impl ColumnWriter {
    /// Appends a column of any length.
    pub(super) fn write(&mut self, values: &[u64], out: &mut Vec<u8>) {
        values.chunks(BLOCK).for_each(|block| self.write_block(block, out));
    }

    /// Appends one block. No values are nothing.
    pub(super) fn write_block(&mut self, values: &[u64], out: &mut Vec<u8>) {
        debug_assert!(values.len() <= BLOCK);
        let Some(&first) = values.first() else { return };
        let (least, greatest) = values.iter().fold((first, first), |(least, greatest), &value| {
            (least.min(value), greatest.max(value))
        });
        let range = greatest - least;
        let packing = Packing::up_to(range);
        let range_len =
            n_bytes_of_number(least) + n_bytes_of_number(range) + packing.n_bytes(values.len());
        if self.write_dictionary(values, least, range, range_len, out) {
            return;
        }
        out.push(RANGE);
        put_number(least, out);
        put_number(range, out);
        self.digits.clear();
        self.digits.extend(values.iter().map(|value| value - least));
        packing.pack(&self.digits, out);
    }

    /// Appends the block if it takes less than `max_len` bytes this way.
    fn write_dictionary(
        &mut self,
        values: &[u64],
        least: u64,
        range: u64,
        max_len: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        // The form, the number, the least value and one more, and a bit for each.
        if max_len <= 3 + values.len() / 8 {
            return false;
        }
        self.distinct.find(values, least, range);
        let n_distinct = self.distinct.len();
        let packing = Packing::up_to(n_distinct as u64 - 1);
        // An entry takes at least a byte.
        let packed_len = packing.n_bytes(values.len());
        if n_distinct + packed_len >= max_len {
            return false;
        }
        let start = out.len();
        out.push(DICTIONARY);
        put_number(n_distinct as u64, out);
        let mut next = 0;
        self.distinct.for_each(|value| {
            put_number(value - next, out);
            next = value.wrapping_add(1);
        });
        if out.len() - start + packed_len > max_len {
            out.truncate(start);
            return false;
        }
        self.digits.clear();
        self.digits.extend(values.iter().map(|&value| self.distinct.rank(value)));
        packing.pack(&self.digits, out);
        true
    }
}

/// The different values of a block, and the place of each among them.
#[derive(Default)]
struct Distinct {
    least: u64,
    /// A bit for each value from the least one, if the range is small.
    bits: Vec<u64>,
    /// Of values whose bit is set, the place, once all of them were visited. Never cleared.
    ranks: Vec<u16>,
    n_bits: usize,
    /// The values in ascending order, if the range is too large for bits.
    sorted: Vec<u64>,
}

impl Distinct {
    fn find(&mut self, values: &[u64], least: u64, range: u64) {
        self.bits.clear();
        self.sorted.clear();
        self.least = least;
        if range < MAX_BITMAP_RANGE {
            self.bits.resize(range as usize / 64 + 1, 0);
            for value in values {
                let bit = (value - least) as usize;
                self.bits[bit / 64] |= 1 << (bit % 64);
            }
            self.n_bits = self.bits.iter().map(|word| word.count_ones() as usize).sum();
        } else {
            self.sorted.extend_from_slice(values);
            self.sorted.sort_unstable();
            self.sorted.dedup();
        }
    }

    fn len(&self) -> usize {
        if self.sorted.is_empty() { self.n_bits } else { self.sorted.len() }
    }

    /// Visits the values in ascending order.
    fn for_each(&mut self, mut visit: impl FnMut(u64)) {
        self.sorted.iter().for_each(|&value| visit(value));
        let n_possible = 64 * self.bits.len();
        if self.ranks.len() < n_possible {
            self.ranks.resize(n_possible, 0);
        }
        let mut n_visited = 0;
        for (&word, first) in self.bits.iter().zip((0..).step_by(64)) {
            let mut rest = word;
            while rest != 0 {
                let bit = first + rest.trailing_zeros() as usize;
                visit(self.least + bit as u64);
                self.ranks[bit] = n_visited;
                n_visited += 1;
                rest &= rest - 1;
            }
        }
    }

    /// The place of one of the values, after they were visited.
    fn rank(&self, value: u64) -> u64 {
        if self.sorted.is_empty() {
            u64::from(self.ranks[(value - self.least) as usize])
        } else {
            self.sorted.partition_point(|&other| other < value) as u64
        }
    }
}

/// Reads columns; holds what that needs for one block.
#[derive(Default)]
pub(super) struct ColumnReader {
    dictionary: Vec<u64>,
}

impl ColumnReader {
    /// Reads as many values as `values` takes, none above `max`.
    pub(super) fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        values: &mut [u64],
        max: u64,
        what: &str,
    ) -> Result<(), FileError> {
        values.chunks_mut(BLOCK).try_for_each(|block| self.read_block(cursor, block, max, what))
    }

    /// Reads a column of values up to `max`. The caller has [charged](Cursor::charge) for them.
    pub(super) fn read_u32s(
        &mut self,
        cursor: &mut Cursor<'_>,
        n_values: usize,
        max: u32,
        what: &str,
    ) -> Result<Vec<u32>, FileError> {
        let mut narrow = Vec::with_capacity(n_values);
        let mut block = [0; BLOCK];
        while narrow.len() < n_values {
            let n_block = (n_values - narrow.len()).min(BLOCK);
            self.read_block(cursor, &mut block[..n_block], max.into(), what)?;
            narrow.extend(block[..n_block].iter().map(|&value| value as u32));
        }
        Ok(narrow)
    }

    /// Reads one block, of as many values as `values` takes, none above `max`.
    pub(super) fn read_block(
        &mut self,
        cursor: &mut Cursor<'_>,
        values: &mut [u64],
        max: u64,
        what: &str,
    ) -> Result<(), FileError> {
        if values.is_empty() {
            return Ok(());
        }
        let start = cursor.offset();
        // A writer states the greatest value exactly, so that it can be judged before the others.
        let too_great = |cursor: &Cursor<'_>, value: u64| {
            cursor.malformed_at(start, format!("the greatest of {what} is {value}, not 0 to {max}"))
        };
        match cursor.byte(what)? {
            RANGE => {
                let least = cursor.number(what)?;
                let range = cursor.number_up_to(u64::MAX - least, what)?;
                if least + range > max {
                    return Err(too_great(cursor, least + range));
                }
                cursor.packed(range, values, what)?;
                values.iter_mut().for_each(|value| *value += least);
            }
            DICTIONARY => {
                let n_distinct = cursor.number_up_to(values.len() as u64, what)?;
                self.read_dictionary(cursor, n_distinct, what)?;
                match self.dictionary.last() {
                    Some(&greatest) if greatest <= max => {}
                    Some(&greatest) => return Err(too_great(cursor, greatest)),
                    None => {
                        let reason = format!("the dictionary of {what} is empty");
                        return Err(cursor.malformed_at(start, reason));
                    }
                }
                cursor.packed(n_distinct - 1, values, what)?;
                values.iter_mut().for_each(|value| *value = self.dictionary[*value as usize]);
            }
            other => {
                let reason = format!("the form of {what} is {other}, not 0 or 1");
                return Err(cursor.malformed_at(start, reason));
            }
        }
        Ok(())
    }

    fn read_dictionary(
        &mut self,
        cursor: &mut Cursor<'_>,
        n_distinct: u64,
        what: &str,
    ) -> Result<(), FileError> {
        self.dictionary.clear();
        let mut least = Some(0);
        for _ in 0..n_distinct {
            let start = cursor.offset();
            let gap = cursor.number(what)?;
            let Some(value) = least.and_then(|least: u64| least.checked_add(gap)) else {
                let reason = format!("the dictionary of {what} goes beyond 2^64");
                return Err(cursor.malformed_at(start, reason));
            };
            self.dictionary.push(value);
            least = value.checked_add(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Section;
    use super::*;

    fn written(values: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        ColumnWriter::default().write(values, &mut bytes);
        bytes
    }

    fn read(bytes: &[u8], n_values: usize) -> Result<Vec<u64>, String> {
        let mut cursor = Cursor::new(Section::Meta, 0, bytes);
        let mut values = vec![0; n_values];
        let read = ColumnReader::default().read(&mut cursor, &mut values, u64::MAX, "values");
        read.and_then(|()| cursor.finish()).map(|()| values).map_err(|error| error.to_string())
    }

    #[test]
    fn a_block_takes_the_shorter_form() {
        assert_eq!(written(&[]), []);
        assert_eq!(written(&[7; 3000]), [RANGE, 7, 0]);
        assert_eq!(written(&[7, 9, 7])[..3], [RANGE, 7, 2]);
        let rare = [1000, 1000, 1000, 50_000, 1000, 1000, 1000, 1000];
        assert_eq!(written(&rare)[..2], [DICTIONARY, 2]);
        assert_eq!(*written(&rare).last().unwrap(), 0b1000);
        // 10,000 equally likely values: 40 bits for three of them, in two blocks.
        let spread: Vec<u64> = (0..6000).map(|i| i * 7919 % 10_000).collect();
        let n_bytes = written(&spread).len();
        assert!((10_000..10_030).contains(&n_bytes), "{n_bytes}");
    }

    #[test]
    fn what_no_column_has_written_is_refused() {
        for (bytes, reason) in [
            (vec![2], "the form of values is 2, not 0 or 1"),
            (vec![DICTIONARY, 0], "the dictionary of values is empty"),
            (vec![DICTIONARY, 3], "values is 3, not 0 to 2"),
            (vec![RANGE, 1, 2, 9], "one of values is not 0 to 2"),
            (vec![RANGE, 0, 3], "1 bytes of values were expected, but the section has 0 more"),
        ] {
            let error = read(&bytes, 2).unwrap_err();
            assert!(error.ends_with(reason), "{error}");
        }
        let mut bytes = vec![DICTIONARY, 2];
        put_number(u64::MAX, &mut bytes);
        bytes.extend([0, 0]);
        let error = read(&bytes, 2).unwrap_err();
        assert!(error.ends_with("the dictionary of values goes beyond 2^64"), "{error}");
        let mut bytes = vec![RANGE];
        put_number(u64::MAX, &mut bytes);
        bytes.extend([1, 0]);
        let error = read(&bytes, 2).unwrap_err();
        assert!(error.ends_with("values is 1, not 0 to 0"), "{error}");
    }

    #[test]
    fn values_above_what_is_allowed_are_refused() {
        let bytes = written(&[3, 5, 9]);
        let read = |max| {
            let mut cursor = Cursor::new(Section::Meta, 0, &bytes);
            ColumnReader::default().read_u32s(&mut cursor, 3, max, "ids")
        };
        assert_eq!(read(9).unwrap(), [3, 5, 9]);
        let error = read(8).unwrap_err().to_string();
        assert!(error.ends_with("the greatest of ids is 9, not 0 to 8"), "{error}");
    }

    fn column() -> impl Strategy<Value = Vec<u64>> {
        let value = prop_oneof![
            0..5_u64,
            0..1000_u64,
            Just(u64::MAX),
            any::<u64>(),
            (0..64_u32).prop_map(|bit| 1 << bit)
        ];
        let few = prop::collection::vec(value.clone(), 1..6);
        let of_few =
            few.prop_flat_map(|few| prop::collection::vec(prop::sample::select(few), 0..300));
        prop_oneof![prop::collection::vec(value, 0..300), of_few]
    }

    proptest! {
        #[test]
        fn a_column_comes_back(values in column(), n_times in 1..40_usize) {
            let values = values.repeat(n_times);
            prop_assert_eq!(read(&written(&values), values.len()), Ok(values));
        }

        #[test]
        fn a_form_is_never_longer_than_the_range_alone(values in column()) {
            let Some((&least, &greatest)) = values.iter().min().zip(values.iter().max()) else {
                return Ok(());
            };
            let packed = Packing::up_to(greatest - least).n_bytes(values.len());
            let range_len =
                1 + n_bytes_of_number(least) + n_bytes_of_number(greatest - least) + packed;
            prop_assert!(written(&values).len() <= range_len);
        }

        #[test]
        fn damage_is_refused_or_read_as_other_values(
            values in column(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = written(&values);
            if !bytes.is_empty() {
                *at.get_mut(&mut bytes) = byte;
            }
            // Whatever it is, it is no panic.
            if let Ok(read) = read(&bytes, values.len()) {
                prop_assert_eq!(read.len(), values.len());
            }
        }
    }
}
