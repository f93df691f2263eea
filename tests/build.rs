//! Compiles the C library of the tests.

fn main() {
    println!("cargo::rerun-if-changed=c");
    println!("cargo::rerun-if-changed=../crates/memtrace-alloc/include");
    // With line tables, and warnings as errors: the header is compiled by other people's compilers.
    cc::Build::new()
        .file("c/pool.c")
        .include("../crates/memtrace-alloc/include")
        .flag("-g1")
        .flag("-std=c99")
        .flag("-pedantic")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true)
        .compile("memtrace_tests_pool");
}
