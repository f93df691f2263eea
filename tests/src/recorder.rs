//! The probe `recorder`: how it is built.
//!
//! It allocates at random on many threads, and compares every trace and all totals with the truth.

use crate::nested_build::{Probe, Settings};
use std::path::{Path, PathBuf};

/// Builds the probe below `dir`.
///
/// **Panics** with cargo's messages if it does not build.
pub fn build(dir: &Path, settings: &Settings) -> PathBuf {
    let dir = dir.to_str().expect("the path of the target directory is UTF-8");
    Probe::new("recorder").build(dir, settings, &[]).remove("recorder").expect("it has one program")
}
