//! Numbers that look random and are the same in every run.

/// A fixed sequence of numbers that looks random (Marsaglia's xorshift of 64 bits).
#[derive(Debug)]
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    /// Returns the next number in `0..end`; `end` is small beside 2^32.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * end as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_stays_below_its_end_and_reaches_every_number() {
        let mut sequence = Sequence::new();
        let mut n_seen = [0; 7];
        for _ in 0..7000 {
            n_seen[sequence.below(7)] += 1;
        }
        assert!(n_seen.iter().all(|n| (800..1200).contains(n)), "{n_seen:?}");
    }
}
