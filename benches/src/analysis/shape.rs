//! How many modules, call sites and calls the program of `cargo xtask bench core` has.
//!
//! Read by the build script, too, which writes the program's modules; so nothing but the standard
//! library is used here.

/// Modules, each in a file of its own.
pub const N_MODULES: usize = 101;
/// Call sites in each module, each a function on a line of its own.
pub const N_SITES_PER_MODULE: usize = 100;
/// Modules below the same function of the second call from the root.
pub const N_MODULES_PER_PART: usize = 5;
/// Modules below the same function of the first call from the root.
pub const N_MODULES_PER_AREA: usize = 25;

/// Returns how many functions of a module are called, one by the other, on the way to its call
/// sites: 1 to 10.
pub const fn n_calls(module: usize) -> usize {
    1 + module * 7 % 10
}
