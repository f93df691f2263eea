//! Allocations that the standard library makes on the program's behalf.

use crate::kept::Kept;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

#[inline(never)]
pub fn boxed() -> Kept {
    let block = Box::new(black_box([8_u8; 2001])); // site: boxed
    Kept::vec(black_box(block as Box<[u8]>).into_vec())
}

#[inline(never)]
pub fn zeroed() -> Kept {
    let block = vec![0_u8; black_box(2003)]; // site: zeroed
    Kept::vec(black_box(block))
}

#[inline(never)]
pub fn vec_growth() -> Kept {
    let mut block: Vec<u8> = Vec::with_capacity(black_box(7));
    block.extend_from_slice(&black_box([9; 2005])); // site: vec growth
    Kept::vec(black_box(block))
}

#[inline(never)]
pub fn vec_shrinking() -> Kept {
    let mut block = vec![10_u8; black_box(9001)];
    block.truncate(black_box(2007));
    block.shrink_to_fit(); // site: vec shrinking
    Kept::vec(black_box(block))
}

#[inline(never)]
pub fn string() -> Kept {
    let mut text = String::new();
    for letter in ["a", "b"] {
        text.push_str(letter);
    }
    text.push_str(&black_box("c").repeat(2007)); // site: string
    Kept::vec(black_box(text).into_bytes())
}

#[inline(never)]
pub fn btree_map() -> Kept {
    let mut map = BTreeMap::new();
    let before = memtrace::traced_memory().current;
    map.insert(black_box(1_u32), black_box([11_u8; 301])); // site: btree map
    let size = memtrace::traced_memory().current - before;
    Kept::other(size, black_box(map))
}

#[inline(never)]
pub fn arc_slice() -> Kept {
    let bytes = black_box([12_u8; 2011]);
    let before = memtrace::traced_memory().current;
    let block: Arc<[u8]> = Arc::from(&bytes[..]); // site: arc slice
    let size = memtrace::traced_memory().current - before;
    Kept::other(size, black_box(block))
}

#[inline(never)]
pub fn iterator() -> Kept {
    let numbers = black_box(0_u16)..2013;
    let block = numbers
        .map(|number| number as u8)
        .rev()
        .enumerate()
        .map(|(index, number)| number.wrapping_add(index as u8))
        .collect::<Vec<u8>>(); // site: iterator
    Kept::vec(black_box(block))
}

#[inline(never)]
pub fn iterator_item() -> Kept {
    let mut sizes = black_box([2015]).into_iter();
    let block = sizes
        .by_ref()
        .map(allocate)
        .find(|block| !block.is_empty()) // calls: iterator item/1
        .expect("the block is not empty");
    Kept::vec(black_box(block))
}

#[inline(never)]
fn allocate(size: usize) -> Vec<u8> {
    let block = vec![13; size]; // site: iterator item
    black_box(block)
}
