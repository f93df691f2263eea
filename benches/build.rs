//! Writes the modules of the program of `cargo xtask bench core`: some ten thousand call sites,
//! each on a line of its own.
//!
//! `calls.rs` has the functions that all stacks share at their outer end, `module_000.rs` and so on
//! the rest. No two functions do quite the same, or the compiler would make one of them; and what
//! is done with the result keeps calls from becoming jumps.

// Public in the library, which uses all of it.
#[allow(dead_code, unreachable_pub)]
#[path = "src/analysis/shape.rs"]
mod shape;

use shape::{N_MODULES, N_MODULES_PER_AREA, N_MODULES_PER_PART, N_SITES_PER_MODULE, n_calls};
use std::fmt::Write;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/analysis/shape.rs");
    if env::var_os("CARGO_FEATURE_GENERATED_SITES").is_none() {
        return Ok(());
    }
    let dir = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    let dir = Path::new(&dir).join("sites");
    fs::create_dir_all(&dir)?;
    for module in 0..N_MODULES {
        fs::write(dir.join(format!("module_{module:03}.rs")), module_source(module))?;
    }
    fs::write(dir.join("calls.rs"), calls_source(&dir))
}

/// The outer calls: area, part, module.
fn calls_source(dir: &Path) -> String {
    let mut text = String::new();
    for module in 0..N_MODULES {
        let path = dir.join(format!("module_{module:03}.rs"));
        line(&mut text, format_args!("#[path = {path:?}]\nmod module_{module:03};"));
    }
    let modules = (0..N_MODULES).map(|module| format!("module_{module:03}::call_0"));
    table(&mut text, "MODULES", modules);
    let n_parts = N_MODULES.div_ceil(N_MODULES_PER_PART);
    functions(&mut text, "part", n_parts, "MODULES[site / N_SITES_PER_MODULE]");
    table(&mut text, "PARTS", (0..n_parts).map(|part| format!("part_{part}")));
    let n_areas = N_MODULES.div_ceil(N_MODULES_PER_AREA);
    let part = "PARTS[site / N_SITES_PER_MODULE / N_MODULES_PER_PART]";
    functions(&mut text, "area", n_areas, part);
    table(&mut text, "AREAS", (0..n_areas).map(|area| format!("area_{area}")));
    text
}

fn functions(text: &mut String, name: &str, n_functions: usize, callee: &str) {
    for i in 0..n_functions {
        let call = format_args!("tagged({callee}(site, size), {i})");
        line(text, format_args!("fn {name}_{i}(site: usize, size: usize) -> Block {{ {call} }}"));
    }
}

fn table(text: &mut String, name: &str, entries: impl Iterator<Item = String>) {
    let entries: Vec<String> = entries.collect();
    let (n_entries, entries) = (entries.len(), entries.join(", "));
    line(text, format_args!("static {name}: [Call; {n_entries}] = [{entries}];"));
}

/// A module: its calls, each by the one before, and its sites.
fn module_source(module: usize) -> String {
    let mut text = String::from("use super::*;\n");
    let n_calls = n_calls(module);
    for i in 0..n_calls {
        let callee = if i + 1 < n_calls {
            format!("call_{}(site, size)", i + 1)
        } else {
            format!("SITES[site % {N_SITES_PER_MODULE}](size)")
        };
        let visible = if i == 0 { "pub(super) " } else { "" };
        let tag = module * N_MODULES + i;
        line(
            &mut text,
            format_args!(
                "#[inline(never)] {visible}fn call_{i}(site: usize, size: usize) -> Block \
                 {{ tagged({callee}, {tag}) }}"
            ),
        );
    }
    for i in 0..N_SITES_PER_MODULE {
        let site = module * N_SITES_PER_MODULE + i;
        line(
            &mut text,
            format_args!(
                "#[inline(never)] fn site_{i}(size: usize) -> Block {{ \
                 let mut block = Block::with_capacity(size); \
                 block.extend_from_slice(&{site}_u32.to_le_bytes()); block }}"
            ),
        );
    }
    let sites: Vec<String> = (0..N_SITES_PER_MODULE).map(|i| format!("site_{i}")).collect();
    line(
        &mut text,
        format_args!(
            "static SITES: [fn(usize) -> Block; {N_SITES_PER_MODULE}] = [{}];",
            sites.join(", ")
        ),
    );
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes all that is written to it");
}
