//! One opened module: its file, the debug information found for it, and how both are put together.
//!
//! Which name the physical function gets: DWARF's linkage name if there is one. A program built
//! with `debug = "line-tables-only"` has only bare names (`insert`); there the symbol table's is
//! taken (`my_crate::cache::insert`). Of a C function with several names, that without leading
//! underscores is taken. Inlined functions have no symbol and keep what DWARF has.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::debug_info::RawFrames;
use crate::elf::ElfFile;
use crate::function_name::FunctionName;
use crate::module_file::ModuleFile;
use crate::separate;
use crate::symbolizer::Names;
use crate::symbols::{Missing, SymbolFrame, Symbols};

/// A module whose file is the one that was loaded.
pub(crate) struct Module {
    loaded: ElfFile,
    separate: Option<ElfFile>,
    code: Vec<Range<u64>>,
}

impl Module {
    /// Opens the file, compares its build id and looks for its debug information.
    ///
    /// **Errors:** [`Missing::FileUnavailable`] or [`Missing::FileReplaced`].
    pub(crate) fn open(module: &ModuleFile, debug_dirs: &[PathBuf]) -> Result<Self, Missing> {
        let path = &module.path;
        if let Some(reason) = why_no_file(path) {
            return Err(Missing::FileUnavailable { path: path.clone(), reason: reason.into() });
        }
        let loaded = ElfFile::open(path)
            .map_err(|reason| Missing::FileUnavailable { path: path.clone(), reason })?;
        if let Some(build_id) = &module.build_id
            && loaded.build_id() != Some(build_id)
        {
            return Err(Missing::FileReplaced { path: path.clone() });
        }
        let separate =
            if loaded.has_debug_info() { None } else { separate::open(&loaded, path, debug_dirs) };
        let code = loaded.code_ranges();
        Ok(Module { loaded, separate, code })
    }

    /// Finds what is known about an address.
    pub(crate) fn resolve(&self, file_addr: u64, names: &mut Names) -> Symbols {
        if !self.code.iter().any(|range| range.contains(&file_addr)) {
            return Symbols::missing(Missing::OutsideCode);
        }
        let with_debug_info = self.separate.as_ref().unwrap_or(&self.loaded);
        with_debug_info.with_debug_info(|debug_info| {
            let found = debug_info.map_err(Arc::clone).and_then(|it| it.frames(file_addr));
            match found {
                Ok(found) if found.frames.is_empty() => self.symbols_from_table(
                    file_addr,
                    "no compilation unit covers the address",
                    names,
                ),
                Ok(found) => self.symbols_from_frames(file_addr, &found, names),
                Err(reason) => self.symbols_from_table(file_addr, &reason, names),
            }
        })
    }

    /// What the symbol table alone says, with the reason why nothing else does.
    pub(crate) fn symbols_from_table(
        &self,
        file_addr: u64,
        reason: &str,
        names: &mut Names,
    ) -> Symbols {
        let reason = names.shared(reason);
        let Some(name) = self.symbol(file_addr, None) else {
            return Symbols::missing(Missing::NotInSymbolTable { reason });
        };
        let frame = SymbolFrame { function: Some(names.shared(&name.text)), ..Default::default() };
        Symbols { frames: vec![frame], missing: Some(Missing::NoDebugInfo { reason }) }
    }

    fn symbols_from_frames(
        &self,
        file_addr: u64,
        found: &RawFrames<'_>,
        names: &mut Names,
    ) -> Symbols {
        let mut frames = Vec::with_capacity(found.frames.len());
        for (n_after, raw) in (0..found.frames.len()).rev().zip(&found.frames) {
            let is_inlined = n_after > 0;
            let function = raw.function.as_deref().map(FunctionName::new);
            let function = if is_inlined { function } else { self.best_name(file_addr, function) };
            let source = raw.path.map(|path| found.origin.spell(path));
            let directory = source.as_ref().and_then(|source| source.directory.as_deref());
            frames.push(SymbolFrame {
                function: function.map(|name| names.shared(&name.text)),
                file: source.as_ref().map(|source| names.shared(&source.file)),
                directory: directory.map(|directory| names.shared(directory)),
                line: raw.line,
                is_inlined,
            });
        }
        let reason = if found.is_split {
            Some("inlined functions are in split DWARF, which is not read")
        } else if frames.iter().all(|frame| frame.file.is_none()) {
            Some("no line table covers the address")
        } else {
            None
        };
        let missing = reason.map(|reason| Missing::NoDebugInfo { reason: names.shared(reason) });
        Symbols { frames, missing }
    }

    /// The name of the physical function: DWARF's if it is qualified, else the symbol's, if that
    /// says more.
    fn best_name(&self, file_addr: u64, in_dwarf: Option<FunctionName>) -> Option<FunctionName> {
        let Some(in_dwarf) = in_dwarf else { return self.symbol(file_addr, None) };
        if in_dwarf.is_qualified {
            return Some(in_dwarf);
        }
        let qualified = self.symbol(file_addr, Some(&in_dwarf.text)).filter(|it| it.is_qualified);
        let plainer = || self.symbol(file_addr, None).filter(|it| it.is_plainer_than(&in_dwarf));
        Some(qualified.or_else(plainer).unwrap_or(in_dwarf))
    }

    /// The symbol that covers an address: from the loaded file's `.symtab`, else that of its debug
    /// file, else the loaded file's `.dynsym`.
    fn symbol(&self, file_addr: u64, bare: Option<&str>) -> Option<FunctionName> {
        let is_stripped = self.loaded.with_symbols(|symbols| !symbols.is_full());
        let from_separate = match &self.separate {
            Some(separate) if is_stripped => {
                separate.with_symbols(|symbols| symbols.find(file_addr, bare))
            }
            _ => None,
        };
        from_separate.or_else(|| self.loaded.with_symbols(|symbols| symbols.find(file_addr, bare)))
    }
}

/// Why a path names no file, if that can be told from the path.
fn why_no_file(path: &Path) -> Option<&'static str> {
    let path = path.as_os_str().as_encoded_bytes();
    if path.is_empty() {
        Some("the memory belongs to no file")
    } else if path.starts_with(b"[") || path.starts_with(b"linux-vdso") {
        Some("the kernel provides this module, no file does")
    } else if path.ends_with(b" (deleted)") {
        Some("the file was deleted since it was loaded")
    } else {
        None
    }
}
