//! Calls of every kind, none of them inlined.

use crate::kept::Kept;
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::sync::Mutex;

#[inline(never)]
pub fn function() -> Kept {
    let block = outer(); // calls: function/2
    Kept::vec(black_box(block))
}

#[inline(never)]
fn outer() -> Vec<u8> {
    let mut block = inner(); // calls: function/1
    block.push(black_box(1));
    block
}

#[inline(never)]
fn inner() -> Vec<u8> {
    let block = Vec::with_capacity(1001); // site: function
    black_box(block)
}

#[inline(never)]
pub fn closure() -> Kept {
    let size = black_box(1003);
    let allocate = || {
        let block = Vec::with_capacity(size); // site: closure
        black_box(block)
    };
    let block = call(&allocate); // calls: closure/2
    Kept::vec(black_box(block))
}

#[inline(never)]
fn call(allocate: &dyn Fn() -> Vec<u8>) -> Vec<u8> {
    let mut block = black_box(allocate)(); // calls: closure/1
    block.push(black_box(2));
    block
}

trait Allocate {
    fn allocate(&self) -> Vec<u8>;
}

struct Allocator {
    size: usize,
}

impl Allocate for Allocator {
    #[inline(never)]
    fn allocate(&self) -> Vec<u8> {
        let block = vec![3; self.size]; // site: trait object
        black_box(block)
    }
}

#[inline(never)]
pub fn trait_object() -> Kept {
    let allocator: &dyn Allocate = black_box(&Allocator { size: 1005 });
    let block = allocator.allocate(); // calls: trait object/1
    Kept::vec(black_box(block))
}

#[inline(never)]
fn fill<T: Default + Clone>(n: usize) -> Vec<T> {
    let block = vec![T::default(); n]; // site: generic
    black_box(block)
}

#[inline(never)]
pub fn generic_u16() -> Kept {
    let block = fill::<u16>(black_box(505)); // calls: generic u16/1
    Kept::vec(black_box(block))
}

#[inline(never)]
pub fn generic_triple() -> Kept {
    let block = fill::<[u8; 3]>(black_box(345)); // calls: generic triple/1
    Kept::vec(black_box(block))
}

static FROM_C: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Allocates the first time it is called.
#[inline(never)]
unsafe extern "C" fn compare(left: *const c_void, right: *const c_void) -> c_int {
    let mut block = FROM_C.lock().expect("nobody panics here");
    if block.is_empty() {
        *block = vec![4; 1009]; // site: callback from C
    }
    // SAFETY: `qsort` passes pointers to two elements of the array below.
    let (left, right) = unsafe { (*left.cast::<u32>(), *right.cast::<u32>()) };
    c_int::from(left > right) - c_int::from(left < right)
}

#[inline(never)]
pub fn callback_from_c() -> Kept {
    let mut numbers = black_box([3_u32, 1, 2]);
    let base = numbers.as_mut_ptr().cast();
    // SAFETY: base, length and element size are those of the array, and `compare` orders `u32`s.
    unsafe { libc::qsort(base, numbers.len(), size_of::<u32>(), Some(compare)) }; // calls: callback from C/1
    assert_eq!(numbers, [1, 2, 3]);
    Kept::vec(std::mem::take(&mut *FROM_C.lock().expect("nobody panicked")))
}

/// How deep [`descend`] calls itself.
const N_LEVELS: u32 = 4;

#[inline(never)]
fn descend(n_levels: u32) -> Vec<u8> {
    if n_levels == 0 {
        return black_box(vec![5; 1011]); // site: recursion
    }
    let mut block = descend(black_box(n_levels) - 1); // calls: recursion/1
    block[0] = black_box(6);
    block
}

#[inline(never)]
pub fn recursion() -> Kept {
    let block = descend(N_LEVELS); // calls: recursion/2
    Kept::vec(black_box(block))
}
