//! Names for call addresses, found once each and kept for the life of the process.
//!
//! # Mechanism
//!
//! The loader's list says which object an address lies in; the symbolizer reads that object's file.
//! The list is read anew for each round of naming. If an object that was there before is gone,
//! addresses in its range lose their names, since other code may be there now; so do the unwinder's
//! rules.

use hashbrown::HashMap;
use memtrace_core::{Frame, MissingSource};
use memtrace_symbols::{Missing, ModuleFile, Symbolizer};
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A loaded object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Module {
    range: Range<u64>,
    bias: u64,
    file: ModuleFile,
    /// As snapshots show it.
    shown: Arc<memtrace_core::Module>,
}

/// Call addresses and their names.
pub(crate) struct Names {
    /// Sorted by address.
    modules: Vec<Module>,
    symbolizer: Symbolizer,
    /// Frames of an address, newest (innermost inlined) first; never empty.
    frames: HashMap<u64, Arc<[Frame]>>,
    /// Whether a frame that [`Names::unnamed_frame_at`] gave lies outside of all modules.
    is_unnamed_outside: bool,
}

impl Names {
    pub(crate) fn new() -> Self {
        Self {
            modules: Vec::new(),
            symbolizer: Symbolizer::new(),
            frames: HashMap::new(),
            is_unnamed_outside: false,
        }
    }

    /// Reads the loader's list; called before a round of look-ups. Returns whether names given
    /// before may be wrong now.
    pub(crate) fn refresh(&mut self) -> bool {
        let modules = loaded_modules();
        let is_gone = |module: &&Module| !modules.contains(module);
        let gone: Vec<_> = self.modules.iter().filter(is_gone).map(|m| m.range.clone()).collect();
        if !gone.is_empty() {
            memtrace_unwind::forget_unloaded();
            self.frames.retain(|addr, _| !gone.iter().any(|range| range.contains(addr)));
        }
        let mut is_changed = !gone.is_empty();
        if self.modules != modules {
            // An address that lay in no object may lie in one now.
            let n_before = self.frames.len();
            self.frames.retain(|_, frames| {
                !frames.iter().any(|frame| frame.missing == Some(MissingSource::OutsideModules))
            });
            is_changed |= self.frames.len() < n_before || self.is_unnamed_outside;
            self.is_unnamed_outside = false;
        }
        self.modules = modules;
        is_changed
    }

    /// Returns the frames at a call address, newest first.
    pub(crate) fn frames_at(&mut self, call_addr: u64) -> &Arc<[Frame]> {
        let Self { modules, symbolizer, frames, .. } = self;
        frames.entry(call_addr).or_insert_with(|| name(modules, symbolizer, call_addr))
    }

    /// Returns the frame at a call address as its module and the address in it.
    pub(crate) fn unnamed_frame_at(&mut self, call_addr: u64) -> Frame {
        let Some(module) = module_at(&self.modules, call_addr) else {
            self.is_unnamed_outside = true;
            return outside_frame(call_addr);
        };
        unnamed(module, call_addr)
    }
}

/// The module of an address, if it lies in one.
fn module_at(modules: &[Module], call_addr: u64) -> Option<&Module> {
    let after = modules.partition_point(|module| module.range.start <= call_addr);
    modules[..after].last().filter(|module| module.range.contains(&call_addr))
}

/// The frame of an address in no module.
fn outside_frame(call_addr: u64) -> Frame {
    Frame::new(format!("<{call_addr:#x}>"), 0).with_missing(MissingSource::OutsideModules)
}

/// The frame of a trace whose stack is not known.
pub(crate) fn unknown_frame() -> Frame {
    Frame::new("<unknown>", 0).with_missing(MissingSource::NotUnwound)
}

fn name(modules: &[Module], symbolizer: &mut Symbolizer, call_addr: u64) -> Arc<[Frame]> {
    let Some(module) = module_at(modules, call_addr) else {
        // Kept until the list of objects changes: the object may be loaded later.
        return Arc::new([outside_frame(call_addr)]);
    };
    let unnamed = unnamed(module, call_addr);
    let symbols = symbolizer.resolve(&module.file, call_addr.wrapping_sub(module.bias));
    let missing = symbols.missing.as_ref().map_or(MissingSource::NoDebugInfo, reason);
    if symbols.frames.is_empty() {
        return Arc::new([unnamed.named(None, None, missing)]);
    }
    let frames = symbols.without_allocator().iter().map(|symbol| {
        let file = symbol.file.clone().map(|file| (file, symbol.line.unwrap_or(0)));
        let mut frame = unnamed.clone().named(symbol.function.clone(), file, missing);
        frame.directory = symbol.directory.clone();
        frame.with_inlined(symbol.is_inlined)
    });
    frames.collect()
}

fn unnamed(module: &Module, call_addr: u64) -> Frame {
    Frame::unnamed(Arc::clone(&module.shown), call_addr.wrapping_sub(module.bias))
}

fn reason(missing: &Missing) -> MissingSource {
    match missing {
        Missing::FileUnavailable { .. } => MissingSource::FileUnavailable,
        Missing::FileReplaced { .. } => MissingSource::FileReplaced,
        Missing::NotInSymbolTable { .. } => MissingSource::Stripped,
        Missing::OutsideCode => MissingSource::OutsideModules,
        _ => MissingSource::NoDebugInfo,
    }
}

fn loaded_modules() -> Vec<Module> {
    let mut modules = Vec::new();
    memtrace_unwind::for_each_object(&mut |object| {
        let path = Path::new(OsStr::from_bytes(object.path));
        // The program's own file is opened as the kernel knows it, wherever it was moved to.
        let open_path = if object.is_program { Path::new("/proc/self/exe") } else { path };
        let shown = if object.is_program { program_path() } else { path.to_path_buf() };
        let mut shown = memtrace_core::Module::new(shown.to_string_lossy());
        let mut file = ModuleFile::new(open_path);
        if let Some(build_id) = object.build_id {
            file = file.with_build_id(build_id);
            shown = shown.with_build_id(build_id);
        }
        let shown = Arc::new(shown);
        modules.push(Module { range: object.range.clone(), bias: object.bias, file, shown });
        true
    });
    modules.sort_by_key(|module| module.range.start);
    modules
}

/// Where the program was started from, also when its file was replaced or removed since: the system
/// then appends a remark to the path.
fn program_path() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("program"));
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(before) if !path.exists() => PathBuf::from(OsStr::from_bytes(before)),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_outside_of_all_objects_is_looked_up_again_when_the_list_has_changed() {
        let mut names = Names::new();
        names.refresh();
        let own = loaded_modules as fn() -> Vec<Module> as usize as u64;
        let n_modules = names.modules.len();
        names.modules.retain(|module| !module.range.contains(&own));
        assert_eq!(names.modules.len(), n_modules - 1);
        let outside = names.frames_at(own).clone();
        assert_eq!(outside[0].missing, Some(MissingSource::OutsideModules));
        assert_eq!(*outside[0].filename, *format!("<{own:#x}>"));

        names.refresh();
        let inside = names.frames_at(own).clone();
        assert_ne!(inside[0].missing, Some(MissingSource::OutsideModules));
        assert!(inside[0].function.as_deref().is_some_and(|f| f.contains("loaded_modules")));
    }

    #[test]
    fn an_unnamed_frame_outside_of_all_objects_is_not_kept_either() {
        let mut names = Names::new();
        names.refresh();
        let own = loaded_modules as fn() -> Vec<Module> as usize as u64;
        names.modules.retain(|module| !module.range.contains(&own));
        let outside = names.unnamed_frame_at(own);
        assert_eq!(outside.missing, Some(MissingSource::OutsideModules));
        assert!(names.refresh(), "the stacks that were made of it may be wrong");
        assert!(!names.refresh());
    }
}
