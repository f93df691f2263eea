//! What two versions of Python's heap make of the same trace of sizes and frees.
//!
//! `cargo run --example python_model [TRACE [VERSION VERSION]]`
//!
//! A trace has a call a line: `a NAME SIZE` takes a block, `r NAME SIZE` resizes it, `f NAME` gives
//! it back. Without one, a small one is made up: many small objects, of which few stay.

use std::collections::HashMap;
use std::error::Error;

use memtrace_heap::NoMemory;
use memtrace_heap::python::{PythonHeap, Version};

/// A heap without memory and the blocks of the trace by name.
struct Model<'a> {
    heap: PythonHeap,
    blocks: HashMap<&'a str, usize>,
}

impl<'a> Model<'a> {
    fn new(version: Version) -> Model<'a> {
        let heap = PythonHeap::new(version.profile(), NoMemory::new());
        Model { heap, blocks: HashMap::new() }
    }

    fn run(&mut self, line: &'a str) -> Result<(), Box<dyn Error>> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            ["a", name, size] => {
                let block = self.heap.allocate(size.parse()?).ok_or("no address is left")?;
                if self.blocks.insert(name, block).is_some() {
                    return Err("the name is that of a block in use".into());
                }
            }
            ["r", name, size] => {
                let block = self.blocks.get_mut(name).ok_or("no such block")?;
                let moved = self.heap.resize(*block, size.parse()?)?;
                *block = moved.ok_or("no address is left")?;
            }
            ["f", name] => self.heap.release(self.blocks.remove(name).ok_or("no such block")?)?,
            [] => {}
            _ => return Err("not a call".into()),
        }
        Ok(())
    }
}

/// Objects of a few sizes, one in fifty of which outlives a round.
fn made_up_trace() -> String {
    let mut trace = String::new();
    for round in 0..4 {
        let calls =
            (0..12_000).map(|index| format!("a {round}.{index} {}\n", 16 + index * 7 % 480));
        trace.extend(calls);
        let freed = (0..12_000).filter(|index| index % 50 != 0);
        trace.extend(freed.map(|index| format!("f {round}.{index}\n")));
    }
    trace
}

/// Two texts next to each other.
fn side_by_side(left: &str, right: &str) -> String {
    let n_lines = left.lines().count().max(right.lines().count());
    let padded = |text: &str| -> Vec<String> {
        text.lines()
            .map(str::to_owned)
            .chain(std::iter::repeat(String::new()))
            .take(n_lines)
            .collect()
    };
    let lines = padded(left).into_iter().zip(padded(right));
    lines.map(|(left, right)| format!("{left:<57} | {right}\n")).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let trace = match args.first() {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
        None => made_up_trace(),
    };
    let version = |index: usize, default| match args.get(index) {
        Some(name) => name.parse().map_err(|error| format!("{name}: {error}")),
        None => Ok(default),
    };
    let mut models =
        [Model::new(version(1, Version::V3_8)?), Model::new(version(2, Version::V3_12)?)];
    for (number, line) in trace.lines().enumerate() {
        for model in &mut models {
            model.run(line).map_err(|error| format!("line {}: {line}: {error}", number + 1))?;
        }
    }
    let texts = models.each_ref().map(|model| {
        let stats = model.heap.stats();
        format!(
            "Python {}\nblocks in use      {:>10}\nbytes of arenas    {:>10}\nat most            {:>10}\nfragmentation      {:>9.1}%\n\n{stats}",
            stats.profile.version(),
            stats.allocated_blocks(),
            stats.arena_bytes(),
            stats.n_arenas_high_water * stats.profile.arena_size(),
            100.0 * stats.fragmentation(),
        )
    });
    print!("{}", side_by_side(&texts[0], &texts[1]));
    Ok(())
}
