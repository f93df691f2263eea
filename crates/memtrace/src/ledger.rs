//! Where the memory of this process is: the accounts of heap, tracer and C library, beside what the
//! system says is resident, as the plain lines of a [`Ledger`].
//!
//! Accounts are read first and the system's word last, as none of this is of one moment; what the ledger
//! itself allocates is not traced, and a few hundred bytes.

use crate::copied::copy_tracked;
use crate::resident::Resident;
use memtrace_alloc::{CLibraryMemory, untraced};
use memtrace_core::{Ledger, LedgerKind, LedgerLine};
use memtrace_heap::{Heap, HeapStats, PageSource, Residence};

pub use crate::resident::LedgerError;

/// Says where the memory of this process is, for a program whose allocator is the C library's
/// ([`Alloc::system`](crate::Alloc::system), or no memtrace at all).
///
/// Its live blocks are those traced: allocated since [`start`](crate::start), and none while tracing is
/// off. All else that the C library's allocator holds is one line, of blocks that are not traced, their
/// headers and rounding; and one more is what it holds free. It knows nothing of pages, so these three
/// are upper bounds, and what of them is not resident makes the last line smaller, or negative.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: memtrace::Alloc = memtrace::Alloc::system();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// memtrace::start(25)?;
/// let before = memtrace::ledger()?;
/// let kept = vec![1u8; 50_000_000];
/// let after = memtrace::ledger()?;
/// println!("{after}\n{}", after.compare_to(&before));
/// # let live = after.compare_to(&before).bytes_diff_of(memtrace::LedgerKind::Live);
/// # assert_eq!(live, 50_000_000);
/// # drop(kept);
/// # Ok(())
/// # }
/// ```
///
/// **Cost**: some hundred microseconds, and some 40 ms for each gigabyte that is resident, as the system
/// walks the page tables; meanwhile other threads that map or unmap memory wait.
///
/// **Errors**: if `/proc` does not say what is resident.
pub fn ledger() -> Result<Ledger, LedgerError> {
    untraced(|| {
        let traced = traced_bytes();
        let mut lines = Vec::new();
        match memtrace_alloc::c_library_memory() {
            Some(memory) if traced <= memory.used_bytes => {
                lines.push(LedgerLine::at_most(LedgerKind::Live, TRACED, traced));
                let others = memory.used_bytes.saturating_sub(traced);
                // Blocks that are not traced are live, too; what is what, nobody can tell.
                lines.push(LedgerLine::at_most(LedgerKind::Other, "C library: not traced", others));
                lines.push(LedgerLine::at_most(LedgerKind::Free, C_FREE, memory.free_bytes));
            }
            // Traced blocks that it does not have are another allocator's.
            memory => {
                lines.push(LedgerLine::at_most(LedgerKind::Live, TRACED, traced));
                lines.extend(memory.into_iter().flat_map(c_library_lines));
            }
        }
        ledger_of_lines(lines)
    })
}

/// Says where the memory of this process is, for a program whose allocator is the pooled heap.
///
/// Each line of the heap is what the system says is resident of it, page by page, beside what its books
/// say: see [`Heap::residence`].
///
/// ```
/// use memtrace::{Alloc, heap};
///
/// #[global_allocator]
/// static ALLOC: Alloc<heap::Heap> = Alloc::new(heap::Heap::new(heap::Config::new()));
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// println!("{}", memtrace::ledger_of(ALLOC.inner())?);
/// # Ok(())
/// # }
/// ```
///
/// **Cost**: as [`ledger`], and that of [`Heap::residence`], about as much again.
///
/// **Errors**: if `/proc` does not say what is resident.
pub fn ledger_of<P: PageSource>(heap: &Heap<P>) -> Result<Ledger, LedgerError> {
    untraced(|| {
        let (stats, residence) = (heap.stats(), heap.residence());
        let mut lines = heap_lines(&stats, residence.as_ref());
        lines.extend(memtrace_alloc::c_library_memory().into_iter().flat_map(c_library_lines));
        ledger_of_lines(lines)
    })
}

/// Says where the memory of this process is, for a program whose allocator is another one, with the
/// lines that it can tell.
///
/// Without a line of live blocks, those traced are added, as in [`ledger`].
///
/// ```
/// use memtrace::{LedgerKind, LedgerLine};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // From the statistics of the allocator.
/// let n_kept = 3 << 20;
/// let lines = [LedgerLine::at_most(LedgerKind::Unused, "kept pages", n_kept)];
/// println!("{}", memtrace::ledger_with(lines)?);
/// # Ok(())
/// # }
/// ```
///
/// **Cost**: as [`ledger`].
///
/// **Errors**: if `/proc` does not say what is resident.
pub fn ledger_with(lines: impl IntoIterator<Item = LedgerLine>) -> Result<Ledger, LedgerError> {
    untraced(|| {
        let mut lines: Vec<LedgerLine> = lines.into_iter().collect();
        if !lines.iter().any(|line| line.kind == LedgerKind::Live) {
            lines.insert(0, LedgerLine::at_most(LedgerKind::Live, TRACED, traced_bytes()));
        }
        lines.extend(memtrace_alloc::c_library_memory().into_iter().flat_map(c_library_lines));
        ledger_of_lines(lines)
    })
}

const TRACED: &str = "live, of those traced";
const C_FREE: &str = "C library: free";

/// The requested bytes of the global allocator's traced blocks.
fn traced_bytes() -> u64 {
    let tracked = copy_tracked().iter().fold(0, |sum: u64, trace| sum.saturating_add(trace.size));
    memtrace_alloc::traced_memory().current.saturating_sub(tracked)
}

/// The lines of a pooled heap: as the system counts them, or as its books have them if that does not
/// tell.
fn heap_lines(stats: &HeapStats, residence: Option<&Residence>) -> Vec<LedgerLine> {
    let unused = stats.arenas.unused_bytes().saturating_add(stats.big_arenas.unused_bytes());
    let dirty_bytes = stats.arenas.unused_dirty_bytes();
    let dirty = dirty_bytes.saturating_add(stats.big_arenas.unused_dirty_bytes());
    let free = stats.free_bytes().saturating_add(stats.tail_bytes());
    [
        (LedgerKind::Live, "live", stats.requested_bytes(), stats.requested_bytes()),
        (LedgerKind::Rounding, "rounding", stats.rounding_bytes(), stats.rounding_bytes()),
        (LedgerKind::Free, "free in pools", free, free),
        (LedgerKind::Unused, "unused units", unused, dirty),
        (LedgerKind::Records, "heap's records", stats.metadata_bytes, stats.metadata_bytes),
    ]
    .into_iter()
    .map(|(kind, name, booked, at_most)| {
        let Some(residence) = residence else {
            return LedgerLine::at_most(kind, name, at_most as u64).booked(booked as u64);
        };
        let resident = match kind {
            LedgerKind::Live => residence.requested_bytes,
            LedgerKind::Rounding => residence.rounding_bytes,
            LedgerKind::Free => residence.free_bytes.saturating_add(residence.tail_bytes),
            LedgerKind::Unused => residence.unused_bytes,
            _ => residence.metadata_bytes,
        };
        LedgerLine::resident(kind, name, resident as u64).booked(booked as u64)
    })
    .collect()
}

/// The lines of the C library's allocator where it is not the program's.
fn c_library_lines(memory: CLibraryMemory) -> [LedgerLine; 2] {
    [
        LedgerLine::at_most(LedgerKind::Other, "C library: in use", memory.used_bytes),
        LedgerLine::at_most(LedgerKind::Other, C_FREE, memory.free_bytes),
    ]
}

/// Adds what is the same whatever the allocator is.
fn ledger_of_lines(lines: Vec<LedgerLine>) -> Result<Ledger, LedgerError> {
    let tracer = memtrace_alloc::tracer_memory();
    let tracer_line = match tracer.site_caches {
        0 => LedgerLine::resident(LedgerKind::Tracer, "tracer", tracer.total()),
        // Mapped bytes.
        _ => LedgerLine::at_most(LedgerKind::Tracer, "tracer", tracer.total()),
    };
    let resident = Resident::now()?;
    let files = LedgerLine::resident(LedgerKind::Files, "code and files", resident.of_files);
    let lines = lines.into_iter().chain([tracer_line, files]);
    let ledger = lines.fold(Ledger::new(resident.total), Ledger::line);
    Ok(match resident.swapped {
        Some(swapped) => ledger.swapped(swapped),
        None => ledger,
    })
}
