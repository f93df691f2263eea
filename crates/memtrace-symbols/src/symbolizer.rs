//! The entry point: modules and answers that are kept.
//!
//! Invariants:
//! - I1: a module's file is opened at most once, when its first address is asked for.
//! - I2: a (module, address) pair is resolved at most once; all who ask share the answer.
//!
//! # Damaged and hostile files
//!
//! The parsers check what they read and report it. Should one panic all the same, the panic ends at
//! this module, and the answer is [`Missing`] with the panic as the reason; the program's panic
//! hook is told all the same. That holds only where panics unwind: in a program built with
//! `panic = "abort"` it would end the program, so nothing here relies on it. Addresses outside the
//! code never reach a parser, nor does a unit whose nesting would overflow the stack. Time and
//! memory are not limited otherwise; they grow with the file.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;

use crate::module::Module;
use crate::module_file::ModuleFile;
use crate::separate;
use crate::symbols::{Missing, Symbols};

/// Turns addresses in module files into functions, files and lines.
///
/// Keeps every file that was asked about open and every answer, until it is dropped.
///
/// **Cost:** the first address of a module opens the file and indexes its compilation units; the
/// first in each unit parses that unit. A repeated address costs two hash look-ups.
pub struct Symbolizer {
    debug_directories: Vec<PathBuf>,
    modules: HashMap<ModuleFile, KeptModule>,
    names: Names,
}

struct KeptModule {
    opened: Result<Module, Arc<Symbols>>,
    answers: HashMap<u64, Arc<Symbols>>,
}

impl Symbolizer {
    /// A symbolizer that looks for separate debug files in `/usr/lib/debug`.
    pub fn new() -> Self {
        Symbolizer {
            debug_directories: vec![PathBuf::from(separate::DEBUG_DIRECTORY)],
            modules: HashMap::new(),
            names: Names::default(),
        }
    }

    /// Adds a directory to look for separate debug files in, before those it has. It is laid out as
    /// `/usr/lib/debug` is. Modules that were opened already are not looked at again.
    #[must_use]
    pub fn with_debug_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.debug_directories.insert(0, directory.into());
        self
    }

    /// Finds what is known about an address of a module.
    ///
    /// `file_addr` is an address as the file's own headers and symbols count it, that is the
    /// address in memory minus the module's load bias. For the caller of a function it must lie
    /// inside the call instruction: pass the return address minus one.
    pub fn resolve(&mut self, module: &ModuleFile, file_addr: u64) -> Arc<Symbols> {
        let Symbolizer { debug_directories, modules, names } = self;
        if !modules.contains_key(module) {
            modules.insert(module.clone(), KeptModule::open(module, debug_directories));
        }
        let Some(KeptModule { opened, answers }) = modules.get_mut(module) else {
            unreachable!("the module was inserted above");
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(unavailable) => return Arc::clone(unavailable),
        };
        let answer = answers.entry(file_addr).or_insert_with(|| {
            let found = caught(|| opened.resolve(file_addr, names)).unwrap_or_else(|reason| {
                caught(|| opened.symbols_from_table(file_addr, &reason, names)).unwrap_or_else(
                    |reason| Symbols::missing(Missing::NotInSymbolTable { reason: reason.into() }),
                )
            });
            Arc::new(found)
        });
        Arc::clone(answer)
    }
}

impl Default for Symbolizer {
    fn default() -> Self {
        Symbolizer::new()
    }
}

impl KeptModule {
    fn open(module: &ModuleFile, debug_directories: &[PathBuf]) -> Self {
        let opened = caught(|| Module::open(module, debug_directories)).unwrap_or_else(|reason| {
            let path = module.path.clone();
            Err(Missing::FileUnavailable { path, reason: reason.into() })
        });
        let opened = opened.map_err(|missing| Arc::new(Symbols::missing(missing)));
        KeptModule { opened, answers: HashMap::new() }
    }
}

/// Runs a parser. If it panics, says so in one line.
fn caught<T>(parse: impl FnOnce() -> T) -> Result<T, String> {
    // What a panic can leave half done are caches inside the parsers that are written when a value
    // is complete, and `Names`, which only grows.
    panic::catch_unwind(AssertUnwindSafe(parse)).map_err(|panic| {
        let message = panic_message(&*panic);
        format!("reading the file panicked: {message}")
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&'static str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The distinct texts of all answers: a program has many addresses in few functions and files.
#[derive(Default)]
pub(crate) struct Names(HashSet<Arc<str>>);

impl Names {
    /// The one shared copy of a text.
    pub(crate) fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.0.get(text) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = text.into();
        self.0.insert(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbolizer_may_move_to_another_thread() {
        fn assert_send<T: Send>() {}
        assert_send::<Symbolizer>();
    }

    #[test]
    fn a_panic_becomes_a_reason() {
        let (text, number) = ("a text", 7);
        for reason in [
            caught(|| panic!("a text")).map(|(): ()| ()),
            caught(|| panic!("{text}")).map(|(): ()| ()),
        ] {
            assert_eq!(reason, Err("reading the file panicked: a text".to_owned()));
        }
        assert_eq!(caught(|| number), Ok(7));
    }

    #[test]
    fn equal_texts_are_kept_once() {
        let mut names = Names::default();
        let first = names.shared("src/main.rs");
        assert!(Arc::ptr_eq(&first, &names.shared("src/main.rs")));
        assert_eq!(&*names.shared("src/lib.rs"), "src/lib.rs");
    }
}
