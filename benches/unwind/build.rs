//! Has the linker lay out functions in another order for each number that is asked for.
//!
//! A peer's cache may be direct-mapped by address; then it is a matter of luck, of the layout, whether
//! the few rules of a loop collide. One build shows one throw of the dice.

/// The number of the layout; 0, or none, is the linker's own.
const LAYOUT: &str = "MEMTRACE_BENCH_LAYOUT";

fn main() {
    println!("cargo::rerun-if-env-changed={LAYOUT}");
    println!("cargo::rerun-if-changed=build.rs");
    let layout: u32 = std::env::var(LAYOUT).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    if layout > 0 {
        println!("cargo::rustc-link-arg-bins=-Wl,--shuffle-sections=.text*={layout}");
    }
    println!("cargo::rustc-env={LAYOUT}={layout}");
}
