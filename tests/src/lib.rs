//! What the tests share: an allocator that knows the truth, a source of repeatable numbers, and
//! builds of programs outside of this workspace.

pub mod nested_build;
pub mod rng;
pub mod truth;
