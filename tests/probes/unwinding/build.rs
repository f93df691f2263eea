//! Compiles the frames that Rust does not make, and the libraries that are loaded while it runs.

use std::env;
use std::path::PathBuf;

/// Sizes of the frames of the libraries, in bytes, as `src/calls/late.rs` has them. All need an immediate operand of four bytes, so
/// that the code of the libraries differs in nothing but these numbers, and a return address in one
/// is a return address in the others.
const LATE_FRAMES: [u32; 3] = [1024, 2048, 3072];

fn main() {
    println!("cargo::rerun-if-changed=c");
    println!("cargo::rerun-if-changed=build.rs");
    // As optimized as the Rust code is.
    compiler().file("c/frames.c").compile("unwinding_frames");
    // Only an optimizer makes a jump of a last call.
    compiler()
        .file("c/tail_call.c")
        .opt_level(2)
        .flag("-foptimize-sibling-calls")
        .compile("unwinding_tail_call");

    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').all(|feature| feature != "crt-static") {
        let dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names a folder"));
        for (name, frame) in ["LATE_0", "LATE_1", "LATE_2"].into_iter().zip(LATE_FRAMES) {
            let library = dir.join(format!("liblate{frame}.so"));
            let status = compiler()
                .opt_level(2)
                .get_compiler()
                .to_command()
                .args(["-shared", "c/late.c", &format!("-DFRAME={frame}"), "-o"])
                .arg(&library)
                .status()
                .expect("the C compiler runs");
            assert!(status.success(), "{} was not built: {status}", library.display());
            println!("cargo::rustc-env={name}={}", library.display());
        }
    }
}

fn compiler() -> cc::Build {
    let mut build = cc::Build::new();
    build
        .pic(true)
        .debug(false)
        // Otherwise the optimization level decides.
        .force_frame_pointer(false)
        // Equal functions stay two.
        .flag("-fno-ipa-icf")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true);
    build
}
