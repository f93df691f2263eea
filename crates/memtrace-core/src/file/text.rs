//! The distinct texts of a snapshot: names of functions, files and directories.
//!
//! Such names come in families, `/rustc/…/library/alloc/src/` and `alloc::vec::Vec<…>`: a text
//! is written as what it shares with the start of an earlier one, and its rest.
//!
//! They are: the number of texts and the number of bytes in all of them together; for up to
//! [`BLOCK`] texts each three blocks of columns (how many texts ago the similar one came, 0 for
//! none; the bytes shared with it; the bytes of the rest); then the rests, one after the other.
//!
//! **Cost.** Writing compares a text with one other, the last that starts with the same few
//! bytes. In programs as they are, two thirds of the bytes are left.

use std::str;

use super::FileError;
use super::column::{BLOCK, ColumnReader, ColumnWriter};
use super::cursor::{Cursor, put_number};

/// What a text takes in memory beside its bytes, at most.
const TEXT_OVERHEAD: u64 = 128;

/// Texts are looked for among those that start with the same so many bytes.
const N_SAME_BYTES: usize = 8;
const N_SLOTS: usize = 1024;

/// What texts take in memory, as [`Cursor::charge`] counts: while they are read, twice.
fn expansion(n_texts: u64, n_bytes: u64) -> u64 {
    n_texts.saturating_mul(TEXT_OVERHEAD).saturating_add(n_bytes.saturating_mul(2))
}

/// Appends texts and returns what they take in memory.
pub(super) fn write<'a>(
    texts: impl ExactSizeIterator<Item = &'a str>,
    column: &mut ColumnWriter,
    out: &mut Vec<u8>,
) -> u64 {
    let texts: Vec<&[u8]> = texts.map(str::as_bytes).collect();
    let n_bytes = texts.iter().map(|text| text.len() as u64).sum();
    put_number(texts.len() as u64, out);
    put_number(n_bytes, out);

    let mut last_with = vec![0; N_SLOTS];
    let mut columns = [const { Vec::new() }; 3];
    let mut rests = Vec::new();
    for (block, first) in texts.chunks(BLOCK).zip((0..).step_by(BLOCK)) {
        columns.iter_mut().for_each(Vec::clear);
        for (id, &text) in (first..).zip(block) {
            // A text alone in its slot is compared with the first one, or with itself.
            let similar = std::mem::replace(&mut last_with[slot(text)], id);
            let n_shared = if similar == id { 0 } else { n_shared(text, texts[similar]) };
            let distance = if n_shared == 0 { 0 } else { id - similar };
            columns[0].push(distance as u64);
            columns[1].push(n_shared as u64);
            columns[2].push((text.len() - n_shared) as u64);
            rests.extend_from_slice(&text[n_shared..]);
        }
        columns.iter().for_each(|values| column.write_block(values, out));
    }
    out.append(&mut rests);
    expansion(texts.len() as u64, n_bytes)
}

fn n_shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn slot(text: &[u8]) -> usize {
    let mut start = [0; N_SAME_BYTES];
    let n_bytes = text.len().min(N_SAME_BYTES);
    start[..n_bytes].copy_from_slice(&text[..n_bytes]);
    let mixed = u64::from_le_bytes(start).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - N_SLOTS.trailing_zeros())) as usize
}

/// Texts as they were read.
pub(super) struct Texts {
    all: String,
    ends: Vec<usize>,
}

impl Texts {
    /// Reads texts that take `n_times` the memory of mere texts.
    pub(super) fn read(
        cursor: &mut Cursor<'_>,
        column: &mut ColumnReader,
        n_times: u64,
    ) -> Result<Self, FileError> {
        let n_texts = cursor.number("number of texts")?;
        let n_bytes = cursor.number("length of all texts")?;
        cursor.charge(expansion(n_texts, n_bytes).saturating_mul(n_times))?;
        // Both are at most 64 times the length of a section, which is in memory.
        let (n_texts, n_bytes) = (n_texts as usize, n_bytes as usize);
        let mut columns: [Vec<u64>; 3] = [(); 3].map(|()| vec![0; n_texts]);
        for start in (0..n_texts).step_by(BLOCK) {
            let range = start..n_texts.min(start + BLOCK);
            let names = ["distances", "shared bytes", "lengths of rests"];
            for (values, what) in columns.iter_mut().zip(names) {
                column.read_block(cursor, &mut values[range.clone()], u64::MAX, what)?;
            }
        }
        let [distances, shared, rests] = columns;

        let mut all: Vec<u8> = Vec::with_capacity(n_bytes);
        let mut ends = Vec::with_capacity(n_texts);
        for (id, ((&distance, &n_shared), &n_rest)) in
            distances.iter().zip(&shared).zip(&rests).enumerate()
        {
            let similar = match usize::try_from(distance) {
                Ok(0) => 0..0,
                Ok(distance) if distance <= id => text_range(&ends, id - distance),
                _ => {
                    return Err(
                        cursor.malformed(format!("text {id} is like the one {distance} before it"))
                    );
                }
            };
            if n_shared > similar.len() as u64 {
                return Err(cursor.malformed(format!(
                    "text {id} shares {n_shared} bytes with one of {} bytes",
                    similar.len()
                )));
            }
            let n_shared = n_shared as usize;
            let n_rest = usize::try_from(n_rest).unwrap_or(usize::MAX);
            if n_shared.saturating_add(n_rest) > n_bytes - all.len() {
                return Err(
                    cursor.malformed(format!("text {id} goes beyond the {n_bytes} bytes of all"))
                );
            }
            let rest = cursor.take(n_rest, "texts")?;
            all.extend_from_within(similar.start..similar.start + n_shared);
            all.extend_from_slice(rest);
            ends.push(all.len());
        }
        if all.len() < n_bytes {
            let reason = format!("all texts have {} bytes, not {n_bytes}", all.len());
            return Err(cursor.malformed(reason));
        }
        let all = String::from_utf8(all)
            .map_err(|_| cursor.malformed("the texts are not UTF-8".to_owned()))?;
        if let Some(id) = ends.iter().position(|&end| !all.is_char_boundary(end)) {
            return Err(cursor.malformed(format!("text {id} ends within a character")));
        }
        Ok(Self { all, ends })
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|id| &self.all[text_range(&self.ends, id)])
    }
}

fn text_range(ends: &[usize], id: usize) -> std::ops::Range<usize> {
    let start = if id == 0 { 0 } else { ends[id - 1] };
    start..ends[id]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Section;
    use super::super::cursor::MAX_EXPANSION;
    use super::*;

    fn written(texts: &[String]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let texts = texts.iter().map(String::as_str);
        let expansion = write(texts, &mut ColumnWriter::default(), &mut bytes);
        let n_bytes = expansion.div_ceil(MAX_EXPANSION) as usize;
        bytes.resize(bytes.len().max(n_bytes), 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<String>, String> {
        let mut cursor = Cursor::new(Section::Texts, 0, bytes);
        let texts = Texts::read(&mut cursor, &mut ColumnReader::default(), 1);
        let texts = texts.and_then(|texts| cursor.finish().map(|()| texts));
        texts
            .map(|texts| texts.iter().map(str::to_owned).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_family_is_written_once() {
        let texts: Vec<String> =
            (0..1000).map(|i| format!("/rustc/59807616e1/library/alloc/{i}")).collect();
        let n_bytes = written(&texts).len();
        assert!(n_bytes < 1000 * 6, "{n_bytes} bytes");
        assert_eq!(read(&written(&texts)), Ok(texts));
    }

    #[test]
    fn a_character_may_be_shared_in_part() {
        let texts = ["gleich: \u{e4}", "gleich: \u{e9}"].map(str::to_owned);
        assert_eq!(read(&written(&texts)), Ok(texts.to_vec()));
    }

    fn section(columns: [&[u64]; 3], n_bytes: u64, rests: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_number(columns[0].len() as u64, &mut bytes);
        put_number(n_bytes, &mut bytes);
        columns.iter().for_each(|values| ColumnWriter::default().write(values, &mut bytes));
        bytes.extend_from_slice(rests);
        bytes
    }

    #[test]
    fn what_no_texts_have_written_is_refused() {
        for (bytes, reason) in [
            (section([&[0, 2], &[0, 1], &[2, 1]], 4, b"abc"), "text 1 is like the one 2 before it"),
            (section([&[0], &[1], &[2]], 3, b"ab"), "text 0 shares 1 bytes with one of 0 bytes"),
            (section([&[0, 1], &[0, 3], &[2, 1]], 6, b"abc"), "shares 3 bytes with one of 2 bytes"),
            (section([&[0], &[0], &[3]], 2, b"abc"), "text 0 goes beyond the 2 bytes of all"),
            (section([&[0], &[0], &[u64::MAX]], 2, b"abc"), "goes beyond the 2 bytes of all"),
            (section([&[0], &[0], &[1]], 2, b"a"), "all texts have 1 bytes, not 2"),
            (section([&[0], &[0], &[1]], 1, b"\xff"), "the texts are not UTF-8"),
            (
                section([&[0; 2], &[0; 2], &[1; 2]], 2, "ä".as_bytes()),
                "text 0 ends within a character",
            ),
            (
                section([&[0], &[0], &[9]], 9, b"abc"),
                "9 bytes of texts were expected, but the section has 3 more",
            ),
        ] {
            let error = read(&bytes).unwrap_err();
            assert!(error.ends_with(reason), "{error}");
        }
    }

    #[test]
    fn texts_that_grow_out_of_nothing_are_refused() {
        // Each doubles the length of all before it, for a few bytes each.
        let mut lens = vec![1_u64];
        (0..40).for_each(|_| lens.push(2 * lens.last().unwrap()));
        let shared: Vec<u64> = [0].into_iter().chain(lens[..40].iter().copied()).collect();
        let distances: Vec<u64> = (0..41).map(|id| u64::from(id > 0)).collect();
        let bytes = section([&distances, &shared, &shared], lens.iter().sum(), b"a");
        let error = read(&bytes).unwrap_err();
        assert!(error.contains("bytes of memory; 64 times as many are allowed"), "{error}");
        let error = read(&section([&[0], &[0], &[1]], u64::MAX, b"a")).unwrap_err();
        assert!(error.contains("claim to stand for 18446744073709551615 bytes"), "{error}");
    }

    fn texts() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("(/rustc/x|alloc::vec::|é)?[a-cé]{0,12}", 0..60)
    }

    proptest! {
        #[test]
        fn texts_come_back(texts in texts(), n_times in 1..80_usize) {
            let texts: Vec<String> = (0..n_times).flat_map(|_| texts.clone()).collect();
            prop_assert_eq!(read(&written(&texts)), Ok(texts));
        }

        #[test]
        fn damage_is_refused_or_read_as_other_texts(
            texts in texts(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = written(&texts);
            *at.get_mut(&mut bytes) = byte;
            if let Ok(read) = read(&bytes) {
                let n_bytes: usize = read.iter().map(String::len).sum();
                prop_assert!(n_bytes <= 64 * bytes.len());
            }
        }
    }
}
