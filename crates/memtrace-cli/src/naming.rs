//! Names for snapshots that were saved without.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use memtrace_core::{Frame, MissingSource, Module, Snapshot};
use memtrace_symbols::{Missing, ModuleFile, Symbolizer, Symbols};

/// Names the frames of a snapshot. Each module is looked for where it was loaded from, then by its
/// file name in the directories; a file is used only if it is the build that was loaded. Returns a line
/// for each module that was not found, too.
pub(crate) fn named(snapshot: &Snapshot, directories: &[PathBuf]) -> (Snapshot, Vec<String>) {
    let mut symbolizer = Symbolizer::new();
    let mut not_found = BTreeMap::new();
    let named = snapshot.name_frames(|module, file_addr| {
        let places = directories.iter().map(|directory| directory.join(module.name()));
        let mut places = std::iter::once(PathBuf::from(&*module.path)).chain(places);
        let mut symbols = symbolizer.resolve(&file_at(places.next(), module), file_addr);
        for place in places {
            if !is_not_there(&symbols) {
                break;
            }
            symbols = symbolizer.resolve(&file_at(Some(place), module), file_addr);
        }
        if let (true, Some(missing)) = (is_not_there(&symbols), &symbols.missing) {
            let (_, n_addrs) = not_found
                .entry(Arc::clone(&module.path))
                .or_insert_with(|| (missing.to_string(), 0_usize));
            *n_addrs += 1;
        }
        frames(module, file_addr, &symbols)
    });
    let line = |(path, (missing, n_addrs))| {
        format!("{n_addrs} addresses in {path} have no names: {missing}")
    };
    (named, not_found.into_iter().map(line).collect())
}

/// Whether a snapshot has fewer frames without names than another.
pub(crate) fn has_new_names(raw: &Snapshot, named: &Snapshot) -> bool {
    named.n_unnamed_frames() < raw.n_unnamed_frames()
}

fn file_at(place: Option<PathBuf>, module: &Module) -> ModuleFile {
    let file = ModuleFile::new(place.unwrap_or_default());
    match &module.build_id {
        Some(build_id) => file.with_build_id(&build_id[..]),
        None => file,
    }
}

/// Whether another file may be the right one.
fn is_not_there(symbols: &Symbols) -> bool {
    let missing = symbols.missing.as_ref();
    matches!(missing, Some(Missing::FileUnavailable { .. } | Missing::FileReplaced { .. }))
}

fn frames(module: &Arc<Module>, file_addr: u64, symbols: &Symbols) -> Vec<Frame> {
    if is_not_there(symbols) {
        // It stays as it is, to be named where the file is.
        return Vec::new();
    }
    let missing = match symbols.missing {
        Some(Missing::NotInSymbolTable { .. }) => MissingSource::Stripped,
        Some(Missing::OutsideCode) => MissingSource::OutsideModules,
        _ => MissingSource::NoDebugInfo,
    };
    let unnamed = Frame::unnamed(Arc::clone(module), file_addr);
    if symbols.frames.is_empty() {
        return vec![unnamed.named(None, None, missing)];
    }
    let frames = symbols.without_allocator().iter().map(|symbol| {
        let file = symbol.file.clone().map(|file| (file, symbol.line.unwrap_or(0)));
        let mut frame = unnamed.clone().named(symbol.function.clone(), file, missing);
        frame.directory = symbol.directory.clone();
        frame.with_inlined(symbol.is_inlined)
    });
    frames.collect()
}
