//! Sizes of blocks as programs ask for them: mostly small.

use crate::random::Random;

/// A sample of sizes, of which a random one is picked without computing much: what is timed is the
/// allocator.
pub(crate) struct Sizes {
    sample: Vec<u32>,
}

/// For every so many blocks of a thousand, the greatest size. A size is anything from that of the
/// line before, or 16, to this.
type Shape<'a> = &'a [(usize, u32)];

const N_SAMPLES: usize = 4000;

impl Sizes {
    /// Few bytes, seldom more than a kibibyte: 249 bytes on average.
    pub(crate) fn small() -> Self {
        Self::of(16, &[(550, 64), (300, 256), (105, 1024), (45, 4096)])
    }

    /// As [`small`](Self::small), and five in a thousand of up to 64 KiB: 444 bytes on average.
    pub(crate) fn mixed() -> Self {
        Self::of(16, &[(550, 64), (300, 256), (100, 1024), (45, 4096), (5, 65536)])
    }

    /// From 64 KiB to 4 MiB, every doubling as often: 0.97 MiB on average.
    pub(crate) fn large() -> Self {
        let shape: Vec<(usize, u32)> = (17..=22).map(|bits| (166, 1 << bits)).collect();
        Self::of(1 << 16, &shape)
    }

    fn of(least: u32, shape: Shape) -> Self {
        let mut random = Random(1);
        let mut sample = Vec::with_capacity(N_SAMPLES);
        let mut least = least;
        for &(n_of_thousand, most) in shape {
            for _ in 0..n_of_thousand * N_SAMPLES / 1000 {
                sample.push(least + random.below((most - least) as usize + 1) as u32);
            }
            least = most;
        }
        for i in (1..sample.len()).rev() {
            sample.swap(i, random.below(i + 1));
        }
        Self { sample }
    }

    /// Picks one.
    #[inline]
    pub(crate) fn pick(&self, random: &mut Random) -> usize {
        self.sample[random.below(self.sample.len())] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_within_their_bounds_and_have_the_stated_mean() {
        let is_within = |sizes: Sizes, [least, most, mean]: [u32; 3]| {
            let sum: u64 = sizes.sample.iter().map(|&size| u64::from(size)).sum();
            assert_eq!(sum / sizes.sample.len() as u64, u64::from(mean));
            sizes.sample.iter().all(|size| (least..=most).contains(size))
        };
        assert!(is_within(Sizes::small(), [16, 4096, 249]));
        assert!(is_within(Sizes::mixed(), [16, 65536, 444]));
        assert!(is_within(Sizes::large(), [65536, 4 << 20, 1_022_329]));
    }
}
