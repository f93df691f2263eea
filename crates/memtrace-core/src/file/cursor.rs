//! The contents of one section, read from front to back.

use super::packing::Packing;
use super::{FileError, Section};

/// What one byte of a section may stand for at most: bytes of memory.
pub(super) const MAX_EXPANSION: u64 = 64;

/// Contents of a section, as far as they are not read yet.
///
/// Every error names the section and the offset in the file.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    section: Section,
    /// Where the contents end in the file.
    end: u64,
    n_bytes: usize,
    /// Bytes of memory that the contents stand for, as far as they said so.
    n_charged: u64,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the first of the contents, which lie at `offset` in the file.
    pub(super) fn new(section: Section, offset: u64, contents: &'a [u8]) -> Self {
        let n_bytes = contents.len();
        Self { section, end: offset + n_bytes as u64, n_bytes, n_charged: 0, rest: contents }
    }

    /// Refuses contents that stand for more than [`MAX_EXPANSION`] times their length in all; to
    /// be called before memory is reserved for `n_bytes` more.
    pub(super) fn charge(&mut self, n_bytes: u64) -> Result<(), FileError> {
        self.n_charged = self.n_charged.saturating_add(n_bytes);
        if self.n_charged > MAX_EXPANSION * self.n_bytes as u64 {
            return Err(self.malformed(format!(
                "the section's {} bytes claim to stand for {} bytes of memory; \
                 {MAX_EXPANSION} times as many are allowed",
                self.n_bytes, self.n_charged
            )));
        }
        Ok(())
    }

    /// Whether all contents were read.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends the section. What is left must be zeros, which fill it up.
    pub(super) fn finish(self) -> Result<(), FileError> {
        match self.rest.iter().position(|&byte| byte != 0) {
            None => Ok(()),
            Some(at) => Err(self.malformed_at(
                self.offset() + at as u64,
                "only zeros may follow after the end of the contents".to_owned(),
            )),
        }
    }

    pub(super) fn take(&mut self, n_bytes: usize, what: &str) -> Result<&'a [u8], FileError> {
        let Some((taken, rest)) = self.rest.split_at_checked(n_bytes) else {
            return Err(self.malformed(format!(
                "{n_bytes} bytes of {what} were expected, but the section has {} more",
                self.rest.len()
            )));
        };
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self, what: &str) -> Result<u8, FileError> {
        self.take(1, what).map(|bytes| bytes[0])
    }

    /// Reads a number of seven bits a byte, lowest first; the top bit says that more follow.
    pub(super) fn number(&mut self, what: &str) -> Result<u64, FileError> {
        let start = self.offset();
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed_at(start, format!("{what} is not a number below 2^64")))
    }

    /// Reads a number that is at most `max`.
    pub(super) fn number_up_to(&mut self, max: u64, what: &str) -> Result<u64, FileError> {
        let start = self.offset();
        let value = self.number(what)?;
        if value > max {
            return Err(self.malformed_at(start, format!("{what} is {value}, not 0 to {max}")));
        }
        Ok(value)
    }

    /// Reads a number of 32 bits.
    pub(super) fn u32(&mut self, what: &str) -> Result<u32, FileError> {
        self.number_up_to(u32::MAX.into(), what).map(|value| value as u32)
    }

    /// Reads 0 or 1.
    pub(super) fn flag(&mut self, what: &str) -> Result<bool, FileError> {
        self.number_up_to(1, what).map(|value| value == 1)
    }

    /// Reads values from 0 to `max`, packed.
    pub(super) fn packed(
        &mut self,
        max: u64,
        values: &mut [u64],
        what: &str,
    ) -> Result<(), FileError> {
        let packing = Packing::up_to(max);
        let start = self.offset();
        let bytes = self.take(packing.n_bytes(values.len()), what)?;
        packing
            .unpack(bytes, values)
            .map_err(|_| self.malformed_at(start, format!("one of {what} is not 0 to {max}")))
    }

    /// The error that something is wrong here.
    pub(super) fn malformed(&self, reason: String) -> FileError {
        self.malformed_at(self.offset(), reason)
    }

    pub(super) fn malformed_at(&self, offset: u64, reason: String) -> FileError {
        FileError::Malformed { section: self.section.name(), offset, reason }
    }

    /// Where the next byte lies in the file.
    pub(super) fn offset(&self) -> u64 {
        self.end - self.rest.len() as u64
    }
}

/// Appends a number as [`Cursor::number`] reads it.
pub(super) fn put_number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`put_number`] takes.
pub(super) fn n_bytes_of_number(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_have_the_length_that_was_said() {
        let powers = (0..64).map(|bit| 1_u64 << bit);
        for value in powers.flat_map(|power| [power - 1, power, power + 1]).chain([u64::MAX]) {
            let mut bytes = Vec::new();
            put_number(value, &mut bytes);
            assert_eq!(bytes.len(), n_bytes_of_number(value), "{value}");
            let mut cursor = Cursor::new(Section::Meta, 0, &bytes);
            assert_eq!(cursor.number("it").unwrap(), value);
            assert_eq!(cursor.offset(), bytes.len() as u64);
        }
    }

    #[test]
    fn faults_are_named_with_section_and_offset() {
        let reason = |bytes: &[u8], read: &dyn Fn(&mut Cursor<'_>) -> Result<(), FileError>| {
            let mut cursor = Cursor::new(Section::Stacks, 100, bytes);
            cursor.byte("the first").unwrap();
            match read(&mut cursor) {
                Err(FileError::Malformed { section: "stacks", offset, reason }) => (offset, reason),
                other => panic!("{other:?}"),
            }
        };
        let number = |cursor: &mut Cursor<'_>| cursor.number("it").map(drop);
        assert_eq!(
            reason(&[1, 0x80], &number),
            (102, "1 bytes of it were expected, but the section has 0 more".to_owned())
        );
        for too_large in [[0xff; 11], [9, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]] {
            let expected = (101, "it is not a number below 2^64".to_owned());
            assert_eq!(reason(&too_large, &number), expected);
        }
        let up_to_5 = |cursor: &mut Cursor<'_>| cursor.number_up_to(5, "it").map(drop);
        assert_eq!(reason(&[1, 6], &up_to_5), (101, "it is 6, not 0 to 5".to_owned()));
        let packed = |cursor: &mut Cursor<'_>| cursor.packed(5, &mut [0; 2], "values");
        let expected = "one of values is not 0 to 5".to_owned();
        assert_eq!(reason(&[1, 0xff, 0x1f], &packed), (101, expected));
        let expected = "2 bytes of values were expected, but the section has 0 more".to_owned();
        assert_eq!(reason(&[1], &packed), (101, expected));
        let charge = |cursor: &mut Cursor<'_>| cursor.charge(2 * MAX_EXPANSION + 1);
        let expected = "the section's 2 bytes claim to stand for 129 bytes of memory; 64 times \
                        as many are allowed";
        assert_eq!(reason(&[1, 2], &charge), (101, expected.to_owned()));
        let twice = |cursor: &mut Cursor<'_>| {
            cursor.charge(MAX_EXPANSION + 1).unwrap();
            cursor.charge(MAX_EXPANSION)
        };
        assert_eq!(reason(&[1, 2], &twice), (101, expected.to_owned()));
    }

    #[test]
    fn a_section_is_filled_up_with_zeros_only() {
        assert!(Cursor::new(Section::Meta, 0, &[0, 0]).finish().is_ok());
        let error = Cursor::new(Section::Meta, 7, &[0, 3]).finish().unwrap_err();
        assert!(matches!(error, FileError::Malformed { offset: 8, .. }), "{error}");
    }
}
