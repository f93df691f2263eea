//! What programs do all day, with everything given back at the end.

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;

/// Grows, fills, empties and drops collections of the standard library.
pub fn std_collections(seed: u64) {
    let mut numbers = Vec::new();
    let mut names = HashMap::new();
    let mut sorted = BTreeMap::new();
    for number in seed..seed + 300 {
        numbers.push(number);
        names.insert(number, format!("entry number {number}"));
        sorted.insert(format!("{number:08}"), Box::new(number as u8));
    }
    assert_eq!(numbers.iter().sum::<u64>(), (seed..seed + 300).sum());
    for number in seed..seed + 300 {
        assert_eq!(names.get(&number), Some(&format!("entry number {number}")));
        assert_eq!(sorted.get(&format!("{number:08}")).map(|tiny| **tiny), Some(number as u8));
    }
    names.retain(|number, _| number.is_multiple_of(3));
    names.shrink_to_fit();
    numbers.truncate(10);
    numbers.shrink_to_fit();
    black_box((numbers, names, sorted));
}
