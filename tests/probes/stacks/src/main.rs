//! Allocates through every kind of call, keeps the blocks, and prints the stacks that were recorded.
//!
//! A line that allocates a kept block ends in the comment `// site: case`, a line that leads to it
//! in `// calls: case/n`, where n counts outwards. Functions on the way are all marked `inline`, one
//! way or the other, so that every build has the same frames; and all of them do something after
//! the call, since a last call would take the place of its caller.
//!
//! Each line of output is a record of fields that are separated by tabs:
//!
//! ```text
//! block      case  size  how many blocks of that size the snapshot has
//! depth      case  way   total_nframe, or - if the stack was not walked to its end
//! frame      case  way   file  line  function  inlined or physical  module    (newest first)
//! statistic  file  line  size  count                                (by line, of everything)
//! ```
//!
//! where the way to the stack is `snapshot`, or `pointer` for `traceback_of`.

mod cases;
mod kept;

use cases::CASES;
use kept::Kept;
use memtrace::{KeyType, Traceback};

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system(); // the allocator

#[inline(never)]
fn main() {
    memtrace::start(200).expect("tracing starts");
    let mut kept: Vec<(&str, Kept)> = Vec::with_capacity(CASES.len());
    for (name, run) in CASES {
        let block = run(); // calls: every case
        kept.push((name, block));
    }
    let snapshot = memtrace::take_snapshot().expect("tracing is on");
    for (name, block) in &kept {
        let mut traces = snapshot.traces().filter(|trace| trace.size == block.size);
        println!("block\t{name}\t{}\t{}", block.size, traces.clone().count());
        if let Some(trace) = traces.next() {
            print_traceback(name, "snapshot", &trace.traceback);
        }
        if let Some(start) = block.start {
            let traceback = memtrace::traceback_of(start).expect("the block is traced");
            print_traceback(name, "pointer", &traceback);
        }
    }
    for statistic in snapshot.statistics(KeyType::Lineno) {
        let line = &statistic.traceback[0];
        let (size, count) = (statistic.size, statistic.count);
        println!("statistic\t{}\t{}\t{size}\t{count}", line.filename, line.lineno);
    }
}

fn print_traceback(name: &str, way: &str, traceback: &Traceback) {
    let depth = traceback.total_nframe().map_or("-".to_owned(), |total| total.to_string());
    println!("depth\t{name}\t{way}\t{depth}");
    for frame in traceback.iter().rev() {
        let function = frame.function.as_deref().unwrap_or("-");
        let module = frame.module.as_deref().map_or("-", |module| module.name());
        let kind = if frame.is_inlined { "inlined" } else { "physical" };
        let (file, line) = (&frame.filename, frame.lineno);
        println!("frame\t{name}\t{way}\t{file}\t{line}\t{function}\t{kind}\t{module}");
    }
}
