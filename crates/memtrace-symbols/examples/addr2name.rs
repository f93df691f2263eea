//! Prints the frames at addresses of a file.
//!
//! ```text
//! addr2name FILE ADDR…      addresses as in the file, hexadecimal
//! addr2name --time FILE N   looks N addresses up, spread over the symbols, and prints the times
//! ```

use std::env;
use std::error::Error;
use std::fs;
use std::time::Instant;

use memtrace_symbols::{ModuleFile, Symbolizer, Symbols};
use object::{Object, ObjectSymbol, SymbolKind};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--time", file, n_addrs] => time(file, n_addrs.parse()?),
        [file, addrs @ ..] if !addrs.is_empty() => {
            let module = ModuleFile::new(*file);
            let mut symbolizer = Symbolizer::new();
            for addr in addrs {
                let file_addr = u64::from_str_radix(addr.trim_start_matches("0x"), 16)?;
                println!("{file_addr:#x}");
                print(&symbolizer.resolve(&module, file_addr));
            }
            Ok(())
        }
        _ => Err("usage: addr2name FILE ADDR… | addr2name --time FILE N".into()),
    }
}

fn print(symbols: &Symbols) {
    for frame in &symbols.frames {
        let function = frame.function.as_deref().unwrap_or("?");
        let file = frame.file.as_deref().unwrap_or("?");
        let line = frame.line.map_or("?".to_owned(), |line| line.to_string());
        let inlined = if frame.is_inlined { " (inlined)" } else { "" };
        let directory = frame.directory.as_deref().map(|dir| format!(" in {dir}"));
        println!("  {function}{inlined} at {file}:{line}{}", directory.unwrap_or_default());
    }
    if let Some(missing) = &symbols.missing {
        println!("  {missing}");
    }
}

fn time(file: &str, n_addrs: usize) -> Result<(), Box<dyn Error>> {
    let addrs = addrs_in_functions(file, n_addrs)?;
    // Reading the symbols above is not to count: resets the peak in `VmHWM`.
    fs::write("/proc/self/clear_refs", "5")?;
    let module = ModuleFile::new(file);
    let mut symbolizer = Symbolizer::new();
    let Some((first, others)) = addrs.split_first() else {
        return Err("the file has no function symbols".into());
    };
    let begin = Instant::now();
    symbolizer.resolve(&module, *first);
    println!("first look-up: {:?}", begin.elapsed());

    let begin = Instant::now();
    let (mut n_frames, mut n_with_line) = (0, 0);
    for file_addr in others {
        let symbols = symbolizer.resolve(&module, *file_addr);
        n_frames += symbols.frames.len();
        n_with_line += usize::from(symbols.frames.iter().any(|frame| frame.line.is_some()));
    }
    println!(
        "{} further look-ups: {:?}; {n_frames} frames, {n_with_line} addresses with a line",
        others.len(),
        begin.elapsed()
    );

    let begin = Instant::now();
    for file_addr in others {
        symbolizer.resolve(&module, *file_addr);
    }
    println!("the same again: {:?}", begin.elapsed());
    let status = fs::read_to_string("/proc/self/status")?;
    for line in status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("Rss")) {
        println!("{line}");
    }
    Ok(())
}

/// Addresses in the middle of functions, evenly spread over the file and in an order that jumps.
fn addrs_in_functions(file: &str, n_addrs: usize) -> Result<Vec<u64>, Box<dyn Error>> {
    let bytes = fs::read(file)?;
    let object = object::File::parse(&*bytes)?;
    let mut addrs: Vec<u64> = object
        .symbols()
        .chain(object.dynamic_symbols())
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
        .map(|symbol| symbol.address() + symbol.size() / 2)
        .collect();
    addrs.sort_unstable();
    addrs.dedup();
    let stride = (addrs.len() / n_addrs.max(1)).max(1);
    let mut chosen: Vec<u64> = addrs.into_iter().step_by(stride).take(n_addrs).collect();
    chosen.sort_unstable_by_key(|addr| addr.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Ok(chosen)
}
