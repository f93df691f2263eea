//! Whole numbers below a bound, in as few bits as the bound allows.
//!
//! Values from 0 to a largest one are the digits of a number system, and a *group* of up to eight
//! digits is one number of a fixed width in bits. Usually a group is one digit: values up to 255
//! take 8 bits each. Where the bound is far from a power of two, several digits share their
//! fractions of a bit: 10,000 different values take 14 bits each alone, but 40 bits in threes.
//!
//! Words follow each other without gaps, lowest bit first; the first digit of a group is the
//! lowest. The last byte is filled up with zeros.
//!
//! **I1.** How values are packed follows from the largest value alone, on both sides.
//!
//! **I2.** A word that is not stored whole has at most 57 bits: it lies within the eight bytes
//! that start where it starts.
//!
//! **I3.** Of a group of k digits in base n, `n^(k + 1) < 2^64`. Then the division by n is exact
//! as a multiplication by `2^64 / n`, rounded up, for every number below `n^k`.
//!
//! **Cost.** 1 to 1.5 ns a value each way.

/// How values from 0 to a largest one are packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packing {
    max: u64,
    /// How many digits make up a word.
    group: usize,
    /// The width of a word in bits: 0 to 57, or 64.
    width: u32,
}

/// A word was read that no values can have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfRange;

const MAX_GROUP: usize = 8;
const MAX_WIDTH: u32 = 57;

impl Packing {
    /// The packing of values from 0 to `max`.
    pub(super) fn up_to(max: u64) -> Self {
        let width = u64::BITS - max.leading_zeros();
        let single = Self { max, group: 1, width: if width > MAX_WIDTH { 64 } else { width } };
        let mut best = single;
        let mut power = max.saturating_add(1);
        for group in 2..=MAX_GROUP {
            let Some(next) = power.checked_mul(max.saturating_add(1)) else { break };
            let width = u64::BITS - (next - 1).leading_zeros();
            if width > MAX_WIDTH || next.checked_mul(max + 1).is_none() {
                break;
            }
            let packing = Self { max, group, width };
            if packing.width * (best.group as u32) < best.width * group as u32 {
                best = packing;
            }
            power = next;
        }
        // Groups are slower, and worth it only if they save one bit in 32.
        let single_width = single.width * best.group as u32;
        if best.width * 32 < single_width * 31 { best } else { single }
    }

    /// How many bytes `n_values` take.
    pub(super) fn n_bytes(self, n_values: usize) -> usize {
        let n_bits = n_values.div_ceil(self.group) as u128 * u128::from(self.width);
        usize::try_from(n_bits.div_ceil(8)).unwrap_or(usize::MAX)
    }

    /// Appends the values, none of which is above the largest.
    pub(super) fn pack(self, values: &[u64], out: &mut Vec<u8>) {
        debug_assert!(values.iter().all(|&value| value <= self.max));
        match (self.width, self.group) {
            (0, _) => {}
            (64, _) => values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes())),
            (_, 1) => pack_words(values.iter().copied(), self.width, out),
            (_, group) => {
                let base = self.max + 1;
                let words = values
                    .chunks(group)
                    .map(|digits| digits.iter().rev().fold(0, |word, &digit| word * base + digit));
                pack_words(words, self.width, out);
            }
        }
    }

    /// Reads as many values as `values` takes from exactly the bytes that they take.
    pub(super) fn unpack(self, bytes: &[u8], values: &mut [u64]) -> Result<(), OutOfRange> {
        debug_assert_eq!(bytes.len(), self.n_bytes(values.len()));
        let max = match (self.width, self.group) {
            (0, _) => {
                values.fill(0);
                0
            }
            (64, _) => unpack_whole(bytes, values),
            (_, 1) => unpack_single(bytes, self.width, values),
            (_, 2) => self.unpack_groups::<2>(bytes, values)?,
            (_, 3) => self.unpack_groups::<3>(bytes, values)?,
            (_, 4) => self.unpack_groups::<4>(bytes, values)?,
            (_, 5) => self.unpack_groups::<5>(bytes, values)?,
            (_, 6) => self.unpack_groups::<6>(bytes, values)?,
            (_, 7) => self.unpack_groups::<7>(bytes, values)?,
            (_, _) => self.unpack_groups::<MAX_GROUP>(bytes, values)?,
        };
        if max > self.max { Err(OutOfRange) } else { Ok(()) }
    }

    /// Returns the largest digit found.
    fn unpack_groups<const GROUP: usize>(
        self,
        bytes: &[u8],
        values: &mut [u64],
    ) -> Result<u64, OutOfRange> {
        let base = self.max + 1;
        // Rounded up: the base is no power of two, see I3.
        let reciprocal = u64::MAX / base + 1;
        let mut max = 0;
        let mut rest_of_all = 0;
        let mut split = |mut word: u64, digits: &mut [u64]| {
            for digit in digits {
                let quotient = ((u128::from(word) * u128::from(reciprocal)) >> 64) as u64;
                // Wraps only for a word that no digits made; then the digit is far too large.
                *digit = word.wrapping_sub(quotient.wrapping_mul(base));
                max = max.max(*digit);
                word = quotient;
            }
            rest_of_all |= word;
        };
        let words = Words::new(bytes, self.width);
        let n_digits = values.len();
        let (whole, last) = values.split_at_mut(n_digits.min(words.n_whole * GROUP));
        let mut bit = 0;
        for digits in whole.chunks_mut(GROUP) {
            let word = words.whole_at(bit);
            match <&mut [u64; GROUP]>::try_from(&mut *digits) {
                // An array, so that the loop over it is unrolled.
                Ok(digits) => split(word, digits),
                Err(_) => split(word, digits),
            }
            bit += words.width;
        }
        for digits in last.chunks_mut(GROUP) {
            split(words.last_at(bit), digits);
            bit += words.width;
        }
        if rest_of_all != 0 { Err(OutOfRange) } else { Ok(max) }
    }
}

fn pack_words(words: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    let mut filling = 0_u64;
    let mut n_bits = 0;
    for word in words {
        filling |= word << n_bits;
        n_bits += width;
        if n_bits >= 64 {
            out.extend_from_slice(&filling.to_le_bytes());
            n_bits -= 64;
            // At most 57: what did not fit is what is left after the rest.
            filling = word >> (width - n_bits);
        }
    }
    out.extend_from_slice(&filling.to_le_bytes()[..n_bits.div_ceil(8) as usize]);
}

fn unpack_whole(bytes: &[u8], values: &mut [u64]) -> u64 {
    let mut max = 0;
    for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(8)) {
        *value = u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
        max = max.max(*value);
    }
    max
}

fn unpack_single(bytes: &[u8], width: u32, values: &mut [u64]) -> u64 {
    let words = Words::new(bytes, width);
    let n_values = values.len();
    let (whole, last) = values.split_at_mut(n_values.min(words.n_whole));
    let (mut bit, mut max) = (0, 0);
    for value in whole {
        *value = words.whole_at(bit);
        max = max.max(*value);
        bit += words.width;
    }
    for value in last {
        *value = words.last_at(bit);
        max = max.max(*value);
        bit += words.width;
    }
    max
}

/// Words of a width from 1 to 57 bits, one after the other.
struct Words<'a> {
    bytes: &'a [u8],
    width: usize,
    mask: u64,
    /// How many of them begin at least eight bytes before the end.
    n_whole: usize,
}

impl<'a> Words<'a> {
    fn new(bytes: &'a [u8], width: u32) -> Self {
        let width = width as usize;
        // The first bit of such a word lies in any byte but the last seven.
        let n_whole = (8 * bytes.len().saturating_sub(7)).div_ceil(width);
        Self { bytes, width, mask: (1 << width) - 1, n_whole }
    }

    /// One of the first `n_whole` words, which begins at a bit.
    #[inline]
    fn whole_at(&self, bit: usize) -> u64 {
        let start = bit / 8;
        let eight = self.bytes[start..start + 8].try_into().expect("a slice of eight");
        u64::from_le_bytes(eight) >> (bit % 8) & self.mask
    }

    /// One of the words after that.
    fn last_at(&self, bit: usize) -> u64 {
        let last = self.bytes.get(bit / 8..).unwrap_or_default();
        let eight = last.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        eight >> (bit % 8) & self.mask
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(max: u64, values: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Packing::up_to(max).pack(values, &mut bytes);
        bytes
    }

    fn unpacked(max: u64, bytes: &[u8], n_values: usize) -> Result<Vec<u64>, OutOfRange> {
        let mut values = vec![0; n_values];
        Packing::up_to(max).unpack(bytes, &mut values).map(|()| values)
    }

    #[test]
    fn values_share_bits_only_where_that_pays() {
        let shape = |n_different: u64| {
            let packing = Packing::up_to(n_different - 1);
            (packing.group, packing.width)
        };
        assert_eq!(shape(1), (1, 0));
        assert_eq!(shape(2), (1, 1));
        assert_eq!(shape(3), (5, 8));
        assert_eq!(shape(256), (1, 8));
        assert_eq!(shape(257), (6, 49));
        assert_eq!(shape(1009), (1, 10));
        assert_eq!(shape(10_000), (3, 40));
        assert_eq!(shape(1 << 57), (1, 57));
        assert_eq!(shape((1 << 57) + 1), (1, 64));
        assert_eq!(Packing::up_to(u64::MAX).width, 64);
    }

    #[test]
    fn bits_follow_each_other_from_the_lowest() {
        assert_eq!(packed(7, &[1, 2, 3]), [0b11_010_001, 0]);
        assert_eq!(packed(2, &[0, 1, 2, 0, 1]), [3 + 18 + 81]);
        assert_eq!(packed(u64::MAX, &[0x0102]), [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(packed(0, &[0; 9]), []);
    }

    #[test]
    fn what_no_values_can_have_made_is_refused() {
        assert_eq!(unpacked(4, &[5], 1), Err(OutOfRange));
        // Five digits in base 3 make numbers below 243.
        assert_eq!(unpacked(2, &[242], 5), Ok(vec![2; 5]));
        for byte in 243..=255 {
            assert_eq!(unpacked(2, &[byte], 5), Err(OutOfRange), "{byte}");
        }
        // The digits that are missing in the last group must be 0.
        assert_eq!(unpacked(2, &[3], 1), Err(OutOfRange));
    }

    #[test]
    fn every_group_divides_exactly_at_its_limits() {
        let sampled = (2000..70_000).step_by(37);
        for max in (1..2000).chain(sampled).chain([(1 << 21) - 2, 1 << 21, 3 << 19]) {
            let group = Packing::up_to(max).group;
            let mut values = vec![max; group];
            values.extend((0..group as u64).map(|digit| digit.min(max)));
            values.extend((0..group).map(|digit| if digit + 1 == group { max } else { 0 }));
            values.push(max);
            assert_eq!(unpacked(max, &packed(max, &values), values.len()), Ok(values));
        }
    }

    fn values_and_max() -> impl Strategy<Value = (u64, Vec<u64>)> {
        let max = prop_oneof![0..300_u64, 0..1_u64 << 22, any::<u64>()];
        max.prop_flat_map(|max| (Just(max), prop::collection::vec(0..=max, 0..70)))
    }

    proptest! {
        #[test]
        fn values_come_back((max, values) in values_and_max()) {
            let bytes = packed(max, &values);
            prop_assert_eq!(bytes.len(), Packing::up_to(max).n_bytes(values.len()));
            prop_assert_eq!(unpacked(max, &bytes, values.len()), Ok(values));
        }

        #[test]
        fn any_bytes_are_values_or_refused((max, values) in values_and_max(), seed in any::<u64>()) {
            let mut bytes = packed(max, &values);
            let mut noise = seed;
            for byte in &mut bytes {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (noise >> 56) as u8;
            }
            if let Ok(read) = unpacked(max, &bytes, values.len()) {
                prop_assert!(read.iter().all(|&value| value <= max));
            }
        }
    }
}
