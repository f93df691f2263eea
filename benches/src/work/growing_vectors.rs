//! Vectors that grow by pushing, in turn, so that one is in the way of the next: reallocations, some
//! in place and some not.

use std::hint::black_box;

const N_VECTORS: usize = 256;
const N_ELEMENTS: usize = 512;

pub(super) fn run_batch() -> u64 {
    let mut vectors: Vec<Vec<u64>> = vec![Vec::new(); N_VECTORS];
    let mut len = 4;
    while len <= N_ELEMENTS {
        for vector in &mut vectors {
            while vector.len() < len {
                vector.push(vector.len() as u64);
            }
        }
        len *= 2;
    }
    black_box(&vectors).iter().flatten().sum()
}
