//! Pairs of `malloc` and `free` below 5, 25 or 50 frames: the allocator's and the tracer's cost, bare.
//!
//! The frames are functions and not one that calls itself, so that each has an address and an unwind
//! rule of its own, as the stacks of programs do.

use std::hint::black_box;

const N_PAIRS: usize = 20_000;

/// 32 to 256 bytes; a power of two many, so that taking one costs next to nothing.
const SIZES: [usize; 16] = [32, 48, 256, 64, 40, 128, 96, 200, 32, 80, 160, 56, 240, 112, 72, 176];

pub(super) fn run_batch_below_5() -> u64 {
    frame_05(N_PAIRS)
}

pub(super) fn run_batch_below_25() -> u64 {
    frame_25(N_PAIRS)
}

pub(super) fn run_batch_below_50() -> u64 {
    frame_50(N_PAIRS)
}

/// Defines functions that each call the next. What is done with the result keeps the call from
/// becoming a jump.
macro_rules! frames {
    ($outer:ident $inner:ident $($deeper:ident)*) => {
        #[inline(never)]
        fn $outer(n_pairs: usize) -> u64 {
            black_box($inner(black_box(n_pairs))).wrapping_add(1)
        }
        frames! { $inner $($deeper)* }
    };
    ($innermost:ident) => {};
}

frames! {
    frame_50 frame_49 frame_48 frame_47 frame_46 frame_45 frame_44 frame_43 frame_42
    frame_41 frame_40 frame_39 frame_38 frame_37 frame_36 frame_35 frame_34 frame_33
    frame_32 frame_31 frame_30 frame_29 frame_28 frame_27 frame_26 frame_25 frame_24
    frame_23 frame_22 frame_21 frame_20 frame_19 frame_18 frame_17 frame_16 frame_15
    frame_14 frame_13 frame_12 frame_11 frame_10 frame_09 frame_08 frame_07 frame_06
    frame_05 frame_04 frame_03 frame_02 frame_01
}

#[inline(never)]
fn frame_01(n_pairs: usize) -> u64 {
    let mut checksum = 0u64;
    for i in 0..n_pairs {
        let mut block = Vec::with_capacity(SIZES[i % SIZES.len()]);
        block.push(i as u8);
        let block = black_box(block);
        checksum += block.capacity() as u64 + u64::from(block[0]);
    }
    checksum
}
