//! An index of strings, as services keep them: hashed keys, short vectors, strings that are
//! replaced.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

const N_KEYS: usize = 4_000;
const N_VALUES: usize = 4;

/// Hashed alike in every run: std's own choice of keys is random.
pub(super) type Index = HashMap<String, Vec<String>, BuildHasherDefault<DefaultHasher>>;

pub(super) fn run_batch() -> u64 {
    checksum(&build())
}

pub(super) fn build() -> Index {
    let mut index = Index::default();
    for i in 0..N_KEYS * N_VALUES {
        // Keys come back after all the others: their vectors grow apart from each other.
        let key = i % N_KEYS;
        index.entry(format!("customer/{key}")).or_default().push(format!("order number {i}"));
    }
    for (i, key) in (0..N_KEYS).step_by(2).enumerate() {
        let key = format!("customer/{key}");
        if i % 2 == 0 {
            index.remove(&key);
        } else if let Some(orders) = index.get_mut(&key) {
            for order in orders.iter_mut() {
                *order = format!("{order}, delivered");
            }
        }
    }
    index
}

pub(super) fn checksum(index: &Index) -> u64 {
    index
        .iter()
        .map(|(key, orders)| key.len() + orders.iter().map(String::len).sum::<usize>())
        .sum::<usize>() as u64
}
