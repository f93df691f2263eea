//! What the tests share: an allocator that knows the truth, a source of repeatable numbers, builds of
//! programs outside of this workspace, and those of these that development tasks run, too.

pub mod nested_build;
pub mod outcome;
pub mod paths;
pub mod recorder;
pub mod rng;
pub mod signals;
pub mod truth;
pub mod unwinding;
