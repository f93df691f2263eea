//! Names for addresses: (module file, file address) → function, file and line, with the frames of
//! inlined functions.
//!
//! The crate works offline. It knows neither the running process nor how a stack was captured: it
//! is given the file that was loaded ([`ModuleFile`]) and addresses as they stand in that file, and
//! says what the file, or debug information kept apart from it, knows about them. What it does not
//! know it says too, with the reason ([`Missing`]); it never guesses.
//!
//! ```
//! use memtrace_symbols::{ModuleFile, Symbolizer};
//!
//! let mut symbolizer = Symbolizer::new();
//! let itself = ModuleFile::new("/proc/self/exe");
//! let symbols = symbolizer.resolve(&itself, 0x1234);
//! for frame in &symbols.frames {
//!     println!("{:?} at {:?}:{:?}", frame.function, frame.file, frame.line);
//! }
//! if let Some(missing) = &symbols.missing {
//!     println!("{missing}");
//! }
//! ```
//!
//! # The path of one address
//!
//! 1. [`Symbolizer`] looks in its cache; each module is opened once and each address resolved once.
//! 2. The module is opened: the file is mapped, its build id compared to the one that was loaded,
//!    and, if it has no DWARF of its own, the separate debug file is looked for.
//! 3. DWARF gives the inlined frames, their names, files and lines; the symbol table gives the
//!    qualified name of the physical function, where DWARF has only a bare one, and is all there is
//!    where there is no DWARF.
//! 4. Names are demangled and paths written as rustc spells them in panic messages: relative to
//!    the workspace for its own crates, absolute for all others.
//!
//! # What it does not do
//!
//! Names of C++ functions stay mangled. Split DWARF (`.dwo`, `.dwp`) is not read: such code has its
//! lines and function names, but no inlined frames, and its paths are all absolute. Only ELF files
//! are read.

#![deny(unsafe_code)]

mod module_file;
mod symbolizer;

mod module;

mod bytes;
mod elf;
mod separate;

mod debug_info;
mod function_name;
mod nesting;
mod source_path;
mod symbol_table;

mod symbols;

pub use module_file::ModuleFile;
pub use symbolizer::Symbolizer;
pub use symbols::{Missing, SymbolFrame, Symbols};
