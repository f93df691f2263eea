//! A pooled heap of fixed-size blocks in pools in arenas, with exact accounting; usable alone
#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod pages;

pub use pages::{PAGE_SIZE, PageSource, SystemPages};
