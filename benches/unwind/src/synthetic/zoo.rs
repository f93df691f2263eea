//! Functions with frames of different shapes, which call one another along a path.
//!
//! Each is one frame, whatever its shape: small and large, with many registers saved, with the frame
//! pointer register in use for something else, with a realigned stack, with several calls.

use std::hint::black_box;

/// What is called at the end of a path.
pub(super) type Leaf<'a> = &'a mut dyn FnMut();

type Function = fn(&[u8], u64, Leaf<'_>) -> u64;

static FUNCTIONS: [Function; 16] = [
    array_2,
    registers_a,
    array_5,
    registers_b,
    array_9,
    two_calls,
    array_17,
    registers_c,
    aligned_32,
    two_calls_large,
    array_3,
    registers_d,
    aligned_64,
    array_64,
    tiny,
    three_calls,
];

/// Calls `leaf` below as many functions as the path has steps: the low half of a byte names the
/// function, the high half chooses between its calls.
#[inline(never)]
pub(super) fn enter(path: &[u8], leaf: Leaf<'_>) -> u64 {
    black_box(go(path, 1, leaf)) ^ 1
}

#[inline(always)]
fn go(path: &[u8], x: u64, leaf: Leaf<'_>) -> u64 {
    match path.split_first() {
        Some((step, rest)) => FUNCTIONS[usize::from(step & 15)](rest, x, leaf),
        None => {
            leaf();
            x
        }
    }
}

/// The high half of the next step.
#[inline(always)]
fn choice(path: &[u8]) -> u8 {
    path.first().map_or(0, |step| step >> 4)
}

macro_rules! with_array {
    ($($name:ident: $len:expr;)*) => {$(
        #[inline(never)]
        fn $name(path: &[u8], x: u64, leaf: Leaf<'_>) -> u64 {
            let mut words = [x; $len];
            black_box(&mut words);
            let y = go(path, x.wrapping_add($len), leaf);
            black_box(&words);
            y ^ words[$len - 1]
        }
    )*};
}

macro_rules! with_registers {
    ($($name:ident: $key:expr;)*) => {$(
        #[inline(never)]
        fn $name(path: &[u8], x: u64, leaf: Leaf<'_>) -> u64 {
            let [a, b, c] = [black_box(x), black_box(x ^ 1), black_box(x ^ $key)];
            let [d, e] = [black_box(x | 2), black_box(x | $key)];
            let y = go(path, a ^ b, leaf);
            y ^ a.wrapping_mul(3) ^ b.rotate_left(3) ^ c ^ d.wrapping_mul($key) ^ e
        }
    )*};
}

macro_rules! aligned {
    ($($name:ident: $type:ident, $align:literal;)*) => {$(
        #[repr(align($align))]
        struct $type([u64; 8]);

        #[inline(never)]
        fn $name(path: &[u8], x: u64, leaf: Leaf<'_>) -> u64 {
            let mut words = $type([x; 8]);
            black_box(&mut words);
            let y = go(path, x ^ $align, leaf);
            y ^ black_box(&words).0[3]
        }
    )*};
}

with_array! { array_2: 2; array_3: 3; array_5: 5; array_9: 9; array_17: 17; array_64: 64; }
with_registers! { registers_a: 5; registers_b: 9; registers_c: 11; registers_d: 13; }
aligned! { aligned_32: Aligned32, 32; aligned_64: Aligned64, 64; }

#[inline(never)]
fn tiny(path: &[u8], x: u64, leaf: Leaf<'_>) -> u64 {
    go(path, x, leaf) | 1
}

#[inline(never)]
fn two_calls(path: &[u8], x: u64, leaf: Leaf<'_>) -> u64 {
    if choice(path) & 1 == 0 {
        go(path, x ^ 1, leaf) ^ black_box(1)
    } else {
        go(path, x ^ 2, leaf).wrapping_add(black_box(2))
    }
}

#[inline(never)]
fn two_calls_large(path: &[u8], x: u64, leaf: Leaf<'_>) -> u64 {
    let mut words = [x; 33];
    black_box(&mut words);
    let y = if choice(path) & 1 == 0 {
        go(path, x ^ 3, leaf) ^ black_box(3)
    } else {
        go(path, x ^ 4, leaf).wrapping_add(black_box(4))
    };
    y ^ black_box(&words)[7]
}

#[inline(never)]
fn three_calls(path: &[u8], x: u64, leaf: Leaf<'_>) -> u64 {
    let a = black_box(x);
    let y = match choice(path) & 3 {
        0 => go(path, x ^ 5, leaf) ^ black_box(5),
        1 => go(path, x ^ 6, leaf).wrapping_add(black_box(6)),
        _ => go(path, x ^ 7, leaf).wrapping_mul(black_box(7)),
    };
    y ^ a
}
