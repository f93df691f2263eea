//! The probe `signals`: how it is built.
//!
//! It allocates while signals interrupt it whose handlers allocate, and compares every trace with the
//! truth.

use crate::nested_build::{Probe, Settings};
use std::path::{Path, PathBuf};

/// Builds the probe below `dir`.
///
/// **Panics** with cargo's messages if it does not build.
pub fn build(dir: &Path, settings: &Settings) -> PathBuf {
    let dir = dir.to_str().expect("the path of the target directory is UTF-8");
    Probe::new("signals").build(dir, settings, &[]).remove("signals").expect("it has one program")
}
